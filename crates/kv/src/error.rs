//! etcd's words for errors: the exact texts and gRPC codes that clients match on, and the errors
//! that stop a member.
//!
//! A [`KvError`] is an answer: the machine is well and the client hears the text. A [`StoreError`]
//! is no answer: the machine cannot go on, and the member has to stop.

use quorate_types::Index;

use crate::backend::BackendError;
use crate::command::CommandError;

macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident = $code:literal $text:literal,)*) => {
        /// What a client hears when its request is refused, or took effect and cannot be told
        /// what came of it (`AppliedResponseTooLarge` alone).
        ///
        /// Clients compare the text of [`KvError::message`] byte by byte, then the code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum KvError {
            $($(#[$doc])* $name,)*
        }

        impl KvError {
            /// Every answer there is, in the order of etcd's own list; then ours.
            pub const ALL: &'static [KvError] = &[$(KvError::$name,)*];

            /// The gRPC status code, as a number: 3 is `InvalidArgument`, and so on.
            pub fn code(self) -> u32 {
                match self {
                    $(KvError::$name => $code,)*
                }
            }

            /// The exact text that travels as the gRPC status message.
            pub fn message(self) -> &'static str {
                match self {
                    $(KvError::$name => $text,)*
                }
            }
        }
    };
}

