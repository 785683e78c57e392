//! Heartbeats, and how much a leader sends to a peer at once.

use quorate_raft::{Body, Config, Entry, Error, LOCAL_APPEND_THREAD, Message, ProgressState, Role};
use quorate_types::{Index, NodeId};

use crate::net::{Member, Net, ack, append, heard, heartbeat, id, plain};

/// A leader of term 1 of a group of three, whose peer 2 is in this state with the leader's first
/// entry, and who has no more to say.
fn leader(config: Config, state: ProgressState) -> Member {
    let mut member = Member::new(config, &[1, 2, 3]);
    member.lead(&[3]);
    member.hear(2, 1, ack(1));
    member.work();
    match state {
        ProgressState::Replicate => {}
        ProgressState::Probe => member.node.report_unreachable(NodeId(2)),
        ProgressState::Snapshot => panic!("that takes a snapshot"),
    }
    assert_eq!(member.progress(2).state, state);
    member
}

/// How many entries each append to node 2 holds.
fn sizes(sent: &[Message]) -> Vec<usize> {
    let to_two = sent.iter().filter(|message| message.to == NodeId(2));
    to_two
        .filter_map(|message| match &message.body {
            Body::Append { entries, .. } => Some(entries.len()),
            _ => None,
        })
        .collect()
}

#[test]
fn heartbeats_go_to_all_and_carry_what_each_matches_at_most() {
    let mut member = Member::with_members(plain(1), &[1, 2, 3], &[4], &[]);
    member.lead(&[2]);
    member.work();
    member.node.propose("x").unwrap();
    member.work();
    member.hear(2, 1, ack(2));
    member.work();
    assert_eq!(member.node.committed(), Index(2));
    member.tick(1);
    assert_eq!(
        member.said(),
        [
            "1->2 MsgHeartbeat Term:1 Log:0/0 Commit:2",
            "1->3 MsgHeartbeat Term:1 Log:0/0",
            "1->4 MsgHeartbeat Term:1 Log:0/0",
        ]
    );
    // Between two ticks of the heartbeat nothing is said.
    let mut slow = Member::new(Config { heartbeat_tick: 3, ..plain(1) }, &[1, 2]);
    slow.lead(&[2]);
    slow.work();
    slow.tick(2);
    assert!(slow.said().is_empty());
    for _ in 0..3 {
        slow.tick(1);
        assert_eq!(slow.said().len(), 1);
        slow.tick(2);
        assert!(slow.said().is_empty());
    }
}

#[test]
fn only_a_leader_has_a_pulse() {
    for (role, want) in
        [(Role::Follower, 0), (Role::PreCandidate, 0), (Role::Candidate, 0), (Role::Leader, 2)]
    {
        let mut member = Member::new(plain(1), &[1, 2, 3]);
        if role == Role::PreCandidate {
            member = Member::new(Config { pre_vote: true, ..plain(1) }, &[1, 2, 3]);
        }
        match role {
            Role::Follower => {}
            Role::PreCandidate | Role::Candidate => member.stand(),
            Role::Leader => member.lead(&[2]),
        }
        member.work();
        assert_eq!(member.node.role(), role);
        // Nobody but the node itself can say this.
        let from = LOCAL_APPEND_THREAD;
        let beat = Message { from, ..Message::new(NodeId(1), Body::Beat) };
        member.node.step(beat).unwrap();
        let said = member.said();
        assert_eq!(said.len(), want, "{role}: {said:?}");
        assert!(said.iter().all(|said| said.contains("MsgHeartbeat ")), "{role}: {said:?}");
    }
}

#[test]
fn a_follower_raises_its_commit_and_always_answers() {
    for (commit, want) in [(3, 3), (1, 2)] {
        let mut member = Member::with_log(plain(1), &[1, 2], &[1, 2, 3]);
        member.hear(2, 3, heartbeat(2));
        member.work();
        member.hear(2, 3, heartbeat(commit));
        assert_eq!(member.node.committed(), Index(want));
        assert_eq!(member.said(), ["1->2 MsgHeartbeatResp Term:3 Log:0/0"]);
    }
}

#[test]
fn each_heartbeat_answer_of_a_lagging_peer_brings_an_append() {
    let mut member = Member::with_log(plain(1), &[1, 2], &[1, 2]);
    member.lead(&[2]);
    member.work();
    for _ in 0..2 {
        member.hear(2, 3, heard());
        assert_eq!(sizes(&member.work()), [1]);
    }
    // Once it has everything there is nothing to repeat.
    member.hear(2, 3, ack(3));
    member.work();
    member.hear(2, 3, heard());
    assert!(member.work().is_empty());
}

