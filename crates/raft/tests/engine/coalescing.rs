//! Appends that wait for the Ready.

use quorate_raft::{Body, Config, Message, ProgressState};
use quorate_types::{Index, NodeId};

use crate::net::{Member, Net, ack, heard, id, log_of, plain};

fn coalescing(id: u64) -> Config {
    Config { coalesce_appends: true, ..plain(id) }
}

/// A leader of term 1 of three whose empty entry all have.
fn leader(config: Config) -> Member {
    let mut member = Member::new(config, &[1, 2, 3]);
    member.lead(&[2]);
    for peer in [2, 3] {
        member.hear(peer, 1, ack(1));
    }
    member.work();
    member
}

/// To whom, after which index, how many entries, and the commit index.
fn appends(messages: &[Message]) -> Vec<(u64, u64, usize, u64)> {
    let append = |message: &Message| match &message.body {
        Body::Append { prev, entries, commit } => {
            Some((message.to.0, prev.index.0, entries.len(), commit.0))
        }
        _ => None,
    };
    messages.iter().filter_map(append).collect()
}

#[test]
fn proposals_between_two_readies_go_out_as_one_append_a_peer() {
    for asynchronous in [false, true] {
        let mut member = leader(coalescing(1));
        if asynchronous {
            let config = Config { async_storage_writes: true, ..coalescing(1) };
            member = Member::on(config, member.storage);
            member.node.campaign().unwrap();
            drain(&mut member);
            member.hear(2, 2, Body::VoteReply { reject: false });
            drain(&mut member);
            for peer in [2, 3] {
                let last = member.node.last_index().0;
                member.hear(peer, 2, ack(last));
            }
            drain(&mut member);
        }
        let (last, commit) = (member.node.last_index().0, member.node.committed().0);
        for _ in 0..5 {
            member.node.propose("x").unwrap();
        }
        let ready = member.node.ready();
        let want = [(2, last, 5, commit), (3, last, 5, commit)];
        assert_eq!(appends(&ready.messages), want, "{asynchronous}");
        assert_eq!(ready.entries.len(), 5);
    }
}

/// Does the work of both storage threads at once.
fn drain(member: &mut Member) {
    while member.node.has_ready() {
        let ready = member.node.ready();
        member.write(&ready);
        for message in ready.messages {
            let responses = match message.body {
                Body::StorageAppend { responses, .. } | Body::StorageApply { responses, .. } => {
                    responses
                }
                _ => continue,
            };
            for response in responses {
                if response.to == NodeId(1) {
                    member.node.step(response).unwrap();
                }
            }
        }
    }
}

#[test]
fn steps_of_the_commit_index_go_out_as_one_append_a_peer() {
    let mut member = leader(coalescing(1));
    for _ in 0..5 {
        member.node.propose("x").unwrap();
    }
    member.work();
    for index in 2..=6 {
        member.hear(2, 1, ack(index));
    }
    assert_eq!(member.node.committed(), Index(6));
    member.node.propose("y").unwrap();
    assert_eq!(appends(&member.work()), [(2, 6, 1, 6), (3, 6, 1, 6)], "with what else there is");
    member.hear(3, 1, ack(6));
    assert_eq!(appends(&member.work()), [], "it was told");
}

#[test]
fn what_does_not_fit_into_one_append_goes_out_in_several() {
    let limits = Config { max_size_per_msg: 30, max_inflight_msgs: 3, ..coalescing(1) };
    let mut member = leader(limits);
    for _ in 0..10 {
        member.node.propose("0123456789").unwrap();
    }
    // An entry takes 18 bytes.
    let first: Vec<_> = (1..=3).map(|prev| (2, prev, 1, 1)).collect();
    let said = appends(&member.work());
    assert_eq!(said.iter().filter(|append| append.0 == 2).copied().collect::<Vec<_>>(), first);
    // Room in the window is work for a Ready, although nothing else is.
    member.hear(2, 1, ack(2));
    member.work();
    member.hear(3, 1, ack(2));
    assert!(member.node.has_ready());
    assert_eq!(appends(&member.work()).last(), Some(&(3, 4, 1, 2)));
    assert!(!member.node.has_ready());
}

#[test]
fn a_probed_peer_still_gets_one_append_at_a_time() {
    let mut member = leader(coalescing(1));
    member.node.report_unreachable(NodeId(3));
    for _ in 0..4 {
        member.node.propose("x").unwrap();
    }
    assert_eq!(appends(&member.work()), [(2, 1, 4, 1), (3, 1, 4, 1)]);
    assert_eq!(member.progress(3).state, ProgressState::Probe);
    member.node.propose("y").unwrap();
    assert_eq!(appends(&member.work()), [(2, 5, 1, 1)]);
    // An answer to a heartbeat is no proposal: it is seen to at once.
    member.hear(3, 1, heard());
    assert_eq!(appends(&member.work()), [(3, 1, 5, 1)]);
}

#[test]
fn what_is_due_ends_with_the_leadership() {
    let mut member = leader(coalescing(1));
    member.node.propose("x").unwrap();
    let body = Body::Append { prev: id(1, 1), entries: log_of(2, &[2]).into(), commit: Index(1) };
    member.hear(3, 2, body);
    assert_eq!(appends(&member.work()), []);
    assert_eq!(member.terms(), [1, 2]);
}

#[test]
fn looking_at_a_ready_forms_its_appends() {
    let mut member = leader(coalescing(1));
    member.node.propose("x").unwrap();
    member.node.propose("y").unwrap();
    let computed = member.node.ready_without_accept();
    assert_eq!(appends(&computed.messages), [(2, 1, 2, 1), (3, 1, 2, 1)]);
    assert_eq!(computed, member.node.ready_without_accept());
    member.write(&computed);
    member.node.accept_ready(&computed).unwrap();
    member.node.advance().unwrap();
    assert!(!member.node.has_ready());
}

#[test]
fn a_group_works_as_before() {
    let mut net = Net::with(&[1, 2, 3], |config| config.coalesce_appends = true);
    net.campaign(1);
    assert_eq!(net.leaders(), [1]);
    for data in ["a", "b", "c"] {
        net.propose(1, data).unwrap();
        net.propose(2, data).unwrap();
    }
    let want = ["a", "a", "b", "b", "c", "c"];
    for id in 1..=3 {
        assert_eq!(net.at(id).machine(), want, "node {id}");
    }
    net.node(1).transfer_leader(NodeId(3));
    net.settle();
    assert_eq!(net.leaders(), [3]);

    let mut alone = Net::with(&[1], |config| config.coalesce_appends = true);
    alone.campaign(1);
    alone.propose(1, "a").unwrap();
    assert_eq!(alone.at(1).machine(), ["a"]);
}
