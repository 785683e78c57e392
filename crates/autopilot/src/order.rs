//! Which of two servers is better: the order of every list that autopilot makes.

use std::cmp::{Ordering, Reverse};

use crate::server::{RaftState, ServerId};
use crate::state::State;

/// Whether `a` is better than `b` and comes first.
///
/// The leader before all, voters before others, healthy before unhealthy; among the healthy who has been
/// so for longest, among the unhealthy who broke last; then by id. A server that is not in the state
/// comes after all that are.
pub fn server_less_than(a: &ServerId, b: &ServerId, state: &State) -> bool {
    compare_servers(a, b, state).is_lt()
}

/// Best first; see [`server_less_than`].
pub fn sort_servers(ids: &mut [ServerId], state: &State) {
    ids.sort_by(|a, b| compare_servers(a, b, state));
}

fn compare_servers(a: &ServerId, b: &ServerId, state: &State) -> Ordering {
    let rank = |id: &ServerId| {
        let Some(server) = state.servers.get(id) else { return (1, 0, false, None, None) };
        let standing = match server.state {
            RaftState::Leader => 0,
            RaftState::Voter => 1,
            RaftState::NonVoter | RaftState::Staging | RaftState::None => 2,
        };
        let (healthy, since) = (server.health.healthy, server.health.stable_since);
        let (well_since, broken_since) = match healthy {
            true => (Some(since), None),
            false => (None, Some(Reverse(since))),
        };
        (0, standing, !healthy, well_since, broken_since)
    };
    rank(a).cmp(&rank(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{ServerHealth, ServerState};
    use crate::time::Time;

    /// `v3:voter:bad@9`.
    fn state(text: &str) -> State {
        let mut state = State::default();
        for word in text.split_whitespace() {
            let [id, raft_state, health] = word.split(':').collect::<Vec<_>>()[..] else {
                panic!("{word}")
            };
            let (health, since) = health.split_once('@').unwrap();
            let stable_since = Time::from_unix(since.parse().unwrap(), 0);
            let server = ServerState {
                state: RaftState::from_text(raft_state).unwrap(),
                health: ServerHealth { healthy: health == "ok", stable_since },
                ..ServerState::default()
            };
            state.servers.insert(id.into(), server);
        }
        state
    }

    fn sorted(ids: &[&str], state: &State) -> String {
        let mut ids: Vec<ServerId> = ids.iter().map(|id| ServerId::from(*id)).collect();
        sort_servers(&mut ids, state);
        ids.iter().map(ServerId::as_str).collect::<Vec<_>>().join(" ")
    }

    const ALL: &str = "l:leader:ok@7 v0:voter:ok@5 v1:voter:ok@5 v2:voter:ok@3 v3:voter:bad@3 \
                       v4:voter:bad@9 n1:non-voter:ok@1 n2:non-voter:bad@1 n3:non-voter:bad@7 \
                       s1:staging:ok@2 o1:none:ok@0";

    #[test]
    fn all_kinds_sort_the_same_from_any_start() {
        let state = state(ALL);
        let mut ids = vec!["l", "v0", "v1", "v2", "v3", "v4", "n1", "n2", "n3", "s1", "o1"];
        // Enough different starts: rotations and strides of a prime count.
        for start in 0..ids.len() {
            for stride in 1..ids.len() {
                let picked: Vec<&str> =
                    (0..ids.len()).map(|step| ids[(start + step * stride) % ids.len()]).collect();
                assert_eq!(sorted(&picked, &state), "l v2 v0 v1 v4 v3 o1 n1 s1 n3 n2");
            }
        }
        ids.reverse();
        assert_eq!(sorted(&ids, &state), "l v2 v0 v1 v4 v3 o1 n1 s1 n3 n2");
    }

    #[test]
    fn the_first_difference_decides() {
        for (text, want) in [
            ("a:voter:ok@1 b:leader:bad@9", "b a"), // the leader, even unhealthy
            ("a:non-voter:ok@1 b:voter:bad@1", "b a"), // a voter, even unhealthy
            ("a:staging:ok@3 b:none:ok@2 c:non-voter:ok@1", "c b a"), // one rank
            ("a:voter:bad@1 b:voter:ok@9", "b a"),
            ("a:voter:ok@9 b:voter:ok@1", "b a"), // healthy for longest
            ("a:voter:bad@1 b:voter:bad@9", "b a"), // broke last
            ("b:voter:ok@1 a:voter:ok@1", "a b"), // by id
        ] {
            let state = state(text);
            let ids: Vec<&str> = text.split_whitespace().map(|word| &word[..1]).collect();
            assert_eq!(sorted(&ids, &state), want, "{text}");
        }
    }

    #[test]
    fn the_order_is_total_and_takes_strangers() {
        let state = state(ALL);
        let mut ids: Vec<ServerId> = state.servers.keys().cloned().collect();
        ids.extend([ServerId::from("a-stranger"), ServerId::from("z-stranger")]);
        for a in &ids {
            assert!(!server_less_than(a, a, &state), "{a} is equal to itself");
            for b in ids.iter().filter(|b| *b != a) {
                assert_ne!(server_less_than(a, b, &state), server_less_than(b, a, &state));
            }
        }
        assert_eq!(sorted(&["z-stranger", "n2", "a-stranger"], &state), "n2 a-stranger z-stranger");
    }
}
