//! What a replica with the ZAB engine does that one with Raft does otherwise, or not at all.

use bytes::BytesMut;
use quorate_raft::{
    AnyConfChange, ConfChange, ConfState, Role, Snapshot, SnapshotMetadata, TransferOutcome,
};
use quorate_replica::{
    Applying, Config, Engine, Event, FIRST, Initial, Message, Refusal, Replica, RequestId,
    StartError, Write, WriteId, first_conf_state, first_log, open, seal,
};
use quorate_types::{Index, NodeId, Term};

const ELECTION_TICKS: u64 = 10;
const WRITE_TICKS_MAX: u64 = 30;

/// Three replicas over a network that loses nothing but what is said to or by one that is away.
struct Group {
    members: Vec<Member>,
    requests: u64,
    /// From whom nothing comes to whom.
    deaf: Option<(usize, usize)>,
    /// How much of a tick is over.
    elapsed_ms: u64,
}

struct Member {
    replica: Replica,
    stands_still: bool,
    /// No write after this one is done, if there is one.
    last_done: Option<WriteId>,
    /// No state is ever installed, and no write after it done.
    cannot_install: bool,
    can_flush: bool,
    is_away: bool,
    last_write: WriteId,
    writes: Vec<Write>,
    /// States that were sent from here.
    snapshots_sent: usize,
    applied: Vec<Applying>,
    refused: Vec<(RequestId, Refusal)>,
    transfers: Vec<(NodeId, TransferOutcome)>,
}

fn initial(voters: &[u64]) -> Initial {
    let (mark, hard_state) = first_log(Engine::Zab);
    let voters = voters.iter().map(|id| NodeId(*id)).collect();
    let conf_state = first_conf_state(voters);
    Initial::recover(mark, Some(hard_state), Vec::new(), FIRST.0, conf_state).unwrap()
}

fn config(id: u64) -> Config {
    Config {
        engine: Engine::Zab,
        election_ticks: ELECTION_TICKS as u32,
        write_ticks_max: WRITE_TICKS_MAX,
        ..Config::new(NodeId(id), id)
    }
}

impl Group {
    /// A group with a leader, and where that one is.
    fn new() -> (Group, usize) {
        Group::with(config)
    }

    fn with(config: impl Fn(u64) -> Config) -> (Group, usize) {
        let member = |id| Member {
            replica: Replica::new(config(id), initial(&[1, 2, 3])).unwrap(),
            stands_still: false,
            last_done: None,
            cannot_install: false,
            can_flush: true,
            is_away: false,
            last_write: WriteId(0),
            writes: Vec::new(),
            snapshots_sent: 0,
            applied: Vec::new(),
            refused: Vec::new(),
            transfers: Vec::new(),
        };
        let members = (1..=3).map(member).collect();
        let mut group = Group { members, requests: 0, deaf: None, elapsed_ms: 0 };
        let leader = group.elect();
        (group, leader)
    }

    /// Ticks until somebody leads and everybody who is there knows.
    fn elect(&mut self) -> usize {
        for _ in 0..10 * ELECTION_TICKS {
            self.tick(1);
            let leader = (0..3).find(|at| !self.members[*at].is_away && self.leads(*at));
            let knows = |member: &Member| member.is_away || !member.glance().leader.is_none();
            if let Some(leader) = leader
                && self.members.iter().all(knows)
            {
                return leader;
            }
        }
        panic!("nobody leads");
    }

    fn handle(&mut self, at: usize, event: Event) {
        self.members[at].replica.handle(event).unwrap();
        self.settle();
    }

    fn tick(&mut self, ticks: u64) {
        for _ in 0..ticks {
            for at in 0..3 {
                self.handle(at, Event::Tick);
            }
        }
    }

    fn propose(&mut self, at: usize) -> RequestId {
        self.propose_command(at, b"command")
    }

    fn propose_command(&mut self, at: usize, command: &[u8]) -> RequestId {
        self.requests += 1;
        self.propose_as(RequestId(self.requests), at, command)
    }

    fn propose_as(&mut self, request: RequestId, at: usize, command: &[u8]) -> RequestId {
        let mut entry = BytesMut::new();
        seal(request, &mut entry);
        entry.extend_from_slice(command);
        self.handle(at, Event::Propose { request, entry: entry.freeze() });
        request
    }

