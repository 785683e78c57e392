//! A replicated key-value store around one [`Node`] a process: the counterpart of etcd's `raftexample`.
//!
//! Three processes, each with a directory of its own (one terminal each):
//!
//! ```sh
//! cargo build -p quorate-node --example replicated_kv
//! kv=target/debug/examples/replicated_kv
//! peers=1=127.0.0.1:7001,2=127.0.0.1:7002,3=127.0.0.1:7003
//! $kv 1 $peers 127.0.0.1:8001 kv1
//! $kv 2 $peers 127.0.0.1:8002 kv2
//! $kv 3 $peers 127.0.0.1:8003 kv3
//! ```
//!
//! Clients speak lines. Every node answers reads, and they are linearizable; writes go to the
//! leader, whom the others name:
//!
//! ```sh
//! printf 'status\nput greeting hello\nget greeting\n' | nc -N 127.0.0.1 8001
//! ```
//!
//! Kill a process, write on, start it again as before: it catches up. For a fourth node, tell the
//! leader first, then start it; it gets a snapshot or the log:
//!
//! ```sh
//! echo 'add 4 127.0.0.1:7004' | nc -N 127.0.0.1 8001
//! $kv 4 $peers,4=127.0.0.1:7004 127.0.0.1:8004 kv4 join
//! ```
//!
//! Further commands: `del KEY`, `remove ID`. The nodes trust their network; a service would use
//! `quorate-net`, with its checksums and bounds, as its transport.
//!
//! Below: the loop, what it does with a `Ready`, the replicated state, its clients, the transport, the
//! disk.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quorate_codec as codec;
use quorate_node::Node;
use quorate_raft::{
    AppliedChange, Body, ConfChange, ConfChangeType, ConfState, Config, Entry, EntryType,
    MemoryStorage, Message, Peer, Ready, Snapshot, SnapshotStatus, Storage, decode_conf_change,
    is_local_target,
};
use quorate_types::{Index, Mark, NodeId};
use quorate_wal::{Identity, Options, RealDisk, Wal, Write};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval, timeout};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const USAGE: &str = "replicated_kv ID PEER=ADDRESS,PEER=ADDRESS... CLIENT_ADDRESS DIRECTORY [join]";
const COMMANDS: &str = "put KEY VALUE, get KEY, del KEY, add ID ADDRESS, remove ID, status";
const TICK: Duration = Duration::from_millis(50);
/// How long a client waits for an answer, and a message for its way into a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// A snapshot takes the place of so many entries. Few, so that it is seen at work.
const SNAPSHOT_ENTRIES: u64 = 100;
/// Entries that stay in memory behind a snapshot, for followers that are a little late.
const KEPT_ENTRIES: u64 = 20;
const LINE_BYTES_MAX: u64 = 64 << 10;
const FRAME_BYTES_MAX: usize = 256 << 20;
const OUTBOX_MAX: usize = 4096;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [id, peers, client, dir, join @ ..] = &arguments[..] else { return Err(USAGE.into()) };
    let (id, mut members) = (NodeId(id.parse()?), BTreeMap::new());
    for peer in peers.split(',') {
        let (peer, address) = peer.split_once('=').ok_or(USAGE)?;
        members.insert(NodeId(peer.parse()?), address.to_owned());
    }

    let (disk, is_new) = Disk::open(Path::new(dir), id)?;
    let state = watch::Sender::new(State::of(&disk.log.snapshot()?)?);
    let config = Config {
        applied: state.borrow().applied,
        disable_proposal_forwarding: true, // clients ask the leader themselves
        postpone_single_voter_reads: true,
        lead_after_own_vote: true,
        ..Config::new(id)
    };
    let for_peers = TcpListener::bind(members.get(&id).ok_or(USAGE)?).await?;
    let for_clients = TcpListener::bind(client).await?;
    let node = if is_new && join.is_empty() {
        let first = members.iter().map(|(id, address)| Peer {
            id: *id,
            context: format!("put peer/{id} {address}").into(), // so that the log says where it is
        });
        Node::start(config, disk.log.clone(), &first.collect::<Vec<_>>())?
    } else {
        Node::restart(config, disk.log.clone())?
    };

    let links = Links { node: node.clone(), members, outboxes: BTreeMap::new() };
    let mut server = Server { node, disk, links, state };
    let mut clock = interval(TICK);
    // A slow disk must not make others look silent.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (node, state) = (&server.node, &server.state);
        tokio::select! {
            biased;
            _ = clock.tick() => {
                node.tick();
            }
            Ok((stream, _)) = for_peers.accept() => {
                tokio::spawn(hear(stream, id, node.clone()));
            }
            Ok((stream, _)) = for_clients.accept() => {
                tokio::spawn(serve(stream, node.clone(), state.subscribe()));
            }
            ready = node.ready() => server.carry_out(ready?).await?,
        }
    }
}

