//! A node as its embedder sees it: alone and driven by hand, and five of them over a network that
//! loses and delays. The clock is paused, so that waiting takes no time and runs are alike.

mod embedder;
mod live;
mod network;
mod outcomes;
mod readies;
mod surface;
