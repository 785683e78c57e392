//! Two recorded sessions of a gometa ensemble, replayed from each participant's side: fed what that
//! participant received, our node sends what it sent, in the same order on each connection.
//!
//! Aside from what is ours by intent: when it does so; votes that are sent again, or not any more
//! because nothing is open (a ballot on which all agree ends at once); signs of life; the fields that
//! only our nodes write; where a watcher asks a stream to begin, and what a stream repeats; and
//! request ids, which are random.
//!
//! And what such an ensemble was seen to send of a state of which there is no history.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use bytes::Bytes;
use quorate_codec::zab::{decode_datagram, decode_frame, encode_frame};
use quorate_types::{Index, NodeId};
use quorate_zab::{
    Address, Command, Config, ConnId, EpochAck, Event, FollowerInfo, Member, MemoryStorage,
    Message, Op, Role, Snapshot, Vote, Zab, Zxid,
};

/// One line of a session.
struct Line {
    at_ms: u64,
    from: String,
    to: String,
    what: What,
}

enum What {
    Connect,
    Close,
    Vote(Vote),
    Message(Message),
}

fn unhex(text: &str) -> Bytes {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn text_of(name: &str) -> Option<String> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/zab").join(name);
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        // Past the test harness, which keeps to itself what a passing test prints.
        let _ = writeln!(std::io::stderr(), "SKIPPED: nothing was recorded at {path:?}");
    }
    text
}

fn read(name: &str) -> Option<Vec<Line>> {
    let text = text_of(name)?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Some(lines.map(parse).collect())
}

fn parse(line: &str) -> Line {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [at, lane, from, "->", to, kind, rest @ ..] = &words[..] else { panic!("{line}") };
    let what = match (*kind, *lane, rest) {
        ("*connect*", ..) => What::Connect,
        ("*close*", ..) => What::Close,
        (_, "udp", [hex]) => What::Vote(decode_datagram(unhex(hex)).unwrap()),
        (_, "tcp", [hex]) => What::Message(decode_frame(unhex(hex)).unwrap()),
        _ => panic!("{line}"),
    };
    let at_ms = at.parse::<f64>().unwrap() as u64;
    Line { at_ms, from: (*from).to_owned(), to: (*to).to_owned(), what }
}

/// The members by letter, and the watcher.
fn member(letter: char) -> Member {
    let (id, election, message) = match letter {
        'A' => (1, "127.0.0.1:5001", "127.0.0.1:5002"),
        'B' => (2, "127.0.0.1:6001", "127.0.0.1:6002"),
        'C' => (3, "127.0.0.1:7001", "127.0.0.1:7002"),
        'W' => (9, "127.0.0.1:9101", "127.0.0.1:9102"),
        _ => panic!("{letter} takes no part"),
    };
    Member { id: NodeId(id), election: election.into(), message: message.into() }
}

fn letter(end: &str) -> Option<char> {
    end.ends_with(".e").then(|| end.chars().next()).flatten()
}

/// What both sides mean, whatever they add.
fn plain(message: &Message) -> Message {
    let mut message = decode_frame(encode_frame(message)).expect("what we write can be read");
    match &mut message {
        Message::FollowerInfo(info) => (info.caps, info.accepted_leader) = (None, None),
        Message::LeaderInfo(info) => info.caps = None,
        Message::EpochAck(ack) => ack.committed = None,
        Message::LogEntry(entry) => entry.keep = None,
        Message::Request(request) => request.id = 0,
        Message::Proposal(proposal) => proposal.request = 0,
        _ => {}
    }
    message
}

/// One participant, played by our engine.
struct Player {
    own: Member,
    zab: Zab<MemoryStorage>,
    storage: MemoryStorage,
    now_ms: u64,
    applied: u64,
    /// Connections by the name of their client side.
    conns: BTreeMap<String, ConnId>,
    /// What was sent and not yet compared.
    sent: BTreeMap<ConnId, Vec<Message>>,
    votes: Vec<(Address, Vote)>,
    connect: Vec<Address>,
    next_conn: u64,
}

