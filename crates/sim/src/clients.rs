//! Clients: each asks one thing after the other, or at its own pace, of whichever member it likes.

use bytes::Bytes;
use quorate_kv::{
    Command, CompactionRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest,
    PutRequest, RangeRequest, RequestOp, Response, TxnRequest,
};
use quorate_types::NodeId;

use crate::chance::Chance;
use crate::node::{Ask, Said};
use crate::plan::{ClientPlan, SECOND};
use crate::world::{Event, OpId, What, World};

/// Clients ask no more often than this on average, once all is healed.
pub(crate) const CALM_US: u64 = SECOND / 5;
/// Then whoever is not answered pauses twice as long each time, up to so often and so long.
const DOUBLINGS_MAX: u32 = 5;
const PAUSE_US_MAX: u64 = 10 * SECOND;

/// What a client is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Part {
    /// It is one of those that the plan names.
    #[default]
    Usual,
    /// It stays with one member, to see whether that one serves.
    Probe,
    /// It asks for what the operator wants, and for nothing by itself.
    Operator,
}

/// One client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    pub(crate) part: Part,
    /// The member it is connected to, by its place in the world.
    pub(crate) member: usize,
    /// What it waits for; one who does not wait still waits for the last.
    pub(crate) waits: Option<OpId>,
    /// Requests in a row that it gave up once all was healed.
    pub(crate) gave_up: u32,
    /// What it has seen of a key: its mod revision, to compare with.
    pub(crate) seen: i64,
    pub(crate) values: u64,
    /// Those it was granted, gone or not.
    pub(crate) leases: Vec<i64>,
}

/// The next thing that a client asks.
pub(crate) fn draw(
    chance: &mut Chance,
    plan: &ClientPlan,
    number: usize,
    client: &mut Client,
    may_lease: bool,
) -> Ask {
    if may_lease && chance.percent(40) {
        return draw_of_leases(chance, plan, number, client);
    }
    let key = key(chance.below(plan.keys));
    let mut draw = chance.below(100);
    let mut kind = 0;
    for (number, share) in plan.mix.iter().enumerate() {
        if draw < *share {
            kind = number;
            break;
        }
        draw -= share;
    }
    let range =
        |serializable| RangeRequest { key: key.clone(), serializable, ..RangeRequest::default() };
    match kind {
        1 | 2 => {
            let mut range = range(kind == 2);
            if chance.percent(20) {
                // All keys at once.
                (range.key, range.range_end) = all_keys();
            }
            Ask::Read(range)
        }
        3 => Ask::Change(Command::DeleteRange(DeleteRangeRequest {
            key,
            range_end: Bytes::new(),
            prev_kv: chance.percent(30),
        })),
        4 => Ask::Change(Command::Txn(TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal,
                target: CompareTarget::Mod(client.seen),
                key: key.clone(),
                range_end: Bytes::new(),
            }],
            success: vec![RequestOp::Put(put(chance, plan, number, client, key.clone()))],
            failure: vec![RequestOp::Range(range(false))],
        })),
        _ => Ask::Change(Command::Put(put(chance, plan, number, client, key))),
    }
}

/// Something that has to do with leases. Some are forgotten, and end by themselves.
fn draw_of_leases(
    chance: &mut Chance,
    plan: &ClientPlan,
    number: usize,
    client: &mut Client,
) -> Ask {
    let lease = client.leases.last().copied();
    let what = chance.below(10);
    let Some(lease) = lease.filter(|_| 1 < what) else {
        client.values += 1;
        let id = 1 + (1000 * client.values) as i64 + number as i64;
        let ttl_seconds = chance.between(2, 15) as i64;
        return Ask::Change(Command::LeaseGrant { id, ttl_seconds });
    };
    match what {
        2..=4 => {
            let key = key(chance.below(plan.keys));
            let put = PutRequest { lease, ..put(chance, plan, number, client, key) };
            Ask::Change(Command::Put(put))
        }
        5 => {
            client.leases.pop();
            Ask::Change(Command::LeaseRevoke { id: lease })
        }
        _ => Ask::Renew(lease),
    }
}

/// The interval of all keys that clients use.
pub(crate) fn all_keys() -> (Bytes, Bytes) {
    (Bytes::from_static(b"k"), Bytes::from_static(b"l"))
}

pub(crate) fn compaction(revision: i64) -> Ask {
    Ask::Change(Command::Compact(CompactionRequest { revision, physical: false }))
}

