//! A group under random faults, watched by what Raft promises after every step:
//!
//! - *election safety*: at most one leader a term, elected by a quorum of voters, who vote once;
//! - *state machine safety*: no two nodes commit or apply different entries at one index, and no node
//!   ever applies another one there after a crash;
//! - *leader completeness*: a new leader has every entry that anybody has committed;
//! - *log matching*: two logs with the same entry somewhere are the same up to there;
//! - *disk before word*: what a node vouches for is on its disk, and what a leader commits on the
//!   disks of a quorum, of both halves while there are two;
//! - *membership*: the same on all nodes at the same index, and one change of it at a time;
//! - *reads* are answered at or above all that was committed when they were asked;
//! - a *transfer* of leadership ends, unless its leader crashes, once and before the next begins;
//! - in the end, once the faults stop, all members agree and nothing that was applied is lost.
//!
//! Messages are lost, doubled, delayed and reordered, links are cut for many election timeouts, one
//! way or both, disks are slow, nodes crash between any two steps of their driver and come back with
//! what was synced, logs are compacted, members come and go. Each seed draws how often each of this
//! happens, and the options of its group, and of each node, too.
//!
//! That all this finds something is shown by bugs that are put back.

mod replica;
mod watcher;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_raft::{
    Body, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Config, Entry,
    EntryType, Error, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MemoryStorage, Message, Note,
    RawNode, Ready, SnapshotStatus, Storage, TransferOutcome, decode_conf_change,
};
use quorate_types::{Index, NodeId, bugs};

use replica::Replica;
use watcher::Watcher;

use crate::net::{Dice, ids, plain};

/// What may happen next.
#[derive(Clone, Copy)]
enum Act {
    Deliver,
    Tick,
    Drive,
    AskForSnapshot,
    AskNoMore,
    Propose,
    Read,
    Change,
    Compact,
    Crash,
    Start,
    Cut,
    Heal,
    Transfer,
    Unreachable,
    Forget,
    Campaign,
}

/// How often each does. The rarer ones are drawn anew for each seed: in some, much goes wrong at once.
const ODDS: [(Act, u64); 17] = [
    (Act::Deliver, 380),
    (Act::Drive, 430),
    (Act::Tick, 70),
    (Act::AskForSnapshot, 5),
    (Act::AskNoMore, 2),
    (Act::Propose, 30),
    (Act::Read, 20),
    (Act::Change, 10),
    (Act::Compact, 15),
    (Act::Crash, 3),
    (Act::Start, 20),
    (Act::Cut, 1),
    (Act::Heal, 1),
    (Act::Transfer, 4),
    (Act::Unreachable, 3),
    (Act::Forget, 1),
    (Act::Campaign, 2),
];

/// Messages that a network holds.
const UNDER_WAY_MAX: usize = 300;
/// Messages that are kept, to come again long after.
const LATE_MAX: usize = 50;

