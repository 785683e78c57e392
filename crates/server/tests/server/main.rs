//! Real nodes, asked what clients and operators ask.

mod contests;
mod deposed;
mod differing;
mod kubernetes;
mod log;
mod maintenance;
mod membership;
mod node;
mod observing;
mod services;
mod starting;
mod streams;
mod trio;
