//! One node whose peers are played by hand: what comes in is written in the test, and so is what
//! must go out.

use quorate_types::Index;
use quorate_zab::{
    Address, CloseReason, Command, Config, ConnId, CustomRequest, Entry, Epoch, EpochAck, Event,
    FollowerInfo, HardState, LeaderInfo, LogEntry, MemoryStorage, Message, Note, Op, Outcome,
    PeerStatus, Proposal, ProposalId, ReadFailure, ReadId, Role, Vote, Write, Zab, Zxid, caps,
};

use crate::gometa::Disk;
use crate::net::{config, member};

pub(crate) fn id(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

/// The entry that goes by this id in all of these tests.
pub(crate) fn command(zxid: Zxid) -> Command {
    Command::set("k", zxid.to_string())
}

pub(crate) fn entry(zxid: Zxid) -> Message {
    Message::LogEntry(LogEntry { zxid, command: command(zxid), keep: None })
}

pub(crate) fn begin(committed: Zxid, keep: Zxid) -> Message {
    Message::LogEntry(LogEntry::begin(committed, Some(keep)))
}

pub(crate) fn end(committed: Zxid) -> Message {
    Message::LogEntry(LogEntry::end(committed))
}

pub(crate) fn proposal(zxid: Zxid) -> Message {
    let (fid, request) = (Address::default(), 0);
    Message::Proposal(Proposal { zxid, fid, request, command: command(zxid) })
}

pub(crate) fn inform(zxid: Zxid) -> Message {
    let (fid, request) = (Address::default(), 0);
    Message::Inform(Proposal { zxid, fid, request, command: command(zxid) })
}

pub(crate) fn commit(zxid: Zxid) -> Message {
    Message::Commit { zxid }
}

pub(crate) fn accept(of: u64, zxid: Zxid) -> Message {
    Message::Accept { zxid, fid: member(of).message }
}

pub(crate) fn new_leader(epoch: u32) -> Message {
    Message::NewLeader { epoch: Epoch(epoch) }
}

/// How a voter of ours introduces itself.
pub(crate) fn info(of: u64, accepted: u32) -> FollowerInfo {
    FollowerInfo {
        accepted_epoch: Epoch(accepted),
        fid: member(of).message,
        voting: true,
        caps: Some(caps::ALL),
        accepted_leader: None,
    }
}

pub(crate) fn ack(current: u32, logged: Zxid, committed: Zxid) -> Message {
    Message::EpochAck(EpochAck {
        logged,
        current_epoch: Epoch(current),
        committed: Some(committed),
    })
}

/// What was in a storage before the test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    pub(crate) accepted: u32,
    pub(crate) accepted_leader: Option<u64>,
    pub(crate) current: u32,
    pub(crate) committed: Zxid,
    pub(crate) ids: Vec<Zxid>,
}

impl Past {
    pub(crate) fn of_epoch(epoch: u32, ids: &[Zxid], committed: Zxid) -> Self {
        let (accepted, current, accepted_leader) = (epoch, epoch, Some(9));
        Past { accepted, accepted_leader, current, committed, ids: ids.to_vec() }
    }

    /// The same, as a gometa process leaves it.
    pub(crate) fn disk(&self) -> Disk {
        let mut disk = Disk {
            accepted: Epoch(self.accepted),
            current: Epoch(self.current),
            last_committed: self.committed,
            ..Disk::default()
        };
        for zxid in &self.ids {
            disk.keep(*zxid, command(*zxid));
        }
        disk
    }

    pub(crate) fn storage(&self) -> MemoryStorage {
        let storage = MemoryStorage::new();
        let entries: Vec<Entry> = (1..)
            .zip(&self.ids)
            .map(|(index, zxid)| Entry {
                index: Index(index),
                zxid: *zxid,
                command: command(*zxid),
            })
            .collect();
        let hard_state = HardState {
            accepted_epoch: Epoch(self.accepted),
            accepted_leader: self.accepted_leader.map(|id| member(id).message),
            current_epoch: Epoch(self.current),
            committed: self.committed,
        };
        let write = Write {
            replace_from: Some(Index(1)),
            entries,
            hard_state: Some(hard_state),
            ..Write::default()
        };
        storage.write(&write).unwrap();
        storage
    }
}

pub(crate) struct Hand {
    pub(crate) zab: Zab<MemoryStorage>,
    pub(crate) storage: MemoryStorage,
    pub(crate) now_ms: u64,
    pub(crate) out: Vec<(ConnId, Message)>,
    pub(crate) datagrams: Vec<(Address, Vote)>,
    pub(crate) connect: Vec<Address>,
    pub(crate) closed: Vec<ConnId>,
    pub(crate) writes: Vec<Write>,
    pub(crate) committed: Vec<Zxid>,
    pub(crate) answers: Vec<(ProposalId, Outcome)>,
    pub(crate) reads: Vec<(ReadId, Result<Index, ReadFailure>)>,
    pub(crate) custom: Vec<CustomRequest>,
    pub(crate) notes: Vec<Note>,
    /// Whether writes wait for `sync`.
    pub(crate) is_disk_held: bool,
    /// Whether nothing is reported as written.
    pub(crate) is_net_held: bool,
    next_conn: u64,
}

