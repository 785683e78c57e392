//! A group of quorate-raft.

use std::any::Any;

use bytes::Bytes;
use quorate_codec::{decode_message, encode_message};
use quorate_raft::{
    Body, ConfState, Config, Entry, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MemoryStorage,
    Message, RawNode, Ready, Snapshot, Storage,
};
use quorate_types::NodeId;

use super::{
    APPEND_BYTES_MAX, Applied, ELECTION_TICKS, Group, INFLIGHT_COUNT_MAX, Proposing, Setup, carry,
};

/// A group of quorate-raft.
pub struct Quorate<S = MemoryStorage> {
    members: Vec<Member<S>>,
    encoded: bool,
    /// What was sent and not delivered.
    wire: Vec<Message>,
    /// The memory of every Ready.
    ready: Ready,
    reuse_ready: bool,
}

struct Member<S> {
    node: Box<RawNode<S>>,
    stored: MemoryStorage,
    applied: Applied,
    readies: u64,
}

impl<S: Storage + 'static> Quorate<S> {
    /// A group whose nodes read their logs through what `storage` makes of them.
    pub fn with_storage(setup: Setup, storage: impl Fn(NodeId, MemoryStorage) -> S) -> Self {
        let voters: Vec<NodeId> = (1..=setup.members).map(NodeId).collect();
        let member = |id: &NodeId| {
            let mut first = Snapshot::default();
            first.metadata.conf_state =
                ConfState { voters: voters.clone(), ..ConfState::default() };
            let stored = MemoryStorage::new();
            stored.apply_snapshot(first).expect("the log is empty");
            let node = RawNode::new(config(*id, setup), storage(*id, stored.clone()));
            let node = Box::new(node.expect("the options are good"));
            Member { node, stored, applied: Applied::default(), readies: 0 }
        };
        let members = voters.iter().map(member).collect();
        let mut group = Quorate {
            members,
            encoded: setup.encoded,
            wire: Vec::new(),
            ready: Ready::default(),
            reuse_ready: setup.reuse_ready,
        };
        group.leader().campaign().expect("storage answers");
        group.settle();
        assert!(group.is_led(), "nobody else campaigns");
        group
    }

    /// How many Readies the leader has given.
    pub fn readies(&self) -> u64 {
        self.members[0].readies
    }

    /// The node that leads.
    pub fn leader(&mut self) -> &mut RawNode<S> {
        &mut self.members[0].node
    }
}

fn config(id: NodeId, setup: Setup) -> Config {
    Config {
        election_tick: ELECTION_TICKS * setup.heartbeat_ticks,
        heartbeat_tick: setup.heartbeat_ticks,
        max_size_per_msg: APPEND_BYTES_MAX,
        max_committed_size_per_ready: u64::MAX,
        max_inflight_msgs: INFLIGHT_COUNT_MAX,
        async_storage_writes: setup.async_writes,
        coalesce_appends: setup.coalesce,
        ..Config::new(id)
    }
}

impl<S: Storage> Member<S> {
    /// Does the work there is, by `ready` and `advance`.
    fn work(&mut self, ready: &mut Ready, wire: &mut Vec<Message>) {
        while self.node.has_ready() {
            self.node.ready_into(ready);
            self.readies += 1;
            if !ready.entries.is_empty() {
                self.stored.append_shared(&ready.entries).expect("entries follow each other");
            }
            if let Some(hard_state) = ready.hard_state {
                self.stored.set_hard_state(hard_state);
            }
            wire.append(&mut ready.messages);
            self.apply(&ready.committed_entries);
            if !ready.entries.is_empty() || !ready.committed_entries.is_empty() {
                ready.clear();
            }
            self.node.advance().expect("storage answers");
        }
    }

    /// Does the work there is, which comes as messages to the storage threads.
    fn work_async(&mut self, ready: &mut Ready, wire: &mut Vec<Message>) {
        while self.node.has_ready() {
            self.node.ready_into(ready);
            self.readies += 1;
            let mut messages = std::mem::take(&mut ready.messages);
            ready.clear();
            for message in messages.drain(..) {
                let answers = match message.body {
                    Body::StorageAppend { hard_state, entries, responses, .. }
                        if message.to == LOCAL_APPEND_THREAD =>
                    {
                        if !entries.is_empty() {
                            self.stored.append_shared(&entries).expect("entries follow each other");
                        }
                        if let Some(hard_state) = hard_state {
                            self.stored.set_hard_state(hard_state);
                        }
                        responses
                    }
                    Body::StorageApply { entries, responses }
                        if message.to == LOCAL_APPLY_THREAD =>
                    {
                        self.apply(&entries);
                        responses
                    }
                    body => {
                        wire.push(Message { body, ..message });
                        continue;
                    }
                };
                for answer in answers {
                    if answer.to == self.node.id() {
                        self.node.step(answer).expect("it is for this node");
                    } else {
                        wire.push(answer);
                    }
                }
            }
            ready.messages = messages;
        }
    }

    fn apply(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.applied.take(entry.payload());
        }
    }
}

impl Group for Quorate {
    const NAME: &'static str = "quorate";

    fn new(setup: Setup) -> Self {
        Quorate::with_storage(setup, |_, stored| stored)
    }

    fn propose(&mut self, proposing: Proposing, payload: &Bytes, count: usize) {
        self.propose_to_leader(proposing, payload, count);
    }

    fn settle(&mut self) {
        Quorate::settle(self);
    }

    fn tick(&mut self) {
        for member in &mut self.members {
            member.node.tick().expect("storage answers");
        }
    }

    fn compact(&mut self) {
        for member in &mut self.members {
            member.stored.compact(member.node.applied()).expect("something is new");
        }
    }

    fn applied(&self) -> Vec<Applied> {
        self.members.iter().map(|member| member.applied).collect()
    }

    fn is_led(&self) -> bool {
        Quorate::is_led(self)
    }

    fn give_up(self, mut drop_node: impl FnMut(bool, Box<dyn Any>)) {
        for Member { node, stored, .. } in self.members {
            drop_node(node.is_leader(), node);
            drop(stored);
        }
    }
}

impl<S: Storage> Quorate<S> {
    /// See [`Group::propose`].
    pub fn propose_to_leader(&mut self, proposing: Proposing, payload: &Bytes, count: usize) {
        let leader = &mut self.members[0].node;
        match proposing {
            Proposing::Batched => {
                let entry = || Entry { data: Some(payload.clone()), ..Entry::default() };
                let entries = std::iter::repeat_with(entry).take(count).collect();
                leader.propose_entries(entries).expect("it leads");
            }
            Proposing::Each => {
                for _ in 0..count {
                    leader.propose(payload.to_vec()).expect("it leads");
                }
            }
        }
    }

    /// See [`Group::settle`].
    pub fn settle(&mut self) {
        loop {
            for member in &mut self.members {
                match member.node.config().async_storage_writes {
                    true => member.work_async(&mut self.ready, &mut self.wire),
                    false => member.work(&mut self.ready, &mut self.wire),
                }
                if !self.reuse_ready {
                    self.ready = Ready::default();
                }
            }
            if self.wire.is_empty() {
                return;
            }
            for mut message in self.wire.drain(..) {
                if self.encoded {
                    let received = carry(&encode_message(&message));
                    message = decode_message(received).expect("it was encoded just now");
                }
                let to = &mut self.members[message.to.0 as usize - 1].node;
                to.step(message).expect("it comes from a member");
            }
        }
    }

    fn is_led(&self) -> bool {
        self.members[0].node.is_leader()
    }
}