answers! {
    /// The request names no key.
    EmptyKey = 3 "etcdserver: key is not provided",
    /// A put that keeps the stored value or lease found no key, or an operation of a transaction
    /// is empty.
    KeyNotFound = 3 "etcdserver: key not found",
    /// A put that keeps the stored value brings one.
    ValueProvided = 3 "etcdserver: value is provided",
    /// A put that keeps the stored lease brings one.
    LeaseProvided = 3 "etcdserver: lease is provided",
    /// A transaction is too long or nested too deeply.
    TooManyOps = 3 "etcdserver: too many operations in txn request",
    /// A transaction puts a key twice, or puts and deletes it.
    DuplicateKey = 3 "etcdserver: duplicate key given in txn request",
    /// The client's version header is not text.
    InvalidClientAPIVersion = 3 "etcdserver: invalid client api version",
    /// The sort order or target is a number nobody knows.
    InvalidSortOption = 3 "etcdserver: invalid sort option",
    /// History below the compacted revision is gone.
    Compacted = 11 "etcdserver: mvcc: required revision has been compacted",
    /// The revision does not exist yet.
    FutureRev = 11 "etcdserver: mvcc: required revision is a future revision",
    /// The quota is used up.
    NoSpace = 8 "etcdserver: mvcc: database space exceeded",
    /// No such lease.
    LeaseNotFound = 5 "etcdserver: requested lease not found",
    /// The lease id is taken.
    LeaseExist = 9 "etcdserver: lease already exists",
    /// The time to live is over the limit.
    LeaseTTLTooLarge = 11 "etcdserver: too large lease TTL",
    /// The watch stream ended.
    WatchCanceled = 1 "etcdserver: watch canceled",
    /// The member id is taken.
    MemberExist = 9 "etcdserver: member ID already exist",
    /// A peer URL is taken.
    PeerURLExist = 9 "etcdserver: Peer URLs already exists",
    /// Too few members have started to change the membership safely.
    MemberNotEnoughStarted = 9
        "etcdserver: re-configuration failed due to not enough started members",
    /// The member's URLs make no sense.
    MemberBadURLs = 3 "etcdserver: given member URLs are invalid",
    /// No such member, or it was removed.
    MemberNotFound = 5 "etcdserver: member not found",
    /// The member already votes.
    MemberNotLearner = 9 "etcdserver: can only promote a learner member",
    /// The learner has not caught up.
    LearnerNotReady = 9
        "etcdserver: can only promote a learner member which is in sync with leader",
    /// There are as many learners as allowed.
    TooManyLearners = 9 "etcdserver: too many learner members in cluster",
    /// The peer belongs to another cluster.
    ClusterIDMismatch = 9 "etcdserver: cluster ID mismatch",
    /// The request is over the size limit.
    RequestTooLarge = 3 "etcdserver: request is too large",
    /// Too much waits already.
    RequestTooManyRequests = 8 "etcdserver: too many requests",
    /// Auth cannot be enabled without the user root.
    RootUserNotExist = 9 "etcdserver: root user does not exist",
    /// Auth cannot be enabled while root lacks its role.
    RootRoleNotExist = 9 "etcdserver: root user does not have root role",
    /// The user name is taken.
    UserAlreadyExist = 9 "etcdserver: user name already exists",
    /// No user name was given.
    UserEmpty = 3 "etcdserver: user name is empty",
    /// No such user.
    UserNotFound = 9 "etcdserver: user name not found",
    /// The role name is taken.
    RoleAlreadyExist = 9 "etcdserver: role name already exists",
    /// No such role.
    RoleNotFound = 9 "etcdserver: role name not found",
    /// No role name was given.
    RoleEmpty = 3 "etcdserver: role name is empty",
    /// Wrong name or password.
    AuthFailed = 3 "etcdserver: authentication failed, invalid user ID or password",
    /// No permission was given.
    PermissionNotGiven = 3 "etcdserver: permission not given",
    /// The user may not do this.
    PermissionDenied = 7 "etcdserver: permission denied",
    /// The user does not have the role.
    RoleNotGranted = 9 "etcdserver: role is not granted to the user",
    /// The role does not have the permission.
    PermissionNotGranted = 9 "etcdserver: permission is not granted to the role",
    /// Auth is off.
    AuthNotEnabled = 9 "etcdserver: authentication is not enabled",
    /// The token is unknown or has expired.
    InvalidAuthToken = 16 "etcdserver: invalid auth token",
    /// The change would break auth itself.
    InvalidAuthMgmt = 3 "etcdserver: invalid auth management",
    /// The token is older than the last change of permissions.
    AuthOldRevision = 3 "etcdserver: revision of auth store is old",
    /// Nobody leads as far as this member knows.
    NoLeader = 14 "etcdserver: no leader",
    /// Another member leads.
    NotLeader = 9 "etcdserver: not leader",
    /// The leader changed while the request was in flight.
    LeaderChanged = 14 "etcdserver: leader changed",
    /// The cluster's version does not know this call.
    NotCapable = 9 "etcdserver: not capable",
    /// The member is stopping.
    Stopped = 14 "etcdserver: server stopped",
    /// No consensus in time.
    Timeout = 14 "etcdserver: request timed out",
    /// No consensus in time; a leader was lost recently.
    TimeoutDueToLeaderFail = 14
        "etcdserver: request timed out, possibly due to previous leader failure",
    /// No consensus in time; the connection to the leader was lost.
    TimeoutDueToConnectionLost = 14
        "etcdserver: request timed out, possibly due to connection lost",
    /// This member applies too slowly.
    TimeoutWaitAppliedIndex = 14
        "etcdserver: request timed out, waiting for the applied index took too long",
    /// Too few members are connected.
    Unhealthy = 14 "etcdserver: unhealthy cluster",
    /// Members disagree about the data, or this member's storage is damaged.
    Corrupt = 15 "etcdserver: corrupt cluster",
    /// A learner does not serve this call.
    NotSupportedForLearner = 9 "etcdserver: rpc not supported for learner",
    /// Leadership cannot go to that member.
    BadLeaderTransferee = 9 "etcdserver: bad leader transferee",
    /// The target version is no version.
    WrongDowngradeVersionFormat = 3 "etcdserver: wrong downgrade target version format",
    /// The target version is not one below.
    InvalidDowngradeTargetVersion = 3 "etcdserver: invalid downgrade target version",
    /// The cluster has not agreed on a version yet.
    ClusterVersionUnavailable = 9 "etcdserver: cluster version not found during downgrade",
    /// A downgrade is under way.
    DowngradeInProcess = 9 "etcdserver: cluster has a downgrade job in progress",
    /// No downgrade is under way.
    NoInflightDowngrade = 9 "etcdserver: no inflight downgrade job",
    /// The client gave up.
    Canceled = 1 "etcdserver: request canceled",
    /// The client's deadline passed.
    DeadlineExceeded = 4 "etcdserver: context deadline exceeded",
    /// A password was given for a user that has none.
    NoPasswordUser = 2 "auth: authentication failed, password was given for no password user",
    /// Moving the leader took too long.
    LeaderTransferTimeout = 2 "etcdserver: request timed out, leader transfer took too long",
    /// The action is a number nobody knows.
    UnknownMethod = 2 "etcdserver: unknown method",
    /// Only the public half of the signing key is here.
    VerifyOnlyKey = 2 "auth: token signing attempted with verify-only key",
    /// The leader cannot confirm that it still leads.
    NotPrimaryLessor = 2 "not a primary lessor",
    /// Nobody is elected.
    ElectionNoLeader = 2 "election: no leader",
    /// The caller is not the elected one.
    ElectionNotLeader = 2 "election: not leader",
    /// The election call lacks its leader key.
    ElectionLeaderMissing = 2 "\"leader\" field must be provided",
    /// The key of a waiting lock is gone.
    SessionExpired = 2 "mutex: session is expired",
    /// A streamed range cannot be sorted.
    RangeStreamSorted = 12 "RangeStream does not support custom sort orders",
    /// A streamed range cannot be filtered.
    RangeStreamFiltered = 12 "RangeStream does not support revision filters",
    /// Ours: the answer to a read would be over the limit.
    ResponseTooLarge = 8 "etcdserver: response is too large",
    /// Ours: the request took effect, on every member, but the answer to it would be over the
    /// limit.
    AppliedResponseTooLarge = 8
        "etcdserver: request was applied, but its response is too large",
    /// The member has published itself before, from a log that is gone. Told to members only.
    MemberBootstrapped = 9 "etcdserver: member has already been bootstrapped",
}

