//! Settings of `quorate serve`: read from four places, checked together, before any data is touched.
//!
//! Every setting is one of [`FLAGS`] and has one name. `--foo-bar` on the command line is
//! `QUORATE_FOO_BAR` in the environment, `ETCD_FOO_BAR` for unit files written for etcd, and `foo-bar`
//! in the TOML file that `--config-file` names. The first of these that has it wins:
//!
//! ```text
//! command line  >  QUORATE_ variable  >  ETCD_ variable  >  file  >  default
//! ```
//!
//! (etcd refuses a flag that is also in the environment, and with a file ignores all the rest; a
//! fixed order surprises less.) An empty variable counts as absent. An `ETCD_` variable without a
//! meaning here is warned about; an unknown flag or key is an error.
//!
//! Flags of etcd that change nothing here, and can be left out without harm, are [`IGNORED`]: taken,
//! and warned about, so that what starts etcd starts this.
//!
//! [`Config`] holds only settings that fit together: [`Sources::config`] names everything that does
//! not, at once.
mod flags;
mod problem;
mod reader;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

pub use flags::{FLAGS, Flag, IGNORED};
pub use problem::{ConfigError, Problems};
pub use sources::Sources;

use crate::Engine;
use crate::autopilot::AutopilotConfig;
use crate::urls::Url;

/// Election timeout, in heartbeats, below which a few late ones would cost the leader its office.
const ELECTION_HEARTBEATS_MIN: u64 = 5;

/// Checked settings of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the member, and its key in `initial_cluster`.
    pub name: String,
    /// Where log and state live.
    pub data_dir: PathBuf,
    /// Where clients connect.
    pub listen_client_urls: Vec<Url>,
    /// Where those connect who only watch this member, beside the client URLs.
    pub listen_metrics_urls: Vec<Url>,
    /// What clients are told to connect to.
    pub advertise_client_urls: Vec<Url>,
    /// Where peers connect.
    pub listen_peer_urls: Vec<Url>,
    /// What peers are told to connect to.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// The members of a new cluster: name and peer URLs, this node among them.
    pub initial_cluster: BTreeMap<String, Vec<Url>>,
    /// Whether the cluster is to be founded or runs already.
    pub initial_cluster_state: ClusterState,
    /// Keeps clusters apart that have the same URLs: part of all ids.
    pub initial_cluster_token: String,
    /// Whether one of the settings that name the cluster was given, rather than left at its default.
    pub describes_cluster: bool,
    /// What orders the cluster's writes.
    pub engine: Engine,
    /// Whether changes of the members are refused that would cost, or risk, the quorum.
    pub is_reconfig_strict: bool,
    /// Learners that the cluster may have at one time.
    pub learners_max: usize,
    /// Whether to go on alone with this member's data.
    pub force_new_cluster: bool,
    /// Heartbeat interval.
    pub heartbeat_ms: u64,
    /// Election timeout; at least five heartbeats.
    pub election_ms: u64,
    /// Applied entries between snapshots.
    pub snapshot_count: u64,
    /// Size of the state over which writes are refused; `None` is no quota.
    pub quota_bytes_max: Option<u64>,
    /// The longest command.
    pub request_bytes_max: u64,
    /// Operations in each list of a transaction.
    pub txn_ops_max: usize,
    /// Memory that long answers under way take together.
    pub answer_bytes_max: usize,
    /// Connections of clients at one time, if the limit of open files allows that many.
    pub client_connections_max: usize,
    /// How often a client that says nothing is asked for a sign of life; zero for never.
    pub keepalive_interval: Duration,
    /// How long it may take to give one; zero for no questions at all.
    pub keepalive_timeout: Duration,
    /// How often watchers that want it are told that nothing has happened.
    pub watch_progress_interval: Duration,
    /// Which history is forgotten without being asked.
    pub auto_compaction: AutoCompaction,
    /// How often the members' data are compared; zero for never.
    pub corrupt_check_interval: Duration,
    /// Whether they are compared before clients are served.
    pub initial_corrupt_check: bool,
    /// How autopilot looks after the members.
    pub autopilot: AutopilotConfig,
    /// What is logged.
    pub log_level: LogLevel,
    /// How it is logged.
    pub log_format: LogFormat,
    /// What works, and may not be meant.
    pub warnings: Vec<String>,
}

