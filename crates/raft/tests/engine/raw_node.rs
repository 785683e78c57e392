//! The contract with the driver: what comes out, when, and what comes back.

use bytes::Bytes;
use quorate_raft::{
    Body, ConfState, Config, Entries, Entry, EntryType, Error, HardState, InitialState,
    LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MemoryStorage, Message, MessageType, Note, Peer,
    RawNode, ReadState, Ready, Role, Snapshot, SoftState, Storage, StorageError, describe_ready,
    must_sync,
};
use quorate_types::{Index, NodeId, Term};

use crate::net::{Member, Net, ack, append, heartbeat, id, plain, snapshot};

#[test]
fn local_messages_are_refused_from_outside() {
    let bodies = [
        Body::Hup,
        Body::Beat,
        Body::Unreachable,
        Body::SnapshotStatus { reject: true },
        Body::CheckQuorum,
        Body::StorageAppend {
            hard_state: None,
            entries: Entries::new(),
            snapshot: None,
            responses: vec![],
        },
        Body::StorageAppendReply { stable: None, snapshot: None },
        Body::StorageApply { entries: Entries::new(), responses: vec![] },
        Body::StorageApplyReply { entries: Entries::new() },
    ];
    for body in bodies {
        for from in [1, 2, 9, 0] {
            let mut member = Member::new(plain(1), &[1, 2]);
            let refused = Err(Error::StepLocalMsg);
            assert_eq!(member.step(from, 1, body.clone()), refused, "{body:?} of {from}");
            assert!(!member.node.has_ready());
        }
    }
}

#[test]
fn a_bootstrapped_node_hands_its_membership_out_first() {
    let storage = MemoryStorage::new();
    let mut member = Member::on(plain(1), storage);
    assert_eq!(member.node.bootstrap(&[]), Err(Error::BootstrapWithoutPeers));
    let peer = Peer { id: NodeId(1), context: "here".into() };
    member.node.bootstrap(std::slice::from_ref(&peer)).unwrap();
    assert_eq!(member.node.bootstrap(&[peer]), Err(Error::BootstrapNonempty));

    let ready = member.node.ready();
    let hard_state = HardState { term: Term(1), vote: NodeId(0), commit: Index(1) };
    assert_eq!(ready.hard_state, Some(hard_state));
    assert_eq!(ready.entries.len(), 1);
    assert_eq!(ready.entries[0].kind, Some(EntryType::ConfChange));
    assert_eq!(ready.committed_entries, ready.entries);
    assert!(ready.must_sync);
    member.write(&ready);
    member.apply(&ready);
    member.node.advance().unwrap();
    assert!(!member.node.has_ready());

    member.lead(&[]);
    member.node.propose("x").unwrap();
    member.work();
    assert_eq!(member.machine().last().unwrap(), "x");
    assert!(!member.node.has_ready());
}

#[test]
fn a_node_that_has_seen_a_later_term_is_not_bootstrapped() {
    // Its log is empty, but it may have voted.
    for (term, want) in [(0, Ok(())), (1, Ok(())), (2, Err(Error::BootstrapNonempty))] {
        let storage = MemoryStorage::new();
        storage.set_hard_state(HardState { term: Term(term), ..HardState::default() });
        let mut member = Member::on(plain(1), storage);
        assert_eq!(member.node.bootstrap(&[Peer::new(1)]), want, "term {term}");
    }
}

#[test]
fn readies_from_bootstrap_to_a_committed_proposal() {
    let mut member = Member::on(plain(1), MemoryStorage::new());
    member.node.bootstrap(&[Peer::new(1)]).unwrap();
    let mut seen = vec![];
    for step in 0..3 {
        match step {
            0 => {}
            1 => member.node.campaign().unwrap(),
            _ => member.node.propose("foo").unwrap(),
        }
        while member.node.has_ready() {
            let ready = member.node.ready();
            seen.push(describe_ready(&ready, None));
            member.write(&ready);
            member.apply(&ready);
            member.node.advance().unwrap();
        }
    }
    let want = [
        "Ready MustSync=true:\n\
         HardState Term:1 Commit:1\n\
         Entries:\n1/1 EntryConfChange v1\n\
         CommittedEntries:\n1/1 EntryConfChange v1\n",
        "Ready MustSync=true:\n\
         Lead:0 State:StateCandidate\n\
         HardState Term:2 Vote:1 Commit:1\n",
        "Ready MustSync=true:\n\
         Lead:1 State:StateLeader\n\
         Entries:\n2/2 EntryNormal \"\"\n",
        "Ready MustSync=false:\n\
         HardState Term:2 Vote:1 Commit:2\n\
         CommittedEntries:\n2/2 EntryNormal \"\"\n",
        "Ready MustSync=true:\n\
         Entries:\n2/3 EntryNormal \"foo\"\n",
        "Ready MustSync=false:\n\
         HardState Term:2 Vote:1 Commit:3\n\
         CommittedEntries:\n2/3 EntryNormal \"foo\"\n",
    ];
    assert_eq!(seen, want);
}