struct Server {
    node: Node,
    disk: Disk,
    links: Links,
    state: watch::Sender<State>,
}

impl Server {
    /// Disk before word. A disk that fails ends the process: what it holds now is unknown.
    async fn carry_out(&mut self, ready: Ready) -> Result<()> {
        block_in_place(|| self.disk.save(&ready))?;
        for message in ready.messages {
            let address = self.state.borrow().values.get(&format!("peer/{}", message.to)).cloned();
            self.links.send(message, address).await;
        }
        if let Some(snapshot) = &ready.snapshot {
            self.state.send_replace(State::of(snapshot)?);
        }
        let (mut has_changed, mut is_overtaken) = (false, false);
        for entry in ready.committed_entries {
            has_changed |= entry.entry_type() != EntryType::Normal;
            is_overtaken |= !self.apply(entry).await?;
        }
        self.node.advance().await;
        if !is_overtaken {
            // A new member takes no snapshot that does not name it, so each change brings one.
            block_in_place(|| self.disk.compact(&self.state.borrow(), has_changed))?;
        }
        Ok(())
    }

    /// Says whether the members after the entry are known. They are not if a snapshot, which comes
    /// with the next Ready, has overtaken it.
    async fn apply(&mut self, entry: Entry) -> Result<bool> {
        let (mut line, mut is_known) = (entry.payload().to_vec(), true);
        if entry.entry_type() != EntryType::Normal {
            let change = decode_conf_change(entry.entry_type(), entry.payload())?;
            line = change.as_v2().context.into();
            match self.node.apply_conf_change_at(entry.index, change).await {
                Ok(AppliedChange::Changed(now)) => self.state.send_modify(|it| it.members = now),
                Ok(AppliedChange::Overtaken(_)) => is_known = false,
                // On every node alike, so it just does not happen.
                Err(quorate_raft::Error::Change(_)) => line.clear(),
                Err(error) => return Err(error.into()),
            }
        }
        let line = String::from_utf8(line)?;
        self.state.send_modify(|state| {
            state.run(&line);
            state.applied = entry.index;
        });
        Ok(is_known)
    }
}

/// What is replicated, and how much of the log is in it.
#[derive(Default)]
struct State {
    /// Where a member is stands among them, as `peer/ID`.
    values: BTreeMap<String, String>,
    members: ConfState,
    applied: Index,
}

impl State {
    fn of(snapshot: &Snapshot) -> Result<State> {
        let (members, applied) = (snapshot.metadata.conf_state.clone(), snapshot.metadata.index);
        let mut state = State { members, applied, ..State::default() };
        std::str::from_utf8(&snapshot.data)?.split('\n').for_each(|line| state.run(line));
        Ok(state)
    }

    /// What [`State::of`] makes the state of again.
    fn to_text(&self) -> String {
        self.values.iter().map(|(key, value)| format!("put {key} {value}\n")).collect()
    }

    /// Does what a client said, or a line of a snapshot.
    fn run(&mut self, line: &str) {
        match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
            ["put", key, value] => drop(self.values.insert(key.to_owned(), value.to_owned())),
            ["del", key] => drop(self.values.remove(key)),
            _ => {}
        }
    }
}

/// Answers each line with one.
async fn serve(stream: TcpStream, node: Node, state: watch::Receiver<State>) -> Result<()> {
    let (input, mut output) = stream.into_split();
    let mut input = BufReader::new(input);
    loop {
        let mut line = String::new();
        (&mut input).take(LINE_BYTES_MAX).read_line(&mut line).await?;
        let Some(line) = line.strip_suffix('\n') else { return Ok(()) };
        let answer = match timeout(PATIENCE, answer(line, &node, state.clone())).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => format!("error: {error}"),
            Err(_) => "error: no answer in time; it may happen yet".to_owned(),
        };
        output.write_all(format!("{answer}\n").as_bytes()).await?;
    }
}

