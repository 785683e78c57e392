use std::collections::BTreeSet;

use super::KvError;

/// Clients compare texts byte by byte: written out once more, so that none changes by accident.
const ANSWERS: &[(KvError, u32, &str)] = &[
    (KvError::EmptyKey, 3, "etcdserver: key is not provided"),
    (KvError::KeyNotFound, 3, "etcdserver: key not found"),
    (KvError::ValueProvided, 3, "etcdserver: value is provided"),
    (KvError::LeaseProvided, 3, "etcdserver: lease is provided"),
    (KvError::TooManyOps, 3, "etcdserver: too many operations in txn request"),
    (KvError::DuplicateKey, 3, "etcdserver: duplicate key given in txn request"),
    (KvError::InvalidClientAPIVersion, 3, "etcdserver: invalid client api version"),
    (KvError::InvalidSortOption, 3, "etcdserver: invalid sort option"),
    (KvError::Compacted, 11, "etcdserver: mvcc: required revision has been compacted"),
    (KvError::FutureRev, 11, "etcdserver: mvcc: required revision is a future revision"),
    (KvError::NoSpace, 8, "etcdserver: mvcc: database space exceeded"),
    (KvError::LeaseNotFound, 5, "etcdserver: requested lease not found"),
    (KvError::LeaseExist, 9, "etcdserver: lease already exists"),
    (KvError::LeaseTTLTooLarge, 11, "etcdserver: too large lease TTL"),
    (KvError::WatchCanceled, 1, "etcdserver: watch canceled"),
    (KvError::MemberExist, 9, "etcdserver: member ID already exist"),
    (KvError::PeerURLExist, 9, "etcdserver: Peer URLs already exists"),
    (
        KvError::MemberNotEnoughStarted,
        9,
        "etcdserver: re-configuration failed due to not enough started members",
    ),
    (KvError::MemberBadURLs, 3, "etcdserver: given member URLs are invalid"),
    (KvError::MemberNotFound, 5, "etcdserver: member not found"),
    (KvError::MemberNotLearner, 9, "etcdserver: can only promote a learner member"),
    (
        KvError::LearnerNotReady,
        9,
        "etcdserver: can only promote a learner member which is in sync with leader",
    ),
    (KvError::TooManyLearners, 9, "etcdserver: too many learner members in cluster"),
    (KvError::ClusterIDMismatch, 9, "etcdserver: cluster ID mismatch"),
    (KvError::RequestTooLarge, 3, "etcdserver: request is too large"),
    (KvError::RequestTooManyRequests, 8, "etcdserver: too many requests"),
    (KvError::RootUserNotExist, 9, "etcdserver: root user does not exist"),
    (KvError::RootRoleNotExist, 9, "etcdserver: root user does not have root role"),
    (KvError::UserAlreadyExist, 9, "etcdserver: user name already exists"),
    (KvError::UserEmpty, 3, "etcdserver: user name is empty"),
    (KvError::UserNotFound, 9, "etcdserver: user name not found"),
    (KvError::RoleAlreadyExist, 9, "etcdserver: role name already exists"),
    (KvError::RoleNotFound, 9, "etcdserver: role name not found"),
    (KvError::RoleEmpty, 3, "etcdserver: role name is empty"),
    (KvError::AuthFailed, 3, "etcdserver: authentication failed, invalid user ID or password"),
    (KvError::PermissionNotGiven, 3, "etcdserver: permission not given"),
    (KvError::PermissionDenied, 7, "etcdserver: permission denied"),
    (KvError::RoleNotGranted, 9, "etcdserver: role is not granted to the user"),
    (KvError::PermissionNotGranted, 9, "etcdserver: permission is not granted to the role"),
    (KvError::AuthNotEnabled, 9, "etcdserver: authentication is not enabled"),
    (KvError::InvalidAuthToken, 16, "etcdserver: invalid auth token"),
    (KvError::InvalidAuthMgmt, 3, "etcdserver: invalid auth management"),
    (KvError::AuthOldRevision, 3, "etcdserver: revision of auth store is old"),
    (KvError::NoLeader, 14, "etcdserver: no leader"),
    (KvError::NotLeader, 9, "etcdserver: not leader"),
    (KvError::LeaderChanged, 14, "etcdserver: leader changed"),
    (KvError::NotCapable, 9, "etcdserver: not capable"),
    (KvError::Stopped, 14, "etcdserver: server stopped"),
    (KvError::Timeout, 14, "etcdserver: request timed out"),
    (
        KvError::TimeoutDueToLeaderFail,
        14,
        "etcdserver: request timed out, possibly due to previous leader failure",
    ),
    (
        KvError::TimeoutDueToConnectionLost,
        14,
        "etcdserver: request timed out, possibly due to connection lost",
    ),
    (
        KvError::TimeoutWaitAppliedIndex,
        14,
        "etcdserver: request timed out, waiting for the applied index took too long",
    ),
    (KvError::Unhealthy, 14, "etcdserver: unhealthy cluster"),
    (KvError::Corrupt, 15, "etcdserver: corrupt cluster"),
    (KvError::NotSupportedForLearner, 9, "etcdserver: rpc not supported for learner"),
    (KvError::BadLeaderTransferee, 9, "etcdserver: bad leader transferee"),
    (KvError::WrongDowngradeVersionFormat, 3, "etcdserver: wrong downgrade target version format"),
    (KvError::InvalidDowngradeTargetVersion, 3, "etcdserver: invalid downgrade target version"),
    (
        KvError::ClusterVersionUnavailable,
        9,
        "etcdserver: cluster version not found during downgrade",
    ),
    (KvError::DowngradeInProcess, 9, "etcdserver: cluster has a downgrade job in progress"),
    (KvError::NoInflightDowngrade, 9, "etcdserver: no inflight downgrade job"),
    (KvError::Canceled, 1, "etcdserver: request canceled"),
    (KvError::DeadlineExceeded, 4, "etcdserver: context deadline exceeded"),
    (
        KvError::NoPasswordUser,
        2,
        "auth: authentication failed, password was given for no password user",
    ),
    (
        KvError::LeaderTransferTimeout,
        2,
        "etcdserver: request timed out, leader transfer took too long",
    ),
    (KvError::UnknownMethod, 2, "etcdserver: unknown method"),
    (KvError::VerifyOnlyKey, 2, "auth: token signing attempted with verify-only key"),
    (KvError::NotPrimaryLessor, 2, "not a primary lessor"),
    (KvError::ElectionNoLeader, 2, "election: no leader"),
    (KvError::ElectionNotLeader, 2, "election: not leader"),
    (KvError::ElectionLeaderMissing, 2, "\"leader\" field must be provided"),
    (KvError::SessionExpired, 2, "mutex: session is expired"),
    (KvError::RangeStreamSorted, 12, "RangeStream does not support custom sort orders"),
    (KvError::RangeStreamFiltered, 12, "RangeStream does not support revision filters"),
    (KvError::ResponseTooLarge, 8, "etcdserver: response is too large"),
    (
        KvError::AppliedResponseTooLarge,
        8,
        "etcdserver: request was applied, but its response is too large",
    ),
    (KvError::MemberBootstrapped, 9, "etcdserver: member has already been bootstrapped"),
];

#[test]
fn texts_and_codes_are_etcds() {
    for (error, code, text) in ANSWERS {
        assert_eq!((error.code(), error.to_string().as_str()), (*code, *text));
    }
    let listed: Vec<KvError> = ANSWERS.iter().map(|(error, _, _)| *error).collect();
    assert_eq!(listed, KvError::ALL);
}

#[test]
fn no_two_answers_share_a_text() {
    let texts: BTreeSet<_> = KvError::ALL.iter().map(|error| error.message()).collect();
    assert_eq!(texts.len(), KvError::ALL.len());
}
