//! Random histories: several members with different lives, and the model, answer the same.

use super::model::Model;
use super::*;

/// A random command that passes the checks before the log, for a store near `revision`.
pub(super) fn command(dice: &mut Dice, revision: i64) -> Command {
    loop {
        let command = match dice.roll(20) {
            0..9 => Command::Put(random_put(dice)),
            9..12 => Command::DeleteRange(random_delete(dice)),
            12..18 => Command::Txn(random_txn(dice, revision, 3)),
            18 => random_lease(dice, &[]),
            _ => {
                let revision = revision + 2 - dice.roll(12) as i64;
                Command::Compact(CompactionRequest { revision, physical: dice.one_in(2) })
            }
        };
        if command.validate(&Limits::default()).is_ok() {
            return command;
        }
    }
}

const KEYS: [&str; 10] = ["a", "a\0", "aa", "ab", "b", "ba", "c", "d", "e", "\u{7f}"];
const ENDS: [&str; 7] = ["", "", "\0", "b", "c", "aa", "z"];

fn key(dice: &mut Dice) -> Bytes {
    bytes(dice.pick::<&str>(&KEYS))
}

fn end(dice: &mut Dice) -> Bytes {
    bytes(dice.pick::<&str>(&ENDS))
}

fn random_put(dice: &mut Dice) -> PutRequest {
    let ignore_value = dice.one_in(8);
    PutRequest {
        key: key(dice),
        value: if ignore_value { Bytes::new() } else { bytes(&"v".repeat(dice.roll(5) as usize)) },
        lease: if dice.one_in(4) { *dice.pick(&LEASES) } else { 0 },
        prev_kv: dice.one_in(2),
        ignore_value,
        ignore_lease: dice.one_in(8),
    }
}

const LEASES: [i64; 4] = [1, 2, 3, -7];

/// Something about leases, of which some are known to have been granted.
fn random_lease(dice: &mut Dice, granted: &[(i64, Index)]) -> Command {
    let (id, granted) = match granted {
        [_, ..] if dice.one_in(2) => *dice.pick(granted),
        _ => (*dice.pick(&LEASES), Index(dice.roll(20))),
    };
    let term = Term(3 - u64::from(dice.one_in(4))); // entries have term 3
    match dice.roll(6) {
        0..3 => Command::LeaseGrant { id, ttl_seconds: 1 + dice.roll(1000) as i64 },
        3 => Command::LeaseRevoke { id },
        4 => Command::LeaseExpire { id, granted, term },
        _ => {
            let remaining_seconds = dice.roll(9) as i64;
            let checkpoints = vec![LeaseCheckpoint { id, granted, remaining_seconds }; 2];
            Command::LeaseCheckpoint { term, order: dice.roll(50), checkpoints }
        }
    }
}

/// Alarms do not last, since little happens meanwhile.
fn random_alarm(dice: &mut Dice, active: &[Alarm]) -> Command {
    let alarm = *dice.pick(&[AlarmType::NoSpace, AlarmType::Corrupt]);
    let one = Alarm { member: 1 + dice.roll(2), alarm };
    let (action, Alarm { member, alarm }) = match active {
        [_, ..] if !dice.one_in(4) => (AlarmAction::Deactivate, *dice.pick(active)),
        _ => (*dice.pick(&[AlarmAction::Activate, AlarmAction::Get]), one),
    };
    Command::Alarm(AlarmRequest { action, member, alarm })
}

fn random_delete(dice: &mut Dice) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key(dice), range_end: end(dice), prev_kv: dice.one_in(2) }
}

pub(super) fn random_range(dice: &mut Dice, revision: i64) -> RangeRequest {
    let mut rarely = |sides: u64| {
        if dice.one_in(3) { dice.roll(sides) as i64 } else { 0 }
    };
    let near = revision.max(1) as u64 + 2;
    RangeRequest {
        limit: rarely(4),
        revision: rarely(near) - rarely(3),
        min_mod_revision: rarely(near),
        max_mod_revision: rarely(near),
        min_create_revision: rarely(near),
        max_create_revision: rarely(near),
        key: key(dice),
        range_end: end(dice),
        sort_order: SortOrder::from(dice.roll(3) as i32),
        sort_target: SortTarget::from(dice.roll(5) as i32),
        serializable: dice.one_in(2),
        keys_only: dice.one_in(4),
        count_only: dice.one_in(6),
    }
}

fn random_compare(dice: &mut Dice, revision: i64) -> Compare {
    let number = dice.roll(revision.max(1) as u64 + 1) as i64;
    Compare {
        result: CompareResult::from(dice.roll(5) as i32),
        target: match dice.roll(6) {
            0 => CompareTarget::Version(number % 4),
            1 => CompareTarget::Create(number),
            2 => CompareTarget::Mod(number),
            3 => CompareTarget::Value(bytes(&"v".repeat(dice.roll(4) as usize))),
            4 => CompareTarget::Lease(number % 4),
            _ => CompareTarget::Unknown(7),
        },
        key: key(dice),
        range_end: end(dice),
    }
}

fn random_txn(dice: &mut Dice, revision: i64, depth: u64) -> TxnRequest {
    let compare = (0..dice.roll(3)).map(|_| random_compare(dice, revision)).collect();
    let mut list = || {
        (0..dice.roll(4))
            .map(|_| match dice.roll(if depth == 0 { 9 } else { 11 }) {
                0..4 => RequestOp::Put(random_put(dice)),
                4..6 => RequestOp::DeleteRange(random_delete(dice)),
                6..9 => RequestOp::Range(random_range(dice, revision)),
                _ => RequestOp::Txn(random_txn(dice, revision, depth - 1)),
            })
            .collect()
    };
    TxnRequest { compare, success: list(), failure: list() }
}

