//! A model of a gometa process, weaknesses and all, written from its documented behaviour: what it says
//! and what it does with what it hears, so that ours can be set beside it, and among such.
//!
//! It is driven as our engine is, by [`Event`]s, and asks for work in a [`Ready`]; its disk is a value
//! of its own and takes everything at once. It knows nothing of our extra messages and fields. Where
//! gometa's outcome hangs on a race of threads the model has a switch for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use quorate_types::Index;
use quorate_zab::{
    Address, Command, ConnId, Entry, Epoch, EpochAck, Event, FollowerInfo, LeaderInfo, LogEntry,
    Member, Message, NO_CUSTOM_HANDLER, Op, PeerStatus, Proposal, Ready, Request, Vote, Zxid,
};

const RESEND_MS: u64 = 50;
const RESEND_MS_MAX: u64 = 500;
const FINALIZE_MS: u64 = 200;
const SYNC_TIMEOUT_MS: u64 = 300_000;
const LEADER_TIMEOUT_MS: u64 = 100_000;
/// Packets that may wait for a learner that is being brought up to date.
const OBSERVER_MAX: usize = 20_000;
/// The last operation code that is not a custom one.
const CUSTOM: u32 = 50;

/// What survives the process: a log by the text of its ids, a store, and four marks, each written apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) accepted: Epoch,
    pub(crate) current: Epoch,
    pub(crate) last_logged: Zxid,
    pub(crate) last_committed: Zxid,
    pub(crate) log: BTreeMap<String, (Zxid, Command)>,
}

impl Disk {
    pub(crate) fn keep(&mut self, zxid: Zxid, command: Command) {
        if is_transactional(command.op) {
            self.last_logged = zxid;
        }
        self.log.insert(zxid.0.to_string(), (zxid, command));
    }

    /// Ids in the log, in the order of numbers.
    pub(crate) fn ids(&self) -> Vec<Zxid> {
        let mut ids: Vec<_> = self.log.values().map(|(zxid, _)| *zxid).collect();
        ids.sort();
        ids
    }

    fn command(&self, zxid: Zxid) -> Option<Command> {
        self.log.get(&zxid.0.to_string()).map(|(_, command)| command.clone())
    }
}

fn is_transactional(op: Op) -> bool {
    [Op::ADD, Op::SET, Op::DELETE, Op::GET].contains(&op)
}

#[derive(Clone, Debug, PartialEq, PartialOrd)]
struct Choice {
    epoch: Epoch,
    logged: Zxid,
    committed: Zxid,
    candidate: Address,
}

#[derive(Clone, Debug)]
struct Heard {
    round: u64,
    status: PeerStatus,
    choice: Choice,
}

#[derive(Clone, Debug)]
struct Ballot {
    round: u64,
    proposal: Choice,
    received: BTreeMap<Address, Heard>,
    active: BTreeMap<Address, Heard>,
    resend_wait_ms: u64,
    resend_at_ms: u64,
    finalize_at_ms: Option<u64>,
}

#[derive(Clone, Debug)]
enum Role {
    Electing(Ballot),
    Leading(Box<Leading>),
    Learning(Learning),
}

