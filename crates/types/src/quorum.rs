//! Who is enough: majorities, and pairs of majorities while a membership changes.
//!
//! Everything Raft decides by counting is decided here: how far a log is committed
//! ([`Majority::committed_index`]) and how a vote stands ([`Majority::vote_result`]). A [`Joint`]
//! decides only what both of its halves decide, and an empty half decides nothing, so a majority
//! joined with the empty one, or with itself, is that majority.
//!
//! Source: thesis 4.3; etcd's package `quorum`, whose texts the `Display` and `describe` here give.

use std::cmp::Ordering;
use std::fmt;

use crate::{Index, NodeId};

/// The committed index of a majority without members: it holds nothing back.
pub const UNBOUNDED: Index = Index(u64::MAX);

/// Groups up to this size are counted on the stack.
const SMALL_COUNT: usize = 7;

/// A set of nodes in ascending order.
///
/// A sorted list of just the length it needs: sets change rarely, and thousands of groups may share
/// a process. An empty one takes no memory but its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeSet(Box<[NodeId]>);

impl NodeSet {
    /// The set without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `id`; says whether it was missing.
    pub fn insert(&mut self, id: NodeId) -> bool {
        let is_missing = !self.contains(id);
        if is_missing {
            *self = self.iter().chain([id]).collect();
        }
        is_missing
    }

    /// Takes `id` out; says whether it was there.
    pub fn remove(&mut self, id: NodeId) -> bool {
        let was_there = self.contains(id);
        if was_there {
            *self = self.iter().filter(|other| *other != id).collect();
        }
        was_there
    }

    /// Takes all members out.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether `id` is a member.
    pub fn contains(&self, id: NodeId) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    /// The members, ascending.
    pub fn as_slice(&self) -> &[NodeId] {
        &self.0
    }

    /// The members, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = NodeId> + ExactSizeIterator + '_ {
        self.0.iter().copied()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(ids: I) -> Self {
        let mut ids: Vec<NodeId> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        NodeSet(ids.into_boxed_slice())
    }
}

impl<const N: usize> From<[u64; N]> for NodeSet {
    fn from(ids: [u64; N]) -> Self {
        ids.into_iter().map(NodeId).collect()
    }
}

/// Ids in lower-case hexadecimal, ascending, in parentheses: `(1 2 1a)`.
impl fmt::Display for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (at, id) in self.iter().enumerate() {
            let gap = if at == 0 { "" } else { " " };
            write!(f, "{gap}{id:x}")?;
        }
        f.write_str(")")
    }
}

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VoteResult {
    /// The votes still missing decide it.
    Pending = 1,
    /// No answer can win it any more.
    Lost = 2,
    /// Enough said yes.
    Won = 3,
}

/// etcd's constant names.
impl fmt::Display for VoteResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VoteResult::Pending => "VotePending",
            VoteResult::Lost => "VoteLost",
            VoteResult::Won => "VoteWon",
        })
    }
}

/// A set of voters of which more than half must agree. etcd's `MajorityConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Majority(pub NodeSet);

impl Majority {
    /// The voters.
    pub fn ids(&self) -> &NodeSet {
        &self.0
    }

    /// How many voters make a quorum. An empty majority needs none.
    pub fn quorum(&self) -> usize {
        if self.0.is_empty() { 0 } else { self.0.len() / 2 + 1 }
    }

    /// The highest index that more than half of the voters hold, if `acked` says what each holds;
    /// a voter it knows nothing about holds nothing. [`UNBOUNDED`] when there are no voters.
    ///
    /// `acked` is asked once for each voter, in ascending order. No allocation up to seven voters.
    pub fn committed_index(&self, mut acked: impl FnMut(NodeId) -> Option<Index>) -> Index {
        let count = self.0.len();
        if count == 0 {
            return UNBOUNDED;
        }
        let mut held = |id| acked(id).unwrap_or_default();
        if crate::bug!("commits-with-a-minority") {
            return self.0.iter().map(held).max().unwrap_or_default();
        }
        // The usual group, and every acknowledgement asks: the middle one of three.
        if let [one, two, three] = *self.0.as_slice() {
            let (one, two, three) = (held(one), held(two), held(three));
            return one.min(two).max(one.max(two).min(three));
        }
        let held = self.0.iter().map(held);
        // With the indexes ascending, a quorum holds this one or a higher one.
        let at = count - (count / 2 + 1);
        if count <= SMALL_COUNT {
            let mut small = [Index(0); SMALL_COUNT];
            for (sorted, index) in held.enumerate() {
                let mut slot = sorted;
                while slot > 0 && index < small[slot - 1] {
                    small[slot] = small[slot - 1];
                    slot -= 1;
                }
                small[slot] = index;
            }
            small[at]
        } else {
            let mut all: Vec<Index> = held.collect();
            *all.select_nth_unstable(at).1
        }
    }