impl Player {
    fn new(letter: char, storage: MemoryStorage, now_ms: u64, applied: u64) -> Self {
        Player::among(&['A', 'B', 'C'], letter, storage, now_ms, applied)
    }

    fn among(
        members: &[char],
        letter: char,
        storage: MemoryStorage,
        now_ms: u64,
        applied: u64,
    ) -> Self {
        let own = member(letter);
        let config = Config {
            allow_gometa_voters: true,
            applied: Index(applied),
            seed: 1,
            ..Config::new(own.clone(), members.iter().copied().map(member).collect())
        };
        Player {
            zab: Zab::new(config, storage.clone(), now_ms).unwrap(),
            own,
            storage,
            now_ms,
            applied,
            conns: BTreeMap::new(),
            sent: BTreeMap::new(),
            votes: Vec::new(),
            connect: Vec::new(),
            next_conn: 0,
        }
    }

    fn handle(&mut self, event: Event) {
        self.zab.handle(event).unwrap();
        self.drive();
    }

    fn drive(&mut self) {
        while self.zab.has_ready() {
            let ready = self.zab.ready().unwrap();
            self.zab.check();
            for (conn, message) in ready.messages {
                self.zab.handle(Event::Written { conn, count: 1 }).unwrap();
                self.sent.entry(conn).or_default().push(plain(&message));
            }
            self.votes.extend(ready.datagrams);
            self.connect.extend(ready.connect);
            if let Some(write) = ready.write {
                self.storage.write(&write).unwrap();
                self.zab.handle(Event::Persisted(write.id)).unwrap();
            }
            for entry in ready.committed {
                self.applied = entry.index.0;
                self.zab.handle(Event::Applied(entry.index)).unwrap();
            }
        }
    }

    fn pass_to(&mut self, at_ms: u64) {
        while self.now_ms < at_ms {
            self.now_ms = at_ms.min(self.now_ms + 20);
            self.handle(Event::Tick { now_ms: self.now_ms });
        }
    }

    /// Lets time pass until `done`, for a while.
    fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..200 {
            if done(self) {
                return;
            }
            self.pass_to(self.now_ms + 10);
        }
        let name = &self.own.message;
        panic!("{name} at {}: no {what}; {:?}", self.now_ms, self.zab.status());
    }

    fn conn(&mut self, client: &str) -> ConnId {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.conns.insert(client.to_owned(), conn);
        conn
    }

    /// The participant sent this vote: ours does, too, unless for it nothing is open any more.
    fn expect_vote(&mut self, to: &Address, vote: &Vote) {
        self.wait(&format!("{vote:?} to {to}"), |player| {
            let is_electing = vote.status == quorate_zab::PeerStatus::Electing;
            (is_electing && player.zab.status().role != Role::Looking)
                || player.votes.iter().any(|(other, sent)| other == to && sent == vote)
        });
    }

    /// The participant sent this message next on the connection; so does ours.
    fn expect_message(&mut self, client: &str, want: &Message) {
        let want = plain(want);
        if let Message::Request(request) = &want {
            self.propose(request.command.clone());
        }
        if let Message::Proposal(proposal) = &want
            && proposal.fid == self.own.message
            && self.zab.status().last_zxid < proposal.zxid
        {
            self.propose(proposal.command.clone());
        }
        let conn = self.conns[client];
        let is_watcher = self.zab.status().role == Role::Observing;
        self.wait(&format!("{want:?} on {client}"), |player| {
            let sent = player.sent.entry(conn).or_default();
            while let Some(first) = sent.first() {
                if is_same(first, &want, is_watcher) {
                    sent.remove(0);
                    return true;
                }
                assert!(may_be_more(first), "{first:?} instead of {want:?} on {client}");
                sent.remove(0);
            }
            false
        });
    }

    fn propose(&mut self, command: Command) {
        self.wait("readiness for requests", |player| player.zab.status().is_serving);
        self.zab.propose(command).unwrap();
        self.drive();
    }
}