    fn settle(&mut self) {
        loop {
            let mut messages: Vec<Message> = Vec::new();
            for member in &mut self.members {
                while let Some(effects) = member.replica.ready().unwrap() {
                    messages.extend(effects.messages);
                    member.refused.extend(effects.refused);
                    member.transfers.extend(effects.transfers);
                    if effects.make_snapshot {
                        let status = member.replica.status();
                        let metadata = SnapshotMetadata {
                            conf_state: status.conf_state,
                            index: status.applied,
                            term: status.term,
                        };
                        let made = Snapshot { metadata, ..Snapshot::default() };
                        member.replica.handle(Event::SnapshotMade(made)).unwrap();
                    }
                    for message in effects.snapshots {
                        member.snapshots_sent += 1;
                        messages.push(message.clone());
                        // A state of which nothing is lost on the way.
                        let sent = Event::SnapshotSent { message, ok: true };
                        member.replica.handle(sent).unwrap();
                    }
                    if let Some(write) = effects.writes.last() {
                        member.last_write = write.id;
                    }
                    if let Some(install) = effects.writes.iter().find(|it| it.install.is_some())
                        && member.cannot_install
                    {
                        member.last_done = Some(WriteId(install.id.0 - 1));
                    }
                    member.writes.extend(effects.writes);
                    let last = effects.apply.last().map(Applying::index);
                    member.applied.extend(effects.apply);
                    if let Some(last) = last {
                        member.replica.handle(Event::Applied(last)).unwrap();
                    }
                    if effects.flush && member.can_flush {
                        let applied = member.replica.glance().applied;
                        member.replica.handle(Event::Flushed(applied)).unwrap();
                    }
                    if !member.stands_still {
                        let done = member.last_done.map_or(member.last_write, |done| {
                            WriteId(done.0.min(member.last_write.0))
                        });
                        member.replica.handle(Event::Persisted(done)).unwrap();
                    }
                }
                member.replica.check();
            }
            if messages.is_empty() {
                return;
            }
            for message in messages {
                let (to, from) = (message.to().0 as usize - 1, message.from().0 as usize - 1);
                let is_heard = self.deaf != Some((from, to));
                if is_heard && !self.members[to].is_away && !self.members[from].is_away {
                    let replica = &mut self.members[to].replica;
                    replica.handle(Event::Elapsed(self.elapsed_ms)).unwrap();
                    replica.handle(Event::Message(message)).unwrap();
                }
            }
        }
    }

    fn leads(&self, at: usize) -> bool {
        self.members[at].glance().role == Role::Leader
    }
}

impl Member {
    fn glance(&self) -> quorate_replica::Glance {
        self.replica.glance()
    }

    fn commands(&self) -> usize {
        self.requests().len()
    }

    /// What its machine was handed, in order.
    fn requests(&self) -> Vec<RequestId> {
        let commands = self.applied.iter().filter_map(|it| match it {
            Applying::Command { entry, .. } => Some(entry.clone()),
            _ => None,
        });
        commands.map(|entry| open(entry).unwrap().0).collect()
    }
}

#[test]
fn a_command_through_any_member_reaches_every_machine() {
    let (mut group, _) = Group::new();
    for at in 0..3 {
        group.propose(at);
    }
    group.tick(2);
    for member in &group.members {
        assert_eq!((member.commands(), &member.refused[..]), (3, &[][..]));
        assert!(matches!(member.applied[0], Applying::Empty { .. }), "the epoch opens");
        assert_eq!(member.applied, group.members[0].applied);
        let term = member.glance().term;
        assert!(member.applied.iter().all(|it| matches!(it,
            Applying::Command { term: it, .. } | Applying::Empty { term: it, .. } if *it == term)));
    }
}

/// Whatever were dropped, or held back, would come with a tick.
#[test]
fn no_write_waits_for_a_tick_however_much_is_under_way() {
    let small = |id| Config { message_bytes_max: 3_000, inflight_bytes_max: 6_000, ..config(id) };
    let (mut group, leader) = Group::with(small);
    for round in 1..=20 {
        // All that one is asked at once, more than goes into a message or may be under way.
        for at in (0..3).map(|at| (leader + at) % 3) {
            for _ in 0..40 {
                group.requests += 1;
                let request = RequestId(group.requests);
                let mut entry = BytesMut::new();
                seal(request, &mut entry);
                entry.extend_from_slice(&[b'x'; 500]);
                let event = Event::Propose { request, entry: entry.freeze() };
                group.members[at].replica.handle(event).unwrap();
            }
        }
        group.settle();
        for member in &group.members {
            assert_eq!((member.commands(), &member.refused[..]), (round * 120, &[][..]));
        }
    }
}