pub(crate) fn key(number: u64) -> Bytes {
    Bytes::from(format!("k{number:02}"))
}

/// No two puts of a run store the same value.
fn put(
    chance: &mut Chance,
    plan: &ClientPlan,
    number: usize,
    client: &mut Client,
    key: Bytes,
) -> PutRequest {
    client.values += 1;
    let mut value = format!("{number}.{}", client.values).into_bytes();
    let bytes = chance.below(plan.value_bytes_max) as usize;
    value.resize(value.len().max(bytes), b'x');
    PutRequest { key, value: value.into(), prev_kv: chance.percent(30), ..PutRequest::default() }
}

impl World<'_> {
    pub(crate) fn is_probe(&self, client: usize) -> bool {
        self.clients[client].part != Part::Usual
    }

    pub(crate) fn on_client(&mut self, number: usize) {
        let is_open = self.plan.clients.is_open && !self.is_probe(number);
        if self.clients[number].part == Part::Operator
            || (self.clients[number].waits.is_some() && !is_open)
        {
            return;
        }
        let may_lease = self.plan.clients.leases && self.faults_are_on && !self.is_probe(number);
        let client = &mut self.clients[number];
        let ask = draw(&mut self.chance, &self.plan.clients, number, client, may_lease);
        let op = self.ask(number, ask);
        self.clients[number].waits = Some(op);
        if is_open {
            self.next_of(number);
        }
    }

    pub(crate) fn ask(&mut self, client: usize, ask: Ask) -> OpId {
        self.next_op += 1;
        let op = self.next_op;
        // One that does not wait counts as many.
        let is_open = self.plan.clients.is_open && !self.is_probe(client);
        let who = if is_open { 1000 + op } else { client as u64 };
        self.checks.on_ask(op, who, self.now, &ask);
        let id = self.nodes[self.clients[client].member].id;
        let delay = self.chance.between(50, 2_000);
        self.push(self.now + delay, Event::Any { id, what: What::Ask { client, op, ask } });
        let timeout = self.plan.clients.timeout_us;
        self.push(self.now + timeout, Event::GiveUp { client, op });
        op
    }

    pub(crate) fn on_answer(&mut self, client: usize, op: OpId, said: Said) {
        if self.trace.is_some() {
            let text = format!("client {client} hears of {op}: {said:?}");
            self.trace(NodeId(0), &text);
        }
        self.checks.on_said(op, self.now, &said);
        if let Said::Changed(Ok(Response::LeaseGrant(lease))) = &said {
            self.clients[client].leases.push(lease.id);
        }
        if let Said::Read(Ok(read)) = &said
            && let Some(pair) = read.kvs.first()
        {
            self.clients[client].seen = pair.mod_revision;
        }
        if self.clients[client].part == Part::Probe {
            let at = self.clients[client].member;
            match &said {
                Said::Changed(Ok(_)) => self.probed[at].0 = true,
                Said::Read(Ok(_)) => self.probed[at].1 = true,
                _ => {}
            }
        }
        if self.clients[client].waits == Some(op) {
            self.clients[client].waits = None;
            self.clients[client].gave_up = 0;
            if matches!(said, Said::Refused(_)) {
                self.move_on(client);
            }
            if !self.plan.clients.is_open || self.is_probe(client) {
                self.next_of(client);
            }
        }
    }

    /// A client waits no longer for what it asked.
    pub(crate) fn on_give_up(&mut self, client: usize, op: OpId) {
        if self.clients[client].waits == Some(op) {
            self.clients[client].waits = None;
            self.clients[client].gave_up += u32::from(!self.faults_are_on);
            self.move_on(client);
            self.next_of(client);
        }
        self.checks.on_give_up(op);
    }

    /// A client that heard nothing good turns to another member.
    pub(crate) fn move_on(&mut self, client: usize) {
        let at = self.chance.below(self.nodes.len() as u64) as usize;
        if !self.is_probe(client) && !self.plan.clients.stay {
            self.clients[client].member = at;
        }
    }

    pub(crate) fn next_of(&mut self, client: usize) {
        let think = self.chance.around(self.plan.clients.think_us);
        // What nobody waits for any more is worked off nevertheless, before what is asked for later.
        let doublings = self.clients[client].gave_up.min(DOUBLINGS_MAX);
        let pause = (think << doublings).min(PAUSE_US_MAX).max(think);
        self.push(self.now + pause, Event::Client(client));
    }
}