fn is_same(sent: &Message, want: &Message, is_watcher: bool) -> bool {
    match (sent, want) {
        (Message::EpochAck(sent), Message::EpochAck(want)) if is_watcher => {
            sent.logged == Zxid::ZERO && sent.current_epoch == want.current_epoch
        }
        _ => sent == want,
    }
}

/// Signs of life, and entries that are streamed again.
fn may_be_more(message: &Message) -> bool {
    match message {
        Message::Response { request: 0, fid, .. } => fid.as_str() == quorate_zab::KEEP_ALIVE_FID,
        Message::Accept { zxid, .. } => *zxid == Zxid::ZERO,
        Message::LogEntry(entry) => ![Op::STREAM_BEGIN, Op::STREAM_END].contains(&entry.command.op),
        _ => false,
    }
}

/// Plays `who` from the first line in `lines` that concerns it; `applied` of `storage` before.
fn replay(lines: &[Line], who: char, storage: MemoryStorage, applied: u64) -> Player {
    let own = member(who);
    // Whose side of a connection is whose: the first message on it says so.
    let mut clients = BTreeMap::new();
    for line in lines {
        if let What::Message(Message::FollowerInfo(info)) = &line.what {
            clients.insert(line.from.clone(), info.fid.clone());
        }
    }
    let port = format!("{who}.m");
    let is_own = |end: &str| {
        letter(end) == Some(who) || end == port || clients.get(end) == Some(&own.message)
    };
    let client = |line: &Line| match line.from.starts_with('c') {
        true => line.from.clone(),
        false => line.to.clone(),
    };
    let first = lines.iter().find(|line| is_own(&line.from)).expect("it takes part");
    let mut player = Player::new(who, storage, first.at_ms, applied);
    player.handle(Event::Tick { now_ms: first.at_ms });
    for line in lines.iter().filter(|line| first.at_ms <= line.at_ms) {
        let (sends, receives) = (is_own(&line.from), is_own(&line.to));
        if !sends && !receives {
            continue;
        }
        player.pass_to(line.at_ms);
        match &line.what {
            What::Vote(vote) if sends => {
                player.expect_vote(&member(letter(&line.to).unwrap()).election, vote);
            }
            What::Vote(vote) => {
                let from = member(letter(&line.from).unwrap()).election;
                player.handle(Event::Datagram { from, vote: vote.clone() });
            }
            What::Connect if sends => {
                let to = member(line.to.chars().next().unwrap()).message;
                player.wait("connecting", |player| player.connect.contains(&to));
                player.connect.clear();
                let conn = player.conn(&line.from);
                player.handle(Event::Connected { to, conn });
            }
            What::Connect => {
                let conn = player.conn(&line.from);
                player.handle(Event::Accepted { conn });
            }
            What::Message(message) if sends => player.expect_message(&client(line), message),
            What::Message(message) => {
                let conn = player.conns[&client(line)];
                player.handle(Event::Received { conn, message: message.clone() });
            }
            What::Close => {
                if let Some(conn) = player.conns.get(&client(line)).copied() {
                    player.handle(Event::Closed { conn });
                }
            }
        }
    }
    for (conn, sent) in &player.sent {
        // A watcher's sign of life looks like its acknowledgement.
        let is_sign = |message: &Message| who == 'W' && *message == Message::NewLeaderAck;
        let is_more = |message: &&Message| !may_be_more(message) && !is_sign(message);
        let more: Vec<_> = sent.iter().filter(is_more).collect();
        assert!(more.is_empty(), "{who} sends more on {conn:?}: {more:?}");
    }
    player
}

#[test]
fn an_ensemble_that_starts_empty() {
    let Some(lines) = read("session-bootstrap.txt") else { return };
    for who in ['A', 'B', 'C'] {
        let player = replay(&lines, who, MemoryStorage::new(), 0);
        let status = player.zab.status();
        assert_eq!(status.commit_zxid, Zxid(1 << 32 | 4), "{who}: {status:?}");
        assert!(status.is_serving, "{who}");
    }
}

