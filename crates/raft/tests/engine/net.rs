//! A group in memory: nodes, their storage, and a network that loses only what it is told to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_raft::{
    AnyConfChange, Body, ConfChange, ConfChangeType, ConfChangeV2, ConfState, Config, Entry,
    EntryType, Error, MemoryStorage, Message, MessageType, Progress, RawNode, Ready, Role,
    Snapshot, Storage, conf_changes_from_string, decode_conf_change, describe_message,
};
use quorate_types::{EntryId, Index, NodeId, Term};

/// Settings that show the rules: long timeouts, no limits, no options.
pub(crate) fn plain(id: u64) -> Config {
    Config {
        id: NodeId(id),
        election_tick: 10,
        heartbeat_tick: 1,
        max_size_per_msg: u64::MAX,
        max_inflight_msgs: 256,
        ..Config::default()
    }
}

/// One node with its storage and what it has applied.
pub(crate) struct Member {
    pub(crate) node: RawNode<MemoryStorage>,
    pub(crate) storage: MemoryStorage,
    pub(crate) applied: Vec<Entry>,
    /// Answered reads: index and context.
    pub(crate) reads: Vec<(u64, String)>,
    pub(crate) lost_reads: Vec<String>,
    /// The last Ready, whose memory the next one takes.
    ready: Ready,
}

impl Member {
    /// A node with an empty log, in a group of `voters`.
    pub(crate) fn new(config: Config, voters: &[u64]) -> Self {
        Self::with_log(config, voters, &[])
    }

    /// A node whose log holds, from index 1 on, entries of these terms; none is committed.
    pub(crate) fn with_log(config: Config, voters: &[u64], terms: &[u64]) -> Self {
        Self::with_members(config, voters, &[], terms)
    }

    pub(crate) fn with_members(
        config: Config,
        voters: &[u64],
        learners: &[u64],
        terms: &[u64],
    ) -> Self {
        let storage = MemoryStorage::new();
        let mut snapshot = Snapshot::default();
        snapshot.metadata.conf_state =
            ConfState { voters: ids(voters), learners: ids(learners), ..ConfState::default() };
        storage.apply_snapshot(snapshot).unwrap();
        storage.append(&log_of(1, terms)).unwrap();
        if let Some(&term) = terms.last() {
            storage.set_hard_state(quorate_raft::HardState {
                term: Term(term),
                ..quorate_raft::HardState::default()
            });
        }
        Self::on(config, storage)
    }

    /// A node that starts from what `storage` holds.
    pub(crate) fn on(config: Config, storage: MemoryStorage) -> Self {
        let node = RawNode::new(config, storage.clone()).unwrap();
        let (applied, reads, lost_reads) = (vec![], vec![], vec![]);
        Member { node, storage, applied, reads, lost_reads, ready: Ready::default() }
    }

    /// Writes what a Ready asks to be written.
    pub(crate) fn write(&mut self, ready: &Ready) {
        if let Some(hard_state) = ready.hard_state {
            self.storage.set_hard_state(hard_state);
        }
        if let Some(snapshot) = &ready.snapshot {
            self.storage.apply_snapshot(snapshot.clone()).unwrap();
        }
        self.storage.append(&ready.entries).unwrap();
    }

    /// Applies what a Ready asks to be applied.
    pub(crate) fn apply(&mut self, ready: &Ready) {
        let text = |context: &Bytes| String::from_utf8_lossy(context).into_owned();
        for read in &ready.read_states {
            self.reads.push((read.index.0, text(&read.request_ctx)));
        }
        self.lost_reads.extend(ready.lost_reads.iter().map(text));
        for entry in &ready.committed_entries {
            if entry.entry_type() != EntryType::Normal {
                let change = decode_conf_change(entry.entry_type(), entry.payload()).unwrap();
                self.node.apply_conf_change(&change).unwrap();
            }
            self.applied.push(entry.clone());
        }
    }

    /// Takes one Ready through the synchronous loop; gives the messages to send.
    pub(crate) fn turn(&mut self) -> Vec<Message> {
        let mut ready = std::mem::take(&mut self.ready);
        self.node.ready_into(&mut ready);
        self.write(&ready);
        self.apply(&ready);
        self.node.advance().unwrap();
        let messages = ready.messages.clone();
        self.ready = ready;
        messages
    }

