//! What nodes that run ZAB are sent, by peers of ours and by gometa's, and one such node among them.

use bytes::{Bytes, BytesMut};
use quorate_codec::zab as codec;
use quorate_replica::Packet;
use quorate_types::{Index, NodeId};
use quorate_zab::{
    Address, Command, Config, ConnId, Epoch, EpochAck, Event, FollowerInfo, LeaderInfo, LogEntry,
    Member, MemoryStorage, Message, Op, PeerStatus, Proposal, ReadId, Request, Role, Snapshot,
    Vote, Zab, Zxid, caps,
};

use crate::draw::Draw;

/// What a connection brings, and the same as a datagram.
pub(crate) fn frames(bytes: &[u8]) {
    if let Ok(vote) = codec::decode_datagram(Bytes::copy_from_slice(bytes)) {
        let again = codec::decode_datagram(codec::encode_datagram(&vote));
        assert_eq!(again.as_ref().ok(), Some(&vote), "{:?}", again.as_ref().err());
    }
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(message)) = codec::next_frame(&mut buffer) {
        let again = codec::decode_frame(codec::encode_frame(&message));
        assert_eq!(again.as_ref().ok(), Some(&message), "{:?}", again.as_ref().err());
    }
}

/// What replicas wrap that in.
pub(crate) fn packet(bytes: &[u8]) {
    let Ok(packet) = Packet::decode(Bytes::copy_from_slice(bytes)) else { return };
    let again = Packet::decode(packet.encode().concat().into());
    assert_eq!(again.as_ref().ok(), Some(&packet), "{:?}", again.as_ref().err());
}

fn member(id: u64) -> Member {
    let (election, message) = (format!("10.0.0.{id}:1"), format!("10.0.0.{id}:2"));
    Member { id: NodeId(id), election: election.as_str().into(), message: message.as_str().into() }
}

/// One node of three, or a watcher of theirs, hears what the input spells, and does its own work in
/// between. Whatever that is, it goes on.
pub(crate) fn step(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let options = draw.byte();
    let own = if options & 1 == 0 { 3 } else { 9 };
    let config = Config {
        allow_gometa_voters: options & 2 != 0,
        custom_requests: options & 4 != 0,
        allow_broadcast: options & 8 != 0,
        barrier_key: (options & 16 != 0).then(|| "barrier".into()),
        ..Config::new(member(own), (1..=3).map(member).collect())
    };
    let storage = MemoryStorage::new();
    let mut node = Zab::new(config, storage.clone(), 0).expect("settings that fit together");
    let (mut now_ms, mut last_conn) = (0, 0);
    let mut connect = Vec::new();
    for _ in 0..200 {
        if draw.is_empty() {
            break;
        }
        let conn = ConnId(last_conn - u64::from(draw.byte() % 4).min(last_conn));
        let event = match draw.byte() % 12 {
            0 | 1 => {
                now_ms += 10 * u64::from(draw.byte());
                Event::Tick { now_ms }
            }
            2 => {
                last_conn += 1;
                Event::Accepted { conn: ConnId(last_conn) }
            }
            3 => {
                last_conn += 1;
                let to = connect.pop().unwrap_or_else(|| member(draw.number()).message);
                Event::Connected { to, conn: ConnId(last_conn) }
            }
            4 => Event::Closed { conn },
            5 => Event::ConnectFailed { to: member(draw.number()).message },
            6 => Event::Datagram { from: member(draw.number()).election, vote: vote(&mut draw) },
            7 => {
                let _ = node.propose(command(&mut draw));
                Event::Heard { conn }
            }
            8 => {
                node.read(ReadId(draw.number()));
                Event::Written { conn, count: usize::from(draw.byte()) }
            }
            _ => Event::Received { conn, message: message(&mut draw) },
        };
        node.handle(event).expect("nothing that a peer says is fatal");
        if draw.is() {
            work(&mut node, &storage, &mut connect);
        }
        node.check();
    }
    work(&mut node, &storage, &mut connect);
    node.check();
    let role = node.status().role;
    assert!(own == 3 || matches!(role, Role::Looking | Role::Observing), "{role:?}");
}