struct Model {
    seed: u64,
    dice: Dice,
    /// How many nodes there are, members or not.
    size: u64,
    odds: [(Act, u64); 17],
    /// One message in so many is lost, and as many are doubled.
    lost_one_in: u64,
    /// One Ready in so many ends in a crash.
    crash_one_in: u64,
    /// Whether voters may be removed or made learners.
    may_shrink: bool,
    replicas: BTreeMap<u64, Replica>,
    under_way: Vec<Message>,
    /// What was delivered long ago, and may come once more.
    late: Vec<Message>,
    cut: BTreeSet<(u64, u64)>,
    watcher: Watcher,
    transferred: usize,
    /// Snapshots installed because they were asked for.
    healed: usize,
    /// Steps of a leader whose membership has two halves.
    joint_steps: usize,
    /// Whether the members agreed in the end.
    has_agreed: bool,
    next_command: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let size = [3, 3, 4, 4, 5, 5, 6, 7][dice.roll(8) as usize];
        let first_members = 3.max(size - dice.roll(3));
        let voters: Vec<u64> = (1..=first_members).collect();
        let (check_quorum, pre_vote) = (dice.is_one_in(2), dice.is_one_in(2));
        let may_shrink = dice.is_one_in(2);
        let step_down_on_removal = may_shrink && dice.is_one_in(2);
        let hand_over_on_removal = step_down_on_removal && dice.is_one_in(2);
        let max_size_per_msg = [0, 64, u64::MAX][dice.roll(3) as usize];
        let coalesce_appends = dice.is_one_in(2);
        let pull_appends = dice.is_one_in(4);
        let snapshot_on_request = !dice.is_one_in(4);
        let (has_priorities, has_ranges) = (dice.is_one_in(2), dice.is_one_in(2));
        let election_tick = [3, 3, 5, 10][dice.roll(4) as usize];
        let lead_after_own_vote = dice.is_one_in(2);
        let has_slow_disks = dice.is_one_in(2);
        let replicas = (1..=size)
            .map(|id| {
                let (mut priority, mut min_election_tick, mut max_election_tick) = (0, 0, 0);
                if has_priorities {
                    priority = dice.roll(4) as i64 - 1;
                }
                if has_ranges {
                    min_election_tick = election_tick + dice.roll(u64::from(election_tick)) as u32;
                    max_election_tick = min_election_tick + 1 + dice.roll(10) as u32;
                }
                let config = Config {
                    seed,
                    notes_max: 1 << 16,
                    election_tick,
                    priority,
                    min_election_tick,
                    max_election_tick,
                    lead_after_own_vote,
                    // A group may be on its way from one version to the next.
                    coalesce_appends: coalesce_appends && !dice.is_one_in(4),
                    pull_appends: pull_appends && !dice.is_one_in(4),
                    snapshot_on_request: snapshot_on_request && !dice.is_one_in(8),
                    hand_over_on_removal,
                    retry_transfer: dice.is_one_in(2),
                    refuse_changes: dice.is_one_in(2),
                    narrow_on_refusal: dice.is_one_in(2),
                    messages_max: [0, 0, 0, 8][dice.roll(4) as usize],
                    check_quorum,
                    pre_vote,
                    step_down_on_removal,
                    // Without it a lone voter may forget in a crash how much it had committed.
                    postpone_single_voter_reads: true,
                    max_size_per_msg,
                    max_inflight_msgs: 1 + dice.roll(4) as usize,
                    max_committed_size_per_ready: [0, 50, 1000][dice.roll(3) as usize],
                    async_storage_writes: dice.is_one_in(2),
                    ..plain(id)
                };
                let slowness = if has_slow_disks { 1 + dice.roll(30) } else { 1 };
                (id, Replica::new(config, ids(&voters), slowness))
            })
            .collect();
        let odds = ODDS.map(|(act, weight)| match act {
            Act::Deliver | Act::Drive | Act::Heal => (act, weight),
            Act::Tick | Act::Propose | Act::Start => {
                (act, weight * [1, 1, 3, 10][dice.roll(4) as usize])
            }
            // A cut that is soon another is none.
            Act::Cut => (act, weight * [0, 1, 1, 3][dice.roll(4) as usize]),
            _ => (act, weight * [0, 0, 1, 1, 3, 10][dice.roll(6) as usize]),
        });
        let lost_one_in = [8, 40, 200][dice.roll(3) as usize];
        let crash_one_in = [10, 100, 1000, 1 << 20][dice.roll(4) as usize];
        Model {
            seed,
            dice,
            size,
            odds,
            lost_one_in,
            crash_one_in,
            may_shrink,
            replicas,
            under_way: vec![],
            late: vec![],
            cut: BTreeSet::new(),
            watcher: Watcher::new(seed),
            transferred: 0,
            healed: 0,
            joint_steps: 0,
            has_agreed: false,
            next_command: 0,
        }
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            let id = 1 + self.dice.roll(self.size);
            match self.draw() {
                Act::Deliver => self.deliver_any(),
                Act::Tick => self.tick(id),
                Act::Drive => self.drive_from(id),
                Act::AskForSnapshot => self.with(id, |node, _| drop(node.request_snapshot())),
                Act::AskNoMore => self.with(id, |node, _| node.cancel_snapshot_request()),
                Act::Propose => self.propose(id),
                Act::Read => self.read(id),
                Act::Change => self.change(id),
                Act::Compact => self.compact(id, 3),
                Act::Crash => self.crash(id),
                Act::Start => self.start(id),
                Act::Cut => self.repartition(),
                Act::Heal => self.cut.clear(),
                Act::Transfer => self.with(id, |node, to| node.transfer_leader(NodeId(to))),
                Act::Unreachable => self.with(id, |node, of| node.report_unreachable(NodeId(of))),
                Act::Forget => self.with(id, |node, _| node.forget_leader().unwrap()),
                Act::Campaign => self.with(id, |node, _| node.campaign().unwrap()),
            }
        }
    }

    fn draw(&mut self) -> Act {
        let mut left = self.dice.roll(self.odds.iter().map(|(_, weight)| weight).sum());
        for (act, weight) in self.odds {
            if left < weight {
                return act;
            }
            left -= weight;
        }
        unreachable!("the roll is below the sum")
    }

    fn with(&mut self, id: u64, work: impl FnOnce(&mut RawNode<MemoryStorage>, u64)) {
        let other = 1 + self.dice.roll(self.size);
        if let Some(node) = &mut self.at(id).node {
            work(node, other);
            self.watch(id);
        }
    }

    fn at(&mut self, id: u64) -> &mut Replica {
        self.replicas.get_mut(&id).unwrap()
    }

    fn watch(&mut self, id: u64) {
        self.watcher.on_step(id, &self.replicas);
        let replica = &self.replicas[&id];
        let is_joint = !replica.conf_state.voters_outgoing.is_empty();
        let leads = replica.node.as_ref().is_some_and(RawNode::is_leader);
        self.joint_steps += usize::from(is_joint && leads);
    }

    // Inputs.

    fn tick(&mut self, id: u64) {
        self.with(id, |node, _| node.tick().unwrap());
    }

    /// Every other time a node that leads, or did when it last heard of anything, instead of `id`.
    fn leader_or(&mut self, id: u64) -> u64 {
        let leads = |id: &u64| self.replicas[id].node.as_ref().is_some_and(RawNode::is_leader);
        let leaders: Vec<u64> = (1..=self.size).filter(leads).collect();
        match leaders.len() as u64 {
            0 => id,
            _ if self.dice.is_one_in(2) => id,
            count => leaders[self.dice.roll(count) as usize],
        }
    }

    fn propose(&mut self, id: u64) {
        let id = self.leader_or(id);
        self.next_command += 1;
        let data = self.next_command.to_be_bytes().to_vec();
        self.with(id, |node, _| drop(node.propose(data)));
    }

    fn read(&mut self, id: u64) {
        let id = self.leader_or(id);
        self.next_command += 1;
        let context = self.next_command.to_be_bytes().to_vec();
        let nodes = self.replicas.values().filter_map(|replica| replica.node.as_ref());
        self.watcher.on_read_asked(context.clone(), nodes);
        self.with(id, |node, _| node.read_index(context));
    }

    fn change(&mut self, id: u64) {
        let id = self.leader_or(id);
        use ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
        let kinds = if self.may_shrink { 4 } else { 2 };
        let size = self.size;
        let dice = &mut self.dice;
        let single = |dice: &mut Dice| ConfChangeSingle {
            change_type: [AddNode, AddNode, AddLearnerNode, RemoveNode][dice.roll(kinds) as usize],
            node_id: NodeId(1 + dice.roll(size)),
        };
        let transition = [
            None,
            Some(ConfChangeTransition::Auto),
            Some(ConfChangeTransition::JointImplicit),
            Some(ConfChangeTransition::JointExplicit),
            Some(ConfChangeTransition::JointExplicit),
        ][dice.roll(5) as usize];
        let changes = (0..dice.roll(4)).map(|_| single(dice)).collect();
        let change = ConfChangeV2 { transition, changes, ..ConfChangeV2::default() };
        let seed = self.seed;
        self.with(id, |node, _| {
            let (before, applied) = (node.pending_conf_index(), node.applied());
            let _ = node.propose_conf_change(change);
            let is_taken = node.pending_conf_index() != before;
            assert!(!is_taken || before <= applied, "seed {seed}: node {id} takes a second change");
        });
    }

    fn deliver_any(&mut self) {
        if self.dice.is_one_in(4 * self.lost_one_in) && !self.late.is_empty() {
            let place = self.dice.roll(self.late.len() as u64) as usize;
            return self.deliver(self.late[place].clone(), false);
        }
        if self.under_way.is_empty() {
            return;
        }
        let place = self.dice.roll(self.under_way.len() as u64) as usize;
        let message = match self.dice.is_one_in(self.lost_one_in) {
            true => self.under_way[place].clone(), // and again later
            false => self.under_way.swap_remove(place),
        };
        let is_lost = self.dice.is_one_in(self.lost_one_in);
        if self.dice.is_one_in(10) && self.late.len() < LATE_MAX {
            self.late.push(message.clone());
        } else if self.dice.is_one_in(10) && !self.late.is_empty() {
            let place = self.dice.roll(self.late.len() as u64) as usize;
            self.late[place] = message.clone();
        }
        self.deliver(message, is_lost);
    }

    fn deliver(&mut self, message: Message, is_lost: bool) {
        let (from, to) = (message.from.0, message.to.0);
        let is_lost = is_lost || self.cut.contains(&(from, to));
        if matches!(message.body, Body::Snapshot { .. }) {
            let status = if is_lost { SnapshotStatus::Failure } else { SnapshotStatus::Finish };
            self.with(from, |node, _| node.report_snapshot(NodeId(to), status));
        }
        if is_lost {
            return;
        }
        if let Some(node) = &mut self.at(to).node {
            match node.step(message) {
                Ok(())
                | Err(
                    Error::StepPeerNotFound | Error::ProposalDropped(_) | Error::ChangeRefused(_),
                ) => {}
                Err(error) => panic!("seed {}: node {to}: {error}", self.seed),
            }
            self.watch(to);
        }
    }

    /// Parts some nodes from the others, or one that leads from all; sometimes one way only.
    fn repartition(&mut self) {
        self.cut.clear();
        let leads = |replica: &Replica| replica.node.as_ref().is_some_and(RawNode::is_leader);
        let leader = self.replicas.iter().find(|(_, replica)| leads(replica)).map(|(id, _)| *id);
        let alone = match leader {
            Some(leader) if self.dice.is_one_in(2) => 1 << (leader - 1),
            _ => self.dice.roll(1 << self.size),
        };
        let ways = self.dice.roll(4);
        for one in 0..self.size {
            for other in 0..self.size {
                let (is_in, is_out) = ((alone >> one) & 1 != 0, (alone >> other) & 1 == 0);
                if is_in && is_out {
                    if ways != 0 {
                        self.cut.insert((one + 1, other + 1));
                    }
                    if ways != 1 {
                        self.cut.insert((other + 1, one + 1));
                    }
                }
            }
        }
    }

    // The driver.

    /// A piece of the work of a node, or of the next one that has some.
    fn drive_from(&mut self, id: u64) {
        let mut ids = (id..=self.size).chain(1..id);
        let busy = ids.find(|id| self.replicas[id].has_work());
        self.drive(busy.unwrap_or(id), true);
    }

    /// One piece of the work of a node; it may crash in the middle.
    fn drive(&mut self, id: u64, may_crash: bool) {
        self.work(id, may_crash);
        self.watch(id);
    }

    fn work(&mut self, id: u64, may_crash: bool) {
        let replica = self.replicas.get_mut(&id).unwrap();
        let Some(node) = &mut replica.node else { return };
        if replica.config.pull_appends {
            for peer in 1..=self.size {
                let bytes_max = self.dice.roll(100);
                if !may_crash || self.dice.is_one_in(4) {
                    node.pull_append(NodeId(peer), bytes_max).unwrap();
                }
            }
        }
        if replica.config.async_storage_writes {
            let is_slow = may_crash && !self.dice.is_one_in(replica.slowness);
            match self.dice.roll(3) {
                0 if node.has_ready() => {
                    let ready = node.ready();
                    self.watcher.on_reads(&ready);
                    self.note_transfers(id, &ready);
                    for message in ready.messages {
                        match message.to {
                            LOCAL_APPEND_THREAD => self.at(id).writes.push_back(message),
                            LOCAL_APPLY_THREAD => self.at(id).applies.push_back(message),
                            _ => self.send(message),
                        }
                    }
                }
                1 if !is_slow => self.write_one(id),
                _ => self.apply_one(id),
            }
            return;
        }
        if !node.has_ready() {
            return;
        }
        let ready = node.ready();
        self.note_transfers(id, &ready);
        let crash_at = if may_crash { self.dice.roll(4 * self.crash_one_in) } else { 4 };
        if crash_at == 0 {
            return self.crash(id);
        }
        let snapshot = ready.snapshot.as_ref();
        if let Some(snapshot) = snapshot {
            let conf_state = self.replicas[&id].node.as_ref().unwrap().conf_state();
            self.watcher.on_installed(id, snapshot.metadata.index, &conf_state);
        }
        let must_sync = ready.must_sync || self.dice.is_one_in(4);
        let replica = self.at(id);
        let healed = replica.write(ready.hard_state, &ready.entries, snapshot, must_sync);
        self.healed += usize::from(healed);
        if crash_at == 1 {
            return self.crash(id);
        }
        self.watcher.on_reads(&ready);
        for message in ready.messages {
            self.send(message);
        }
        if crash_at == 2 {
            return self.crash(id);
        }
        self.apply(id, &ready.committed_entries);
        if crash_at == 3 {
            return self.crash(id);
        }
        self.at(id).node.as_mut().unwrap().advance().unwrap();
    }

    fn write_one(&mut self, id: u64) {
        let replica = self.at(id);
        let Some(message) = replica.writes.pop_front() else { return };
        let Body::StorageAppend { hard_state, entries, snapshot, responses } = message.body else {
            panic!("{message:?} is no write");
        };
        let healed = replica.write(hard_state, &entries, snapshot.as_deref(), true);
        self.healed += usize::from(healed);
        self.respond(id, responses);
    }

    fn apply_one(&mut self, id: u64) {
        let Some(message) = self.at(id).applies.pop_front() else { return };
        let Body::StorageApply { entries, responses } = message.body else {
            panic!("{message:?} is no work to apply");
        };
        self.apply(id, &entries);
        self.respond(id, responses);
    }

    fn respond(&mut self, id: u64, responses: Vec<Message>) {
        for message in responses {
            if message.to != NodeId(id) {
                self.send(message);
                continue;
            }
            match self.at(id).node.as_mut().unwrap().step(message) {
                Ok(()) | Err(Error::StepPeerNotFound) => {}
                Err(error) => panic!("seed {}: node {id}: {error}", self.seed),
            }
            self.watch(id);
        }
    }

    fn send(&mut self, message: Message) {
        self.watcher.on_sent(&message, &self.replicas[&message.from.0]);
        match self.under_way.len() < UNDER_WAY_MAX {
            true => self.under_way.push(message),
            false => self.deliver(message, true),
        }
    }

    fn apply(&mut self, id: u64, entries: &[Entry]) {
        for entry in entries {
            let replica = self.replicas.get_mut(&id).unwrap();
            if replica.config.async_storage_writes && entry.index.0 <= replica.applied {
                // Handed out before a snapshot that was installed by the other thread.
                continue;
            }
            let (at, next, seed) = (entry.index.0, replica.applied + 1, self.seed);
            assert_eq!(at, next, "seed {seed}: node {id} skips or repeats");
            replica.applied = at;
            self.watcher.on_applied(id, entry);
            if entry.entry_type() != EntryType::Normal {
                let change = decode_conf_change(entry.entry_type(), entry.payload()).unwrap();
                if replica.apply_change(entry.index, &change) {
                    self.watcher.on_membership(id, entry.index, &replica.conf_state);
                }
                self.watch(id);
            }
        }
    }

    fn note_transfers(&mut self, id: u64, ready: &Ready) {
        let seed = self.seed;
        for note in &ready.notes {
            let transferring = &mut self.replicas.get_mut(&id).unwrap().transferring;
            match *note {
                Note::TransferStarted { to } => {
                    assert_eq!(*transferring, None, "seed {seed}: node {id} begins another");
                    *transferring = Some(to);
                }
                Note::TransferEnded { to, outcome } => {
                    assert_eq!(transferring.take(), Some(to), "seed {seed}: node {id}: {note}");
                    self.transferred += usize::from(outcome == TransferOutcome::Transferred);
                }
                Note::Missed { .. } => panic!("seed {seed}: node {id} has too much to say"),
                _ => {}
            }
        }
    }

    fn compact(&mut self, id: u64, least: u64) {
        let kept = self.dice.roll(least + 1);
        let replica = self.at(id);
        let first = replica.storage.first_index().unwrap().0;
        let last = replica.storage.last_index().unwrap().0;
        // Applied, and stored, and known there to be committed: with asynchronous writes the one
        // does not mean the other.
        let at = replica.applied;
        let commit = replica.hard_state().commit.0;
        if replica.node.is_none() || at < first + least || last < at || commit < at {
            return;
        }
        let conf_state = Some(replica.conf_state.clone());
        if replica.storage.create_snapshot(Index(at), conf_state, "state".into()).is_ok() {
            replica.storage.compact(Index(at - kept)).unwrap();
        }
    }

    fn crash(&mut self, id: u64) {
        self.at(id).crash();
    }

    fn start(&mut self, id: u64) {
        if self.at(id).node.is_none() {
            self.at(id).start();
        }
    }

    /// No more faults: the members of the last membership come to agree.
    fn converge(&mut self) {
        self.cut.clear();
        for id in 1..=self.size {
            self.start(id);
            // The leader may be one that knows no such requests.
            self.with(id, |node, _| node.cancel_snapshot_request());
        }
        for round in 0..400 {
            for id in 1..=self.size {
                self.tick(id);
            }
            for _ in 0..30 {
                for id in 1..=self.size {
                    for _ in 0..3 {
                        self.drive(id, false);
                    }
                }
                for message in std::mem::take(&mut self.under_way) {
                    self.deliver(message, false);
                }
            }
            if round % 20 == 0 {
                for id in 1..=self.size {
                    self.propose(id);
                    // A new member is of no use to itself in a snapshot from before it came.
                    self.compact(id, 0);
                }
            }
            if round > 40 && self.has_converged() {
                self.has_agreed = true;
                return;
            }
        }
        let hands_over = self.replicas.values().all(|it| it.config.hand_over_on_removal);
        if self.may_shrink && !hands_over {
            // A removed leader may have a longer log than the others, who still need its vote if
            // its last word to them was lost. Changes that take effect when they are applied have
            // this weakness; etcd advises against removals from a group of two.
            return;
        }
        let state: Vec<String> = self
            .replicas
            .iter()
            .map(|(id, replica)| {
                let node = replica.node.as_ref().unwrap();
                format!("{id}: {:?} applied {}", node.status(), replica.applied)
            })
            .collect();
        panic!("seed {}: no agreement:\n{}", self.seed, state.join("\n"));
    }

    fn has_converged(&self) -> bool {
        let newest = self.replicas.values().max_by_key(|replica| replica.applied).unwrap();
        let members = newest.conf_state.voters.iter().chain(&newest.conf_state.learners);
        let mut nodes = members.map(|id| &self.replicas[&id.0]);
        // A joint membership that is to be left by itself is left in the end.
        let is_leaving = newest.conf_state.auto_leave;
        !is_leaving
            && nodes.all(|replica| {
                let node = replica.node.as_ref().unwrap();
                let knows_members = node.conf_state().is_equivalent(&newest.conf_state);
                let has_all = node.last_index().0 == newest.applied;
                knows_members && has_all && replica.applied == newest.applied
            })
    }
}

