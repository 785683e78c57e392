//! A load generator for the etcd v3 API. It is closed-loop: each client has one request under way
//! and sends the next when the answer is there, so a slow server is offered less, and the latencies
//! are what that many patient clients would see (not what an open stream of arrivals would).
//!
//! Memory is bounded whatever the load: latencies go into histograms of fixed size, errors into a
//! table with a largest number of kinds, and no request is queued.

mod measured;
mod plan;
mod run;

pub use measured::{Failure, Latency, Measured};
pub use plan::{Load, PlanError, Work};
pub use run::{ConnectError, Progress, connect, run};

#[cfg(test)]
mod tests;
