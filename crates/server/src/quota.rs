//! What a change may add to the state, estimated as etcd does, before it is proposed.

use quorate_kv::{Command, PutRequest, RequestOp, TxnRequest};

/// Counted for each pair beside its bytes.
const PAIR_OVERHEAD_BYTES: u64 = 256;
/// Counted for each lease.
const LEASE_BYTES: u64 = 64;

/// Bytes that a change may add; `None` if it can add none, and is welcome in a full store.
pub(crate) fn cost_bytes(command: &Command) -> Option<u64> {
    match command {
        Command::Put(put) => Some(put_bytes(put)),
        Command::Txn(txn) if puts(txn) => Some(txn_bytes(txn)),
        Command::LeaseGrant { .. } => Some(LEASE_BYTES),
        _ => None,
    }
}

fn put_bytes(put: &PutRequest) -> u64 {
    PAIR_OVERHEAD_BYTES + (put.key.len() + put.value.len()) as u64
}

/// Which branch will be done is not known yet: the larger one counts.
fn txn_bytes(txn: &TxnRequest) -> u64 {
    list_bytes(&txn.success).max(list_bytes(&txn.failure))
}

fn list_bytes(ops: &[RequestOp]) -> u64 {
    ops.iter()
        .map(|op| match op {
            RequestOp::Put(put) => put_bytes(put),
            RequestOp::Txn(txn) => txn_bytes(txn),
            RequestOp::Empty | RequestOp::Range(_) | RequestOp::DeleteRange(_) => 0,
        })
        .sum()
}

fn puts(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        RequestOp::Put(_) => true,
        RequestOp::Txn(txn) => puts(txn),
        RequestOp::Empty | RequestOp::Range(_) | RequestOp::DeleteRange(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use quorate_kv::{CompactionRequest, DeleteRangeRequest, RangeRequest};

    use super::*;

    #[test]
    fn puts_cost_and_nothing_else_does() {
        let put = |bytes: usize| PutRequest {
            key: vec![0; 10].into(),
            value: vec![0; bytes].into(),
            ..PutRequest::default()
        };
        let one = || RequestOp::Put(put(100));
        let delete = || RequestOp::DeleteRange(DeleteRangeRequest::default());
        let txn = |success, failure| TxnRequest { compare: Vec::new(), success, failure };
        for (command, want) in [
            (Command::Put(put(100)), Some(366)),
            (Command::DeleteRange(DeleteRangeRequest::default()), None),
            (Command::LeaseGrant { id: 1, ttl_seconds: 1 }, Some(64)),
            (Command::LeaseRevoke { id: 1 }, None),
            (Command::Compact(CompactionRequest::default()), None),
            (Command::Txn(txn(vec![one(), one()], vec![one()])), Some(732)),
            (Command::Txn(txn(vec![], vec![one()])), Some(366)),
            (
                Command::Txn(txn(
                    vec![delete(), RequestOp::Range(RangeRequest::default())],
                    vec![],
                )),
                None,
            ),
            (
                Command::Txn(txn(vec![RequestOp::Txn(txn(vec![one()], vec![])), one()], vec![])),
                Some(732),
            ),
            (Command::Txn(txn(vec![], vec![])), None),
        ] {
            assert_eq!(cost_bytes(&command), want, "{command:?}");
        }
    }
}