    /// Does all the work there is; gives what the node said meanwhile.
    pub(crate) fn work(&mut self) -> Vec<Message> {
        let mut said = vec![];
        while self.node.has_ready() {
            said.extend(self.turn());
        }
        said
    }

    /// As [`Member::work`], as text.
    pub(crate) fn said(&mut self) -> Vec<String> {
        texts(&self.work())
    }

    /// Gives the node a message of `from` at `term`.
    pub(crate) fn hear(&mut self, from: u64, term: u64, body: Body) {
        self.step(from, term, body).unwrap();
    }

    pub(crate) fn step(&mut self, from: u64, term: u64, body: Body) -> Result<(), Error> {
        let to = self.node.id();
        self.node.step(Message { to, from: NodeId(from), term: Term(term), body })
    }

    pub(crate) fn tick(&mut self, count: u32) {
        for _ in 0..count {
            self.node.tick().unwrap();
        }
    }

    /// Makes the node a candidate or pre-candidate that has stored its own vote.
    pub(crate) fn stand(&mut self) {
        self.node.campaign().unwrap();
        self.work();
    }

    /// Makes the node a leader, by votes of `voters`, whose empty entry nobody has yet.
    pub(crate) fn lead(&mut self, voters: &[u64]) {
        self.stand();
        for &voter in voters {
            let (term, reply) = match self.node.role() {
                Role::PreCandidate => {
                    (self.node.term().0 + 1, Body::PreVoteReply { reject: false })
                }
                _ => (self.node.term().0, Body::VoteReply { reject: false }),
            };
            self.hear(voter, term, reply);
            self.work();
        }
        assert_eq!(self.node.role(), Role::Leader);
    }

    /// The terms in the log, from the first index on, stored or not.
    pub(crate) fn terms(&self) -> Vec<u64> {
        let (first, last) = (self.storage.first_index().unwrap().0, self.node.last_index().0);
        (first..=last).map(|index| self.node.entry_term(Index(index)).unwrap().0).collect()
    }

    /// What was applied and holds anything, as text.
    pub(crate) fn machine(&self) -> Vec<String> {
        let held = self.applied.iter().filter(|entry| !entry.payload().is_empty());
        held.map(|entry| String::from_utf8_lossy(entry.payload()).into_owned()).collect()
    }

    pub(crate) fn progress(&self, id: u64) -> Progress {
        self.node.status().progress.get(NodeId(id)).unwrap().clone()
    }

    pub(crate) fn timeout(&mut self) {
        let ticks = self.node.randomized_election_timeout();
        self.tick(ticks);
    }
}

/// Several members and what is under way between them.
pub(crate) struct Net {
    pub(crate) members: BTreeMap<u64, Member>,
    pub(crate) under_way: Vec<Message>,
    cut: BTreeSet<(u64, u64)>,
    lost: BTreeSet<MessageType>,
}

impl Net {
    pub(crate) fn new(voters: &[u64]) -> Self {
        Self::with(voters, |_| {})
    }

    /// A group whose nodes' settings `change` has altered.
    pub(crate) fn with(voters: &[u64], change: impl Fn(&mut Config)) -> Self {
        let member = |&id: &u64| {
            let mut config = plain(id);
            change(&mut config);
            Member::new(config, voters)
        };
        Self::of(voters.iter().map(member))
    }

    pub(crate) fn of(members: impl IntoIterator<Item = Member>) -> Self {
        let members = members.into_iter().map(|member| (member.node.id().0, member)).collect();
        Net { members, under_way: vec![], cut: BTreeSet::new(), lost: BTreeSet::new() }
    }

    pub(crate) fn at(&mut self, id: u64) -> &mut Member {
        self.members.get_mut(&id).unwrap()
    }

    pub(crate) fn node(&mut self, id: u64) -> &mut RawNode<MemoryStorage> {
        &mut self.at(id).node
    }