#[test]
fn a_probed_peer_gets_one_append_until_it_is_heard_from() {
    let mut member = leader(plain(1), ProgressState::Probe);
    for round in 0..3 {
        for _ in 0..3 {
            member.node.propose("x").unwrap();
        }
        let want: &[usize] = if round == 0 { &[1] } else { &[] };
        assert_eq!(sizes(&member.work()), want, "round {round}");
        assert!(member.progress(2).msg_app_flow_paused);
        // Sending heartbeats does not lift the pause.
        member.tick(1);
        member.work();
        assert!(member.progress(2).msg_app_flow_paused);
    }
    // An answer does.
    member.hear(2, 1, heard());
    assert_eq!(sizes(&member.work()), [9]);
    assert_eq!(member.progress(2).next, Index(2), "which does not jump while it is probed");
}

#[test]
fn appends_to_a_replicating_peer_are_pipelined() {
    let mut member = leader(plain(1), ProgressState::Replicate);
    for _ in 0..4 {
        member.node.propose("x").unwrap();
    }
    assert_eq!(sizes(&member.work()), [1, 1, 1, 1]);
    assert_eq!((member.progress(2).matched, member.progress(2).next), (Index(1), Index(6)));
}

#[test]
fn a_proposal_of_many_entries_is_one_append() {
    let mut member = leader(plain(1), ProgressState::Replicate);
    let entries = (0..64).map(|_| Entry { data: Some("x".into()), ..Entry::default() }).collect();
    assert_eq!(member.node.propose_entries(entries), Ok(Some(id(1, 2))));
    assert_eq!(sizes(&member.work()), [64]);
}

#[test]
fn a_full_window_lets_nothing_out_until_it_moves() {
    let config = Config { max_inflight_msgs: 3, ..plain(1) };
    let mut member = leader(config, ProgressState::Replicate);
    for _ in 0..5 {
        member.node.propose("x").unwrap();
    }
    assert_eq!(sizes(&member.work()), [1, 1, 1]);
    assert!(member.progress(2).inflights.is_full());

    // An old acknowledgement frees nothing, a new one lets the rest out.
    member.hear(2, 1, ack(1));
    assert_eq!(sizes(&member.work()), [0; 0]);
    member.hear(2, 1, ack(2));
    assert_eq!(sizes(&member.work()), [2], "all that waited, in one append");
    member.node.propose("y").unwrap();
    assert_eq!(sizes(&member.work()), [0; 0]);
    member.hear(2, 1, ack(6));
    assert_eq!(sizes(&member.work()), [1], "with the commit index");
}

#[test]
fn with_a_full_window_each_heartbeat_answer_lets_one_empty_append_out() {
    let config = Config { max_inflight_msgs: 2, ..plain(1) };
    let mut member = leader(config, ProgressState::Replicate);
    for _ in 0..4 {
        member.node.propose("x").unwrap();
    }
    member.work();
    for _ in 0..3 {
        member.hear(2, 1, heard());
        assert_eq!(sizes(&member.work()), [0]);
        assert!(member.progress(2).is_paused(), "and no more than that");
    }
}

#[test]
fn windows_count_bytes_too() {
    let config = Config {
        max_inflight_msgs: 3,
        max_inflight_bytes: 9000,
        max_size_per_msg: 2048,
        ..plain(1)
    };
    let mut member = leader(config.clone(), ProgressState::Probe);
    // While it is probed, ten entries of 1,000 bytes gather.
    for _ in 0..10 {
        member.node.propose(vec![b'a'; 1000]).unwrap();
    }
    assert_eq!(sizes(&member.work()), [1]);
    member.hear(2, 1, ack(2));
    assert_eq!(sizes(&member.work()), [2, 2, 2], "three appends of two entries");
    member.hear(2, 1, ack(8));
    assert_eq!(sizes(&member.work()), [2, 1]);
    member.hear(2, 1, ack(11));
    member.work();

    // Large entries fill the window by bytes: 5,000 are out, another goes, a third does not.
    for _ in 0..3 {
        member.node.propose(vec![b'a'; 5000]).unwrap();
    }
    assert_eq!(sizes(&member.work()), [1, 1]);
    member.hear(2, 1, ack(12));
    assert_eq!(sizes(&member.work()), [1]);
}

#[test]
fn an_unreachable_peer_is_probed_from_where_it_matches() {
    let mut member = leader(plain(1), ProgressState::Replicate);
    for _ in 0..3 {
        member.node.propose("x").unwrap();
    }
    member.work();
    assert_eq!(member.progress(2).next, Index(5));
    member.node.report_unreachable(NodeId(2));
    let progress = member.progress(2);
    assert_eq!((progress.state, progress.next), (ProgressState::Probe, Index(2)));
    assert!(!member.node.has_ready(), "and nothing is sent for it");
}

