//! The state's files where something may be short for a while: a write that finds no space waits for
//! it, and so does who cannot open a file because too many are open.
//!
//! Nobody sees a commit before it ends, a write to a fixed place can be done again, and what it
//! holds is in the log. So nothing is lost by waiting, and reads go on meanwhile. Only writes wait:
//! a failed sync is final.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_wal::is_out_of_files;
use redb::StorageBackend;

use crate::metrics::Metrics;

/// How often a write that found the volume full is tried again.
pub(crate) const FULL_RETRY: Duration = Duration::from_millis(200);

/// Whether to wait for what is short: only while the node runs. Before, an error stops the start; after,
/// nothing may delay the end.
#[derive(Debug)]
pub(crate) struct Room {
    waits: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Room {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Room { waits: AtomicBool::new(false), metrics }
    }

    /// From now on a full volume, or want of files, is waited out, or no longer.
    pub(crate) fn wait_for_space(&self, waits: bool) {
        self.waits.store(waits, Ordering::Release);
    }

    /// Whether the node runs.
    pub(crate) fn is_running(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// Opens a file, or several of which none stays open if one cannot be.
    pub(crate) fn open<T>(&self, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut has_told = false;
        loop {
            match attempt() {
                Err(error) if is_out_of_files(&error) && self.waits.load(Ordering::Acquire) => {
                    if !has_told {
                        tracing::error!(
                            "too many open files to replace the state; close some, or raise the \
                             limit (`ulimit -n`)"
                        );
                        has_told = true;
                    }
                    std::thread::sleep(FULL_RETRY);
                }
                done => return done,
            }
        }
    }

    fn write(&self, attempt: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let full = &self.metrics.state_full;
        loop {
            match attempt() {
                Err(error) if is_full(&error) && self.waits.load(Ordering::Acquire) => {
                    if full.value() == 0 {
                        tracing::error!(
                            "no space left to flush the state; free some on that volume; writes \
                             are refused until then, reads go on"
                        );
                        full.set(1);
                    }
                    std::thread::sleep(FULL_RETRY);
                }
                done => {
                    if full.value() == 1 && done.is_ok() {
                        tracing::info!("the volume of the state has space again");
                        full.set(0);
                    }
                    return done;
                }
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Storage whose writes wait for space.
#[derive(Debug)]
pub(crate) struct Patient<S> {
    pub(crate) storage: S,
    pub(crate) room: Arc<Room>,
    /// Not while it is only being made: what it takes may be what is short.
    pub(crate) is_in_use: Arc<AtomicBool>,
}

impl<S> Patient<S> {
    fn change(&self, attempt: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match self.is_in_use.load(Ordering::Acquire) {
            true => self.room.write(attempt),
            false => attempt(),
        }
    }
}

impl<S: StorageBackend> StorageBackend for Patient<S> {
    fn len(&self) -> io::Result<u64> {
        self.storage.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.storage.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|| self.storage.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.storage.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|| self.storage.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.storage.close()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use redb::backends::InMemoryBackend;

    use super::*;

    /// Has no space for so many writes.
    #[derive(Debug)]
    struct Full {
        memory: InMemoryBackend,
        left: AtomicU32,
        kind: io::ErrorKind,
    }

    impl StorageBackend for Full {
        fn len(&self) -> io::Result<u64> {
            self.memory.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.memory.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.memory.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.memory.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let less = |left: u32| left.checked_sub(1);
            match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
                Ok(_) => Err(self.kind.into()),
                Err(_) => self.memory.write(offset, data),
            }
        }
    }

    #[test]
    fn who_opens_a_file_waits_for_one_while_the_node_runs() {
        const EMFILE: i32 = 24;
        for (waits, code, want) in
            [(true, EMFILE, None), (true, 5, Some(5)), (false, EMFILE, Some(EMFILE))]
        {
            let room = Room::new(Arc::new(Metrics::default()));
            room.wait_for_space(waits);
            let tries = AtomicU32::new(0);
            let opened = room.open(|| match tries.fetch_add(1, Ordering::Relaxed) {
                0 => Err(io::Error::from_raw_os_error(code)),
                _ => Ok(()),
            });
            let code = opened.err().and_then(|error| error.raw_os_error());
            assert_eq!(code, want, "waits {waits}");
        }
    }

    #[test]
    fn only_a_running_node_waits_and_only_for_space() {
        for (waits, kind, want) in [
            (true, io::ErrorKind::StorageFull, None),
            (true, io::ErrorKind::QuotaExceeded, None),
            (true, io::ErrorKind::Other, Some(io::ErrorKind::Other)),
            (false, io::ErrorKind::StorageFull, Some(io::ErrorKind::StorageFull)),
        ] {
            let metrics = Arc::new(Metrics::default());
            let room = Arc::new(Room::new(Arc::clone(&metrics)));
            room.wait_for_space(waits);
            let memory = InMemoryBackend::new();
            let storage = Full { memory, left: AtomicU32::new(2), kind };
            let is_in_use = Arc::new(AtomicBool::new(true));
            let patient = Patient { storage, room, is_in_use };
            patient.set_len(4).unwrap();
            let outcome = patient.write(0, b"data").map_err(|error| error.kind());
            assert_eq!(outcome.err(), want, "{kind:?}, waits {waits}");
            assert_eq!(metrics.state_full.value(), 0, "over, or never seen");
            if want.is_none() {
                let mut held = [0; 4];
                patient.read(0, &mut held).unwrap();
                assert_eq!(&held, b"data");
            }
        }
    }

    #[test]
    fn nobody_waits_for_space_for_what_is_not_in_use_yet() {
        let metrics = Arc::new(Metrics::default());
        let room = Arc::new(Room::new(Arc::clone(&metrics)));
        room.wait_for_space(true);
        let (memory, kind) = (InMemoryBackend::new(), io::ErrorKind::StorageFull);
        let storage = Full { memory, left: AtomicU32::new(1), kind };
        let patient = Patient { storage, room, is_in_use: Arc::default() };
        patient.set_len(4).unwrap();
        let refused = patient.write(0, b"data").map_err(|error| error.kind());
        assert_eq!(refused, Err(kind));
        assert_eq!(metrics.state_full.value(), 0, "the state that is in use has room");
        patient.write(0, b"data").unwrap();
    }
}
