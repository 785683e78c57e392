//! Connections out of packets that may be lost, doubled and reordered.
//!
//! The engine wants connections that keep the order and end visibly. Both ends number what they say,
//! tell how much has come, and say again what has not. Each end has a name that no other end ever
//! had, and every packet carries both: what belongs to an earlier connection, or to an earlier life
//! of a node, finds nobody, and is answered so.
//!
//! ```text
//! dial ─ Open ─►        ─► accepted                 Data, both ways, until
//!      ◄─ Opened ─        (connected)               Closed, or nothing for too long
//! ```
//! What ends a connection that is merely silent is up to the engine, which gives silent peers up.
//! A snapshot is one message, and its state travels apart: it is sent when all before it has come,
//! once, and what follows waits until it has come itself. Who sends it, and then who installs it, says with
//! every tick that it is busy, and is answered: so both ends know that the other one waits for nothing else.

use std::collections::{BTreeMap, VecDeque};

use quorate_types::NodeId;
use quorate_zab::{Address, ConnId, Event, Message};

use crate::zab::packet::{Body, Name, Packet};

/// What was not taken for so many ticks is said again.
const RESEND_TICKS: u64 = 2;
/// A peer of which messages are being lost is given up when it is not heard of for so long.
const SUSPECT_TICKS: u64 = 3;

/// A peer has so long to make use of a snapshot's state that it has.
const TAKE_TICKS_MAX: u64 = 300;

/// All connections of one node.
#[derive(Debug)]
pub(crate) struct Links {
    own: NodeId,
    life: u64,
    last: u64,
    links: BTreeMap<ConnId, Link>,
    /// Messages in one packet, in bytes; one always goes.
    packet_bytes_max: u64,
    /// What came before what precedes it, over all packets of one connection, in bytes.
    early_bytes_max: u64,
    open_ticks_max: u64,
    now_ticks: u64,
    out: Vec<Packet>,
}

#[derive(Debug)]
struct Link {
    peer: NodeId,
    stage: Stage,
    /// Said, in order, and not known to have come.
    unacked: VecDeque<Message>,
    /// The number of the first of them.
    first: u64,
    /// The number of the next that was never sent.
    next: u64,
    /// When the peer last took something, or was last told again.
    moved_ticks: u64,
    /// Everything up to here has come.
    received: u64,
    early: BTreeMap<u64, Message>,
    early_bytes: u64,
    /// Whether the peer is to be told how much has come.
    owes_ack: bool,
    heard_ticks: u64,
    suspect_ticks: Option<u64>,
    /// The number of a snapshot whose state is under way, and since when it is there.
    shipping: Option<u64>,
    shipped_ticks: Option<u64>,
}

#[derive(Debug, PartialEq)]
enum Stage {
    /// The peer was asked, and is to be told as whom the engine knows it.
    Dialing {
        address: Address,
        since_ticks: u64,
    },
    Open {
        peer_name: Name,
    },
}

impl Links {
    pub(crate) fn new(
        own: NodeId,
        life: u64,
        packet_bytes_max: u64,
        early_bytes_max: u64,
        open_ticks_max: u64,
    ) -> Self {
        Links {
            own,
            life,
            last: 0,
            links: BTreeMap::new(),
            packet_bytes_max,
            early_bytes_max,
            open_ticks_max,
            now_ticks: 0,
            out: Vec::new(),
        }
    }

    fn name(&self, conn: ConnId) -> Name {
        Name { life: self.life, number: conn.0 }
    }

    fn add(&mut self, peer: NodeId, stage: Stage) -> ConnId {
        self.last += 1;
        let conn = ConnId(self.last);
        let link = Link {
            peer,
            stage,
            unacked: VecDeque::new(),
            first: 1,
            next: 1,
            moved_ticks: self.now_ticks,
            received: 0,
            early: BTreeMap::new(),
            early_bytes: 0,
            owes_ack: false,
            heard_ticks: self.now_ticks,
            suspect_ticks: None,
            shipping: None,
            shipped_ticks: None,
        };
        self.links.insert(conn, link);
        conn
    }

    fn say(&mut self, to: NodeId, body: Body) {
        self.out.push(Packet { from: self.own, to, body });
    }