#[derive(Clone, Debug)]
struct Leading {
    proposed: Epoch,
    infos: BTreeSet<Address>,
    acks: BTreeSet<Address>,
    new_acks: BTreeSet<Address>,
    learners: BTreeMap<ConnId, Learner>,
    /// What waits for its quorum, with who has accepted it.
    proposals: BTreeMap<Zxid, BTreeSet<Address>>,
    next: (Epoch, u32),
    committed: Zxid,
    is_ready: bool,
    began_ms: u64,
    /// It waits for ever for room in a queue.
    is_blocked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Stage {
    Info,
    Epoch,
    Ack,
    Promise,
    NewLeaderAck,
    Declared,
    Live,
}

#[derive(Clone, Debug)]
struct Learner {
    stage: Stage,
    fid: Address,
    voting: bool,
    start: Zxid,
    since_ms: u64,
    /// What is proposed and committed while it is being brought up to date.
    observer: VecDeque<Message>,
}

#[derive(Clone, Debug)]
struct Learning {
    leader: Member,
    conn: Option<ConnId>,
    stage: u8,
    since_ms: u64,
    /// What the leader's markers say.
    committed: Zxid,
    pending: VecDeque<Zxid>,
}

/// What a step asks for.
enum Next {
    Stay,
    /// The role is over.
    Elect,
}

pub(crate) struct Gometa {
    own: Member,
    members: Vec<Member>,
    pub(crate) disk: Disk,
    now_ms: u64,
    role: Role,
    winner: Option<(u64, Choice)>,
    round: u64,
    is_site_open: bool,
    /// Who connected while it was not leading, and what they have said.
    waiting: BTreeMap<ConnId, Vec<Message>>,
    ready: Ready,
    /// What the store has seen, in order.
    pub(crate) applied: Vec<Zxid>,
    /// The application refuses the next proposal, which has its id by then.
    pub(crate) refuses_next: bool,
    /// Two learners are ready at one moment: the signal of the first is taken for one of a loss.
    pub(crate) is_hasty: bool,
    pub(crate) counter_max: u32,
    /// What became of its own requests, by number: an empty text where all went well.
    pub(crate) answers: Vec<(u64, String)>,
    next_request: u64,
    /// Those that are sent and in no place yet, and those that wait in theirs.
    asked: BTreeSet<u64>,
    placed: BTreeMap<Zxid, u64>,
}

impl Gometa {
    pub(crate) fn new(own: Member, members: Vec<Member>, disk: Disk, now_ms: u64) -> Self {
        let choice = Choice {
            epoch: Epoch(0),
            logged: Zxid::ZERO,
            committed: Zxid::ZERO,
            candidate: own.election.clone(),
        };
        let ballot = Ballot {
            round: 0,
            proposal: choice,
            received: BTreeMap::new(),
            active: BTreeMap::new(),
            resend_wait_ms: RESEND_MS,
            resend_at_ms: 0,
            finalize_at_ms: None,
        };
        let committed = disk.last_committed;
        let applied = disk.ids().into_iter().filter(|zxid| *zxid <= committed).collect();
        let mut node = Gometa {
            own,
            members,
            disk,
            now_ms,
            role: Role::Electing(ballot),
            winner: None,
            round: 0,
            is_site_open: true,
            waiting: BTreeMap::new(),
            ready: Ready::default(),
            applied,
            refuses_next: false,
            is_hasty: false,
            counter_max: u32::MAX,
            answers: Vec::new(),
            next_request: 0,
            asked: BTreeSet::new(),
            placed: BTreeMap::new(),
        };
        node.elect();
        node
    }

    pub(crate) fn take_ready(&mut self) -> Ready {
        std::mem::take(&mut self.ready)
    }

    pub(crate) fn is_leading(&self) -> bool {
        matches!(&self.role, Role::Leading(leading) if leading.is_ready)
    }

    pub(crate) fn is_following(&self) -> bool {
        matches!(&self.role, Role::Learning(learning) if learning.stage == 3)
    }

    pub(crate) fn is_electing(&self) -> bool {
        matches!(&self.role, Role::Electing(_))
    }

    fn is_voter(&self) -> bool {
        self.members.iter().any(|member| member.id == self.own.id)
    }

    fn quorum(&self) -> usize {
        self.members.len() / 2 + 1
    }

    fn status(&self) -> PeerStatus {
        match &self.role {
            Role::Leading(_) => PeerStatus::Leading,
            Role::Learning(_) if self.is_voter() => PeerStatus::Following,
            _ => PeerStatus::Electing,
        }
    }

    pub(crate) fn handle(&mut self, event: Event) {
        let next = match event {
            Event::Tick { now_ms } => {
                self.now_ms = now_ms;
                self.tick()
            }
            Event::Datagram { from, vote } => self.on_vote(from, vote),
            Event::Accepted { conn } => {
                let since_ms = self.now_ms;
                match &mut self.role {
                    Role::Leading(leading) => {
                        leading.learners.insert(conn, Learner::new(since_ms));
                    }
                    // It may lead soon; and if it follows, they wait all the same.
                    Role::Electing(_) | Role::Learning(_) => {
                        self.waiting.insert(conn, Vec::new());
                    }
                }
                Next::Stay
            }
            Event::Connected { to, conn } => self.on_connected(to, conn),
            Event::ConnectFailed { .. } => match &self.role {
                Role::Learning(learning) if learning.conn.is_none() => Next::Elect,
                _ => Next::Stay,
            },
            Event::Received { conn, message } => self.on_message(conn, message),
            Event::Closed { conn } => self.on_closed(conn),
            _ => Next::Stay,
        };
        if matches!(next, Next::Elect) {
            self.elect();
        }
    }

