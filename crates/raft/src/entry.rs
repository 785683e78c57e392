//! Log entries and the durable promises of one node.

use bytes::Bytes;
use quorate_types::{EntryId, Index, NodeId, Term};

/// What an entry holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryType {
    /// A command of the application, or nothing.
    #[default]
    Normal,
    /// An encoded [`ConfChange`](crate::ConfChange).
    ConfChange,
    /// An encoded [`ConfChangeV2`](crate::ConfChangeV2).
    ConfChangeV2,
}

/// One entry of the Raft log.
///
/// `kind` and `data` distinguish "absent" from "zero", as the wire format does, because encoded
/// sizes decide where batches end (`spec` C4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Term of the leader that appended it; 0 in a proposal.
    pub term: Term,
    /// Place in the log; 0 in a proposal.
    pub index: Index,
    /// What it holds; absent means [`EntryType::Normal`]. Read it with [`Entry::entry_type`].
    pub kind: Option<EntryType>,
    /// The bytes; absent in the empty entry of a new leader. Read them with [`Entry::payload`].
    pub data: Option<Bytes>,
}

impl Entry {
    /// What the entry holds.
    pub fn entry_type(&self) -> EntryType {
        self.kind.unwrap_or_default()
    }

    /// The bytes it holds, empty when there are none.
    pub fn payload(&self) -> &[u8] {
        self.data.as_deref().unwrap_or_default()
    }

    /// Its term and index.
    pub fn id(&self) -> EntryId {
        EntryId { term: self.term, index: self.index }
    }

    /// Length of its data in bytes (what flow control counts).
    pub fn payload_size(&self) -> u64 {
        self.payload().len() as u64
    }

    /// Length of its raftpb encoding in bytes (what batch limits count).
    pub fn encoded_size(&self) -> u64 {
        let field = |value: u64| 1 + varint_size(value);
        let mut size = 0;
        if let Some(kind) = self.kind {
            size += field(kind as u64);
        }
        // An entry in a log always has both; in a proposal neither.
        if self.term.0 != 0 || self.index.0 != 0 {
            size += field(self.term.0) + field(self.index.0);
        }
        if let Some(data) = &self.data {
            size += field(data.len() as u64) + data.len() as u64;
        }
        size
    }
}

/// The longest beginning of `entries` that is encoded in `max_size` bytes; at least one entry.
pub fn limit_size(entries: &[Entry], max_size: u64) -> &[Entry] {
    let mut size = 0;
    for (place, entry) in entries.iter().enumerate() {
        size += entry.encoded_size();
        if max_size < size && place > 0 {
            return &entries[..place];
        }
    }
    entries
}

/// Bytes that `entries` take encoded.
pub fn encoded_size(entries: &[Entry]) -> u64 {
    entries.iter().map(Entry::encoded_size).sum()
}

/// Bytes of data in `entries`.
pub fn payload_size(entries: &[Entry]) -> u64 {
    entries.iter().map(Entry::payload_size).sum()
}

/// Bytes that `value` takes as a protobuf varint.
fn varint_size(value: u64) -> u64 {
    // Seven bits to a byte, as a multiplication: this runs several times for every entry.
    u64::from(((64 - (value | 1).leading_zeros()) * 9 + 64) / 64)
}

/// What a node must never forget: its term, its vote in that term, and how far it knows the log to
/// be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term this node has seen.
    pub term: Term,
    /// Whom it voted for in that term; [`NodeId::NONE`] for nobody.
    pub vote: NodeId,
    /// Highest index it knows to be committed.
    pub commit: Index,
}

impl HardState {
    /// Whether nothing was ever stored.
    pub fn is_empty(&self) -> bool {
        *self == HardState::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(term: u64, index: u64, kind: Option<EntryType>, data: Option<&'static str>) -> Entry {
        Entry {
            term: Term(term),
            index: Index(index),
            kind,
            data: data.map(|text| Bytes::from_static(text.as_bytes())),
        }
    }

    #[test]
    fn sizes_are_those_of_the_wire_format() {
        let normal = Some(EntryType::Normal);
        for (entry, encoded, payload) in [
            (Entry::default(), 0, 0),
            (entry(1, 2, None, Some("ab")), 8, 2),
            (entry(1, 2, normal, Some("ab")), 10, 2),
            (entry(300, 70000, None, None), 7, 0),
            (entry(1, 1, None, Some("")), 6, 0),
            (entry(0, 0, None, Some("ab")), 4, 2), // a proposal
            (entry(127, 128, Some(EntryType::ConfChangeV2), None), 7, 0),
            (entry(u64::MAX, 1, None, None), 13, 0),
        ] {
            assert_eq!(
                (entry.encoded_size(), entry.payload_size()),
                (encoded, payload),
                "{entry:?}"
            );
        }
    }

    #[test]
    fn an_entry_has_an_id() {
        for (entry, want) in [
            (Entry::default(), EntryId::new(0, 0)),
            (entry(1, 2, None, None), EntryId::new(1, 2)),
            (entry(5, 123, Some(EntryType::Normal), Some("x")), EntryId::new(5, 123)),
            (entry(u64::MAX, u64::MAX, None, None), EntryId::new(u64::MAX, u64::MAX)),
        ] {
            assert_eq!(entry.id(), want);
        }
    }

    #[test]
    fn hard_states_are_compared_by_what_they_hold() {
        let state = |term, vote, commit| HardState {
            term: Term(term),
            vote: NodeId(vote),
            commit: Index(commit),
        };
        assert!(state(0, 0, 0).is_empty());
        assert_eq!(state(0, 0, 0), HardState::default());
        for other in [state(1, 0, 0), state(0, 1, 0), state(0, 0, 1)] {
            assert!(!other.is_empty() && other != HardState::default(), "{other:?}");
            assert_eq!(other, other.clone());
        }
    }

    #[test]
    fn size_limits_keep_the_first_entry() {
        let entries = [entry(4, 4, None, None), entry(5, 5, None, None), entry(6, 6, None, None)];
        let size = entries[0].encoded_size();
        assert_eq!((encoded_size(&entries), payload_size(&entries)), (3 * size, 0));
        for (max_size, want) in [
            (u64::MAX, 3),
            (0, 1),
            (size, 1),
            (2 * size - 1, 1),
            (2 * size, 2),
            (3 * size - 1, 2),
            (3 * size, 3),
        ] {
            assert_eq!(limit_size(&entries, max_size), &entries[..want], "{max_size}");
        }
        assert_eq!(limit_size(&[], 0), []);
    }
}
