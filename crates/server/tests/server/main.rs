//! Real nodes, asked what clients and operators ask.

mod contests;
mod kubernetes;
mod log;
mod maintenance;
mod membership;
mod node;
mod observing;
mod services;
mod starting;
mod streams;