    /// Something came to the election port that is no vote: nothing is read there any more.
    pub(crate) fn hear_junk(&mut self) {
        self.is_site_open = false;
    }

    fn send(&mut self, conn: ConnId, message: Message) {
        self.ready.messages.push((conn, message));
    }

    // Election.

    fn own_choice(&self) -> Choice {
        Choice {
            epoch: self.disk.current,
            logged: self.disk.last_logged,
            committed: self.disk.last_committed,
            candidate: self.own.election.clone(),
        }
    }

    /// Everything ends, and a ballot begins.
    fn elect(&mut self) {
        match &self.role {
            Role::Leading(leading) => self.ready.close.extend(leading.learners.keys()),
            Role::Learning(learning) => self.ready.close.extend(learning.conn),
            Role::Electing(_) => {}
        }
        self.ready.close.extend(std::mem::take(&mut self.waiting).into_keys());
        // Whether they may still happen is not said.
        let asked = std::mem::take(&mut self.asked).into_iter();
        let left = asked.chain(std::mem::take(&mut self.placed).into_values());
        self.answers.extend(left.map(|request| (request, "server terminated".to_owned())));
        (self.winner, self.is_site_open) = (None, true);
        let ballot = Ballot {
            round: self.round + 1,
            proposal: self.own_choice(),
            received: BTreeMap::new(),
            active: BTreeMap::new(),
            resend_wait_ms: RESEND_MS,
            resend_at_ms: self.now_ms + RESEND_MS,
            finalize_at_ms: None,
        };
        self.role = Role::Electing(ballot);
        self.record_own();
        self.send_votes();
        if self.members.len() == 1 && self.is_voter() {
            self.finish();
        }
    }

    fn record_own(&mut self) {
        let (own, is_voter) = (self.own.election.clone(), self.is_voter());
        if let Role::Electing(ballot) = &mut self.role
            && is_voter
        {
            let (round, choice) = (ballot.round, ballot.proposal.clone());
            let heard = Heard { round, status: PeerStatus::Electing, choice };
            ballot.received.insert(own, heard);
        }
    }

    fn vote(&self, round: u64, choice: &Choice, status: PeerStatus) -> Vote {
        Vote {
            round,
            status,
            epoch: choice.epoch,
            candidate: choice.candidate.clone(),
            logged: choice.logged,
            committed: choice.committed,
            solicit: !self.is_voter(),
            cluster: None,
        }
    }

    fn send_votes(&mut self) {
        let Role::Electing(ballot) = &self.role else { return };
        let vote = self.vote(ballot.round, &ballot.proposal, PeerStatus::Electing);
        let others = self.members.iter().filter(|member| member.id != self.own.id);
        self.ready.datagrams.extend(others.map(|member| (member.election.clone(), vote.clone())));
    }