    /// Asks `peer` for a connection.
    pub(crate) fn dial(&mut self, peer: NodeId, address: Address) {
        let since_ticks = self.now_ticks;
        let conn = self.add(peer, Stage::Dialing { address, since_ticks });
        let own = self.name(conn);
        self.say(peer, Body::Open { own });
    }

    /// Says something on a connection.
    pub(crate) fn push(&mut self, conn: ConnId, message: Message) {
        if let Some(link) = self.links.get_mut(&conn) {
            if link.unacked.is_empty() {
                link.moved_ticks = self.now_ticks;
            }
            link.unacked.push_back(message);
        }
    }

    /// Ends a connection, after what was said on it.
    pub(crate) fn close(&mut self, conn: ConnId) {
        self.send_new(conn);
        let own = self.name(conn);
        if let Some(link) = self.links.remove(&conn)
            && let Stage::Open { peer_name: peer } = link.stage
        {
            self.say(link.peer, Body::Closed { peer, own });
        }
    }

    /// Ends all of them.
    pub(crate) fn close_all(&mut self, events: &mut Vec<Event>) {
        for conn in self.links.keys().copied().collect::<Vec<_>>() {
            self.fail(conn, events);
        }
    }

    /// Ends a connection that the engine believes in.
    fn fail(&mut self, conn: ConnId, events: &mut Vec<Event>) {
        let event = match self.links.get(&conn).map(|link| &link.stage) {
            None => return,
            Some(Stage::Dialing { address, .. }) => Event::ConnectFailed { to: address.clone() },
            Some(Stage::Open { .. }) => Event::Closed { conn },
        };
        self.close(conn);
        events.push(event);
    }

    /// The transport loses messages to `peer`.
    pub(crate) fn on_unreachable(&mut self, peer: NodeId) {
        for link in self.links.values_mut().filter(|link| link.peer == peer) {
            link.suspect_ticks.get_or_insert(self.now_ticks);
        }
    }

    /// The process at the other end has gone, and its connections with it.
    pub(crate) fn on_absent(&mut self, peer: NodeId, events: &mut Vec<Event>) {
        let gone = self.links.iter().filter(|(_, link)| link.peer == peer);
        for conn in gone.map(|(conn, _)| *conn).collect::<Vec<_>>() {
            self.fail(conn, events);
        }
    }

    /// The state that belongs to a packet with a snapshot has come to its peer, or has not. One of a
    /// connection that is over concerns no other.
    pub(crate) fn on_shipped(&mut self, packet: &Packet, ok: bool, events: &mut Vec<Event>) {
        let Body::Data { own, first, .. } = &packet.body else { return };
        let conn = ConnId(own.number);
        let Some(link) = self.links.get_mut(&conn).filter(|_| own.life == self.life) else {
            return;
        };
        if link.shipping != Some(*first) {
            return;
        }
        match ok {
            true => link.shipped_ticks = Some(self.now_ticks),
            false => self.fail(conn, events),
        }
    }

    /// Takes in what `from` said.
    pub(crate) fn on_packet(&mut self, from: NodeId, body: Body, events: &mut Vec<Event>) {
        for link in self.links.values_mut().filter(|link| link.peer == from) {
            link.heard_ticks = self.now_ticks;
            link.suspect_ticks = None;
        }
        match body {
            Body::Vote(_) => {}
            Body::Open { own: peer } => self.on_open(from, peer, events),
            Body::Opened { peer: own, own: peer } => {
                let conn = ConnId(own.number);
                match self.stage(from, own) {
                    Some(Stage::Dialing { .. }) => self.opened(conn, peer, events),
                    Some(Stage::Open { peer_name }) if *peer_name == peer => {}
                    _ => self.say(from, Body::Closed { peer, own }),
                }
            }
            Body::Data { peer: own, own: peer, is_busy, acked, first, messages } => {
                match self.stage(from, own) {
                    Some(Stage::Open { peer_name }) if *peer_name == peer => {}
                    _ => return self.say(from, Body::Closed { peer, own }),
                }
                let conn = ConnId(own.number);
                // What it says may have to wait for what was lost before it.
                events.push(match is_busy {
                    true => Event::Progress { conn },
                    false => Event::Heard { conn },
                });
                self.on_data(conn, acked, first, messages, events);
                if let Some(link) = self.links.get_mut(&conn) {
                    // Who is busy is to hear that somebody waits.
                    link.owes_ack |= is_busy;
                }
            }
            Body::Closed { peer: own, own: peer } => {
                let conn = ConnId(own.number);
                if matches!(self.stage(from, own), Some(Stage::Open { peer_name }) if *peer_name == peer)
                {
                    self.links.remove(&conn);
                    events.push(Event::Closed { conn });
                }
            }
        }
    }