/// The model of `seed`, after many faults and when they are over.
fn run(seed: u64) -> Model {
    let mut model = Model::new(seed);
    for _ in 0..4 {
        model.run(4000);
        model.watcher.on_logs(&model.replicas);
    }
    model.converge();
    model.watcher.on_logs(&model.replicas);
    model
}

#[test]
fn raft_keeps_its_promises_under_faults() {
    let (mut committed, mut answered, mut terms) = (0, 0, 0);
    let (mut transferred, mut healed, mut joint_steps) = (0, 0, 0);
    let (mut shrinking, mut shrunk_and_agreed) = (0, 0);
    for seed in 0..200 {
        let model = run(seed);
        committed += model.watcher.committed();
        answered += model.watcher.answered;
        terms += model.watcher.leaders.len();
        transferred += model.transferred;
        healed += model.healed;
        joint_steps += model.joint_steps;
        shrinking += usize::from(model.may_shrink);
        shrunk_and_agreed += usize::from(model.may_shrink && model.has_agreed);
    }
    // The faults leave room for work.
    println!(
        "{committed} entries, {answered} reads, {terms} leaderships, {transferred} transfers, \
         {healed} snapshots on request, {joint_steps} steps in joint memberships; \
         {shrunk_and_agreed} of {shrinking} groups that lost voters agreed in the end"
    );
    assert!(shrinking * 9 < shrunk_and_agreed * 10, "{shrunk_and_agreed} of {shrinking} agreed");
    assert!(committed > 10_000, "{committed} entries");
    assert!(answered > 4_000, "{answered} reads");
    assert!(terms > 700, "{terms} leaderships");
    assert!(transferred > 20, "{transferred} transfers");
    assert!(healed > 10, "{healed} snapshots on request");
    assert!(joint_steps > 100_000, "{joint_steps} steps in joint memberships");
}

