//! A cluster in a few lines: who is in, who is alive, and a clock. It is given to the decisions, and
//! does what they say.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::configuration::{Member, quorum};
use crate::time::Time;
use crate::*;

pub(super) const TERM: u64 = 3;

/// One server of the model.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Nothing: not in the Raft configuration.
    pub(super) suffrage: Option<Suffrage>,
    /// Whether the application knows it.
    pub(super) is_known: bool,
    pub(super) status: NodeStatus,
    /// Whether its log keeps up.
    pub(super) is_well: bool,
    /// Whether it has enough of the log to vote.
    pub(super) is_ready: bool,
    /// Whether it comes to lead when it is asked to.
    pub(super) may_lead: bool,
    pub(super) version: String,
    pub(super) meta: BTreeMap<String, String>,
    pub(super) node_type: NodeType,
}

impl Peer {
    pub(super) fn new(suffrage: Suffrage) -> Peer {
        Peer {
            suffrage: Some(suffrage),
            is_known: true,
            status: NodeStatus::Alive,
            is_well: true,
            is_ready: true,
            may_lead: true,
            version: String::new(),
            meta: BTreeMap::new(),
            node_type: NodeType::Untyped,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.status == NodeStatus::Alive
    }
}

pub(super) struct Model {
    pub(super) now: Time,
    pub(super) config: Config,
    pub(super) strictness: Strictness,
    pub(super) promoter: Arc<dyn Promoter>,
    pub(super) can_replace: bool,
    pub(super) peers: BTreeMap<ServerId, Peer>,
    pub(super) leader: Option<ServerId>,
    pub(super) failed_transfers: BTreeMap<ServerId, Time>,
    pub(super) state: State,
    pub(super) index: u64,
}

impl Model {
    pub(super) fn new() -> Model {
        Model {
            now: Time::from_unix(1_600_000_000, 0),
            config: Config::default(),
            strictness: Strictness::parity(),
            promoter: Arc::new(StablePromoter),
            can_replace: false,
            peers: BTreeMap::new(),
            leader: None,
            failed_transfers: BTreeMap::new(),
            state: State::default(),
            index: 1,
        }
    }

    /// One letter a server, numbered from 0: `L` leads, `V` votes, `F` votes and failed, `S` votes and
    /// is not known; in small letters without a vote, where `n` is well; `g` is staging. All had time
    /// to become stable.
    pub(super) fn of(letters: &str) -> Model {
        let mut model = Model::new();
        for (number, letter) in letters.chars().enumerate() {
            let id = ServerId(format!("{letter}{number}"));
            let suffrage = match letter {
                'n' | 'f' | 's' => Suffrage::NonVoter,
                'g' => Suffrage::Staging,
                _ => Suffrage::Voter,
            };
            let mut peer = Peer::new(suffrage);
            match letter {
                'L' => model.leader = Some(id.clone()),
                'F' | 'f' => peer.status = NodeStatus::Failed,
                'S' | 's' => peer.is_known = false,
                _ => {}
            }
            model.peers.insert(id, peer);
        }
        model.wait(20);
        model
    }

    pub(super) fn peer(&mut self, id: &str) -> &mut Peer {
        self.peers.get_mut(id).unwrap_or_else(|| panic!("no server {id}"))
    }

    /// Lets so many seconds pass, with an update every two of them and one at the end.
    pub(super) fn wait(&mut self, seconds: i64) {
        self.update();
        for second in 1..=seconds {
            self.now = self.now.plus(Span::from_secs(1));
            if second % 2 == 0 || second == seconds {
                self.update();
            }
        }
    }

    pub(super) fn configuration(&self) -> RaftConfiguration {
        let members = self
            .peers
            .iter()
            .filter_map(|(id, peer)| Some(Member::new(peer.suffrage?, id.clone(), address(id))));
        RaftConfiguration { members: members.collect(), index: self.index.into() }
    }

    pub(super) fn known(&self) -> BTreeMap<ServerId, Server> {
        let known = self.peers.iter().filter(|(_, peer)| peer.is_known);
        known
            .map(|(id, peer)| {
                let server = Server {
                    id: id.clone(),
                    name: format!("name-{id}"),
                    address: address(id),
                    node_status: peer.status.clone(),
                    version: peer.version.clone(),
                    meta: Some(peer.meta.clone()),
                    node_type: peer.node_type.clone(),
                    ..Server::default()
                };
                (id.clone(), server)
            })
            .collect()
    }

    pub(super) fn inputs(&self) -> Inputs {
        let last_index = 1000;
        let stats = |peer: &Peer| ServerStats {
            last_contact: if peer.is_well { Span::ZERO } else { Span::from_secs(5) },
            last_term: TERM.into(),
            last_index: last_index.into(),
        };
        let answering = self.peers.iter().filter(|(_, peer)| peer.is_up() && peer.is_known);
        let lacking = self.peers.iter().filter(|(_, peer)| !peer.is_ready);
        let lack = Lack { has: 899.into(), least: 900.into() };
        Inputs {
            now: self.now,
            first_state_time: self.state.first_state_time().unwrap_or(self.now),
            config: self.config.clone(),
            current: Some(self.state.clone()),
            configuration: self.configuration(),
            known_servers: self.known(),
            last_index: last_index.into(),
            last_term: TERM.into(),
            fetched_stats: answering.map(|(id, peer)| (id.clone(), stats(peer))).collect(),
            leader: self.leader.clone(),
            is_leader: self.leader.is_some(),
            lacking: lacking.map(|(id, _)| (id.clone(), lack)).collect(),
            failed_transfers: self.failed_transfers.clone(),
            ..Inputs::default()
        }
    }