impl Hand {
    pub(crate) fn new(config: Config, past: &Past) -> Self {
        let storage = past.storage();
        let zab = Zab::new(config, storage.clone(), 0).unwrap();
        Hand {
            zab,
            storage,
            now_ms: 0,
            out: Vec::new(),
            datagrams: Vec::new(),
            connect: Vec::new(),
            closed: Vec::new(),
            writes: Vec::new(),
            committed: Vec::new(),
            answers: Vec::new(),
            reads: Vec::new(),
            custom: Vec::new(),
            notes: Vec::new(),
            is_disk_held: false,
            is_net_held: false,
            next_conn: 1,
        }
    }

    /// Node `of` of three.
    pub(crate) fn of_three(of: u64, past: &Past) -> Self {
        Self::new(config(of, 3), past)
    }

    pub(crate) fn handle(&mut self, event: Event) {
        self.zab.handle(event).unwrap();
        self.drive();
    }

    pub(crate) fn drive(&mut self) {
        self.zab.check();
        while self.zab.has_ready() {
            let ready = self.zab.ready().unwrap();
            for (conn, _) in ready.messages.iter().filter(|_| !self.is_net_held) {
                self.zab.handle(Event::Written { conn: *conn, count: 1 }).unwrap();
            }
            self.out.extend(ready.messages);
            self.datagrams.extend(ready.datagrams);
            self.connect.extend(ready.connect);
            self.closed.extend(ready.close);
            self.answers.extend(ready.answers);
            self.reads.extend(ready.reads);
            self.custom.extend(ready.custom);
            self.notes.extend(ready.notes);
            self.writes.extend(ready.write);
            for entry in ready.committed {
                self.committed.push(entry.zxid);
                self.zab.handle(Event::Applied(entry.index)).unwrap();
            }
            if !self.is_disk_held {
                self.sync();
            }
            self.zab.check();
        }
    }

    /// Everything handed out becomes durable.
    pub(crate) fn sync(&mut self) {
        for write in std::mem::take(&mut self.writes) {
            self.storage.write(&write).unwrap();
            self.zab.handle(Event::Persisted(write.id)).unwrap();
        }
    }