    fn on_vote(&mut self, from: Address, vote: Vote) -> Next {
        if !self.is_site_open {
            return Next::Stay;
        }
        let is_member = self.members.iter().any(|member| member.election == from);
        if vote.solicit || (is_member && !matches!(self.role, Role::Electing(_))) {
            let status = self.status();
            if vote.status == PeerStatus::Electing
                && status != PeerStatus::Electing
                && let Some((round, choice)) = &self.winner
            {
                let answer = self.vote(*round, choice, status);
                self.ready.datagrams.push((from, answer));
            }
            return Next::Stay;
        }
        let (own, own_choice, quorum) = (&self.own.election, self.own_choice(), self.quorum());
        let (now_ms, is_voter) = (self.now_ms, self.is_voter());
        let Role::Electing(ballot) = &mut self.role else { return Next::Stay };
        if !is_member {
            return Next::Stay;
        }
        (ballot.resend_wait_ms, ballot.resend_at_ms) = (RESEND_MS, now_ms + RESEND_MS);
        let choice = Choice {
            epoch: vote.epoch,
            logged: vote.logged,
            committed: vote.committed,
            candidate: vote.candidate,
        };
        let heard = Heard { round: vote.round, status: vote.status, choice };
        let before = (ballot.round, ballot.proposal.clone());
        let mut is_quorum = false;
        if heard.status == PeerStatus::Electing {
            if heard.round < ballot.round {
                let (round, proposal) = before.clone();
                // The wait ends although nothing has changed.
                ballot.finalize_at_ms = None;
                let answer = self.vote(round, &proposal, PeerStatus::Electing);
                self.ready.datagrams.push((from, answer));
                return Next::Stay;
            }
            if ballot.round < heard.round {
                ballot.round = heard.round;
                ballot.received.clear();
                ballot.active.clear();
                let is_greater = own_choice < heard.choice;
                ballot.proposal = if is_greater { heard.choice.clone() } else { own_choice };
            } else if ballot.proposal < heard.choice {
                ballot.proposal = heard.choice.clone();
            }
            if heard.choice >= ballot.proposal || before.0 != ballot.round {
                ballot.received.insert(from, heard);
                if is_voter {
                    let (round, choice) = (ballot.round, ballot.proposal.clone());
                    let status = PeerStatus::Electing;
                    ballot.received.insert(own.clone(), Heard { round, status, choice });
                }
                is_quorum = quorum <= supporters(&ballot.received, ballot.round, &ballot.proposal);
            }
        } else {
            if heard.round == ballot.round {
                ballot.received.insert(from.clone(), heard.clone());
            }
            ballot.active.insert(from, heard.clone());
            let leader = ballot.active.get(&heard.choice.candidate);
            let is_certified = match heard.choice.candidate == *own {
                true => heard.round == ballot.round,
                false => leader.is_some_and(|heard| heard.status == PeerStatus::Leading),
            };
            let same = |votes: &BTreeMap<Address, Heard>| {
                let alike = votes.values().filter(|other| match other.status {
                    PeerStatus::Electing => {
                        (other.round, &other.choice) == (heard.round, &heard.choice)
                    }
                    _ => {
                        other.choice.candidate == heard.choice.candidate
                            && other.choice.epoch == heard.choice.epoch
                    }
                });
                quorum <= alike.count()
            };
            if is_certified && (same(&ballot.received) || same(&ballot.active)) {
                (ballot.round, ballot.proposal) = (heard.round, heard.choice);
                is_quorum = true;
            }
        }
        let is_changed = before != (ballot.round, ballot.proposal.clone());
        match is_quorum {
            // Any vote that does not itself complete a quorum stops the wait.
            false => ballot.finalize_at_ms = None,
            true if is_changed || ballot.finalize_at_ms.is_none() => {
                ballot.finalize_at_ms = Some(now_ms + FINALIZE_MS);
            }
            true => {}
        }
        if is_changed {
            self.send_votes();
        }
        Next::Stay
    }

    fn finish(&mut self) {
        let Role::Electing(ballot) = &self.role else { return };
        let (round, choice) = (ballot.round, ballot.proposal.clone());
        self.round = round;
        let candidate = choice.candidate.clone();
        self.winner = Some((round, choice));
        if candidate == self.own.election {
            return self.lead();
        }
        let leader = self.members.iter().find(|member| member.election == candidate).cloned();
        let Some(leader) = leader else { return self.elect() };
        self.ready.connect.push(leader.message.clone());
        let (conn, committed, pending) = (None, Zxid::ZERO, VecDeque::new());
        let (stage, since_ms) = (0, self.now_ms);
        self.role = Role::Learning(Learning { leader, conn, stage, since_ms, committed, pending });
    }

    fn tick(&mut self) -> Next {
        let now_ms = self.now_ms;
        match &mut self.role {
            Role::Electing(ballot) => {
                if ballot.finalize_at_ms.is_some_and(|at| at <= now_ms) {
                    self.finish();
                } else if ballot.resend_at_ms <= now_ms {
                    ballot.resend_wait_ms = (2 * ballot.resend_wait_ms).min(RESEND_MS_MAX);
                    ballot.resend_at_ms = now_ms + ballot.resend_wait_ms;
                    self.send_votes();
                }
            }
            Role::Leading(leading) => {
                if !leading.is_ready && leading.began_ms + LEADER_TIMEOUT_MS < now_ms {
                    return Next::Elect;
                }
                let is_late = |learner: &Learner| {
                    learner.stage < Stage::Live && learner.since_ms + SYNC_TIMEOUT_MS < now_ms
                };
                let late = leading.learners.iter().filter(|(_, learner)| is_late(learner));
                for conn in late.map(|(conn, _)| *conn).collect::<Vec<_>>() {
                    self.ready.close.push(conn);
                    // Its votes are taken back, whoever else they were of.
                    if let Some(learner) = leading.learners.remove(&conn) {
                        leading.infos.remove(&learner.fid);
                        leading.acks.remove(&learner.fid);
                        leading.new_acks.remove(&learner.fid);
                    }
                }
            }
            Role::Learning(learning) => {
                if learning.stage < 3 && learning.since_ms + SYNC_TIMEOUT_MS < now_ms {
                    return Next::Elect;
                }
            }
        }
        Next::Stay
    }

