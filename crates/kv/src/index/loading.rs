//! Stamps as storage gives them, oldest first, on their way into an index that is ordered by key.
//!
//! Reading aside, this order is what a large store takes longest for at its start; so part of it is
//! made on another thread while there is more to read.

use std::panic;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use super::{Index, Stamp};

/// So many stamps are handed over at once; with fewer in all there is no other thread.
const CHUNK_COUNT: usize = 1 << 15;
/// Chunks that may wait.
const WAITING_MAX: usize = 2;

/// A key, and one version of it.
pub(super) type Keyed = (Box<[u8]>, Stamp);

/// Takes stamps in, oldest first, and makes an index of them.
#[derive(Default)]
pub(crate) struct Loading {
    chunk: Vec<Keyed>,
    sorter: Option<Sorter>,
}

struct Sorter {
    chunks: SyncSender<Vec<Keyed>>,
    thread: JoinHandle<Vec<Keyed>>,
}

impl Loading {
    /// The next younger stamp.
    pub(crate) fn push(&mut self, key: &[u8], stamp: Stamp) {
        self.chunk.push((key.into(), stamp));
        if self.chunk.len().is_multiple_of(CHUNK_COUNT) {
            self.hand_over();
        }
    }

    /// The index of all of them.
    pub(crate) fn finish(self) -> Index {
        let sorted = match self.sorter {
            None => sorted(self.chunk),
            Some(sorter) => sorter.finish(self.chunk),
        };
        Index::build(sorted)
    }

    fn hand_over(&mut self) {
        if self.sorter.is_none() {
            // Without another thread all is sorted in the end.
            self.sorter = Sorter::start().ok();
        }
        if let Some(sorter) = &self.sorter {
            sorter.take(std::mem::take(&mut self.chunk));
        }
    }
}

impl Sorter {
    fn start() -> std::io::Result<Self> {
        let (chunks, received) = mpsc::sync_channel::<Vec<Keyed>>(WAITING_MAX);
        let work = move || {
            let mut runs = Vec::new();
            received.into_iter().for_each(|chunk| add_run(&mut runs, chunk));
            while let Some(run) = runs.pop() {
                let Some(before) = runs.pop() else { return run };
                runs.push(merged(before, run));
            }
            Vec::new()
        };
        let thread = thread::Builder::new().name("index".to_owned()).spawn(work)?;
        Ok(Sorter { chunks, thread })
    }

    fn take(&self, chunk: Vec<Keyed>) {
        // Nobody takes it any more only if the thread panicked, which `finish` passes on.
        let _ = self.chunks.send(chunk);
    }

    /// All chunks, sorted.
    fn finish(self, last: Vec<Keyed>) -> Vec<Keyed> {
        self.take(last);
        drop(self.chunks);
        self.thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    }
}

/// Sorts a chunk, and merges it with what is not longer. So little is left to do after the last one.
fn add_run(runs: &mut Vec<Vec<Keyed>>, chunk: Vec<Keyed>) {
    let mut run = sorted(chunk);
    while let Some(before) = runs.pop_if(|before| before.len() <= run.len()) {
        run = merged(before, run);
    }
    runs.push(run);
}

/// Two sorted runs as one, which is fast because they are.
fn merged(mut one: Vec<Keyed>, mut other: Vec<Keyed>) -> Vec<Keyed> {
    one.append(&mut other);
    sorted(one)
}

/// By key; the stamps of one stay in order.
fn sorted(mut stamps: Vec<Keyed>) -> Vec<Keyed> {
    stamps.sort_by(|(one, _), (other, _)| one.cmp(other));
    stamps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revision::Revision;

    #[test]
    fn an_index_made_of_chunks_is_the_one_made_one_by_one() {
        for count in [0, 1, CHUNK_COUNT - 1, CHUNK_COUNT, 3 * CHUNK_COUNT, 5 * CHUNK_COUNT + 7] {
            let (mut loading, mut wanted) = (Loading::default(), Index::default());
            let count = i64::try_from(count).unwrap();
            for main in 1..=count {
                // Most keys come again, in other chunks too.
                let key = (main * 7_919 % (count * 3 / 10 + 1)).to_be_bytes();
                let stamp = wanted.put(&key, Revision { main, sub: 0 });
                loading.push(&key, stamp);
            }
            assert!(loading.finish() == wanted, "of {count} stamps");
        }
    }
}
