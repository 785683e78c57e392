//! Reads by lease, on clocks that do not agree.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_raft::{Body, Config, Message, ReadOnlyOption, Role};
use quorate_types::{Index, NodeId};

use crate::net::{Dice, Member, ack, append, heartbeat, id, plain, vote};

fn leased(id: u64, lease_ticks: u32) -> Config {
    Config {
        check_quorum: true,
        read_only_option: ReadOnlyOption::LeaseBased,
        lease_ticks,
        ..plain(id)
    }
}

/// A leader of term 1 in a group of three that has committed its empty entry.
fn leader(lease_ticks: u32) -> Member {
    let mut member = Member::new(leased(1, lease_ticks), &[1, 2, 3]);
    member.lead(&[2]);
    member.hear(2, 1, ack(1));
    member.work();
    member
}

/// What the heartbeats of a Ready carry.
fn context(messages: &[Message]) -> Bytes {
    let context = |message: &Message| match &message.body {
        Body::Heartbeat { context, .. } => Some(context.clone()),
        _ => None,
    };
    messages.iter().find_map(context).expect("there is a heartbeat")
}

fn is_answered(member: &mut Member) -> bool {
    member.node.read_index("r");
    member.work();
    let is_answered = !member.reads.is_empty();
    member.reads.clear();
    is_answered
}

#[test]
fn a_lease_begins_when_a_heartbeat_was_sent_that_a_quorum_answered() {
    let mut member = leader(4);
    assert!(!is_answered(&mut member), "nobody has answered a heartbeat");
    member.tick(1);
    let context = context(&member.work());
    assert_eq!(context.len(), 16, "a position, and a tick");
    member.tick(2);
    member.hear(2, 1, Body::HeartbeatReply { context: context.clone() });
    member.work();
    assert_eq!(std::mem::take(&mut member.reads).len(), 1, "what waited is confirmed");
    assert!(is_answered(&mut member), "2 ticks after it was sent");
    member.tick(1);
    assert!(is_answered(&mut member), "3 ticks");
    member.node.tick_quiesced();
    assert!(!is_answered(&mut member), "4 ticks");
    // The same answer again does not make it longer.
    member.hear(3, 1, Body::HeartbeatReply { context });
    member.reads.clear();
    assert!(!is_answered(&mut member));
}

#[test]
fn odd_answers_make_no_lease() {
    let mut member = leader(4);
    member.tick(1);
    let good = context(&member.work());
    for odd in [&good[..8], &good[..15], &[0; 16], &[0xff; 16], &[]] {
        let context = Bytes::copy_from_slice(odd);
        member.hear(2, 1, Body::HeartbeatReply { context });
        assert!(!is_answered(&mut member), "{odd:?}");
    }
    let _ = member.step(9, 1, Body::HeartbeatReply { context: good.clone() });
    member.hear(2, 1, Body::HeartbeatReply { context: good });
    assert!(is_answered(&mut member));
}

#[test]
fn a_leader_that_gave_the_order_to_campaign_has_no_lease() {
    let mut member = leader(4);
    member.tick(1);
    let context = context(&member.work());
    member.hear(2, 1, Body::HeartbeatReply { context });
    member.node.transfer_leader(NodeId(2));
    member.node.transfer_leader(NodeId(1));
    assert!(!is_answered(&mut member));
}