    // The leader.

    fn lead(&mut self) {
        let own = BTreeSet::from([self.own.message.clone()]);
        self.role = Role::Leading(Box::new(Leading {
            proposed: self.disk.accepted.next().expect("epochs do not end in a test"),
            infos: own.clone(),
            acks: own.clone(),
            new_acks: own,
            learners: BTreeMap::new(),
            proposals: BTreeMap::new(),
            next: (Epoch(0), 0),
            committed: self.disk.last_committed,
            is_ready: false,
            began_ms: self.now_ms,
            is_blocked: false,
        }));
        if self.members.len() == 1 {
            let epoch = self.disk.current.next().expect("epochs do not end in a test");
            (self.disk.accepted, self.disk.current) = (epoch, epoch);
            if let Role::Leading(leading) = &mut self.role {
                (leading.next, leading.is_ready) = ((epoch, 0), true);
            }
        }
        for (conn, said) in std::mem::take(&mut self.waiting) {
            self.handle(Event::Accepted { conn });
            for message in said {
                self.handle(Event::Received { conn, message });
            }
        }
    }

    fn on_closed(&mut self, conn: ConnId) -> Next {
        self.waiting.remove(&conn);
        let size_min = self.members.len() / 2;
        match &mut self.role {
            Role::Learning(learning) if learning.conn == Some(conn) => Next::Elect,
            Role::Leading(leading) => {
                let was_live = leading.learners.remove(&conn).map(|learner| learner.stage);
                let is_lost = leading.is_ready && was_live == Some(Stage::Live);
                match is_lost && leading.active_size() <= size_min && 1 < self.members.len() {
                    true => Next::Elect,
                    false => Next::Stay,
                }
            }
            _ => Next::Stay,
        }
    }

    fn on_message(&mut self, conn: ConnId, message: Message) -> Next {
        if let Some(said) = self.waiting.get_mut(&conn) {
            said.push(message);
            return Next::Stay;
        }
        match &self.role {
            Role::Leading(leading) if !leading.is_blocked => {
                match leading.learners.get(&conn).map(|learner| learner.stage) {
                    Some(Stage::Live) => self.on_broadcast(conn, message),
                    Some(stage) => self.on_sync(conn, stage, message),
                    None => Next::Stay,
                }
            }
            Role::Learning(learning) if learning.conn == Some(conn) => self.learn(conn, message),
            _ => Next::Stay,
        }
    }

    /// A learner is being brought up to date: any message but the awaited one ends that.
    fn on_sync(&mut self, conn: ConnId, stage: Stage, message: Message) -> Next {
        let quorum = self.quorum();
        let Role::Leading(leading) = &mut self.role else { return Next::Stay };
        let Some(learner) = leading.learners.get_mut(&conn) else { return Next::Stay };
        match (stage, message) {
            (Stage::Info, Message::FollowerInfo(info)) => {
                (learner.fid, learner.voting) = (info.fid.clone(), info.voting);
                learner.stage = Stage::Epoch;
                // Whoever comes while there is a quorum passes; and there may be none any more.
                if info.voting && leading.infos.len() < quorum {
                    leading.infos.insert(info.fid);
                    let above = info.accepted_epoch.next().unwrap_or(Epoch::LAST);
                    if leading.proposed <= info.accepted_epoch {
                        leading.proposed = above;
                    }
                }
            }
            (Stage::Ack, Message::EpochAck(ack)) => {
                // Nobody looks at what it says but for where the stream begins.
                (learner.start, learner.stage) = (ack.logged, Stage::Promise);
                if learner.voting && leading.acks.len() < quorum {
                    leading.acks.insert(learner.fid.clone());
                }
            }
            (Stage::NewLeaderAck, Message::NewLeaderAck) => {
                learner.stage = Stage::Declared;
                if learner.voting && leading.new_acks.len() < quorum {
                    leading.new_acks.insert(learner.fid.clone());
                }
            }
            _ => {
                leading.learners.remove(&conn);
                self.ready.close.push(conn);
                return Next::Stay;
            }
        }
        self.pass_quorums()
    }

