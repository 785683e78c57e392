//! Autopilot on the Raft engine: a cluster on one thread, whose leader looks after its membership through
//! the adapter. A change carries its tag and the configuration it was decided on in its context.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_autopilot::adapter::{
    Changes, CoreChange, CoreMembership, Fate, Tag, Transfer, admits, node_id, server_id,
    stats_of_leader, stats_of_peer,
};
use quorate_autopilot::{
    Action, Config, Inputs, NodeStatus, Promoter, RaftError, Server, ServerId, Span,
    StablePromoter, State, Strictness, Time, plan_prune, plan_reconcile,
};
use quorate_raft::{
    AnyConfChange, ConfChange, ConfChangeType, ConfChangeV2, Config as RaftConfig, EntryType,
    MemoryStorage, Message, Peer, RawNode, decode_conf_change,
};
use quorate_types::{Index, NodeId, bugs};

const TICK: Span = Span::from_millis(100);
const TIMEOUT: Span = Span::from_secs(5);

struct Node {
    raw: RawNode<MemoryStorage>,
    log: MemoryStorage,
    applied: Vec<String>,
    membership: CoreMembership,
    changes: Changes,
    fates: Vec<Fate>,
    is_up: bool,
    heard_at: BTreeMap<NodeId, Time>,
}

struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    now: Time,
    /// On the leader; a new leader begins anew.
    state: State,
    led_by: Option<NodeId>,
    config: Config,
    strictness: Strictness,
    written: u64,
    /// What was said to be written.
    acknowledged: BTreeSet<String>,
}

fn address(id: NodeId) -> String {
    format!("n{id}:1")
}

impl Node {
    fn new(id: u64) -> Node {
        let log = MemoryStorage::new();
        let config = RaftConfig {
            election_tick: 10,
            heartbeat_tick: 1,
            check_quorum: true,
            pre_vote: true,
            step_down_on_removal: true,
            ..RaftConfig::new(NodeId(id))
        };
        let raw = RawNode::new(config, log.clone()).unwrap();
        Node {
            raw,
            log,
            applied: Vec::new(),
            membership: CoreMembership::default(),
            changes: Changes::default(),
            fates: Vec::new(),
            is_up: true,
            heard_at: BTreeMap::new(),
        }
    }

    /// Does what the node asks for; gives what is to be sent.
    fn work(&mut self) -> Vec<Message> {
        let mut sent = Vec::new();
        while self.raw.has_ready() {
            let ready = self.raw.ready();
            if let Some(snapshot) = &ready.snapshot {
                self.log.apply_snapshot(snapshot.clone()).unwrap();
            }
            self.log.append(&ready.entries).unwrap();
            ready.hard_state.into_iter().for_each(|hard_state| self.log.set_hard_state(hard_state));
            sent.extend(ready.messages);
            for entry in ready.committed_entries {
                match entry.entry_type() {
                    EntryType::Normal => {
                        if !entry.payload().is_empty() {
                            let text = String::from_utf8(entry.payload().to_vec()).unwrap();
                            self.applied.push(text);
                        }
                        let fate = self.changes.on_applied(entry.index, None, Ok(()));
                        self.fates.extend(fate);
                    }
                    kind => self.apply_change(entry.index, kind, entry.payload()),
                }
            }
            self.raw.advance().unwrap();
        }
        self.membership.leader = self.raw.leader();
        if !self.raw.is_leader() {
            self.fates.extend(self.changes.on_lost_leadership());
        }
        sent
    }

