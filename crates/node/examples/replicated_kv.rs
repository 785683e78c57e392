//! A replicated key-value store in one file: the counterpart of etcd's `raftexample`.
//!
//! Three processes, each with a directory of its own (one terminal each):
//!
//! ```sh
//! cargo build -p quorate-node --example replicated_kv
//! kv=target/debug/examples/replicated_kv
//! peers=1=127.0.0.1:7001,2=127.0.0.1:7002,3=127.0.0.1:7003
//! $kv --id 1 --peers $peers --client 127.0.0.1:8001 --dir kv1
//! $kv --id 2 --peers $peers --client 127.0.0.1:8002 --dir kv2
//! $kv --id 3 --peers $peers --client 127.0.0.1:8003 --dir kv3
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
//! $kv --id 4 --peers $peers,4=127.0.0.1:7004 --client 127.0.0.1:8004 --dir kv4 --join
//! ```
//!
//! Further commands: `del KEY`, `remove ID`, `lead ID`. The nodes trust their network; a service
//! would use `quorate-net`, with its checksums and bounds, in place of the transport below.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate_codec::{
    decode_hard_state_record, decode_message, encode_hard_state_record, encode_message,
    from_log_entry, from_mark, to_log_entry, to_mark,
};
use quorate_node::Node;
use quorate_raft::{
    Body, ConfChange, ConfChangeType, ConfState, Config, Entry, EntryType, MemoryStorage, Message,
    Peer, Ready, Snapshot, SnapshotMetadata, SnapshotStatus, decode_conf_change,
};
use quorate_types::{GroupId, Index, Mark, NodeId};
use quorate_wal::{Identity, Options, RealDisk, Wal, Write};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Entries that stay in memory behind a snapshot, for followers that are a little late.
const KEPT_ENTRIES: u64 = 100;
const OUTBOX_MAX: usize = 4096;
const FRAME_BYTES_MAX: u32 = 256 << 20;
const LINE_BYTES_MAX: u64 = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let settings = Settings::from_arguments()?;
    let (mut disk, is_new) = Disk::open(&settings.dir, settings.id)?;
    let log = disk.log.clone();
    let machine = Arc::new(Machine::new(&disk.snapshot)?);

    let config = Config {
        applied: disk.snapshot.index,
        disable_proposal_forwarding: true, // clients ask the leader themselves
        postpone_single_voter_reads: true,
        ..Config::new(settings.id)
    };
    let node = if is_new && !settings.join {
        let first = settings.peers.iter().map(|(id, address)| Peer {
            id: *id,
            context: address.clone().into(), // so that the log tells where members are
        });
        Node::start(config, log, &first.collect::<Vec<_>>())?
    } else {
        Node::restart(config, log)?
    };

    let mut links = Links { node: node.clone(), id: settings.id, outboxes: BTreeMap::new() };
    settings.peers.iter().for_each(|(id, address)| links.add(*id, address));
    machine.state().peers.iter().for_each(|(id, address)| links.add(*id, address));
    let peers = TcpListener::bind(&settings.peers[&settings.id]).await?;
    tokio::spawn(accept_peers(peers, settings.id, node.clone()));
    let clients = TcpListener::bind(&settings.client).await?;
    tokio::spawn(accept_clients(clients, node.clone(), machine.clone()));

    let mut clock = tokio::time::interval(settings.tick);
    loop {
        let ready = tokio::select! {
            biased;
            _ = clock.tick() => {
                node.tick();
                continue;
            }
            ready = node.ready() => ready?,
        };
        // Disk before word. A disk that fails ends the process: what it holds now is unknown.
        tokio::task::block_in_place(|| disk.save(&ready))?;
        for message in ready.messages {
            links.send(message).await;
        }
        if let Some(snapshot) = &ready.snapshot {
            machine.restore(snapshot)?;
            machine.state().peers.iter().for_each(|(id, address)| links.add(*id, address));
        }
        for entry in ready.committed_entries {
            apply(&machine, &node, &mut links, entry).await?;
        }
        node.advance().await;
        if disk.snapshot.index.0 + settings.snapshot_entries <= machine.applied.borrow().0 {
            let snapshot = machine.state().clone();
            tokio::task::block_in_place(|| disk.compact(&snapshot))?;
        }
    }
}

