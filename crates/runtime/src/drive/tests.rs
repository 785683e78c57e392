use quorate_codec as codec;
use quorate_kv::{MemoryBackend, Store};
use quorate_net::NetConfig;
use quorate_raft::{Body, ConfState, Entry, HardState, Message as RaftMessage, SnapshotMetadata};
use quorate_replica::{Config, Initial};
use quorate_types::{EntryId, Index, Mark, Term};
use tempfile::TempDir;

use super::*;
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::snapshot;

/// A follower whose disk and machine are the test.
struct Rig {
    driver: Driver,
    disk: blocking::Receiver<disk::Work>,
    apply: blocking::Receiver<Work>,
    snap: TempDir,
}

impl Rig {
    fn new() -> Rig {
        Rig::with(members())
    }

    fn with(conf_state: ConfState) -> Rig {
        let (node, snap) = (NodeId(1), TempDir::new().unwrap());
        let store = Store::create(
            MemoryBackend::new(),
            quorate_kv::Initial {
                node,
                cluster_id: 7,
                applied: Index(1),
                term: Term(1),
                conf_state: codec::encode_conf_state_record(&conf_state),
                members: Vec::new(),
            },
        );
        let initial = Initial {
            mark: Mark { index: Index(1), stamp: 1, ..Mark::default() },
            hard_state: HardState { term: Term(1), commit: Index(1), vote: NodeId::NONE }.into(),
            applied: Index(1),
            conf_state,
            ..Initial::default()
        };
        let store = Arc::new(store.unwrap());
        let members = store.membership();
        let (net_sender, net_events) = mpsc::channel(16);
        let net = Net::start(NetConfig::new(7, node), Vec::new(), net_sender);
        let (disk_sender, disk) = blocking::channel();
        let (apply_sender, apply) = blocking::channel();
        let (done_sender, done) = mpsc::unbounded_channel();
        let progress = Arc::new(Progress::new(done_sender.clone()));
        let metrics = Arc::new(Metrics::default());
        let spawner = tokio::runtime::Handle::current();
        let driver = Driver {
            node,
            engine: Engine::Raft,
            peers: Peers::new(net.clone(), node, quorate_types::Life(1), 20),
            members,
            members_index: Index(1),
            replica: Replica::new(Config::new(node, 1), initial).unwrap(),
            tick: Duration::from_secs(1),
            ticked: Instant::now(),
            net,
            board: Arc::new(Board::new(node, 7, store, metrics, progress)),
            waiters: Arc::new(Waiters::new(10)),
            calls: mpsc::channel(1).1,
            net_events,
            written: mpsc::unbounded_channel().1,
            done,
            disk: disk_sender,
            apply: apply_sender,
            sender: Sender::default(),
            receiver: Receiver::new(7, snap.path().to_owned(), done_sender, spawner),
            writing: Writing::default(),
            reads: HashMap::new(),
            next_read: 0,
            heard: BTreeMap::new(),
            flushed: None,
        };
        Rig { driver, disk, apply, snap }
    }

    /// What the leader, node 2, says in its term.
    fn hear(&mut self, body: Body) {
        self.driver.on_event(Event::Message(said(body))).unwrap();
        self.driver.carry_out_all().unwrap();
    }

    /// The machine has applied everything up to there.
    fn applied(&mut self, through: Index) {
        self.driver.board.progress.on_applied(through);
        self.driver.see_applied().unwrap();
    }

    fn writes(&mut self) -> Vec<quorate_wal::Write> {
        match self.disk.try_recv() {
            Ok(disk::Work::Write(writes)) => writes,
            Ok(other) => panic!("{other:?}"),
            Err(_) => Vec::new(),
        }
    }

    fn written(&mut self) {
        self.driver.on_written(Ok(())).unwrap();
        self.driver.carry_out_all().unwrap();
    }
}

fn members() -> ConfState {
    ConfState { voters: vec![NodeId(1), NodeId(2), NodeId(3)], ..ConfState::default() }
}

fn said(body: Body) -> Message {
    let message = RaftMessage::new(NodeId(1), body);
    Message::Raft(RaftMessage { from: NodeId(2), term: Term(2), ..message })
}

fn entry(index: u64) -> Entry {
    let data = Some(Bytes::from_static(b"x"));
    Entry { index: Index(index), term: Term(2), data, ..Entry::default() }
}

