//! Disks that stand still, and snapshots that take their time: nothing grows, and who can do
//! better leads.

use bytes::{Bytes, BytesMut};
use quorate_raft::{
    AnyConfChange, Body, ConfChange, ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState,
    Entry, HardState, Message as RaftMessage, Role, Snapshot, SnapshotMetadata, TransferOutcome,
    encode_conf_change,
};
use quorate_replica::{
    Applying, Config, Event, Initial, Message, Refusal, Replica, RequestId, WriteId, open, seal,
    seal_change,
};
use quorate_types::{EntryId, Index, Mark, NodeId, Term};

const ELECTION_TICKS: u64 = 10;
const WRITE_TICKS_MAX: u64 = 30;
const WRITES_MAX: usize = 4;

/// Three replicas, the first of which leads, and whose network loses nothing.
struct Group {
    members: Vec<Member>,
    requests: u64,
    /// Nobody gets entries for now.
    loses_appends: bool,
}

struct Member {
    replica: Replica,
    /// Nothing becomes durable here for now.
    stands_still: bool,
    /// Its machine takes commands and is never done with them.
    applies_nothing: bool,
    /// Nothing reaches it for now.
    is_away: bool,
    last_write: WriteId,
    /// The newest commit index that was to be synced.
    commit_synced: Index,
    snapshots_asked: usize,
    /// What snapshots went with.
    snapshots_sent: Vec<Message>,
    snapshots_dropped: usize,
    refused: Vec<(RequestId, Refusal)>,
    /// Commands of clients, in the order of the log.
    applied: Vec<RequestId>,
    transfers: Vec<(NodeId, TransferOutcome)>,
}

impl Group {
    fn new(flush_entries: u64) -> Group {
        Group::limited(flush_entries, 64 << 20)
    }

