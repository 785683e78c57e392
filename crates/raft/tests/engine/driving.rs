//! Both ways of driving a node: what must be on disk before what, and storage that fails.

use std::cell::Cell;
use std::rc::Rc;

use quorate_raft::{
    Body, Config, Entries, Error, Fatal, HardState, InitialState, LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD, MemoryStorage, Message, MessageType, RawNode, Role, Snapshot, Storage,
    StorageError,
};
use quorate_types::{Index, NodeId, Term};

use crate::net::{Member, ack, append, heartbeat, id, plain, pre_vote, snapshot, vote};

fn asynchronous(voters: &[u64]) -> Member {
    Member::new(Config { async_storage_writes: true, ..plain(1) }, voters)
}

/// The work that a Ready has for this thread.
fn work_for(member: &mut Member, thread: NodeId) -> Option<Body> {
    let ready = member.node.ready();
    ready.messages.into_iter().find(|message| message.to == thread).map(|message| message.body)
}

#[test]
fn every_vote_waits_for_the_disk() {
    for (term, last, granted) in [(1, id(0, 0), true), (1, id(0, 0), false), (2, id(9, 9), true)] {
        let mut member = asynchronous(&[1, 2, 3]);
        if !granted {
            member.hear(3, 1, heartbeat(0));
            member.node.ready();
        }
        for body in [vote(last), pre_vote(last)] {
            let pre = matches!(body, Body::PreVote { .. });
            member.hear(2, term, body);
            let ready = member.node.ready();
            assert_eq!(ready.messages.len(), 1, "only work for the disk");
            assert_eq!(ready.messages[0].to, LOCAL_APPEND_THREAD);
            let Body::StorageAppend { responses, .. } = &ready.messages[0].body else {
                panic!("{ready:?}");
            };
            let body = match pre {
                true => Body::PreVoteReply { reject: !granted },
                false => Body::VoteReply { reject: !granted },
            };
            assert_eq!(responses[0].body, body);
            assert_eq!(responses[0].to, NodeId(2));
        }
    }
}

#[test]
fn a_quorum_of_others_makes_no_leader_before_the_own_vote_is_stored() {
    let careful = Config { lead_after_own_vote: true, async_storage_writes: true, ..plain(1) };
    let mut member = Member::new(careful, &[1, 2, 3]);
    member.node.campaign().unwrap();
    let Some(Body::StorageAppend { responses, .. }) = work_for(&mut member, LOCAL_APPEND_THREAD)
    else {
        panic!("nothing to write");
    };
    for other in [2, 3] {
        member.hear(other, 1, Body::VoteReply { reject: false });
    }
    assert_eq!(member.node.role(), Role::Candidate, "a crash now would undo its vote");
    for response in responses {
        member.node.step(response).unwrap();
    }
    assert_eq!(member.node.role(), Role::Leader);
}

#[test]
fn by_default_a_quorum_of_others_makes_a_leader_as_in_etcd() {
    let mut member = asynchronous(&[1, 2, 3]);
    member.node.campaign().unwrap();
    for other in [2, 3] {
        member.hear(other, 1, Body::VoteReply { reject: false });
    }
    assert_eq!(member.node.role(), Role::Leader);
}

#[test]
fn a_candidates_own_vote_and_a_leaders_own_copy_come_back_from_the_disk() {
    let mut member = asynchronous(&[1]);
    let deliver = |member: &mut Member| {
        let Some(Body::StorageAppend { hard_state, entries, responses, .. }) =
            work_for(member, LOCAL_APPEND_THREAD)
        else {
            panic!("nothing to write");
        };
        if let Some(hard_state) = hard_state {
            member.storage.set_hard_state(hard_state);
        }
        member.storage.append(&entries).unwrap();
        let kinds: Vec<MessageType> = responses.iter().map(Message::message_type).collect();
        for response in responses {
            member.node.step(response).unwrap();
        }
        kinds
    };
    member.node.campaign().unwrap();
    assert_eq!(deliver(&mut member), [MessageType::MsgVoteResp]);
    assert_eq!(member.node.role(), Role::Leader);
    assert_eq!(member.node.committed(), Index(0));
    // First its own copy counts, then the entries leave memory.
    let kinds = deliver(&mut member);
    assert_eq!(kinds, [MessageType::MsgAppResp, MessageType::MsgStorageAppendResp]);
    assert_eq!(member.node.committed(), Index(1));
    // That the commit index moved needs no answer, and so no sync.
    let ready = member.node.ready();
    assert!(!ready.must_sync);
    let hard_state = HardState { term: Term(1), vote: NodeId(1), commit: Index(1) };
    let [write, apply] = &ready.messages[..] else { panic!("{ready:?}") };
    assert_eq!(
        write.body,
        Body::StorageAppend {
            hard_state: Some(hard_state),
            entries: Entries::new(),
            snapshot: None,
            responses: vec![]
        }
    );
    assert_eq!((write.term, apply.to, apply.term), (Term(1), LOCAL_APPLY_THREAD, Term(0)));
}