/// Whenever between two ticks it begins.
#[test]
fn an_election_takes_as_long_as_its_votes_must_stand_and_not_until_the_next_tick() {
    for killed_ms in (0..100).step_by(10) {
        let (mut group, leader) = Group::new();
        group.tick(3);
        group.elapsed_ms = killed_ms;
        group.members[leader].is_away = true;
        let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
        for at in &others {
            group.handle(*at, Event::Elapsed(killed_ms));
            group.handle(*at, Event::Absent(NodeId(leader as u64 + 1)));
        }
        let pass_to = |group: &mut Group, now_ms: u64| {
            group.elapsed_ms = now_ms % 100;
            for at in others.iter().copied() {
                let wants = group.members[at].replica.wake_ms() == Some(group.elapsed_ms);
                if group.elapsed_ms == 0 {
                    group.handle(at, Event::Tick);
                } else if wants {
                    group.handle(at, Event::Elapsed(group.elapsed_ms));
                }
            }
            others.iter().any(|at| group.leads(*at))
        };
        let took_ms = (1..1_000).find(|ms| pass_to(&mut group, killed_ms + ms));
        // With up to a fifth more by chance.
        let took_ms = took_ms.expect("somebody leads");
        assert!((200..=240).contains(&took_ms), "killed at {killed_ms} ms: {took_ms} ms");
        assert!(others.iter().all(|at| group.members[*at].replica.wake_ms().is_none()));
    }
}

#[test]
fn what_the_engine_cannot_do_is_refused() {
    let (mut group, leader) = Group::new();
    let change = AnyConfChange::V1(ConfChange { node_id: NodeId(4), ..ConfChange::default() });
    group.handle(leader, Event::ProposeChange { request: RequestId(9), change });
    assert_eq!(group.members[leader].refused, [(RequestId(9), Refusal::Unsupported)]);
    group.handle(leader, Event::Transfer(NodeId(2)));
    assert_eq!(group.members[leader].transfers, [(NodeId(2), TransferOutcome::Refused)]);
    assert!(group.leads(leader));
}

#[test]
fn handing_over_begins_another_epoch() {
    let (mut group, leader) = Group::new();
    let term = group.members[leader].glance().term;
    group.propose(leader);
    group.handle(leader, Event::HandOver);
    let leader = group.elect();
    assert!(term < group.members[leader].glance().term);
    assert!(group.members.iter().all(|member| member.commands() == 1), "outstanding ones first");
}

#[test]
fn a_member_whose_disk_stands_still_leads_no_more_and_comes_back() {
    let (mut group, leader) = Group::new();
    group.members[leader].stands_still = true;
    group.propose(leader);
    group.tick(WRITE_TICKS_MAX - 2);
    assert!(group.leads(leader), "a slow disk is no reason");
    group.tick(4);
    assert!(!group.leads(leader));
    group.tick(5 * ELECTION_TICKS);
    let next = (0..3).find(|at| group.leads(*at)).expect("the others go on without it");
    assert_ne!(next, leader, "and it stays so");
    group.propose(next);
    assert_eq!(group.members[next].commands(), 2);

    group.members[leader].stands_still = false;
    let written = group.members[leader].last_write;
    group.handle(leader, Event::Persisted(written));
    group.tick(5 * ELECTION_TICKS);
    assert_eq!(group.members[leader].commands(), 2);
}

#[test]
fn a_member_that_was_mute_for_its_disk_lets_others_with_as_much_go_before() {
    let (mut group, leader) = Group::new();
    assert_eq!(leader, 2, "of those who have as much, the last member wins");
    // Nobody leads while it is mute; the one it is left with has stored all that it had to write.
    group.members[1].is_away = true;
    group.members[leader].stands_still = true;
    let request = group.propose(leader);
    group.tick(WRITE_TICKS_MAX + 3 * ELECTION_TICKS);
    assert!((0..3).all(|at| !group.leads(at)));
    group.members[leader].stands_still = false;
    let written = group.members[leader].last_write;
    group.handle(leader, Event::Persisted(written));
    let last = |at: usize| group.members[at].replica.status().last;
    assert_eq!(last(0), last(leader), "they have as much");
    assert_eq!(group.elect(), 0);
    group.tick(2);
    for at in [0, leader] {
        assert_eq!(group.members[at].requests(), [request]);
    }
}

