//! Whole nodes on loopback, with real ports.

mod doors;
mod embedded;
mod ensemble;
mod failing;
mod harness;
mod watchers;
