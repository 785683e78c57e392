//! How entries get from a leader to its followers, and when they are committed.

use quorate_raft::{Body, Config, Entry, Error, MessageType, ProgressState, Role};
use quorate_types::{EntryId, Index, NodeId, Term};

use crate::net::{Member, Net, ack, append, heartbeat, id, log_of, plain, vote};

/// A leader of term 1 whose empty entry at index 1 all of `voters` hold and which is committed.
fn leader_of(voters: &[u64]) -> Member {
    let mut member = Member::new(plain(1), voters);
    let others: Vec<u64> = voters.iter().copied().filter(|id| *id != 1).collect();
    member.lead(&others[..others.len().div_ceil(2)]);
    for &peer in &others {
        member.hear(peer, 1, ack(1));
    }
    member.work();
    assert_eq!(member.node.committed(), Index(1));
    member
}

#[test]
fn a_proposal_becomes_an_entry_and_goes_to_all() {
    let mut member = leader_of(&[1, 2, 3]);
    assert_eq!(member.node.propose_at("some data"), Ok(Some(id(1, 2))));
    assert_eq!((member.node.last_index(), member.node.committed()), (Index(2), Index(1)));
    let ready = member.node.ready();
    assert_eq!(ready.entries.len(), 1, "it is still to be written");
    let sent = [2, 3].map(|peer| {
        let entry = "1/2 EntryNormal \"some data\"";
        format!("1->{peer} MsgApp Term:1 Log:1/1 Commit:1 Entries:[{entry}]")
    });
    assert_eq!(crate::net::texts(&ready.messages), sent);
}

#[test]
fn a_quorum_of_acknowledgements_commits() {
    for (size, acks, want) in [
        (1, &[][..], true),
        (3, &[], false),
        (3, &[2], true),
        (3, &[2, 3], true),
        (5, &[], false),
        (5, &[2], false),
        (5, &[2, 3], true),
        (5, &[2, 3, 4, 5], true),
    ] {
        let voters: Vec<u64> = (1..=size).collect();
        let mut member = leader_of(&voters);
        member.node.propose("x").unwrap();
        member.work();
        for &peer in acks {
            member.hear(peer, 1, ack(2));
        }
        assert_eq!(member.node.committed() == Index(2), want, "{acks:?} of {size}");
        let commits = member.said().iter().filter(|said| said.contains("Commit:2")).count();
        assert_eq!(commits > 0, want && size > 1, "and tells the others");
    }
}

#[test]
fn the_leaders_own_copy_counts_once_it_is_stored() {
    let mut member = leader_of(&[1, 2, 3]);
    member.node.propose("x").unwrap();
    assert_eq!(member.progress(1).matched, Index(1));
    let ready = member.node.ready();
    member.write(&ready);
    // One follower is no majority without it, two are.
    member.hear(2, 1, ack(2));
    assert_eq!(member.node.committed(), Index(1));
    member.hear(3, 1, ack(2));
    assert_eq!(member.node.committed(), Index(2), "committed, and not stored here");
    assert_eq!(member.progress(1).matched, Index(1));
    member.node.advance().unwrap();
    assert_eq!(member.progress(1).matched, Index(2));
}

#[test]
fn an_own_acknowledgement_of_a_lost_term_counts_no_more() {
    let mut member = leader_of(&[1, 2, 3]);
    member.node.propose("x").unwrap();
    let ready = member.node.ready();
    member.write(&ready);
    member.hear(2, 2, append(id(1, 1), &[2], 1));
    member.node.advance().unwrap();
    member.work();
    assert_eq!((member.node.role(), member.terms()), (Role::Follower, vec![1, 2]));
}

#[test]
fn entries_of_earlier_terms_commit_with_one_of_this_term_only() {
    for (acked, want) in [(1, 0), (2, 0), (3, 3), (4, 4)] {
        let mut member = Member::with_log(plain(1), &[1, 2], &[1, 2]);
        member.lead(&[2]);
        assert_eq!(member.node.term().0, 3);
        member.node.propose("x").unwrap();
        member.work();
        member.hear(2, 3, ack(acked));
        assert_eq!(member.node.committed(), Index(want), "acknowledged up to {acked}");
    }
}