async fn apply(machine: &Machine, node: &Node, links: &mut Links, entry: Entry) -> Result<()> {
    let index = entry.index;
    if entry.entry_type() == EntryType::Normal {
        machine.state().run(std::str::from_utf8(entry.payload())?);
    } else {
        let change = decode_conf_change(entry.entry_type(), entry.payload())?;
        match node.apply_conf_change(change.clone()).await {
            Ok(conf_state) => machine.state().conf_state = conf_state,
            // On every node alike, so it just does not happen.
            Err(quorate_raft::Error::Change(error)) => tracing::warn!("no change: {error}"),
            Err(error) => return Err(error.into()),
        }
        if let Some(change) = change.as_v1() {
            let address = std::str::from_utf8(&change.context)?.to_owned();
            match change.change_type {
                ConfChangeType::AddNode => {
                    links.add(change.node_id, &address);
                    machine.state().peers.insert(change.node_id, address);
                }
                ConfChangeType::RemoveNode => {
                    links.outboxes.remove(&change.node_id);
                    machine.state().peers.remove(&change.node_id);
                }
                ConfChangeType::UpdateNode | ConfChangeType::AddLearnerNode => {}
            }
        }
    }
    machine.state().applied = entry.id();
    machine.applied.send_replace(index);
    Ok(())
}

// The state machine.

struct Machine {
    state: Mutex<State>,
    /// For those who wait until something is applied.
    applied: watch::Sender<Index>,
}

#[derive(Clone, Default)]
struct State {
    values: BTreeMap<String, String>,
    peers: BTreeMap<NodeId, String>,
    conf_state: ConfState,
    applied: quorate_types::EntryId,
}

impl Machine {
    fn new(snapshot: &StoredSnapshot) -> Result<Self> {
        let machine = Machine { state: Mutex::default(), applied: watch::Sender::default() };
        machine.restore(&snapshot.read()?)?;
        Ok(machine)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    fn restore(&self, snapshot: &Snapshot) -> Result<()> {
        let mut state = State { applied: snapshot.id(), ..State::default() };
        state.conf_state = snapshot.metadata.conf_state.clone();
        std::str::from_utf8(&snapshot.data)?.lines().for_each(|line| state.run(line));
        *self.state() = state;
        self.applied.send_replace(snapshot.metadata.index);
        Ok(())
    }
}

impl State {
    /// A command, as clients send it and as the log and snapshots keep it.
    fn run(&mut self, line: &str) {
        match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
            ["put", key, value] => {
                self.values.insert(key.to_owned(), value.to_owned());
            }
            ["del", key] => {
                self.values.remove(key);
            }
            ["peer", id, address] => {
                self.peers.extend(id.parse().ok().map(|id| (NodeId(id), address.to_owned())));
            }
            _ => {}
        }
    }

    fn to_text(&self) -> String {
        let peers = self.peers.iter().map(|(id, address)| format!("peer {id} {address}\n"));
        let values = self.values.iter().map(|(key, value)| format!("put {key} {value}\n"));
        peers.chain(values).collect()
    }
}

// The disk: the log, the latest snapshot, and in memory what the engine reads.

struct Disk {
    wal: Wal,
    log: MemoryStorage,
    snapshot: StoredSnapshot,
}

/// The file of a snapshot. The mark that starts the log says which one counts.
struct StoredSnapshot {
    dir: PathBuf,
    index: Index,
    metadata: SnapshotMetadata,
}

