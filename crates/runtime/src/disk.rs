//! The disk thread: takes groups of writes, makes each group durable with one write and one sync.
//!
//! It is handed one group at a time; whatever gathers meanwhile is the next group. So the slower the
//! disk, the larger the groups, and heartbeats never wait behind it.
//!
//! A compaction waits for no group: its mark is an entry that is durable already, and that no write
//! can replace any more. So a log whose volume is full makes its own room while a group waits.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use quorate_types::Mark;
use quorate_wal::{Wal, WalError, Write};
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::room::FULL_RETRY;

/// Work for the disk thread, in order.
#[derive(Debug, PartialEq)]
pub(crate) enum Work {
    /// Make these durable; answered when they are.
    Write(Vec<Write>),
    /// Compact the log up to here; answered only if that fails for good.
    Compact(Mark),
}

/// What became of a group.
pub(crate) type Written = Result<(), WalError>;

/// Runs until its inbox closes. A failure is final: it is reported and the thread ends. A volume
/// without space is no failure as long as nothing was written: the group waits until there is some,
/// and meanwhile the metrics tell, so that nothing further is accepted.
pub(crate) fn run(
    mut wal: Wal,
    inbox: Receiver<Work>,
    outbox: mpsc::UnboundedSender<Written>,
    metrics: std::sync::Arc<Metrics>,
) {
    while let Ok(work) = inbox.recv() {
        let answer = match work {
            Work::Write(group) => {
                let started = Instant::now();
                let Some(written) = write(&mut wal, &group, &inbox, &metrics) else { return };
                metrics.on_group(group.len(), started.elapsed());
                Some(written)
            }
            Work::Compact(mark) => compact(&mut wal, &mark).err().map(Err),
        };
        metrics.wal_bytes.set(wal.size_bytes());
        let failed = matches!(answer, Some(Err(_)));
        if let Some(answer) = answer
            && outbox.send(answer).is_err()
        {
            return;
        }
        if failed {
            return;
        }
    }
}

/// Appends a group, and waits for space if there is none; nothing when the end comes first.
fn write(
    wal: &mut Wal,
    group: &[Write],
    inbox: &Receiver<Work>,
    metrics: &Metrics,
) -> Option<Written> {
    loop {
        match wal.append(group) {
            Err(error @ WalError::Full { .. }) if !wal.is_poisoned() => {
                if metrics.disk_full.value() == 0 {
                    tracing::error!("{error}; writes are refused until then, reads go on");
                    metrics.disk_full.set(1);
                }
            }
            done => {
                if metrics.disk_full.value() == 1 && done.is_ok() {
                    tracing::info!("the volume has space again; writes are accepted");
                    metrics.disk_full.set(0);
                }
                return Some(done);
            }
        }
        match inbox.recv_timeout(FULL_RETRY) {
            Ok(Work::Compact(mark)) => {
                if let Err(error) = compact(wal, &mark) {
                    return Some(Err(error));
                }
            }
            // The next group is handed over when this one is done.
            Ok(Work::Write(_)) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Compacts the log, if that is possible now: the next compaction makes up for one that is not.
fn compact(wal: &mut Wal, mark: &Mark) -> Result<(), WalError> {
    match wal.compact(mark) {
        Err(error @ (WalError::Io { .. } | WalError::Full { .. })) if !wal.is_poisoned() => {
            tracing::warn!(%error, "old log files are left for later");
            Ok(())
        }
        done => done,
    }
}
