//! How a member without data finds the cluster that it was added to: the members that run already
//! say who is in it, and the new one must be among them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use quorate_kv::Member;
use quorate_proto::etcdserverpb as pb;
use quorate_types::{Life, NodeId};

use crate::config::{Config, join as list};
use crate::membership::peer_client;
use crate::urls::Url;

/// A member that was asked may not know yet what was answered just now.
const PATIENCE: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Who a joining member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) node: NodeId,
    pub(crate) cluster: u64,
    pub(crate) members: Vec<Member>,
}

/// Why a member cannot join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// There is nobody to ask.
    #[error(
        "--initial-cluster-state is existing, but --initial-cluster names no other member and the \
         data directory holds no data; name all members of the running cluster, this one included"
    )]
    NobodyToAsk,
    /// Nobody answered.
    #[error(
        "--initial-cluster-state is existing, but none of the other members in --initial-cluster \
         says who is in the cluster: {why}; is the cluster running, and are these its peer URLs?"
    )]
    Unreachable {
        /// Whom was asked, and what went wrong with each.
        why: String,
    },
    /// The cluster does not know this member.
    #[error(
        "no member of the running cluster {cluster:x} has the peer URLs {advertised} of \
         --initial-advertise-peer-urls; its members are {running}. Add this one first: `member add \
         {name} --peer-urls={advertised}`"
    )]
    NotAdded {
        /// The cluster.
        cluster: u64,
        /// The URLs of this member.
        advertised: String,
        /// Its name.
        name: String,
        /// Peer URLs of the members there are.
        running: String,
    },
    /// The list is not the one that the cluster has.
    #[error(
        "--initial-cluster does not name the members of the running cluster: it has {listed}, and \
         they are {running}"
    )]
    ListDiffers {
        /// The URLs in the list.
        listed: String,
        /// Peer URLs of the members there are.
        running: String,
    },
    /// It runs already, or did.
    #[error(
        "member {node:x} has already been bootstrapped, and data directory {directory} holds none of \
         its data: what it acknowledged may be lost with that. Put the data back, or remove the \
         member and add it as a new one"
    )]
    Bootstrapped {
        /// The member.
        node: NodeId,
        /// Where its data should be.
        directory: String,
    },
}