#[test]
fn a_tail_that_nobody_else_has_is_cut_off() {
    let (mut group, leader) = Group::new();
    // Nobody hears of this one.
    group.members[leader].is_away = true;
    let request = group.propose(leader);
    let last = group.members[leader].replica.status().last;
    let others = group.elect();
    assert_ne!(others, leader);
    group.members[leader].is_away = false;
    group.tick(5 * ELECTION_TICKS);
    let writes = &group.members[leader].writes;
    let replaced = writes.iter().any(|write| {
        write.cut_from == Some(last) || write.entries.first().is_some_and(|it| it.index == last)
    });
    assert!(replaced, "{writes:?}");
    for member in &group.members {
        assert_eq!(member.requests(), [request], "once more, as it was done nowhere");
        assert_eq!(member.replica.status().last, group.members[others].replica.status().last);
    }
}

#[test]
fn what_was_asked_of_a_leader_that_is_gone_is_asked_of_the_next_with_zab() {
    let (mut group, leader) = Group::new();
    let other = (leader + 1) % 3;
    group.members[leader].is_away = true;
    // None of it gets beyond the member that was asked: sent on in vain, and appended by a leader of nobody.
    let (sent, appended) = (group.propose(other), group.propose(leader));
    let next = group.elect();
    assert_ne!(next, leader);
    let later = group.propose(other);
    group.tick(2);
    for at in (0..3).filter(|at| *at != leader) {
        assert_eq!(group.members[at].requests(), [sent, later], "in the order of asking");
    }

    group.members[leader].is_away = false;
    group.tick(4 * ELECTION_TICKS);
    for member in &group.members {
        assert_eq!(member.requests(), [sent, later, appended], "each once");
        assert_eq!(member.refused, []);
    }
}

#[test]
fn what_is_asked_for_again_keeps_the_order_in_which_it_came() {
    let (mut group, leader) = Group::new();
    let other = (leader + 1) % 3;
    group.members[leader].is_away = true;
    // Several threads draw the ids.
    let requests = [RequestId(6), RequestId(5), RequestId(7)];
    for request in requests {
        group.propose_as(request, other, b"command");
    }
    group.elect();
    group.tick(2);
    for at in (0..3).filter(|at| *at != leader) {
        assert_eq!(group.members[at].requests(), requests);
    }
}

#[test]
fn what_waits_for_a_leader_comes_after_what_the_last_one_was_asked_for() {
    let (mut group, leader) = Group::new();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    others.iter().for_each(|at| group.members[*at].stands_still = true);
    // The next leader has one entry of which it is not known at once that it will be committed.
    let held = group.propose(leader);
    group.members[leader].is_away = true;
    let sent = group.propose(others[0]);
    for at in others {
        group.members[at].stands_still = false;
        let written = group.members[at].last_write;
        group.handle(at, Event::Persisted(written));
    }
    while !group.members[others[0]].glance().leader.is_none() {
        group.tick(1);
    }
    let parked = group.propose(others[0]);
    assert_ne!(group.elect(), others[0], "it follows");
    group.tick(2);
    for at in others {
        assert_eq!(group.members[at].requests(), [held, sent, parked]);
    }
}

#[test]
fn nothing_is_called_lost_before_the_next_leader_is_established() {
    let (mut group, leader) = Group::new();
    assert_eq!(leader, 2, "the next one is not the one that asks");
    // The later of two requests is done; the earlier has reached nobody but the leader.
    let (earlier, later) = (RequestId(5), RequestId(6));
    group.propose_as(later, 0, b"later");
    group.members[1].is_away = true;
    group.deaf = Some((leader, 0));
    group.propose_as(earlier, 0, b"earlier");
    group.members[leader].is_away = true;
    group.members[1].is_away = false;
    group.deaf = None;

    // The next leader lacks but the word of one whose disk stands still: the last one may yet be elected.
    while group.members[0].glance().leader == NodeId(3) {
        group.tick(1);
    }
    let promised = WriteId(group.members[0].last_write.0 + 1);
    group.members[0].last_done = Some(promised);
    let mut serves = false;
    for _ in 0..2 * ELECTION_TICKS {
        group.tick(1);
        serves |= group.members[0].glance().leader == NodeId(2);
        assert_eq!(group.members[0].refused, [], "it may still be done");
    }
    assert!(serves && !group.leads(1), "it serves a leader that is none yet");
    group.members[0].last_done = None;
    let written = group.members[0].last_write;
    group.handle(0, Event::Persisted(written));
    group.elect();
    group.tick(4);
    let done = group.members[0].requests();
    let refused = &group.members[0].refused;
    assert!(
        (done == [later, earlier] && refused.is_empty())
            || (done == [later] && *refused == [(earlier, Refusal::Busy)]),
        "{done:?} {refused:?}"
    );
}