fn work(node: &mut Zab<MemoryStorage>, storage: &MemoryStorage, connect: &mut Vec<Address>) {
    for _ in 0..100 {
        if !node.has_ready() {
            return;
        }
        let ready = node.ready().expect("nothing that a peer says is fatal");
        connect.extend(ready.connect);
        if let Some(write) = ready.write {
            storage.write(&write).expect("a write fits on what is there");
            node.handle(Event::Persisted(write.id)).expect("it was handed out");
        }
        for entry in ready.committed {
            node.handle(Event::Applied(entry.index)).expect("it was handed out");
        }
    }
}

fn zxid(draw: &mut Draw<'_>) -> Zxid {
    match draw.byte() % 8 {
        0 => Zxid(draw.number()),
        _ => Zxid::new(epoch(draw), u32::from(draw.byte() % 8)),
    }
}

fn epoch(draw: &mut Draw<'_>) -> Epoch {
    Epoch(draw.number() as u32)
}

fn command(draw: &mut Draw<'_>) -> Command {
    let op = Op(draw.number() as u32);
    Command { op, ..Command::set("k", draw.bytes()) }
}

fn text(draw: &mut Draw<'_>) -> String {
    String::from_utf8_lossy(&draw.bytes()).into_owned()
}

fn vote(draw: &mut Draw<'_>) -> Vote {
    use PeerStatus::{Electing, Following, Leading, Watching};
    let status = [Electing, Leading, Following, Watching][usize::from(draw.byte() % 4)];
    Vote {
        round: draw.number(),
        status,
        epoch: epoch(draw),
        candidate: member(draw.number()).election,
        logged: zxid(draw),
        committed: zxid(draw),
        solicit: draw.is(),
        cluster: draw.is().then(|| draw.number()),
    }
}

fn proposal(draw: &mut Draw<'_>) -> Proposal {
    Proposal {
        zxid: zxid(draw),
        fid: member(draw.number()).message,
        request: draw.number(),
        command: command(draw),
    }
}

fn message(draw: &mut Draw<'_>) -> Message {
    let caps = match draw.byte() % 4 {
        0 => None,
        1 => Some(draw.number()),
        _ => Some(caps::ALL),
    };
    match draw.byte() % 20 {
        0 => Message::Vote(vote(draw)),
        1 => Message::FollowerInfo(FollowerInfo {
            accepted_epoch: epoch(draw),
            fid: member(draw.number()).message,
            voting: draw.is(),
            caps,
            accepted_leader: draw.is().then(|| member(draw.number()).message),
        }),
        2 => Message::LeaderInfo(LeaderInfo { epoch: epoch(draw), caps }),
        3 => Message::EpochAck(EpochAck {
            logged: zxid(draw),
            current_epoch: epoch(draw),
            committed: draw.is().then(|| zxid(draw)),
        }),
        4 | 5 => {
            let (zxid, keep) = (zxid(draw), draw.is().then(|| zxid(draw)));
            Message::LogEntry(match draw.byte() % 3 {
                0 => LogEntry::begin(zxid, keep),
                1 => LogEntry::end(zxid),
                _ => LogEntry { zxid, command: command(draw), keep },
            })
        }
        6 => Message::NewLeader { epoch: epoch(draw) },
        7 => Message::NewLeaderAck,
        8 => Message::Request(Request { id: draw.number(), command: command(draw) }),
        9 => Message::Proposal(proposal(draw)),
        10 => Message::Inform(proposal(draw)),
        11 => Message::Accept { zxid: zxid(draw), fid: member(draw.number()).message },
        12 => Message::Commit { zxid: zxid(draw) },
        13 => Message::Abort {
            request: draw.number(),
            fid: member(draw.number()).message,
            error: text(draw),
        },
        14 => Message::Response {
            request: draw.number(),
            fid: member(draw.number()).message,
            error: text(draw),
            content: draw.is().then(|| draw.bytes().into()),
        },
        15 => Message::Ping { number: draw.number() },
        16 => Message::Pong { number: draw.number() },
        17 => Message::Snapshot(Snapshot {
            index: Index(draw.number()),
            zxid: zxid(draw),
            data: draw.bytes().into(),
        }),
        18 => Message::ReadIndex { id: draw.number() },
        _ => {
            let index = draw.is().then(|| Index(draw.number()));
            Message::ReadIndexReply { id: draw.number(), index }
        }
    }
}