#[test]
fn a_write_without_a_new_hard_state_carries_no_part_of_it() {
    let mut member = asynchronous(&[1, 2]);
    member.hear(2, 1, append(id(0, 0), &[1], 0));
    let first = member.node.ready();
    assert_eq!(first.messages[0].term, Term(1), "with the term that is new");
    member.hear(2, 1, append(id(1, 1), &[1], 0));
    let second = member.node.ready();
    let Body::StorageAppend { hard_state, entries, .. } = &second.messages[0].body else {
        panic!("{second:?}");
    };
    assert_eq!((second.messages[0].term, *hard_state, entries.len()), (Term(0), None, 1));
}

#[test]
fn nothing_in_a_ready_is_for_the_node_itself() {
    for asynchronous in [false, true] {
        let config = Config { async_storage_writes: asynchronous, ..plain(1) };
        let mut member = Member::new(config, &[1, 2]);
        let mut check = |act: &dyn Fn(&mut Member)| {
            act(&mut member);
            let ready = member.node.ready();
            assert!(ready.messages.iter().all(|message| message.to != NodeId(1)), "{ready:?}");
            member.write(&ready);
            if asynchronous {
                for message in ready.messages {
                    if let Body::StorageAppend { responses, .. } = message.body {
                        for own in responses.into_iter().filter(|own| own.to == NodeId(1)) {
                            member.node.step(own).unwrap();
                        }
                    }
                }
            } else {
                member.node.advance().unwrap();
            }
        };
        check(&|member| member.node.campaign().unwrap());
        check(&|member| member.hear(2, 1, Body::VoteReply { reject: false }));
        check(&|member| member.node.propose("x").unwrap());
        check(&|member| member.hear(2, 1, ack(2)));
    }
}

#[test]
fn a_leader_sends_before_its_own_disk_has_it_a_follower_does_not() {
    let mut leader = asynchronous(&[1, 2]);
    leader.node.campaign().unwrap();
    let work = work_for(&mut leader, LOCAL_APPEND_THREAD);
    let Some(Body::StorageAppend { hard_state, responses, .. }) = work else { panic!("{work:?}") };
    leader.storage.set_hard_state(hard_state.unwrap());
    for response in responses {
        leader.node.step(response).unwrap();
    }
    leader.hear(2, 1, Body::VoteReply { reject: false });
    let ready = leader.node.ready();
    let to: Vec<NodeId> = ready.messages.iter().map(|message| message.to).collect();
    assert_eq!(to, [NodeId(2), LOCAL_APPEND_THREAD], "the append goes beside the write");

    let mut follower = asynchronous(&[1, 2]);
    follower.hear(2, 1, append(id(0, 0), &[1], 0));
    let to: Vec<NodeId> = follower.node.ready().messages.iter().map(|message| message.to).collect();
    assert_eq!(to, [LOCAL_APPEND_THREAD]);
}

#[test]
fn appends_carry_the_commit_index_as_it_is_heartbeats_what_matches() {
    let config = Config { max_size_per_msg: 0, ..plain(1) };
    let mut member = Member::new(config, &[1, 2, 3]);
    member.lead(&[2]);
    for data in ["a", "b", "c"] {
        member.node.propose(data).unwrap();
    }
    member.work();
    for index in 1..=4 {
        member.hear(2, 1, ack(index));
    }
    member.work();
    assert_eq!(member.node.committed(), Index(4));
    // Node 3 has nothing, and gets one entry.
    member.hear(3, 1, Body::HeartbeatReply { context: "".into() });
    let entry = "1/1 EntryNormal \"\"";
    assert_eq!(member.said(), [format!("1->3 MsgApp Term:1 Log:0/0 Commit:4 Entries:[{entry}]")]);
    member.tick(1);
    let heartbeats =
        ["1->2 MsgHeartbeat Term:1 Log:0/0 Commit:4", "1->3 MsgHeartbeat Term:1 Log:0/0"];
    assert_eq!(member.said(), heartbeats);
}

