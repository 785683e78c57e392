//! The world: members, network, clients and faults on one thread, driven by one queue of events in
//! the order of time and arrival. All chance comes from one seed, so a run is a function of it.

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap};

use bytes::Bytes;
use quorate_kv::{Response, WatchCreateRequest};
use quorate_replica::{Engine, Message};
use quorate_types::{NodeId, bug};

use crate::chance::Chance;
use crate::check::Checks;
use crate::clients::{self, Client, Part};
use crate::faults::Fault;
use crate::network::Network;
use crate::node::{Ask, Damage, Ended, Node, Said};
use crate::operator::Operator;
use crate::plan::{Plan, SECOND};
use crate::transfer::Chunk;
use crate::watching::{Told, Watcher};

/// An operation of a client.
pub(crate) type OpId = u64;

/// Something that happens at a time.
pub(crate) enum Event {
    /// To a process.
    Node {
        id: NodeId,
        life: u64,
        what: What,
    },
    /// To whatever process a member runs then.
    Any {
        id: NodeId,
        what: What,
    },
    /// A client asks the next thing.
    Client(usize),
    /// A client hears an answer.
    Answer {
        client: usize,
        op: OpId,
        said: Said,
    },
    /// A watcher connects.
    Watch(usize),
    /// It leaves that member again.
    Leave {
        watcher: usize,
        connection: u64,
    },
    /// It hears something.
    Told {
        watcher: usize,
        connection: u64,
        told: Told,
    },
    /// A client waits no longer.
    GiveUp {
        client: usize,
        op: OpId,
    },
    /// A member is started.
    Start(NodeId),
    /// A member is stopped in an orderly way, and started.
    Restart(NodeId),
    LosePower(NodeId),
    FreeDisk(NodeId),
    Heal,
    Fault(Fault, u64),
    Operator,
    Compact,
}

/// What happens to a process.
pub(crate) enum What {
    Tick,
    /// A tick that a jumping clock makes up for.
    ExtraTick,
    Deliver {
        from: NodeId,
        bytes: Bytes,
    },
    Ask {
        client: usize,
        op: OpId,
        ask: Ask,
    },
    Disk,
    Apply,
    Flush,
    SendChunk {
        transfer: u64,
    },
    Chunk {
        from: NodeId,
        from_life: u64,
        transfer: u64,
        chunk: Chunk,
    },
    Sent {
        transfer: u64,
        ok: bool,
    },
    Watch {
        watcher: usize,
        connection: u64,
        request: WatchCreateRequest,
        is_slow: bool,
    },
    Unwatch {
        watcher: usize,
        connection: u64,
    },
    Transfer(NodeId),
    HandOver,
    /// The transport does not reach a member.
    Unreachable(NodeId),
}

struct Queued {
    time: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.time, self.number) == (other.time, other.number)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time, other.number).cmp(&(self.time, self.number))
    }
}

/// Events in the order of time, and of their coming where that is equal.
#[derive(Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Queued>,
    count: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.heap.push(Queued { time, number: self.count, event });
    }

    fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|queued| (queued.time, queued.event))
    }

    fn len(&self) -> usize {
        self.heap.len()
    }
}

/// Whoever wants to see every event.
pub(crate) type Trace<'a> = Option<&'a mut dyn FnMut(String)>;

pub(crate) struct World<'t> {
    pub(crate) plan: Plan,
    pub(crate) now: u64,
    pub(crate) chance: Chance,
    pub(crate) nodes: Vec<Node>,
    pub(crate) net: Network,
    pub(crate) checks: Checks,
    pub(crate) operator: Operator,
    pub(crate) clients: Vec<Client>,
    pub(crate) watchers: Vec<Watcher>,
    /// Where watchers connect, if not anywhere.
    pub(crate) watch_at: Option<Vec<usize>>,
    queue: Queue,
    next_op: OpId,
    next_transfer: u64,
    pub(crate) faults_are_on: bool,
    /// Faults that came when there was nothing they could happen to, as a transfer without a leader.
    pub(crate) void_faults: BTreeSet<Fault>,
    /// Members that have answered a write and a read since everything was healed.
    pub(crate) probed: Vec<(bool, bool)>,
    trace: Trace<'t>,
}