    fn pass_quorums(&mut self) -> Next {
        let (quorum, size_min) = (self.quorum(), self.members.len() / 2);
        let alone = self.members.len() == 1;
        let Role::Leading(leading) = &mut self.role else { return Next::Stay };
        let leading = leading.as_mut();
        let at = |leading: &Leading, stage| -> Vec<ConnId> {
            let those = leading.learners.iter().filter(|(_, learner)| learner.stage == stage);
            those.map(|(conn, _)| *conn).collect()
        };
        if quorum <= leading.infos.len() {
            if !alone {
                self.disk.accepted = self.disk.accepted.max(leading.proposed);
            }
            for conn in at(leading, Stage::Epoch) {
                let info = LeaderInfo { epoch: self.disk.accepted, caps: None };
                self.ready.messages.push((conn, Message::LeaderInfo(info)));
                leading.learners.get_mut(&conn).expect("just found").stage = Stage::Ack;
            }
        }
        if quorum <= leading.acks.len() {
            if self.disk.current < self.disk.accepted {
                self.disk.current = self.disk.accepted;
                leading.next = (self.disk.current, 0);
                if let Some((_, choice)) = &mut self.winner {
                    choice.epoch = self.disk.current;
                }
            }
            for conn in at(leading, Stage::Promise) {
                let learner = leading.learners.get_mut(&conn).expect("just found");
                learner.stage = Stage::NewLeaderAck;
                let said = stream(&self.disk, learner);
                self.ready.messages.extend(said.into_iter().map(|message| (conn, message)));
            }
        }
        if quorum <= leading.new_acks.len() {
            for conn in at(leading, Stage::Declared) {
                let learner = leading.learners.get_mut(&conn).expect("just found");
                learner.stage = Stage::Live;
                let (is_voting, queued) = (learner.voting, std::mem::take(&mut learner.observer));
                self.ready.messages.extend(queued.into_iter().map(|message| (conn, message)));
                if is_voting {
                    // One signal means that a follower came, and that one may be gone.
                    let is_checked = leading.is_ready || self.is_hasty;
                    if is_checked && leading.active_size() <= size_min {
                        return Next::Elect;
                    }
                    leading.is_ready = true;
                }
            }
        }
        Next::Stay
    }

    /// What comes from a learner that takes part, told apart by its shape.
    fn on_broadcast(&mut self, conn: ConnId, message: Message) -> Next {
        let Role::Leading(leading) = &self.role else { return Next::Stay };
        let origin = leading.learners.get(&conn).map(|learner| learner.fid.clone());
        match message {
            Message::Request(Request { id, command })
            | Message::Proposal(Proposal { request: id, command, .. }) => {
                self.propose(origin.unwrap_or_default(), id, command)
            }
            Message::Accept { zxid, fid } => self.on_accept(zxid, fid),
            _ => Next::Stay,
        }
    }

    /// A request of its own; says its number.
    pub(crate) fn request(&mut self, command: Command) -> u64 {
        let own = self.own.message.clone();
        self.next_request += 1;
        let id = self.next_request;
        let next = match &self.role {
            Role::Leading(leading) if leading.is_ready => self.propose(own, id, command),
            Role::Learning(Learning { conn: Some(conn), stage: 3, .. }) => {
                self.asked.insert(id);
                self.send(*conn, Message::Request(Request { id, command }));
                Next::Stay
            }
            _ => {
                self.answers.push((id, "no leader".to_owned()));
                Next::Stay
            }
        };
        if matches!(next, Next::Elect) {
            self.elect();
        }
        id
    }