#[test]
fn one_tick_moves_the_clock_by_one() {
    let mut member = Member::new(plain(1), &[1, 2]);
    for elapsed in 1..10 {
        member.node.tick().unwrap();
        assert_eq!(member.node.election_elapsed(), elapsed);
    }
}

#[test]
fn several_bootstrapped_nodes_elect_one() {
    let peers = [1, 2, 3].map(Peer::new);
    let members = [1, 2, 3].map(|id| {
        let mut member = Member::on(plain(id), MemoryStorage::new());
        member.node.bootstrap(&peers).unwrap();
        member
    });
    let mut net = Net::of(members);
    net.settle();
    net.campaign(2);
    assert_eq!(net.leaders(), [2]);
    net.propose(3, "x").unwrap();
    assert_eq!(net.at(1).machine().last().unwrap(), "x");
}

/// A storage with this hard state, a snapshot at `start`, and entries of these terms after it.
fn stored(start: u64, terms: &[u64], hard_state: HardState) -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.apply_snapshot(snapshot(1, start, &[1, 2])).unwrap();
    storage.append(&crate::net::log_of(start + 1, terms)).unwrap();
    storage.set_hard_state(hard_state);
    storage
}

#[test]
fn a_restarted_node_hands_out_what_is_committed_and_nothing_else() {
    for (start, applied, want) in [(0, 0, 1..=2), (2, 0, 3..=4), (2, 3, 4..=4)] {
        let commit = Index(start + 2);
        let hard_state = HardState { term: Term(1), vote: NodeId(2), commit };
        let config = Config { applied: Index(applied), ..plain(1) };
        let mut member = Member::on(config, stored(start, &[1, 1, 1], hard_state));
        let ready = member.node.ready();
        let indexes: Vec<u64> = ready.committed_entries.iter().map(|entry| entry.index.0).collect();
        assert_eq!(indexes, want.collect::<Vec<_>>());
        assert_eq!(
            (ready.hard_state, ready.soft_state, ready.entries),
            (None, None, Entries::new())
        );
        assert!(!ready.must_sync);
        member.node.advance().unwrap();
        assert!(!member.node.has_ready());
        assert_eq!(member.node.basic_status().hard_state, hard_state, "the vote is kept");
    }
}

#[test]
fn a_damaged_storage_is_an_error_when_the_node_is_built() {
    let hard = |commit| HardState { term: Term(1), vote: NodeId(0), commit: Index(commit) };
    for (storage, applied, what) in [
        (stored(2, &[1], hard(9)), 0, "a commit index beyond the log"),
        (stored(2, &[1], hard(1)), 0, "a commit index before it"),
        (stored(2, &[1], hard(3)), 9, "more applied than committed"),
        (stored(2, &[1], hard(3)), 1, "less applied than compacted"),
    ] {
        let config = Config { applied: Index(applied), ..plain(1) };
        let built = RawNode::new(config, storage);
        assert!(matches!(built, Err(Error::Fatal(_))), "{what}");
    }
    let bad = Config { heartbeat_tick: 0, ..plain(1) };
    assert!(matches!(RawNode::new(bad, MemoryStorage::new()), Err(Error::Config(_))));
}

#[test]
fn computing_work_changes_nothing_and_what_comes_later_is_kept() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.lead(&[2]);
    member.hear(2, 1, ack(1));
    member.work();
    member.node.propose("a").unwrap();
    let computed = member.node.ready_without_accept();
    assert_eq!(computed, member.node.ready_without_accept());
    assert_eq!(computed.messages.len(), 1, "to node 2; node 3 was never heard from");
    member.node.accept_ready(&computed).unwrap();
    assert!(member.node.ready_without_accept().messages.is_empty());
    member.write(&computed);
    // Said before the first is advanced.
    member.node.read_index("r");
    member.node.advance().unwrap();
    assert!(!member.node.ready().messages.is_empty());
}

