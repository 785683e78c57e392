//! What a node cannot go on from.

use quorate_types::Index;

use crate::{ChangeError, StorageError};

/// A condition that only a bug or a damaged storage can bring about.
///
/// Whoever gets one must stop using the node: its log can no longer be trusted, and it must not
/// vote or acknowledge anything any more. etcd's library panics in these places.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// The leader says more is committed than this log holds.
    #[error(
        "tocommit({to}) is out of range [lastIndex({last})]. Was the raft log corrupted, \
         truncated, or lost?"
    )]
    CommitOutOfRange {
        /// The commit index asked for.
        to: Index,
        /// The last index of the log.
        last: Index,
    },
    /// A committed entry would be replaced.
    #[error("entry {index} conflict with committed entry [committed({committed})]")]
    CommittedConflict {
        /// The first entry that differs.
        index: Index,
        /// The commit index.
        committed: Index,
    },
    /// Entries were to be appended at or before the commit index.
    #[error("after({after}) is out of range [committed({committed})]")]
    AppendBeforeCommit {
        /// The index before the first entry.
        after: Index,
        /// The commit index.
        committed: Index,
    },
    /// Entries were to be appended beyond the end of the log.
    #[error("missing log entry [last: {last}, append at: {at}]")]
    AppendGap {
        /// The last index of the log.
        last: Index,
        /// The index of the first entry.
        at: Index,
    },
    /// More was reported applied than is committed, or less than before.
    #[error("applied({to}) is out of range [prevApplied({applied}), committed({committed})]")]
    AppliedOutOfRange {
        /// The applied index asked for.
        to: Index,
        /// The applied index.
        applied: Index,
        /// The commit index.
        committed: Index,
    },
    /// More was handed out for application than is committed.
    #[error("applying({to}) is out of range [prevApplying({applying}), committed({committed})]")]
    ApplyingOutOfRange {
        /// The applying index asked for.
        to: Index,
        /// The applying index.
        applying: Index,
        /// The commit index.
        committed: Index,
    },
    /// A range of the log was asked for that ends before it begins.
    #[error("invalid slice {lo} > {hi}")]
    SliceInverted {
        /// First index asked for.
        lo: Index,
        /// One past the last index asked for.
        hi: Index,
    },
    /// A range of the log was asked for that ends beyond it.
    #[error("slice[{lo},{hi}) out of bound [{first},{last}]")]
    SliceOutOfBound {
        /// First index asked for.
        lo: Index,
        /// One past the last index asked for.
        hi: Index,
        /// First index of the log.
        first: Index,
        /// Last index of the log.
        last: Index,
    },
    /// Entries that must be there are compacted.
    #[error("entries[{lo}:{hi}) are compacted, and still needed")]
    EntriesCompacted {
        /// First index asked for.
        lo: Index,
        /// One past the last index asked for.
        hi: Index,
    },
    /// Storage misses entries that it vouched for.
    #[error("entries[{lo}:{hi}) is unavailable from storage")]
    EntriesUnavailable {
        /// First index asked for.
        lo: Index,
        /// One past the last index asked for.
        hi: Index,
    },
    /// Storage gave other entries than it was asked for, or none.
    #[error("asked for entries[{lo}:{hi}), storage gave others")]
    EntriesMisplaced {
        /// First index asked for.
        lo: Index,
        /// One past the last index asked for.
        hi: Index,
    },
    /// The term of an entry that must be there is not known.
    #[error("unexpected error when getting the term of entry {index}")]
    TermUnknown {
        /// The entry.
        index: Index,
    },
    /// Storage says that it starts after its own end.
    #[error("storage starts at {first} and ends at {last}")]
    StorageInverted {
        /// Its first index.
        first: Index,
        /// Its last index.
        last: Index,
    },
    /// Storage goes up to an index after which there is none.
    #[error("storage ends at {last}, the last index there is")]
    StorageFull {
        /// Its last index.
        last: Index,
    },
    /// Storage has a snapshot of what is not in the log yet.
    #[error("snapshot {index} is out of range [lastIndex({last})]")]
    SnapshotOutOfRange {
        /// The snapshot's index.
        index: Index,
        /// The last index of the log.
        last: Index,
    },
    /// The stored commit index is not one of the log's.
    #[error("state.commit {commit} is out of range [{first}, {last}]")]
    StoredCommitOutOfRange {
        /// The stored commit index.
        commit: Index,
        /// The lowest it could be.
        first: Index,
        /// The last index of the log.
        last: Index,
    },
    /// Storage has compacted what a peer needs, and gives no snapshot in its place.
    #[error("need non-empty snapshot")]
    EmptySnapshot,
    /// A second Ready was accepted before the work of the first was reported done.
    #[error("two accepted Ready structs without call to Advance")]
    ReadyWithoutAdvance,
    /// A Ready was accepted that was computed before something else happened.
    #[error("the accepted Ready does not say what is to be done now")]
    StaleReady,
    /// Asynchronous storage writes are acknowledged by messages.
    #[error("Advance must not be called when using AsyncStorageWrites")]
    AdvanceWithAsyncWrites,
    /// Storage failed.
    #[error("storage failed: {0}")]
    Storage(#[from] StorageError),
    /// A committed membership change cannot be carried out.
    #[error("{0}")]
    Change(#[from] ChangeError),
}
