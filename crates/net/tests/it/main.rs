//! Whole transports over loopback: with each other, through proxies that do harm, and against peers
//! that are written by hand.
//!
//! No test looks at how long something takes: each waits for a condition, with a deadline that only
//! a fault reaches.

mod hostile;
mod lives;
mod messages;
mod node;
mod proxy;
mod shutdown;
mod snapshots;
mod wire;