    fn apply_change(&mut self, index: Index, kind: EntryType, payload: &[u8]) {
        let change = decode_conf_change(kind, payload).unwrap();
        let context = change.as_v2().context;
        let number = |at: usize| {
            let bytes = context.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let (author, tag, prev_index) = (number(0), number(8), number(16).unwrap_or(0));
        let outcome = admits(self.membership.index, Index(prev_index));
        let conf_state = match outcome {
            Ok(()) => self.raw.apply_conf_change(&change).unwrap(),
            // As a change of nobody: on every node alike.
            Err(_) => self.raw.apply_conf_change(&ConfChange::default().into()).unwrap(),
        };
        if outcome.is_ok() {
            self.membership.index = index;
        }
        self.membership.voters = conf_state.voters.into_iter().collect();
        self.membership.voters_outgoing = conf_state.voters_outgoing.into_iter().collect();
        self.membership.learners = conf_state.learners.into_iter().collect();
        let members = self.membership.configuration().members;
        let ids = members.iter().filter_map(|member| node_id(&member.id));
        self.membership.addresses = ids.map(|id| (id, address(id))).collect();
        let own = author == Some(self.raw.id().0);
        let tag = tag.filter(|_| own).map(Tag);
        let fate = self.changes.on_applied(index, tag, outcome);
        self.fates.extend(fate);
    }

    /// Proposes a change through the adapter.
    fn propose(
        &mut self,
        now: Time,
        action: &Action,
        prev_index: Index,
    ) -> Result<Option<Tag>, RaftError> {
        let Some(change) = self.membership.plan(action)? else { return Ok(None) };
        let tag = self.changes.begin(now, &self.membership, prev_index, TIMEOUT, false)?;
        let numbers = [self.raw.id().0, tag.0, prev_index.0];
        let context: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let one = |change_type, node_id: NodeId| {
            let context = context.clone().into();
            ConfChange { id: 0, change_type, node_id, context }.into()
        };
        let proposal: AnyConfChange = match change {
            CoreChange::AddNode { id, .. } => one(ConfChangeType::AddNode, id),
            CoreChange::AddLearner { id, .. } => one(ConfChangeType::AddLearnerNode, id),
            CoreChange::UpdateNode { id, .. } => one(ConfChangeType::UpdateNode, id),
            CoreChange::RemoveNode { id } => one(ConfChangeType::RemoveNode, id),
            CoreChange::Replace { demoted, promoted, .. } => ConfChangeV2 {
                changes: vec![
                    quorate_raft::ConfChangeSingle::new(ConfChangeType::AddLearnerNode, demoted),
                    quorate_raft::ConfChangeSingle::new(ConfChangeType::AddNode, promoted),
                ],
                context: context.clone().into(),
                ..ConfChangeV2::default()
            }
            .into(),
        };
        let at = self.raw.propose_conf_change_at(proposal).ok().flatten();
        self.fates.extend(self.changes.on_proposed(tag, at.map(|entry| entry.index)));
        Ok(Some(tag))
    }
}

impl Cluster {
    fn new(voters: u64) -> Cluster {
        let peers: Vec<Peer> = (1..=voters).map(Peer::new).collect();
        let mut nodes = BTreeMap::new();
        for id in 1..=voters {
            let mut node = Node::new(id);
            node.raw.bootstrap(&peers).unwrap();
            nodes.insert(NodeId(id), node);
        }
        let mut cluster = Cluster {
            nodes,
            now: Time::from_unix(1_600_000_000, 0),
            state: State::default(),
            led_by: None,
            config: Config { min_quorum: 3, ..Config::default() },
            strictness: Strictness {
                dead_server_threshold: Span::from_secs(5),
                join_grace: Span::from_secs(5),
                ..Strictness::server()
            },
            written: 0,
            acknowledged: BTreeSet::new(),
        };
        cluster.pass(50);
        cluster
    }