#[test]
fn a_probed_peer_that_has_everything_returns_to_the_pipeline() {
    let mut member = leader(plain(1), ProgressState::Probe);
    member.hear(2, 1, heard());
    assert_eq!(sizes(&member.work()), [0], "an empty append asks");
    member.hear(2, 1, ack(1));
    assert_eq!(member.progress(2).state, ProgressState::Replicate);
}

#[test]
fn a_peer_that_lags_in_commit_only_is_told() {
    let mut net = Net::new(&[1, 2, 3]);
    net.campaign(1);
    net.isolate(3);
    net.propose(1, "x").unwrap();
    net.heal();
    net.tick(1, 1);
    assert_eq!(net.node(3).committed(), net.node(1).committed());
}

#[test]
fn a_commit_index_is_told_once() {
    // A window of one append, so that a commit can pass a peer by.
    for (window, first, second) in [(256, 2, 0), (1, 1, 1)] {
        let config = Config { max_inflight_msgs: window, ..plain(1) };
        let mut member = leader(config, ProgressState::Replicate);
        member.hear(3, 1, ack(1));
        member.work();
        member.node.propose("x").unwrap();
        member.work();
        // Node 2 makes it committed. Node 3 hears of that at once, unless its window is full.
        member.hear(2, 1, ack(2));
        let said = member.said();
        assert_eq!(said.len(), first, "{said:?}");
        assert_eq!(member.progress(2).inflight_commit, Index(2));
        // Its own acknowledgement makes up for it, and only then.
        member.hear(3, 1, ack(2));
        let said = member.said();
        assert_eq!(said.len(), second, "{said:?}");
        assert!(said.iter().all(|said| said == "1->3 MsgApp Term:1 Log:1/2 Commit:2"), "{said:?}");
        assert_eq!(member.progress(3).inflight_commit, Index(2));
    }
    // A heartbeat, which says less to a peer that is not known to match, takes it back.
    let mut member = leader(plain(1), ProgressState::Replicate);
    member.node.propose("x").unwrap();
    member.hear(2, 1, ack(2));
    member.work();
    member.hear(2, 1, ack(2));
    member.work();
    member.hear(3, 1, ack(1));
    member.work();
    assert_eq!((member.node.committed(), member.progress(3).inflight_commit), (Index(2), Index(2)));
    member.tick(1);
    let told = [2, 3].map(|peer| member.progress(peer).inflight_commit.0);
    assert_eq!(told, [2, 1]);
}

#[test]
fn a_refusal_in_the_pipeline_means_probing() {
    let mut member = leader(plain(1), ProgressState::Replicate);
    for _ in 0..3 {
        member.node.propose("x").unwrap();
    }
    member.work();
    assert_eq!(member.progress(2).next, Index(5));
    member.hear(2, 1, Body::AppendRefusal { index: Index(3), hint: id(1, 1) });
    let progress = member.progress(2);
    assert_eq!((progress.state, progress.next), (ProgressState::Probe, Index(2)));
    assert_eq!(sizes(&member.work()), [3]);
    assert_eq!(member.progress(2).inflights.count(), 0);
}

#[test]
fn a_leader_bounds_what_waits_for_a_quorum() {
    let entry = |size: usize| Entry { data: Some(vec![0; size].into()), ..Entry::default() };
    let config = Config { max_uncommitted_entries_size: 100, ..plain(1) };
    let mut member = leader(config, ProgressState::Replicate);
    let mut propose = |sizes: &[usize]| {
        let result = member.node.propose_entries(sizes.iter().map(|size| entry(*size)).collect());
        member.work();
        (result.is_ok(), member.node.uncommitted_size())
    };
    assert_eq!(propose(&[60]), (true, 60));
    assert_eq!(propose(&[41]), (false, 60));
    assert_eq!(propose(&[20, 21]), (false, 60), "all or none");
    assert_eq!(propose(&[0]), (true, 60), "what is empty always passes");
    assert_eq!(propose(&[40]), (true, 100));
    assert_eq!(propose(&[1]), (false, 100));

    // Only application makes room.
    let last = member.node.last_index().0;
    member.hear(2, 1, ack(last));
    assert_eq!(member.node.uncommitted_size(), 100);
    member.work();
    assert_eq!(member.node.uncommitted_size(), 0);

    // One of any size passes when nothing waits.
    let big = member.node.propose_entries(vec![entry(1000)]);
    assert!(big.is_ok());
    assert!(matches!(member.node.propose("x"), Err(Error::ProposalDropped(_))));
    // A refused proposal leaves no trace.
    assert_eq!(member.node.uncommitted_size(), 1000);
    assert_eq!(member.node.last_index().0, last + 1);
    // What is empty passes even when far too much waits.
    assert!(member.node.propose_entries(vec![entry(0), Entry::default()]).is_ok());
    assert_eq!(member.node.last_index().0, last + 3);
}

