//! Idle groups: their heartbeats take a shorter way through the engine, which leads to the same place.

use std::sync::Arc;

use quorate_raft::{
    ConfState, Config, EntryType, MemoryStorage, Message, RawNode, Ready, Snapshot, TraceLogger,
    TracingEvent, decode_conf_change,
};
use quorate_types::NodeId;

use crate::net::{Dice, ids, plain};

/// Whoever is traced goes the long way.
#[derive(Debug)]
struct Listener;

impl TraceLogger for Listener {
    fn trace_event(&self, _: &TracingEvent<'_>) {}
}

/// A node, and one that is traced and told the same.
struct Twins {
    nodes: [RawNode<MemoryStorage>; 2],
    storages: [MemoryStorage; 2],
}

impl Twins {
    fn new(config: &Config, voters: &[u64]) -> Self {
        let storage = || {
            let mut snapshot = Snapshot::default();
            snapshot.metadata.conf_state =
                ConfState { voters: ids(voters), ..ConfState::default() };
            let storage = MemoryStorage::new();
            storage.apply_snapshot(snapshot).unwrap();
            storage
        };
        let storages = [storage(), storage()];
        let plain = RawNode::new(config.clone(), storages[0].clone()).unwrap();
        let traced = RawNode::new_traced(config.clone(), storages[1].clone(), Arc::new(Listener));
        Twins { nodes: [plain, traced.unwrap()], storages }
    }

    /// Does the same with both, to the same effect.
    fn both<T: PartialEq + std::fmt::Debug>(
        &mut self,
        mut act: impl FnMut(&mut RawNode<MemoryStorage>) -> T,
    ) -> T {
        let [one, other] = &mut self.nodes;
        let (done, as_well) = (act(one), act(other));
        assert_eq!(done, as_well);
        assert_eq!(one.has_ready(), other.has_ready());
        assert_eq!(one.status(), other.status());
        assert_eq!(one.election_elapsed(), other.election_elapsed());
        done
    }

    fn work(&mut self) -> Vec<Message> {
        let mut said = vec![];
        let mut ready = Ready::default();
        while self.both(|node| node.has_ready()) {
            self.nodes[0].ready_into(&mut ready);
            assert_eq!(ready, self.nodes[1].ready());
            for (node, storage) in self.nodes.iter_mut().zip(&self.storages) {
                storage.append(&ready.entries).unwrap();
                ready.hard_state.into_iter().for_each(|state| storage.set_hard_state(state));
                for entry in &ready.committed_entries {
                    if entry.entry_type() != EntryType::Normal {
                        let change = decode_conf_change(entry.entry_type(), entry.payload());
                        node.apply_conf_change(&change.unwrap()).unwrap();
                    }
                }
            }
            self.both(RawNode::advance).unwrap();
            said.append(&mut ready.messages);
        }
        said
    }
}

#[test]
fn a_heartbeat_leads_to_the_same_by_the_short_way_and_by_the_long() {
    let mut beats = 0;
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let config = |id| Config {
            check_quorum: true,
            pre_vote: true,
            coalesce_appends: seed % 2 == 0,
            retry_transfer: seed % 3 == 0,
            messages_max: [0, 3][(seed % 5 == 0) as usize],
            heartbeat_tick: 1 + (seed % 2) as u32,
            ..plain(id)
        };
        let voters = [1, 2, 3];
        let mut group: Vec<Twins> =
            voters.iter().map(|&id| Twins::new(&config(id), &voters)).collect();
        for step in 0..1500 {
            let at = dice.roll(3) as usize;
            // Long quiet times, and now and then something else.
            match dice.roll(400) {
                0 => group[at].both(|node| drop(node.propose("x"))),
                1 => group[at].both(|node| node.read_index("r")),
                2 => group[at].both(|node| node.transfer_leader(NodeId(1 + step % 3))),
                3 => group[at].both(|node| node.report_unreachable(NodeId(1 + step % 3))),
                4 => group[at].both(RawNode::forget_leader).unwrap(),
                _ => {}
            }
            for twins in &mut group {
                twins.both(RawNode::tick).unwrap();
            }
            loop {
                let said: Vec<Message> = group.iter_mut().flat_map(Twins::work).collect();
                if said.is_empty() {
                    break;
                }
                for message in said {
                    beats += 1;
                    if !dice.is_one_in(200) {
                        let to = &mut group[message.to.0 as usize - 1];
                        let _ = to.both(|node| node.step(message.clone()));
                    }
                }
            }
        }
    }
    assert!(beats > 20_000, "{beats} messages");
}

#[test]
fn a_leader_without_peers_owes_no_heartbeats() {
    let mut alone = Twins::new(&plain(1), &[1]);
    alone.both(RawNode::campaign).unwrap();
    alone.work();
    for _ in 0..25 {
        alone.both(RawNode::tick).unwrap();
        assert!(!alone.both(|node| node.has_ready()));
    }
}

/// With what it owns, a replica of an idle group of three takes a kibibyte in the mean; what it comes to
/// is printed by `raft_footprint` of `quorate-bench`.
#[test]
fn a_node_costs_little_memory() {
    let bytes = size_of::<RawNode<MemoryStorage>>();
    assert!(bytes <= 728, "{bytes}");
}