    /// Lets everything happen until nothing does any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            for member in self.members.values_mut() {
                self.under_way.extend(member.work());
            }
            if self.under_way.is_empty() {
                return;
            }
            for message in std::mem::take(&mut self.under_way) {
                self.deliver(message);
            }
        }
        panic!("the group never settles");
    }

    pub(crate) fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from.0, message.to.0);
        let is_lost = self.cut.contains(&(from, to)) || self.lost.contains(&message.message_type());
        if let (false, Some(member)) = (is_lost, self.members.get_mut(&to)) {
            match member.node.step(message) {
                Ok(()) | Err(Error::StepPeerNotFound | Error::ProposalDropped(_)) => {}
                Err(error) => panic!("node {to}: {error}"),
            }
        }
    }

    pub(crate) fn campaign(&mut self, id: u64) {
        self.node(id).campaign().unwrap();
        self.settle();
    }

    pub(crate) fn propose(&mut self, id: u64, data: &'static str) -> Result<(), Error> {
        let result = self.node(id).propose(data);
        self.settle();
        result
    }

    /// Proposes a change in the `v1 l2 r3` notation, in the second form.
    pub(crate) fn change(&mut self, id: u64, text: &str) -> Result<(), Error> {
        let result = self.node(id).propose_conf_change(changes(text));
        self.settle();
        result
    }

    pub(crate) fn tick(&mut self, id: u64, count: u32) {
        for _ in 0..count {
            self.at(id).tick(1);
            self.settle();
        }
    }

    pub(crate) fn cut(&mut self, one: u64, other: u64) {
        self.cut.extend([(one, other), (other, one)]);
    }

    pub(crate) fn isolate(&mut self, id: u64) {
        for other in self.members.keys().copied().collect::<Vec<_>>() {
            if other != id {
                self.cut(id, other);
            }
        }
    }

    pub(crate) fn lose(&mut self, kind: MessageType) {
        self.lost.insert(kind);
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.lost.clear();
    }

    pub(crate) fn roles(&self) -> Vec<(u64, Role, u64)> {
        let of = |(id, member): (&u64, &Member)| (*id, member.node.role(), member.node.term().0);
        self.members.iter().map(of).collect()
    }

    pub(crate) fn leaders(&self) -> Vec<u64> {
        let leads = |(_, member): &(&u64, &Member)| member.node.is_leader();
        self.members.iter().filter(leads).map(|(id, _)| *id).collect()
    }
}

pub(crate) fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

pub(crate) fn id(term: u64, index: u64) -> EntryId {
    EntryId::new(term, index)
}

/// Entries of these terms, from `first` on, without data.
pub(crate) fn log_of(first: u64, terms: &[u64]) -> Vec<Entry> {
    let entry =
        |(index, &term)| Entry { term: Term(term), index: Index(index), ..Entry::default() };
    (first..).zip(terms).map(entry).collect()
}

pub(crate) fn append(prev: EntryId, terms: &[u64], commit: u64) -> Body {
    Body::Append { prev, entries: log_of(prev.index.0 + 1, terms).into(), commit: Index(commit) }
}

pub(crate) fn ack(index: u64) -> Body {
    Body::AppendReply { index: Index(index) }
}

pub(crate) fn heartbeat(commit: u64) -> Body {
    Body::Heartbeat { commit: Index(commit), context: Bytes::new() }
}

pub(crate) fn heard() -> Body {
    Body::HeartbeatReply { context: Bytes::new() }
}

pub(crate) fn vote(last: EntryId) -> Body {
    Body::Vote { last, transfer: false, priority: 0 }
}

pub(crate) fn pre_vote(last: EntryId) -> Body {
    Body::PreVote { last, transfer: false, priority: 0 }
}

pub(crate) fn snapshot(term: u64, index: u64, voters: &[u64]) -> Snapshot {
    let mut snapshot = Snapshot { data: Bytes::from_static(b"state"), ..Snapshot::default() };
    snapshot.metadata.term = Term(term);
    snapshot.metadata.index = Index(index);
    snapshot.metadata.conf_state.voters = ids(voters);
    snapshot
}

/// A change in the `v1 l2 r3` notation, in the second form.
pub(crate) fn changes(text: &str) -> AnyConfChange {
    let changes = conf_changes_from_string(text).unwrap();
    ConfChangeV2 { changes, ..ConfChangeV2::default() }.into()
}

/// A change of one node in the first form.
pub(crate) fn change_v1(change_type: ConfChangeType, node: u64) -> AnyConfChange {
    ConfChange { change_type, node_id: NodeId(node), ..ConfChange::default() }.into()
}

pub(crate) fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| describe_message(message, None)).collect()
}

/// Chance for tests: small, and the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// From 0 up to and excluding `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    pub(crate) fn is_one_in(&mut self, count: u64) -> bool {
        self.roll(count) == 0
    }
}
