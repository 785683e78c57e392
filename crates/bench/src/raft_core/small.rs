//! Small costs: the committed index, status, and what one proposal asks of a driver.
//!
//! These are the benchmarks of etcd's library: `BenchmarkMajorityConfig_CommittedIndex`,
//! `BenchmarkStatus` and `BenchmarkRawNode`.

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;

use bytes::Bytes;
use quorate_raft::{InitialState, MemoryStorage, Snapshot, Storage, StorageError};
use quorate_types::quorum::Majority;
use quorate_types::{Index, NodeId, Term};
use raft::storage::MemStorage;

use super::measure::{self, median};
use super::{Group as _, Proposing, Quorate, RaftRs, Setup};

/// One line of a table: nanoseconds of processor time for one call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallCost {
    /// How many members the group has.
    pub members: u64,
    /// Which call.
    pub call: &'static str,
    /// Processor time in nanoseconds.
    pub cpu_ns: f64,
}

/// The median over `repeats` of what one call of `work` takes, in nanoseconds.
fn nanoseconds(repeats: usize, mut work: impl FnMut()) -> f64 {
    const CALLS: u32 = 20_000;
    median((0..repeats).map(|_| {
        let cost = measure::cost(|| {
            for _ in 0..CALLS {
                work();
            }
        });
        cost.cpu.as_secs_f64() * 1e9 / f64::from(CALLS)
    }))
}

/// What it costs to find the committed index in groups of growing size, whose members have
/// acknowledged different indexes: in quorate's majority by itself, and in the tracker of each
/// library, as an acknowledgement does it.
pub fn committed_index(repeats: usize) -> Vec<CallCost> {
    let mut costs = Vec::new();
    for members in [1, 3, 5, 7, 9, 11] {
        let mut cost = |call, cpu_ns| costs.push(CallCost { members, call, cpu_ns });
        // Neither ascending nor descending.
        let acked = |id: u64| 1 + id * 7 % (members + 1);

        let voters: Majority = (1..=members).map(NodeId).collect();
        let majority = nanoseconds(repeats, || {
            black_box(black_box(&voters).committed_index(|id| Some(Index(acked(id.0)))));
        });
        cost("quorate Majority::committed_index", majority);

        let mut tracker = quorate_raft::ProgressTracker::new(1, 0);
        tracker.config.voters.incoming = voters;
        for id in 1..=members {
            let mut progress = quorate_raft::Progress::new(Index(99), tracker.inflights());
            progress.matched = Index(acked(id));
            tracker.progress.insert(NodeId(id), progress);
        }
        let ours = nanoseconds(repeats, || {
            black_box(black_box(&tracker).committed());
        });
        cost("quorate ProgressTracker::committed", ours);

        let mut group = RaftRs::new(Setup::of(members));
        let tracker = group.leader().raft.mut_prs();
        for id in 1..=members {
            tracker.get_mut(id).expect("it is a member").matched = acked(id);
        }
        assert_eq!(tracker_committed(members, acked), tracker.maximal_committed_index().0);
        let theirs = nanoseconds(repeats, || {
            black_box(black_box(&mut *tracker).maximal_committed_index());
        });
        cost("raft-rs ProgressTracker::maximal_committed_index", theirs);
    }
    costs
}

/// What quorate finds.
fn tracker_committed(members: u64, acked: impl Fn(u64) -> u64) -> u64 {
    let voters: Majority = (1..=members).map(NodeId).collect();
    voters.committed_index(|id| Some(Index(acked(id.0)))).0
}

/// What the ways of asking a leader for its status cost. raft-rs lends its tracker, quorate gives a
/// copy; so the copy of raft-rs's tracker is measured too, and quorate's ways without one.
pub fn status(repeats: usize) -> Vec<CallCost> {
    let mut costs = Vec::new();
    for members in [1, 3, 5, 100] {
        let mut cost = |call, cpu_ns| costs.push(CallCost { members, call, cpu_ns });
        let mut group = Quorate::new(Setup::of(members));
        let leader = group.leader();
        let own = nanoseconds(repeats, || {
            black_box(leader.status());
        });
        cost("quorate status, owned", own);
        let lent = nanoseconds(repeats, || {
            black_box(leader.basic_status());
            leader.for_each_progress(|id, kind, progress| {
                black_box((id, kind, progress));
            });
        });
        cost("quorate basic_status and for_each_progress", lent);
        let basic = nanoseconds(repeats, || {
            black_box(leader.basic_status());
        });
        cost("quorate basic_status", basic);

        let mut group = RaftRs::new(Setup::of(members));
        let leader = group.leader();
        let own = nanoseconds(repeats, || {
            black_box(leader.status().progress.cloned());
        });
        cost("raft-rs status, tracker cloned", own);
        let lent = nanoseconds(repeats, || {
            let status = leader.status();
            for member in status.progress.expect("it leads").iter() {
                black_box(member);
            }
        });
        cost("raft-rs status and its tracker's iter", lent);
        let basic = nanoseconds(repeats, || {
            black_box(leader.status());
        });
        cost("raft-rs status, tracker lent", basic);
    }
    costs
}