/// A storage that fails when it is told to.
#[derive(Clone)]
struct Failing(MemoryStorage, Rc<Cell<Option<&'static str>>>);

impl Failing {
    fn check(&self, what: &str) -> Result<(), StorageError> {
        match self.1.get() {
            Some(failing) if failing == what => Err(StorageError::Other(format!("no {what}"))),
            _ => Ok(()),
        }
    }
}

impl Storage for Failing {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        self.check("state").and_then(|()| self.0.initial_state())
    }
    fn entries(&self, lo: Index, hi: Index, max: u64) -> Result<Entries, StorageError> {
        self.check("entries").and_then(|()| self.0.entries(lo, hi, max))
    }
    fn term(&self, index: Index) -> Result<Term, StorageError> {
        self.check("term").and_then(|()| self.0.term(index))
    }
    fn last_index(&self) -> Result<Index, StorageError> {
        self.check("last").and_then(|()| self.0.last_index())
    }
    fn first_index(&self) -> Result<Index, StorageError> {
        self.check("first").and_then(|()| self.0.first_index())
    }
    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        self.check("snapshot").and_then(|()| self.0.snapshot())
    }
}

fn stored(voters: &[u64]) -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.apply_snapshot(snapshot(1, 5, voters)).unwrap();
    storage.append(&crate::net::log_of(6, &[1, 1])).unwrap();
    let hard_state = HardState { term: Term(1), vote: NodeId(0), commit: Index(5) };
    storage.set_hard_state(hard_state);
    storage
}

#[test]
fn a_storage_that_fails_at_the_start_makes_no_node() {
    for what in ["state", "last", "first"] {
        let storage = Failing(stored(&[1, 2]), Rc::new(Cell::new(Some(what))));
        let error = RawNode::new(plain(1), storage).err();
        assert!(matches!(error, Some(Error::Fatal(_) | Error::Storage(_))), "{what}: {error:?}");
    }
    let twice = RawNode::new(plain(1), stored(&[1, 1]));
    assert!(matches!(twice, Err(Error::Fatal(Fatal::Change(_)))), "a voter listed twice");
}

#[test]
fn a_storage_that_fails_later_ends_the_node() {
    type Act = fn(&mut RawNode<Failing>) -> Result<(), Error>;
    let hear = |node: &mut RawNode<Failing>, body| {
        node.step(Message { to: NodeId(1), from: NodeId(2), term: Term(1), body })
    };
    let acts: [(&str, Act); 3] = [
        ("term", |node| node.campaign()),
        ("entries", |node| {
            // What becomes committed is to be read.
            let body = Body::Heartbeat { commit: Index(7), context: "".into() };
            node.step(Message { to: NodeId(1), from: NodeId(2), term: Term(1), body })?;
            node.ready();
            node.fatal().map_or(Ok(()), |fatal| Err(fatal.clone().into()))
        }),
        ("term", |node| {
            let body = append(id(1, 7), &[1], 5);
            node.step(Message { to: NodeId(1), from: NodeId(2), term: Term(1), body })
        }),
    ];
    for (what, act) in acts {
        let failing = Rc::new(Cell::new(None));
        let storage = Failing(stored(&[1, 2]), Rc::clone(&failing));
        let mut node = RawNode::new(plain(1), storage).unwrap();
        failing.set(Some(what));
        let want = Fatal::Storage(StorageError::Other(format!("no {what}")));
        assert_eq!(act(&mut node), Err(Error::Fatal(want.clone())), "{what}");
        // Even if it works again: nobody knows what was lost meanwhile.
        failing.set(None);
        assert_eq!(hear(&mut node, heartbeat(5)), Err(Error::Fatal(want)));
        assert!(node.tick().is_err() && node.campaign().is_err() && !node.has_ready());
    }
}

#[test]
fn a_storage_without_a_snapshot_to_send_ends_the_node() {
    // What node 2 needs is compacted, and there is no snapshot that holds it.
    let storage = stored(&[1, 2]);
    let failing = Rc::new(Cell::new(None));
    let mut node = RawNode::new(plain(1), Failing(storage.clone(), Rc::clone(&failing))).unwrap();
    node.campaign().unwrap();
    let hear = |node: &mut RawNode<Failing>, body| {
        node.step(Message { to: NodeId(1), from: NodeId(2), term: Term(2), body })
    };
    let ready = node.ready();
    storage.set_hard_state(ready.hard_state.unwrap());
    node.advance().unwrap();
    hear(&mut node, Body::VoteReply { reject: false }).unwrap();
    assert!(node.is_leader());
    failing.set(Some("snapshot"));
    let refusal = Body::AppendRefusal { index: Index(7), hint: id(0, 0) };
    assert!(matches!(hear(&mut node, refusal), Err(Error::Fatal(Fatal::Storage(_)))));

    // The same with a log that was compacted although no snapshot was ever made.
    let mut member = Member::new(plain(1), &[1, 2]);
    member.lead(&[2]);
    member.hear(2, 1, ack(1));
    member.work();
    member.storage.compact(Index(1)).unwrap();
    // A new member is probed at once, and needs what is gone.
    let added = member.node.apply_conf_change(&crate::net::changes("v3"));
    assert_eq!(added, Err(Error::Fatal(Fatal::EmptySnapshot)));
}
