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
