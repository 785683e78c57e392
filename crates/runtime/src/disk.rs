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

use crate::metrics::{Gauge, Metrics};
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
/// without space is no failure as long as nothing was written, nor is that no file can be opened: the
/// group waits until there is some, or one can, and meanwhile the metrics tell, so that nothing
/// further is accepted.
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

/// Appends a group, and waits for space, or for a file, if there is none; nothing when the end comes
/// first.
fn write(
    wal: &mut Wal,
    group: &[Write],
    inbox: &Receiver<Work>,
    metrics: &Metrics,
) -> Option<Written> {
    loop {
        let done = wal.append(group);
        if wal.is_poisoned() {
            return Some(done);
        }
        let is_full = matches!(done, Err(WalError::Full { .. }));
        let is_out_of_files = matches!(done, Err(WalError::TooManyFiles { .. }));
        let waited = turn(&metrics.disk_full, is_full);
        let waited = turn(&metrics.disk_out_of_files, is_out_of_files) || waited;
        match &done {
            Err(error) if is_full || is_out_of_files => {
                if waited {
                    tracing::error!("{error}; writes are refused until then, reads go on");
                }
            }
            _ => {
                if waited && done.is_ok() {
                    tracing::info!("the log has its next file; writes are accepted");
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

/// Sets a gauge of one bit; whether it was the other way.
fn turn(gauge: &Gauge, is_on: bool) -> bool {
    let was_on = gauge.value() != 0;
    gauge.set(u64::from(is_on));
    was_on != is_on
}

/// Compacts the log, if that is possible now: the next compaction makes up for one that is not.
fn compact(wal: &mut Wal, mark: &Mark) -> Result<(), WalError> {
    match wal.compact(mark) {
        Err(
            error @ (WalError::Io { .. } | WalError::Full { .. } | WalError::TooManyFiles { .. }),
        ) if !wal.is_poisoned() => {
            tracing::warn!(%error, "old log files are left for later");
            Ok(())
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use quorate_types::{Index, LogEntry};
    use quorate_wal::testing::{Fault, SimDisk};
    use quorate_wal::{Identity, Options};

    use super::*;

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Running {
        disk: SimDisk,
        inbox: std::sync::mpsc::Sender<Work>,
        outbox: mpsc::UnboundedReceiver<Written>,
        metrics: Arc<Metrics>,
        thread: std::thread::JoinHandle<()>,
        next: u64,
    }

    impl Running {
        fn new() -> Running {
            let disk = SimDisk::new();
            let options = Options { segment_bytes: 4096 };
            let (path, owner) = (std::path::Path::new("/log"), Identity::default());
            let shared: Arc<SimDisk> = Arc::new(disk.clone());
            Wal::create(shared.clone(), path, owner, options.clone(), &Mark::default(), None)
                .unwrap();
            let (wal, _) = Wal::open(shared, path, options, &mut |_, _| {}).unwrap();
            let (inbox, work) = std::sync::mpsc::channel();
            let (written, outbox) = mpsc::unbounded_channel();
            let metrics = Arc::new(Metrics::default());
            let seen = Arc::clone(&metrics);
            let thread = std::thread::spawn(move || run(wal, work, written, seen));
            Running { disk, inbox, outbox, metrics, thread, next: 1 }
        }

        fn write(&mut self) {
            let data = Bytes::from(vec![b'x'; 500]);
            let entry = LogEntry { index: Index(self.next), stamp: 1, kind: 0, data };
            self.next += 1;
            let write = Write { entries: vec![entry], must_sync: true, ..Write::default() };
            self.inbox.send(Work::Write(vec![write])).unwrap();
        }

        /// What became of the group, or nothing as soon as it waits for space.
        fn written(&mut self) -> Option<Written> {
            let deadline = Instant::now() + PATIENCE;
            loop {
                if let Ok(written) = self.outbox.try_recv() {
                    return Some(written);
                }
                // A gauge tells nobody that it has changed.
                if self.is_waiting() {
                    return None;
                }
                assert!(Instant::now() < deadline, "no answer");
                std::thread::sleep(Duration::from_millis(1));
            }
        }

        fn write_until_full(&mut self) {
            self.disk.set_space(20_000);
            loop {
                self.write();
                match self.written() {
                    Some(written) => written.unwrap(),
                    None => return,
                }
            }
        }

        fn wait_for_space(&mut self) {
            self.outbox.blocking_recv().expect("the thread runs").unwrap();
            assert!(!self.is_waiting());
        }

        fn is_waiting(&self) -> bool {
            [&self.metrics.disk_full, &self.metrics.disk_out_of_files].map(Gauge::value) != [0, 0]
        }
    }

    #[test]
    fn a_full_log_makes_its_own_room_while_a_group_waits() {
        let mut running = Running::new();
        for round in 0..3 {
            running.write_until_full();
            // The last one waits; all before it are durable.
            let mark = Mark { index: Index(running.next - 2), stamp: 1, ..Mark::default() };
            assert!(Index(6) < mark.index, "round {round}: a log of several files");
            running.inbox.send(Work::Compact(mark)).unwrap();
            running.wait_for_space();
        }
        drop(running.inbox);
        running.thread.join().unwrap();
    }

    #[test]
    fn a_log_that_can_open_no_file_waits_until_it_can() {
        let mut running = Running::new();
        for _ in 0..2 {
            running.disk.set_out_of_files(true);
            loop {
                running.write();
                match running.written() {
                    Some(written) => written.unwrap(),
                    None => break,
                }
            }
            assert_eq!(running.metrics.disk_full.value(), 0, "that is another thing");
            // Nor does a compaction fail meanwhile.
            let mark = Mark { index: Index(running.next - 2), stamp: 1, ..Mark::default() };
            running.inbox.send(Work::Compact(mark)).unwrap();
            running.disk.set_out_of_files(false);
            running.wait_for_space();
        }
        drop(running.inbox);
        running.thread.join().unwrap();
    }

    #[test]
    fn a_group_that_waits_for_space_does_not_hold_up_the_end() {
        let mut running = Running::new();
        running.write_until_full();
        drop(running.inbox);
        running.thread.join().unwrap();
        assert!(running.outbox.blocking_recv().is_none(), "it was not vouched for");
    }

    #[test]
    fn a_failure_is_told_once_and_ends_the_thread() {
        for compacts in [false, true] {
            let mut running = Running::new();
            for _ in 0..20 {
                running.write();
                running.written().unwrap().unwrap();
            }
            // The write, or its sync.
            running.disk.fail_in(u64::from(compacts), Fault::Error);
            match compacts {
                true => {
                    let mark = Mark { index: Index(20), stamp: 1, ..Mark::default() };
                    running.inbox.send(Work::Compact(mark)).unwrap();
                }
                false => running.write(),
            }
            assert!(running.outbox.blocking_recv().is_some_and(|written| written.is_err()));
            running.thread.join().unwrap();
            assert!(running.outbox.blocking_recv().is_none());
        }
    }

    #[test]
    fn a_file_that_cannot_be_removed_is_left_for_later() {
        let mut running = Running::new();
        for _ in 0..20 {
            running.write();
            running.written().unwrap().unwrap();
        }
        // Written and synced; then comes the first removal.
        running.disk.fail_in(2, Fault::Error);
        let mark = Mark { index: Index(20), stamp: 1, ..Mark::default() };
        running.inbox.send(Work::Compact(mark)).unwrap();
        running.write();
        running.wait_for_space();
        let mark = Mark { index: Index(21), stamp: 1, ..Mark::default() };
        running.inbox.send(Work::Compact(mark)).unwrap();
        running.write();
        running.wait_for_space();
        drop(running.inbox);
        running.thread.join().unwrap();
        assert!(running.metrics.wal_bytes.value() < 20_000, "removed with the next compaction");
    }
}
