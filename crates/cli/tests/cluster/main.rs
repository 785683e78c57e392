//! Whole processes: real servers on loopback, real clients, real kills.

mod autopilot;
mod bad_input;
mod bench;
mod catch_up;
mod chaos;
mod clients;
mod contests;
mod crowd;
mod differential;
mod durability;
mod etcdctl;
mod full_disk;
mod harness;
mod leaderless;
mod maintenance;
mod membership;
mod others;
mod playground;
mod signals;
mod stalls;
mod suite;
mod watch;
mod watch_log;
mod wiped;
