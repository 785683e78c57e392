use super::*;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn links(own: NodeId, life: u64) -> Links {
    Links::new(own, life, 200, 1 << 20, 10)
}

fn ping(number: u64) -> Message {
    Message::Ping { number }
}

/// Two nodes, and what is on its way between them.
struct Pair {
    links: [Links; 2],
    heard: [Vec<Event>; 2],
    network: Vec<Packet>,
    now_ticks: u64,
    /// Who installs a state, if anybody.
    installs: Option<usize>,
}

impl Pair {
    fn new() -> Pair {
        let links = [links(A, 11), links(B, 12)];
        let (heard, network) = Default::default();
        Pair { links, heard, network, now_ticks: 0, installs: None }
    }

    /// A pair with one connection, and what both call it.
    fn connected() -> (Pair, [ConnId; 2]) {
        let mut pair = Pair::new();
        pair.links[0].dial(B, "b:m".into());
        pair.settle();
        let conns = [&pair.heard[0][..], &pair.heard[1][..]].map(|heard| match heard {
            [Event::Connected { conn, .. }] | [Event::Accepted { conn }] => *conn,
            other => panic!("{other:?}"),
        });
        pair.heard = Default::default();
        (pair, conns)
    }

    fn gather(&mut self) {
        for links in &mut self.links {
            links.flush();
            self.network.extend(links.take_out());
            links.check();
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let at = packet.to.0 as usize - 1;
        self.links[at].on_packet(packet.from, packet.body, &mut self.heard[at]);
    }

    fn settle(&mut self) {
        self.gather();
        while !self.network.is_empty() {
            let packet = self.network.remove(0);
            self.deliver(packet);
            self.gather();
        }
    }

    fn tick(&mut self) {
        self.now_ticks += 1;
        for (at, links) in self.links.iter_mut().enumerate() {
            let is_installing = self.installs == Some(at);
            links.on_tick(self.now_ticks, is_installing, &mut self.heard[at]);
        }
        self.gather();
    }

    /// What a node was told, in order.
    fn numbers(&self, at: usize) -> Vec<u64> {
        let number = |event: &Event| match event {
            Event::Received { message: Message::Ping { number }, .. } => Some(*number),
            _ => None,
        };
        self.heard[at].iter().filter_map(number).collect()
    }

    fn has_ended(&self, at: usize) -> bool {
        let ends =
            |event: &Event| matches!(event, Event::Closed { .. } | Event::ConnectFailed { .. });
        self.heard[at].iter().any(ends)
    }
}

#[test]
fn everything_comes_once_and_in_order_over_a_bad_network() {
    for seed in 1..40_u64 {
        let (mut pair, conns) = Pair::connected();
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |bound: usize| {
            chance ^= chance >> 12;
            chance ^= chance << 25;
            chance ^= chance >> 27;
            (chance.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
        };
        let mut said = [0, 0];
        for _ in 0..600 {
            match below(10) {
                0..3 => {
                    let at = below(2);
                    said[at] += 1;
                    pair.links[at].push(conns[at], ping(said[at]));
                    pair.gather();
                }
                3 => pair.tick(),
                _ if pair.network.is_empty() => {}
                what => {
                    let packet = pair.network.remove(below(pair.network.len()));
                    if what == 4 {
                        continue; // lost
                    }
                    if what == 5 {
                        pair.network.push(packet.clone()); // and once more, later
                    }
                    pair.deliver(packet);
                    pair.gather();
                }
            }
        }
        for _ in 0..200 {
            pair.tick();
            pair.settle();
        }
        for (at, other) in [(0, 1), (1, 0)] {
            let want: Vec<u64> = (1..=said[other]).collect();
            assert_eq!(pair.numbers(at), want, "seed {seed}");
            assert!(!pair.has_ended(at), "seed {seed}");
            let written = pair.heard[at].iter().map(|event| match event {
                Event::Written { count, .. } => *count as u64,
                _ => 0,
            });
            assert_eq!(written.sum::<u64>(), said[at], "all of it is known to have come");
        }
    }
}

#[test]
fn what_was_said_before_the_end_comes_before_it() {
    let (mut pair, [conn, _]) = Pair::connected();
    pair.links[0].push(conn, ping(7));
    pair.links[0].close(conn);
    pair.settle();
    assert_eq!(pair.numbers(1), [7]);
    assert!(pair.has_ended(1));
}

#[test]
fn nothing_of_an_earlier_connection_reaches_a_later_one() {
    let (mut pair, [conn, _]) = Pair::connected();
    pair.links[0].push(conn, ping(1));
    pair.gather();
    let old = pair.network.clone();
    pair.settle();
    pair.links[0].close(conn);
    pair.settle();
    pair.heard = Default::default();
    // It comes again when the connection is gone, and when there is another.
    for _ in 0..2 {
        for packet in old.clone() {
            pair.deliver(packet);
        }
        pair.settle();
        assert_eq!(pair.numbers(1), []);
        pair.links[0].dial(B, "b:m".into());
        pair.settle();
    }
}

#[test]
fn a_peer_that_started_anew_ends_the_connection() {
    let (mut pair, [conn, _]) = Pair::connected();
    pair.links[1] = links(B, 13);
    pair.links[0].push(conn, ping(1));
    pair.settle();
    assert!(pair.has_ended(0), "it knows no such connection");
    assert_eq!(pair.numbers(1), []);
}

#[test]
fn a_call_that_nobody_answers_fails() {
    let mut pair = Pair::new();
    pair.links[0].dial(B, "b:m".into());
    for _ in 0..9 {
        pair.tick();
        pair.network.clear();
        assert!(!pair.has_ended(0));
    }
    pair.tick();
    assert!(pair.has_ended(0));
}

#[test]
fn an_answer_that_was_lost_is_asked_for_again() {
    let mut pair = Pair::new();
    pair.links[0].dial(B, "b:m".into());
    pair.gather();
    let call = pair.network.remove(0);
    pair.deliver(call);
    pair.gather();
    pair.network.clear(); // the answer
    for _ in 0..RESEND_TICKS {
        pair.tick();
    }
    pair.settle();
    assert!(matches!(pair.heard[0][..], [Event::Connected { .. }]), "{:?}", pair.heard[0]);
    assert!(matches!(pair.heard[1][..], [Event::Accepted { .. }]), "only one connection");
}

#[test]
fn who_loses_messages_and_says_nothing_is_given_up() {
    for speaks in [false, true] {
        let (mut pair, [_, theirs]) = Pair::connected();
        pair.links[0].on_unreachable(B);
        for number in 0..SUSPECT_TICKS {
            if speaks {
                pair.links[1].push(theirs, ping(number));
                pair.settle();
            }
            pair.tick();
        }
        assert_eq!(pair.has_ended(0), !speaks);
    }
}

#[test]
fn a_process_that_is_gone_takes_its_connections_along() {
    let (mut pair, [conn, _]) = Pair::connected();
    pair.links[0].on_absent(NodeId(3), &mut pair.heard[0]);
    assert!(!pair.has_ended(0), "that was another one");
    pair.links[0].on_absent(B, &mut pair.heard[0]);
    let heard = std::mem::take(&mut pair.heard[0]);
    assert!(matches!(heard[..], [Event::Closed { conn: ended }] if ended == conn), "at once");
    pair.settle();
    assert!(pair.has_ended(1), "if it is there after all, it hears of it");
    pair.links[0].dial(B, "b:m".into());
    pair.links[0].on_absent(B, &mut pair.heard[0]);
    assert!(matches!(pair.heard[0][..], [Event::ConnectFailed { .. }]));
}

#[test]
fn what_follows_a_snapshot_waits_for_it() {
    let (mut pair, [conn, _]) = Pair::connected();
    let snapshot = quorate_zab::Snapshot::default();
    pair.links[0].push(conn, ping(1));
    pair.links[0].push(conn, Message::Snapshot(snapshot));
    pair.links[0].push(conn, ping(2));
    pair.gather();
    assert!(!pair.network.iter().any(Packet::has_snapshot), "something goes before it");
    let mut with = Vec::new();
    while !pair.network.is_empty() {
        let packet = pair.network.remove(0);
        match packet.has_snapshot() {
            true => with.push(packet),
            false => pair.deliver(packet),
        }
        pair.gather();
    }
    assert_eq!(with.len(), 1);
    // However long its state takes, both ends hear of each other, and it is not sent twice.
    for _ in 0..50 {
        pair.tick();
        assert!(!pair.network.iter().any(Packet::has_snapshot));
        pair.settle();
    }
    assert_eq!(pair.numbers(1), [1]);
    let progress = |event: &Event| matches!(event, Event::Progress { .. });
    assert!(pair.heard.iter().all(|heard| 40 < heard.iter().filter(|it| progress(it)).count()));
    pair.links[0].on_shipped(&with[0], true, &mut pair.heard[0]);
    for packet in with {
        pair.deliver(packet);
    }
    pair.settle();
    assert_eq!(pair.numbers(1), [1, 2]);
    assert!(!pair.has_ended(0) && !pair.has_ended(1));
}

#[test]
fn who_installs_a_state_says_so_and_hears_that_it_is_waited_for() {
    for at in [0, 1] {
        let (mut pair, _) = Pair::connected();
        pair.installs = Some(at);
        for _ in 0..10 {
            pair.tick();
            pair.settle();
        }
        let other = 1 - at;
        let is_progress = |event: &Event| matches!(event, Event::Progress { .. });
        let is_heard = |event: &Event| matches!(event, Event::Heard { .. });
        assert_eq!(pair.heard[other].iter().filter(|event| is_progress(event)).count(), 10);
        assert!(pair.heard[other].iter().all(is_progress), "{:?}", pair.heard[other]);
        // It has patience only with whom it hears of.
        assert_eq!(pair.heard[at].iter().filter(|event| is_heard(event)).count(), 10);
        assert!(pair.heard[at].iter().all(is_heard), "{:?}", pair.heard[at]);
    }
}

#[test]
fn a_snapshot_that_did_not_come_ends_the_connection() {
    for ok in [false, true] {
        let (mut pair, [conn, _]) = Pair::connected();
        pair.links[0].push(conn, Message::Snapshot(quorate_zab::Snapshot::default()));
        pair.gather();
        let with = pair.network.remove(0);
        pair.links[0].on_shipped(&with, ok, &mut pair.heard[0]);
        assert_eq!(pair.has_ended(0), !ok);
        // What came whole and is of no use there is waited for for a while.
        for _ in 0..=TAKE_TICKS_MAX + 1 {
            pair.tick();
            pair.settle();
        }
        assert!(pair.has_ended(0));
    }
}

#[test]
fn what_became_of_a_state_concerns_only_the_connection_that_it_was_for() {
    for ok in [false, true] {
        let (mut pair, [conn, _]) = Pair::connected();
        let snapshot = || Message::Snapshot(quorate_zab::Snapshot::default());
        pair.links[0].push(conn, snapshot());
        pair.gather();
        let abandoned = pair.network.remove(0);
        pair.links[0].close(conn);
        pair.settle();
        pair.heard = Default::default();
        // The peer is back, and the state is on its way to it once more.
        pair.links[0].dial(B, "b:m".into());
        pair.settle();
        let [Event::Connected { conn, .. }] = pair.heard[0][..] else { panic!("{:?}", pair.heard) };
        pair.links[0].push(conn, snapshot());
        pair.gather();
        let with = pair.network.remove(0);
        assert!(with.has_snapshot());
        pair.links[0].on_shipped(&abandoned, ok, &mut pair.heard[0]);
        for _ in 0..=TAKE_TICKS_MAX + 1 {
            pair.tick();
            pair.settle();
        }
        assert!(!pair.has_ended(0), "ok {ok}");
        pair.links[0].on_shipped(&with, false, &mut pair.heard[0]);
        assert!(pair.has_ended(0));
    }
}

#[test]
fn numbers_at_the_end_of_their_range_harm_nobody() {
    for messages in [vec![], vec![ping(1)], vec![ping(1), ping(2)]] {
        for (acked, first) in [(0, u64::MAX), (u64::MAX, u64::MAX), (u64::MAX, u64::MAX - 1)] {
            let (mut pair, [conn, _]) = Pair::connected();
            pair.links[0].push(conn, ping(7));
            pair.gather();
            let mut said = pair.network.remove(0);
            let true_body = said.body.clone();
            if let Body::Data { acked: its, first: own, messages: all, .. } = &mut said.body {
                (*its, *own, *all) = (acked, first, messages.clone());
            }
            pair.deliver(said.clone());
            pair.gather();
            assert_eq!(pair.numbers(1), [], "nothing of it comes next");
            said.body = true_body;
            pair.deliver(said);
            pair.settle();
            assert_eq!(pair.numbers(1), [7], "what does still comes");
        }
    }
}