    fn propose(&mut self, fid: Address, request: u64, command: Command) -> Next {
        let (quorum, own) = (self.quorum(), self.own.message.clone());
        let counter_max = self.counter_max;
        let is_refused = std::mem::take(&mut self.refuses_next);
        let Role::Leading(leading) = &mut self.role else { return Next::Stay };
        let leading = leading.as_mut();
        if leading.is_blocked {
            return Next::Stay;
        }
        let to_origin = |leading: &Leading| {
            let found = leading.learners.iter().find(|(_, learner)| learner.fid == fid);
            found.map(|(conn, _)| *conn)
        };
        if CUSTOM < command.op.0 {
            let (error, content) = (NO_CUSTOM_HANDLER.to_owned(), None);
            if let Some(conn) = to_origin(leading) {
                self.send(conn, Message::Response { request, fid, error, content });
            }
            return Next::Stay;
        }
        let (epoch, counter) = leading.next;
        if counter == counter_max {
            return Next::Elect; // a panic ends the role
        }
        leading.next = (epoch, counter + 1);
        let zxid = Zxid::new(epoch, counter + 1);
        if is_refused {
            // Its id is used up; whatever waits before it is taken for committed.
            (self.disk.last_committed, leading.committed) = (zxid, zxid);
            if let Some(conn) = to_origin(leading) {
                self.send(conn, Message::Abort { request, fid, error: "refused".to_owned() });
            }
            return Next::Stay;
        }
        self.disk.keep(zxid, command.clone());
        if fid == own {
            self.placed.insert(zxid, request);
        }
        leading.proposals.insert(zxid, BTreeSet::from([own]));
        self.announce(Message::Proposal(Proposal { zxid, fid, request, command }));
        match quorum {
            1 => self.commit(zxid),
            _ => Next::Stay,
        }
    }

    /// To all who take part, and into the queues of those who will.
    fn announce(&mut self, message: Message) {
        let Role::Leading(leading) = &mut self.role else { return };
        for (conn, learner) in &mut leading.learners {
            if learner.stage == Stage::Live {
                self.ready.messages.push((*conn, message.clone()));
            } else if learner.observer.len() + 1 < OBSERVER_MAX {
                learner.observer.push_back(message.clone());
            } else {
                leading.is_blocked = true;
            }
        }
    }

    fn on_accept(&mut self, zxid: Zxid, fid: Address) -> Next {
        let quorum = self.quorum();
        let Role::Leading(leading) = &mut self.role else { return Next::Stay };
        if zxid <= leading.committed {
            return Next::Stay;
        }
        // Whoever it is of, and whatever it is for.
        let voters = leading.proposals.entry(zxid).or_default();
        voters.insert(fid);
        match quorum <= voters.len() {
            true => self.commit(zxid),
            false => Next::Stay,
        }
    }

    fn commit(&mut self, zxid: Zxid) -> Next {
        let Role::Leading(leading) = &mut self.role else { return Next::Stay };
        let last = leading.committed;
        let is_next = last.epoch() < zxid.epoch()
            || (last.epoch() == zxid.epoch() && zxid.counter() == last.counter() + 1);
        let Some(command) = self.disk.command(zxid).filter(|_| is_next) else {
            return Next::Elect; // a protocol error
        };
        leading.proposals.remove(&zxid);
        leading.committed = zxid;
        if !self.apply(zxid, &command) {
            self.announce(Message::Commit { zxid });
            return Next::Elect;
        }
        self.announce(Message::Commit { zxid });
        Next::Stay
    }

    /// Whether the store could take it.
    fn apply(&mut self, zxid: Zxid, command: &Command) -> bool {
        if command.op == Op::GET || command.op == Op::INVALID {
            return false;
        }
        if let Some(request) = self.placed.remove(&zxid) {
            self.answers.push((request, String::new()));
        }
        if is_transactional(command.op) {
            self.applied.push(zxid);
            self.disk.last_committed = self.disk.last_committed.max(zxid);
            let index = Index(self.applied.len() as u64);
            self.ready.committed.push(Entry { index, zxid, command: command.clone() });
        }
        true
    }

    // The learner.

    fn on_connected(&mut self, to: Address, conn: ConnId) -> Next {
        let (voting, fid) = (self.is_voter(), self.own.message.clone());
        let accepted_epoch = self.disk.accepted;
        match &mut self.role {
            Role::Learning(learning) if learning.leader.message == to => {
                learning.conn = Some(conn);
                let info = FollowerInfo { accepted_epoch, fid, voting, ..FollowerInfo::default() };
                self.send(conn, Message::FollowerInfo(info));
            }
            _ => self.ready.close.push(conn),
        }
        Next::Stay
    }

