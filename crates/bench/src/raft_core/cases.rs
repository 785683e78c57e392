//! Replication measured: every payload, batch, way of proposing and kind of wire.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::measure::{self, Cost};
use super::{Group, Proposing, Quorate, RaftRs, Setup, replicate};

/// Lengths of the payload of an entry.
const PAYLOAD_BYTES: [usize; 3] = [16, 256, 4096];
/// Entries proposed before the leader is asked for its work.
const BATCHES: [usize; 3] = [1, 64, 1024];

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// Length of every entry's payload.
    pub payload_bytes: usize,
    /// Entries proposed before the leader is asked for its work.
    pub batch: usize,
    /// How they are proposed.
    pub proposing: Proposing,
    /// Whether waiting appends to a peer are merged.
    pub coalesce: bool,
    /// Whether messages go as bytes.
    pub encoded: bool,
}

/// Words that name the case, and by which it is chosen: `256/64/batched/moved`.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.payload_bytes, self.batch, self.proposals(), self.wire())
    }
}

impl Case {
    /// All cases.
    pub fn all() -> Vec<Case> {
        let mut cases = Vec::new();
        for encoded in [false, true] {
            for payload_bytes in PAYLOAD_BYTES {
                for batch in BATCHES {
                    for (proposing, coalesce) in [
                        (Proposing::Batched, false),
                        (Proposing::Each, false),
                        (Proposing::Each, true),
                    ] {
                        cases.push(Case { payload_bytes, batch, proposing, coalesce, encoded });
                    }
                }
            }
        }
        cases
    }

    /// How the entries are proposed, in a word.
    pub fn proposals(&self) -> &'static str {
        match (self.proposing, self.coalesce) {
            (Proposing::Batched, _) => "batched",
            (Proposing::Each, false) => "each",
            (Proposing::Each, true) => "each-coalesced",
        }
    }

    /// How messages go, in a word.
    pub fn wire(&self) -> &'static str {
        if self.encoded { "encoded" } else { "moved" }
    }

    /// Rounds that commit about `entries` entries.
    pub fn rounds(&self, entries: usize) -> usize {
        (entries / self.batch).max(1)
    }
}

/// A library, and how it is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Library {
    /// quorate-raft, by `ready` and `advance`.
    Quorate,
    /// quorate-raft, by messages to storage threads.
    QuorateAsync,
    /// raft-rs.
    RaftRs,
}

impl Library {
    /// All of them, in the order of the tables.
    pub const ALL: [Library; 3] = [Library::Quorate, Library::QuorateAsync, Library::RaftRs];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Library::Quorate => "quorate",
            Library::QuorateAsync => "quorate-async",
            Library::RaftRs => "raft-rs",
        }
    }

    fn setup(self, case: Case) -> Setup {
        Setup {
            coalesce: case.coalesce,
            encoded: case.encoded,
            async_writes: self == Library::QuorateAsync,
            ..Setup::of(3)
        }
    }

    /// Replicates `rounds` batches in a new group. `meter` is given that work, without the group's
    /// making, to do it once.
    pub fn replicate<T>(self, case: Case, rounds: usize, meter: impl FnOnce(Work<'_>) -> T) -> T {
        match self {
            Library::Quorate | Library::QuorateAsync => {
                replicate_in::<Quorate, T>(self.setup(case), case, rounds, meter)
            }
            Library::RaftRs => replicate_in::<RaftRs, T>(self.setup(case), case, rounds, meter),
        }
    }

    /// Lets an idle group of three tick so often; `meter` is as in [`Library::replicate`]. With
    /// `beats` every tick brings a round of heartbeats, else nothing is due.
    pub fn tick<T>(self, beats: bool, ticks: usize, meter: impl FnOnce(Work<'_>) -> T) -> T {
        // Without a heartbeat in all those ticks, and so without an election.
        let heartbeat_ticks = if beats { 1 } else { ticks as u32 + 1 };
        let setup =
            Setup { async_writes: self == Library::QuorateAsync, heartbeat_ticks, ..Setup::of(3) };
        match self {
            Library::Quorate | Library::QuorateAsync => tick_in::<Quorate, T>(setup, ticks, meter),
            Library::RaftRs => tick_in::<RaftRs, T>(setup, ticks, meter),
        }
    }
}

/// What is to be measured.
pub type Work<'a> = &'a mut dyn FnMut();

fn replicate_in<G: Group, T>(
    setup: Setup,
    case: Case,
    rounds: usize,
    meter: impl FnOnce(Work<'_>) -> T,
) -> T {
    let mut group = G::new(setup);
    let payload = Bytes::from(vec![b'q'; case.payload_bytes]);
    // Queues get as long as they will be.
    replicate(&mut group, case.proposing, &payload, case.batch, 2);
    meter(&mut || replicate(&mut group, case.proposing, &payload, case.batch, rounds))
}

fn tick_in<G: Group, T>(setup: Setup, ticks: usize, meter: impl FnOnce(Work<'_>) -> T) -> T {
    let mut group = G::new(setup);
    let measured = meter(&mut || {
        for _ in 0..ticks {
            group.tick();
            group.settle();
        }
    });
    assert!(group.is_led(), "a leader that beats stays");
    measured
}

/// Medians of what one entry, or one tick, took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figure {
    /// How many there were in a second on the wall.
    pub per_second: f64,
    /// Processor time of each, in nanoseconds.
    pub cpu_ns: f64,
}

/// Measures `work` of each library in turn, `repeats` times, and gives the medians by library.
/// `work` says what it took, and how often it did what is measured.
pub fn alternate(
    libraries: &[Library],
    repeats: usize,
    work: impl Fn(Library) -> (Cost, usize),
) -> Vec<Figure> {
    let mut figures = vec![Vec::new(); libraries.len()];
    for repeat in 0..repeats {
        for place in 0..libraries.len() {
            // Who is first takes turns, too.
            let place = (place + repeat) % libraries.len();
            let (cost, count) = work(libraries[place]);
            let each = |time: Duration| time.as_secs_f64() / count as f64;
            figures[place]
                .push(Figure { per_second: 1.0 / each(cost.wall), cpu_ns: each(cost.cpu) * 1e9 });
        }
    }
    let medians = |of: &Vec<Figure>| Figure {
        per_second: measure::median(of.iter().map(|figure| figure.per_second)),
        cpu_ns: measure::median(of.iter().map(|figure| figure.cpu_ns)),
    };
    figures.iter().map(medians).collect()
}

/// Instructions for each of what `work` does: what a longer run takes more than a shorter one. So
/// neither the start of the program counts, nor the group's making.
///
/// # Errors
///
/// As [`measure::instructions`].
pub fn instructions_each(
    arguments: impl Fn(usize) -> Vec<String>,
    (fewer, more): (usize, usize),
    each: usize,
) -> Result<f64, String> {
    let below = measure::instructions(&arguments(fewer))?;
    let above = measure::instructions(&arguments(more))?;
    Ok(above.saturating_sub(below) as f64 / ((more - fewer) * each) as f64)
}
