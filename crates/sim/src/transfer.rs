//! Snapshots on their way: a stream of pieces, taken into a file that is whole, durable and verified
//! before the replica hears of it. One is received at a time.

use std::io;
use std::path::Path;

use bytes::Bytes;
use quorate_kv::SnapshotReader;
use quorate_replica::{Engine, Event as ReplicaEvent, Message};
use quorate_types::NodeId;
use quorate_wal::{Disk, DiskFile};

use crate::disk::{SimDisk, SimFile};
use crate::member;
use crate::node::{Going, Node};
use crate::world::{Cx, What};

/// A piece of a stream.
#[derive(Clone, Debug)]
pub(crate) enum Chunk {
    /// The message that goes with it.
    Begin(Bytes),
    /// Some of the state.
    More(Bytes),
    /// That was all.
    End,
    /// The connection broke.
    Broken,
}

/// One that is being sent.
pub(crate) struct Outgoing {
    pub(crate) message: Message,
    pub(crate) reader: SnapshotReader,
    pub(crate) header: Option<Bytes>,
}

impl Outgoing {
    pub(crate) fn next(&mut self, bytes_max: usize) -> Result<Chunk, quorate_kv::StoreError> {
        if let Some(header) = self.header.take() {
            return Ok(Chunk::Begin(header));
        }
        let bytes = self.reader.read(bytes_max)?;
        Ok(if bytes.is_empty() { Chunk::End } else { Chunk::More(bytes) })
    }
}

/// Sender, which process of it, and the number of the transfer.
pub(crate) type Source = (NodeId, u64, u64);

/// Where snapshots arrive.
#[derive(Default)]
pub(crate) struct Receiver {
    open: Option<Receiving>,
    /// Whether one is whole, and the replica has heard of it.
    is_announced: bool,
}

struct Receiving {
    source: Source,
    message: Message,
    file: SimFile,
    bytes: u64,
}

impl Receiver {
    /// Takes a piece in. `Some` when the transfer is over: with the message for the replica if the
    /// snapshot is whole and durable.
    pub(crate) fn take(
        &mut self,
        disk: &SimDisk,
        cluster: u64,
        engine: Engine,
        node: NodeId,
        source: Source,
        chunk: Chunk,
    ) -> io::Result<Option<Option<Message>>> {
        if let Chunk::Begin(header) = chunk {
            return self.begin(disk, engine, node, source, header);
        }
        if self.open.as_ref().is_none_or(|open| open.source != source) {
            return Ok(None); // declined, or given up
        }
        match chunk {
            Chunk::Begin(_) => Ok(None),
            Chunk::More(bytes) => {
                let Some(open) = &mut self.open else { return Ok(None) };
                let written = open.file.write_at(&bytes, open.bytes);
                open.bytes += bytes.len() as u64;
                written.map(|_| None).inspect_err(|_| self.open = None)
            }
            Chunk::Broken => {
                self.open = None;
                Ok(None)
            }
            Chunk::End => {
                let Some(open) = self.open.take() else { return Ok(None) };
                let Some(metadata) = open.message.snapshot() else { return Ok(Some(None)) };
                member::finish_received(disk, cluster, &open.file, &metadata)?;
                self.is_announced = true;
                Ok(Some(Some(open.message)))
            }
        }
    }

    /// Whether the file of the snapshot that was announced is of no use any more.
    pub(crate) fn settle(&mut self, is_installing: bool) -> bool {
        let is_over = self.is_announced && !is_installing;
        self.is_announced &= !is_over;
        is_over
    }

    /// Transfers that end with the process.
    pub(crate) fn take_open(&mut self) -> Option<Source> {
        self.open.take().map(|open| open.source)
    }

    fn begin(
        &mut self,
        disk: &SimDisk,
        engine: Engine,
        node: NodeId,
        source: Source,
        header: Bytes,
    ) -> io::Result<Option<Option<Message>>> {
        let message = match Message::decode(engine, header) {
            Ok(message) if message.to() == node && message.from() == source.0 => message,
            _ => return Ok(Some(None)),
        };
        if self.open.is_some() || self.is_announced {
            return Ok(Some(None));
        }
        let path = Path::new(member::RECEIVING);
        match disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create_file(path)?;
        self.open = Some(Receiving { source, message, file, bytes: 0 });
        Ok(None)
    }
}

impl Node {
    pub(crate) fn send_snapshot(&mut self, cx: &mut Cx<'_>, message: Message) -> Going {
        let (id, life) = (self.id, self.life);
        let process = self.process();
        let kept = match (&process.kept, message.snapshot()) {
            (Some((metadata, view)), Some(wanted)) if *metadata == wanted => Some(view.reader()),
            _ => None,
        };
        let Some(reader) = kept else {
            return self.event(ReplicaEvent::SnapshotSent { message, ok: false });
        };
        let header = Bytes::from(message.encode().concat());
        let transfer = cx.next_transfer();
        process.outgoing.insert(transfer, Outgoing { message, reader, header: Some(header) });
        cx.checks.count("snapshots sent");
        cx.after(0, id, life, What::SendChunk { transfer });
        Ok(())
    }

    pub(crate) fn on_send_chunk(&mut self, cx: &mut Cx<'_>, transfer: u64) -> Going {
        let (id, life) = (self.id, self.life);
        let process = self.process();
        let Some(outgoing) = process.outgoing.get_mut(&transfer) else { return Ok(()) };
        let (to, chunk) = (outgoing.message.to(), outgoing.next(cx.plan.chunk_bytes)?);
        let ends = matches!(chunk, Chunk::End);
        if cx.send_chunk(id, life, to, transfer, chunk) {
            if !ends {
                let pace = cx.chance.between(50, 4_000);
                cx.after(pace, id, life, What::SendChunk { transfer });
            }
            return Ok(());
        }
        // The connection broke; the other end notices as well.
        cx.send_chunk_always(id, life, to, transfer, Chunk::Broken);
        self.on_sent(transfer, false)
    }

    pub(crate) fn on_sent(&mut self, transfer: u64, ok: bool) -> Going {
        match self.process().outgoing.remove(&transfer) {
            Some(Outgoing { message, .. }) => {
                self.event(ReplicaEvent::SnapshotSent { message, ok })
            }
            None => Ok(()),
        }
    }

    pub(crate) fn on_chunk(
        &mut self,
        cx: &mut Cx<'_>,
        from: NodeId,
        from_life: u64,
        transfer: u64,
        chunk: Chunk,
    ) -> Going {
        let (id, disk) = (self.id, self.disk.clone());
        let source = (from, from_life, transfer);
        let (cluster, engine) = (cx.plan.cluster, cx.plan.engine);
        match self.process().receiver.take(&disk, cluster, engine, id, source, chunk) {
            Ok(None) => Ok(()),
            Ok(Some(done)) => {
                cx.tell_sender(id, from, transfer, done.is_some());
                match done {
                    Some(message) => self.event(ReplicaEvent::Message(message)),
                    None => Ok(()),
                }
            }
            Err(error) => {
                cx.tell_sender(id, from, transfer, false);
                cx.checks.count("snapshots not received");
                // A disk that fails here fails no more than the transfer.
                let _: io::Error = error;
                Ok(())
            }
        }
    }
}