    fn leader(&self) -> Option<NodeId> {
        let leaders = self.nodes.iter().filter(|(_, node)| node.is_up && node.raw.is_leader());
        leaders.max_by_key(|(_, node)| node.raw.term()).map(|(id, _)| *id)
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    /// So many ticks, with all messages between nodes that are up.
    fn pass(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.now = self.now.plus(TICK);
            for node in self.nodes.values_mut().filter(|node| node.is_up) {
                node.raw.tick().unwrap();
            }
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        loop {
            let mut messages = VecDeque::new();
            for node in self.nodes.values_mut().filter(|node| node.is_up) {
                messages.extend(node.work());
            }
            if messages.is_empty() {
                return;
            }
            for message in messages {
                let now = self.now;
                let Some(to) = self.nodes.get_mut(&message.to).filter(|to| to.is_up) else {
                    continue;
                };
                to.heard_at.insert(message.from, now);
                let _ = to.raw.step(message);
            }
        }
    }

    /// Writes through the leader, and remembers what a majority has.
    fn write(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.written += 1;
        let text = format!("w{}", self.written);
        let _ = self.node(leader).raw.propose(text.clone());
        self.deliver();
        if self.node(leader).applied.contains(&text) {
            self.acknowledged.insert(text);
        }
    }

    fn inputs(&self, leader: NodeId) -> Inputs {
        let node = &self.nodes[&leader];
        let (last_index, last_term) = (node.raw.last_index(), node.raw.term());
        let mut known_servers = BTreeMap::new();
        let mut fetched_stats = BTreeMap::new();
        let status = node.raw.status();
        for (id, other) in &self.nodes {
            let node_status = if other.is_up { NodeStatus::Alive } else { NodeStatus::Failed };
            let server = Server { id: server_id(*id), node_status, ..Server::default() };
            known_servers.insert(server_id(*id), server);
            let Some(progress) = status.progress.get(*id) else { continue };
            let stats = match *id == leader {
                true => stats_of_leader(last_index, last_term),
                false => {
                    let term = node.raw.entry_term(progress.matched);
                    let heard_at = node.heard_at.get(id).copied();
                    stats_of_peer(self.now, progress.matched, term, heard_at)
                }
            };
            fetched_stats.insert(server_id(*id), stats);
        }
        Inputs {
            now: self.now,
            first_state_time: self.state.first_state_time().unwrap_or(self.now),
            config: self.config.clone(),
            current: Some(self.state.clone()),
            configuration: node.membership.configuration(),
            known_servers,
            last_index,
            last_term,
            fetched_stats,
            leader: Some(server_id(leader)),
            is_leader: true,
            ..Inputs::default()
        }
    }

    /// One update of the state on whoever leads.
    fn update(&mut self) -> Option<Inputs> {
        let leader = self.leader()?;
        if self.led_by != Some(leader) {
            (self.led_by, self.state) = (Some(leader), State::default());
        }
        let inputs = self.inputs(leader);
        self.state = State::next(&inputs, &StablePromoter, &self.strictness);
        Some(inputs)
    }

    /// Does one action through the adapter and waits for its fate.
    fn act(&mut self, action: &Action) -> Result<(), RaftError> {
        let leader = self.leader().ok_or(RaftError::NotLeader { leader: None })?;
        let now = self.now;
        if let Action::RemoveFailedServer(server) = action {
            // The application's part: Raft forgets the server.
            return self.act(&Action::RemoveServer { id: server.id.clone() });
        }
        if let Action::TransferLeadership { id, .. } = action {
            let transfer = Transfer::begin(now, &self.node(leader).membership, id, TIMEOUT)?;
            self.node(leader).raw.transfer_leader(transfer.to());
            loop {
                self.pass(1);
                let led_by = self.node(leader).raw.leader();
                if let Some(outcome) = transfer.outcome(self.now, led_by, leader) {
                    return outcome;
                }
            }
        }
        let prev_index = self.node(leader).membership.index;
        let Some(tag) = self.node(leader).propose(now, action, prev_index)? else { return Ok(()) };
        loop {
            self.pass(1);
            let now = self.now;
            let node = self.node(leader);
            let late = node.changes.on_time(now);
            node.fates.extend(late);
            if let Some(fate) = node.fates.iter().find(|fate| fate.tag == tag) {
                return fate.result.clone().map(|_| ());
            }
        }
    }

    /// A round with its prune. What was done, as text.
    fn round(&mut self) -> Vec<String> {
        let Some(inputs) = self.update() else { return Vec::new() };
        let (config, strictness) = (self.config.clone(), self.strictness.clone());
        let state = self.state.clone();
        let changes = StablePromoter.calculate_promotions_and_demotions(self.now, &config, &state);
        let round = plan_reconcile(self.now, &config, &state, &changes, &strictness, true).unwrap();
        let mut done = Vec::new();
        for action in round.actions {
            let outcome = self.act(&action);
            done.push(action.to_string());
            if outcome.is_err() {
                break;
            }
        }
        let Some(leader) = self.leader() else { return done };
        let configuration = self.node(leader).membership.configuration();
        let prune = plan_prune(
            self.now,
            &config,
            &configuration,
            &inputs.known_servers,
            &self.state,
            &StablePromoter,
            &strictness,
        );
        for action in prune.actions() {
            if self.act(action).is_ok()
                && let Action::RemoveFailedServer(server) = action
            {
                // Gone for good.
                self.nodes.remove(&node_id(&server.id).unwrap());
            }
            done.push(action.to_string());
        }
        done
    }

    /// So many seconds with a write ten times a second, updates and rounds.
    fn live(&mut self, seconds: u32) -> Vec<String> {
        let mut done = Vec::new();
        for second in 1..=seconds {
            for _ in 0..10 {
                self.pass(1);
                self.write();
            }
            if second % 2 == 0 {
                self.update();
            }
            if second % 10 == 0 {
                done.extend(self.round());
            }
        }
        done
    }

    fn voters(&mut self) -> Vec<u64> {
        let leader = self.leader().unwrap();
        self.node(leader).membership.voters.iter().map(|id| id.0).collect()
    }

    fn assert_nothing_is_lost(&mut self) {
        self.pass(30);
        let leader = self.leader().unwrap();
        let applied: BTreeSet<String> = self.node(leader).applied.iter().cloned().collect();
        assert!(self.acknowledged.is_subset(&applied));
        let reference = self.node(leader).applied.clone();
        let members = self.node(leader).membership.clone();
        for (id, node) in self.nodes.iter().filter(|(_, node)| node.is_up) {
            if members.addresses.contains_key(id) {
                assert_eq!(node.applied, reference, "{id}");
                assert_eq!(node.membership.configuration(), members.configuration(), "{id}");
            }
        }
    }
}

fn add(id: u64) -> Action {
    Action::AddNonvoter { id: server_id(NodeId(id)), address: address(NodeId(id)) }
}

#[test]
fn a_spare_takes_the_place_of_a_dead_voter_and_nothing_is_lost() {
    let mut cluster = Cluster::new(3);
    assert_eq!(cluster.live(20), [""; 0], "all is well");
    cluster.nodes.insert(NodeId(4), Node::new(4));
    cluster.act(&add(4)).unwrap();
    // In nine seconds it cannot have been stable for ten.
    assert_eq!(cluster.live(9), [""; 0]);
    assert_eq!(cluster.live(21), ["add-voter 4@n4:1"]);
    assert_eq!(cluster.voters(), [1, 2, 3, 4]);

    let leader = cluster.leader().unwrap();
    let victim = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
    cluster.node(victim).is_up = false;
    let done = cluster.live(30);
    assert_eq!(done, [format!("remove-failed {victim}")]);
    assert_eq!(cluster.voters().len(), 3);
    cluster.assert_nothing_is_lost();

    // The floor holds: with three voters nobody is removed any more, also not by a new leader.
    let leader = cluster.leader().unwrap();
    cluster.node(leader).is_up = false;
    assert_eq!(cluster.live(60), [""; 0]);
    assert_eq!(cluster.voters().len(), 3);
    cluster.assert_nothing_is_lost();
    assert!(500 < cluster.acknowledged.len(), "{}", cluster.acknowledged.len());
}

#[test]
fn an_address_never_costs_a_vote() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    for id in [1, 2, 3] {
        cluster.act(&add(id)).unwrap();
        let moved = Action::AddNonvoter { id: server_id(NodeId(id)), address: format!("m{id}:1") };
        cluster.act(&moved).unwrap();
    }
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.voters(), [1, 2, 3]);
}

