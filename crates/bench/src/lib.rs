//! Measurements, always beside a peer in the same run: a number alone says more about the machine
//! than about us.
//!
//! The programs are in `src/bin`; here is what they are made of:
//!
//! ```text
//! compare     quorate serve beside etcd     cluster, usage, compare, marks
//! raft_core   our Raft core beside raft-rs  raft_core; the bytes of a replica: raft_footprint
//! kv_backend  where the machine keeps rows  all of it there
//! log         our log beside raft-engine    all of it there
//! ```

pub mod cluster;
pub mod compare;
pub mod marks;
pub mod raft_core;
pub mod usage;