/// What a member has of the world.
pub(crate) struct Cx<'a> {
    pub(crate) now: u64,
    pub(crate) chance: &'a mut Chance,
    pub(crate) plan: &'a Plan,
    pub(crate) checks: &'a mut Checks,
    queue: &'a mut Queue,
    net: &'a mut Network,
    next_transfer: &'a mut u64,
}

impl Cx<'_> {
    pub(crate) fn after(&mut self, us: u64, id: NodeId, life: u64, what: What) {
        self.queue.push(self.now + us, Event::Node { id, life, what });
    }

    pub(crate) fn send(&mut self, from: NodeId, to: NodeId, message: &Message) {
        let Some(delay) = self.net.delay(self.chance, from, to) else {
            self.checks.count_fault(Fault::Loss.name());
            if self.net.is_cut(from, to) {
                self.tell_unreachable(from, to);
            }
            return;
        };
        let bytes = match message.encode().as_slice() {
            [one] => one.clone(),
            several => Bytes::from(several.concat()),
        };
        // A connection delivers nothing twice; the engine is to bear it, but for a proposal that it
        // passes on, which would be made twice.
        let may_repeat = !message.is_proposal() || bug!("what-is-passed-on-comes-twice");
        if may_repeat && self.net.comes_twice(self.chance) {
            self.checks.count_fault(Fault::Duplication.name());
            let later = self.net.delay(self.chance, from, to).unwrap_or(delay);
            let what = What::Deliver { from, bytes: bytes.clone() };
            self.queue.push(self.now + later, Event::Any { id: to, what });
        }
        if self.net.overtakes(from, to, self.now + delay) {
            self.checks.count_fault(Fault::Reordering.name());
        }
        let what = What::Deliver { from, bytes };
        self.queue.push(self.now + delay, Event::Any { id: to, what });
    }

    /// The transport notices now and then that what it sends does not arrive.
    fn tell_unreachable(&mut self, from: NodeId, to: NodeId) {
        if self.plan.engine == Engine::Zab && self.chance.percent(30) {
            let delay = self.chance.between(1_000, 500_000);
            self.queue.push(self.now + delay, Event::Any { id: from, what: What::Unreachable(to) });
        }
    }

    pub(crate) fn answer(&mut self, client: usize, op: OpId, said: Said) {
        let delay = self.chance.between(50, 2_000);
        self.queue.push(self.now + delay, Event::Answer { client, op, said });
    }

    pub(crate) fn tell_watcher(&mut self, at: u64, watcher: usize, connection: u64, told: Told) {
        self.queue.push(at, Event::Told { watcher, connection, told });
    }

    pub(crate) fn next_transfer(&mut self) -> u64 {
        *self.next_transfer += 1;
        *self.next_transfer
    }

    /// Sends a piece of a stream, unless its connection is gone.
    pub(crate) fn send_chunk(
        &mut self,
        from: NodeId,
        life: u64,
        to: NodeId,
        transfer: u64,
        chunk: Chunk,
    ) -> bool {
        let breaks = self.chance.permille(self.net.plan.loss_permille / 10);
        if self.net.is_cut(from, to) || self.net.is_cut(to, from) || breaks {
            return false;
        }
        self.send_chunk_always(from, life, to, transfer, chunk);
        true
    }

    pub(crate) fn send_chunk_always(
        &mut self,
        from: NodeId,
        from_life: u64,
        to: NodeId,
        transfer: u64,
        chunk: Chunk,
    ) {
        let ends = matches!(chunk, Chunk::End | Chunk::Broken);
        let time = self.net.stream(self.chance, self.now, from, to, transfer);
        let what = What::Chunk { from, from_life, transfer, chunk };
        self.queue.push(time, Event::Any { id: to, what });
        if ends {
            self.net.end_stream(transfer);
        }
    }

    /// Tells who sends a stream how it ended.
    pub(crate) fn tell_sender(&mut self, from: NodeId, to: NodeId, transfer: u64, ok: bool) {
        let delay = self.net.delay(self.chance, from, to).unwrap_or(5 * SECOND);
        // A lost word is a broken connection to the sender.
        let ok = ok && delay < 5 * SECOND;
        self.queue.push(self.now + delay, Event::Any { id: to, what: What::Sent { transfer, ok } });
    }
}

