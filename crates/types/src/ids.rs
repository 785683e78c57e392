//! Numbers that cannot be mistaken for each other.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }

        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                Self(number)
            }
        }

        impl From<$name> for u64 {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

id! {
    /// One node of a cluster, for all time: an id is never given to a second node. 0 is no node.
    NodeId
}
id! {
    /// One replicated log and its members.
    GroupId
}
id! {
    /// One life of a node's log: drawn at random when the log is made, and gone with it. A node that
    /// comes back with another life has forgotten what it vouched for. 0 is no life, or none known.
    Life
}
id! {
    /// A leader's reign in Raft. 0 is before the first.
    Term
}
id! {
    /// A place in a log. The first entry stands at 1; 0 means "before the first".
    Index
}
id! {
    /// The store-wide counter of changes, as etcd has it. A fresh store is at 1.
    Revision
}

impl NodeId {
    /// The id that means "no node".
    pub const NONE: NodeId = NodeId(0);

    /// Whether this names no node.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The id, or nothing when it names no node.
    pub fn known(self) -> Option<NodeId> {
        (self.0 != 0).then_some(self)
    }
}

impl Life {
    /// Stands for a life that is not known.
    pub const NONE: Life = Life(0);

    /// The life, or nothing when none is known.
    pub fn known(self) -> Option<Life> {
        (self.0 != 0).then_some(self)
    }
}

impl Index {
    /// The place after this one. Saturates, so that a hostile index cannot wrap.
    #[must_use]
    pub fn next(self) -> Index {
        Index(self.0.saturating_add(1))
    }

    /// The place before this one; before the first there is only 0.
    #[must_use]
    pub fn prev(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

impl Term {
    /// The term after this one. Saturates.
    #[must_use]
    pub fn next(self) -> Term {
        Term(self.0.saturating_add(1))
    }
}

impl Add<u64> for Index {
    type Output = Index;
    fn add(self, count: u64) -> Index {
        Index(self.0.saturating_add(count))
    }
}

impl AddAssign<u64> for Index {
    fn add_assign(&mut self, count: u64) {
        *self = *self + count;
    }
}

impl Sub<u64> for Index {
    type Output = Index;
    fn sub(self, count: u64) -> Index {
        Index(self.0.saturating_sub(count))
    }
}

impl Sub<Index> for Index {
    type Output = u64;
    /// How many places `self` lies after `other`; 0 when it does not.
    fn sub(self, other: Index) -> u64 {
        self.0.saturating_sub(other.0)
    }
}