impl std::fmt::Display for KvError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for KvError {}

/// Why the machine cannot go on. The member has to stop; what is durable stays as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The storage failed. What it holds is as of the last commit that succeeded.
    #[error("the storage failed: {0}")]
    Backend(#[from] BackendError),
    /// The storage holds something that this code never writes.
    #[error("the storage is damaged: {0}")]
    Damaged(String),
    /// The storage was never given a first state.
    #[error("the storage holds no state; it was never created")]
    Missing,
    /// A restore began and never ended: remove the storage and restore again.
    #[error("the storage is half restored and must be replaced")]
    Incomplete,
    /// The storage already holds something.
    #[error("the storage is not empty")]
    NotEmpty,
    /// The storage was written by a version that this one cannot read.
    #[error("the storage has format {found}; this version reads formats {oldest} to {newest}")]
    Format {
        /// What the storage says.
        found: u64,
        /// The first format this code reads.
        oldest: u64,
        /// The last one.
        newest: u64,
    },
    /// A committed entry holds a command that this version cannot read. Nothing of the batch it
    /// came in was applied.
    #[error("entry {index} cannot be applied: {source}")]
    Command {
        /// The entry.
        index: Index,
        /// What is wrong with it.
        source: CommandError,
    },
    /// Entries were skipped.
    #[error("entry {index} came after {applied}: entries between them are missing")]
    Gap {
        /// The entry that came.
        index: Index,
        /// The last applied one.
        applied: Index,
    },
    /// The state to install is older than the one in place.
    #[error("the state at {offered} is not newer than the one in place, at {applied}")]
    Stale {
        /// What was offered.
        offered: Index,
        /// The last applied index.
        applied: Index,
    },
    /// A snapshot stream is cut off, damaged, or from another version.
    #[error("the snapshot cannot be used: {0}")]
    Snapshot(String),
    /// Whoever asked for it has broken it off.
    #[error("it was broken off")]
    Interrupted,
    /// An earlier call failed; nothing is done any more until the store is opened again.
    #[error("the store has failed before: {0}")]
    Broken(String),
}

#[cfg(test)]
mod tests;
