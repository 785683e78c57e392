//! Measurements, always beside a peer in the same run: a number alone says more about the machine
//! than about us.
//!
//! The programs are in `src/bin`; here is what `compare` is made of: clusters of child processes
//! ([`cluster`]), what they use ([`usage`]), and the comparison itself ([`compare`]).

pub mod cluster;
pub mod compare;
pub mod usage;
