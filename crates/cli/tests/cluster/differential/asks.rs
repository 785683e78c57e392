//! What is asked, drawn at random: few keys, so that requests meet each other's.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest, compare, request_op,
};

use super::side::Answer;

/// Keys that most requests draw from.
const KEYS: u64 = 30;
/// Values that make a response worth cutting.
const LONG_BYTES: usize = 170_000;
/// How many of them one transaction puts: under the limit of a request, and with the pairs before
/// over that of a response.
const LONG_KEYS: u64 = 8;

/// What a long run must have been refused with at least once.
pub(super) const REFUSALS: &[&str] = &[
    "etcdserver: key is not provided",
    "etcdserver: key not found",
    "etcdserver: value is provided",
    "etcdserver: lease is provided",
    "etcdserver: too many operations in txn request",
    "etcdserver: duplicate key given in txn request",
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: requested lease not found",
    "etcdserver: lease already exists",
    "etcdserver: too large lease TTL",
    "etcdserver: request is too large",
    "grpc: received message larger than max",
];

#[derive(Clone, Debug)]
pub(super) enum Ask {
    Put(PutRequest),
    Range(RangeRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    KeepAlive(LeaseKeepAliveRequest),
    Leases,
    HashKv(HashKvRequest),
    Watch(Change),
}

/// What is done about watchers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Open,
    Close,
    Progress,
}

/// What is known of the state, and requests are drawn by.
pub(super) struct Known {
    pub(super) revision: i64,
    pub(super) compacted: i64,
    leases: Vec<i64>,
    /// What was put at length comes once more: only then are pairs before long as well.
    is_long_due: bool,
}

impl Default for Known {
    fn default() -> Self {
        Known { revision: 1, compacted: -1, leases: Vec::new(), is_long_due: false }
    }
}

impl Known {
    pub(super) fn ask(&self, dice: &mut Dice) -> Ask {
        if self.is_long_due {
            return Ask::Txn(long_txn());
        }
        match dice.roll(1000) {
            0..350 => Ask::Put(self.put(dice)),
            350..640 => Ask::Range(self.range(dice)),
            640..700 => Ask::Delete(delete(dice)),
            700..880 => Ask::Txn(self.txn(dice, 2)),
            880..882 => Ask::Txn(long_txn()),
            882..886 => Ask::Txn(wide_txn(dice)),
            886..890 => {
                // Too long for a proposal; too long for a message.
                let bytes = [1_600_000, 2_200_000][dice.roll(2) as usize];
                let value = Bytes::from(vec![b'x'; bytes]);
                Ask::Put(PutRequest { key: key(dice), value, ..PutRequest::default() })
            }
            890..902 => Ask::Compact(CompactionRequest {
                revision: self.revision - dice.roll(60) as i64 + 3,
                physical: dice.roll(4) == 0,
            }),
            902..925 => Ask::Grant(LeaseGrantRequest {
                ttl: if dice.roll(30) == 0 { 9_000_000_001 } else { 1000 + dice.roll(5) as i64 },
                id: match dice.roll(14) as i64 {
                    0 => -1,
                    id => id,
                },
            }),
            925..940 => Ask::Revoke(LeaseRevokeRequest { id: self.lease(dice) }),
            940..950 => Ask::TimeToLive(LeaseTimeToLiveRequest {
                id: self.lease(dice),
                keys: dice.roll(2) == 0,
            }),
            950..960 => Ask::KeepAlive(LeaseKeepAliveRequest { id: self.lease(dice) }),
            960..965 => Ask::Leases,
            965..970 => Ask::HashKv(self.hash_kv(dice)),
            970..985 => Ask::Watch(Change::Open),
            985..998 => Ask::Watch(Change::Close),
            _ => Ask::Watch(Change::Progress),
        }
    }