#[test]
fn of_two_changes_one_applies_and_the_other_is_told() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let now = cluster.now;
    let node = cluster.node(leader);
    let first = node.propose(now, &add(4), Index(0)).unwrap().unwrap();
    let second = node.propose(now, &add(5), Index(0)).unwrap_err();
    assert!(matches!(second, RaftError::ConfigChangeInProgress), "{second}");
    cluster.pass(5);
    let node = cluster.node(leader);
    assert_eq!(node.fates.len(), 1);
    assert_eq!(node.fates[0].tag, first);
    assert_eq!(node.fates[0].result.clone().unwrap(), node.membership.index);
    assert!(node.membership.learners.contains(&NodeId(4)));
    assert!(!node.membership.learners.contains(&NodeId(5)));
}

#[test]
fn a_change_on_a_stale_configuration_changes_no_node() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let now = cluster.now;
    let index = cluster.node(leader).membership.index;
    // Refused before it is proposed.
    let early = cluster.node(leader).propose(now, &add(4), index + 5).unwrap_err();
    assert!(matches!(early, RaftError::ConfigChanged { .. }), "{early}");
    // And when the difference comes up between proposing and applying.
    let before: Vec<CoreMembership> =
        cluster.nodes.values().map(|node| node.membership.clone()).collect();
    cluster.node(leader).propose(now, &add(4), index).unwrap();
    for node in cluster.nodes.values_mut() {
        node.membership.index = index + 1;
    }
    cluster.pass(5);
    let fate = cluster.node(leader).fates.pop().unwrap();
    assert!(matches!(fate.result, Err(RaftError::ConfigChanged { .. })), "{fate:?}");
    for (node, before) in cluster.nodes.values().zip(before) {
        assert_eq!(node.membership.voters, before.voters);
        assert_eq!(node.membership.learners, before.learners);
    }
    // There is room for the next one.
    cluster.act(&add(4)).unwrap();
}