#[test]
fn what_the_next_leader_holds_is_not_asked_for_again() {
    let (mut group, leader) = Group::new();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    others.iter().for_each(|at| group.members[*at].stands_still = true);
    let requests = [group.propose(leader), group.propose(others[0])];
    group.members[leader].is_away = true;
    for at in others {
        group.members[at].stands_still = false;
        let written = group.members[at].last_write;
        group.handle(at, Event::Persisted(written));
        assert_eq!(group.members[at].requests(), [], "nobody said that it is committed");
    }
    group.elect();
    group.tick(2);
    group.members[leader].is_away = false;
    group.tick(4 * ELECTION_TICKS);
    for member in &group.members {
        assert_eq!(member.requests(), requests);
    }
}

#[test]
fn who_was_cut_off_asks_the_same_leader_again() {
    let (mut group, leader) = Group::new();
    let term = group.members[leader].glance().term;
    let other = (leader + 1) % 3;
    group.members[other].is_away = true;
    let sent = group.propose(other);
    while !group.members[other].glance().leader.is_none() {
        group.tick(1);
    }
    let parked = group.propose(other);
    group.members[other].is_away = false;
    group.tick(3 * ELECTION_TICKS);
    for member in &group.members {
        assert_eq!(member.requests(), [sent, parked]);
        assert_eq!(member.glance().term, term, "nobody else came to lead");
    }
}

#[test]
fn what_a_leader_refused_unheard_is_not_done_after_what_came_later() {
    let (mut group, leader) = Group::with(|id| Config { uncommitted_bytes_max: 700, ..config(id) });
    let (other, third) = ((leader + 1) % 3, (leader + 2) % 3);
    group.deaf = Some((leader, other));
    group.members[third].stands_still = true;
    let first = group.propose_command(leader, &[b'x'; 600]);
    let refused = group.propose_command(other, &[b'x'; 600]);
    group.members[third].stands_still = false;
    let written = group.members[third].last_write;
    group.handle(third, Event::Persisted(written));
    let later = group.propose(other);
    assert_eq!(group.members[leader].requests(), [first, later]);
    assert_eq!(group.members[other].refused, [], "it has not heard of that");
    group.tick(2 * ELECTION_TICKS);
    group.deaf = None;
    group.tick(4 * ELECTION_TICKS);
    for member in &group.members {
        assert_eq!(member.requests(), [first, later]);
    }
    assert_eq!(group.members[other].refused, [(refused, Refusal::Busy)]);
}

#[test]
fn what_nobody_waits_for_any_more_is_not_asked_for_again_with_zab() {
    let (mut group, leader) = Group::new();
    let other = (leader + 1) % 3;
    group.members[other].is_away = true;
    group.propose(other);
    group.tick(config(1).parked_ticks_max);
    group.members[other].is_away = false;
    group.tick(3 * ELECTION_TICKS);
    let later = group.propose(other);
    group.tick(2);
    assert!(group.members.iter().all(|member| member.requests() == [later]));
}

#[test]
fn proposals_wait_for_a_leader_and_not_for_ever() {
    let (mut group, leader) = Group::new();
    let other = (leader + 1) % 3;
    for at in 0..3 {
        group.members[at].is_away = at != other;
    }
    group.tick(2 * ELECTION_TICKS);
    let request = group.propose(other);
    assert_eq!(group.members[other].refused, []);
    group.tick(100);
    assert_eq!(group.members[other].refused, [(request, Refusal::NoLeader)]);
}

#[test]
fn one_voter_leads_at_its_first_tick() {
    let mut replica = Replica::new(config(1), initial(&[1])).unwrap();
    replica.handle(Event::Tick).unwrap();
    while let Some(effects) = replica.ready().unwrap() {
        assert!(effects.messages.is_empty(), "there is nobody to talk to");
        if let Some(write) = effects.writes.last() {
            replica.handle(Event::Persisted(write.id)).unwrap();
        }
        if let Some(applying) = effects.apply.last() {
            replica.handle(Event::Applied(applying.index())).unwrap();
        }
    }
    let glance = replica.glance();
    assert_eq!((glance.role, glance.leader, glance.term), (Role::Leader, NodeId(1), Term(2)));
    assert_eq!(glance.applied, Index(2));
}

