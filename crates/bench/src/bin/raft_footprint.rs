//! How many bytes one replica of an idle group of three takes: quorate-raft beside raft-rs.
//!
//! ```text
//! cargo run --release -p quorate-bench --bin raft_footprint
//! ```
//! Counted is what the allocator gets back when a node is dropped while its storage stays: the node
//! itself and all it owns, without the log. The allocator that counts would slow down whatever else
//! is measured, so this is a program of its own.
//!
//! What it said, of bytes in the mean of a group of three:
//! ```text
//!                      quorate   with ready_into   raft-rs
//! elected, then idle    1,021             1,021     2,230
//! idle after work       1,021             1,021     9,836
//! ```

use std::any::Any;

use bytes::Bytes;
use comfy_table::{Table, presets};
use quorate_bench::raft_core::{Group, Proposing, Quorate, RaftRs, Setup, replicate};

fn main() {
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED);
    table.set_header([
        "group of three",
        "role",
        "quorate bytes",
        "with ready_into",
        "raft-rs bytes",
        "raft-rs/quorate",
    ]);
    for (what, works) in [("elected, then idle", false), ("idle after work", true)] {
        let [ours, reusing] = [false, true].map(|reuse| bytes::<Quorate>(works, reuse));
        let theirs = bytes::<RaftRs>(works, false);
        for (role, ours, reusing, theirs) in [
            ("leader", ours.leader, reusing.leader, theirs.leader),
            ("follower", ours.follower, reusing.follower, theirs.follower),
            ("mean of the group", ours.mean(), reusing.mean(), theirs.mean()),
        ] {
            let ratio = format!("{:.2}", theirs as f64 / ours as f64);
            let [ours, reusing, theirs] = [ours, reusing, theirs].map(|bytes| bytes.to_string());
            table.add_row([what, role, &ours, &reusing, &theirs, &ratio]);
        }
    }
    println!("{table}");
}

struct Footprint {
    leader: u64,
    follower: u64,
}

impl Footprint {
    fn mean(&self) -> u64 {
        (self.leader + 2 * self.follower) / 3
    }
}

/// What nodes of a group take that was elected or, besides, has replicated and come to rest.
fn bytes<G: Group>(works: bool, reuse_ready: bool) -> Footprint {
    let mut group = G::new(Setup { reuse_ready, ..Setup::of(3) });
    if works {
        replicate(&mut group, Proposing::Each, &Bytes::from(vec![0; 256]), 64, 10);
    }
    for _ in 0..30 {
        group.tick();
        group.settle();
    }
    let mut footprint = Footprint { leader: 0, follower: 0 };
    group.give_up(|leads, node| {
        let bytes = freed_by(node);
        *if leads { &mut footprint.leader } else { &mut footprint.follower } = bytes;
    });
    footprint
}

fn freed_by(node: Box<dyn Any>) -> u64 {
    let counted = allocation_counter::measure(|| drop(node));
    counted.bytes_current.unsigned_abs()
}
