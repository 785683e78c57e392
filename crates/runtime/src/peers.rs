//! Who the peers are, as the transport is told: by the list of members that this node's machine has.
//!
//! A member that is removed is talked with for a while longer. It may be the leader, which leaves when
//! enough of the others know, and then tells one of them to campaign. After that it is refused, and so
//! told that it was removed, should it not know by then.
//!
//! A member that is told that it was removed stops. One that is told that its log is not the one by which
//! it is known stops, too, if most of the others say so, or the cluster has not acknowledged its log yet:
//! one alone may have been started with an old directory, and must not stop the rest.

use std::collections::{BTreeMap, BTreeSet};

use quorate_kv::Members;
use quorate_net::{Net, Refusal};
use quorate_raft::ConfState;
use quorate_types::{Life, NodeId};

use crate::node::FatalError;

/// How many such whiles a leader that was removed may take to leave.
const LEADER_GRACES: u64 = 4;

/// What the transport knows of members, and when that changes.
pub(crate) struct Peers {
    net: Net,
    node: NodeId,
    life: Life,
    grace_ticks: u64,
    now_ticks: u64,
    removed: BTreeSet<NodeId>,
    /// Of those, who is still talked with, and until when.
    leaving: BTreeMap<NodeId, u64>,
    /// Since when this node knows that it was removed itself.
    removed_since: Option<u64>,
    /// Who says that this node's log is not its own, since they took it for a member last.
    denied_by: BTreeSet<NodeId>,
}

impl Peers {
    /// Whoever is removed from now on is talked with for `grace_ticks` longer.
    pub(crate) fn new(net: Net, node: NodeId, life: Life, grace_ticks: u64) -> Peers {
        Peers {
            net,
            node,
            life,
            grace_ticks,
            now_ticks: 0,
            removed: BTreeSet::new(),
            leaving: BTreeMap::new(),
            removed_since: None,
            denied_by: BTreeSet::new(),
        }
    }

    /// A peer has taken this node's connection, so it takes it for a member.
    pub(crate) fn on_connected(&mut self, peer: NodeId) {
        self.denied_by.remove(&peer);
    }

    /// A peer has refused this node.
    ///
    /// # Errors
    ///
    /// When it is known by that to be no member any more, or not with this log.
    pub(crate) fn on_refused(
        &mut self,
        peer: NodeId,
        reason: Refusal,
        members: &Members,
    ) -> Result<(), FatalError> {
        let error = match reason {
            Refusal::OtherLife => FatalError::OtherLife { peer: Some(peer) },
            Refusal::Removed => return Err(FatalError::Removed { peer: Some(peer) }),
            _ => return Ok(()),
        };
        self.denied_by.insert(peer);
        for peer in self.net.peers().into_iter().filter(|one| one.connected_since.is_some()) {
            self.denied_by.remove(&peer.id);
        }
        let own = members.find(self.node.0).and_then(|member| member.life.known());
        // The cluster has said nothing else of this log.
        let is_acknowledged = own == Some(self.life);
        let members = members.list();
        let others: Vec<_> = members.iter().filter(|member| member.id != self.node.0).collect();
        let denied = others.iter().filter(|one| self.denied_by.contains(&NodeId(one.id)));
        if !is_acknowledged || others.len() < 2 * denied.count() {
            return Err(error);
        }
        tracing::error!(
            peer = %format_args!("{peer:x}"),
            "{error}; most others do not say so, and this member goes on with them: is that one \
             started with an old directory?"
        );
        Ok(())
    }

    /// Tells the transport who the peers are.
    ///
    /// # Errors
    ///
    /// When the machine knows this member by another life.
    pub(crate) fn on_members_changed(&mut self, members: &Members) -> Result<(), FatalError> {
        let removed: BTreeSet<NodeId> = members.removed().into_iter().map(NodeId).collect();
        for peer in self.net.peers() {
            if removed.contains(&peer.id) && !self.removed.contains(&peer.id) {
                self.leaving.insert(peer.id, self.now_ticks + self.grace_ticks);
            }
        }
        self.removed = removed;
        if self.removed.contains(&self.node) && self.removed_since.is_none() {
            tracing::warn!("this member was removed from the cluster; it stops in a moment");
            self.removed_since = Some(self.now_ticks);
        }
        self.net.set_lives(known_lives(self.node, members));
        for member in members.list().iter().filter(|member| member.id != self.node.0) {
            let addresses = member.peer_urls.iter().filter_map(|url| address(url)).collect();
            self.net.set_peer(NodeId(member.id), addresses);
        }
        self.part(members);
        if is_other_life(self.node, self.life, members) {
            return Err(FatalError::OtherLife { peer: None });
        }
        Ok(())
    }