impl<'t> World<'t> {
    pub(crate) fn new(seed: u64, plan: Plan, trace: Trace<'t>) -> World<'t> {
        let mut chance = Chance::new(seed ^ 0x77_6f72_6c64);
        let voters: Vec<NodeId> = (1..=plan.members as u64).map(NodeId).collect();
        let nodes = voters
            .iter()
            .map(|id| {
                let skew = chance.below(plan.tick_us / 10);
                Node::new(*id, voters.clone(), plan.tick_us + skew)
            })
            .collect();
        let mut checks = Checks::new(&voters);
        checks.expect_states_every(plan.compare_every);
        let mut world = World {
            now: 0,
            nodes,
            net: Network::new(plan.network.clone()),
            checks,
            operator: Operator::default(),
            clients: Vec::new(),
            watchers: Vec::new(),
            watch_at: None,
            queue: Queue::default(),
            next_op: 0,
            next_transfer: 0,
            faults_are_on: true,
            void_faults: BTreeSet::new(),
            probed: Vec::new(),
            trace,
            chance,
            plan,
        };
        for id in voters {
            let time = world.chance.below(SECOND);
            world.push(time, Event::Start(id));
        }
        for number in 0..world.plan.clients.clients {
            let member = world.chance.below(world.plan.members as u64) as usize;
            world.clients.push(Client { member, ..Client::default() });
            let time = world.chance.around(world.plan.clients.think_us);
            world.push(time, Event::Client(number));
        }
        if world.plan.clients.leases {
            world.checks.leases_change_keys();
        }
        world.add_watchers();
        for (fault, every) in world.plan.faults.clone() {
            if !fault.is_ambient() {
                let time = world.chance.below(every.min(world.plan.duration_us / 2));
                world.push(SECOND + time, Event::Fault(fault, every));
            }
        }
        world.push(SECOND, Event::Operator);
        if world.plan.clients.compact_us != 0 {
            world.push(world.plan.clients.compact_us, Event::Compact);
        }
        world
    }

    /// Runs until `time`, or until a promise is broken.
    pub(crate) fn run_until(&mut self, time: u64) {
        while self.checks.violation().is_none() {
            let Some((at, event)) = self.queue.pop() else { break };
            if time < at {
                self.queue.push(at, event);
                break;
            }
            assert!(self.now <= at, "time goes on");
            self.now = at;
            self.step(event);
            self.checks.on_events(self.queue.len());
        }
        self.now = self.now.max(time);
    }

    pub(crate) fn push(&mut self, time: u64, event: Event) {
        self.queue.push(time, event);
    }

    /// Where a member stands among `nodes`.
    pub(crate) fn place(&self, id: NodeId) -> usize {
        id.0 as usize - 1
    }

    /// Who leads, in the newest term.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leaders = self.nodes.iter().filter(|node| node.leads());
        leaders.max_by_key(|node| node.glance().map(|glance| glance.term)).map(|node| node.id)
    }