    fn stage(&self, from: NodeId, own: Name) -> Option<&Stage> {
        let link = self.links.get(&ConnId(own.number))?;
        (own.life == self.life && link.peer == from).then_some(&link.stage)
    }

    fn on_open(&mut self, from: NodeId, peer: Name, events: &mut Vec<Event>) {
        let is_it =
            |link: &Link| link.peer == from && link.stage == Stage::Open { peer_name: peer };
        let known = self.links.iter().find(|(_, link)| is_it(link)).map(|(conn, _)| *conn);
        let conn = known.unwrap_or_else(|| {
            let conn = self.add(from, Stage::Open { peer_name: peer });
            events.push(Event::Accepted { conn });
            conn
        });
        let own = self.name(conn);
        self.say(from, Body::Opened { peer, own });
    }

    fn opened(&mut self, conn: ConnId, peer_name: Name, events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let opened = std::mem::replace(&mut link.stage, Stage::Open { peer_name });
        if let Stage::Dialing { address: to, .. } = opened {
            events.push(Event::Connected { to, conn });
        }
    }

    fn on_data(
        &mut self,
        conn: ConnId,
        acked: u64,
        first: u64,
        messages: Vec<Message>,
        events: &mut Vec<Event>,
    ) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let mut count = 0;
        while link.first <= acked && link.first < link.next && link.unacked.pop_front().is_some() {
            if link.shipping == Some(link.first) {
                (link.shipping, link.shipped_ticks) = (None, None);
            }
            link.first += 1;
            count += 1;
        }
        if 0 < count {
            link.moved_ticks = self.now_ticks;
            events.push(Event::Written { conn, count });
        }
        link.owes_ack |= !messages.is_empty();
        // No connection gets as far as the last number; a peer may say it did.
        for (number, message) in (first..=u64::MAX).zip(messages) {
            if number == link.received + 1 {
                link.received = number;
                events.push(Event::Received { conn, message });
                while let Some(message) = link.early.remove(&(link.received + 1)) {
                    link.received += 1;
                    link.early_bytes -= message.bytes();
                    events.push(Event::Received { conn, message });
                }
            } else if link.received < number && !link.early.contains_key(&number) {
                let bytes = message.bytes();
                if link.early_bytes + bytes <= self.early_bytes_max {
                    link.early_bytes += bytes;
                    link.early.insert(number, message);
                }
            }
        }
    }

    /// Time passes; whether this node is installing a state.
    pub(crate) fn on_tick(&mut self, now_ticks: u64, is_installing: bool, events: &mut Vec<Event>) {
        self.now_ticks = now_ticks;
        for conn in self.links.keys().copied().collect::<Vec<_>>() {
            self.tick_link(conn, is_installing, events);
        }
    }

    fn tick_link(&mut self, conn: ConnId, is_installing: bool, events: &mut Vec<Event>) {
        let (now_ticks, own) = (self.now_ticks, self.name(conn));
        let Some(link) = self.links.get_mut(&conn) else { return };
        let since = link.suspect_ticks.map(|since| since.max(link.heard_ticks));
        if since.is_some_and(|since| since + SUSPECT_TICKS <= now_ticks) {
            return self.fail(conn, events);
        }
        let peer = link.peer;
        let is_due = link.moved_ticks + RESEND_TICKS <= now_ticks;
        match link.stage {
            Stage::Dialing { since_ticks, .. } => {
                if since_ticks + self.open_ticks_max <= now_ticks {
                    self.fail(conn, events);
                } else if is_due {
                    link.moved_ticks = now_ticks;
                    self.say(peer, Body::Open { own });
                }
            }
            Stage::Open { peer_name } => {
                // What came whole may be of no use there, and then nothing follows.
                if link.shipped_ticks.is_some_and(|since| since + TAKE_TICKS_MAX < now_ticks) {
                    return self.fail(conn, events);
                }
                let (first, next) = (link.first, link.next);
                if link.shipping.is_none() && is_due && first < next {
                    link.moved_ticks = now_ticks;
                    self.send(conn, first, next, true);
                }
                let Some(link) = self.links.get(&conn) else { return };
                let is_shipping = link.shipping.is_some();
                if is_shipping || is_installing {
                    let (acked, first) = (link.received, link.first);
                    let messages = Vec::new();
                    let body =
                        Body::Data { peer: peer_name, own, is_busy: true, acked, first, messages };
                    self.say(peer, body);
                }
                if is_shipping {
                    events.push(Event::Progress { conn });
                }
            }
        }
    }

    /// Sends what was said since the last time, and tells how much has come.
    pub(crate) fn flush(&mut self) {
        for conn in self.links.keys().copied().collect::<Vec<_>>() {
            self.send_new(conn);
            let own = self.name(conn);
            let Some(link) = self.links.get_mut(&conn) else { continue };
            if let Stage::Open { peer_name } = link.stage
                && std::mem::take(&mut link.owes_ack)
            {
                let (acked, first, peer) = (link.received, link.next, link.peer);
                let messages = Vec::new();
                let body =
                    Body::Data { peer: peer_name, own, is_busy: false, acked, first, messages };
                self.say(peer, body);
            }
        }
    }

    fn send_new(&mut self, conn: ConnId) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        if !matches!(link.stage, Stage::Open { .. }) {
            return;
        }
        if link.shipping.is_some() {
            return;
        }
        // A snapshot goes alone: whoever has its state is to make use of it at once, or never.
        let skip = (link.next - link.first) as usize;
        let is_snapshot = |message: &Message| matches!(message, Message::Snapshot(_));
        let count = match link.unacked.range(skip..).position(is_snapshot) {
            Some(0) if skip == 0 => {
                link.shipping = Some(link.next);
                1
            }
            Some(before) => before,
            None => link.unacked.len() - skip,
        };
        let (from, next) = (link.next, link.next + count as u64);
        if from < next {
            link.next = next;
            self.send(conn, from, next, false);
        }
    }

    /// Sends the messages of these numbers, in as few packets as they fit into; when it is not the
    /// first time only one packet.
    fn send(&mut self, conn: ConnId, from: u64, until: u64, is_again: bool) {
        let own = self.name(conn);
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Stage::Open { peer_name: peer } = link.stage else { return };
        let (to, acked) = (link.peer, link.received);
        let mut first = from;
        while first < until {
            let (mut messages, mut bytes) = (Vec::new(), 0);
            let skip = (first - link.first) as usize;
            for message in link.unacked.range(skip..(until - link.first) as usize) {
                bytes += message.bytes();
                if !messages.is_empty() && self.packet_bytes_max < bytes {
                    break;
                }
                messages.push(message.clone());
            }
            let count = messages.len() as u64;
            link.owes_ack = false;
            let body = Body::Data { peer, own, is_busy: false, acked, first, messages };
            self.out.push(Packet { from: self.own, to, body });
            first += count;
            if is_again {
                break;
            }
        }
    }

    /// Whether there is anything to send.
    pub(crate) fn take_out(&mut self) -> Vec<Packet> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn check(&self) {
        for link in self.links.values() {
            assert!(link.first <= link.next, "only what was sent can have come");
            let said = link.first + link.unacked.len() as u64;
            assert!(link.next <= said, "only what was said is sent");
            let is_alone = link.shipping.is_none_or(|at| at == link.first && at + 1 == link.next);
            assert!(is_alone, "a snapshot goes alone");
            let early = link.early.first_key_value().map_or(u64::MAX, |(number, _)| *number);
            assert!(link.received + 1 < early, "what follows at once is not kept waiting");
        }
    }
}

#[cfg(test)]
mod tests;
