//! Breaks clusters of real `quorate serve` processes on loopback, and judges what their clients saw.
//!
//! A run is a row of rounds. Each draws a plan from its seed: how many members, how busy the clients
//! are, which kinds of faults are on and when each strikes. The plan is a function of the seed; what
//! comes of it is not, since the processes, the network and the clock are real. A round ends in four
//! steps: a majority is healed while the rest stays broken, and has to go on; all is healed, and every
//! member has to answer; all are killed at once and started again; all hold the same, and the history
//! of what clients saw is judged by `quorate-history`. Beside those that write and read, some watch all keys:
//! what they were told is complete, in order, without repetition, and fits what the others saw. And some
//! hold leases: none may end before its time.
//!
//! What this shows and what it does not: processes that are killed lose nothing that the kernel has, so
//! a missing sync goes unnoticed here. That is what the tests on disks that forget are for.

mod chance;
mod changes;
mod clients;
mod cluster;
mod disk;
mod holders;
mod plan;
mod proxy;
mod report;
mod round;
mod syncs;
mod told;
mod watchers;
mod wire;

pub use cluster::ClusterError;
pub use disk::Volume;
pub use plan::{Engine, Fault, Kind, Plan, Strike, Whom};
pub use report::{Counts, Report, judge};
pub use round::{Round, Settings};