#[test]
fn a_new_leader_commits_the_old_by_its_empty_entry() {
    for lose in [true, false] {
        let mut net = Net::new(&[1, 2, 3, 4, 5]);
        net.campaign(1);
        for other in [3, 4, 5] {
            net.cut(1, other);
        }
        net.propose(1, "some").unwrap();
        net.propose(1, "data").unwrap();
        assert_eq!(net.node(1).committed(), Index(1));

        net.heal();
        if lose {
            net.lose(MessageType::MsgApp);
        }
        net.campaign(2);
        assert_eq!(net.leaders(), [2]);
        if lose {
            assert_eq!(net.node(2).committed(), Index(1), "nothing old by counting");
            net.heal();
            net.tick(2, 1);
            net.propose(2, "more").unwrap();
            assert_eq!(net.node(2).committed(), Index(5));
        } else {
            assert_eq!(net.node(2).committed(), Index(4));
        }
    }
}

#[test]
fn a_follower_hands_out_what_is_committed() {
    for (terms, commit, want) in
        [(&[1][..], 1, 1), (&[1, 1], 2, 2), (&[1, 1], 1, 1), (&[1, 1], 9, 2)]
    {
        let mut member = Member::new(plain(1), &[1, 2, 3]);
        member.hear(2, 1, append(id(0, 0), terms, commit));
        member.work();
        assert_eq!(member.applied, log_of(1, &terms[..want]));
    }
}

#[test]
fn appends_that_connect_are_taken_and_others_refused_with_a_hint() {
    // The log is 1@1, 2@2, of which the first is committed.
    for (prev, want) in [
        (id(0, 0), "Log:0/1"), // below the commit index: told what is committed
        (id(1, 1), "Log:0/1"),
        (id(2, 2), "Log:0/2"),
        (id(1, 2), "Log:1/2 Rejected (Hint: 1)"),
        (id(2, 3), "Log:2/3 Rejected (Hint: 2)"),
        (id(3, 3), "Log:2/3 Rejected (Hint: 2)"),
    ] {
        let mut member = Member::with_log(plain(1), &[1, 2, 3], &[1, 2]);
        member.hear(2, 3, heartbeat(1));
        member.work();
        member.hear(2, 3, append(prev, &[], 1));
        assert_eq!(member.said(), [format!("1->2 MsgAppResp Term:3 {want}")], "after {prev}");
    }
}

#[test]
fn a_conflicting_tail_is_replaced_and_duplicates_are_kept() {
    for (prev, terms, want, written) in [
        (id(2, 2), &[3][..], &[1, 2, 3][..], 1),
        (id(1, 1), &[3], &[1, 3], 1),
        (id(1, 1), &[3, 4], &[1, 3, 4], 2),
        (id(0, 0), &[1], &[1, 2], 0),
        (id(0, 0), &[3], &[3], 1),
        (id(0, 0), &[1, 2, 3], &[1, 2, 3], 1),
        (id(1, 1), &[], &[1, 2], 0), // shorter than the log: nothing is cut off
    ] {
        let mut member = Member::with_log(plain(1), &[1, 2, 3], &[1, 2]);
        member.hear(2, 4, append(prev, terms, 0));
        let ready = member.node.ready();
        assert_eq!(ready.entries.len(), written, "{terms:?} after {prev}");
        member.write(&ready);
        member.node.advance().unwrap();
        assert_eq!(member.terms(), want, "{terms:?} after {prev}");
    }
}

#[test]
fn commit_follows_the_leader_within_what_was_sent() {
    for (prev, terms, commit, want) in [
        (id(1, 1), &[][..], 3, 1),
        (id(1, 1), &[2], 3, 2),
        (id(2, 2), &[], 3, 2),
        (id(2, 2), &[], 4, 2),
        (id(0, 0), &[1], 1, 1),
        (id(2, 2), &[2, 2], 3, 3),
    ] {
        let mut member = Member::with_log(plain(1), &[1, 2, 3], &[1, 2]);
        member.hear(2, 2, append(prev, terms, commit));
        assert_eq!(member.node.committed(), Index(want), "{terms:?} after {prev}, commit {commit}");
    }
}