#[test]
fn misuse_makes_the_node_unusable() {
    type Fail = fn(&mut Member);
    let fail: [(&str, Fail); 3] = [
        ("a second Ready before advance", |member| {
            member.node.ready();
            member.node.ready();
        }),
        ("a stale Ready", |member| {
            let ready = member.node.ready_without_accept();
            member.node.propose("more").unwrap();
            assert!(matches!(member.node.accept_ready(&ready), Err(Error::Fatal(_))));
        }),
        ("more applied than committed", |member| {
            let entries = vec![Entry { index: Index(99), ..Entry::default() }];
            let body = Body::StorageApplyReply { entries: entries.into() };
            let from = LOCAL_APPLY_THREAD;
            let done = Message { to: NodeId(1), from, term: Term(0), body };
            assert!(matches!(member.node.step(done), Err(Error::Fatal(_))));
        }),
    ];
    for (what, fail) in fail {
        let mut member = Member::new(plain(1), &[1]);
        member.lead(&[]);
        member.node.propose("x").unwrap();
        fail(&mut member);
        assert!(member.node.fatal().is_some(), "{what}");
        assert!(!member.node.has_ready());
        assert_eq!(member.node.ready(), Ready::default());
        assert!(matches!(member.node.tick(), Err(Error::Fatal(_))));
        assert!(matches!(member.node.propose("y"), Err(Error::Fatal(_))));
        assert!(matches!(member.step(2, 9, heartbeat(0)), Err(Error::Fatal(_))));
        assert_eq!(member.node.term().0, 1, "it does nothing any more");
    }
}

#[test]
fn what_must_be_durable() {
    let state = |term, vote, commit| HardState {
        term: Term(term),
        vote: NodeId(vote),
        commit: Index(commit),
    };
    for (now, entries, want) in [
        (state(1, 1, 1), 0, false),
        (state(1, 1, 2), 0, false),
        (state(2, 1, 1), 0, true),
        (state(1, 2, 1), 0, true),
        (state(1, 1, 1), 1, true),
    ] {
        assert_eq!(must_sync(&now, &state(1, 1, 1), entries), want, "{now:?}, {entries} entries");
    }
}

#[test]
fn has_ready_agrees_with_ready() {
    let mut net = Net::with(&[1, 2, 3], |config| config.check_quorum = true);
    let check = |net: &mut Net| {
        for member in net.members.values_mut() {
            let is_empty =
                describe_ready(&member.node.ready_without_accept(), None) == "<empty Ready>";
            // Held messages to itself show only when they are accepted.
            assert!(member.node.has_ready() || is_empty);
            while member.node.has_ready() {
                net.under_way.extend(member.turn());
            }
            assert_eq!(member.node.ready_without_accept(), Ready::default());
        }
    };
    check(&mut net);
    net.node(1).campaign().unwrap();
    check(&mut net);
    net.settle();
    net.node(1).propose("x").unwrap();
    net.node(2).read_index("r");
    net.node(3).tick().unwrap();
    check(&mut net);
    net.settle();
    check(&mut net);
}

#[test]
fn a_ready_takes_the_memory_of_an_earlier_one_and_nothing_else() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.lead(&[2]);
    member.hear(2, 1, ack(1));
    member.work();
    let entry = Entry { data: Some("x".into()), ..Entry::default() };
    let mut ready = Ready {
        soft_state: Some(SoftState { lead: NodeId(9), role: Role::Candidate }),
        hard_state: Some(HardState { term: Term(9), vote: NodeId(9), commit: Index(9) }),
        read_states: vec![ReadState { index: Index(9), request_ctx: "r".into() }],
        entries: vec![entry.clone()].into(),
        snapshot: Some(snapshot(9, 9, &[9])),
        committed_entries: vec![entry].into(),
        messages: vec![Message::new(NodeId(9), Body::TimeoutNow)],
        must_sync: true,
        notes: vec![Note::ForgetRefused],
        lost_reads: vec!["l".into()],
    };
    member.node.ready_into(&mut ready);
    assert_eq!(ready, Ready::default());

    // While the group is idle, messages stand where those of the last round stood.
    let mut places = vec![];
    for _ in 0..4 {
        member.tick(1);
        member.node.ready_into(&mut ready);
        assert_eq!(ready.messages.len(), 2);
        places.push(ready.messages.as_ptr());
        member.node.advance().unwrap();
        assert!(!member.node.has_ready());
        for peer in [2, 3] {
            member.hear(peer, 1, Body::HeartbeatReply { context: Bytes::new() });
            member.hear(peer, 1, ack(1));
        }
        member.work();
    }
    assert!(places[1..].windows(2).all(|pair| pair[0] == pair[1]), "{places:?}");
}

