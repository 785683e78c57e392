//! Whole processes: real servers on loopback, real clients, real kills.

mod bad_input;
mod catch_up;
mod durability;
mod etcdctl;
mod full_disk;
mod harness;
