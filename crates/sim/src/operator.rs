//! Whoever runs the cluster: replaces members that are gone, makes learners voters, and now and then
//! has whims, so that memberships change in all ways there are.

mod pilot;

use bytes::Bytes;
use quorate_raft::{
    AnyConfChange, ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
};
use quorate_replica::Engine;
use quorate_types::{NodeId, Term};

use crate::clients::{Client, Part};
use crate::node::{Ask, Node};
use crate::plan::SECOND;
use crate::world::{Event, World};

#[derive(Debug, Default)]
pub(crate) struct Operator {
    /// Something is to be changed for no reason.
    pub(crate) whim: bool,
    /// There is to be one member more than the plan says.
    pub(crate) wants_more: bool,
    /// A change may be under way.
    pub(crate) is_changing: bool,
    /// Nothing is to be changed any more.
    pub(crate) is_done: bool,
    changed_at: u64,
    /// The term in which it was asked for.
    changed_term: Term,
    /// The one that asks for changes, as a client.
    client: Option<usize>,
    /// Autopilot's policies are taken back for now, and how often they were, or set again.
    has_no_policies: bool,
    turns: u64,
    /// Who decides, where autopilot does.
    pilot: pilot::Pilot,
}

impl World<'_> {
    /// Looks at the cluster once a second and takes the next step, if one is due.
    pub(crate) fn operate(&mut self) {
        if self.plan.autopilot && self.plan.engine == Engine::Raft {
            self.pilot();
            return;
        }
        let settled = 5 * SECOND + 10 * self.plan.election_us();
        if self.operator.is_changing {
            if self.now < self.operator.changed_at + settled || !self.is_decided() {
                return;
            }
            self.operator.is_changing = false;
        }
        if self.operator.is_done || self.plan.engine == Engine::Zab {
            return;
        }
        let Some(leader) = self.leader() else { return };
        let leader_at = self.place(leader);
        let Some(process) = &self.nodes[leader_at].process else { return };
        let status = process.replica.status();
        let conf = status.conf_state;
        if !conf.voters_outgoing.is_empty() {
            return; // leaves by itself
        }
        let all: Vec<NodeId> = conf.voters.iter().chain(&conf.learners).copied().collect();
        // The leader may not have applied the newest change yet.
        let newest = &self.checks.conf_state;
        let known = [&newest.voters, &newest.voters_outgoing, &newest.learners];
        let known: Vec<NodeId> = known.into_iter().flatten().chain(&all).copied().collect();
        self.stop_removed(&known);
        let gone = all.iter().copied().find(|id| self.nodes[self.place(*id)].is_gone);
        let single = ConfChangeSingle::new;
        // Whose going leaves a majority of members with nothing wrong with their disks.
        let spare: Vec<NodeId> =
            conf.voters.iter().copied().filter(|id| self.may_lose(*id)).collect();
        let may_shrink = 2 < conf.voters.len() && !spare.is_empty();
        let mut changes = Vec::new();
        let size = self.plan.members + usize::from(self.operator.wants_more);
        if let Some(gone) = gone {
            changes.push(single(ConfChangeType::RemoveNode, gone));
        } else if all.len() < size {
            let id = self.spare_member(&all);
            changes.push(single(ConfChangeType::AddLearnerNode, id));
        } else if size < all.len() && may_shrink {
            // Whoever it is, the leader too.
            let voter = *self.chance.pick(&spare);
            changes.push(single(ConfChangeType::RemoveNode, voter));
            self.operator.whim = false;
            self.checks.count("members removed");
        } else if let Some(learner) = conf.learners.iter().copied().find(|id| self.is_fit(*id)) {
            changes.push(single(ConfChangeType::AddNode, learner));
        }
        if self.operator.whim && may_shrink && gone.is_none() {
            let voter = *self.chance.pick(&spare);
            changes.push(single(ConfChangeType::AddLearnerNode, voter));
            self.operator.whim = false;
        }
        if changes.is_empty() {
            return;
        }
        let change = if changes.len() == 1 && self.chance.percent(50) {
            let ConfChangeSingle { change_type, node_id } = changes[0];
            AnyConfChange::V1(ConfChange { change_type, node_id, ..ConfChange::default() })
        } else {
            let transition = self.chance.percent(50).then_some(ConfChangeTransition::JointImplicit);
            let context = Bytes::new();
            AnyConfChange::V2(ConfChangeV2 { transition, changes, context })
        };
        self.operator.is_changing = true;
        self.operator.changed_at = self.now;
        self.operator.changed_term = status.term;
        self.checks.count("membership changes asked for");
        self.ask_membership(leader_at, change);
    }

    /// Whether what was asked for has taken effect, or never will: who leads since then has applied an
    /// entry of its own term, and every change before it. However long that takes: what a cluster can
    /// lose is not known before.
    fn is_decided(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let process = self.nodes[self.place(leader)].process.as_ref();
        process.is_some_and(|process| {
            let replica = &process.replica;
            self.operator.changed_term <= replica.glance().term && replica.may_change()
        })
    }

    fn ask_membership(&mut self, at: usize, change: AnyConfChange) {
        let client = self.operator_client();
        self.clients[client].member = at;
        self.ask(client, Ask::Membership(change));
    }

    /// The operator asks as a client of its own, which never asks by itself.
    fn operator_client(&mut self) -> usize {
        match self.operator.client {
            Some(client) => client,
            None => {
                self.clients.push(Client { part: Part::Operator, ..Client::default() });
                let client = self.clients.len() - 1;
                self.operator.client = Some(client);
                client
            }
        }
    }

    /// One that was added before and is no member yet, or a new one.
    fn spare_member(&mut self, members: &[NodeId]) -> NodeId {
        let spare = self.nodes.iter().find(|node| !node.is_gone && !members.contains(&node.id));
        match spare {
            Some(node) => node.id,
            None => self.add_member(),
        }
    }

    /// A member whose disk is new, under an id that nobody had.
    fn add_member(&mut self) -> NodeId {
        let id = NodeId(self.nodes.len() as u64 + 1);
        let voters = (1..=self.plan.members as u64).map(NodeId).collect();
        let mut node = Node::new(id, voters, &self.plan, &mut self.chance);
        if !self.faults_are_on {
            node.slowness = 1; // as fast as all that were healed
        }
        self.nodes.push(node);
        self.probed.push((false, false));
        self.trace(id, "is added");
        self.checks.count("members added");
        self.push(self.now, Event::Start(id));
        id
    }

    fn is_fit(&self, id: NodeId) -> bool {
        let committed = self.checks.committed();
        let glance = self.nodes[self.place(id)].glance();
        glance.is_some_and(|glance| committed <= glance.applied + 20)
    }

    fn stop_removed(&mut self, members: &[NodeId]) {
        for at in 0..self.nodes.len() {
            let id = self.nodes[at].id;
            let is_old = self.nodes[at]
                .process
                .as_ref()
                .is_some_and(|process| process.started_us + 10 * SECOND < self.now);
            if !members.contains(&id) && is_old && !self.nodes[at].is_gone {
                self.with(at, |node, cx| node.crash(cx, false));
                self.nodes[at].is_gone = true;
                self.trace(id, "is removed");
            }
        }
    }
}
