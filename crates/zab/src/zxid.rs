//! Epochs and transaction ids, and when one follows another.

use std::fmt;

/// A leader's reign in ZAB. 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch that none follows.
    pub const LAST: Epoch = Epoch(u32::MAX);

    /// The epoch after this one; none after the last. It never wraps.
    pub fn next(self) -> Option<Epoch> {
        self.0.checked_add(1).map(Epoch)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The id of a transaction: epoch in the upper 32 bits, counter in the lower 32. Ids order as
/// numbers do. The first of an epoch has counter 1; 0 means "before the first".
///
/// Source: gometa's `common.Txnid`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid(pub u64);

impl Zxid {
    /// Before the first transaction.
    pub const ZERO: Zxid = Zxid(0);

    /// The id of the `counter`-th transaction of `epoch`.
    pub fn new(epoch: Epoch, counter: u32) -> Zxid {
        Zxid(u64::from(epoch.0) << 32 | u64::from(counter))
    }

    /// The epoch in whose reign it was proposed.
    pub fn epoch(self) -> Epoch {
        Epoch((self.0 >> 32) as u32)
    }

    /// Its place among the transactions of the epoch.
    pub fn counter(self) -> u32 {
        self.0 as u32
    }

    /// Whether a history that ends with `last` may go on with this: the next of the same epoch, or
    /// the first of a later one. gometa's `IsNextInSequence` takes any counter of a later epoch.
    pub fn follows(self, last: Zxid) -> bool {
        if self.epoch() == last.epoch() {
            last.counter().checked_add(1) == Some(self.counter())
        } else {
            last.epoch() < self.epoch() && self.counter() == 1
        }
    }
}

impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch(), self.counter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    #[test]
    fn ids_order_by_epoch_then_counter() {
        assert_eq!(id(1, 1).0, 4_294_967_297);
        assert_eq!((id(7, 9).epoch(), id(7, 9).counter()), (Epoch(7), 9));
        // As text, 3.1 would stand before 2.1: their decimal forms differ in length.
        let ids = [Zxid::ZERO, id(0, u32::MAX), id(1, 0), id(1, 1), id(2, 1), id(3, 1)];
        assert!(ids.is_sorted());
    }

    #[test]
    fn the_next_in_sequence() {
        for (last, next, want) in [
            (id(0, 0), id(1, 1), true),
            (id(1, 1), id(1, 2), true),
            (id(1, 1), id(1, 3), false),
            (id(1, 2), id(1, 2), false),
            (id(1, 2), id(1, 1), false),
            (id(1, 9), id(2, 1), true),
            (id(1, 9), id(2, 2), false), // its predecessor is missing
            (id(1, 9), id(2, 0), false), // no transaction has counter 0
            (id(2, 1), id(1, 2), false),
            (id(1, u32::MAX), id(1, 0), false),
            (id(1, u32::MAX), id(2, 0), false),
            (id(1, u32::MAX), id(4, 1), true),
        ] {
            assert_eq!(next.follows(last), want, "{next} after {last}");
        }
    }

    #[test]
    fn no_epoch_follows_the_last() {
        assert_eq!(Epoch(4).next(), Some(Epoch(5)));
        assert_eq!(Epoch::LAST.next(), None);
    }
}