    pub(crate) fn sync_and_drive(&mut self) {
        self.sync();
        self.drive();
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now_ms += 10;
            let is_idle = self.now_ms < self.zab.wake_ms() && !self.zab.has_ready();
            self.zab.handle(Event::Tick { now_ms: self.now_ms }).unwrap();
            assert!(!is_idle || !self.zab.has_ready(), "it was not to wake before {}", self.now_ms);
            self.drive();
        }
    }

    pub(crate) fn hear(&mut self, conn: ConnId, message: Message) {
        self.handle(Event::Received { conn, message });
    }

    pub(crate) fn hear_vote(&mut self, from: u64, vote: Vote) {
        self.handle(Event::Datagram { from: member(from).election, vote });
    }

    /// What went out on a connection since the last look.
    pub(crate) fn sent(&mut self, to: ConnId) -> Vec<Message> {
        let (taken, kept) =
            std::mem::take(&mut self.out).into_iter().partition(|(conn, _)| *conn == to);
        self.out = kept;
        let taken: Vec<(ConnId, Message)> = taken;
        taken.into_iter().map(|(_, message)| message).collect()
    }

    pub(crate) fn role(&self) -> Role {
        self.zab.status().role
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.zab.status().is_serving
    }

    pub(crate) fn is_open(&self, conn: ConnId) -> bool {
        !self.closed.contains(&conn)
    }

    pub(crate) fn why_closed(&self, of: ConnId) -> Option<CloseReason> {
        self.notes.iter().find_map(|note| match note {
            Note::Closed { conn, why, .. } if *conn == of => Some(*why),
            _ => None,
        })
    }

    pub(crate) fn conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }

    /// All other members vote for `winner`.
    pub(crate) fn elect(&mut self, winner: u64, members: u64) {
        self.now_ms += 10;
        self.handle(Event::Tick { now_ms: self.now_ms });
        let own = self.zab.status().id.0;
        let standing = self.datagrams.last().map(|(_, vote)| vote.clone()).unwrap();
        for other in (1..=members).filter(|other| *other != own) {
            let vote = Vote {
                candidate: member(winner).election,
                status: PeerStatus::Electing,
                // Greater than whatever this node would say for itself, or just that.
                epoch: if winner == own { standing.epoch } else { Epoch(1000) },
                ..standing.clone()
            };
            self.hear_vote(other, vote);
        }
    }

    /// Somebody connects.
    pub(crate) fn accept(&mut self) -> ConnId {
        let conn = self.conn();
        self.handle(Event::Accepted { conn });
        conn
    }

    /// Somebody connects and introduces itself.
    pub(crate) fn meet(&mut self, info: FollowerInfo) -> ConnId {
        let conn = self.accept();
        self.hear(conn, Message::FollowerInfo(info));
        conn
    }

    /// A voter of ours goes through synchronization; says what it was sent.
    pub(crate) fn join(&mut self, of: u64, past: &Past) -> (ConnId, Vec<Message>) {
        let conn = self.meet(info(of, past.accepted));
        let last = past.ids.last().copied().unwrap_or_default();
        self.hear(conn, ack(past.current, last, past.committed));
        let sent = self.sent(conn);
        self.hear(conn, Message::NewLeaderAck);
        (conn, sent)
    }

    /// Node 3 of three becomes an established leader, with node 1 beside it.
    pub(crate) fn leading(past: &Past) -> (Self, ConnId) {
        let mut hand = Hand::of_three(3, past);
        hand.elect(3, 3);
        let (conn, _) = hand.join(1, &Past::default());
        assert!(hand.is_serving(), "{:?}", hand.notes);
        hand.sent(conn);
        (hand, conn)
    }

    /// Node 5 of five leads nodes 1 and 2. Only the first of them has said that it follows: it takes the other
    /// to establish it.
    pub(crate) fn short_of_one(config: Config) -> (Self, [ConnId; 2]) {
        let mut hand = Hand::new(config, &Past::default());
        hand.elect(5, 5);
        let conns = [1, 2].map(|of| hand.meet(info(of, 0)));
        for conn in conns {
            hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO));
        }
        hand.hear(conns[0], Message::NewLeaderAck);
        hand.sent(conns[0]);
        (hand, conns)
    }

    /// This node follows `leader`, which has settled `epoch`: up to the promise.
    pub(crate) fn follow(&mut self, leader: u64, epoch: u32, is_native: bool) -> ConnId {
        self.elect(leader, 3);
        let conn = self.connect_to(leader);
        self.sent(conn);
        let caps = is_native.then_some(caps::ALL);
        self.hear(conn, Message::LeaderInfo(LeaderInfo { epoch: Epoch(epoch), caps }));
        conn
    }

    /// This watcher follows 3, which leads `epoch` and can do `caps`, up to its EpochAck; what it has
    /// sent after its FollowerInfo.
    pub(crate) fn watch(&mut self, epoch: u32, caps: Option<u64>) -> (ConnId, Vec<Message>) {
        self.pass(2_000);
        for from in [1, 2, 3] {
            let status = if from == 3 { PeerStatus::Leading } else { PeerStatus::Following };
            let (epoch, candidate) = (Epoch(epoch), member(3).election);
            self.hear_vote(from, Vote { round: 1, status, epoch, candidate, ..Vote::default() });
        }
        let conn = self.connect_to(3);
        self.sent(conn);
        self.hear(conn, Message::LeaderInfo(LeaderInfo { epoch: Epoch(epoch), caps }));
        let sent = self.sent(conn);
        (conn, sent)
    }

    pub(crate) fn connect_to(&mut self, leader: u64) -> ConnId {
        let to = member(leader).message;
        assert_eq!(self.connect.pop(), Some(to.clone()));
        let conn = self.conn();
        self.handle(Event::Connected { to, conn });
        conn
    }

    /// Node 1 of three follows node 3 in epoch `epoch`, with nothing that it lacks.
    pub(crate) fn following(past: &Past, epoch: u32) -> (Self, ConnId) {
        let mut hand = Hand::of_three(1, past);
        let conn = hand.follow(3, epoch, true);
        let last = past.ids.last().copied().unwrap_or_default();
        for message in [begin(past.committed, last), end(past.committed), new_leader(epoch)] {
            hand.hear(conn, message);
        }
        assert!(hand.is_serving(), "{:?}", hand.notes);
        hand.sent(conn);
        (hand, conn)
    }

    pub(crate) fn propose(&mut self, content: &str) -> ProposalId {
        let proposal = self.zab.propose(Command::set("k", content.to_owned())).unwrap();
        self.drive();
        proposal
    }
}

/// A request as a learner sends it.
pub(crate) fn request(number: u64, op: Op) -> Message {
    let command = Command { op, ..Command::set("k", "v") };
    Message::Request(quorate_zab::Request { id: number, command })
}

/// Ids of all transactions among these.
pub(crate) fn ids_in(messages: &[Message]) -> Vec<Zxid> {
    let ids = messages.iter().filter_map(|message| match message {
        Message::LogEntry(entry) if entry.command.op.is_logged() => Some(entry.zxid),
        Message::Proposal(proposal) | Message::Inform(proposal) => Some(proposal.zxid),
        _ => None,
    });
    ids.collect()
}
