//! Who may be heard: a member is known by the life of its log, which it publishes through the log. One
//! that comes back with another has lost its directory; whoever knows it refuses it, and it ends
//! (`net/src/lives.rs` and `runtime/src/peers.rs`, where a hello says which life it is).

use std::collections::BTreeMap;

use quorate_kv::{Command, Member, Store};
use quorate_types::{Life, NodeId, bug};

use crate::node::{Ended, Going, Node};
use crate::world::{Cx, Event, What, World};

/// What a member says that ends because its log is not the one that it is known by.
pub(crate) const OTHER_LIFE: &str = "the log is not the one that this member is known by";
/// How often a member publishes itself until it is known, in ticks.
const PUBLISH_TICKS: u64 = 20;

/// A member as the list has it before it has said anything of itself.
pub(crate) fn unpublished(id: NodeId) -> Member {
    Member { id: id.0, peer_urls: vec![format!("http://n{}:2380", id.0)], ..Member::default() }
}

fn known_lives(store: &Store) -> BTreeMap<NodeId, Life> {
    let members = store.members().into_iter();
    members.filter_map(|member| Some((NodeId(member.id), member.life.known()?))).collect()
}

impl Node {
    /// Takes over what the machine knows of lives.
    pub(crate) fn learn_lives(&mut self) -> Going {
        let known = known_lives(&self.process().store);
        self.lives.extend(known);
        if self.lives.get(&self.id).is_some_and(|life| *life != self.log_life) {
            return Err(Ended(OTHER_LIFE.to_owned()));
        }
        Ok(())
    }

    /// Publishes itself, until it is known.
    pub(crate) fn publish(&mut self, cx: &mut Cx<'_>) -> Going {
        let is_known = self.lives.contains_key(&self.id);
        let (id, life, ticks) = (self.id, self.log_life, self.process().ticks);
        let knows_leader = !self.process().replica.glance().leader.is_none();
        if is_known || !knows_leader || !ticks.is_multiple_of(PUBLISH_TICKS) {
            return Ok(());
        }
        let command = Command::PublishMember {
            id: id.0,
            name: format!("n{}", id.0),
            client_urls: Vec::new(),
            life,
            version: String::new(),
            tags: BTreeMap::new(),
        };
        self.propose_own(cx, &command)
    }

    /// Another member knows this one by another life.
    pub(crate) fn on_refused_life(&mut self, by: NodeId, life: Life) -> Going {
        if life != self.log_life {
            return Ok(()); // it was an earlier process
        }
        self.denied_by.insert(by);
        let others: Vec<u64> = self.process().store.members().iter().map(|one| one.id).collect();
        let others: Vec<u64> = others.into_iter().filter(|id| *id != self.id.0).collect();
        let denied = others.iter().filter(|id| self.denied_by.contains(&NodeId(**id))).count();
        let is_acknowledged = self.lives.get(&self.id) == Some(&self.log_life);
        if !is_acknowledged || others.len() < 2 * denied {
            return Err(Ended(OTHER_LIFE.to_owned()));
        }
        Ok(())
    }
}

impl World<'_> {
    /// Whether two members would not connect, since one is not who the other knows: then whoever is not
    /// is told.
    pub(crate) fn is_refused(&mut self, from: NodeId, to: NodeId) -> bool {
        if bug!("who-lost-everything-is-heard") {
            return false;
        }
        let (one, other) = (&self.nodes[self.place(from)], &self.nodes[self.place(to)]);
        let contradicts = |by: &Node, whom: &Node| {
            by.lives.get(&whom.id).is_some_and(|life| *life != whom.log_life)
        };
        let (by, whom, life) = match (contradicts(other, one), contradicts(one, other)) {
            (true, _) => (to, from, one.log_life),
            (_, true) => (from, to, other.log_life),
            _ => return false,
        };
        self.checks.count("refused for its life");
        let time = self.now + self.plan.network.delay_us;
        self.push(time, Event::Any { id: whom, what: What::RefusedLife { by, life } });
        true
    }

    /// Whether all others know a member, durably, and so would not take another for it.
    pub(crate) fn is_known_to_all(&self, id: NodeId) -> bool {
        let life = self.nodes[self.place(id)].log_life;
        let others = self.nodes.iter().filter(|node| node.id != id && !node.is_gone);
        others.into_iter().all(|node| node.known.get(&id) == Some(&life))
    }
}