#[test]
fn a_log_of_the_other_engine_is_refused() {
    for (wanted, found) in [(Engine::Raft, Engine::Zab), (Engine::Zab, Engine::Raft)] {
        let (mark, hard_state) = first_log(found);
        let members = first_conf_state(vec![NodeId(1)]);
        let initial =
            Initial::recover(mark, Some(hard_state), Vec::new(), FIRST.0, members).unwrap();
        assert_eq!(
            initial.conf_state,
            ConfState { voters: vec![NodeId(1)], ..ConfState::default() }
        );
        let refused = Replica::new(Config { engine: wanted, ..config(1) }, initial);
        assert!(matches!(refused.err(), Some(StartError::OtherEngine { .. })), "{wanted}");
    }
}

/// Clients write much more than the log of one member may hold that cannot flush: a follower falls
/// behind, a leader refuses, and both go on by themselves after a flush.
#[test]
fn a_log_that_cannot_be_flushed_takes_no_more_than_it_may_with_zab_either() {
    const WINDOW: u64 = 20_000;
    for (at, leads) in [(0, false), (2, true)] {
        let small = |id| Config {
            log_bytes_max: if id == at + 1 { 10_000 } else { config(id).log_bytes_max },
            message_bytes_max: WINDOW / 2,
            inflight_bytes_max: WINDOW,
            ..config(id)
        };
        let (mut group, leader) = Group::with(small);
        let at = at as usize;
        assert_eq!(at == leader, leads);
        group.members[at].can_flush = false;
        for _ in 0..300 {
            group.propose_command(leader, &[b'x'; 1000]);
            group.tick(1);
            let status = group.members[at].replica.status();
            assert!(status.log_bytes <= 80_000 + 2 * WINDOW, "{status:?}");
        }
        let stalled = group.members[at].commands();
        assert!((70..140).contains(&stalled), "it has stopped taking entries, after {stalled}");
        let refused = &group.members[leader].refused;
        if leads {
            assert_eq!(refused.len(), 300 - stalled);
            assert!(refused.iter().all(|(_, why)| *why == Refusal::Busy), "{refused:?}");
        } else {
            assert_eq!((group.members[leader].commands(), refused.len()), (300, 0));
        }

        group.members[at].can_flush = true;
        let applied = group.members[at].glance().applied;
        group.handle(at, Event::Flushed(applied));
        group.tick(20 * ELECTION_TICKS);
        group.propose(at);
        group.tick(2);
        for member in &group.members {
            assert_eq!(member.commands(), group.members[leader].commands());
            let status = member.replica.status();
            assert_eq!(status.leader, Some(NodeId(leader as u64 + 1)), "{status:?}");
        }
        let all = if leads { stalled + 1 } else { 301 };
        assert_eq!(group.members[at].commands(), all);
    }
}

/// Whatever is written meanwhile, and its state is not sent again; but nobody waits for ever.
#[test]
fn a_member_that_installs_a_state_is_waited_for() {
    const MINUTE: u64 = 600;
    for (writes, ends) in [(false, true), (true, true), (true, false)] {
        let small =
            |id| Config { flush_entries: 10, tail_entries: 0, writes_count_max: 8, ..config(id) };
        let (mut group, leader) = Group::with(small);
        let at = 0;
        assert_ne!(at, leader);
        group.members[at].is_away = true;
        for _ in 0..30 {
            group.propose(leader);
        }
        // It is back, and its disk takes its time for the state that it lacks.
        group.tick(5 * ELECTION_TICKS);
        group.members[at].cannot_install = true;
        group.members[at].is_away = false;
        group.tick(5 * ELECTION_TICKS);
        let node = NodeId(leader as u64 + 1);
        for _ in 0..9 {
            assert_eq!(group.members[leader].snapshots_sent, 1);
            assert_eq!(group.members[at].glance().leader, node, "writes {writes}");
            for _ in 0..10 {
                if writes {
                    group.propose(leader);
                }
                group.tick(MINUTE / 10);
            }
        }
        if !ends {
            group.tick(2 * MINUTE);
            assert_eq!(group.members[at].glance().leader, NodeId::NONE);
            continue;
        }
        group.members[at].last_done = None;
        let written = group.members[at].last_write;
        group.handle(at, Event::Persisted(written));
        group.tick(ELECTION_TICKS);
        assert_eq!(group.members[leader].snapshots_sent, 1);
        let status = group.members[at].replica.status();
        assert_eq!(status.leader, Some(node));
        assert_eq!(status.applied, group.members[leader].glance().applied);
        assert_eq!(group.members[at].commands(), if writes { 90 } else { 0 });
    }
}
