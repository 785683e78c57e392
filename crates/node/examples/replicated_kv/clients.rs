//! Clients send lines and get one line for each.

use std::sync::Arc;

use quorate_node::Node;
use quorate_raft::{ConfChange, ConfChangeType};
use quorate_types::NodeId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::machine::Machine;
use crate::{PATIENCE, Result};

const LINE_BYTES_MAX: u64 = 64 << 10;
const USAGE: &str = "put KEY VALUE, get KEY, del KEY, add ID ADDRESS, remove ID, lead ID, status";

pub(crate) async fn accept_clients(listener: TcpListener, node: Node, machine: Arc<Machine>) {
    while let Ok((stream, _)) = listener.accept().await {
        // A client that goes away is its own business.
        tokio::spawn(serve(stream, node.clone(), machine.clone()));
    }
}

async fn serve(mut stream: TcpStream, node: Node, machine: Arc<Machine>) -> Result<()> {
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

/// What a command comes to. A write is answered when it is applied here, a read when all is that was
/// acknowledged before it.
async fn answer(line: &str, node: &Node, machine: &Machine) -> Result<String> {
    let at = match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
        ["put", _, _] | ["del", _] => node.propose_and_wait(line.to_owned()).await?,
        ["add", id, address] => change(node, ConfChangeType::AddNode, id, address).await?,
        ["remove", id] => change(node, ConfChangeType::RemoveNode, id, "").await?,
        ["get", key] => {
            machine.wait_for(node.read().await?).await?;
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
            let (soft, term) = (status.basic.soft_state, status.basic.hard_state.term);
            let (applied, members) = (*machine.applied.borrow(), status.config);
            let (role, lead) = (soft.role, soft.lead);
            return Ok(format!("{role} leader={lead} term={term} applied={applied} {members}"));
        }
        _ => return Err(USAGE.into()),
    };
    machine.wait_for(at.index).await?;
    Ok(format!("ok {at}"))
}

async fn change(
    node: &Node,
    change_type: ConfChangeType,
    id: &str,
    address: &str,
) -> Result<quorate_types::EntryId> {
    let (node_id, context) = (NodeId(id.parse()?), address.to_owned().into());
    let change = ConfChange { change_type, node_id, context, ..ConfChange::default() };
    Ok(node.propose_conf_change_and_wait(change).await?)
}
