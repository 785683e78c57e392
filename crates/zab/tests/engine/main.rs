//! The engine from outside: nodes, their disks, and a network between them.

mod broadcast;
mod contrasts;
mod discovery;
mod gometa;
mod hand;
mod mixed;
mod model;
mod net;
mod one_way;
mod puppet;
mod requests;
mod scenarios;
mod sync;
mod upheavals;
