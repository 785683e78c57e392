use super::*;
use crate::MemoryActions;
use quorate_zab::{Command, WriteId};

fn entry(index: u64, epoch: u32, counter: u32) -> Entry {
    let zxid = Zxid::new(Epoch(epoch), counter);
    Entry { index: Index(index), zxid, command: Command::set("k", format!("{epoch}.{counter}")) }
}

/// 1.1 1.2 1.3 | 3.1 3.2 | 3.4 (a gometa leader refused 3.3) | 4.1
fn history() -> Vec<Entry> {
    let ids = [(1, 1), (1, 2), (1, 3), (3, 1), (3, 2), (3, 4), (4, 1)];
    (1..).zip(ids).map(|(index, (epoch, counter))| entry(index, epoch, counter)).collect()
}

fn stored(entries: &[Entry], applied: usize) -> Arc<MemoryActions> {
    let actions = Arc::new(MemoryActions::new());
    actions.log_proposal(entries).unwrap();
    actions.commit(&entries[..applied]).unwrap();
    actions
}

#[test]
fn places_and_ids_are_found_with_and_without_memory() {
    let entries = history();
    for cache_bytes_max in [0, 100, 1 << 20] {
        let log = Log::open(stored(&entries, 5), cache_bytes_max).unwrap();
        assert_eq!(log.last_index(), Ok(Index(7)));
        assert_eq!(log.zxid(Index(0)), Ok(Zxid::ZERO));
        for entry in &entries {
            assert_eq!(log.zxid(entry.index), Ok(entry.zxid));
        }
        for lo in 1..=7 {
            for hi in lo + 1..=8 {
                let want = &entries[lo - 1..hi - 1];
                let (lo, hi) = (Index(lo as u64), Index(hi as u64));
                let found = log.entries(lo, hi, u64::MAX).unwrap();
                assert_eq!(found, want, "cache {cache_bytes_max}");
                assert_eq!(log.entries(lo, hi, 0).unwrap(), want[..1]);
            }
        }
        assert_eq!(log.entries(Index(7), Index(9), 1), Err(StorageError::Unavailable));
    }
}

#[test]
fn what_is_applied_is_a_place() {
    let entries = history();
    for applied in 0..=entries.len() {
        let log = Log::open(stored(&entries, applied), 0).unwrap();
        assert_eq!(log.applied(), Index(applied as u64));
    }
}

#[test]
fn a_write_appends_or_replaces() {
    let entries = history();
    for cache_bytes_max in [0, 1 << 20] {
        let actions = stored(&entries, 3);
        let mut log = Log::open(actions.clone(), cache_bytes_max).unwrap();
        let new = vec![entry(5, 5, 1), entry(6, 5, 2)];
        actions.replace_tail(Zxid::new(Epoch(3), 1), &new).unwrap();
        let write = Write {
            id: WriteId(1),
            replace_from: Some(Index(5)),
            entries: new.clone(),
            ..Write::default()
        };
        log.written(write);
        let want = [&entries[..4], &new].concat();
        assert_eq!(log.entries(Index(1), Index(7), u64::MAX).unwrap(), want);
        assert_eq!(log.last_zxid(), Zxid::new(Epoch(5), 2));
    }
}

#[test]
fn without_a_history_what_is_applied_goes_once_it_is_not_in_memory() {
    let entries = history();
    for (cache_bytes_max, first) in [(0, 6), (100, 6), (150, 4), (1 << 20, 1)] {
        let actions = Arc::new(MemoryActions::of_state());
        actions.log_proposal(&entries).unwrap();
        let mut log = Log::open(actions.clone(), cache_bytes_max).unwrap();
        for entry in &entries[..5] {
            actions.commit(std::slice::from_ref(entry)).unwrap();
            if let Some((index, last)) = log.applied_to(entry.index) {
                assert_eq!(last, entries[index.0 as usize - 1].zxid);
                actions.forget(index, last).unwrap();
            }
            // What the log is said to have is there.
            let from = log.first_index().unwrap();
            let want = &entries[from.0 as usize - 1..];
            assert_eq!(log.entries(from, Index(8), u64::MAX).unwrap(), want);
        }
        for log in [&log, &Log::open(actions.clone(), cache_bytes_max).unwrap()] {
            assert_eq!(log.first_index(), Ok(Index(first)), "cache {cache_bytes_max}");
            assert_eq!(log.last_index(), Ok(Index(7)));
            for at in first - 1..=7 {
                let zxid = entries.iter().find(|entry| entry.index.0 == at);
                assert_eq!(log.zxid(Index(at)), Ok(zxid.map_or(Zxid::ZERO, |entry| entry.zxid)));
            }
            for lo in 1..first {
                assert_eq!(log.entries(Index(lo), Index(8), 1), Err(StorageError::Compacted));
                assert!(lo == first - 1 || log.zxid(Index(lo)) == Err(StorageError::Compacted));
            }
            let state = log.snapshot().unwrap();
            assert_eq!((state.index, state.zxid), (Index(5), entries[4].zxid));
        }
        assert_eq!(Log::open(actions, cache_bytes_max).unwrap().applied(), Index(5));
    }
    // One that keeps its history is not told to let go of anything.
    let mut log = Log::open(stored(&entries, 5), 0).unwrap();
    assert_eq!(log.applied_to(Index(5)), None);
    assert_eq!(log.snapshot(), Ok(Snapshot::default()));
}

