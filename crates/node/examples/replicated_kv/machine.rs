//! The replicated state: values by key, and who is in the group.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use quorate_raft::{ConfState, Snapshot};
use quorate_types::{EntryId, Index, NodeId};
use tokio::sync::watch;

use crate::Result;

#[derive(Default)]
pub(crate) struct Machine {
    state: Mutex<State>,
    /// For those who wait until something is applied.
    pub(crate) applied: watch::Sender<Index>,
}

#[derive(Clone, Default)]
pub(crate) struct State {
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) peers: BTreeMap<NodeId, String>,
    pub(crate) conf_state: ConfState,
    pub(crate) applied: EntryId,
}

impl Machine {
    pub(crate) fn new(snapshot: &Snapshot) -> Result<Self> {
        let machine = Machine::default();
        machine.restore(snapshot)?;
        Ok(machine)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Waits until this is applied.
    pub(crate) async fn wait_for(&self, index: Index) -> Result<()> {
        self.applied.subscribe().wait_for(|applied| index <= *applied).await?;
        Ok(())
    }

    pub(crate) fn restore(&self, snapshot: &Snapshot) -> Result<()> {
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
    pub(crate) fn run(&mut self, line: &str) {
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

    pub(crate) fn to_text(&self) -> String {
        let peers = self.peers.iter().map(|(id, address)| format!("peer {id} {address}\n"));
        let values = self.values.iter().map(|(key, value)| format!("put {key} {value}\n"));
        peers.chain(values).collect()
    }
}
