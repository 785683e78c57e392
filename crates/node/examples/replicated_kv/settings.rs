//! The command line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use quorate_types::NodeId;

use crate::Result;

pub(crate) struct Settings {
    pub(crate) id: NodeId,
    pub(crate) peers: BTreeMap<NodeId, String>,
    pub(crate) client: String,
    pub(crate) dir: PathBuf,
    pub(crate) join: bool,
    pub(crate) tick: Duration,
    pub(crate) snapshot_entries: u64,
}

impl Settings {
    pub(crate) fn from_arguments() -> Result<Self> {
        let (mut values, mut join) = (BTreeMap::new(), false);
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--join" => join = true,
                "--id" | "--peers" | "--client" | "--dir" | "--tick-ms" | "--snapshot-entries" => {
                    values.insert(name, arguments.next().unwrap_or_default());
                }
                _ => {
                    return Err(format!("unknown argument {name}; see main.rs").into());
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
