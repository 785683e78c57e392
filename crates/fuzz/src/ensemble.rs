//! The ZAB engine among peers that say anything at all, and gometa's frames.

use std::sync::Arc;

use bytes::Bytes;
use quorate_codec::zab as codec;
use quorate_types::Index;
use quorate_zab::{
    Address, Command, Config, ConnId, Epoch, EpochAck, Event, FollowerInfo, LeaderInfo, LogEntry,
    Member, MemoryStorage, Message, Op, PeerStatus, Proposal, ReadId, Request, Snapshot, Vote, Zab,
    Zxid,
};

use crate::draw::Draw;

/// Frames in a row. What is understood is written again as it was understood.
pub(crate) fn frames(bytes: &[u8]) {
    let mut rest = Bytes::copy_from_slice(bytes);
    while !rest.is_empty() {
        let Ok(message) = codec::split_frame(&mut rest) else { break };
        let again = codec::decode_frame(codec::encode_frame(&message));
        assert_eq!(again.as_ref().ok(), Some(&message), "{:?}", again.as_ref().err());
    }
    if let Ok(vote) = codec::decode_datagram(Bytes::copy_from_slice(bytes)) {
        let again = codec::decode_datagram(codec::encode_datagram(&vote));
        assert_eq!(again.as_ref().ok(), Some(&vote), "{:?}", again.as_ref().err());
    }
}

/// One node of three hears what the input spells, and does its own work in between. It must never panic;
/// it may stop, loudly, when its own storage breaks its promises, which this one does not.
pub(crate) fn step(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let member = |id: u64| Member {
        id: id.into(),
        election: (&*format!("e{id}:1")).into(),
        message: (&*format!("m{id}:1")).into(),
    };
    let config = Config::new(member(1), vec![member(1), member(2), member(3)]);
    let storage = MemoryStorage::new();
    let mut node = Zab::new(config, storage.clone(), 0).expect("the settings fit");
    let (mut now_ms, mut connections) = (0, 0);
    for _ in 0..200 {
        if draw.is_empty() || node.fatal().is_some() {
            break;
        }
        let event = match draw.byte() % 16 {
            0..3 => {
                now_ms += u64::from(draw.byte()) * 10;
                Event::Tick { now_ms }
            }
            3 | 4 => Event::Datagram { from: election(&mut draw), vote: vote(&mut draw) },
            5 => {
                connections += 1;
                Event::Accepted { conn: ConnId(connections) }
            }
            6 => {
                connections += 1;
                Event::Connected { to: address(&mut draw), conn: ConnId(connections) }
            }
            7 => Event::ConnectFailed { to: address(&mut draw) },
            8 => Event::Closed { conn: connection(&mut draw, connections) },
            9 => {
                let _ = node.propose(command(&mut draw));
                continue;
            }
            10 => {
                node.read(ReadId(draw.number()));
                continue;
            }
            11 if draw.byte() < 16 => Event::Resign,
            _ => {
                let conn = connection(&mut draw, connections);
                Event::Received { conn, message: message(&mut draw) }
            }
        };
        let _ = node.handle(event);
        if draw.is() {
            work(&mut node, &storage);
        }
    }
    work(&mut node, &storage);
    if node.fatal().is_none() {
        node.check();
    }
}

/// Does what is asked for: the disk and the machine at once, the network not at all.
fn work(node: &mut Zab<MemoryStorage>, storage: &MemoryStorage) {
    for _ in 0..100 {
        if node.fatal().is_some() || !node.has_ready() {
            return;
        }
        let Ok(ready) = node.ready() else { return };
        if let Some(write) = ready.write
            && (storage.write(&write).is_err() || node.handle(Event::Persisted(write.id)).is_err())
        {
            return;
        }
        for entry in ready.committed {
            if node.handle(Event::Applied(entry.index)).is_err() {
                return;
            }
        }
        for (conn, _) in ready.messages {
            if node.handle(Event::Written { conn, count: 1 }).is_err() {
                return;
            }
        }
    }
}

/// One of the last connections, or one that never was.
fn connection(draw: &mut Draw<'_>, connections: u64) -> ConnId {
    ConnId(connections.saturating_sub(u64::from(draw.byte() % 4)))
}

/// A message port: of a member mostly.
fn address(draw: &mut Draw<'_>) -> Address {
    match draw.byte() % 8 {
        0 => Address::from(""),
        1 => Address::from("elsewhere"),
        2 => Address::from("m1:1"),
        3..6 => Address::from("m2:1"),
        _ => Address::from("m3:1"),
    }
}

fn election(draw: &mut Draw<'_>) -> Address {
    Address::from(["e2:1", "e3:1", "e1:1", "elsewhere"][usize::from(draw.byte() % 4)])
}

fn zxid(draw: &mut Draw<'_>) -> Zxid {
    Zxid(draw.number() << 32 | draw.number() & 0xffff_ffff)
}

fn epoch(draw: &mut Draw<'_>) -> Epoch {
    Epoch(draw.number() as u32)
}

fn vote(draw: &mut Draw<'_>) -> Vote {
    let status =
        [PeerStatus::Electing, PeerStatus::Leading, PeerStatus::Following, PeerStatus::Watching];
    Vote {
        round: draw.number(),
        status: status[usize::from(draw.byte() % 4)],
        epoch: epoch(draw),
        candidate: election(draw),
        logged: zxid(draw),
        committed: zxid(draw),
        solicit: draw.is(),
        cluster: draw.is().then(|| draw.number()),
    }
}

fn command(draw: &mut Draw<'_>) -> Command {
    let op = Op(u32::from(draw.byte() % 10) + if draw.byte() == 0 { 50 } else { 0 });
    Command { op, key: Arc::from("k"), content: draw.bytes().into() }
}

fn message(draw: &mut Draw<'_>) -> Message {
    match draw.byte() % 20 {
        0 => Message::Vote(vote(draw)),
        1 | 2 => Message::FollowerInfo(FollowerInfo {
            accepted_epoch: epoch(draw),
            fid: address(draw),
            voting: draw.is(),
            caps: draw.is().then(|| draw.number()),
            accepted_leader: draw.is().then(|| address(draw)),
        }),
        3 => Message::LeaderInfo(LeaderInfo {
            epoch: epoch(draw),
            caps: draw.is().then(|| draw.number()),
        }),
        4 => Message::EpochAck(EpochAck {
            logged: zxid(draw),
            current_epoch: epoch(draw),
            committed: draw.is().then(|| zxid(draw)),
        }),
        5 | 6 => Message::LogEntry(LogEntry {
            zxid: zxid(draw),
            command: command(draw),
            keep: draw.is().then(|| zxid(draw)),
        }),
        7 => Message::NewLeader { epoch: epoch(draw) },
        8 => Message::NewLeaderAck,
        9 => Message::Request(Request { id: draw.number(), command: command(draw) }),
        10 => Message::Proposal(Proposal {
            zxid: zxid(draw),
            fid: address(draw),
            request: draw.number(),
            command: command(draw),
        }),
        11 => Message::Accept { zxid: zxid(draw), fid: address(draw) },
        12 => Message::Commit { zxid: zxid(draw) },
        13 => Message::Abort {
            request: draw.number(),
            fid: address(draw),
            error: "refused".to_owned(),
        },
        14 => Message::Response {
            request: draw.number(),
            fid: address(draw),
            error: String::new(),
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