/// What a command comes to. A write is answered when it is applied here, a read when all is that was
/// acknowledged before it.
async fn answer(line: &str, node: &Node, mut state: watch::Receiver<State>) -> Result<String> {
    let at = match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
        ["put", _, _] | ["del", _] => node.propose_and_wait(line.to_owned()).await?,
        ["add", id, address] => {
            let node_id = NodeId(id.parse()?);
            let context = format!("put peer/{node_id} {address}").into();
            let change = ConfChange { node_id, context, ..ConfChange::default() };
            node.propose_conf_change_and_wait(change).await?
        }
        ["remove", id] => {
            let (node_id, change_type) = (NodeId(id.parse()?), ConfChangeType::RemoveNode);
            let context = format!("del peer/{node_id}").into();
            let change = ConfChange { node_id, change_type, context, ..ConfChange::default() };
            node.propose_conf_change_and_wait(change).await?
        }
        ["get", key] => {
            let index = node.read().await?;
            let state = state.wait_for(|state| index <= state.applied).await?;
            return Ok(state.values.get(key).map_or("(none)", String::as_str).to_owned());
        }
        ["status"] => {
            let status = node.status().await;
            let soft = status.basic.soft_state;
            return Ok(format!("{} leader={} {}", soft.role, soft.lead, status.config));
        }
        _ => return Err(COMMANDS.into()),
    };
    state.wait_for(|state| at.index <= state.applied).await?;
    Ok(format!("ok {at}"))
}

/// The transport. A connection carries messages one way: a length (4, little-endian), then a message
/// in etcd's encoding.
struct Links {
    node: Node,
    /// Where they are by the command line, for as long as the state does not say it.
    members: BTreeMap<NodeId, String>,
    outboxes: BTreeMap<String, mpsc::Sender<Message>>,
}

impl Links {
    /// Sends without waiting; what finds no room is lost, as messages may be.
    async fn send(&mut self, message: Message, address: Option<String>) {
        let address = address.or_else(|| self.members.get(&message.to).cloned());
        let Some(address) = address else { return report(&self.node, &message, false).await };
        let outbox = self.outboxes.entry(address).or_insert_with_key(|address| {
            let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
            tokio::spawn(carry(messages, address.clone(), self.node.clone()));
            outbox
        });
        if let Err(lost) = outbox.try_send(message) {
            report(&self.node, &lost.into_inner(), false).await;
        }
    }
}

async fn carry(mut messages: mpsc::Receiver<Message>, address: String, node: Node) {
    let mut link = None;
    while let Some(message) = messages.recv().await {
        let bytes = codec::encode_message(&message).concat();
        let frame = [&(bytes.len() as u32).to_le_bytes()[..], &bytes].concat();
        let sent = timeout(PATIENCE, async {
            if link.is_none() {
                link.insert(TcpStream::connect(&address).await?).set_nodelay(true)?;
            }
            link.as_mut().expect("it is connected now").write_all(&frame).await
        });
        let is_sent = matches!(sent.await, Ok(Ok(())));
        link = link.filter(|_| is_sent);
        report(&node, &message, is_sent).await;
    }
}