#[test]
fn soft_state_shows_changes_between_two_readies() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.node.campaign().unwrap();
    let candidate = SoftState { lead: NodeId(0), role: Role::Candidate };
    assert_eq!(member.node.ready().soft_state, Some(candidate));
    member.node.advance().unwrap();
    member.hear(2, 1, heartbeat(0));
    let follower = SoftState { lead: NodeId(2), role: Role::Follower };
    assert_eq!(member.node.ready().soft_state, Some(follower));
    member.node.advance().unwrap();
    // There and back is no change.
    member.node.campaign().unwrap();
    member.hear(2, 2, heartbeat(0));
    assert_eq!(member.node.ready().soft_state, None);
}

#[test]
fn status_shows_peers_on_a_leader_only() {
    let mut member = Member::with_members(plain(1), &[1, 2], &[3], &[]);
    assert!(member.node.status().progress.is_empty());
    member.lead(&[2]);
    let status = member.node.status();
    assert_eq!(status.progress.len(), 3);
    assert_eq!(status.config.to_string(), "voters=(1 2) learners=(3)");
    assert_eq!(status.basic, member.node.basic_status());
    let mut seen = vec![];
    member.node.for_each_progress(|id, kind, progress| seen.push((id.0, kind, progress.next.0)));
    use quorate_raft::ReplicaKind::{Learner, Peer};
    assert_eq!(seen, [(1, Peer, 2), (2, Peer, 1), (3, Learner, 1)]);
}

#[test]
fn a_quiesced_tick_only_ages() {
    let mut member = Member::new(plain(1), &[1]);
    for _ in 0..100 {
        member.node.tick_quiesced();
    }
    assert_eq!((member.node.role(), member.node.election_elapsed()), (Role::Follower, 100));
    member.tick(1);
    assert_eq!(member.node.role(), Role::Candidate);
}

/// A storage that gives all it has, whatever size it is asked for.
#[derive(Clone)]
struct Generous(MemoryStorage);

impl Storage for Generous {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        self.0.initial_state()
    }
    fn entries(&self, lo: Index, hi: Index, _: u64) -> Result<Entries, StorageError> {
        self.0.entries(lo, hi, u64::MAX)
    }
    fn term(&self, index: Index) -> Result<Term, StorageError> {
        self.0.term(index)
    }
    fn last_index(&self) -> Result<Index, StorageError> {
        self.0.last_index()
    }
    fn first_index(&self) -> Result<Index, StorageError> {
        self.0.first_index()
    }
    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        self.0.snapshot()
    }
}

#[test]
fn a_storage_that_ignores_the_size_makes_nothing_skipped() {
    let commit = Index(10);
    let hard_state = HardState { term: Term(1), vote: NodeId(1), commit };
    let storage = stored(0, &[1; 11], hard_state);
    let config = Config { max_size_per_msg: 4, ..plain(1) };
    let mut node = RawNode::new(config, Generous(storage)).unwrap();
    let mut applied = vec![];
    while node.has_ready() {
        let ready = node.ready();
        applied.extend(ready.committed_entries.iter().map(|entry| entry.index.0));
        node.advance().unwrap();
        let append = append(id(1, 11), &[1], 11);
        let message = Message { to: NodeId(1), from: NodeId(2), term: Term(1), body: append };
        if applied.len() < 11 {
            node.step(message).unwrap();
        }
    }
    assert_eq!(applied, (1..=11).collect::<Vec<_>>());
}

// Asynchronous storage writes.

fn asynchronous(voters: &[u64]) -> Member {
    Member::new(Config { async_storage_writes: true, ..plain(1) }, voters)
}

/// Takes the work for the storage threads and the messages to others out of a Ready.
fn split(ready: Ready) -> (Option<Message>, Option<Message>, Vec<Message>) {
    let (mut write, mut apply, mut rest) = (None, None, vec![]);
    for message in ready.messages {
        match message.message_type() {
            MessageType::MsgStorageAppend => write = Some(message),
            MessageType::MsgStorageApply => apply = Some(message),
            _ => rest.push(message),
        }
    }
    (write, apply, rest)
}