#[test]
fn a_transfer_ends_and_proposals_are_taken_again() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let other = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
    let to = |id: NodeId| Action::TransferLeadership { id: server_id(id), address: address(id) };
    let refused = cluster.act(&to(leader)).unwrap_err();
    assert!(matches!(refused, RaftError::AlreadyLeader(_)), "{refused}");
    let refused = cluster.act(&to(NodeId(9))).unwrap_err();
    assert!(matches!(refused, RaftError::UnknownServer(_)), "{refused}");
    cluster.act(&to(other)).unwrap();
    cluster.pass(5);
    assert_eq!(cluster.leader(), Some(other));

    // To one that cannot be reached.
    cluster.node(leader).is_up = false;
    let late = cluster.act(&to(leader)).unwrap_err();
    assert!(matches!(late, RaftError::Timeout(_)), "{late}");
    let before = cluster.acknowledged.len();
    cluster.write();
    assert_eq!(cluster.acknowledged.len(), before + 1);
    let id: ServerId = server_id(NodeId(4));
    cluster.act(&Action::AddNonvoter { id, address: "n4:1".into() }).unwrap();
}

/// A member is added that is one already, as by a tool that sees to it that all are there.
fn who_votes_after_all_are_added_again() -> Vec<u64> {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let others: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| *id != leader).collect();
    for id in others {
        let _ = cluster.act(&add(id.0));
    }
    cluster.voters()
}

/// Two changes are proposed, one behind the other. How many of them have an answer in the end.
fn answers_to_two_changes() -> usize {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let now = cluster.now;
    let node = cluster.node(leader);
    let asked = [4, 5].map(|id| node.propose(now, &add(id), Index(0)));
    cluster.pass(5);
    asked.iter().filter(|asked| asked.is_err()).count() + cluster.node(leader).fates.len()
}

/// Leadership is to go to a member that cannot be reached. Whether whoever asked for it hears of that
/// within ten election timeouts.
fn a_hopeless_transfer_ends() -> bool {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let other = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
    cluster.node(other).is_up = false;
    let (now, id) = (cluster.now, server_id(other));
    let transfer = Transfer::begin(now, &cluster.node(leader).membership, &id, TIMEOUT).unwrap();
    cluster.node(leader).raw.transfer_leader(transfer.to());
    let ticks = 10 * (TIMEOUT.0 / TICK.0);
    (0..ticks).any(|_| {
        cluster.pass(1);
        let led_by = cluster.node(leader).raw.leader();
        transfer.outcome(cluster.now, led_by, leader).is_some()
    })
}

/// What a core like etcd's does to whoever takes its word for everything: each is put back for a while,
/// and shows.
#[test]
fn the_traps_of_such_a_core_are_avoided() {
    type Story = fn() -> bool;
    for (trap, story) in [
        (
            "an-added-learner-loses-its-vote",
            (|| who_votes_after_all_are_added_again() == [1, 2, 3]) as Story,
        ),
        ("a-second-change-vanishes", || answers_to_two_changes() == 2),
        ("a-transfer-never-ends", a_hopeless_transfer_ends),
    ] {
        assert!(story(), "{trap}: it is avoided");
        bugs::put_back(Some(trap));
        let is_avoided = story();
        bugs::put_back(None);
        assert!(!is_avoided, "{trap}: put back, and nobody notices");
    }
}