/// Whether a member without data founds a cluster or joins one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// Founds it, with the others of `--initial-cluster`.
    New,
    /// Joins it.
    Existing,
}

/// Which history the leader has forgotten without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// None.
    Off,
    /// What is older than that.
    Periodic(Duration),
    /// All but so many revisions.
    Revision(i64),
}

/// The least important lines that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// What a developer asks for.
    Debug,
    /// What an operator wants to see.
    Info,
    /// What may go wrong.
    Warn,
    /// What went wrong.
    Error,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Config {
    /// Relations between settings; single values were checked when they were read.
    fn check(&self, sources: &Sources, problems: &mut Vec<ConfigError>) {
        if self.election_ms < self.heartbeat_ms.saturating_mul(ELECTION_HEARTBEATS_MIN) {
            problems.push(ConfigError::ElectionTooSoon {
                election: self.election_ms,
                heartbeat: self.heartbeat_ms,
            });
        }
        if sources.is_given("listen-client-urls") && !sources.is_given("advertise-client-urls") {
            problems.push(ConfigError::AdvertiseMissing { listen: join(&self.listen_client_urls) });
        }
        for url in &self.listen_client_urls {
            // Port 0 asks for any free port, each time another one.
            let is_shared = |peer: &Url| (peer.host(), peer.port()) == (url.host(), url.port());
            if url.port() != 0 && self.listen_peer_urls.iter().any(is_shared) {
                problems.push(ConfigError::SharedListener { url: url.to_string() });
            }
        }
        for (is_on, flag) in [
            (
                self.initial_cluster_state == ClusterState::Existing,
                "--initial-cluster-state existing",
            ),
            (self.force_new_cluster, "--force-new-cluster"),
            (self.autopilot.is_on, "--autopilot true"),
        ] {
            if is_on && self.engine == Engine::Zab {
                problems.push(ConfigError::FixedMembers { flag });
            }
        }
        self.check_cluster(problems);
    }

    fn check_cluster(&self, problems: &mut Vec<ConfigError>) {
        let mut seen = BTreeSet::new();
        for url in self.initial_cluster.values().flatten() {
            if !seen.insert(url.as_str()) {
                problems.push(ConfigError::UrlTwice {
                    origin: "--initial-cluster".to_owned(),
                    url: url.to_string(),
                });
            }
        }
        let Some(listed) = self.initial_cluster.get(&self.name) else {
            problems.push(ConfigError::ClusterWithoutSelf {
                names: self.initial_cluster.keys().cloned().collect::<Vec<_>>().join(", "),
                name: self.name.clone(),
            });
            return;
        };
        let set = |urls: &[Url]| urls.iter().cloned().collect::<BTreeSet<_>>();
        if set(listed) != set(&self.initial_advertise_peer_urls) {
            problems.push(ConfigError::ClusterUrlsDiffer {
                name: self.name.clone(),
                listed: join(listed),
                advertised: join(&self.initial_advertise_peer_urls),
            });
        }
    }

    fn warn(&mut self) {
        for (flag, urls) in [
            ("advertise-client-urls", &self.advertise_client_urls),
            ("initial-advertise-peer-urls", &self.initial_advertise_peer_urls),
        ] {
            for url in urls.iter().filter(|url| url.is_wildcard()) {
                self.warnings.push(format!("--{flag} {url}: nobody can connect to that address"));
            }
        }
        for warning in self.autopilot.settings.warnings() {
            self.warnings.push(format!("--autopilot-config: {warning}"));
        }
        let version = &self.autopilot.member_version;
        if !quorate_autopilot::is_version(version) {
            self.warnings.push(format!(
                "--member-version {version}: migrations cannot compare it and take it for the leader's; \
                 write three numbers, such as 1.2.0"
            ));
        }
        if self.initial_cluster.len().is_multiple_of(2) {
            let count = self.initial_cluster.len();
            self.warnings.push(format!(
                "--initial-cluster has {count} members: as many failures are survived with {}",
                count - 1
            ));
        }
    }
}

/// URLs as a flag takes them.
pub(crate) fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}
