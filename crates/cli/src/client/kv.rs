//! `put`, `get` and `del`: from arguments to requests.

use std::ffi::OsString;
use std::io::Read;

use bytes::Bytes;
use clap::ValueEnum;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};

use super::error::CliError;
use super::keys::{KeyArgs, bytes};
use super::lease::parse_lease;
use super::output::{Output, Shown};

/// No server takes a larger value; a longer input is a mistake better told before it fills memory.
const STDIN_BYTES_MAX: u64 = 256 << 20;

/// Arguments of `put`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PutArgs {
    /// The key
    key: OsString,
    /// The value; read from standard input when absent
    value: Option<OsString>,
    /// Lease to attach the key to, in hexadecimal
    #[arg(long, value_name = "ID", default_value = "0", value_parser = parse_lease)]
    lease: i64,
    /// Also print what the key held before
    #[arg(long)]
    prev_kv: bool,
    /// Keep the value, change the lease
    #[arg(long)]
    ignore_value: bool,
    /// Keep the lease, change the value
    #[arg(long)]
    ignore_lease: bool,
}

impl PutArgs {
    /// The request, with a value from standard input when none was given.
    pub(super) fn request(&self) -> Result<PutRequest, CliError> {
        self.with_value(|| {
            let mut value = Vec::new();
            std::io::stdin()
                .lock()
                .take(STDIN_BYTES_MAX + 1)
                .read_to_end(&mut value)
                .map_err(|error| CliError::Failed(format!("cannot read the value: {error}")))?;
            if STDIN_BYTES_MAX < value.len() as u64 {
                return Err(CliError::Input(format!(
                    "the value is longer than {STDIN_BYTES_MAX} bytes"
                )));
            }
            if value.is_empty() {
                // A producer that died, or no standard input at all: no reason to lose a value.
                return Err(CliError::Arguments(
                    "put command needs 1 argument and input from stdin or 2 arguments".to_owned(),
                ));
            }
            Ok(value.into())
        })
    }

    /// The request inside a transaction, where standard input is the transaction.
    pub(super) fn request_in_txn(&self) -> Result<PutRequest, CliError> {
        self.with_value(|| {
            Err(CliError::Arguments("put in a transaction needs a key and a value".to_owned()))
        })
    }

    fn with_value(
        &self,
        absent: impl FnOnce() -> Result<Bytes, CliError>,
    ) -> Result<PutRequest, CliError> {
        let value = match &self.value {
            Some(_) if self.ignore_value => {
                return Err(CliError::Arguments(
                    "put command needs only 1 argument when 'ignore-value' is set".to_owned(),
                ));
            }
            Some(value) => bytes(value),
            None if self.ignore_value => Bytes::new(),
            None => absent()?,
        };
        Ok(PutRequest {
            key: bytes(&self.key),
            value,
            lease: self.lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }
}

/// Arguments of `get`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    keys: KeyArgs,
    /// As of this revision; 0 is now
    #[arg(long, value_name = "REVISION", default_value_t = 0, allow_negative_numbers = true)]
    rev: i64,
    /// At most this many keys; 0 is all
    #[arg(long, value_name = "COUNT", default_value_t = 0, allow_negative_numbers = true)]
    limit: i64,
    /// Order of the keys
    #[arg(long, ignore_case = true)]
    order: Option<Order>,
    /// What the order is by
    #[arg(long, ignore_case = true)]
    sort_by: Option<SortBy>,
    /// l: linearizable, as new as any answer before; s: serializable, perhaps old, without a quorum
    #[arg(long, value_enum, default_value = "l", ignore_case = true)]
    consistency: Consistency,
    /// Only the keys
    #[arg(long)]
    keys_only: bool,
    /// Only the number of keys
    #[arg(long)]
    count_only: bool,
    /// In simple output, only the values
    #[arg(long)]
    print_value_only: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Order {
    Ascend,
    Descend,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "UPPER")]
enum SortBy {
    Create,
    Key,
    Modify,
    Value,
    Version,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Consistency {
    L,
    S,
}

impl GetArgs {
    /// The request.
    pub(super) fn request(&self) -> Result<RangeRequest, CliError> {
        let (key, range_end) = self.keys.interval()?;
        let order = match self.order {
            None => SortOrder::None,
            Some(Order::Ascend) => SortOrder::Ascend,
            Some(Order::Descend) => SortOrder::Descend,
        };
        let target = match self.sort_by {
            None | Some(SortBy::Key) => SortTarget::Key,
            Some(SortBy::Create) => SortTarget::Create,
            Some(SortBy::Modify) => SortTarget::Mod,
            Some(SortBy::Value) => SortTarget::Value,
            Some(SortBy::Version) => SortTarget::Version,
        };
        Ok(RangeRequest {
            key,
            range_end,
            limit: self.limit,
            revision: self.rev,
            sort_order: order.into(),
            sort_target: target.into(),
            serializable: matches!(self.consistency, Consistency::S),
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..RangeRequest::default()
        })
    }

    /// Values alone are for people, and have no other form.
    pub(super) fn refuse_values_in(&self, output: &Output) -> Result<(), CliError> {
        if self.print_value_only && !output.is_simple() {
            let text = "print-value-only is only for `--write-out=simple`";
            return Err(CliError::Arguments(text.to_owned()));
        }
        Ok(())
    }

    /// What of the answer is printed.
    pub(super) fn shown(&self) -> Shown {
        match (self.count_only, self.print_value_only) {
            (true, _) => Shown::Count,
            (false, true) => Shown::Values,
            (false, false) => Shown::Pairs,
        }
    }
}

/// Arguments of `del`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DelArgs {
    #[command(flatten)]
    keys: KeyArgs,
    /// Also print what was deleted
    #[arg(long)]
    prev_kv: bool,
}

impl DelArgs {
    /// The request.
    pub(super) fn request(&self) -> Result<DeleteRangeRequest, CliError> {
        let (key, range_end) = self.keys.interval()?;
        Ok(DeleteRangeRequest { key, range_end, prev_kv: self.prev_kv })
    }
}
