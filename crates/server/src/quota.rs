//! What a change may add to the state, estimated as etcd does, before it is proposed; and what
//! becomes of one that there is no room for.
//!
//! What counts is what the state holds, not how long its file is: a file grows by leaps, and only
//! defragmentation makes it shorter. The member that runs out of room raises NOSPACE through the log,
//! and from there on all members refuse what grows, until somebody has made room and ends the alarm.

use std::sync::atomic::{AtomicBool, Ordering};

use quorate_kv::{
    Alarm, AlarmAction, AlarmRequest, AlarmType, Command, KvError, PutRequest, RequestOp,
    TxnRequest,
};
use tonic::Status;

use crate::local::Local;
use crate::status;

/// Counted for each pair beside its bytes.
const PAIR_OVERHEAD_BYTES: u64 = 256;
/// Counted for each lease.
const LEASE_BYTES: u64 = 64;

/// Whether this member is about to raise its alarm.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    is_raising: AtomicBool,
}

impl Local {
    /// Refuses a change that the quota has no room for, once the cluster knows of it.
    pub(crate) async fn check_quota(&self, command: &Command) -> Result<(), Status> {
        let Some(quota) = self.quota_bytes_max() else { return Ok(()) };
        let Some(cost) = cost_bytes(command) else { return Ok(()) };
        let used = self.used_bytes();
        if used.saturating_add(cost) < quota {
            return Ok(());
        }
        let own = Alarm { member: self.status().node.0, alarm: AlarmType::NoSpace };
        // One of all that are refused at a time raises it.
        if !self.store().alarms().contains(&own)
            && let Some(_turn) = self.quota().turn()
        {
            tracing::warn!(
                used_bytes = used,
                quota_bytes = quota,
                "the state has reached its quota: writes are refused until history is compacted, the \
                 state defragmented, and the alarm disarmed, or the quota is raised"
            );
            if let Err(error) = self.raise(own).await {
                tracing::warn!(reason = error.message(), "the alarm NOSPACE was not raised yet");
            }
        }
        Err(status::of_kv(KvError::NoSpace))
    }

    /// Has the cluster agree on an alarm.
    pub(crate) async fn raise(&self, alarm: Alarm) -> Result<(), Status> {
        let Alarm { member, alarm } = alarm;
        let request = AlarmRequest { action: AlarmAction::Activate, member, alarm };
        self.propose(&Command::Alarm(request)).await.map(drop)
    }
}

impl Quota {
    /// Whoever gets it raises the alarm; it ends with the value.
    fn turn(&self) -> Option<Turn<'_>> {
        let is_free = !self.is_raising.swap(true, Ordering::AcqRel);
        is_free.then_some(Turn(self))
    }
}

struct Turn<'a>(&'a Quota);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.is_raising.store(false, Ordering::Release);
    }
}

/// Bytes that a change may add; `None` if it can add none, and is welcome in a full store.
fn cost_bytes(command: &Command) -> Option<u64> {
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