    pub(crate) fn trace(&mut self, id: NodeId, what: &str) {
        if let Some(trace) = &mut self.trace {
            let (seconds, us) = (self.now / SECOND, self.now % SECOND);
            trace(format!("{seconds:>6}.{us:06}  n{:<3} {what}", id.0));
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Node { id, life, what } => {
                if self.nodes[self.place(id)].life == life {
                    self.on_node(id, what);
                }
            }
            Event::Any { id, what } => self.on_node(id, what),
            Event::Client(number) => self.on_client(number),
            Event::Answer { client, op, said } => self.on_answer(client, op, said),
            Event::Watch(watcher) => self.on_watch(watcher),
            Event::Leave { watcher, connection } => self.on_leave(watcher, connection),
            Event::Told { watcher, connection, told } => self.on_told(watcher, connection, told),
            Event::GiveUp { client, op } => {
                if self.clients[client].waits == Some(op) {
                    self.clients[client].waits = None;
                    let at = self.chance.below(self.nodes.len() as u64) as usize;
                    if !self.is_probe(client) {
                        self.clients[client].member = at;
                    }
                    self.next_of(client);
                }
                self.checks.on_give_up(op);
            }
            Event::Start(id) => self.start(id),
            Event::Restart(id) => {
                self.crash(id, false);
            }
            Event::LosePower(id) => {
                if self.faults_are_on && !self.nodes[self.place(id)].is_gone {
                    self.crash(id, true);
                }
            }
            Event::FreeDisk(id) => self.free_disk(id),
            Event::Heal => {
                if self.faults_are_on {
                    self.net.heal(|_, _| false);
                }
            }
            Event::Fault(fault, every) => {
                if !self.faults_are_on {
                    return;
                }
                // Where there was nothing it could happen to, there may be soon.
                let mut next = self.now + SECOND / 4;
                if self.strike(fault) {
                    self.checks.count_fault(fault.name());
                    self.trace(NodeId(0), fault.name());
                    next = self.now + self.chance.around(every);
                } else {
                    self.void_faults.insert(fault);
                }
                self.push(next, Event::Fault(fault, every));
            }
            Event::Operator => {
                self.operate();
                self.push(self.now + SECOND, Event::Operator);
            }
            Event::Compact => {
                // Now and then one that came too late.
                let late = if self.chance.percent(20) { 3 } else { 0 };
                let low = (self.checks.compacted() + 1 - late).max(0);
                let high = self.checks.revision();
                let revision = low + self.chance.below((high - low).max(1) as u64) as i64;
                let client = self.chance.below(self.plan.clients.clients as u64) as usize;
                self.ask(client, clients::compaction(revision));
                self.push(self.now + self.plan.clients.compact_us, Event::Compact);
            }
        }
    }

    /// Gives a member an event, and ends it when it breaks.
    pub(crate) fn on_node(&mut self, id: NodeId, what: What) {
        let at = self.place(id);
        if self.now < self.nodes[at].paused_until {
            let (time, life) = (self.nodes[at].paused_until, self.nodes[at].life);
            let event = match what {
                // Those come from elsewhere and find whoever runs then.
                what @ (What::Deliver { .. } | What::Chunk { .. } | What::Sent { .. }) => {
                    Event::Any { id, what }
                }
                what => Event::Node { id, life, what },
            };
            self.push(time, event);
            return;
        }
        if self.nodes[at].process.is_none() {
            if let What::Ask { client, op, .. } = what {
                let said = Said::Refused("nobody listens");
                self.push(self.now + 1000, Event::Answer { client, op, said });
            }
            if let What::Watch { watcher, connection, .. } = what {
                let told = Told::Closed;
                self.push(self.now + 1000, Event::Told { watcher, connection, told });
                return;
            }
            if let What::Chunk { from, transfer, .. } = what {
                let what = What::Sent { transfer, ok: false };
                self.push(self.now + 1000, Event::Any { id: from, what });
            }
            return;
        }
        if self.trace.is_some() {
            self.trace_event(id, &what);
        }
        let ended = self.with(at, |node, cx| node.handle(cx, what));
        if let Err(Ended(why)) = ended {
            self.trace(id, &format!("ends by itself: {why}"));
            self.checks.count("ended by themselves");
            if !self.nodes[at].may_end(&why) {
                self.checks.fail(format!("{id} ends by itself, and nothing was wrong: {why}"));
            }
            self.crash(id, false);
        }
    }

    /// Ends a member's process and has it started again after a while; whether there was one.
    pub(crate) fn crash(&mut self, id: NodeId, loses_power: bool) -> bool {
        let at = self.place(id);
        if self.nodes[at].process.is_none() {
            return false;
        }
        self.trace(id, if loses_power { "loses power" } else { "crashes" });
        self.with(at, |node, cx| node.crash(cx, loses_power));
        self.checks.on_new_process(id);
        self.nodes[at].paused_until = 0;
        let down = self.chance.around(2 * self.plan.election_us());
        self.push(self.now + down, Event::Start(id));
        true
    }