#[test]
fn a_state_takes_the_place_of_a_log() {
    let entries = history();
    let actions = stored(&entries, 3);
    let mut log = Log::open(actions.clone(), 1 << 20).unwrap();
    let state = Snapshot::of_commands(
        Index(20),
        Zxid::new(Epoch(6), 3),
        &[quorate_zab::Command::set("b", "1")],
    );
    let new = vec![entry(21, 6, 4), entry(22, 7, 1)];
    actions.install(&state).unwrap();
    actions.log_proposal(&new).unwrap();
    log.written(Write {
        install: Some(state.clone()),
        replace_from: Some(Index(21)),
        entries: new.clone(),
        ..Write::default()
    });
    for log in [log, Log::open(actions.clone(), 0).unwrap()] {
        assert_eq!((log.first_index(), log.last_index()), (Ok(Index(21)), Ok(Index(22))));
        assert_eq!(log.zxid(Index(20)), Ok(state.zxid));
        assert_eq!(log.entries(Index(21), Index(23), u64::MAX).unwrap(), new);
    }
    assert_eq!(Log::open(actions.clone(), 0).unwrap().applied(), Index(20));
    assert_eq!(actions.value("b").as_deref(), Some(&b"1"[..]));
    assert_eq!(actions.count(), 1, "nothing is left of what was there");
}

/// Says that its log ends elsewhere than it does.
struct Lying(MemoryActions, Zxid);

impl ActionHandler for Lying {
    fn accepted_epoch(&self) -> Result<(Epoch, Option<Address>), ActionError> {
        self.0.accepted_epoch()
    }
    fn current_epoch(&self) -> Result<Epoch, ActionError> {
        self.0.current_epoch()
    }
    fn last_logged_txid(&self) -> Result<Zxid, ActionError> {
        Ok(self.1)
    }
    fn last_committed_txid(&self) -> Result<Zxid, ActionError> {
        self.0.last_committed_txid()
    }
    fn committed_entries(
        &self,
        after: Zxid,
        last: Zxid,
        bytes_max: u64,
    ) -> Result<Vec<(Zxid, quorate_zab::Command)>, ActionError> {
        self.0.committed_entries(after, last, bytes_max)
    }
    fn notify_new_accepted_epoch(&self, _: Epoch, _: &Address) -> Result<(), ActionError> {
        Ok(())
    }
    fn notify_new_current_epoch(&self, _: Epoch) -> Result<(), ActionError> {
        Ok(())
    }
    fn log_proposal(&self, entries: &[Entry]) -> Result<(), ActionError> {
        self.0.log_proposal(entries)
    }
    fn replace_tail(&self, _: Zxid, _: &[Entry]) -> Result<(), ActionError> {
        Ok(())
    }
    fn commit(&self, entries: &[Entry]) -> Result<(), ActionError> {
        self.0.commit(entries)
    }
}

#[test]
fn a_log_that_contradicts_its_marks_is_not_opened() {
    let entries = history();
    for (last, applied, want) in [
        ((4, 2), 7, "the log ends at 4.1, but the last logged id is 4.2"),
        ((3, 2), 7, "4.1 is applied, but the log ends at 3.2"),
    ] {
        let memory = MemoryActions::new();
        memory.log_proposal(&entries).unwrap();
        memory.commit(&entries[..applied]).unwrap();
        let actions = Lying(memory, Zxid::new(Epoch(last.0), last.1));
        let error = Log::open(Arc::new(actions), 0).err();
        assert_eq!(error, Some(ActionError(want.to_owned())));
    }
}
