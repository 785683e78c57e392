//! What a member without a vote serves: its own status, its own state, and reads of it that need not
//! be up to date. Everything else it refuses, so that clients go to a member that can do it all.

/// Calls that a learner serves; of ranges, its service refuses those that are to be linearizable.
const SERVED: &[&str] = &[
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Snapshot",
];

/// Whether a member without a vote leaves this call to others.
pub(crate) fn is_refused(path: &str) -> bool {
    // Its own health is nobody else's business.
    let is_etcds = ["/etcdserverpb.", "/v3lockpb.", "/v3electionpb."]
        .iter()
        .any(|package| path.starts_with(package));
    is_etcds && !SERVED.contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_served_without_a_vote() {
        for (path, refused) in [
            ("/etcdserverpb.KV/Range", false),
            ("/etcdserverpb.KV/Put", true),
            ("/etcdserverpb.KV/Txn", true),
            ("/etcdserverpb.Watch/Watch", true),
            ("/etcdserverpb.Lease/LeaseGrant", true),
            ("/etcdserverpb.Cluster/MemberList", true),
            ("/etcdserverpb.Maintenance/Status", false),
            ("/etcdserverpb.Maintenance/Snapshot", false),
            ("/etcdserverpb.Maintenance/HashKV", true),
            ("/v3lockpb.Lock/Lock", true),
            ("/grpc.health.v1.Health/Check", false),
            ("/health", false),
        ] {
            assert_eq!(is_refused(path), refused, "{path}");
        }
    }
}