    fn limited(flush_entries: u64, uncommitted_bytes_max: u64) -> Group {
        let voters: Vec<_> = (1..=3).map(NodeId).collect();
        let member = |id: &NodeId| {
            let config = Config {
                election_ticks: ELECTION_TICKS as u32,
                write_ticks_max: WRITE_TICKS_MAX,
                writes_count_max: WRITES_MAX,
                message_bytes_max: 100,
                flush_entries,
                uncommitted_bytes_max,
                tail_entries: 0,
                ..Config::new(*id, id.0)
            };
            let initial = Initial {
                mark: Mark { index: Index(1), stamp: 1, ..Mark::default() },
                hard_state: HardState { term: Term(1), commit: Index(1), vote: NodeId::NONE }
                    .into(),
                applied: Index(1),
                conf_state: ConfState { voters: voters.clone(), ..ConfState::default() },
                ..Initial::default()
            };
            Member {
                replica: Replica::new(config, initial).unwrap(),
                stands_still: false,
                applies_nothing: false,
                is_away: false,
                last_write: WriteId(0),
                commit_synced: Index(0),
                snapshots_asked: 0,
                snapshots_sent: Vec::new(),
                snapshots_dropped: 0,
                refused: Vec::new(),
                applied: Vec::new(),
                transfers: Vec::new(),
            }
        };
        let members = voters.iter().map(member).collect();
        let mut group = Group { members, requests: 0, loses_appends: false };
        group.handle(0, Event::Campaign);
        assert!(group.leads(0));
        group
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

    fn propose(&mut self, count: u64) {
        for _ in 0..count {
            self.propose_at(0);
        }
    }

    fn propose_at(&mut self, at: usize) {
        let proposal = self.proposal();
        self.handle(at, proposal);
    }

    fn proposal(&mut self) -> Event {
        self.requests += 1;
        let request = RequestId(self.requests);
        let mut entry = BytesMut::new();
        seal(request, &mut entry);
        entry.extend_from_slice(&[b'x'; 50]);
        Event::Propose { request, entry: entry.freeze() }
    }

    /// Carries out and delivers until nothing moves.
    fn settle(&mut self) {
        loop {
            let mut messages: Vec<Message> = Vec::new();
            for member in &mut self.members {
                while let Some(effects) = member.replica.ready().unwrap() {
                    messages.extend(effects.messages);
                    member.snapshots_asked += usize::from(effects.make_snapshot);
                    member.snapshots_sent.extend(effects.snapshots);
                    member.snapshots_dropped += usize::from(effects.drop_snapshot);
                    member.refused.extend(effects.refused);
                    member.transfers.extend(effects.transfers);
                    for write in effects.writes.iter().filter(|write| write.must_sync) {
                        if let Some(quorate_replica::HardState::Raft(state)) = &write.hard_state {
                            member.commit_synced = member.commit_synced.max(state.commit);
                        }
                    }
                    if let Some(write) = effects.writes.last() {
                        member.last_write = write.id;
                    }
                    member.applied.extend(effects.apply.iter().filter_map(
                        |applying| match applying {
                            Applying::Command { entry, .. } => Some(open(entry.clone()).unwrap().0),
                            _ => None,
                        },
                    ));
                    if let Some(applying) = effects.apply.last().filter(|_| !member.applies_nothing)
                    {
                        member.replica.handle(Event::Applied(applying.index())).unwrap();
                    }
                    if effects.flush {
                        let applied = member.replica.glance().applied;
                        member.replica.handle(Event::Flushed(applied)).unwrap();
                    }
                    if !member.stands_still {
                        member.replica.handle(Event::Persisted(member.last_write)).unwrap();
                    }
                }
                member.replica.check();
            }
            if messages.is_empty() {
                return;
            }
            for message in messages {
                let (to, from) = (message.to().0 as usize - 1, message.from().0 as usize - 1);
                if 2 < to {
                    continue; // a member that was never started
                }
                let is_append = |message: &RaftMessage| matches!(message.body, Body::Append { .. });
                if self.loses_appends && matches!(&message, Message::Raft(it) if is_append(it)) {
                    continue;
                }
                if !self.members[to].is_away && !self.members[from].is_away {
                    self.members[to].replica.handle(Event::Message(message)).unwrap();
                }
            }
        }
    }

    /// The disk works again.
    fn go_on(&mut self, at: usize) {
        self.members[at].stands_still = false;
        let written = self.members[at].last_write;
        self.handle(at, Event::Persisted(written));
    }

    fn leads(&self, at: usize) -> bool {
        self.members[at].replica.glance().role == Role::Leader
    }

    fn last(&self, at: usize) -> Index {
        self.members[at].replica.status().last
    }
}

#[test]
fn a_leader_whose_disk_stands_still_hands_over() {
    let mut group = Group::new(1000);
    group.members[0].stands_still = true;
    group.tick(3 * WRITE_TICKS_MAX);
    assert!(group.leads(0), "nothing waits for its disk");

    group.propose(1);
    group.tick(WRITE_TICKS_MAX - 1);
    assert!(group.leads(0), "a slow disk is no reason");
    group.tick(2);
    assert!(!group.leads(0) && (group.leads(1) || group.leads(2)));
    group.tick(5 * WRITE_TICKS_MAX);
    assert!(!group.leads(0), "and it stays so");
    assert!(group.members[1].replica.glance().applied == group.last(1));

    group.go_on(0);
    group.tick(2 * ELECTION_TICKS);
    assert_eq!(group.last(0), group.last(1));
    assert_eq!(group.members[0].replica.glance().applied, group.last(0));
}

#[test]
fn where_no_disk_is_better_the_leader_stays() {
    let mut group = Group::new(1000);
    let term = group.members[0].replica.glance().term;
    for member in &mut group.members {
        member.stands_still = true;
    }
    group.propose(1);
    group.tick(WRITE_TICKS_MAX);
    group.propose(1);
    assert_eq!(group.members[0].refused, [], "no transfer is tried that cannot succeed");
    group.tick(10 * WRITE_TICKS_MAX);
    assert!(group.leads(0), "the others have no more than it has");
    assert_eq!(group.members[0].replica.glance().term, term);
    for at in 0..3 {
        group.go_on(at);
    }
    assert_eq!(group.members[0].replica.glance().applied, group.last(0));
}

#[test]
fn what_a_standing_disk_is_asked_for_is_bounded() {
    let mut group = Group::new(1000);
    group.members[2].stands_still = true;
    for _ in 0..50 {
        group.propose(2);
        group.tick(3);
        let waiting = group.members[2].replica.status().writes_count;
        // What came before the bound was met in one turn is taken in.
        assert!(waiting <= WRITES_MAX + 1, "{waiting} writes wait");
    }
    assert!(group.leads(0));
    assert!(group.last(2) < group.last(0), "more was sent than is taken in");
    group.go_on(2);
    group.tick(5 * ELECTION_TICKS);
    assert_eq!(group.last(2), group.last(0), "what was lost came again");
    assert_eq!(group.members[2].replica.glance().applied, group.last(0));
}

#[test]
fn one_snapshot_is_made_at_a_time() {
    let mut group = Group::new(10);
    group.members[2].is_away = true;
    group.propose(30);
    group.members[2].is_away = false;
    assert!(
        group.members[2].replica.status().last.next() < group.members[0].replica.status().first
    );
    group.tick(5 * ELECTION_TICKS);
    assert_eq!(group.members[0].snapshots_asked, 1, "it is on its way, however often it is wanted");

    let status = group.members[0].replica.status();
    let metadata = SnapshotMetadata {
        conf_state: status.conf_state.clone(),
        index: status.applied,
        term: status.term,
    };
    group.handle(0, Event::SnapshotMade(Snapshot { data: Bytes::new(), metadata }));
    group.tick(2);
    assert_eq!(group.members[0].snapshots_asked, 1);
    let message = group.members[0].snapshots_sent.pop().unwrap();
    assert!(group.members[0].snapshots_sent.is_empty());

    // Once it is of no use any more, another one may be asked for.
    group.handle(0, Event::SnapshotSent { message, ok: false });
    group.tick(ELECTION_TICKS);
    assert_eq!(group.members[0].snapshots_asked, 2);
}

#[test]
fn a_snapshot_that_nobody_takes_is_let_go() {
    let mut group = Group::new(10);
    let status = group.members[0].replica.status();
    let (conf_state, index) = (status.conf_state, status.applied);
    let metadata = SnapshotMetadata { conf_state, index, term: status.term };
    group.handle(0, Event::SnapshotMade(Snapshot { data: Bytes::new(), metadata }));
    group.tick(10 * ELECTION_TICKS);
    assert_eq!(group.members[0].snapshots_dropped, 0);
    group.tick(1);
    assert_eq!(group.members[0].snapshots_dropped, 1, "it would pin storage for nothing");
}

#[test]
fn the_log_behind_a_snapshot_on_its_way_stays() {
    let mut group = Group::new(10);
    group.members[2].is_away = true;
    group.propose(30);
    group.members[2].is_away = false;
    group.tick(2);
    let status = group.members[0].replica.status();
    let (conf_state, index) = (status.conf_state, status.applied);
    let metadata = SnapshotMetadata { conf_state, index, term: status.term };
    group.handle(0, Event::SnapshotMade(Snapshot { data: Bytes::new(), metadata }));
    group.tick(2);
    let message = group.members[0].snapshots_sent.pop().unwrap();

    group.propose(50);
    let status = group.members[0].replica.status();
    assert!(index < status.flushed, "there was reason to compact");
    assert!(status.first <= index.next(), "whoever installs it needs what follows");
    group.handle(0, Event::SnapshotSent { message, ok: true });
    group.propose(20);
    let first = group.members[0].replica.status().first;
    assert!(first <= index.next(), "whoever has installed it still does");
    // This one never comes any further.
    group.tick(10 * ELECTION_TICKS + 1);
    group.propose(20);
    assert!(index.next() < group.members[0].replica.status().first, "but not for ever");
}

#[test]
fn proposals_wait_while_leadership_is_handed_over() {
    let mut group = Group::new(1000);
    group.propose(1);
    assert_eq!(group.members[0].refused, []);
    // During a transfer proposals wait; one to a member that is away is given up.
    group.members[2].is_away = true;
    group.propose(1);
    group.handle(0, Event::Transfer(NodeId(3)));
    group.propose(1);
    assert_eq!(group.members[0].refused, []);
    let applied = group.members[0].replica.status().applied;
    group.tick(2 * ELECTION_TICKS);
    assert_eq!(group.members[0].replica.status().applied, applied + 1, "given up");
    assert_eq!(group.members[0].refused, []);
}

#[test]
fn what_became_of_a_transfer_is_told_where_it_was_asked() {
    let mut group = Group::new(1000);
    group.propose(1);
    group.members[2].is_away = true;
    group.propose(1);
    group.handle(0, Event::Transfer(NodeId(3)));
    assert_eq!(group.members[0].transfers, [], "under way");
    group.tick(ELECTION_TICKS);
    group.handle(0, Event::Transfer(NodeId(9)));
    group.handle(0, Event::Transfer(NodeId(2)));
    group.tick(1);
    assert!(group.leads(1));
    assert_eq!(
        group.members[0].transfers,
        [
            (NodeId(3), TransferOutcome::TimedOut),
            (NodeId(9), TransferOutcome::Refused),
            (NodeId(2), TransferOutcome::Transferred),
        ]
    );
}

#[test]
fn what_no_reign_commits_is_bounded_over_all_of_them() {
    let bytes_max = 400;
    let mut group = Group::limited(1000, bytes_max);
    group.loses_appends = true;
    let mut leader = 0;
    for reign in 0..12 {
        for _ in 0..20 {
            group.propose_at(leader);
        }
        // Another leads, and whoever led before may do so again after that.
        for (at, member) in group.members.iter_mut().enumerate() {
            member.is_away = at == leader;
        }
        group.tick(8 * ELECTION_TICKS);
        let others = (0..3).filter(|at| *at != leader);
        let next = others.into_iter().find(|at| group.leads(*at));
        leader = next.unwrap_or_else(|| panic!("nobody leads after reign {reign}"));
    }
    let mut refused = group.members.iter().flat_map(|member| &member.refused);
    assert!(refused.any(|(_, why)| *why == Refusal::Busy));
    for (at, member) in group.members.iter().enumerate() {
        let bytes = 59 * member.replica.status().last.0;
        assert!(bytes < 3 * bytes_max, "n{at} has {bytes} bytes at most");
    }

    group.loses_appends = false;
    for member in &mut group.members {
        member.is_away = false;
    }
    group.tick(8 * ELECTION_TICKS);
    let leader = (0..3).find(|at| group.leads(*at)).unwrap();
    let before = group.members[leader].applied.len();
    group.propose_at(leader);
    assert_eq!(group.members[leader].applied.len(), before + 1, "and goes on");
}

#[test]
fn a_leader_with_a_slow_machine_takes_what_others_can_commit() {
    let mut group = Group::limited(1000, 400);
    group.members[0].applies_nothing = true;
    for _ in 0..30 {
        group.propose_at(1);
    }
    assert_eq!(group.members[1].applied.len(), 30, "several times as much as may be uncommitted");
    assert_eq!(group.members[1].refused, []);
    group.propose_at(0);
    assert_eq!(group.members[0].refused, [], "of its own clients as well");
    assert_eq!(group.members[1].applied.len(), 31);
}

#[test]
fn what_is_not_committed_is_bounded_within_a_turn() {
    let bytes_max = 400;
    for is_passed_on in [false, true] {
        let mut group = Group::limited(1000, bytes_max);
        let before = group.last(0);
        group.loses_appends = true;
        // Neither on its disk nor handed to it.
        group.members[0].stands_still = true;
        for _ in 0..2 {
            for _ in 0..20 {
                let Event::Propose { request, entry } = group.proposal() else { unreachable!() };
                let event = if is_passed_on {
                    let entries = vec![Entry { data: Some(entry), ..Entry::default() }];
                    let proposal = RaftMessage {
                        from: NodeId(2),
                        term: Term(2),
                        ..RaftMessage::new(NodeId(1), Body::Propose { entries })
                    };
                    Event::Message(proposal.into())
                } else {
                    Event::Propose { request, entry }
                };
                group.members[0].replica.handle(event).unwrap();
            }
            group.settle();
        }
        let taken = group.last(0).0 - before.0;
        assert_eq!(taken, bytes_max.div_ceil(59), "passed on: {is_passed_on}");
        let refused = if is_passed_on { 0 } else { 40 - taken as usize };
        assert_eq!(group.members[0].refused.len(), refused);
    }
}

#[test]
fn what_was_asked_of_a_leader_that_is_gone_is_asked_of_the_next() {
    let mut group = Group::new(1000);
    group.propose_at(1);
    group.members[0].is_away = true;
    for _ in 0..3 {
        group.propose_at(1);
    }
    assert_eq!(group.members[1].applied, [RequestId(1)]);
    group.tick(5 * ELECTION_TICKS);
    let all = [1, 2, 3, 4].map(RequestId);
    for member in &group.members[1..] {
        assert_eq!(member.applied, all, "each once, in the order they came");
        assert_eq!(member.refused, []);
    }
    group.members[0].is_away = false;
    group.tick(3 * ELECTION_TICKS);
    assert_eq!(group.members[0].applied, all);
}

#[test]
fn what_comes_to_a_leader_of_a_later_term_is_not_taken() {
    let mut group = Group::new(1000);
    // It is under way while others come to lead.
    let proposal = group.proposal();
    group.members[1].replica.handle(proposal).unwrap();
    let late = group.members[1].replica.ready().unwrap().unwrap().messages;
    assert!(late.len() == 1 && late[0].is_proposal());
    group.members[0].is_away = true;
    group.tick(5 * ELECTION_TICKS);
    assert_eq!(group.members[1].applied, [RequestId(1)], "asked of the next");
    group.members[0].is_away = false;
    group.tick(3 * ELECTION_TICKS);
    let leader = usize::from(group.leads(2)) + 1;
    group.handle(leader, Event::Transfer(NodeId(1)));
    assert!(group.leads(0), "again, in a later term");
    let last = group.last(0);
    group.handle(0, Event::Message(late[0].clone()));
    group.tick(ELECTION_TICKS);
    assert_eq!((group.last(0), &group.members[0].applied), (last, &vec![RequestId(1)]));
}

#[test]
fn what_the_transport_had_no_room_for_is_refused() {
    let mut group = Group::new(1000);
    let proposal = group.proposal();
    let follower = &mut group.members[1].replica;
    follower.handle(proposal).unwrap();
    let passed_on = follower.ready().unwrap().unwrap().messages.remove(0);
    for _ in 0..2 {
        follower.not_sent(&passed_on);
    }
    let refused = follower.ready().unwrap().unwrap().refused;
    assert_eq!(refused, [(RequestId(1), Refusal::Busy)], "once");
    group.members[0].is_away = true;
    group.tick(5 * ELECTION_TICKS);
    assert_eq!(group.members[1].applied, [], "nor is the next leader asked");
}

#[test]
fn what_nobody_waits_for_any_more_is_not_asked_of_the_next() {
    let mut group = Group::new(1000);
    group.members[0].is_away = true;
    group.members[2].is_away = true;
    group.propose_at(1);
    group.tick(71);
    group.members[2].is_away = false;
    group.tick(5 * ELECTION_TICKS);
    assert!(group.leads(1) || group.leads(2));
    assert_eq!(group.members[1].applied, []);
}

#[test]
fn what_was_placed_and_replaced_is_refused() {
    let mut group = Group::new(1000);
    // Only this member has it when another one takes over.
    group.members[0].is_away = true;
    group.propose(1);
    assert_eq!(group.members[0].refused, []);
    group.handle(1, Event::Campaign);
    group.tick(3 * ELECTION_TICKS);
    assert!(group.leads(1) || group.leads(2));
    group.members[0].is_away = false;
    group.tick(3 * ELECTION_TICKS);
    assert_eq!(group.members[0].refused, [(RequestId(1), Refusal::Superseded)]);
}

#[test]
fn a_change_that_cannot_be_carried_out_is_refused() {
    let mut group = Group::new(1000);
    let voter = |id| ConfChange { node_id: NodeId(id), ..ConfChange::default() };
    let ask = |group: &mut Group, request, change| {
        let change = AnyConfChange::V1(change);
        group.handle(0, Event::ProposeChange { request: RequestId(request), change });
    };
    // While no other member answers, the first change is under way.
    group.members[1].is_away = true;
    group.members[2].is_away = true;
    ask(&mut group, 1, voter(4));
    ask(&mut group, 2, voter(5));
    assert_eq!(group.members[0].refused, [(RequestId(2), Refusal::Change)], "at once");
    group.members[1].is_away = false;
    group.members[2].is_away = false;
    group.tick(3);
    assert_eq!(group.members[0].refused, [(RequestId(2), Refusal::Change)]);
    assert!(group.members[0].replica.status().conf_state.voters.contains(&NodeId(4)));
}

#[test]
fn a_change_that_was_judged_in_another_term_changes_nothing() {
    let mut group = Group::new(1000);
    let term = group.members[0].replica.glance().term;
    for (request, judged, voters) in
        [(1, Term(term.0 - 1), 3), (2, Term(term.0 + 1), 3), (3, term, 4)]
    {
        assert!(group.members[0].replica.may_change(), "nothing is under way");
        assert!(!group.members[1].replica.may_change(), "it does not lead");
        let mut context = BytesMut::new();
        seal_change(RequestId(request), judged, &mut context);
        let change =
            ConfChange { node_id: NodeId(4), context: context.freeze(), ..ConfChange::default() };
        let change = AnyConfChange::V1(change);
        group.handle(0, Event::ProposeChange { request: RequestId(request), change });
        group.tick(3);
        for member in &group.members {
            let status = member.replica.status();
            assert_eq!(status.conf_state.voters.len(), voters, "judged in {judged:?} of {term:?}");
        }
    }
    let refused = [1, 2].map(|request| (RequestId(request), Refusal::Change));
    assert_eq!(group.members[0].refused, refused);
}

#[test]
fn that_a_change_is_committed_is_written_at_once() {
    let mut group = Group::new(1000);
    group.propose(1);
    let change = ConfChange {
        change_type: ConfChangeType::AddLearnerNode,
        node_id: NodeId(9),
        ..ConfChange::default()
    };
    let changed = group.last(0).next();
    assert!(group.members[0].commit_synced < group.last(0), "other commit indexes can wait");
    group.handle(0, Event::ProposeChange { request: RequestId(77), change: change.into() });
    for member in &group.members {
        assert_eq!(member.replica.status().conf_state.learners, [NodeId(9)]);
        assert!(changed <= member.commit_synced, "{}", member.commit_synced);
    }
}

#[test]
fn a_committed_change_that_cannot_be_carried_out_changes_nothing() {
    let mut group = Group::new(1000);
    // No leader of this release would append it: it leaves no voter.
    let changes = (1..=3).map(|id| ConfChangeSingle {
        change_type: ConfChangeType::RemoveNode,
        node_id: NodeId(id),
    });
    let change = ConfChangeV2 { changes: changes.collect(), ..ConfChangeV2::default() };
    let (kind, data) = encode_conf_change(&AnyConfChange::V2(change));
    let glance = group.members[2].replica.glance();
    let (term, prev) = (glance.term, group.last(2));
    let entry = Entry { index: prev.next(), term, kind: Some(kind), data };
    let prev = EntryId { term, index: prev };
    let body = Body::Append { prev, entries: vec![entry].into(), commit: prev.index.next() };
    let message = RaftMessage { from: NodeId(1), term, ..RaftMessage::new(NodeId(3), body) };
    group.members[2].replica.handle(Event::Message(message.into())).unwrap();
    while let Some(effects) = group.members[2].replica.ready().unwrap() {
        let applying = effects.apply.first();
        assert!(applying.is_none_or(|it| matches!(it, Applying::Empty { .. })), "{applying:?}");
        if let Some(write) = effects.writes.last() {
            group.members[2].replica.handle(Event::Persisted(write.id)).unwrap();
        }
        if let Some(applying) = applying {
            group.members[2].replica.handle(Event::Applied(applying.index())).unwrap();
        }
    }
    let status = group.members[2].replica.status();
    assert_eq!(status.applied, prev.index.next());
    assert_eq!(status.conf_state.voters.len(), 3);
}