/// Writes and gives what is to be delivered afterwards.
fn written(member: &Member, message: Message) -> Vec<Message> {
    assert_eq!(message.to, LOCAL_APPEND_THREAD);
    let Body::StorageAppend { hard_state, entries, snapshot, responses } = message.body else {
        panic!("{message:?}");
    };
    if let Some(hard_state) = hard_state {
        member.storage.set_hard_state(hard_state);
    }
    if let Some(snapshot) = snapshot {
        member.storage.apply_snapshot(*snapshot).unwrap();
    }
    member.storage.append(&entries).unwrap();
    responses
}

#[test]
fn what_vouches_for_a_write_comes_with_it() {
    let mut member = asynchronous(&[1, 2, 3]);
    member.hear(2, 1, append(id(0, 0), &[1, 1], 1));
    let (write, apply, rest) = split(member.node.ready());
    assert_eq!((apply, rest), (None, vec![]), "nothing goes before the write, nothing is applied");
    let responses = written(&member, write.unwrap());
    let kinds: Vec<MessageType> = responses.iter().map(Message::message_type).collect();
    assert_eq!(kinds, [MessageType::MsgAppResp, MessageType::MsgStorageAppendResp]);
    assert!(!member.node.has_ready(), "applying waits for the disk");

    for response in responses {
        if response.to == NodeId(1) {
            member.node.step(response).unwrap();
        }
    }
    let (_, apply, _) = split(member.node.ready());
    let Some(Body::StorageApply { entries, responses }) = apply.map(|message| message.body) else {
        panic!("nothing to apply");
    };
    assert_eq!(entries.len(), 1);
    assert_eq!(member.node.applied(), Index(0));
    for response in responses {
        member.node.step(response).unwrap();
    }
    assert_eq!(member.node.applied(), Index(1));
    assert!(matches!(member.node.advance(), Err(Error::Fatal(_))), "there is nothing to advance");
}

#[test]
fn an_acknowledgement_of_an_earlier_term_releases_nothing() {
    // Entries X are being written; another leader replaces them by Y; X comes back.
    let mut member = asynchronous(&[1, 2, 3]);
    member.hear(2, 1, append(id(0, 0), &[1], 0));
    let (first, ..) = split(member.node.ready());
    let first = written(&member, first.unwrap());
    member.hear(3, 2, append(id(0, 0), &[2], 0));
    let (second, ..) = split(member.node.ready());
    member.hear(2, 3, append(id(0, 0), &[1], 0));
    let (third, ..) = split(member.node.ready());

    // The first write is acknowledged: its entry is the one in memory, but the disk is about to
    // hold another.
    let deliver = |member: &mut Member, responses: Vec<Message>| {
        for response in responses.into_iter().filter(|response| response.to == NodeId(1)) {
            member.node.step(response).unwrap();
        }
    };
    deliver(&mut member, first);
    let second = written(&member, second.unwrap());
    assert_eq!(member.storage.term(Index(1)), Ok(Term(2)));
    assert_eq!(member.node.entry_term(Index(1)), Some(Term(1)), "what is in memory counts");
    deliver(&mut member, second);
    assert_eq!(member.node.entry_term(Index(1)), Some(Term(1)));
    let third = written(&member, third.unwrap());
    deliver(&mut member, third);
    assert_eq!(member.storage.term(Index(1)), Ok(Term(1)));
    assert_eq!(member.node.entry_term(Index(1)), Some(Term(1)));
}

#[test]
fn a_write_without_entries_acknowledges_what_is_under_way() {
    let mut member = asynchronous(&[1, 2, 3]);
    member.hear(2, 1, append(id(0, 0), &[1], 0));
    split(member.node.ready());
    // The term changes: the acknowledgement under way will not count.
    member.hear(3, 2, heartbeat(0));
    let (write, ..) = split(member.node.ready());
    let responses = written(&member, write.unwrap());
    let reply = responses.last().unwrap();
    assert_eq!(reply.term, Term(2));
    let body = Body::StorageAppendReply { stable: Some(id(1, 1)), snapshot: None };
    assert_eq!(reply.body, body);
}

#[test]
fn a_snapshots_acknowledgement_counts_whatever_the_term() {
    let mut member = asynchronous(&[1, 2, 3]);
    let snapshot = Box::new(snapshot(1, 5, &[1, 2, 3]));
    member.hear(2, 1, Body::Snapshot { snapshot });
    let (write, ..) = split(member.node.ready());
    let responses = written(&member, write.unwrap());
    member.hear(3, 4, heartbeat(0));
    for response in responses.into_iter().filter(|response| response.to == NodeId(1)) {
        member.node.step(response).unwrap();
    }
    assert_eq!(member.node.applied(), Index(5));
    assert!(member.node.is_promotable());
}