/// How a member keeps its rows, so that it can start again from them.
enum Disk {
    Memory(MemoryBackend),
    Redb(super::crash::Disk),
}

impl Disk {
    /// An empty one of the same kind.
    fn another(&self) -> Self {
        match self {
            Disk::Memory(_) => Disk::Memory(MemoryBackend::new()),
            Disk::Redb(_) => Disk::Redb(super::crash::Disk::new(1)),
        }
    }

    fn backend(&self) -> Box<dyn Backend> {
        match self {
            Disk::Memory(backend) => Box::new(backend.clone()),
            Disk::Redb(disk) => Box::new(RedbBackend::open(disk.plug_in(), 1 << 16).unwrap()),
        }
    }
}

/// A member that flushes, compacts, restarts and is restored as the dice say.
struct Life {
    store: Option<Store>,
    disk: Disk,
    dice: Dice,
}

impl Life {
    fn begin(disk: Disk, seed: u64) -> Self {
        let store = Store::create(disk.backend(), initial()).unwrap();
        Life { store: Some(store), disk, dice: Dice(seed) }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Lives through something, then has all of `log` applied. Returns the answer to the last.
    fn go_on(&mut self, log: &[Entry]) -> Result<Response, KvError> {
        match self.dice.roll(24) {
            0..3 => {
                self.store().flush().unwrap();
            }
            3..8 => {
                let keys_max = self.dice.roll(4) as usize;
                self.store().compact_step(keys_max).unwrap();
            }
            8 => {
                // What is not flushed is lost; the log brings it back.
                self.store = None;
                self.store = Some(Store::open(self.disk.backend()).unwrap());
            }
            9 => {
                let snapshot = self.store().snapshot().unwrap();
                let fresh = self.disk.another();
                let mut backend = fresh.backend();
                super::snapshots::copy(&snapshot, &mut *backend);
                self.store = Some(Store::open(backend).unwrap());
                self.disk = fresh;
            }
            10 => {
                let fresh = self.disk.another();
                let moved = self.store().defragment(fresh.backend(), &mut |_, _| true, || Ok(()));
                moved.unwrap();
                self.disk = fresh;
            }
            _ => {}
        }
        // Some of what is applied already comes again.
        let applied = self.store().applied().index.0;
        let from = applied.saturating_sub(self.dice.roll(3)) as usize;
        let outcome = self.store().apply(&log[from..]).unwrap();
        outcome.responses.into_iter().next_back().unwrap()
    }
}

#[test]
fn members_with_different_lives_answer_as_the_model() {
    for seed in 1..=12 {
        live(seed, 250);
    }
}

fn live(seed: u64, entries: u64) {
    let mut dice = Dice(seed * 7919);
    let mut model = Model::new();
    let mut log = Vec::new();
    let mut quiet = Node::new(); // never flushes, never removes
    let deaf = Node::new(); // nobody waits for its answers
    let mut lives = [
        Life::begin(Disk::Memory(MemoryBackend::new()), seed + 100),
        Life::begin(Disk::Redb(super::crash::Disk::new(seed)), seed + 200),
    ];
    for index in 1..=entries {
        let alarms = model.alarms();
        let command = match dice.roll(if alarms.is_empty() { 50 } else { 3 }) {
            0 => random_alarm(&mut dice, &alarms),
            1 | 2 => random_lease(&mut dice, &model.leases()),
            _ => command(&mut dice, model.revision()),
        };
        let entry = entry(index, &command);
        log.push(entry.clone());
        let want = model.apply((entry.index, entry.term), &command);
        let outcome = deaf.store.apply(&[Entry { answer_wanted: false, ..entry }]).unwrap();
        let refusal = want.clone().map(|_| Response::Nothing);
        assert_eq!(outcome.responses, [refusal], "seed {seed}, entry {index}: {command:?}");
        assert_eq!(quiet.run(&command), want, "seed {seed}, entry {index}: {command:?}");
        for life in &mut lives {
            let got = life.go_on(&log);
            assert_eq!(got, want, "seed {seed}, entry {index}: {command:?}");
        }
        let hash = quiet.store.hash_kv(0).unwrap();
        assert_eq!(hash.compact_revision, model.compacted());
        for store in lives.iter().map(Life::store).chain([&quiet.store, &deaf.store]) {
            assert_eq!(store.revision(), model.revision());
            assert_eq!(store.compact_revision(), model.compacted());
            assert_eq!(store.applied().index, Index(index));
            assert_eq!(store.hash_kv(0).unwrap(), hash, "seed {seed}, entry {index}");
            assert_eq!(store.hash(), quiet.store.hash(), "seed {seed}, entry {index}");
            assert_eq!(store.alarms(), model.alarms());
            let ids: Vec<i64> = model.leases().into_iter().map(|(id, _)| id).collect();
            assert_eq!(store.leases().unwrap().ids, ids, "seed {seed}, entry {index}");
            for id in ids {
                let keys = store.lease_keys(id);
                assert_eq!(keys, model.keys_of(id), "seed {seed}, entry {index}, lease {id}");
            }
            for _ in 0..3 {
                let range = random_range(&mut dice, model.revision());
                let want = model.range(&range);
                assert_eq!(store.range(&range), want, "seed {seed}, entry {index}: {range:?}");
            }
        }
        let past = 1 + dice.roll(model.revision() as u64) as i64;
        let hash = quiet.store.hash_kv(past);
        for life in &lives {
            assert_eq!(life.store().hash_kv(past), hash, "seed {seed}, entry {index}, at {past}");
        }
    }
}
