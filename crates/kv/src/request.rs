//! What clients ask, in etcd's terms but our own types.
//!
//! Numbers keep etcd's widths and meanings: revisions, leases and limits are `i64`, 0 means "not
//! given". Values nobody knows can be held, so that they are refused in etcd's order of checks
//! rather than lost in conversion.

use bytes::Bytes;

/// Reads the keys of an interval at one revision. etcd's `RangeRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// First key of the interval.
    pub key: Bytes,
    /// End of the interval, exclusive; empty: just `key`; one zero byte: no end.
    pub range_end: Bytes,
    /// At most so many pairs; 0 or less: all.
    pub limit: i64,
    /// The state after this revision; 0 or less: the newest.
    pub revision: i64,
    /// Which way to sort.
    pub sort_order: SortOrder,
    /// What to sort by.
    pub sort_target: SortTarget,
    /// The answer may be stale. Of interest to the caller only.
    pub serializable: bool,
    /// Leave out the values.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Leave out what was modified before this revision; 0: off.
    pub min_mod_revision: i64,
    /// Leave out what was modified after this revision; 0: off.
    pub max_mod_revision: i64,
    /// Leave out what was created before this revision; 0: off.
    pub min_create_revision: i64,
    /// Leave out what was created after this revision; 0: off.
    pub max_create_revision: i64,
}

/// Stores one pair. etcd's `PutRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutRequest {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The lease the key belongs to from now on; 0: none.
    pub lease: i64,
    /// Answer the pair as it was.
    pub prev_kv: bool,
    /// Keep the stored value.
    pub ignore_value: bool,
    /// Keep the stored lease.
    pub ignore_lease: bool,
}

/// Deletes the keys of an interval. etcd's `DeleteRangeRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeRequest {
    /// First key of the interval.
    pub key: Bytes,
    /// End of the interval, as in [`RangeRequest::range_end`].
    pub range_end: Bytes,
    /// Answer the deleted pairs.
    pub prev_kv: bool,
}

/// Compares, then does one of two lists, as one change. etcd's `TxnRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnRequest {
    /// All have to hold for `success`.
    pub compare: Vec<Compare>,
    /// Done when all compares hold.
    pub success: Vec<RequestOp>,
    /// Done otherwise.
    pub failure: Vec<RequestOp>,
}

/// One operation of a transaction. etcd's `RequestOp`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RequestOp {
    /// Nothing was set. Refused with etcd's `key not found`.
    #[default]
    Empty,
    /// Read.
    Range(RangeRequest),
    /// Store.
    Put(PutRequest),
    /// Delete.
    DeleteRange(DeleteRangeRequest),
    /// A transaction within.
    Txn(TxnRequest),
}

/// One condition of a transaction. etcd's `Compare`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compare {
    /// How the stored side relates to the given one.
    pub result: CompareResult,
    /// What is compared, with the given side.
    pub target: CompareTarget,
    /// The key.
    pub key: Bytes,
    /// With an end, every key of the interval has to satisfy the condition.
    pub range_end: Bytes,
}

/// The relation that a [`Compare`] asks for: stored side, relation, given side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompareResult {
    /// Equal.
    #[default]
    Equal,
    /// Stored is greater.
    Greater,
    /// Stored is less.
    Less,
    /// Not equal.
    NotEqual,
    /// A number nobody knows; holds always, as in etcd.
    Unknown(i32),
}

/// What a [`Compare`] looks at, and the given side. A side that was not given, or not of the
/// target's kind, is 0 or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The key's version.
    Version(i64),
    /// The revision that created it.
    Create(i64),
    /// The revision that changed it last.
    Mod(i64),
    /// Its value.
    Value(Bytes),
    /// Its lease.
    Lease(i64),
    /// A number nobody knows; both sides count as equal, as in etcd.
    Unknown(i32),
}

impl Default for CompareTarget {
    fn default() -> Self {
        CompareTarget::Version(0)
    }
}

/// Which way a range is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// Ascending by the target.
    #[default]
    None,
    /// Ascending.
    Ascend,
    /// Descending.
    Descend,
    /// A number nobody knows.
    Unknown(i32),
}

/// What a range is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// Key.
    #[default]
    Key,
    /// Version.
    Version,
    /// Create revision.
    Create,
    /// Mod revision.
    Mod,
    /// Value, byte by byte.
    Value,
    /// A number nobody knows.
    Unknown(i32),
}

/// Asks for alarms, raises one, or ends one. etcd's `AlarmRequest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlarmRequest {
    /// What to do.
    pub action: AlarmAction,
    /// Whose alarm; of no interest to [`AlarmAction::Get`].
    pub member: u64,
    /// Which alarm. To get, `None` stands for all.
    pub alarm: AlarmType,
}

/// What an [`AlarmRequest`] asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlarmAction {
    /// List alarms.
    #[default]
    Get,
    /// Raise one.
    Activate,
    /// End one.
    Deactivate,
    /// A number nobody knows; does nothing.
    Unknown(i32),
}

/// What is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmType {
    /// Nothing.
    #[default]
    None,
    /// A member's quota is used up: nothing may be added.
    NoSpace,
    /// A member's data differs from that of the others: nothing may be changed.
    Corrupt,
    /// A number nobody knows.
    Unknown(i32),
}

/// Forgets history before a revision. etcd's `CompactionRequest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionRequest {
    /// The oldest revision that stays readable.
    pub revision: i64,
    /// Whoever asked waits until the data is gone from storage.
    pub physical: bool,
}

impl TxnRequest {
    /// Whether it holds ranges only, so that no log entry is needed. A nested transaction counts
    /// as a write, whatever it holds.
    pub fn is_read_only(&self) -> bool {
        self.operations().all(|op| matches!(op, RequestOp::Range(_)))
    }

    /// Whether any state of the past is good enough: every operation is a range that says so.
    /// True for a transaction without operations.
    pub fn is_serializable(&self) -> bool {
        self.operations().all(|op| matches!(op, RequestOp::Range(range) if range.serializable))
    }

    fn operations(&self) -> impl Iterator<Item = &RequestOp> {
        self.success.iter().chain(&self.failure)
    }
}

/// Conversions from and to etcd's numbers.
macro_rules! numbered {
    ($name:ident { $($variant:ident = $number:literal),* }) => {
        impl From<i32> for $name {
            fn from(number: i32) -> Self {
                match number {
                    $($number => $name::$variant,)*
                    unknown => $name::Unknown(unknown),
                }
            }
        }

        impl From<$name> for i32 {
            fn from(value: $name) -> Self {
                match value {
                    $($name::$variant => $number,)*
                    $name::Unknown(unknown) => unknown,
                }
            }
        }
    };
}

numbered!(SortOrder { None = 0, Ascend = 1, Descend = 2 });
numbered!(SortTarget { Key = 0, Version = 1, Create = 2, Mod = 3, Value = 4 });
numbered!(AlarmAction { Get = 0, Activate = 1, Deactivate = 2 });
numbered!(AlarmType { None = 0, NoSpace = 1, Corrupt = 2 });
numbered!(CompareResult { Equal = 0, Greater = 1, Less = 2, NotEqual = 3 });
