//! Why bytes could not be understood.

/// Why bytes are not the value they were taken for. Nothing was changed by the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A field promises more bytes than there are.
    #[error("{wanted} bytes wanted at offset {at}, {left} left")]
    Truncated {
        /// Where, counted from the start of the input.
        at: usize,
        /// How many bytes the field is said to have.
        wanted: u64,
        /// How many there are.
        left: usize,
    },
    /// A number does not fit in 64 bits.
    #[error("number at offset {at} is longer than 64 bits")]
    NumberTooLong {
        /// Where, counted from the start of the input.
        at: usize,
    },
    /// A field number that protobuf does not allow.
    #[error("field number {number} at offset {at} is out of range")]
    FieldNumber {
        /// The number.
        number: u64,
        /// Where, counted from the start of the input.
        at: usize,
    },
    /// A wire type that protobuf does not have.
    #[error("wire type {wire_type} at offset {at} does not exist")]
    WireType {
        /// The wire type.
        wire_type: u8,
        /// Where, counted from the start of the input.
        at: usize,
    },
    /// A group ends that was never begun, or another one than was begun last.
    #[error("group {number} ends at offset {at} but is not open")]
    GroupEnd {
        /// The field number of the group.
        number: u32,
        /// Where, counted from the start of the input.
        at: usize,
    },
    /// Values are nested deeper than [`NESTING_MAX`](crate::NESTING_MAX).
    #[error("nested deeper than {nesting_max} levels at offset {at}")]
    TooDeep {
        /// The limit.
        nesting_max: u32,
        /// Where, counted from the start of the input.
        at: usize,
    },
    /// A name that this version does not know, in a place where guessing would be dangerous.
    #[error("{field} {number} is not known to this version")]
    UnknownEnum {
        /// The enum's name in `raftpb`.
        field: &'static str,
        /// Its number.
        number: i32,
    },
    /// A record of the log begins with a version that this program does not know.
    #[error("{record} has format version {found}; this program knows {known}")]
    Version {
        /// What the record is.
        record: &'static str,
        /// The version it begins with; 0, which is never written, when it is empty.
        found: u8,
        /// The version this program writes.
        known: u8,
    },
    /// A record of the log whose parts do not fit together.
    #[error("{record} is malformed")]
    Malformed {
        /// What the record is.
        record: &'static str,
    },
    /// A log entry whose kind byte does not fit a Raft entry, or does not fit its data.
    #[error(
        "log entry {index} has kind {kind:#04x}, which does not fit a Raft entry of {bytes} bytes"
    )]
    EntryKind {
        /// The entry's place in the log.
        index: u64,
        /// Its kind byte.
        kind: u8,
        /// Length of its data.
        bytes: usize,
    },
}