/// The leader must always hear what became of a snapshot.
async fn report(node: &Node, message: &Message, is_sent: bool) {
    if !is_sent {
        node.report_unreachable(message.to).await;
    }
    if matches!(message.body, Body::Snapshot { .. }) {
        let status = if is_sent { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        node.report_snapshot(message.to, status).await;
    }
}

/// Hands over what a peer says. When this ends, the peer connects again.
async fn hear(mut stream: TcpStream, id: NodeId, node: Node) -> Result<()> {
    loop {
        let bytes = stream.read_u32_le().await? as usize;
        if FRAME_BYTES_MAX < bytes {
            return Err(format!("a message of {bytes} bytes").into());
        }
        let mut frame = vec![0; bytes];
        stream.read_exact(&mut frame).await?;
        let message = codec::decode_message(frame.into())?;
        // Nobody else speaks for this node's own storage.
        if message.to == id && !is_local_target(message.from) {
            node.step(message).await?;
        }
    }
}

/// What a node keeps: the durable log, the file of the latest snapshot, and in memory what the engine
/// reads of both.
struct Disk {
    dir: PathBuf,
    wal: Wal,
    log: MemoryStorage,
}

impl Disk {
    /// Opens what is in `dir`; says whether this node was never started.
    fn open(dir: &Path, id: NodeId) -> Result<(Disk, bool)> {
        fs::create_dir_all(dir)?;
        let (disk, place) = (Arc::new(RealDisk), dir.join("log"));
        let options = Options { segment_bytes: 4 << 20 };
        let identity = Identity { node: id, ..Identity::default() };
        if !Wal::exists(&*disk, &place)? {
            Wal::create(disk.clone(), &place, identity, options.clone(), &Mark::default(), None)?;
        }
        let (wal, found) = Wal::open(disk, &place, options, &mut |_, _| {})?;
        if found.identity != identity {
            return Err(format!("{} belongs to {}", dir.display(), found.identity).into());
        }
        let is_new = found.hard_state.is_none() && found.mark.index == Index(0);

        // The mark that starts the log says which snapshot counts.
        let metadata = codec::from_mark(found.mark)?;
        let data = match metadata.index {
            Index(0) => Vec::new(),
            index => fs::read(snapshot_file(dir, index))?,
        };
        let log = MemoryStorage::new();
        log.apply_snapshot(Snapshot { data: data.into(), metadata })?;
        for entry in found.entries {
            log.append(&[codec::from_log_entry(entry)?])?;
        }
        if let Some(record) = found.hard_state {
            log.set_hard_state(codec::decode_hard_state_record(record)?);
        }
        Ok((Disk { dir: dir.to_owned(), wal, log }, is_new))
    }

    /// Does what a Ready says, durably and then for the engine to read.
    fn save(&mut self, ready: &Ready) -> Result<()> {
        let write = Write {
            hard_state: ready.hard_state.as_ref().map(codec::encode_hard_state_record),
            entries: ready.entries.iter().map(codec::to_log_entry).collect(),
            must_sync: ready.must_sync,
            ..Write::default()
        };
        self.write(write, ready.snapshot.as_ref())?;
        if let Some(snapshot) = &ready.snapshot {
            self.log.apply_snapshot(snapshot.clone())?;
        }
        self.log.append(&ready.entries)?;
        if let Some(hard_state) = ready.hard_state {
            self.log.set_hard_state(hard_state);
        }
        Ok(())
    }

    /// Lets a snapshot of `state` stand for the log up to there, if it is time or must be.
    fn compact(&mut self, state: &State, must: bool) -> Result<()> {
        if !must && state.applied.0 < self.wal.mark().index.0 + SNAPSHOT_ENTRIES {
            return Ok(());
        }
        let (members, data) = (Some(state.members.clone()), state.to_text().into());
        let snapshot = self.log.create_snapshot(state.applied, members, data)?;
        self.write(Write::default(), Some(&snapshot))?;
        // An error if so many are not there, and all are kept.
        let _ = self.log.compact(Index(state.applied.0.saturating_sub(KEPT_ENTRIES)));
        Ok(())
    }

    fn write(&mut self, mut write: Write, snapshot: Option<&Snapshot>) -> Result<()> {
        let before = snapshot_file(&self.dir, self.wal.mark().index);
        if let Some(snapshot) = snapshot {
            // All of it is on disk before the log says that it counts.
            let file = snapshot_file(&self.dir, snapshot.metadata.index);
            fs::write(&file, &snapshot.data)?;
            File::open(&file)?.sync_all()?;
            File::open(&self.dir)?.sync_all()?;
            write.install = Some(codec::to_mark(&snapshot.metadata));
        }
        self.wal.append(&[write])?;
        if snapshot.is_some() {
            let _ = fs::remove_file(before); // one that is left behind does no harm
        }
        Ok(())
    }
}

fn snapshot_file(dir: &Path, index: Index) -> PathBuf {
    dir.join(format!("snapshot-{index}"))
}
