//! The engine through its public face: each file is one subject of the Raft core's contract.

mod bounds;
mod coalescing;
mod driving;
mod edges;
mod elections;
mod fickle;
mod flow;
mod gate;
mod handover;
mod idle;
mod lease_reads;
mod leases;
mod membership;
mod model;
mod net;
mod priority;
mod pulling;
mod raw_node;
mod reads;
mod replication;
mod requests;
mod robust;
mod snapshots;
mod transfer;
mod votes;
