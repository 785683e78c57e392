//! Which keys a request means: one, those from a key on, or those of a half-open interval.
//!
//! Keys are arbitrary bytes in unsigned byte order. etcd writes "no end" as one zero byte, so that
//! an interval can't end just before that key; nothing else is special.

use std::ops::Bound;

/// The keys that `key` and `range_end` of a request mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interval<'a> {
    /// Just this key.
    One(&'a [u8]),
    /// This key and all after it.
    From(&'a [u8]),
    /// From the first, up to but without the second. Empty when they are not in order.
    Span(&'a [u8], &'a [u8]),
}

/// Where a walk starts and ends, as maps take it.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl<'a> Interval<'a> {
    pub(crate) fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        match range_end {
            [] => Interval::One(key),
            [0] => Interval::From(key),
            end => Interval::Span(key, end),
        }
    }

    /// Where it ends, for a walk that has got as far as `from`; nothing if the walk is over.
    pub(crate) fn bounds(self, from: Option<&'a [u8]>) -> Option<Bounds<'a>> {
        let (first, end) = match self {
            Interval::One(key) => (key, Bound::Included(key)),
            Interval::From(key) => (key, Bound::Unbounded),
            Interval::Span(key, end) => (key, Bound::Excluded(end)),
        };
        let start = from.map_or(Bound::Included(first), Bound::Excluded);
        // Maps refuse bounds that are out of order, so they must not get any.
        let has_room = match (start, end) {
            (_, Bound::Unbounded) => true,
            (Bound::Included(start), Bound::Included(end)) => start <= end,
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
            | (Bound::Excluded(start), Bound::Included(end)) => start < end,
            (Bound::Unbounded, _) => unreachable!("a walk starts at a key"),
        };
        has_room.then_some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Interval;

    #[test]
    fn intervals_mean_what_etcd_means() {
        let keys: BTreeSet<&[u8]> =
            [&b"\0"[..], b"a", b"a\0", b"b", b"c", b"\xff", b"\xff\xff"].into_iter().collect();
        for (key, end, want) in [
            (&b"a"[..], &b""[..], &[&b"a"[..]][..]),
            (b"x", b"", &[]),
            (b"a", b"c", &[b"a", b"a\0", b"b"]),
            (b"a", b"b", &[b"a", b"a\0"]),
            (b"b", b"\0", &[b"b", b"c", b"\xff", b"\xff\xff"]),
            (b"\0", b"\0", &[b"\0", b"a", b"a\0", b"b", b"c", b"\xff", b"\xff\xff"]),
            (b"c", b"a", &[]),
            (b"a", b"a", &[]),
            (b"a", b"\0\0", &[]),
            (b"\xff", b"\0", &[b"\xff", b"\xff\xff"]),
        ] {
            let interval = Interval::new(key, end);
            let found: Vec<&[u8]> = interval
                .bounds(None)
                .map(|bounds| keys.range::<[u8], _>(bounds).copied().collect())
                .unwrap_or_default();
            assert_eq!(found, want, "{key:?} {end:?}");
            // The same walk, one key at a time.
            let mut from: Option<&[u8]> = None;
            let mut walked = Vec::new();
            while let Some(next) = interval
                .bounds(from)
                .and_then(|bounds| keys.range::<[u8], _>(bounds).next().copied())
            {
                walked.push(next);
                from = Some(next);
            }
            assert_eq!(walked, want, "{key:?} {end:?}");
        }
    }
}
