//! The engine through its public face: each file is one subject of the Raft core's contract.

mod driving;
mod elections;
mod flow;
mod gate;
mod leases;
mod membership;
mod model;
mod net;
mod raw_node;
mod reads;
mod replication;
mod robust;
mod snapshots;
mod transfer;
mod votes;