    pub(super) fn learn(&mut self, ask: &Ask, answer: &Answer) {
        self.revision = self.revision.max(answer.revision);
        match ask {
            Ask::Grant(grant) if !answer.is_refused => self.leases.push(grant.id),
            Ask::Revoke(revoke) => self.leases.retain(|id| *id != revoke.id),
            // No other has as many.
            Ask::Txn(txn) if txn.success.len() as u64 == LONG_KEYS => {
                self.is_long_due = !self.is_long_due;
            }
            Ask::Compact(compact) if !answer.is_refused => self.compacted = compact.revision,
            _ => {}
        }
    }

    fn lease(&self, dice: &mut Dice) -> i64 {
        match self.leases.is_empty() || dice.roll(6) == 0 {
            true => 1 + dice.roll(20) as i64,
            false => self.leases[dice.roll(self.leases.len() as u64) as usize],
        }
    }

    fn put(&self, dice: &mut Dice) -> PutRequest {
        let (ignore_value, ignore_lease) = (dice.roll(12) == 0, dice.roll(12) == 0);
        let value = if ignore_value && dice.roll(5) != 0 { Bytes::new() } else { value(dice) };
        let lease = match (ignore_lease, dice.roll(5)) {
            (true, 1..) => 0,
            (_, 0) => self.lease(dice),
            _ => 0,
        };
        let prev_kv = dice.roll(3) == 0;
        PutRequest { key: key(dice), value, lease, prev_kv, ignore_value, ignore_lease }
    }

    fn range(&self, dice: &mut Dice) -> RangeRequest {
        let (sort_order, sort_target) = match dice.roll(2) {
            0 => (dice.roll(3) as i32, 0),
            _ => (dice.roll(3) as i32, dice.roll(5) as i32),
        };
        let mut near = |odds| match dice.roll(odds) {
            0 => self.revision - dice.roll(40) as i64 + 1,
            _ => 0,
        };
        let revision = near(3);
        let (min_mod_revision, max_mod_revision) = (near(10), near(10));
        let (min_create_revision, max_create_revision) = (near(10), near(10));
        // etcd cuts first and sorts then, if only the target is given: see PARITY.md.
        let is_cut_first = sort_order == 0 && sort_target != 0;
        let limit = [0, 0, 1, 2, 5, -1][dice.roll(6) as usize];
        RangeRequest {
            key: key(dice),
            range_end: range_end(dice),
            limit: if is_cut_first { 0 } else { limit },
            revision,
            sort_order,
            sort_target,
            serializable: dice.roll(2) == 0,
            keys_only: dice.roll(6) == 0,
            count_only: dice.roll(8) == 0,
            min_mod_revision,
            max_mod_revision,
            min_create_revision,
            max_create_revision,
        }
    }

    fn txn(&self, dice: &mut Dice, depth: u32) -> TxnRequest {
        let compare = (0..dice.roll(3)).map(|_| self.compare(dice)).collect();
        let list = |dice: &mut Dice| {
            let mut ops: Vec<RequestOp> = (0..dice.roll(4)).map(|_| self.op(dice)).collect();
            // Never two: a put in one and a deletion in the next are taken otherwise, see PARITY.md.
            if 0 < depth && dice.roll(5) == 0 {
                ops.push(op(request_op::Request::RequestTxn(self.txn(dice, depth - 1))));
            }
            ops
        };
        let (success, failure) = (list(dice), list(dice));
        TxnRequest { compare, success, failure }
    }

    fn op(&self, dice: &mut Dice) -> RequestOp {
        op(match dice.roll(20) {
            0..9 => request_op::Request::RequestPut(self.put(dice)),
            9..15 => request_op::Request::RequestRange(self.range(dice)),
            15..19 => {
                let mut delete = delete(dice);
                // etcd takes a put together with a deletion of all keys from there on: see PARITY.md.
                if delete.range_end == b"\0"[..] {
                    delete.range_end = Bytes::new();
                }
                request_op::Request::RequestDeleteRange(delete)
            }
            _ => return RequestOp::default(),
        })
    }