#[test]
fn an_ensemble_that_loses_its_leader() {
    let Some(lines) = read("session-failover.txt") else { return };
    let killed = lines.iter().position(|line| matches!(line.what, What::Close)).unwrap();
    let restarted = lines[killed..].iter().position(|line| line.from == "C.e").unwrap() + killed;
    for who in ['A', 'B', 'W'] {
        let player = replay(&lines, who, MemoryStorage::new(), 0);
        assert_eq!(player.zab.status().commit_zxid, Zxid(2 << 32 | 1), "{who}");
    }
    // C is killed, and comes back with what it had.
    let player = replay(&lines[..killed], 'C', MemoryStorage::new(), 0);
    assert_eq!(player.zab.status().commit_zxid, Zxid(1 << 32 | 3));
    let (storage, applied) = (player.storage, player.applied);
    let player = replay(&lines[restarted..], 'C', storage, applied);
    assert_eq!(player.zab.status().commit_zxid, Zxid(2 << 32 | 1));
}

/// The transactions of a small leader, in gometa's bytes, as it streams them after it has let go of the first
/// three: the state that they led to, under ids that are made up, but for the last one's, and what came then.
const STATE: [&str; 7] = [
    "000000000000003400000000000000084c6f67456e74727908011084808080101805220b53747265616d426567696e2a\
     0b53747265616d426567696e",
    "000000000000001c00000000000000084c6f67456e7472790801100118022201612a0131",
    "000000000000001c00000000000000084c6f67456e7472790801100218022201622a0132",
    "000000000000002000000000000000084c6f67456e747279080110838080801018022201632a0133",
    "000000000000002000000000000000084c6f67456e747279080110848080801018022201642a0134",
    "000000000000003000000000000000084c6f67456e74727908011084808080101806220953747265616d456e642a0953\
     747265616d456e64",
    "000000000000001500000000000000094e65774c656164657208011001",
];

/// What a leader of one sends a watcher of gometa's that has nothing, after it has let go of its first
/// transactions, in bytes.
fn state_of_ours() -> Vec<String> {
    let storage = MemoryStorage::new();
    let mut leader = Player::among(&['C'], 'C', storage.clone(), 0, 0);
    leader.wait("leadership", |player| player.zab.status().is_serving);
    let commands: Vec<Command> = ["a", "b", "c", "d"]
        .into_iter()
        .zip(1..)
        .map(|(key, value)| Command::set(key, value.to_string()))
        .collect();
    commands.iter().for_each(|command| leader.propose(command.clone()));
    let kept = Index(3);
    let state = Snapshot::of_commands(kept, Zxid(1 << 32 | kept.0), &commands[..3]);
    storage.make_snapshot(kept, state.data).unwrap();
    storage.compact(kept).unwrap();

    let conn = leader.conn("watcher");
    leader.handle(Event::Accepted { conn });
    let info = FollowerInfo { fid: member('W').message, ..FollowerInfo::default() };
    leader.handle(Event::Received { conn, message: Message::FollowerInfo(info) });
    leader.sent.clear();
    leader.handle(Event::Received { conn, message: Message::EpochAck(EpochAck::default()) });
    let sent = leader.sent.remove(&conn).unwrap_or_default();
    sent.iter().map(|message| hex(&encode_frame(message))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_state_is_streamed_in_gometas_bytes() {
    assert_eq!(state_of_ours(), STATE);
}

#[test]
fn a_state_is_streamed_as_a_leader_of_gometas_was_seen_to() {
    let Some(text) = text_of("frames.jsonl") else { return };
    let frames = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let recorded: Vec<_> =
        frames.filter(|frame| frame["name"] == "log_entry_snapshot_style").collect();
    assert_eq!(recorded.len(), 1, "the first transaction of a state");
    assert_eq!(recorded[0]["hex"], state_of_ours()[1]);
}