/// How often each question of a storage was asked.
#[derive(Debug, Default)]
struct Calls {
    first_index: Cell<u64>,
    last_index: Cell<u64>,
    term: Cell<u64>,
    entries: Cell<u64>,
    others: Cell<u64>,
}

impl Calls {
    fn reset(&self) {
        for count in [&self.first_index, &self.last_index, &self.term, &self.entries, &self.others]
        {
            count.set(0);
        }
    }
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

struct Counted<T> {
    inner: T,
    calls: Rc<Calls>,
}

impl Storage for Counted<MemoryStorage> {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        count(&self.calls.others);
        self.inner.initial_state()
    }

    fn entries(
        &self,
        lo: Index,
        hi: Index,
        max_size: u64,
    ) -> Result<quorate_raft::Entries, StorageError> {
        count(&self.calls.entries);
        self.inner.entries(lo, hi, max_size)
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        count(&self.calls.term);
        self.inner.term(index)
    }

    fn last_index(&self) -> Result<Index, StorageError> {
        count(&self.calls.last_index);
        self.inner.last_index()
    }

    fn first_index(&self) -> Result<Index, StorageError> {
        count(&self.calls.first_index);
        self.inner.first_index()
    }

    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        count(&self.calls.others);
        self.inner.snapshot()
    }
}

impl raft::Storage for Counted<MemStorage> {
    fn initial_state(&self) -> raft::Result<raft::RaftState> {
        count(&self.calls.others);
        self.inner.initial_state()
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: raft::GetEntriesContext,
    ) -> raft::Result<Vec<raft::eraftpb::Entry>> {
        count(&self.calls.entries);
        self.inner.entries(low, high, max_size, context)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        count(&self.calls.term);
        self.inner.term(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        count(&self.calls.first_index);
        self.inner.first_index()
    }

    fn last_index(&self) -> raft::Result<u64> {
        count(&self.calls.last_index);
        self.inner.last_index()
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<raft::eraftpb::Snapshot> {
        count(&self.calls.others);
        self.inner.snapshot(request_index, to)
    }
}

/// What one proposal costs a leader's driver: proposed alone, and committed before the next.
#[derive(Clone, Debug, PartialEq)]
pub struct ProposalCost {
    /// How many voters the group has.
    pub voters: u64,
    /// Whose.
    pub library: &'static str,
    /// Processor time of the whole group, in nanoseconds.
    pub cpu_ns: f64,
    /// The leader's Readies.
    pub readies: f64,
    /// The leader's questions to its storage: first index, last index, term, entries, others.
    pub storage_calls: [f64; 5],
}

/// Proposals to leaders with one voter and with two.
pub fn proposals(repeats: usize) -> Vec<ProposalCost> {
    const COUNT: usize = 2_000;
    let payload = Bytes::from_static(b"foo");
    let mut costs = Vec::new();
    for voters in [1, 2] {
        for (library, async_writes) in [("quorate", false), ("quorate-async", true)] {
            let calls = Rc::new(Calls::default());
            let shared = Rc::clone(&calls);
            let counted = move |id: NodeId, inner| Counted {
                inner,
                calls: if id == NodeId(1) { Rc::clone(&shared) } else { Rc::default() },
            };
            let setup = Setup { async_writes, ..Setup::of(voters) };
            let mut group = Quorate::with_storage(setup, counted);
            let mut run = || {
                group.propose_to_leader(Proposing::Batched, &payload, 1);
                group.settle();
                group.readies()
            };
            costs.push(proposal_cost(voters, library, (repeats, COUNT), &calls, &mut run));
        }
        let calls = Rc::new(Calls::default());
        let shared = Rc::clone(&calls);
        let counted = move |id, inner| Counted {
            inner,
            calls: if id == 1 { Rc::clone(&shared) } else { Rc::default() },
        };
        let mut group = RaftRs::with_storage(Setup::of(voters), counted);
        let mut run = || {
            group.propose_to_leader(Proposing::Batched, &payload, 1);
            group.settle();
            group.readies()
        };
        costs.push(proposal_cost(voters, "raft-rs", (repeats, COUNT), &calls, &mut run));
    }
    costs
}

/// `run` makes one proposal and says how many Readies there were since the start.
fn proposal_cost(
    voters: u64,
    library: &'static str,
    (repeats, proposals): (usize, usize),
    calls: &Calls,
    run: &mut dyn FnMut() -> u64,
) -> ProposalCost {
    let first = run();
    calls.reset();
    let mut last = first;
    let cpu_ns = median((0..repeats).map(|_| {
        let cost = measure::cost(|| (0..proposals).for_each(|_| last = run()));
        cost.cpu.as_secs_f64() * 1e9 / proposals as f64
    }));
    let each = |count: u64| count as f64 / (repeats * proposals) as f64;
    ProposalCost {
        voters,
        library,
        cpu_ns,
        readies: each(last - first),
        storage_calls: [
            each(calls.first_index.get()),
            each(calls.last_index.get()),
            each(calls.term.get()),
            each(calls.entries.get()),
            each(calls.others.get()),
        ],
    }
}
