//! A replicated key-value store around one [`Node`] a process: the counterpart of etcd's `raftexample`.
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
//!
//! ```text
//! main      the loop: every Ready to disk, to peers, to the state machine, in this order
//! disk      log and snapshots     links    the transport
//! machine   the replicated state  clients  their commands
//! ```

mod clients;
mod disk;
mod links;
mod machine;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use quorate_node::Node;
use quorate_raft::{
    AppliedChange, ConfChangeType, Config, Entry, EntryType, Peer, Storage, decode_conf_change,
};
use quorate_types::{Index, NodeId};
use tokio::net::TcpListener;

use crate::clients::accept_clients;
use crate::disk::Disk;
use crate::links::{Links, accept_peers};
use crate::machine::Machine;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// How long a client waits for an answer, and a message for its way into a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// One node of a replicated key-value store
#[derive(Parser)]
struct Settings {
    #[arg(long)]
    id: u64,
    /// All members, this one too: ID=ADDRESS,ID=ADDRESS
    #[arg(long, required = true, value_delimiter = ',', value_parser = peer)]
    peers: Vec<(NodeId, String)>,
    /// Where clients are heard
    #[arg(long)]
    client: String,
    #[arg(long)]
    dir: PathBuf,
    /// The group is there already, and was told of this node
    #[arg(long)]
    join: bool,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    tick_ms: u64,
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    snapshot_entries: u64,
}

fn peer(text: &str) -> Result<(NodeId, String)> {
    let (id, address) = text.split_once('=').ok_or("a peer is ID=ADDRESS")?;
    Ok((NodeId(id.parse()?), address.to_owned()))
}

#[tokio::main]
async fn main() -> Result<()> {
    let settings = Settings::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let (id, members) = (NodeId(settings.id), &settings.peers);
    let own = members.iter().find(|(member, _)| *member == id);
    let (_, own_address) = own.ok_or(format!("--peers does not name {id}"))?;

    let (mut disk, is_new) = Disk::open(&settings.dir, id)?;
    let snapshot = disk.log.snapshot()?;
    let machine = Arc::new(Machine::new(&snapshot)?);
    let config = Config {
        applied: snapshot.metadata.index,
        disable_proposal_forwarding: true, // clients ask the leader themselves
        postpone_single_voter_reads: true,
        lead_after_own_vote: true,
        ..Config::new(id)
    };
    let node = if is_new && !settings.join {
        let first = members.iter().map(|(id, address)| Peer {
            id: *id,
            context: address.clone().into(), // so that the log tells where members are
        });
        Node::start(config, disk.log.clone(), &first.collect::<Vec<_>>())?
    } else {
        Node::restart(config, disk.log.clone())?
    };

    let mut links = Links { node: node.clone(), id, outboxes: BTreeMap::new() };
    members.iter().for_each(|(id, address)| links.add(*id, address));
    machine.state().peers.iter().for_each(|(id, address)| links.add(*id, address));
    let listener = TcpListener::bind(own_address).await?;
    tokio::spawn(accept_peers(listener, id, node.clone()));
    let listener = TcpListener::bind(&settings.client).await?;
    tokio::spawn(accept_clients(listener, node.clone(), machine.clone()));

    let mut clock = tokio::time::interval(Duration::from_millis(settings.tick_ms));
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
        let (mut has_changed, mut is_overtaken) = (false, false);
        for entry in ready.committed_entries {
            has_changed |= entry.entry_type() != EntryType::Normal;
            is_overtaken |= apply(&machine, &node, &mut links, entry).await?;
        }
        node.advance().await;
        if is_overtaken {
            // A snapshot comes with the next Ready; until then the membership is not known.
            continue;
        }
        let (taken, applied) = (disk.snapshot_index()?, *machine.applied.borrow());
        // A new member takes no snapshot that does not name it, so an older one helps it no more.
        let is_outdated = has_changed && Index(0) < taken;
        if is_outdated || taken.0 + settings.snapshot_entries <= applied.0 {
            let state = machine.state().clone();
            tokio::task::block_in_place(|| disk.compact(&state))?;
        }
    }
}

/// Says whether a snapshot has overtaken the entry.
async fn apply(machine: &Machine, node: &Node, links: &mut Links, entry: Entry) -> Result<bool> {
    let mut is_overtaken = false;
    if entry.entry_type() == EntryType::Normal {
        machine.state().run(std::str::from_utf8(entry.payload())?);
    } else {
        let change = decode_conf_change(entry.entry_type(), entry.payload())?;
        match node.apply_conf_change_at(entry.index, change.clone()).await {
            Ok(AppliedChange::Changed(conf_state)) => machine.state().conf_state = conf_state,
            Ok(AppliedChange::Overtaken(_)) => is_overtaken = true,
            // On every node alike, so it just does not happen.
            Err(quorate_raft::Error::Change(error)) => tracing::warn!("no change: {error}"),
            Err(error) => return Err(error.into()),
        }
        let change = change.as_v1().ok_or("a change that no client can ask for")?;
        if change.change_type == ConfChangeType::AddNode {
            let address = std::str::from_utf8(&change.context)?;
            links.add(change.node_id, address);
            machine.state().peers.insert(change.node_id, address.to_owned());
        } else {
            links.outboxes.remove(&change.node_id);
            machine.state().peers.remove(&change.node_id);
        }
    }
    machine.state().applied = entry.id();
    machine.applied.send_replace(entry.index);
    Ok(is_overtaken)
}
