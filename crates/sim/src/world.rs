//! The world: members, network, clients and faults on one thread, driven by one queue of events in
//! the order of time and arrival. All chance comes from one seed, so a run is a function of it.

mod cx;

pub(crate) use cx::{Cx, Queue};

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_kv::WatchCreateRequest;
use quorate_replica::Message;
use quorate_types::{Life, NodeId};

use crate::chance::Chance;
use crate::check::Checks;
use crate::clients::{self, Client};
use crate::faults::{Fault, Struck};
use crate::lives::OTHER_LIFE;
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
    /// A member is stopped in an orderly way, and started, with other settings or with its own.
    Restart(NodeId, bool),
    /// A machine loses power, and is back at once.
    Ambush(NodeId, u64),
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
    /// It wanted to be told the time then.
    Wake,
    Deliver {
        from: NodeId,
        from_life: u64,
        bytes: Bytes,
    },
    /// Another member knows this one by another log, not by that of this life.
    RefusedLife {
        by: NodeId,
        life: Life,
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
    pub(crate) next_op: OpId,
    next_transfer: u64,
    pub(crate) faults_are_on: bool,
    /// Faults that came when there was nothing they could happen to, as a transfer without a leader.
    pub(crate) void_faults: BTreeSet<Fault>,
    /// Members that have answered a write and a read since everything was healed.
    pub(crate) probed: Vec<(bool, bool)>,
    pub(crate) trace: Trace<'t>,
}

impl<'t> World<'t> {
    pub(crate) fn new(seed: u64, plan: Plan, trace: Trace<'t>) -> World<'t> {
        let mut chance = Chance::new(seed ^ 0x77_6f72_6c64);
        let voters: Vec<NodeId> = (1..=plan.members as u64).map(NodeId).collect();
        let nodes =
            voters.iter().map(|id| Node::new(*id, voters.clone(), &plan, &mut chance)).collect();
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
            let members = world.plan.members;
            let member = match world.plan.clients.stay {
                true => number % members,
                false => world.chance.below(members as u64) as usize,
            };
            world.clients.push(Client { member, ..Client::default() });
            let time = world.chance.around(world.plan.clients.think_us);
            world.push(time, Event::Client(number));
        }
        if world.plan.clients.leases {
            world.checks.leases_change_keys();
        }
        world.checks.allow_drift(world.plan.drift_permille);
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
            Event::GiveUp { client, op } => self.on_give_up(client, op),
            Event::Start(id) => self.start(id),
            Event::Restart(id, is_other) => {
                if self.crash(id, false) && is_other {
                    self.change_settings(id);
                }
            }
            Event::Ambush(id, life) => {
                let at = self.place(id);
                if self.nodes[at].life == life && self.faults_are_on && !self.nodes[at].is_gone {
                    self.checks.count_fault(Fault::Ambush.name());
                    let down = self.chance.around(50_000);
                    self.crash_for(id, true, down);
                }
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
                let struck = self.strike(fault);
                if struck == Struck::Now {
                    self.checks.count_fault(fault.name());
                } else {
                    self.void_faults.insert(fault);
                }
                let wait = match struck {
                    Struck::Nothing => SECOND / 4,
                    Struck::Now | Struck::Later => {
                        self.trace(NodeId(0), fault.name());
                        self.chance.around(every)
                    }
                };
                self.push(self.now + wait, Event::Fault(fault, every));
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
    pub(crate) fn on_node(&mut self, id: NodeId, mut what: What) {
        let at = self.place(id);
        if let What::Deliver { from, from_life, .. } = &what
            && (*from_life <= self.nodes[self.place(*from)].unheard || self.is_refused(*from, id))
        {
            return;
        }
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
        if let What::Chunk { from, transfer, chunk, .. } = &mut what
            && self.is_refused(*from, id)
        {
            // What it had begun before breaks off.
            *chunk = Chunk::Broken;
            let (from, transfer) = (*from, *transfer);
            let sent = What::Sent { transfer, ok: false };
            self.push(self.now + 1000, Event::Any { id: from, what: sent });
        }
        if self.trace.is_some() {
            self.trace_event(id, &what);
        }
        self.nodes[at].has_spoken = false;
        let ended = self.with(at, |node, cx| node.handle(cx, what));
        self.count_happened(at);
        self.ambush(at);
        if let Err(Ended(why)) = ended {
            self.trace(id, &format!("ends by itself: {why}"));
            self.checks.count("ended by themselves");
            if !self.nodes[at].may_end(&why) {
                self.checks.fail(format!("{id} ends by itself, and nothing was wrong: {why}"));
            }
            self.crash(id, false);
            if self.nodes[at].damage == Damage::Wiped && why.contains(OTHER_LIFE) {
                // It has to join anew, as another.
                self.nodes[at].is_gone = true;
                self.checks.count("wiped and refused");
            }
        }
    }

    /// Ends a member's process and has it started again after a while; whether there was one.
    pub(crate) fn crash(&mut self, id: NodeId, loses_power: bool) -> bool {
        let down = self.chance.around(self.plan.restart_us);
        self.crash_for(id, loses_power, down)
    }

    /// A machine that is to lose power once it has said something, with its disk at work, does so soon.
    fn ambush(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.is_ambushed && node.has_spoken && node.is_writing() {
            node.is_ambushed = false;
            let (id, life) = (node.id, node.life);
            let within = self.plan.disk_us(&mut self.chance, 1);
            let soon = self.chance.below(within);
            self.push(self.now + soon, Event::Ambush(id, life));
        }
    }

    fn change_settings(&mut self, id: NodeId) {
        let settings = self.chance.number().max(1);
        let segment_bytes = *self.chance.pick(&[4 << 10, 16 << 10, 64 << 10]);
        let at = self.place(id);
        (self.nodes[at].settings, self.nodes[at].segment_bytes) = (settings, segment_bytes);
    }

    fn crash_for(&mut self, id: NodeId, loses_power: bool, down: u64) -> bool {
        let at = self.place(id);
        if self.nodes[at].process.is_none() {
            return false;
        }
        self.trace(id, if loses_power { "loses power" } else { "crashes" });
        self.with(at, |node, cx| node.crash(cx, loses_power));
        self.checks.on_new_process(id);
        self.nodes[at].paused_until = 0;
        self.push(self.now + down, Event::Start(id));
        true
    }

    fn start(&mut self, id: NodeId) {
        let at = self.place(id);
        if self.nodes[at].process.is_some() || self.nodes[at].is_gone {
            return;
        }
        let started = self.with(at, Node::start);
        self.count_happened(at);
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

    fn trace_event(&mut self, id: NodeId, what: &What) {
        let text = match what {
            What::Tick | What::ExtraTick | What::Wake => return,
            What::Deliver { from, bytes, .. } => {
                match Message::decode(self.plan.engine, bytes.clone()) {
                    Ok(Message::Raft(message)) => {
                        format!("hears from n{}: term {} {:?}", from.0, message.term, message.body)
                    }
                    Ok(Message::Zab(packet)) => format!("hears from n{}: {packet:?}", from.0),
                    Err(error) => format!("hears nonsense: {error}"),
                }
            }
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
            What::RefusedLife { by, .. } => format!("is refused by n{}", by.0),
            What::Transfer(to) => format!("is to hand over to n{}", to.0),
            What::HandOver => "is to hand over".to_owned(),
            What::Unreachable(to) => format!("does not reach n{}", to.0),
        };
        self.trace(id, &text);
    }
}
