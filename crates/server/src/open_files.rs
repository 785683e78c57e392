//! How many files this process may have open, and who may use how many: connections are files too,
//! and none of them may cost the log its next one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept from clients, as in etcd: for the node's own files and for its peers.
const RESERVE: u64 = 150;
/// Below this, clients may find the door closed: a busy member has a thousand of them.
const COMFORTABLE: u64 = 1024;

/// Lets this process have as many files open as it may allow itself.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays what it is");
    }
}

/// How many files this process may have open; nothing if there is no limit.
pub(crate) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Of clients.
    pub(crate) clients: usize,
    /// Of peers.
    pub(crate) peers: usize,
    /// To the peer port, by who has not said who it is.
    pub(crate) strangers: usize,
}

impl Shares {
    /// What this process can bear, and no more clients than that.
    pub(crate) fn now(clients_max: usize) -> Shares {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let shares = Shares::of(limit, clients_max);
        if limit < COMFORTABLE {
            tracing::warn!(
                limit,
                client_connections = shares.clients,
                "few files may be open at one time; raise the limit (`ulimit -n`, LimitNOFILE)"
            );
        }
        shares
    }

    fn of(limit: u64, clients_max: usize) -> Shares {
        // Where the reserve is most of it, clients still get a part.
        let clients = limit.saturating_sub(RESERVE).max(limit / 4);
        let reserve = (limit - clients).min(RESERVE);
        let count = |share: u64| usize::try_from(share).unwrap_or(usize::MAX).max(1);
        Shares {
            clients: count(clients).min(clients_max),
            peers: count(reserve / 3),
            strangers: count(reserve / 4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_node() {
        for (limit, clients_max, want) in [
            (u64::MAX, 65_536, (65_536, 50, 37)),
            (65_536, 65_536, (65_386, 50, 37)),
            (1024, 65_536, (874, 50, 37)),
            (1024, 10, (10, 50, 37)),
            (200, 65_536, (50, 50, 37)),
            (100, 65_536, (25, 25, 18)),
            (8, 65_536, (2, 2, 1)),
            (0, 65_536, (1, 1, 1)),
        ] {
            let Shares { clients, peers, strangers } = Shares::of(limit, clients_max);
            assert_eq!((clients, peers, strangers), want, "{limit} files");
        }
    }

    #[test]
    fn the_limit_is_raised_to_the_most_there_may_be() {
        raise_open_files();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
