//! Who a member is: ids that every member of a new cluster computes alike, without talking.
//!
//! Both ids are the first eight bytes of a SHA-1, as etcd makes them: of a member's peer URLs and
//! the cluster's token, and of all member ids. Members that were given different lists or tokens get
//! different cluster ids, and then refuse each other's connections: they cannot form one cluster.
//!
//! A data directory remembers who it belongs to, and that word is final: see [`settle`].

use std::path::Path;

use quorate_types::NodeId;
use sha1::{Digest, Sha1};

use crate::config::{ClusterState, Config};
use crate::urls::Url;

/// The id of a member of a new cluster. Never 0.
///
/// The URLs count as a set: their order makes no difference.
pub fn member_id(peer_urls: &[Url], token: &str) -> NodeId {
    let mut urls: Vec<&str> = peer_urls.iter().map(Url::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(token);
    // One in 2^64 would be the id that means "no node".
    NodeId(first_eight(hash).max(1))
}

/// The id of the cluster that these members form.
pub fn cluster_id(members: &[NodeId]) -> u64 {
    let mut ids = members.to_vec();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.0.to_be_bytes());
    }
    first_eight(hash)
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

/// One member of the cluster that a configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedMember {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<Url>,
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The member.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: u64,
    /// The members of a new cluster; empty where the data directory knows them.
    pub members: Vec<NamedMember>,
}

/// Why no identity fits both the configuration and the data directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is nothing to go on with.
    #[error("--force-new-cluster: data directory {directory} holds no data to go on with")]
    NothingToForce {
        /// The data directory.
        directory: String,
    },
    /// The directory belongs to another member that the configuration names.
    #[error(
        "data directory {directory} belongs to member {owner:?} ({found:x}), not to {name:?}; give \
         each member a directory of its own with --data-dir"
    )]
    OtherMember {
        /// The data directory.
        directory: String,
        /// Whose data it holds.
        owner: String,
        /// Its id.
        found: NodeId,
        /// Who was to start.
        name: String,
    },
    /// The directory belongs to a cluster that the configuration does not describe.
    #[error(
        "data directory {directory} belongs to member {found:x} of cluster {found_cluster:x}, but \
         the --initial-cluster flags describe member {node:x} of cluster {cluster:x}; use the \
         directory of this member or an empty one, or, to go on with the member in the directory, \
         use --initial-cluster-state existing"
    )]
    OtherCluster {
        /// The data directory.
        directory: String,
        /// Whose data it holds.
        found: NodeId,
        /// Of which cluster.
        found_cluster: u64,
        /// Who was to start.
        node: NodeId,
        /// Of which cluster.
        cluster: u64,
    },
}

/// Decides who this node is; `found` is what the data directory says, if it holds data. Nobody, so
/// far, if it joins a cluster that runs already: that tells.
///
/// Data decides: the `--initial-*` flags found a cluster once and are not read again. They are only
/// compared, to catch a directory that was mixed up: one that belongs to another member of the list,
/// or, unless the cluster is said to be existing, to a member and a cluster neither of which the flags
/// describe. (A list that merely grew or shrank since is fine.)
///
/// # Errors
///
/// See [`IdentityError`].
pub fn settle(
    config: &Config,
    found: Option<(NodeId, u64)>,
) -> Result<Option<Identity>, IdentityError> {
    let members = named_members(config);
    let ids: Vec<NodeId> = members.iter().map(|member| member.id).collect();
    let node = member_id(&config.initial_advertise_peer_urls, &config.initial_cluster_token);
    let cluster = cluster_id(&ids);
    let directory = show(&config.data_dir);

    let Some((found, found_cluster)) = found else {
        if config.force_new_cluster {
            return Err(IdentityError::NothingToForce { directory });
        }
        let joins = config.initial_cluster_state == ClusterState::Existing;
        return Ok((!joins).then_some(Identity { node, cluster, members }));
    };
    let is_described = found == node || found_cluster == cluster;
    if config.describes_cluster {
        if let Some(owner) = members.iter().find(|member| member.id == found && found != node) {
            let owner = owner.name.clone();
            let name = config.name.clone();
            return Err(IdentityError::OtherMember { directory, owner, found, name });
        }
        if !is_described && config.initial_cluster_state == ClusterState::New {
            return Err(IdentityError::OtherCluster {
                directory,
                found,
                found_cluster,
                node,
                cluster,
            });
        }
    }
    Ok(Some(Identity { node: found, cluster: found_cluster, members: Vec::new() }))
}