    fn learn(&mut self, conn: ConnId, message: Message) -> Next {
        let (is_voter, own) = (self.is_voter(), self.own.message.clone());
        let Role::Learning(learning) = &mut self.role else { return Next::Stay };
        match (learning.stage, message) {
            (0, Message::LeaderInfo(info)) => {
                if info.epoch < self.disk.accepted {
                    return Next::Elect;
                }
                self.disk.accepted = info.epoch;
                learning.stage = 1;
                let (logged, current_epoch) = (self.disk.last_logged, self.disk.current);
                let ack = EpochAck { logged, current_epoch, committed: None };
                self.send(conn, Message::EpochAck(ack));
            }
            (1, Message::LogEntry(LogEntry { zxid, command, .. })) => match command.op {
                Op::STREAM_BEGIN => learning.committed = zxid,
                Op::STREAM_END => {
                    learning.stage = 2;
                    // The marks go where the leader's are.
                    learning.committed = learning.committed.max(zxid);
                }
                op if ![Op::ADD, Op::SET, Op::DELETE].contains(&op) => return Next::Elect,
                _ => {
                    let is_committed = zxid <= learning.committed;
                    self.disk.keep(zxid, command.clone());
                    if is_committed {
                        self.apply(zxid, &command);
                    }
                }
            },
            (2, Message::NewLeader { epoch }) => {
                self.disk.current = self.disk.current.max(epoch);
                learning.stage = 3;
                if let Some((_, choice)) = &mut self.winner {
                    choice.epoch = epoch;
                }
                self.send(conn, Message::NewLeaderAck);
            }
            (3, Message::Abort { request, error, .. }) if self.asked.remove(&request) => {
                self.answers.push((request, error));
            }
            (3, Message::Proposal(Proposal { zxid, fid, request, command })) => {
                if fid == own && self.asked.remove(&request) {
                    self.placed.insert(zxid, request);
                }
                // Any id after any other.
                learning.pending.push_back(zxid);
                self.disk.keep(zxid, command);
                if is_voter {
                    self.send(conn, Message::Accept { zxid, fid: own });
                }
            }
            // Whatever has an id is a Commit.
            (
                3,
                Message::Commit { zxid }
                | Message::Accept { zxid, .. }
                | Message::LogEntry(LogEntry { zxid, .. }),
            ) => {
                if learning.pending.front().is_some_and(|first| *first != zxid) {
                    return Next::Elect;
                }
                learning.pending.pop_front();
                let command = self.disk.command(zxid);
                if !command.is_some_and(|command| self.apply(zxid, &command)) {
                    return Next::Elect;
                }
            }
            (3, _) => {}
            _ => return Next::Elect,
        }
        Next::Stay
    }
}

impl Learner {
    fn new(since_ms: u64) -> Self {
        Learner {
            stage: Stage::Info,
            fid: Address::default(),
            voting: false,
            start: Zxid::ZERO,
            since_ms,
            observer: VecDeque::new(),
        }
    }
}

impl Leading {
    fn active_size(&self) -> usize {
        let live = self.learners.values().filter(|learner| learner.stage == Stage::Live);
        live.filter(|learner| learner.voting).count() + 1
    }
}

fn supporters(votes: &BTreeMap<Address, Heard>, round: u64, proposal: &Choice) -> usize {
    votes.values().filter(|heard| heard.round == round && heard.choice == *proposal).count()
}

/// What a learner is sent after its EpochAck: the log after a place, in the order of its keys, up to
/// where its queue begins.
fn stream(disk: &Disk, learner: &mut Learner) -> Vec<Message> {
    let id_of = |message: &Message| match message {
        Message::Proposal(proposal) => proposal.zxid,
        Message::Commit { zxid } => *zxid,
        _ => Zxid::ZERO,
    };
    let stop = learner.observer.front().map(id_of);
    let mut said = vec![Message::LogEntry(LogEntry::begin(disk.last_committed, None))];
    let after = match learner.start {
        Zxid::ZERO => Bound::Unbounded,
        start => Bound::Excluded(start.0.to_string()),
    };
    let mut last = Zxid::ZERO;
    for (zxid, command) in disk.log.range((after, Bound::Unbounded)).map(|(_, entry)| entry) {
        last = *zxid;
        let (zxid, command) = (*zxid, command.clone());
        said.push(Message::LogEntry(LogEntry { zxid, command, keep: None }));
        if stop.is_some_and(|stop| stop <= zxid) {
            break;
        }
    }
    said.push(Message::LogEntry(LogEntry::end(disk.last_committed)));
    if let Some(Message::Proposal(first)) = learner.observer.front()
        && first.zxid == last
    {
        learner.observer.pop_front();
    }
    said.push(Message::NewLeader { epoch: disk.current });
    said
}