    fn start(&mut self, id: NodeId) {
        let at = self.place(id);
        if self.nodes[at].process.is_some() || self.nodes[at].is_gone {
            return;
        }
        let started = self.with(at, Node::start);
        let Err(Ended(why)) = started else {
            self.trace(id, "starts");
            self.checks.count("starts");
            return;
        };
        self.trace(id, &format!("does not start: {why}"));
        self.checks.count("refused to start");
        self.with(at, |node, cx| node.crash(cx, false));
        self.nodes[at].disk.kill();
        if self.nodes[at].damage != Damage::None {
            // It said so; it has to be replaced.
            self.nodes[at].is_gone = true;
            self.checks.count("damaged and refused");
        } else if self.nodes[at].may_end(&why) {
            self.push(self.now + SECOND, Event::Start(id));
        } else {
            self.checks.fail(format!("{id} does not start, and nothing was wrong: {why}"));
        }
    }

    pub(crate) fn free_disk(&mut self, id: NodeId) {
        let at = self.place(id);
        self.nodes[at].flush_hangs = false;
        self.nodes[at].disk.set_space(u64::MAX);
        if self.nodes[at].disk_hangs {
            self.with(at, Node::release_disk);
        }
    }

    pub(crate) fn with<T>(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Node, &mut Cx<'_>) -> T,
    ) -> T {
        let cx = &mut Cx {
            now: self.now,
            chance: &mut self.chance,
            plan: &self.plan,
            checks: &mut self.checks,
            queue: &mut self.queue,
            net: &mut self.net,
            next_transfer: &mut self.next_transfer,
        };
        act(&mut self.nodes[at], cx)
    }

    // ── clients ──

    pub(crate) fn is_probe(&self, client: usize) -> bool {
        self.clients[client].part != Part::Usual
    }

    fn on_client(&mut self, number: usize) {
        let is_open = self.plan.clients.is_open && !self.is_probe(number);
        if self.clients[number].part == Part::Operator
            || (self.clients[number].waits.is_some() && !is_open)
        {
            return;
        }
        let may_lease = self.plan.clients.leases && self.faults_are_on && !self.is_probe(number);
        let client = &mut self.clients[number];
        let ask = clients::draw(&mut self.chance, &self.plan.clients, number, client, may_lease);
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

    fn on_answer(&mut self, client: usize, op: OpId, said: Said) {
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
            if matches!(said, Said::Refused(_)) && !self.is_probe(client) {
                let members = self.nodes.len() as u64;
                self.clients[client].member = self.chance.below(members) as usize;
            }
            if !self.plan.clients.is_open || self.is_probe(client) {
                self.next_of(client);
            }
        }
    }

    fn next_of(&mut self, client: usize) {
        let think = self.chance.around(self.plan.clients.think_us);
        self.push(self.now + think, Event::Client(client));
    }

    fn trace_event(&mut self, id: NodeId, what: &What) {
        let text = match what {
            What::Tick | What::ExtraTick => return,
            What::Deliver { from, bytes } => match Message::decode(self.plan.engine, bytes.clone())
            {
                Ok(Message::Raft(message)) => {
                    format!("hears from n{}: term {} {:?}", from.0, message.term, message.body)
                }
                Ok(Message::Zab(packet)) => format!("hears from n{}: {packet:?}", from.0),
                Err(error) => format!("hears nonsense: {error}"),
            },
            What::Ask { client, op, ask } => format!("is asked by client {client}, {op}: {ask:?}"),
            What::Disk => "disk".to_owned(),
            What::Apply => "machine".to_owned(),
            What::Flush => "flush".to_owned(),
            What::SendChunk { transfer } => format!("sends a piece of snapshot {transfer}"),
            What::Chunk { from, transfer, chunk, .. } => {
                let chunk = match chunk {
                    Chunk::Begin(_) => "begins",
                    Chunk::More(_) => "goes on",
                    Chunk::End => "ends",
                    Chunk::Broken => "breaks",
                };
                format!("snapshot {transfer} of n{} {chunk}", from.0)
            }
            What::Sent { transfer, ok } => format!("snapshot {transfer} has arrived: {ok}"),
            What::Watch { request, .. } => format!("is watched from {}", request.start_revision),
            What::Unwatch { .. } => return,
            What::Transfer(to) => format!("is to hand over to n{}", to.0),
            What::HandOver => "is to hand over".to_owned(),
            What::Unreachable(to) => format!("does not reach n{}", to.0),
        };
        self.trace(id, &text);
    }
}