impl Disk {
    /// Opens what is in `dir`; says whether this node was never started.
    fn open(dir: &Path, id: NodeId) -> Result<(Disk, bool)> {
        std::fs::create_dir_all(dir)?;
        let (disk, place) = (Arc::new(RealDisk), dir.join("log"));
        let options = Options { segment_bytes: 4 << 20 };
        let identity = Identity { cluster: 1, node: id, group: GroupId(1), ..Identity::default() };
        if !Wal::exists(&*disk, &place)? {
            Wal::create(disk.clone(), &place, identity, options.clone(), &Mark::default(), None)?;
        }
        let (wal, found) = Wal::open(disk, &place, options, &mut |_, _| {})?;
        if found.identity != identity {
            return Err(format!("{} belongs to {}", dir.display(), found.identity).into());
        }
        let is_new = found.hard_state.is_none() && found.mark.index == Index(0);
        let metadata = from_mark(found.mark)?;
        let snapshot = StoredSnapshot { dir: dir.to_owned(), index: metadata.index, metadata };

        let log = MemoryStorage::new();
        log.apply_snapshot(snapshot.read()?)?;
        let entries = found.entries.into_iter().map(from_log_entry);
        log.append(&entries.collect::<std::result::Result<Vec<_>, _>>()?)?;
        if let Some(record) = found.hard_state {
            log.set_hard_state(decode_hard_state_record(record)?);
        }
        Ok((Disk { wal, log, snapshot }, is_new))
    }

    /// Does what a Ready says, durably and then for the engine to read.
    fn save(&mut self, ready: &Ready) -> Result<()> {
        if let Some(snapshot) = &ready.snapshot {
            self.snapshot.write(snapshot)?; // before the log says that it counts
        }
        let write = Write {
            hard_state: ready.hard_state.as_ref().map(encode_hard_state_record),
            entries: ready.entries.iter().map(to_log_entry).collect(),
            install: ready.snapshot.as_ref().map(|snapshot| to_mark(&snapshot.metadata)),
            must_sync: ready.must_sync,
        };
        if !write.is_empty() {
            self.wal.append(&[write])?;
        }
        if let Some(snapshot) = &ready.snapshot {
            self.log.apply_snapshot(snapshot.clone())?;
            self.snapshot.replace(snapshot);
        }
        self.log.append(&ready.entries)?;
        if let Some(hard_state) = ready.hard_state {
            self.log.set_hard_state(hard_state);
        }
        Ok(())
    }