#[test]
fn every_log_of_figure_seven_becomes_the_leaders() {
    let leader = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    for follower in [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6][..],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ] {
        // The third is needed for a quorum: the second may well refuse its vote.
        let mut net = Net::of([
            Member::with_log(plain(1), &[1, 2, 3], leader),
            Member::with_log(plain(2), &[1, 2, 3], follower),
            Member::new(plain(3), &[1, 2, 3]),
        ]);
        net.node(1).campaign().unwrap();
        net.settle();
        if !net.node(1).is_leader() {
            net.campaign(1);
        }
        assert_eq!(net.leaders(), [1]);
        net.propose(1, "x").unwrap();
        let want = net.at(1).terms();
        for id in [2, 3] {
            assert_eq!(net.at(id).terms(), want, "{follower:?}");
        }
    }
}

#[test]
fn diverging_logs_are_reconciled_in_a_round_a_term() {
    // The leader's and follower's terms, up to where the follower has compacted its log, its hint,
    // and where the leader probes next.
    for (leader, follower, compacted, hint, next) in [
        (&[1, 3, 3, 3, 5, 5, 5, 5, 5][..], &[1, 1, 1, 1, 2, 2][..], 0, id(2, 6), id(1, 1)),
        (&[1, 2, 2, 4, 4, 4, 4], &[1, 2, 2, 3, 3, 3, 3], 0, id(3, 7), id(2, 3)),
        (&[1, 2, 2, 2, 5, 5, 5], &[1, 2, 2, 4], 0, id(4, 4), id(2, 4)),
        (&[2, 5, 5, 5, 5, 5, 5, 5, 5], &[2, 4, 4, 4, 4, 4], 0, id(4, 6), id(2, 1)),
        (&[2, 2, 2, 2, 2, 5], &[2, 4, 4, 4, 4, 4, 4, 4], 0, id(4, 6), id(2, 5)),
        (&[1, 1, 1, 1, 1, 1, 1, 1, 1], &[1, 1, 1, 1], 0, id(1, 4), id(1, 4)),
        (&[1, 1, 1, 1, 1], &[1, 1, 1, 1, 2, 2, 2, 2], 0, id(1, 4), id(1, 4)),
        (&[1, 1, 1, 4, 5], &[1, 1, 1, 2, 2, 3, 3, 3], 0, id(2, 5), id(1, 3)),
        (&[1, 3, 3, 3], &[], 0, id(0, 0), id(0, 0)),
        (&[1, 1, 1, 1, 1, 3, 3], &[1, 1, 1, 1, 2, 2], 4, id(2, 6), id(1, 5)),
        (&[1, 1, 3, 3, 3], &[1, 1], 2, id(1, 2), id(1, 2)),
    ] {
        let mut first = Member::with_log(plain(1), &[1, 2, 3], leader);
        let mut second = Member::with_log(plain(2), &[1, 2, 3], follower);
        if compacted > 0 {
            second.hear(1, 20, heartbeat(compacted));
            second.work();
            second.storage.compact(Index(compacted)).unwrap();
        }
        // So that the first wins whatever the second thinks.
        first.hear(3, 20, ack(0));
        first.lead(&[3]);
        let mut probe =
            EntryId { term: Term(leader[leader.len() - 1]), index: Index(leader.len() as u64) };
        let case = format!("{leader:?} {follower:?}");

        // The first probe is refused with the best the follower can guess.
        second.hear(1, 21, append(probe, &[21], 0));
        let said = second.work();
        let refusal = Body::AppendRefusal { index: probe.index, hint };
        assert_eq!(said.last().unwrap().body, refusal, "{case}");

        // With it the leader finds where to go on, and so on until the logs meet.
        let mut answer = refusal;
        let mut rounds = 0;
        while matches!(answer, Body::AppendRefusal { .. }) {
            rounds += 1;
            first.hear(2, 21, answer);
            let sent = first.work();
            let Some(Body::Append { prev, entries, commit }) = sent.last().map(|last| &last.body)
            else {
                panic!("{sent:?}");
            };
            if rounds == 1 {
                assert_eq!(*prev, next, "{case}");
            }
            assert!(prev.index < probe.index, "{case}: each probe goes further back");
            probe = *prev;
            let (entries, commit) = (entries.clone(), *commit);
            second.hear(1, 21, Body::Append { prev: *prev, entries, commit });
            answer = second.work().pop().unwrap().body;
        }
        let mut terms: Vec<u64> = leader.iter().chain(follower).copied().collect();
        terms.sort_unstable();
        terms.dedup();
        assert!(rounds <= terms.len(), "{case}: {rounds} rounds");
        assert_eq!(second.terms(), first.terms()[compacted as usize..], "{case}");
    }
}

