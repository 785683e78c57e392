//! Whole nodes on loopback, with real ports.

mod doors;
mod ensemble;
mod harness;
mod watchers;