/// Asks the members that run already who this one is.
pub(crate) async fn join(config: &Config) -> Result<Joined, JoinError> {
    let own: BTreeSet<&Url> = config.initial_advertise_peer_urls.iter().collect();
    let others: Vec<&Url> =
        config.initial_cluster.values().flatten().filter(|url| !own.contains(url)).collect();
    if others.is_empty() {
        return Err(JoinError::NobodyToAsk);
    }
    let start = Instant::now();
    loop {
        let mut unreachable = Vec::new();
        let mut refused = None;
        for url in &others {
            match ask(url).await {
                Ok(answer) => match find(config, answer) {
                    Ok(joined) => return Ok(joined),
                    Err(error) => refused = Some(error),
                },
                Err(why) => unreachable.push(format!("{url}: {why}")),
            }
        }
        if PATIENCE <= start.elapsed() {
            let why = unreachable.join(", ");
            return Err(refused.unwrap_or(JoinError::Unreachable { why }));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// What one member knows. It need not be up to date: while the new member is counted and does not
/// run, there may be no leader who could say so.
async fn ask(url: &Url) -> Result<pb::MemberListResponse, String> {
    let asked = async {
        let mut client = peer_client(url.as_str()).await?;
        let answer = client.member_list(pb::MemberListRequest::default()).await;
        answer.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
    };
    let in_time = tokio::time::timeout(PATIENCE, asked).await;
    in_time.unwrap_or_else(|_| Err("it does not answer".to_owned()))
}

/// This member among those that there are.
fn find(config: &Config, answer: pb::MemberListResponse) -> Result<Joined, JoinError> {
    let cluster = answer.header.map_or(0, |header| header.cluster_id);
    let set = |urls: &[String]| urls.iter().cloned().collect::<BTreeSet<String>>();
    let listed: BTreeSet<BTreeSet<String>> =
        config.initial_cluster.values().map(|urls| set(&texts(urls))).collect();
    let running: BTreeSet<BTreeSet<String>> =
        answer.members.iter().map(|member| set(&member.peer_urls)).collect();
    let advertised = set(&texts(&config.initial_advertise_peer_urls));
    let own = answer.members.iter().find(|member| set(&member.peer_urls) == advertised);
    let Some(own) = own else {
        return Err(JoinError::NotAdded {
            cluster,
            advertised: list(&config.initial_advertise_peer_urls),
            name: config.name.clone(),
            running: show(&running),
        });
    };
    if !own.name.is_empty() {
        let directory = config.data_dir.display().to_string();
        return Err(JoinError::Bootstrapped { node: NodeId(own.id), directory });
    }
    if listed != running {
        return Err(JoinError::ListDiffers { listed: show(&listed), running: show(&running) });
    }
    let node = NodeId(own.id);
    let members = answer.members.into_iter().map(|member| Member {
        id: member.id,
        name: member.name,
        peer_urls: member.peer_urls,
        client_urls: member.client_urls,
        is_learner: member.is_learner,
        // It comes with the state.
        life: Life::NONE,
        ..Member::default()
    });
    Ok(Joined { node, cluster, members: members.collect() })
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.as_str().to_owned()).collect()
}

/// Members by their URLs: `http://a:1, http://b:1+http://b:2`.
fn show(members: &BTreeSet<BTreeSet<String>>) -> String {
    let member = |urls: &BTreeSet<String>| urls.iter().cloned().collect::<Vec<_>>().join("+");
    members.iter().map(member).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(flags: &[(&str, &str)]) -> Config {
        let mut sources = Sources::default();
        for (flag, value) in flags {
            sources.flag(flag, value).unwrap();
        }
        sources.config().unwrap()
    }

    fn joining(initial_cluster: &str) -> Config {
        config(&[
            ("name", "c"),
            ("data-dir", "/d"),
            ("initial-advertise-peer-urls", "http://h:3,http://i:3"),
            ("initial-cluster", initial_cluster),
            ("initial-cluster-state", "existing"),
        ])
    }

    fn answer(members: &[(u64, &str, &str)]) -> pb::MemberListResponse {
        let member = |(id, name, urls): &(u64, &str, &str)| pb::Member {
            id: *id,
            name: (*name).to_owned(),
            peer_urls: urls.split(',').map(str::to_owned).collect(),
            ..pb::Member::default()
        };
        pb::MemberListResponse {
            header: Some(pb::ResponseHeader { cluster_id: 0xc, ..Default::default() }),
            members: members.iter().map(member).collect(),
        }
    }

    #[test]
    fn a_member_finds_itself_by_its_urls() {
        let config = joining("a=http://h:1,c=http://h:3,c=http://i:3");
        let known = [(1, "a", "http://h:1"), (9, "", "http://i:3,http://h:3")];
        let joined = find(&config, answer(&known)).unwrap();
        assert_eq!((joined.node, joined.cluster, joined.members.len()), (NodeId(9), 0xc, 2));
        for (members, want) in [
            (&[(1, "a", "http://h:1")][..], "Add this one first: `member add c"),
            (&[(1, "a", "http://h:1"), (9, "", "http://h:3")], "has the peer URLs"),
            (&[(1, "a", "http://h:1"), (9, "c", known[1].2)], "9 has already been bootstrapped"),
            (&[(1, "a", "http://h:1"), (2, "b", "http://h:2"), known[1]], "http://h:2"),
            (&[(1, "a", "http://h:4"), known[1]], "they are http://h:3+http://i:3, http://h:4"),
            (&[known[1]], "does not name the members"),
            (&[], "has the peer URLs"),
        ] {
            let error = find(&config, answer(members)).unwrap_err().to_string();
            assert!(error.contains(want), "{members:?}: {error}");
        }
    }

    #[tokio::test]
    async fn who_has_nobody_to_ask_is_told_at_once() {
        let config = joining("c=http://h:3,c=http://i:3");
        assert_eq!(join(&config).await, Err(JoinError::NobodyToAsk));
    }
}
