//! Where a change stands in history: the store's revision, and its place among the changes of that
//! revision.

/// One change of one key. Ordered as history is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Revision {
    /// The store's revision.
    pub(crate) main: i64,
    /// The place among the changes of `main`, from 0.
    pub(crate) sub: u32,
}

/// Length of a row's key.
pub(crate) const KEY_BYTES: usize = 17;

impl Revision {
    /// The row's key in storage, which sorts as revisions do: main, big-endian (8), `_`, sub,
    /// big-endian (8).
    pub(crate) fn to_key(self) -> [u8; KEY_BYTES] {
        let mut key = [b'_'; KEY_BYTES];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[9..].copy_from_slice(&u64::from(self.sub).to_be_bytes());
        key
    }

    /// Reads a row's key. Nothing, if it is none.
    pub(crate) fn from_key(key: &[u8]) -> Option<Revision> {
        let key: &[u8; KEY_BYTES] = key.try_into().ok()?;
        let main = i64::from_be_bytes(key[..8].try_into().ok()?);
        let sub = u64::from_be_bytes(key[9..].try_into().ok()?);
        let sub = u32::try_from(sub).ok()?;
        (0 < main && key[8] == b'_').then_some(Revision { main, sub })
    }
}

#[cfg(test)]
mod tests {
    use super::Revision;

    #[test]
    fn keys_sort_as_revisions_do() {
        let revisions =
            [(1, 0), (1, 1), (1, 256), (2, 0), (255, 0), (256, 7), (i64::MAX, u32::MAX)]
                .map(|(main, sub)| Revision { main, sub });
        assert!(revisions.is_sorted());
        assert!(revisions.map(Revision::to_key).is_sorted());
        for revision in revisions {
            assert_eq!(Revision::from_key(&revision.to_key()), Some(revision));
        }
        for nonsense in [&[0; 17][..], b"", &[b'_'; 16], &[0xff; 17]] {
            assert_eq!(Revision::from_key(nonsense), None, "{nonsense:?}");
        }
    }
}