#[test]
fn what_a_voter_promised_outlasts_terms_and_crashes() {
    let follower = |lease_ticks| {
        let mut member = Member::new(leased(2, lease_ticks), &[1, 2, 3]);
        member.hear(1, 1, heartbeat(0));
        member.work();
        member
    };
    // Another term makes it forget its leader, not its promise.
    let next_term = |member: &mut Member| {
        member.hear(3, 2, Body::PreVoteReply { reject: true });
        assert_eq!((member.node.term().0, member.node.leader()), (2, None));
        member.work();
    };
    for (lease_ticks, want) in [(0, 1), (4, 0)] {
        for term in [2, 3] {
            let mut member = follower(lease_ticks);
            next_term(&mut member);
            member.hear(3, term, vote(id(1, 1)));
            assert_eq!(member.said().len(), want, "lease {lease_ticks}, term {term}");
        }
        let before = follower(lease_ticks);
        let mut after = Member::on(leased(2, lease_ticks), before.storage.clone());
        after.hear(3, 2, vote(id(1, 1)));
        assert_eq!(after.said().len(), want, "lease {lease_ticks}, restarted");

        let mut member = follower(lease_ticks);
        member.node.campaign().unwrap();
        let campaigns = member.node.role() == Role::Candidate;
        assert_eq!(campaigns, want == 1, "lease {lease_ticks}");
    }
    // It lasts an election timeout, and does not bind one whom the leader tells.
    let mut member = follower(4);
    next_term(&mut member);
    member.tick(9);
    member.hear(3, 2, vote(id(1, 1)));
    assert_eq!(member.said(), [""; 0]);
    member.tick(1);
    member.hear(3, 2, vote(id(1, 1)));
    assert_eq!(member.said(), ["2->3 MsgVoteResp Term:2 Log:0/0"]);
    let mut member = follower(4);
    member.hear(1, 1, Body::TimeoutNow);
    assert_eq!(member.node.role(), Role::Candidate);
}

#[test]
fn who_would_forget_its_promise_in_a_crash_makes_none() {
    let config = Config { async_storage_writes: true, ..leased(2, 4) };
    let mut member = Member::new(config.clone(), &[1, 2, 3]);
    let number = |number: u64| number.to_le_bytes();
    let context = Bytes::from([number(7), number(9)].concat());
    let answer = |member: &mut Member| {
        member.hear(1, 1, Body::Heartbeat { commit: Index(0), context: context.clone() });
        let messages = member.node.ready().messages;
        let given_back = messages.into_iter().find_map(|message| match message.body {
            Body::HeartbeatReply { context } => Some(context),
            _ => None,
        });
        given_back.expect("it answers")
    };
    // Its term is on the way to the disk, and no promise is known there.
    assert_eq!(answer(&mut member), [number(7), number(0)].concat());
    let mut after = Member::on(leased(2, 4), member.storage.clone());
    after.hear(3, 2, vote(id(0, 0)));
    assert_eq!(after.said(), ["2->3 MsgVoteResp Term:2 Log:0/0"]);

    member.hear(1, 1, append(id(0, 0), &[1], 0));
    let ready = member.node.ready();
    assert_eq!(answer(&mut member), [number(7), number(0)].concat());
    member.write(&ready);
    for message in ready.messages {
        if let Body::StorageAppend { responses, .. } = message.body {
            let own = responses.into_iter().filter(|response| response.to == NodeId(2));
            own.for_each(|response| member.node.step(response).unwrap());
        }
    }
    assert_eq!(answer(&mut member), context);
}

/// A group on clocks of its own: time passes in hundredths of the fastest clock's tick.
struct Group {
    dice: Dice,
    members: Vec<Member>,
    /// When each ticks next, and how long its ticks are.
    clocks: Vec<(u64, u64)>,
    under_way: Vec<(u64, Message)>,
    cut: BTreeSet<u64>,
    now: u64,
    committed: u64,
    asked: Vec<u64>,
    answered: usize,
    at_once: usize,
    stale: usize,
}