    pub(super) fn update(&mut self) {
        self.state = State::next(&self.inputs(), &*self.promoter, &self.strictness);
    }

    /// What the policy wants now.
    pub(super) fn changes(&self) -> RaftChanges {
        self.promoter.calculate_promotions_and_demotions(self.now, &self.config, &self.state)
    }

    pub(super) fn plan(&self, changes: &RaftChanges) -> Result<Round, RoundError> {
        plan_reconcile(
            self.now,
            &self.config,
            &self.state,
            changes,
            &self.strictness,
            self.can_replace,
        )
    }

    pub(super) fn plan_prune(&self) -> Prune {
        plan_prune(
            self.now,
            &self.config,
            &self.configuration(),
            &self.known(),
            &self.state,
            &*self.promoter,
            &self.strictness,
        )
    }

    /// Updates, plans a round, and does it.
    pub(super) fn round(&mut self) -> Result<Round, RoundError> {
        self.update();
        let round = self.plan(&self.changes())?;
        for action in &round.actions {
            self.apply(action);
        }
        self.update();
        Ok(round)
    }

    /// Plans a prune and does it, the application's part included.
    pub(super) fn prune(&mut self) -> Prune {
        let prune = self.plan_prune();
        for action in prune.actions() {
            self.apply(action);
        }
        self.update();
        prune
    }

    pub(super) fn apply(&mut self, action: &Action) {
        self.index += 1;
        match action {
            Action::AddVoter { id, .. } => self.peer(id.as_str()).suffrage = Some(Suffrage::Voter),
            Action::AddNonvoter { id, .. } => {
                self.peer(id.as_str()).suffrage = Some(Suffrage::NonVoter);
            }
            Action::DemoteVoter { id } => {
                self.peer(id.as_str()).suffrage = Some(Suffrage::NonVoter);
            }
            Action::ReplaceVoter { demoted, promoted, .. } => {
                self.peer(demoted.as_str()).suffrage = Some(Suffrage::NonVoter);
                self.peer(promoted.as_str()).suffrage = Some(Suffrage::Voter);
            }
            Action::RemoveServer { id } => self.peer(id.as_str()).suffrage = None,
            Action::TransferLeadership { id, .. } => match self.peers[id].may_lead {
                true => self.lead(Some(id.clone())),
                false => _ = self.failed_transfers.insert(id.clone(), self.now),
            },
            Action::RemoveFailedServer(server) => _ = self.peers.remove(&server.id),
        }
    }

    /// Another leader: its autopilot begins anew, and remembers nothing.
    pub(super) fn lead(&mut self, leader: Option<ServerId>) {
        if leader != self.leader {
            self.leader = leader;
            self.failed_transfers.clear();
            // A run is told from the one before it by the time it began.
            self.now = self.now.plus(Span(1));
            self.state = State::default();
        }
    }

    fn is_voter(peer: &Peer) -> bool {
        peer.suffrage == Some(Suffrage::Voter)
    }

    pub(super) fn voters(&self) -> Vec<ServerId> {
        let voters = self.peers.iter().filter(|(_, peer)| Model::is_voter(peer));
        voters.map(|(id, _)| id.clone()).collect()
    }

    /// Whether those that are up can elect a leader.
    pub(super) fn has_quorum(&self) -> bool {
        let up = self.peers.values().filter(|peer| Model::is_voter(peer) && peer.is_up()).count();
        quorum(self.voters().len()) <= up
    }

    /// Lets a leader be elected if there is none that is up and votes.
    pub(super) fn elect(&mut self) {
        let may_lead = |peer: &Peer| Model::is_voter(peer) && peer.is_up();
        let has_leader =
            self.leader.as_ref().is_some_and(|id| self.peers.get(id).is_some_and(may_lead));
        if !self.has_quorum() {
            self.lead(None);
        } else if !has_leader {
            let next = self.peers.iter().find(|(_, peer)| may_lead(peer));
            let next = next.map(|(id, _)| id.clone());
            self.lead(next);
        }
    }
}

pub(super) fn address(id: &ServerId) -> String {
    format!("{id}:2380")
}

/// Names of actions with a comma between them; addresses are left out.
pub(super) fn text<'a>(actions: impl IntoIterator<Item = &'a Action>) -> String {
    let words = actions.into_iter().map(|action| {
        let text = action.to_string();
        match text.rsplit_once('@') {
            Some((text, _)) => text.to_owned(),
            None => text,
        }
    });
    words.collect::<Vec<_>>().join(", ")
}