    /// Lets a snapshot of `state` stand for the log up to there.
    fn compact(&mut self, state: &State) -> Result<()> {
        let (applied, data) = (state.applied.index, Bytes::from(state.to_text()));
        let snapshot = self.log.create_snapshot(applied, Some(state.conf_state.clone()), data)?;
        self.snapshot.write(&snapshot)?;
        self.wal.compact(&to_mark(&snapshot.metadata))?;
        self.snapshot.replace(&snapshot);
        let kept = Index(applied.0.saturating_sub(KEPT_ENTRIES));
        match self.log.compact(kept) {
            Ok(()) | Err(quorate_raft::StorageError::Compacted) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl StoredSnapshot {
    fn file(&self, index: Index) -> PathBuf {
        self.dir.join(format!("snapshot-{index}"))
    }

    fn read(&self) -> Result<Snapshot> {
        let data = match self.index {
            Index(0) => Bytes::new(),
            index => std::fs::read(self.file(index))?.into(),
        };
        Ok(Snapshot { data, metadata: self.metadata.clone() })
    }

    fn write(&self, snapshot: &Snapshot) -> Result<()> {
        let file = self.file(snapshot.metadata.index);
        std::fs::write(&file, &snapshot.data)?;
        std::fs::File::open(&file)?.sync_all()?;
        Ok(std::fs::File::open(&self.dir)?.sync_all()?)
    }

    /// The log counts on `snapshot` now; the file before it may go.
    fn replace(&mut self, snapshot: &Snapshot) {
        let before = self.file(self.index);
        self.metadata = snapshot.metadata.clone();
        self.index = snapshot.metadata.index;
        let _ = std::fs::remove_file(before);
    }
}

// The transport. A connection carries one node's messages to one other: its id (8), then frames of
// a length (4) and a message in etcd's encoding, little-endian.

struct Links {
    node: Node,
    id: NodeId,
    outboxes: BTreeMap<NodeId, (String, mpsc::Sender<Message>)>,
}

impl Links {
    fn add(&mut self, peer: NodeId, address: &str) {
        let is_known = self.outboxes.get(&peer).is_some_and(|(known, _)| known == address);
        if peer == self.id || is_known {
            return;
        }
        let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
        let link = send_to(self.node.clone(), self.id, peer, address.to_owned(), messages);
        tokio::spawn(link);
        self.outboxes.insert(peer, (address.to_owned(), outbox));
    }

    /// Sends without waiting; what finds no room is lost, as messages may be.
    async fn send(&self, message: Message) {
        let peer = message.to;
        let is_snapshot = matches!(message.body, Body::Snapshot { .. });
        let is_taken = match self.outboxes.get(&peer) {
            Some((_, outbox)) => outbox.try_send(message).is_ok(),
            None => false,
        };
        if !is_taken {
            report(&self.node, peer, is_snapshot, false).await;
        }
    }
}

async fn send_to(
    node: Node,
    id: NodeId,
    peer: NodeId,
    address: String,
    mut messages: mpsc::Receiver<Message>,
) {
    let mut link = None;
    while let Some(message) = messages.recv().await {
        let is_snapshot = matches!(message.body, Body::Snapshot { .. });
        let sent = timeout(PATIENCE, write_to(&mut link, &address, id, &message)).await;
        let is_sent = matches!(sent, Ok(Ok(())));
        if !is_sent {
            link = None;
        }
        report(&node, peer, is_snapshot, is_sent).await;
    }
}

async fn write_to(
    link: &mut Option<TcpStream>,
    address: &str,
    id: NodeId,
    message: &Message,
) -> std::io::Result<()> {
    let stream = match link {
        Some(stream) => stream,
        None => {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            stream.write_u64_le(id.0).await?;
            link.insert(stream)
        }
    };
    let message = encode_message(message).concat();
    let mut frame = (message.len() as u32).to_le_bytes().to_vec();
    frame.extend(message);
    stream.write_all(&frame).await
}

/// The leader must always hear what became of a snapshot.
async fn report(node: &Node, peer: NodeId, is_snapshot: bool, is_sent: bool) {
    if !is_sent {
        node.report_unreachable(peer).await;
    }
    if is_snapshot {
        let status = match is_sent {
            true => SnapshotStatus::Finish,
            false => SnapshotStatus::Failure,
        };
        node.report_snapshot(peer, status).await;
    }
}

async fn accept_peers(listener: TcpListener, id: NodeId, node: Node) {
    while let Ok((stream, address)) = listener.accept().await {
        let node = node.clone();
        tokio::spawn(async move {
            if let Err(error) = hear(stream, id, node).await {
                tracing::info!("the connection from {address} ended: {error}");
            }
        });
    }
}

async fn hear(stream: TcpStream, id: NodeId, node: Node) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let peer = NodeId(stream.read_u64_le().await?);
    loop {
        let bytes = stream.read_u32_le().await?;
        if FRAME_BYTES_MAX < bytes {
            return Err(format!("a message of {bytes} bytes").into());
        }
        let mut frame = Vec::new();
        (&mut stream).take(bytes.into()).read_to_end(&mut frame).await?;
        let message = decode_message(frame.into())?;
        // Nobody speaks for others, or for this node's own storage.
        let is_local = quorate_raft::is_local_target(peer);
        if message.from != peer || message.to != id || is_local {
            return Err("a message of another node, or for one".into());
        }
        if !matches!(message.body, Body::Propose { .. }) {
            node.step(message).await?;
        }
    }
}

// The clients.

async fn accept_clients(listener: TcpListener, node: Node, machine: Arc<Machine>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (node, machine) = (node.clone(), machine.clone());
        tokio::spawn(async move {
            // A client that goes away is its own business.
            let _ = serve(stream, node, machine).await;
        });
    }
}

async fn serve(mut stream: TcpStream, node: Node, machine: Arc<Machine>) -> std::io::Result<()> {
    let (input, mut output) = stream.split();
    let mut input = BufReader::new(input);
    loop {
        let mut line = String::new();
        (&mut input).take(LINE_BYTES_MAX).read_line(&mut line).await?;
        let Some(line) = line.strip_suffix('\n') else { return Ok(()) };
        let answer = match timeout(PATIENCE, answer(line, &node, &machine)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => format!("error: {error}"),
            Err(_) => "error: no answer in time; it may happen yet".to_owned(),
        };
        output.write_all(format!("{answer}\n").as_bytes()).await?;
    }
}

async fn answer(line: &str, node: &Node, machine: &Machine) -> Result<String> {
    let change = |change_type, id: &str, address: &str| -> Result<ConfChange> {
        let (node_id, context) = (NodeId(id.parse()?), address.to_owned().into());
        Ok(ConfChange { change_type, node_id, context, ..ConfChange::default() })
    };
    let at = match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
        ["put", _, _] | ["del", _] => node.propose_and_wait(line.to_owned()).await?,
        ["add", id, address] => {
            let change = change(ConfChangeType::AddNode, id, address)?;
            node.propose_conf_change_and_wait(change).await?
        }
        ["remove", id] => {
            let change = change(ConfChangeType::RemoveNode, id, "")?;
            node.propose_conf_change_and_wait(change).await?
        }
        ["get", key] => {
            let index = node.read().await?;
            machine.applied.subscribe().wait_for(|applied| index <= *applied).await?;
            let value = machine.state().values.get(key).cloned();
            return Ok(value.unwrap_or_else(|| "(none)".to_owned()));
        }
        ["lead", id] => {
            let lead = node.status().await.basic.soft_state.lead;
            node.transfer_leadership(lead, NodeId(id.parse()?)).await;
            return Ok("asked".to_owned());
        }
        ["status"] => {
            let status = node.status().await;
            let (soft, hard) = (status.basic.soft_state, status.basic.hard_state);
            let (applied, members) = (*machine.applied.borrow(), status.config);
            return Ok(format!(
                "{} leader={} term={} applied={applied} {members}",
                soft.role, soft.lead, hard.term
            ));
        }
        _ => {
            return Err(
                "put KEY VALUE, get KEY, del KEY, add ID ADDRESS, remove ID, lead ID, status"
                    .into(),
            );
        }
    };
    machine.applied.subscribe().wait_for(|applied| at.index <= *applied).await?;
    Ok(format!("ok {at}"))
}

