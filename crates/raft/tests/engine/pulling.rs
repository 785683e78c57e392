//! Entries that a leader sends when its driver asks for them.

use quorate_raft::{Body, Config, MessageType, ProgressState};
use quorate_types::NodeId;

use crate::net::{Member, Net, ack, heard, id, plain, texts};

fn pulls(id: u64) -> Config {
    Config { pull_appends: true, ..plain(id) }
}

/// A leader of term 1 that pipelines to both others, who have its empty entry and know it committed.
fn leader(config: Config) -> Member {
    let mut member = Member::new(config, &[1, 2, 3]);
    member.lead(&[2]);
    for peer in [2, 3, 2, 3] {
        member.hear(peer, 1, ack(1));
        member.work();
    }
    member
}

fn propose(member: &mut Member, count: usize) {
    for _ in 0..count {
        member.node.propose("12345678").unwrap();
    }
}

#[test]
fn entries_wait_until_they_are_pulled() {
    let mut member = leader(pulls(1));
    propose(&mut member, 3);
    assert_eq!(member.said(), [""; 0]);
    assert_eq!(member.node.last_index().0, 4);

    assert_eq!(member.node.pull_append(NodeId(2), u64::MAX), Ok(3));
    let said = member.work();
    assert_eq!(said.len(), 1, "{:?}", texts(&said));
    let Body::Append { prev, entries, .. } = &said[0].body else { panic!("{said:?}") };
    assert_eq!((said[0].to, *prev, entries.len()), (NodeId(2), id(1, 1), 3));
    assert_eq!(member.node.pull_append(NodeId(2), u64::MAX), Ok(0), "it was sent all there is");

    // What the one acknowledged commits; the other hears of that no more than it can know.
    member.hear(2, 1, ack(4));
    let said = member.said();
    assert_eq!(said, ["1->2 MsgApp Term:1 Log:1/4 Commit:4"]);
    assert_eq!(member.node.committed().0, 4);
    assert_eq!(member.progress(3).next.0, 2);
}

#[test]
fn a_pull_keeps_to_its_bytes_and_to_the_window() {
    let config = Config { max_inflight_msgs: 2, max_size_per_msg: 40, ..pulls(1) };
    let mut member = leader(config);
    propose(&mut member, 9);
    // An entry is encoded in 14 bytes.
    assert_eq!(member.node.pull_append(NodeId(2), 0), Ok(1), "at least one");
    assert_eq!(member.node.pull_append(NodeId(2), u64::MAX), Ok(2), "as many as one append takes");
    assert_eq!(member.node.pull_append(NodeId(2), u64::MAX), Ok(0), "the window is full");
    assert_eq!(member.node.pull_append(NodeId(3), 28), Ok(2));
    member.work();
    member.hear(2, 1, ack(2));
    assert_eq!(member.node.pull_append(NodeId(2), 14), Ok(1), "it has moved");
}

#[test]
fn only_what_a_leader_pipelines_is_pulled() {
    let mut member = leader(pulls(1));
    propose(&mut member, 1);
    for nobody in [1, 4, 0, u64::MAX] {
        assert_eq!(member.node.pull_append(NodeId(nobody), u64::MAX), Ok(0));
    }
    // Probing goes on by itself.
    member.node.report_unreachable(NodeId(3));
    assert_eq!(member.progress(3).state, ProgressState::Probe);
    assert_eq!(member.node.pull_append(NodeId(3), u64::MAX), Ok(0));
    member.hear(3, 1, heard());
    assert_eq!(member.said().len(), 1);
    member.hear(3, 1, ack(2));
    assert_eq!(member.progress(3).state, ProgressState::Replicate);

    let mut follower = Member::new(pulls(2), &[1, 2, 3]);
    assert_eq!(follower.node.pull_append(NodeId(1), u64::MAX), Ok(0));
}

#[test]
fn a_lost_append_is_found_out_by_heartbeats() {
    let mut net = Net::with(&[1, 2, 3], |config| config.pull_appends = true);
    net.campaign(1);
    net.lose(MessageType::MsgApp);
    net.propose(1, "x").unwrap();
    for peer in [2, 3] {
        assert_eq!(net.node(1).pull_append(NodeId(peer), u64::MAX), Ok(1));
    }
    net.settle();
    net.heal();
    // Nothing is under way any more, and nobody knows yet.
    assert_eq!(net.node(1).pull_append(NodeId(2), u64::MAX), Ok(0));
    net.tick(1, 1);
    for member in 1..=3 {
        assert_eq!(net.node(member).committed().0, 2, "node {member}");
    }
}

#[test]
fn a_peer_that_waits_to_be_pulled_costs_no_appends() {
    let mut net = Net::with(&[1, 2, 3], |config| config.pull_appends = true);
    net.campaign(1);
    net.node(1).propose("x").unwrap();
    for _ in 0..3 {
        net.node(1).tick().unwrap();
        for beat in net.at(1).work() {
            assert_eq!(beat.message_type(), MessageType::MsgHeartbeat);
            net.deliver(beat);
        }
        for peer in [2, 3] {
            for answer in net.at(peer).work() {
                net.deliver(answer);
            }
        }
    }
    assert_eq!(net.at(1).said(), [""; 0]);
}

#[test]
fn a_group_that_is_pulled_agrees_like_any_other() {
    for coalesce_appends in [false, true] {
        let mut net = Net::with(&[1, 2, 3], |config| {
            config.pull_appends = true;
            config.coalesce_appends = coalesce_appends;
        });
        net.campaign(1);
        for _ in 0..20 {
            net.propose(1, "x").unwrap();
            for peer in [2, 3] {
                net.node(1).pull_append(NodeId(peer), 100).unwrap();
            }
            net.settle();
        }
        net.tick(1, 1);
        for member in 1..=3 {
            assert_eq!(net.at(member).machine().len(), 20, "node {member}");
        }
        net.node(1).transfer_leader(NodeId(2));
        net.settle();
        assert_eq!(net.leaders(), [2]);
    }
}
