//! Whole processes: real servers on loopback, real clients, real kills.

mod bad_input;
mod catch_up;
mod durability;
mod etcdctl;
mod harness;
