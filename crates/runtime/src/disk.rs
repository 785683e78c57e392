//! The disk thread: takes groups of writes, makes each group durable with one write and one sync.
//!
//! It is handed one group at a time; whatever gathers meanwhile is the next group. So the slower the
//! disk, the larger the groups, and heartbeats never wait behind it.

use std::sync::mpsc::TryRecvError;
use std::time::Instant;

use quorate_types::Mark;
use quorate_wal::{Wal, WalError, Write};
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::room::FULL_RETRY;

/// Work for the disk thread, in order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Group {
    /// Written first.
    pub(crate) writes: Vec<Write>,
    /// Then the log is compacted.
    pub(crate) compact: Option<Mark>,
}

/// What became of a group.
pub(crate) type Written = Result<(), WalError>;

/// Runs until its inbox closes. A failure is final: it is reported and the thread ends. A volume
/// without space is no failure as long as nothing was written: the group waits until there is some,
/// and meanwhile the metrics tell, so that nothing further is accepted.
pub(crate) fn run(
    mut wal: Wal,
    inbox: std::sync::mpsc::Receiver<Group>,
    outbox: mpsc::UnboundedSender<Written>,
    metrics: std::sync::Arc<Metrics>,
) {
    while let Ok(mut group) = inbox.recv() {
        let started = Instant::now();
        let writes = group.writes.len();
        let written = loop {
            match write(&mut wal, &mut group) {
                Err(error @ WalError::Full { .. }) if !wal.is_poisoned() => {
                    if metrics.disk_full.value() == 0 {
                        tracing::error!("{error}; writes are refused until then, reads go on");
                        metrics.disk_full.set(1);
                    }
                    if inbox.try_recv() == Err(TryRecvError::Disconnected) {
                        return;
                    }
                    std::thread::sleep(FULL_RETRY);
                }
                done => break done,
            }
        };
        if metrics.disk_full.value() == 1 && written.is_ok() {
            tracing::info!("the volume has space again; writes are accepted");
            metrics.disk_full.set(0);
        }
        metrics.on_group(writes, started.elapsed());
        metrics.wal_bytes.set(wal.size_bytes());
        let failed = written.is_err();
        if outbox.send(written).is_err() || failed {
            return;
        }
    }
}

/// Does what is left of the group, and takes out of it what is done.
fn write(wal: &mut Wal, group: &mut Group) -> Written {
    if !group.writes.is_empty() {
        wal.append(&group.writes)?;
        group.writes.clear();
    }
    if let Some(mark) = &group.compact {
        match wal.compact(mark) {
            // The log is compacted; files that could not be removed are tried again next time.
            Err(error @ WalError::Io { .. }) if !wal.is_poisoned() => {
                tracing::warn!(%error, "old log files are left for later");
            }
            done => done?,
        }
        group.compact = None;
    }
    Ok(())
}