    /// How a vote stands in which `votes` are cast: yes, no, or nothing yet. Without voters it is
    /// won, so that the other half of a joint quorum decides alone.
    pub fn vote_result(&self, mut votes: impl FnMut(NodeId) -> Option<bool>) -> VoteResult {
        let (mut granted, mut missing) = (0, 0);
        for id in self.0.iter() {
            match votes(id) {
                Some(true) => granted += 1,
                Some(false) => {}
                None => missing += 1,
            }
        }
        let quorum = match crate::bug!("elects-with-a-minority") {
            true => self.quorum().saturating_sub(1).max(1),
            false => self.quorum(),
        };
        if quorum <= granted {
            VoteResult::Won
        } else if quorum <= granted + missing {
            VoteResult::Pending
        } else {
            VoteResult::Lost
        }
    }

    /// A table of who holds what, with a bar by rank, for people and scripts.
    ///
    /// ```text
    ///        idx
    /// ?        0    (id=1)
    /// xx>      7    (id=3)
    /// x>       4    (id=14)
    /// ```
    pub fn describe(&self, acked: impl FnMut(NodeId) -> Option<Index>) -> String {
        describe(&self.0, acked)
    }
}

impl FromIterator<NodeId> for Majority {
    fn from_iter<I: IntoIterator<Item = NodeId>>(ids: I) -> Self {
        Majority(ids.into_iter().collect())
    }
}

impl<const N: usize> From<[u64; N]> for Majority {
    fn from(ids: [u64; N]) -> Self {
        Majority(ids.into())
    }
}

impl fmt::Display for Majority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Two majorities that must both agree. Outside a joint change `outgoing` is empty. etcd's
/// `JointConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Joint {
    /// The new, or only, voters.
    pub incoming: Majority,
    /// The old voters; empty unless a joint change is under way.
    pub outgoing: Majority,
}

impl Joint {
    /// Whether `id` is a voter of either half.
    pub fn contains(&self, id: NodeId) -> bool {
        self.incoming.0.contains(id) || self.outgoing.0.contains(id)
    }

    /// The voters of both halves, each once. etcd's `IDs`.
    pub fn ids(&self) -> NodeSet {
        self.incoming.0.iter().chain(self.outgoing.0.iter()).collect()
    }

    /// The highest index that a quorum of each half holds. See [`Majority::committed_index`].
    pub fn committed_index(&self, mut acked: impl FnMut(NodeId) -> Option<Index>) -> Index {
        let incoming = self.incoming.committed_index(&mut acked);
        if self.outgoing.0.is_empty() || crate::bug!("a-joint-quorum-is-one-half") {
            return incoming;
        }
        incoming.min(self.outgoing.committed_index(acked))
    }

    /// How a vote stands that both halves must win. See [`Majority::vote_result`].
    pub fn vote_result(&self, mut votes: impl FnMut(NodeId) -> Option<bool>) -> VoteResult {
        let incoming = self.incoming.vote_result(&mut votes);
        if self.outgoing.0.is_empty() || crate::bug!("a-joint-quorum-is-one-half") {
            return incoming;
        }
        match (incoming, self.outgoing.vote_result(votes)) {
            (one, other) if one == other => one,
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            _ => VoteResult::Pending,
        }
    }

    /// One table over the voters of both halves. See [`Majority::describe`].
    pub fn describe(&self, acked: impl FnMut(NodeId) -> Option<Index>) -> String {
        describe(&self.ids(), acked)
    }
}

/// The halves joined by `&&`, or the first alone when the second is empty.
impl fmt::Display for Joint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.incoming.fmt(f)?;
        if !self.outgoing.0.is_empty() {
            write!(f, "&&{}", self.outgoing)?;
        }
        Ok(())
    }
}

/// A committed index as text: decimal, and `∞` for [`UNBOUNDED`]. etcd's `quorum.Index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexText(pub Index);

impl fmt::Display for IndexText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == UNBOUNDED { f.pad("∞") } else { self.0.fmt(f) }
    }
}

fn describe(ids: &NodeSet, mut acked: impl FnMut(NodeId) -> Option<Index>) -> String {
    use fmt::Write;

    let count = ids.len();
    if count == 0 {
        return "<empty majority quorum>".to_owned();
    }
    struct Row {
        id: NodeId,
        index: Option<Index>,
        rank: usize,
    }
    let mut rows: Vec<Row> = ids.iter().map(|id| Row { id, index: acked(id), rank: 0 }).collect();
    let index = |row: &Row| row.index.unwrap_or_default();

    rows.sort_by(|one, other| index(one).cmp(&index(other)).then(one.id.cmp(&other.id)));
    for at in 1..count {
        rows[at].rank = match index(&rows[at - 1]).cmp(&index(&rows[at])) {
            Ordering::Less => at,
            _ => rows[at - 1].rank,
        };
    }
    rows.sort_by_key(|row| row.id);

    let mut text = format!("{:count$}    idx\n", "");
    for row in &rows {
        let bar = match row.index {
            Some(_) => format!("{}>", "x".repeat(row.rank)),
            None => "?".to_owned(),
        };
        let width = count + 1;
        writeln!(text, "{bar:width$} {:>5}    (id={:x})", index(row).0, row.id)
            .expect("a string takes all text");
    }
    text
}

#[cfg(test)]
mod tests;
