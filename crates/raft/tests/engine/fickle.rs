//! Storage that answers anything at any time. A node may become unusable by it, and then says so for
//! ever; it never panics, takes nothing back, and says nothing it cannot vouch for.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use quorate_raft::{
    Config, Entries, Entry, Error, Fatal, InitialState, MemoryStorage, Message, RawNode, Ready,
    Snapshot, Storage, StorageError,
};
use quorate_types::{Index, NodeId, Term};

use crate::net::{Dice, log_of, plain, snapshot};

/// A log in memory with odd answers among the good ones.
#[derive(Clone)]
struct Fickle {
    memory: MemoryStorage,
    dice: Rc<RefCell<Dice>>,
    /// Of so many answers one is odd; of 0 none.
    odds: Rc<Cell<u64>>,
    /// Whether odd answers may also be wrong ones, not only errors.
    lies: bool,
}

/// What an odd answer is.
enum Odd {
    Error(StorageError),
    Lie(u64),
}

impl Fickle {
    fn odd(&self) -> Option<Odd> {
        let (odds, mut dice) = (self.odds.get(), self.dice.borrow_mut());
        if odds == 0 || !dice.is_one_in(odds) {
            return None;
        }
        if self.lies && dice.is_one_in(2) {
            return Some(Odd::Lie(dice.roll(6)));
        }
        Some(Odd::Error(match dice.roll(5) {
            0 => StorageError::Compacted,
            1 => StorageError::Unavailable,
            2 => StorageError::SnapshotTemporarilyUnavailable,
            3 => StorageError::SnapshotOutOfDate,
            _ => StorageError::Other("no luck".to_owned()),
        }))
    }

    fn answer<T>(
        &self,
        good: Result<T, StorageError>,
        lie: impl FnOnce(T, u64) -> T,
    ) -> Result<T, StorageError> {
        match self.odd() {
            None => good,
            Some(Odd::Error(error)) => Err(error),
            Some(Odd::Lie(way)) => good.map(|good| lie(good, way)),
        }
    }
}

fn wrong(number: u64, way: u64) -> u64 {
    match way {
        0 => 0,
        1 => u64::MAX,
        2 => u64::MAX - 1,
        3 => number.saturating_sub(1),
        _ => number.saturating_add(way),
    }
}

impl Storage for Fickle {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        self.answer(self.memory.initial_state(), |mut state, way| {
            match way {
                0 => state.hard_state = None,
                1 => state.conf_state.learners = state.conf_state.voters.clone(),
                2 => state.conf_state.voters.clear(),
                _ => {
                    let mut hard_state = state.hard_state.unwrap_or_default();
                    hard_state.commit = Index(wrong(hard_state.commit.0, way));
                    state.hard_state = Some(hard_state);
                }
            }
            state
        })
    }

    fn entries(&self, lo: Index, hi: Index, max_size: u64) -> Result<Entries, StorageError> {
        self.answer(self.memory.entries(lo, hi, max_size), |entries, way| match way {
            0 => Entries::new(),
            1 => entries.part(0..entries.len().min(1)),
            2 => entries.part(entries.len().min(1)..entries.len()),
            3 => log_of(hi.0, &[1, 1]).into(),
            4 => entries.iter().chain(entries.iter()).cloned().collect(),
            _ => entries.iter().map(|entry| Entry { index: Index(7), ..entry.clone() }).collect(),
        })
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        self.answer(self.memory.term(index), |term, way| Term(wrong(term.0, way)))
    }

    fn last_index(&self) -> Result<Index, StorageError> {
        self.answer(self.memory.last_index(), |index, way| Index(wrong(index.0, way)))
    }

    fn first_index(&self) -> Result<Index, StorageError> {
        self.answer(self.memory.first_index(), |index, way| Index(wrong(index.0, way)))
    }

    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        self.answer(self.memory.snapshot(), |mut snapshot, way| {
            snapshot.metadata.index = Index(wrong(snapshot.metadata.index.0, way));
            snapshot
        })
    }
}