#[test]
fn a_leader_without_its_group_appends_no_more_than_its_limit() {
    const ENTRY_BYTES: usize = 10;
    const LIMIT: u64 = 16 * ENTRY_BYTES as u64;
    let config = Config { max_uncommitted_entries_size: LIMIT, ..plain(1) };
    let mut member = leader(config, ProgressState::Replicate);
    let first = member.node.last_index().0;
    let taken = (0..1024)
        .filter(|_| {
            let taken = member.node.propose(vec![b'a'; ENTRY_BYTES]).is_ok();
            member.work();
            taken
        })
        .count() as u64;
    assert_eq!((taken, member.node.last_index().0), (16, first + 16));
    assert_eq!(member.node.uncommitted_size(), LIMIT);

    // The group is back: what is committed counts until it is applied.
    member.hear(2, 1, ack(first + 16));
    assert_eq!((member.node.committed().0, member.node.uncommitted_size()), (first + 16, LIMIT));
    let ready = member.node.ready();
    assert_eq!((ready.committed_entries.len(), member.node.uncommitted_size()), (16, LIMIT));
    member.apply(&ready);
    member.node.advance().unwrap();
    assert_eq!(member.node.uncommitted_size(), 0);
    assert!(member.node.propose("more").is_ok());
}

#[test]
fn a_new_leadership_starts_its_count_at_zero() {
    let config = Config { max_uncommitted_entries_size: 10, ..plain(1) };
    let mut member = leader(config, ProgressState::Replicate);
    member.node.propose("123456789").unwrap();
    member.work();
    member.hear(2, 2, append(id(1, 1), &[], 1));
    member.work();
    member.lead(&[3]);
    assert_eq!(member.node.uncommitted_size(), 0);
    assert!(member.node.propose("0123456789").is_ok());
}

#[test]
fn committed_entries_come_in_pages() {
    let config = Config { max_committed_size_per_ready: 2048, ..plain(1) };
    let mut member = Member::new(config, &[1]);
    member.lead(&[]);
    member.work();
    for _ in 0..3 {
        member.node.propose(vec![b'a'; 1000]).unwrap();
    }
    let mut pages = vec![];
    while member.node.has_ready() {
        let before = member.applied.len();
        member.turn();
        pages.push(member.applied.len() - before);
    }
    assert_eq!(pages.iter().sum::<usize>(), 3);
    assert_eq!(pages.iter().max(), Some(&2), "{pages:?}");

    // A limit of zero, which etcd's library stumbles over, means one at a time.
    let mut member = Member::new(Config { max_size_per_msg: 0, ..plain(1) }, &[1]);
    member.lead(&[]);
    for _ in 0..3 {
        member.node.propose("x").unwrap();
    }
    member.work();
    assert_eq!(member.applied.len(), 4);
}

#[test]
fn after_a_refusal_the_window_opens_anew_if_that_is_wanted() {
    // Of nine entries the second was lost, so that every append after it is refused.
    let refusal = |index| Body::AppendRefusal { index: Index(index), hint: id(1, 1) };
    for (narrow, want) in [(false, [8, 1, 1, 5]), (true, [1, 2, 2, 1])] {
        let config = Config { narrow_on_refusal: narrow, max_size_per_msg: 0, ..plain(1) };
        let mut member = leader(config, ProgressState::Replicate);
        for _ in 0..9 {
            member.node.propose("x").unwrap();
        }
        assert_eq!(sizes(&member.work()), [1; 9], "a window is open at first");
        member.hear(2, 1, refusal(3));
        assert_eq!(sizes(&member.work()), [1], "a probe");
        member.hear(2, 1, refusal(4));
        assert_eq!(sizes(&member.work()), [0; 0], "which late refusals do not touch");
        let mut sent = vec![];
        member.hear(2, 1, ack(2));
        sent.push(sizes(&member.work()).len());
        for index in [3, 4] {
            member.hear(2, 1, ack(index));
            sent.push(sizes(&member.work()).len());
        }
        // The refusal of what was sent before the probe calls for it all again.
        member.hear(2, 1, refusal(5));
        assert_eq!(sizes(&member.work()), [1]);
        member.hear(2, 1, ack(5));
        sent.push(sizes(&member.work()).len());
        assert_eq!(sent, want, "narrowed: {narrow}");
    }
}