    /// A tick passed; `leads` is whether this node leads.
    ///
    /// # Errors
    ///
    /// When this node was removed, and has left.
    pub(crate) fn on_tick(&mut self, members: &Members, leads: bool) -> Result<(), FatalError> {
        self.now_ticks += 1;
        let count = self.leaving.len();
        self.leaving.retain(|_, until| self.now_ticks < *until);
        if self.leaving.len() < count {
            self.part(members);
        }
        let graces = if leads { LEADER_GRACES } else { 1 };
        match self.removed_since {
            Some(since) if since + graces * self.grace_ticks <= self.now_ticks => {
                Err(FatalError::Removed { peer: None })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Parts with whoever is no member, nor leaving.
    fn part(&self, members: &Members) {
        let stays = |id: NodeId| members.find(id.0).is_some() || self.leaving.contains_key(&id);
        for peer in self.net.peers().into_iter().filter(|peer| !stays(peer.id)) {
            self.net.remove_peer(peer.id);
        }
        let gone = self.removed.iter().copied().filter(|id| !self.leaving.contains_key(id));
        self.net.set_removed(gone.collect());
    }
}

/// Whether the engine's membership and the machine's list name the same members with the same rights.
pub(crate) fn agree(conf_state: &ConfState, members: &Members) -> bool {
    let members = members.list();
    let listed = |learns: bool| -> BTreeSet<NodeId> {
        let members = members.iter().filter(|member| member.is_learner == learns);
        members.map(|member| NodeId(member.id)).collect()
    };
    // Whoever a joint configuration is about to make a learner is one in the list at once.
    let learners = conf_state.learners.iter().chain(&conf_state.learners_next);
    let voters: BTreeSet<NodeId> = conf_state.voters.iter().copied().collect();
    let learners: BTreeSet<NodeId> = learners.copied().collect();
    (voters, learners) == (listed(false), listed(true))
}

/// The lives by which `members` are known, `node` itself left out.
pub(crate) fn known_lives(node: NodeId, members: &Members) -> BTreeMap<NodeId, Life> {
    let members = members.list();
    let others = members.iter().filter(|member| member.id != node.0);
    others.filter_map(|member| Some((NodeId(member.id), member.life.known()?))).collect()
}

/// Whether `members` know `node` by another life than `life`: then its log is not the one that it
/// took part with before.
pub(crate) fn is_other_life(node: NodeId, life: Life, members: &Members) -> bool {
    let own = members.find(node.0);
    own.and_then(|member| member.life.known()).is_some_and(|known| known != life)
}

/// `host:port` of a URL, for the transport to resolve.
fn address(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    (!host.is_empty()).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_kv::{Apply, Entry, Initial, Member, MemberChange, MemoryBackend, Store};
    use quorate_net::NetConfig;
    use quorate_types::{Index, Term};
    use tokio::sync::mpsc;

    use super::*;

    fn member(id: u64) -> Member {
        Member { id, peer_urls: vec![format!("http://127.0.0.1:{id}")], ..Member::default() }
    }

    fn store() -> Store {
        store_of(vec![member(1), member(2), member(3)])
    }

    fn store_of(members: Vec<Member>) -> Store {
        let initial = Initial { node: NodeId(1), cluster_id: 7, members, ..Initial::default() };
        Store::create(MemoryBackend::new(), initial).unwrap()
    }

    fn members_of(members: Vec<Member>) -> Members {
        store_of(members).membership()
    }

    fn remove(store: &Store, id: u64) {
        let what =
            Apply::Membership { conf_state: Bytes::new(), change: Some(MemberChange::Remove(id)) };
        let index = store.applied().index.next();
        let entry = Entry { index, term: Term(1), what, answer_wanted: false };
        store.apply(&[entry]).unwrap();
        assert_eq!(store.applied().index, index, "not {:?}", Index(0));
    }

    fn ids(net: &Net) -> Vec<u64> {
        net.peers().iter().map(|peer| peer.id.0).collect()
    }

    #[tokio::test]
    async fn who_is_removed_is_parted_with_after_a_while() {
        let net = Net::start(NetConfig::new(7, NodeId(1)), Vec::new(), mpsc::channel(16).0);
        let store = store();
        let mut peers = Peers::new(net.clone(), NodeId(1), Life(1), 3);
        peers.on_members_changed(&store.membership()).unwrap();
        assert_eq!(ids(&net), [2, 3]);
        remove(&store, 2);
        for _ in 0..3 {
            // However often it is told.
            peers.on_members_changed(&store.membership()).unwrap();
            assert_eq!(ids(&net), [2, 3]);
            peers.on_tick(&store.membership(), true).unwrap();
        }
        assert_eq!(ids(&net), [3]);
        peers.on_members_changed(&store.membership()).unwrap();
        assert_eq!(ids(&net), [3], "for ever");
        // Who starts again does not talk with it at all.
        let mut again = Peers::new(net.clone(), NodeId(1), Life(1), 3);
        again.on_members_changed(&store.membership()).unwrap();
        assert_eq!(ids(&net), [3]);
        net.shutdown().await;
    }

    #[tokio::test]
    async fn one_that_says_otherwise_stops_nobody() {
        let net = Net::start(NetConfig::new(7, NodeId(1)), Vec::new(), mpsc::channel(16).0);
        for (own, said, stops) in [
            // The cluster knows this log.
            (1, vec![(2, Refusal::OtherLife), (2, Refusal::OtherLife)], false),
            (1, vec![(2, Refusal::OtherLife), (3, Refusal::OtherLife)], true),
            (1, vec![(2, Refusal::Removed)], true),
            (1, vec![(2, Refusal::OtherLife), (9, Refusal::OtherLife)], false), // no member
            (1, vec![(2, Refusal::WrongCluster), (3, Refusal::WrongCluster)], false),
            // It has not heard of it yet.
            (0, vec![(2, Refusal::OtherLife)], true),
            (0, vec![(2, Refusal::WrongCluster)], false),
        ] {
            let members = vec![Member { life: Life(own), ..member(1) }, member(2), member(3)];
            let members = members_of(members);
            let mut peers = Peers::new(net.clone(), NodeId(1), Life(1), 3);
            let outcome = said
                .iter()
                .try_for_each(|(peer, reason)| peers.on_refused(NodeId(*peer), *reason, &members));
            assert_eq!(outcome.is_err(), stops, "{own} {said:?}");
            peers.on_connected(NodeId(2));
            let again = peers.on_refused(NodeId(3), Refusal::OtherLife, &members);
            assert_eq!(again.is_err(), own == 0, "2 is connected again: {said:?}");
        }
        net.shutdown().await;
    }

    #[tokio::test]
    async fn who_is_removed_itself_stops_when_it_has_left() {
        for (leads_for, stops_after) in [(0, 3), (2, 3), (5, 6), (100, 12)] {
            let net = Net::start(NetConfig::new(7, NodeId(1)), Vec::new(), mpsc::channel(16).0);
            let store = store();
            let mut peers = Peers::new(net.clone(), NodeId(1), Life(1), 3);
            peers.on_members_changed(&store.membership()).unwrap();
            peers.on_tick(&store.membership(), true).unwrap();
            remove(&store, 1);
            peers.on_members_changed(&store.membership()).unwrap();
            let stopped =
                (1..).find(|tick| peers.on_tick(&store.membership(), *tick <= leads_for).is_err());
            assert_eq!(stopped, Some(stops_after), "leads for {leads_for}");
            assert_eq!(ids(&net), [2, 3], "the others stay");
            net.shutdown().await;
        }
    }

    #[test]
    fn two_lists_of_members_are_compared() {
        let list = |voters: &[u64], learners: &[u64]| {
            let learner = |id: &u64| Member { is_learner: true, ..member(*id) };
            let voters = voters.iter().map(|id| member(*id));
            members_of(voters.chain(learners.iter().map(learner)).collect())
        };
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        for (voters, learners, members, want) in [
            (&[1, 2][..], &[3][..], list(&[2, 1], &[3]), true),
            (&[1, 2], &[3], list(&[1, 2, 3], &[]), false),
            (&[1, 2], &[3], list(&[1, 2], &[]), false),
            (&[1, 2], &[], list(&[1], &[]), false),
            (&[1], &[], list(&[2], &[]), false),
        ] {
            let conf_state = ConfState {
                voters: nodes(voters),
                learners: nodes(learners),
                ..ConfState::default()
            };
            assert_eq!(agree(&conf_state, &members), want, "{conf_state:?} {members:?}");
        }
        // 3 takes the place of 2, which votes until the joint configuration is left.
        let joint = ConfState {
            voters: nodes(&[1, 3]),
            voters_outgoing: nodes(&[1, 2]),
            learners_next: nodes(&[2]),
            auto_leave: true,
            ..ConfState::default()
        };
        assert!(agree(&joint, &list(&[1, 3], &[2])));
        assert!(!agree(&joint, &list(&[1, 2, 3], &[])));
    }

    #[test]
    fn lives_are_known_from_the_members() {
        let member = |id, life| Member { id, life: Life(life), ..Member::default() };
        let members = members_of(vec![member(1, 7), member(2, 0), member(3, 9)]);
        assert_eq!(known_lives(NodeId(1), &members), [(NodeId(3), Life(9))].into());
        for (node, life, want) in [
            (1, 7, false),
            (1, 8, true),
            (2, 8, false), // has not published itself yet
            (4, 8, false), // is not in the list
        ] {
            assert_eq!(is_other_life(NodeId(node), Life(life), &members), want, "{node} {life}");
        }
    }

    #[test]
    fn addresses_come_from_urls() {
        for (url, want) in [
            ("http://127.0.0.1:2380", Some("127.0.0.1:2380")),
            ("http://[::1]:2380/", Some("[::1]:2380")),
            ("node-1:2380", Some("node-1:2380")),
            ("http://", None),
        ] {
            assert_eq!(address(url).as_deref(), want, "{url}");
        }
    }
}