/// The members of `--initial-cluster`, in the order of their ids.
fn named_members(config: &Config) -> Vec<NamedMember> {
    let mut members: Vec<NamedMember> = config
        .initial_cluster
        .iter()
        .map(|(name, peer_urls)| NamedMember {
            id: member_id(peer_urls, &config.initial_cluster_token),
            name: name.clone(),
            peer_urls: peer_urls.clone(),
        })
        .collect();
    members.sort_unstable_by_key(|member| member.id);
    members
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn urls(text: &str) -> Vec<Url> {
        Url::parse_list(text).unwrap()
    }

    fn config(flags: &[(&str, &str)]) -> Config {
        let mut sources = Sources::default();
        for (flag, value) in flags {
            sources.flag(flag, value).unwrap();
        }
        sources.config().unwrap()
    }

    #[test]
    fn ids_are_those_etcd_computes() {
        let alone = member_id(&urls("http://localhost:2380"), "etcd-cluster");
        assert_eq!(alone, NodeId(0x8e9e_05c5_2164_694d));
        assert_eq!(cluster_id(&[alone]), 0xcdf8_1819_4e3a_8c32);
    }

    #[test]
    fn order_makes_no_difference_and_the_token_does() {
        let forth = member_id(&urls("http://a:1,http://b:1"), "t");
        assert_eq!(forth, member_id(&urls("http://b:1,http://a:1"), "t"));
        assert_ne!(forth, member_id(&urls("http://a:1,http://b:1"), "u"));
        assert_eq!(cluster_id(&[NodeId(1), NodeId(2)]), cluster_id(&[NodeId(2), NodeId(1)]));
    }

    const TWO: &str = "a=http://h:1,b=http://h:2";

    #[test]
    fn an_empty_directory_takes_the_identity_of_the_flags() {
        let a = [("name", "a"), ("initial-advertise-peer-urls", "http://h:1")];
        let b = [("name", "b"), ("initial-advertise-peer-urls", "http://h:2")];
        let [a, b] = [a, b].map(|flags| {
            let flags = [&flags[..], &[("initial-cluster", TWO)]].concat();
            settle(&config(&flags), None).unwrap().unwrap()
        });
        assert_ne!(a.node, b.node);
        assert_eq!((a.cluster, &a.members), (b.cluster, &b.members));
        assert!(a.members.is_sorted_by_key(|member| member.id));
        let joins = settle(&config(&[("initial-cluster-state", "existing")]), None);
        assert_eq!(joins, Ok(None), "the cluster tells");
        let error = settle(&config(&[("force-new-cluster", "true")]), None).unwrap_err();
        assert!(error.to_string().contains("holds no data to go on with"), "{error}");
    }

    #[test]
    fn data_decides_and_a_directory_mixed_up_is_refused() {
        let id = |urls_text: &str| member_id(&urls(urls_text), "etcd-cluster");
        let (a, b) = (id("http://h:1"), id("http://h:2"));
        let ab = cluster_id(&[a, b]);
        let of_a: &[_] = &[
            ("name", "a"),
            ("initial-advertise-peer-urls", "http://h:1"),
            ("initial-cluster", TWO),
        ];
        let existing = [of_a, &[("initial-cluster-state", "existing")]].concat();
        for (flags, found, want) in [
            (of_a, (a, ab), Ok(())),
            (of_a, (a, 7), Ok(())),          // the list changed since
            (of_a, (NodeId(9), ab), Ok(())), // a member that was added later
            (of_a, (b, ab), Err("belongs to member \"b\"")),
            (of_a, (NodeId(9), 7), Err("of cluster 7")),
            (&existing, (NodeId(9), 7), Ok(())),
            (&existing, (b, ab), Err("belongs to member \"b\"")),
            (&[], (NodeId(9), 7), Ok(())), // no flags: whatever is there goes on
        ] {
            match (settle(&config(flags), Some(found)), want) {
                (Ok(identity), Ok(())) => {
                    let identity = identity.unwrap();
                    assert_eq!((identity.node, identity.cluster), found);
                    assert!(identity.members.is_empty());
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, want) => panic!("{flags:?} {found:?}: got {got:?}, want {want:?}"),
            }
        }
    }
}