#[test]
fn back_pressure_spans_readies() {
    let config =
        Config { async_storage_writes: true, max_committed_size_per_ready: 2500, ..plain(1) };
    let mut member = Member::new(config, &[1, 2]);
    let big = |index: u64| Entry {
        term: Term(1),
        index: Index(index),
        kind: None,
        data: Some(vec![b'a'; 1000].into()),
    };
    let body =
        Body::Append { prev: id(0, 0), entries: (1..=4).map(big).collect(), commit: Index(4) };
    member.hear(2, 1, body);
    let (write, ..) = split(member.node.ready());
    for response in written(&member, write.unwrap()) {
        if response.to == NodeId(1) {
            member.node.step(response).unwrap();
        }
    }
    let (_, apply, _) = split(member.node.ready());
    let Some(Body::StorageApply { entries, responses }) = apply.map(|message| message.body) else {
        panic!("nothing to apply");
    };
    assert_eq!(entries.len(), 2);
    assert!(!member.node.has_ready(), "more only when these are applied");
    for response in responses {
        member.node.step(response).unwrap();
    }
    let (_, apply, _) = split(member.node.ready());
    assert!(apply.is_some());
}

#[test]
fn bytes_handed_out_count_until_they_are_applied() {
    let config =
        Config { async_storage_writes: true, max_committed_size_per_ready: 2500, ..plain(1) };
    let mut member = Member::new(config, &[1, 2]);
    let big = |index: u64| Entry {
        term: Term(1),
        index: Index(index),
        kind: None,
        data: Some(vec![b'a'; 1000].into()),
    };
    let mut applies = vec![];
    // The first is handed out alone, and nothing is left; then three more are committed.
    for (prev, new, want) in [(id(0, 0), 1..=1, &[1][..]), (id(1, 1), 2..=4, &[2])] {
        let commit = Index(*new.end());
        let entries = new.map(big).collect();
        member.hear(2, 1, Body::Append { prev, entries, commit });
        let (write, ..) = split(member.node.ready());
        for response in written(&member, write.unwrap()) {
            if response.to == NodeId(1) {
                member.node.step(response).unwrap();
            }
        }
        let (_, apply, _) = split(member.node.ready());
        let Some(Body::StorageApply { entries, responses }) = apply.map(|message| message.body)
        else {
            panic!("nothing to apply");
        };
        let indexes: Vec<_> = entries.iter().map(|entry| entry.index.0).collect();
        assert_eq!(indexes, want, "beside what is still being applied");
        applies.push(responses);
    }
    assert!(!member.node.has_ready(), "more only when some of these are applied");
    for response in applies.remove(0) {
        member.node.step(response).unwrap();
    }
    assert!(member.node.has_ready());
}

#[test]
fn an_empty_node_needs_no_membership_to_join() {
    let mut member = Member::on(plain(2), MemoryStorage::new());
    assert_eq!(member.node.conf_state(), ConfState::default());
    member.hear(1, 1, heartbeat(0));
    assert_eq!(member.node.leader(), Some(NodeId(1)));
}

#[test]
fn a_bootstrap_that_fails_has_changed_nothing() {
    for id in [NodeId::NONE, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD] {
        let mut member = Member::on(plain(1), MemoryStorage::new());
        let peers = [Peer::new(1), Peer::new(id)];
        assert_eq!(member.node.bootstrap(&peers), Err(Error::BootstrapPeer { id }));
        assert_eq!((member.node.term(), member.node.last_index()), (Term(0), Index(0)));
        assert_eq!(member.node.conf_state(), ConfState::default());
        assert!(!member.node.has_ready());
        assert_eq!(member.node.bootstrap(&[Peer::new(1)]), Ok(()));
    }
}

#[test]
fn a_storage_thread_asks_for_nothing_and_is_told_nothing() {
    let entries = vec![Entry { data: Some("x".into()), ..Entry::default() }];
    let bodies = [
        Body::Propose { entries: entries.clone() },
        Body::ReadIndex { entries },
        Body::TransferLeader,
        Body::ForgetLeader,
        ack(1),
        heartbeat(0),
    ];
    for from in [LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD] {
        for body in bodies.clone() {
            let mut member = Member::new(plain(1), &[1]);
            member.stand();
            member.node.take_notes();
            member.hear(from.0, 0, body.clone());
            assert!(!member.node.has_ready(), "{body:?}");
            assert_eq!(member.node.take_notes().len(), 1, "{body:?} is dropped");
        }
    }
}