/// Bugs that the model finds by itself. Others that can be put back need a rarer course of things, or
/// only keep a group from getting on: the simulator, or a test of their own, finds those.
const FOUND: [&str; 23] = [
    "votes-twice",
    "votes-for-any-log",
    "vote-before-disk",
    "acknowledgement-before-disk",
    "leads-before-its-own-vote",
    "elects-with-a-minority",
    "promises-of-votes-count-as-votes",
    "votes-of-an-earlier-campaign-count",
    "own-copy-counts-before-its-disk",
    "commits-with-a-minority",
    "commits-older-terms",
    "heartbeats-commit-past-what-matches",
    "a-joint-quorum-is-one-half",
    "a-joint-membership-is-never-left",
    "a-short-append-cuts-what-follows",
    "keeps-a-conflicting-tail",
    "an-unknown-term-is-a-match",
    "applies-what-is-not-committed",
    "an-older-snapshot-is-taken",
    "a-snapshot-cuts-entries-that-match",
    "a-snapshot-leaves-the-old-membership",
    "reads-without-a-quorum",
    "reads-before-its-first-commit",
];

#[test]
fn bugs_that_are_put_back_break_a_promise() {
    for bug in FOUND {
        bugs::put_back(Some(bug));
        let found = (0..200).find(|seed| catch_unwind(AssertUnwindSafe(|| run(*seed))).is_err());
        bugs::put_back(None);
        println!("{bug}: {found:?}");
        assert!(found.is_some(), "{bug} breaks no promise");
    }
}