#[test]
fn proposals_reach_everyone_in_order() {
    let mut net = Net::new(&[1, 2, 3]);
    net.campaign(1);
    net.propose(1, "a").unwrap();
    net.propose(2, "b").unwrap();
    net.campaign(2);
    net.propose(2, "c").unwrap();
    net.propose(1, "d").unwrap();
    for member in net.members.values() {
        assert_eq!(member.machine(), ["a", "b", "c", "d"]);
    }
}

#[test]
fn proposals_commit_while_a_majority_is_there() {
    for (size, silent, want) in [
        (1, &[][..], true),
        (2, &[], true),
        (2, &[2], false),
        (3, &[], true),
        (3, &[3], true),
        (3, &[2, 3], false),
        (4, &[4], true),
        (4, &[3, 4], false),
        (5, &[], true),
        (5, &[3], true),
        (5, &[3, 4], true),
        (5, &[3, 4, 5], false),
        (5, &[2, 3, 4, 5], false),
    ] {
        let voters: Vec<u64> = (1..=size).collect();
        let mut net = Net::new(&voters);
        for &id in silent {
            net.isolate(id);
        }
        net.campaign(1);
        let result = net.propose(1, "x");
        assert_eq!(result.is_ok(), want, "{size} without {silent:?}");
        let machine: &[&str] = if want { &["x"] } else { &[] };
        for (id, member) in &net.members {
            let machine = if silent.contains(id) { &[][..] } else { machine };
            assert_eq!(member.machine(), machine, "{id} of {size} without {silent:?}");
        }
    }
}

#[test]
fn without_a_leader_proposals_are_refused_and_followers_may_refuse_to_forward() {
    let mut lost = Member::new(plain(1), &[1, 2, 3]);
    assert!(matches!(lost.node.propose("x"), Err(Error::ProposalDropped(_))));

    for (disabled, want) in [(true, None), (false, Some(()))] {
        let config = Config { disable_proposal_forwarding: disabled, ..plain(1) };
        let mut member = Member::new(config, &[1, 2, 3]);
        member.hear(2, 1, heartbeat(0));
        member.work();
        assert_eq!(member.node.propose("x").is_ok(), want.is_some());
        let sent =
            want.map(|()| "1->2 MsgProp Term:0 Log:0/0 Entries:[0/0 EntryNormal \"x\"]".to_owned());
        assert_eq!(member.said(), Vec::from_iter(sent));
    }
}

#[test]
fn learners_get_the_log_and_decide_nothing() {
    let mut net = Net::of([
        Member::with_members(plain(1), &[1], &[2], &[]),
        Member::with_members(plain(2), &[1], &[2], &[]),
    ]);
    net.campaign(1);
    net.tick(1, 1);
    net.propose(1, "x").unwrap();
    assert_eq!(net.at(2).machine(), ["x"]);
    assert_eq!(net.at(1).progress(2).matched, Index(2));
    net.isolate(2);
    net.propose(1, "y").unwrap();
    assert_eq!(net.at(1).machine(), ["x", "y"], "committed without it");
}

#[test]
fn stale_and_genuine_answers_move_progress_as_they_should() {
    // A leader with three entries that probes follower 2, of which it knows nothing.
    for (answer, matched, next, sends) in [
        // A stale refusal: the probe out is after 0, not after 3.
        (Body::AppendRefusal { index: Index(7), hint: id(0, 7) }, 0, 3, 0),
        (Body::AppendRefusal { index: Index(2), hint: id(0, 1) }, 0, 2, 1),
        (ack(2), 2, 4, 1),
        // Nothing matches, and the peer says so: the pipeline starts there.
        (ack(0), 0, 4, 1),
    ] {
        let mut member = Member::with_log(plain(1), &[1, 2, 3], &[1, 1]);
        member.lead(&[3]);
        member.work();
        assert_eq!(member.progress(2).next, Index(3));
        member.hear(2, 2, answer.clone());
        let progress = member.progress(2);
        let sent = member.work().iter().filter(|message| message.to == NodeId(2)).count();
        assert_eq!(
            (progress.matched.0, progress.next.0, sent),
            (matched, next, sends),
            "{answer:?}"
        );
    }
}