#[test]
fn a_snapshot_is_marked_then_installed_and_only_then_durable() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    runtime.unwrap().block_on(marked_then_installed());
}

async fn marked_then_installed() {
    let mut rig = Rig::new();
    let metadata = SnapshotMetadata { conf_state: members(), index: Index(9), term: Term(2) };
    let file = snapshot::path(rig.snap.path(), EntryId { term: Term(2), index: Index(9) });
    snapshot::create(&file).unwrap();
    let body = Body::Snapshot { snapshot: Box::new(snapshot::described(metadata)) };
    rig.driver.on_done(Done::SnapshotReceived(said(body), Box::new(|| ()))).unwrap();
    rig.driver.carry_out_all().unwrap();
    let writes = rig.writes();
    let mark = writes.last().and_then(|write| write.install.clone()).expect("the mark comes first");
    assert_eq!((mark.index, mark.stamp), (Index(9), 2));
    assert!(rig.apply.try_recv().is_err(), "the machine before the mark is durable");

    // What follows it waits until the machine has it.
    let prev = EntryId { term: Term(2), index: Index(9) };
    rig.hear(Body::Append { prev, entries: vec![entry(10)].into(), commit: Index(10) });
    assert!(rig.writes().is_empty(), "one group at a time");
    still_there(&file).await;
    rig.written();
    assert!(matches!(rig.apply.try_recv(), Ok(Work::Install { .. })));
    assert!(rig.writes().is_empty(), "behind a state that is not in place");
    assert_eq!(rig.driver.replica.status().applied, Index(1), "not before it is installed");
    still_there(&file).await;

    rig.driver.on_done(Done::Installed(Members::default())).unwrap();
    let standing = rig.driver.standing();
    assert_eq!(standing.membership_index, Index(9), "the list is that of the snapshot");
    assert!(standing.is_settled);
    rig.driver.carry_out_all().unwrap();
    let entries: Vec<_> = rig.writes().into_iter().flat_map(|write| write.entries).collect();
    assert_eq!(entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), [Index(10)]);
    assert_eq!(rig.driver.replica.status().applied, Index(9));
    removals_have_ended().await;
    assert!(!file.exists(), "it is of no use now");

    rig.written();
    match rig.apply.try_recv() {
        Ok(Work::Apply(applying)) => assert_eq!(applying[0].index(), Index(10)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_shares_a_group_with_a_snapshot_before_it() {
    let mut rig = Rig::new();
    // The disk is busy while the snapshot and what follows it come in.
    let prev = EntryId { term: Term(1), index: Index(1) };
    rig.hear(Body::Append { prev, entries: vec![entry(2)].into(), commit: Index(1) });
    assert!(!rig.writes().is_empty());
    let metadata = SnapshotMetadata { conf_state: members(), index: Index(9), term: Term(2) };
    let body = Body::Snapshot { snapshot: Box::new(snapshot::described(metadata)) };
    rig.driver.on_done(Done::SnapshotReceived(said(body), Box::new(|| ()))).unwrap();
    rig.driver.carry_out_all().unwrap();
    let prev = EntryId { term: Term(2), index: Index(9) };
    rig.hear(Body::Append { prev, entries: vec![entry(10)].into(), commit: Index(10) });
    assert_eq!(rig.driver.writing.queued_count(), 2);

    rig.written();
    let writes = rig.writes();
    assert!(writes.last().is_some_and(|write| write.install.is_some()), "{writes:?}");
    rig.written();
    assert!(matches!(rig.apply.try_recv(), Ok(Work::Install { .. })));
    rig.driver.on_done(Done::Installed(Members::default())).unwrap();
    let entries: Vec<_> = rig.writes().into_iter().flat_map(|write| write.entries).collect();
    assert_eq!(entries.len(), 1);
}

async fn still_there(file: &std::path::Path) {
    removals_have_ended().await;
    assert!(file.exists(), "the state that the mark stands for is gone");
}

/// There is one blocking thread: what was asked of it before has ended.
async fn removals_have_ended() {
    tokio::task::spawn_blocking(|| ()).await.unwrap();
}

#[tokio::test]
async fn nothing_is_vouched_for_before_the_disk_has_it() {
    let mut rig = Rig::new();
    let prev = EntryId { term: Term(1), index: Index(1) };
    rig.hear(Body::Append { prev, entries: vec![entry(2)].into(), commit: Index(2) });
    assert!(!rig.writes().is_empty());
    assert_eq!(rig.driver.replica.status().writes_count, 1);
    assert!(rig.apply.try_recv().is_err(), "committed, and not in the own log yet");
    let prev = EntryId { term: Term(2), index: Index(2) };
    rig.hear(Body::Append { prev, entries: vec![entry(3)].into(), commit: Index(3) });
    assert!(rig.writes().is_empty(), "one group at a time");
    rig.written();
    let writes = rig.writes();
    let entries: Vec<_> = writes.into_iter().flat_map(|write| write.entries).collect();
    assert_eq!(entries.last().map(|entry| entry.index), Some(Index(3)));
    match rig.apply.try_recv() {
        Ok(Work::Apply(applying)) => assert_eq!(applying.last().unwrap().index(), Index(2)),
        other => panic!("{other:?}"),
    }
    assert!(
        rig.driver
            .on_written(Err(quorate_wal::WalError::Poisoned { cause: String::new() }))
            .is_err()
    );
}

/// Makes all that the rig has to write durable, and has the machine apply it, if it does.
fn settle(rig: &mut Rig, applies: bool) {
    rig.driver.carry_out_all().unwrap();
    while !rig.writes().is_empty() {
        rig.written();
        rig.driver.carry_out_all().unwrap();
    }
    while applies && let Ok(work) = rig.apply.try_recv() {
        if let Work::Apply(entries) = work {
            let through = entries.last().unwrap().index();
            let is_change =
                |entry: &replica::Applying| matches!(entry, replica::Applying::Membership { .. });
            if entries.iter().any(is_change) {
                let members = rig.driver.members.clone();
                rig.driver.on_done(Done::Members { through, members }).unwrap();
            }
            rig.applied(through);
        }
        rig.driver.carry_out_all().unwrap();
    }
}

#[tokio::test]
async fn changes_are_judged_by_who_leads_and_knows_all_before_them() {
    let ask = |rig: &mut Rig, number: u64, applies: bool| {
        let request = RequestId(number);
        let mut answer = rig.driver.waiters.wait(request).unwrap();
        let add = move |standing: &Standing| {
            assert_eq!(standing.leader, NodeId(1));
            assert!(standing.matched.contains_key(&NodeId(1)));
            match number {
                0 => Err(quorate_kv::KvError::Unhealthy),
                _ => Ok(MemberChange::Add(quorate_kv::Member {
                    id: number,
                    is_learner: true,
                    ..quorate_kv::Member::default()
                })),
            }
        };
        rig.driver.on_call(Call::Change { request, judge: Arc::new(add) }).unwrap();
        settle(rig, applies);
        answer.try_recv().ok()
    };
    let change = |answer: &Option<Answer>| matches!(answer, Some(Answer::Refused(Refusal::Change)));
    let mut follower = Rig::new();
    let answer = ask(&mut follower, 7, true);
    assert!(matches!(answer, Some(Answer::NotLeader)), "{answer:?}");

    let mut rig = Rig::with(ConfState { voters: vec![NodeId(1)], ..ConfState::default() });
    settle(&mut rig, false);
    assert_eq!(rig.driver.replica.glance().role, Role::Leader);
    let answer = ask(&mut rig, 7, false);
    assert!(change(&answer), "before its own first entry is applied: {answer:?}");
    settle(&mut rig, true);
    let answer = ask(&mut rig, 0, true);
    let unhealthy = quorate_kv::KvError::Unhealthy;
    assert!(
        matches!(&answer, Some(Answer::Applied(Err(error))) if *error == unhealthy),
        "{answer:?}"
    );
    let answer = ask(&mut rig, 8, false);
    assert!(answer.is_none(), "the machine answers: {answer:?}");
    // The engine goes by it already, and the list is that of before: so is its index.
    let standing = rig.driver.standing();
    assert!(standing.membership_index < rig.driver.replica.membership_index());
    assert!(!standing.is_settled && standing.members.is_empty());
    let answer = ask(&mut rig, 9, false);
    assert!(change(&answer), "before the one before it is applied: {answer:?}");
    settle(&mut rig, true);
    assert_eq!(rig.driver.replica.status().conf_state.learners, [NodeId(8)]);
    let standing = rig.driver.standing();
    assert!(standing.is_settled);
    assert!(rig.driver.replica.membership_index() <= standing.membership_index);
    let answer = ask(&mut rig, 10, true);
    assert!(answer.is_none(), "{answer:?}");
    assert_eq!(rig.driver.replica.status().conf_state.learners, [NodeId(8), NodeId(10)]);
}

/// The members with these ids, as a machine has them.
fn known(ids: &[u64]) -> Members {
    let member = |id: &u64| quorate_kv::Member { id: *id, ..quorate_kv::Member::default() };
    let initial = quorate_kv::Initial {
        node: NodeId(1),
        cluster_id: 7,
        members: ids.iter().map(member).collect(),
        ..quorate_kv::Initial::default()
    };
    Store::create(MemoryBackend::new(), initial).unwrap().membership()
}

#[tokio::test]
async fn only_of_members_is_it_kept_when_they_were_heard() {
    let mut rig = Rig::new();
    let heartbeat = |from: u64| {
        let body = Body::Heartbeat { commit: Index(1), context: Bytes::new() };
        let message = RaftMessage::new(NodeId(1), body);
        let message = RaftMessage { from: NodeId(from), term: Term(2), ..message };
        NetEvent::Message {
            from: NodeId(from),
            payload: Message::Raft(message).encode().concat().into(),
        }
    };
    let heard = |rig: &Rig| rig.driver.heard.keys().map(|id| id.0).collect::<Vec<_>>();
    let through = Index(1);
    rig.driver.on_done(Done::Members { through, members: known(&[1, 2, 3]) }).unwrap();
    for from in [2, 3, 4] {
        rig.driver.on_net(heartbeat(from)).unwrap();
    }
    assert_eq!(heard(&rig), [2, 3], "4 is a stranger, and there may be any number of them");
    rig.driver.on_done(Done::Members { through, members: known(&[1, 2]) }).unwrap();
    assert_eq!(heard(&rig), [2]);
    let listed: Vec<_> = rig.driver.standing().members.iter().map(|member| member.id).collect();
    assert_eq!(listed, [1, 2]);
}

#[tokio::test]
async fn a_flush_ahead_of_what_is_applied_counts_when_that_is() {
    let mut rig = Rig::new();
    let prev = EntryId { term: Term(1), index: Index(1) };
    rig.hear(Body::Append { prev, entries: vec![entry(2), entry(3)].into(), commit: Index(3) });
    assert!(!rig.writes().is_empty());
    rig.written();
    assert!(matches!(rig.apply.try_recv(), Ok(Work::Apply(_))));
    rig.driver.on_done(Done::Flushed(Index(3))).unwrap();
    assert_eq!(rig.driver.replica.glance().applied, Index(1), "the members are those as of 1");
    rig.applied(Index(2));
    assert_eq!(
        (rig.driver.replica.glance().applied, rig.driver.flushed),
        (Index(2), Some(Index(3)))
    );
    rig.applied(Index(3));
    assert_eq!((rig.driver.replica.glance().applied, rig.driver.flushed), (Index(3), None));
}

#[tokio::test]
async fn who_says_that_this_log_is_not_ours_says_so_until_it_takes_a_connection() {
    let refused = |peer| NetEvent::Refused {
        peer: Some(NodeId(peer)),
        address: None,
        by: RefusedBy::Peer,
        reason: quorate_net::Refusal::OtherLife,
        suppressed: 0,
    };
    let connected = |inbound| NetEvent::Connected { peer: NodeId(2), incarnation: 1, inbound };
    for (inbound, stops) in [(true, true), (false, false)] {
        let mut rig = Rig::new();
        let own = quorate_kv::Member {
            id: 1,
            life: quorate_types::Life(1),
            ..quorate_kv::Member::default()
        };
        let others = [2, 3].map(|id| quorate_kv::Member { id, ..quorate_kv::Member::default() });
        let initial = quorate_kv::Initial {
            node: NodeId(1),
            cluster_id: 7,
            members: [own].into_iter().chain(others).collect(),
            ..quorate_kv::Initial::default()
        };
        rig.driver.members = Store::create(MemoryBackend::new(), initial).unwrap().membership();
        rig.driver.on_net(refused(2)).unwrap();
        rig.driver.on_net(connected(inbound)).unwrap();
        let outcome = rig.driver.on_net(refused(3));
        assert_eq!(outcome.is_err(), stops, "that the peer dials shows nothing: {inbound}");
    }
}
