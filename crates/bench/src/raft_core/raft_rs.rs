//! A group of `raft` (raft-rs), with its default codec and a logger that drops everything.

use std::any::Any;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, NO_LIMIT, RawNode, StateRole, Storage};

use super::{
    APPEND_BYTES_MAX, Applied, ELECTION_TICKS, Group, INFLIGHT_COUNT_MAX, Proposing, Setup, carry,
};

/// A group of raft-rs.
pub struct RaftRs<S: Storage = MemStorage> {
    members: Vec<Member<S>>,
    encoded: bool,
    /// What was sent and not delivered.
    wire: Vec<Message>,
}

struct Member<S: Storage> {
    node: Box<RawNode<S>>,
    stored: MemStorage,
    applied: Applied,
    readies: u64,
}

impl<S: Storage + 'static> RaftRs<S> {
    /// A group whose nodes read their logs through what `storage` makes of them.
    pub fn with_storage(setup: Setup, storage: impl Fn(u64, MemStorage) -> S) -> Self {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let voters: Vec<u64> = (1..=setup.members).collect();
        let member = |id: &u64| {
            let conf_state = ConfState::from((voters.clone(), Vec::new()));
            let stored = MemStorage::new_with_conf_state(conf_state);
            let node = RawNode::new(&config(*id, setup), storage(*id, stored.clone()), &logger);
            let node = Box::new(node.expect("the options are good"));
            Member { node, stored, applied: Applied::default(), readies: 0 }
        };
        let members = voters.iter().map(member).collect();
        let mut group = RaftRs { members, encoded: setup.encoded, wire: Vec::new() };
        group.leader().campaign().expect("it is a voter");
        group.settle();
        assert!(group.is_led(), "nobody else campaigns");
        group
    }

    /// How many Readies the leader has given. The `LightReady` of each `advance` is not counted.
    pub fn readies(&self) -> u64 {
        self.members[0].readies
    }

    /// The node that leads.
    pub fn leader(&mut self) -> &mut RawNode<S> {
        &mut self.members[0].node
    }
}

fn config(id: u64, setup: Setup) -> Config {
    Config {
        election_tick: (ELECTION_TICKS * setup.heartbeat_ticks) as usize,
        heartbeat_tick: setup.heartbeat_ticks as usize,
        max_size_per_msg: APPEND_BYTES_MAX,
        max_inflight_msgs: INFLIGHT_COUNT_MAX,
        max_committed_size_per_ready: NO_LIMIT,
        check_quorum: true,
        pre_vote: true,
        batch_append: setup.coalesce,
        ..Config::new(id)
    }
}

impl<S: Storage> Member<S> {
    /// Does the work there is, as the documentation of raft-rs orders it.
    fn work(&mut self, wire: &mut Vec<Message>) {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            self.readies += 1;
            wire.extend(ready.take_messages());
            self.apply(&ready.take_committed_entries());
            if !ready.entries().is_empty() {
                self.stored.wl().append(ready.entries()).expect("entries follow each other");
            }
            if let Some(hard_state) = ready.hs() {
                self.stored.wl().set_hardstate(hard_state.clone());
            }
            wire.extend(ready.take_persisted_messages());
            let mut light = self.node.advance(ready);
            if let Some(commit) = light.commit_index() {
                self.stored.wl().mut_hard_state().set_commit(commit);
            }
            wire.extend(light.take_messages());
            self.apply(&light.take_committed_entries());
            self.node.advance_apply();
        }
    }

    fn apply(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.applied.take(&entry.data);
        }
    }
}

impl Group for RaftRs {
    const NAME: &'static str = "raft-rs";

    fn new(setup: Setup) -> Self {
        RaftRs::with_storage(setup, |_, stored| stored)
    }

    fn propose(&mut self, proposing: Proposing, payload: &Bytes, count: usize) {
        self.propose_to_leader(proposing, payload, count);
    }

    fn settle(&mut self) {
        RaftRs::settle(self);
    }

    fn tick(&mut self) {
        for member in &mut self.members {
            member.node.tick();
        }
    }

    fn compact(&mut self) {
        for member in &mut self.members {
            // It keeps the entry at the index it is given, and needs one to know where it is.
            let applied = member.node.raft.raft_log.applied;
            member.stored.wl().compact(applied).expect("something is new");
        }
    }

    fn applied(&self) -> Vec<Applied> {
        self.members.iter().map(|member| member.applied).collect()
    }

    fn is_led(&self) -> bool {
        RaftRs::is_led(self)
    }

    fn give_up(self, mut drop_node: impl FnMut(bool, Box<dyn Any>)) {
        for Member { node, stored, .. } in self.members {
            drop_node(node.raft.state == StateRole::Leader, node);
            drop(stored);
        }
    }
}

impl<S: Storage> RaftRs<S> {
    /// See [`Group::propose`].
    pub fn propose_to_leader(&mut self, proposing: Proposing, payload: &Bytes, count: usize) {
        let leader = &mut self.members[0].node;
        match proposing {
            Proposing::Batched => {
                let entry = || Entry { data: payload.clone(), ..Entry::default() };
                let entries: Vec<Entry> = std::iter::repeat_with(entry).take(count).collect();
                let mut message = Message::default();
                message.set_msg_type(MessageType::MsgPropose);
                message.from = leader.raft.id;
                message.set_entries(entries.into());
                leader.step(message).expect("it leads");
            }
            Proposing::Each => {
                for _ in 0..count {
                    leader.propose(Vec::new(), payload.to_vec()).expect("it leads");
                }
            }
        }
    }

    /// See [`Group::settle`].
    pub fn settle(&mut self) {
        loop {
            for member in &mut self.members {
                member.work(&mut self.wire);
            }
            if self.wire.is_empty() {
                return;
            }
            for mut message in self.wire.drain(..) {
                if self.encoded {
                    let sent = message.write_to_bytes().expect("it is complete");
                    // Payloads share the memory of what was received, as they do in quorate.
                    let received = carry(&[sent]);
                    message = Message::parse_from_carllerche_bytes(&received)
                        .expect("it was encoded just now");
                }
                let to = &mut self.members[message.to as usize - 1].node;
                to.step(message).expect("it comes from a member");
            }
        }
    }

    fn is_led(&self) -> bool {
        self.members[0].node.raft.state == StateRole::Leader
    }
}
