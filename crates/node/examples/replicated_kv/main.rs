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
//! machine   the replicated state  clients  their commands      settings  the command line
//! ```

mod clients;
mod disk;
mod links;
mod machine;
mod settings;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use quorate_node::Node;
use quorate_raft::{
    AppliedChange, ConfChangeType, Config, Entry, EntryType, Peer, decode_conf_change,
};
use quorate_types::Index;
use tokio::net::TcpListener;

use crate::clients::accept_clients;
use crate::disk::Disk;
use crate::links::{Links, accept_peers};
use crate::machine::Machine;
use crate::settings::Settings;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// How long a client waits for an answer, and a message for its way into a connection.
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let settings = Settings::from_arguments()?;
    let (mut disk, is_new) = Disk::open(&settings.dir, settings.id)?;
    let log = disk.log.clone();
    let machine = Arc::new(Machine::new(&disk.snapshot.read()?)?);

    let config = Config {
        applied: disk.snapshot.index,
        disable_proposal_forwarding: true, // clients ask the leader themselves
        postpone_single_voter_reads: true,
        lead_after_own_vote: true,
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

    let mut links = Links::new(node.clone(), settings.id);
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
        let (taken, applied) = (disk.snapshot.index, *machine.applied.borrow());
        // A new member takes no snapshot that does not name it, so an older one helps it no more.
        let is_outdated = has_changed && Index(0) < taken;
        if is_outdated || taken.0 + settings.snapshot_entries <= applied.0 {
            let snapshot = machine.state().clone();
            tokio::task::block_in_place(|| disk.compact(&snapshot))?;
        }
    }
}

/// Says whether a snapshot has overtaken the entry.
async fn apply(machine: &Machine, node: &Node, links: &mut Links, entry: Entry) -> Result<bool> {
    let index = entry.index;
    let mut is_overtaken = false;
    if entry.entry_type() == EntryType::Normal {
        machine.state().run(std::str::from_utf8(entry.payload())?);
    } else {
        let change = decode_conf_change(entry.entry_type(), entry.payload())?;
        match node.apply_conf_change_at(index, change.clone()).await {
            Ok(AppliedChange::Changed(conf_state)) => machine.state().conf_state = conf_state,
            Ok(AppliedChange::Overtaken(_)) => is_overtaken = true,
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
                    links.remove(change.node_id);
                    machine.state().peers.remove(&change.node_id);
                }
                ConfChangeType::UpdateNode | ConfChangeType::AddLearnerNode => {}
            }
        }
    }
    machine.state().applied = entry.id();
    machine.applied.send_replace(index);
    Ok(is_overtaken)
}