#[test]
fn a_late_refusal_does_not_take_back_what_matches() {
    let mut member = leader_of(&[1, 2, 3]);
    for data in ["a", "b"] {
        member.node.propose(data).unwrap();
    }
    member.work();
    assert_eq!(member.progress(2).next, Index(4));
    // The second append overtook the first: refused; then both arrive.
    member.hear(2, 1, ack(3));
    member.hear(2, 1, Body::AppendRefusal { index: Index(2), hint: id(1, 1) });
    let progress = member.progress(2);
    assert_eq!((progress.state, progress.matched.0), (ProgressState::Replicate, 3));
    assert_eq!(progress.next, Index(4));
}

#[test]
fn only_who_acknowledged_gets_the_next_entry_while_probed() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.lead(&[2]);
    member.work();
    member.hear(2, 1, ack(1));
    member.work();
    member.node.propose("x").unwrap();
    let sent: Vec<NodeId> = member.work().iter().map(|message| message.to).collect();
    assert_eq!(sent, [NodeId(2)]);
    member.hear(3, 1, ack(1));
    let sent = member.work();
    let Some(Body::Append { prev, entries, .. }) = sent.last().map(|message| &message.body) else {
        panic!("{sent:?}");
    };
    assert_eq!((*prev, entries.len(), sent[0].to), (id(1, 1), 1, NodeId(3)));
}

#[test]
fn appends_stay_within_their_size() {
    let mut net = Net::with(&[1, 2, 3], |config| config.max_size_per_msg = 2048);
    net.campaign(1);
    net.isolate(3);
    for _ in 0..20 {
        net.node(1).propose(vec![b'a'; 1000]).unwrap();
        net.settle();
    }
    net.heal();
    net.at(1).tick(1);
    let (mut largest, mut sizes) = (0, vec![]);
    for _ in 0..100 {
        for member in net.members.values_mut() {
            net.under_way.extend(member.work());
        }
        for message in std::mem::take(&mut net.under_way) {
            if let Body::Append { entries, .. } = &message.body {
                largest = largest.max(quorate_raft::encoded_size(entries));
                sizes.push(entries.len());
            }
            let to = message.to.0;
            net.node(to).step(message).unwrap();
        }
    }
    assert_eq!(net.at(3).terms().len(), 21);
    assert!((1024..=2048).contains(&largest), "largest append: {largest}");
    assert!(sizes.iter().all(|count| *count <= 2));
}

#[test]
fn a_size_of_zero_means_an_entry_a_message() {
    let mut net = Net::with(&[1, 2], |config| config.max_size_per_msg = 0);
    net.campaign(1);
    let entry = |data: &'static str| Entry { data: Some(data.into()), ..Entry::default() };
    let first = net.node(1).propose_entries(vec![entry("a"), entry("b"), entry("c")]);
    assert_eq!(first, Ok(Some(id(1, 2))));
    let sent = net.at(1).work();
    let counts: Vec<usize> = sent
        .iter()
        .map(|message| match &message.body {
            Body::Append { entries, .. } => entries.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counts, [1], "and the next once there is an answer");
    net.under_way.extend(sent);
    net.settle();
    assert_eq!(net.at(2).machine(), ["a", "b", "c"]);
}

#[test]
fn a_deposed_leaders_proposals_vanish_without_harm() {
    let mut net = Net::new(&[1, 2, 3]);
    net.campaign(1);
    net.isolate(1);
    net.propose(1, "lost").unwrap();
    net.campaign(2);
    net.propose(2, "kept").unwrap();
    net.heal();
    net.tick(2, 1);
    for member in net.members.values() {
        assert_eq!(member.machine(), ["kept"]);
    }
    // A message from its time changes nothing any more.
    net.at(2).hear(1, 1, vote(id(9, 9)));
    net.settle();
    assert_eq!(net.leaders(), [2]);
}