/// Does one thing to a node that any driver, or any peer, may do.
fn act(dice: &mut Dice, node: &mut RawNode<Fickle>, memory: &MemoryStorage) {
    match dice.roll(12) {
        0 => drop(node.tick()),
        1 => drop(node.campaign()),
        2 => drop(node.propose("x")),
        3 => drop(node.propose_conf_change(crate::net::changes("v4"))),
        4 => node.transfer_leader(NodeId(dice.roll(4))),
        5 => node.read_index("r"),
        6 => drop(node.request_snapshot()),
        7 | 8 => {
            let ready = node.ready();
            if let Some(snapshot) = &ready.snapshot {
                let _ = memory.apply_snapshot(snapshot.clone());
            }
            let _ = memory.append(&ready.entries);
            ready.hard_state.into_iter().for_each(|hard_state| memory.set_hard_state(hard_state));
            if dice.is_one_in(4) {
                let _ = memory.create_snapshot(node.applied(), None, "s".into());
                let _ = memory.compact(node.applied());
            }
            let _ = node.advance();
        }
        _ => {
            let term =
                node.term().0.wrapping_add(dice.roll(3)).wrapping_sub(u64::from(dice.is_one_in(4)));
            let (to, from) = (node.id(), NodeId(1 + dice.roll(3)));
            let _ = node.step(Message { to, from, term: Term(term), body: dice.body() });
        }
    }
}

/// That a node which became unusable stays so, with the same words.
fn is_over(node: &mut RawNode<Fickle>, fatal: &Fatal) {
    let over = Err(Error::Fatal(fatal.clone()));
    assert_eq!(
        (node.tick(), node.campaign(), node.propose("x")),
        (over.clone(), over.clone(), over.clone())
    );
    assert_eq!(node.advance(), over);
    assert!(!node.has_ready());
    assert_eq!(node.ready(), Ready::default());
    assert_eq!(node.fatal(), Some(fatal));
}

#[test]
fn no_answer_of_storage_panics_a_node() {
    let (mut lived, mut died) = (0, 0);
    for seed in 1..=600 {
        let mut dice = Dice::new(seed);
        let memory = MemoryStorage::new();
        memory.apply_snapshot(snapshot(1, 5, &[1, 2, 3])).unwrap();
        memory.append(&log_of(6, &[1, 1])).unwrap();
        let odds = Rc::new(Cell::new([0, 2, 10, 50][dice.roll(4) as usize]));
        let storage = Fickle {
            memory: memory.clone(),
            dice: Rc::new(RefCell::new(Dice::new(seed + 1000))),
            odds: Rc::clone(&odds),
            lies: dice.is_one_in(2),
        };
        let config = Config {
            seed,
            check_quorum: dice.is_one_in(2),
            pre_vote: dice.is_one_in(2),
            coalesce_appends: dice.is_one_in(2),
            snapshot_on_request: dice.is_one_in(2),
            max_size_per_msg: [0, 20, u64::MAX][dice.roll(3) as usize],
            ..plain(1)
        };
        // That may fail, too.
        let Ok(mut node) = RawNode::new(config.clone(), storage.clone()) else {
            odds.set(0);
            assert!(RawNode::new(config, storage).is_ok(), "it was only the storage");
            continue;
        };
        odds.set([2, 10, 50, 200][dice.roll(4) as usize]);
        let mut before = (node.term(), node.committed(), node.applied());
        for _ in 0..200 {
            act(&mut dice, &mut node, &memory);
            if let Some(fatal) = node.fatal().cloned() {
                // Even if it works again: nobody knows what was wrong meanwhile.
                odds.set(0);
                is_over(&mut node, &fatal);
                break;
            }
            node.check();
            let now = (node.term(), node.committed(), node.applied());
            let is_forward = before.0 <= now.0 && before.1 <= now.1 && before.2 <= now.2;
            assert!(is_forward, "seed {seed}: {before:?}, then {now:?}");
            before = now;
        }
        if node.fatal().is_some() { died += 1 } else { lived += 1 }
    }
    assert!(20 < lived && 20 < died, "{lived} lived, {died} died");
}