// The command line.

struct Settings {
    id: NodeId,
    peers: BTreeMap<NodeId, String>,
    client: String,
    dir: PathBuf,
    join: bool,
    tick: Duration,
    snapshot_entries: u64,
}

impl Settings {
    fn from_arguments() -> Result<Self> {
        let (mut values, mut join) = (BTreeMap::new(), false);
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--join" => join = true,
                "--id" | "--peers" | "--client" | "--dir" | "--tick-ms" | "--snapshot-entries" => {
                    values.insert(name, arguments.next().unwrap_or_default());
                }
                _ => {
                    return Err(
                        format!("unknown argument {name}; see the file's first lines").into()
                    );
                }
            }
        }
        let value = |name: &str| values.get(name).cloned().ok_or(format!("{name} is missing"));
        let number =
            |name: &str, default| values.get(name).map_or(Ok(default), |text| text.parse());
        let mut peers = BTreeMap::new();
        for peer in value("--peers")?.split(',') {
            let (id, address) = peer.split_once('=').ok_or("--peers is ID=ADDRESS,ID=ADDRESS")?;
            peers.insert(NodeId(id.parse()?), address.to_owned());
        }
        let id = NodeId(value("--id")?.parse()?);
        if !peers.contains_key(&id) {
            return Err(format!("--peers does not name {id}").into());
        }
        let (client, dir) = (value("--client")?, value("--dir")?.into());
        let tick = Duration::from_millis(number("--tick-ms", 100)?.max(1));
        let snapshot_entries = number("--snapshot-entries", 10_000)?.max(1);
        Ok(Settings { id, peers, client, dir, join, tick, snapshot_entries })
    }
}
