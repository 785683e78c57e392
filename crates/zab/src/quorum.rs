//! Who is enough: a majority, or whatever rule an ensemble has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use quorate_types::quorum::Majority;
use quorate_types::{Index, NodeId};

use crate::{Address, Config};

/// Says which members are enough: to elect a leader, to make it one, and to commit. gometa's
/// interface of this name is told how many there are; this one who, so that members may weigh
/// differently.
///
/// Any two sets that are enough must have a member in common, all members must be enough, and more
/// members must never be less. The first two are checked when a node is built, for ensembles of up to
/// 12. Every node of an ensemble must have the same rule.
pub trait QuorumVerifier: fmt::Debug + Send + Sync {
    /// Whether these are enough.
    fn has_quorum(&self, members: &BTreeSet<NodeId>) -> bool;
}

/// The rule of an ensemble, as a setting: more than half of the members, or another one.
#[derive(Clone, Debug, Default)]
pub struct Quorums(Option<Arc<dyn QuorumVerifier>>);

impl Quorums {
    /// More than half of the members.
    pub fn majority() -> Self {
        Quorums(None)
    }

    /// What `rule` says.
    pub fn of(rule: Arc<dyn QuorumVerifier>) -> Self {
        Quorums(Some(rule))
    }

    /// Whether the rule cannot elect two leaders, and can elect one. Looks at every set of members.
    pub(crate) fn is_sound(&self, members: impl Iterator<Item = NodeId>) -> bool {
        let Some(rule) = &self.0 else { return true };
        let members: Vec<NodeId> = members.collect();
        if CHECKED_COUNT_MAX < members.len() {
            return rule.has_quorum(&members.into_iter().collect());
        }
        let all = (1_u32 << members.len()) - 1;
        let is_enough = |set: u32| {
            let chosen = members.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1);
            rule.has_quorum(&chosen.map(|(_, id)| *id).collect())
        };
        // Two sets have nobody in common just if one lies in what the other leaves.
        is_enough(all) && (0..=all).all(|set| !(is_enough(set) && is_enough(all & !set)))
    }
}

/// Ensembles up to this size have all their sets of members looked at.
const CHECKED_COUNT_MAX: usize = 12;

/// Two settings are the same if they have the same rule, not one that says the same.
impl PartialEq for Quorums {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for Quorums {}

/// The members, and who of them are enough.
#[derive(Clone, Debug)]
pub(crate) struct Voters {
    members: Majority,
    rule: Quorums,
}

impl Voters {
    pub(crate) fn new(config: &Config) -> Self {
        let members = config.members.iter().map(|member| member.id).collect();
        Voters { members, rule: config.quorums.clone() }
    }

    /// Whether `nodes`, of whom only members count, are enough.
    pub(crate) fn is_quorum(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let ids = self.members.ids();
        let counted = nodes.iter().copied().filter(|node| ids.contains(*node));
        match &self.rule.0 {
            None => self.members.quorum() <= counted.count(),
            Some(rule) => rule.has_quorum(&counted.collect()),
        }
    }

    /// The last place that enough members hold.
    pub(crate) fn committed_index(&self, held: impl Fn(NodeId) -> Option<Index>) -> Index {
        let Some(rule) = &self.rule.0 else { return self.members.committed_index(held) };
        let ids = self.members.ids().iter();
        let mut by_place: Vec<(Index, NodeId)> =
            ids.map(|id| (held(id).unwrap_or_default(), id)).collect();
        by_place.sort_unstable_by(|one, other| other.cmp(one));
        let mut holding = BTreeSet::new();
        for (index, id) in by_place {
            holding.insert(id);
            if rule.has_quorum(&holding) {
                return index;
            }
        }
        Index(0)
    }
}

/// A majority of these.
impl FromIterator<NodeId> for Voters {
    fn from_iter<I: IntoIterator<Item = NodeId>>(members: I) -> Self {
        Voters { members: members.into_iter().collect(), rule: Quorums::majority() }
    }
}

/// The members by the names they have in elections.
#[derive(Clone, Debug)]
pub(crate) struct Electors {
    ids: BTreeMap<Address, NodeId>,
    voters: Voters,
}

impl Electors {
    pub(crate) fn new(config: &Config) -> Self {
        let ids = config.members.iter().map(|member| (member.election.clone(), member.id));
        Electors { ids: ids.collect(), voters: Voters::new(config) }
    }

    pub(crate) fn contains(&self, name: &Address) -> bool {
        self.ids.contains_key(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Address> {
        self.ids.keys()
    }

    /// Whether those with these names are enough.
    pub(crate) fn is_quorum<'a>(&self, names: impl Iterator<Item = &'a Address>) -> bool {
        self.voters.is_quorum(&names.filter_map(|name| self.ids.get(name).copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first member counts twice, everybody else once; so many must come together.
    #[derive(Debug)]
    struct Weighted(usize);

    impl QuorumVerifier for Weighted {
        fn has_quorum(&self, members: &BTreeSet<NodeId>) -> bool {
            self.0 <= members.len() + usize::from(members.contains(&NodeId(1)))
        }
    }

    fn weighted(size: u64, enough: usize) -> Voters {
        let rule = Quorums::of(Arc::new(Weighted(enough)));
        Voters { rule, ..(1..=size).map(NodeId).collect() }
    }

    #[test]
    fn a_rule_decides_who_is_enough() {
        // Four members with five votes: three of them are enough.
        let voters = weighted(4, 3);
        for (nodes, want) in [
            (&[1, 2][..], true),
            (&[2, 3], false),
            (&[2, 3, 4], true),
            (&[1, 9], false), // 9 is no member
        ] {
            let nodes: BTreeSet<NodeId> = nodes.iter().copied().map(NodeId).collect();
            assert_eq!(voters.is_quorum(&nodes), want, "{nodes:?}");
        }
    }

    #[test]
    fn what_enough_members_hold_is_committed() {
        for (held, by_rule, by_majority) in
            [([7, 5, 3, 1], 5, 3), ([1, 7, 5, 3], 3, 3), ([3, 7, 7, 0], 3, 3), ([0, 0, 0, 0], 0, 0)]
        {
            let holds = |id: NodeId| held.get(id.0 as usize - 1).copied().map(Index);
            assert_eq!(weighted(4, 3).committed_index(holds), Index(by_rule), "{held:?}");
            let majority: Voters = (1..=4).map(NodeId).collect();
            assert_eq!(majority.committed_index(holds), Index(by_majority), "{held:?}");
        }
    }

    #[test]
    fn a_rule_that_could_elect_two_leaders_or_none_is_unsound() {
        for (size, enough, want) in [(4, 3, true), (4, 2, false), (4, 5, true), (4, 6, false)] {
            let members = (1..=size).map(NodeId);
            let rule = Quorums::of(Arc::new(Weighted(enough)));
            assert_eq!(rule.is_sound(members), want, "{enough} of {size}");
        }
    }
}