    fn compare(&self, dice: &mut Dice) -> Compare {
        let number = match dice.roll(3) {
            0 => 0,
            1 => dice.roll(4) as i64,
            _ => self.revision - dice.roll(20) as i64,
        };
        // Some that nobody knows.
        let is_odd = dice.roll(40) == 0;
        let (targets, results) = if is_odd { (7, 6) } else { (5, 4) };
        let (target, result) = (dice.roll(targets) as i32, dice.roll(results) as i32);
        let target_union = match target {
            _ if dice.roll(12) == 0 => None,
            0 => Some(compare::TargetUnion::Version(number)),
            1 => Some(compare::TargetUnion::CreateRevision(number)),
            2 => Some(compare::TargetUnion::ModRevision(number)),
            3 => Some(compare::TargetUnion::Value(value(dice))),
            _ => Some(compare::TargetUnion::Lease(number)),
        };
        let range_end = if dice.roll(4) == 0 { range_end(dice) } else { Bytes::new() };
        Compare { result, target, key: key(dice), range_end, target_union }
    }

    fn hash_kv(&self, dice: &mut Dice) -> HashKvRequest {
        let revision = match dice.roll(3) {
            0 => 0,
            _ => (self.revision - dice.roll(60) as i64 + 2).max(0),
        };
        // Of the compacted revision itself, etcd 3.4 says that it is gone; later ones answer.
        HashKvRequest { revision: revision + i64::from(revision == self.compacted) }
    }
}

fn op(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Much in one revision.
fn long_txn() -> TxnRequest {
    let put = |number| PutRequest {
        key: numbered(number),
        value: Bytes::from(vec![b'y'; LONG_BYTES]),
        ..PutRequest::default()
    };
    let success = (0..LONG_KEYS).map(|number| op(request_op::Request::RequestPut(put(number))));
    TxnRequest { success: success.collect(), ..TxnRequest::default() }
}

/// About as many operations as there may be, some of them one level down.
fn wide_txn(dice: &mut Dice) -> TxnRequest {
    let read = |dice: &mut Dice| {
        op(request_op::Request::RequestRange(RangeRequest {
            key: numbered(dice.roll(KEYS)),
            ..RangeRequest::default()
        }))
    };
    let (within, beside) = (126 + dice.roll(3), dice.roll(4));
    let inner =
        TxnRequest { failure: (0..within).map(|_| read(dice)).collect(), ..TxnRequest::default() };
    let mut success: Vec<RequestOp> = (0..beside).map(|_| read(dice)).collect();
    if dice.roll(2) == 0 {
        success.push(op(request_op::Request::RequestTxn(inner)));
    } else {
        success.extend(inner.failure);
    }
    TxnRequest { success, ..TxnRequest::default() }
}

pub(super) fn key(dice: &mut Dice) -> Bytes {
    match dice.roll(60) {
        0 => Bytes::new(),
        1 => Bytes::from_static(b"\0"),
        2 => Bytes::from_static(b"\xff"),
        _ => numbered(dice.roll(KEYS)),
    }
}

fn numbered(number: u64) -> Bytes {
    Bytes::from(format!("k{number:02}"))
}

fn value(dice: &mut Dice) -> Bytes {
    Bytes::from(vec![b'a' + dice.roll(5) as u8; dice.roll(4) as usize])
}

pub(super) fn range_end(dice: &mut Dice) -> Bytes {
    match dice.roll(8) {
        0..3 => Bytes::new(),
        3 => Bytes::from_static(b"\0"),
        4 => Bytes::from_static(b"l"),
        _ => key(dice),
    }
}

fn delete(dice: &mut Dice) -> DeleteRangeRequest {
    // Few of many keys at a time, or little would be there to find.
    let range_end = if dice.roll(3) == 0 { range_end(dice) } else { Bytes::new() };
    DeleteRangeRequest { key: key(dice), range_end, prev_kv: dice.roll(2) == 0 }
}

pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed.max(1))
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }
}