impl Group {
    fn new(seed: u64, lease_ticks: u32) -> Self {
        let mut dice = Dice::new(seed);
        let size = 3 + 2 * dice.roll(2);
        let voters: Vec<u64> = (1..=size).collect();
        let pre_vote = dice.is_one_in(2);
        let config = |id| Config { seed, pre_vote, ..leased(id, lease_ticks) };
        let members = voters.iter().map(|&id| Member::new(config(id), &voters)).collect();
        // An eighth apart at most: 8 ticks of one are at most 9 of another.
        let clocks = voters.iter().map(|_| (dice.roll(100), 100 + dice.roll(13))).collect();
        Group {
            dice,
            members,
            clocks,
            under_way: vec![],
            cut: BTreeSet::new(),
            now: 0,
            committed: 0,
            asked: vec![],
            answered: 0,
            at_once: 0,
            stale: 0,
        }
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.now += 10;
            for at in 0..self.members.len() {
                let (next, length) = self.clocks[at];
                if next <= self.now {
                    self.clocks[at].0 = next + length;
                    self.members[at].tick(1);
                }
                self.work(at);
            }
            let (due, later) = std::mem::take(&mut self.under_way)
                .into_iter()
                .partition(|(at, _)| *at <= self.now);
            self.under_way = later;
            let due: Vec<(u64, Message)> = due;
            for (_, message) in due {
                let (from, to) = (message.from.0, message.to.0);
                if !self.cut.contains(&from) && !self.cut.contains(&to) {
                    let at = to as usize - 1;
                    // Refusals are the sender's business.
                    let _ = self.members[at].node.step(message);
                    self.work(at);
                }
            }
            self.disturb();
        }
    }

    fn disturb(&mut self) {
        let at = self.dice.roll(self.members.len() as u64) as usize;
        let leads = |member: &Member| member.node.is_leader();
        match self.dice.roll(1000) {
            // Whoever leads is cut off, so that another may.
            0..=2 => {
                let leaders = self.members.iter().filter(|member| leads(member));
                self.cut = leaders.map(|member| member.node.id().0).take(1).collect();
            }
            3 => self.cut = [at as u64 + 1].into(),
            4..=7 => self.cut.clear(),
            8..=9 => {
                let (config, storage) =
                    (self.members[at].node.config().clone(), self.members[at].storage.clone());
                let reads = std::mem::take(&mut self.members[at].reads);
                self.members[at] = Member::on(config, storage);
                self.members[at].reads = reads;
            }
            10..=11 => self.members[at].node.campaign().unwrap(),
            12 => self.members[at].node.transfer_leader(NodeId(1 + self.dice.roll(3))),
            13..=15 => self.members[at].node.forget_leader().unwrap(),
            16..=115 => drop(self.members[at].node.propose("x")),
            116..=415 => self.read(at),
            _ => {}
        }
        self.work(at);
    }

    fn read(&mut self, at: usize) {
        if !self.members[at].node.is_leader() {
            return;
        }
        let number = self.asked.len();
        self.asked.push(self.committed);
        self.members[at].node.read_index(number.to_string());
        let before = self.answered;
        self.work(at);
        self.at_once += self.answered - before;
    }

    fn work(&mut self, at: usize) {
        for message in self.members[at].work() {
            let longest = if self.dice.is_one_in(10) { 400 } else { 30 };
            let delay = 1 + self.dice.roll(longest);
            if !self.dice.is_one_in(20) {
                self.under_way.push((self.now + delay, message));
            }
        }
        for (index, context) in std::mem::take(&mut self.members[at].reads) {
            self.answered += 1;
            let number: usize = context.parse().unwrap();
            self.stale += usize::from(index < self.asked[number]);
        }
        self.committed = self.committed.max(self.members[at].node.committed().0);
    }
}

#[test]
fn a_lease_is_never_wrong_while_clocks_keep_to_its_allowance() {
    let run = |lease_ticks| {
        let (mut at_once, mut stale) = (0, 0);
        for seed in 0..30 {
            let mut group = Group::new(seed, lease_ticks);
            group.run(6000);
            at_once += group.at_once;
            stale += group.stale;
        }
        (at_once, stale)
    };
    let (at_once, stale) = run(8);
    assert_eq!(stale, 0, "of {at_once}");
    assert!(at_once > 5_000, "{at_once} reads were answered at once");
    // An office is no lease, not even on good clocks.
    let (_, stale) = run(0);
    assert!(stale > 0, "the test would find stale reads");
}
