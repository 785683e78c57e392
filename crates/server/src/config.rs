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
//! [`Config`] holds only settings that fit together: [`Sources::config`] names everything that does
//! not, at once.

mod sources;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use quorate_autopilot::Settings;

pub use sources::{FLAGS, Flag, Sources};

use crate::Engine;
use crate::autopilot::AutopilotConfig;
use crate::duration::parse_duration;
use crate::urls::{Url, UrlError};
use crate::version::QUORATE_VERSION;

/// Election timeouts above this make a cluster that seems dead.
const ELECTION_MS_MAX: u64 = 50_000;
/// Election timeout, in heartbeats, below which a few late ones would cost the leader its office.
const ELECTION_HEARTBEATS_MIN: u64 = 5;
/// A command must fit into one message between nodes, with room to spare.
const REQUEST_BYTES_CEILING: u64 = 10 << 20;
/// Below this not even a key fits.
const REQUEST_BYTES_FLOOR: u64 = 1 << 10;
const LEARNERS_CEILING: u64 = 1000;
const TXN_OPS_CEILING: u64 = 100_000;
const CLIENT_CONNECTIONS_CEILING: u64 = 1 << 20;
/// As gRPC has it.
const KEEPALIVE_MIN: Duration = Duration::from_secs(1);
/// Watchers are told no more often. etcd's limit.
const WATCH_PROGRESS_MIN: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Revisions are noted ten times as often.
const RETENTION_MIN: Duration = Duration::from_secs(1);
/// Every comparison reads all that the members hold.
const CORRUPT_CHECK_MIN: Duration = Duration::from_secs(1);
const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;
const NAME_BYTES_MAX: usize = 255;
const TAGS_MAX: usize = 64;
/// Learners that a cluster may have where nobody promotes them by himself, as etcd has it.
const LEARNERS_DEFAULT: usize = 1;
/// The same where autopilot promotes them, or keeps them to stand by.
const LEARNERS_DEFAULT_AUTOPILOT: usize = 64;
/// More often would only cost.
const AUTOPILOT_INTERVAL_MIN: Duration = Duration::from_millis(10);

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

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No such setting.
    #[error("{origin}: no setting {name:?}{}", hint.map(|hint| format!("; did you mean {hint:?}?")).unwrap_or_default())]
    Unknown {
        /// Where it was given.
        origin: String,
        /// Its name.
        name: String,
        /// A setting that is called almost so.
        hint: Option<&'static str>,
    },
    /// A value of another type.
    #[error("{origin}: {value:?} is not {want}")]
    NotA {
        /// Where it was given.
        origin: String,
        /// What was given.
        value: String,
        /// What is needed.
        want: &'static str,
    },
    /// No text where some is needed.
    #[error("{origin}: it is empty; leave it out for the default")]
    Empty {
        /// Where it was given.
        origin: String,
    },
    /// A number that cannot work.
    #[error("{origin}: {value} is out of range; use {min} to {max}")]
    OutOfRange {
        /// Where it was given.
        origin: String,
        /// What was given.
        value: u64,
        /// The least that works.
        min: u64,
        /// The most that works.
        max: u64,
    },
    /// A URL that cannot be used.
    #[error("{origin}: {error}")]
    Url {
        /// Where it was given.
        origin: String,
        /// What is wrong with it.
        error: UrlError,
    },
    /// One URL twice in one list.
    #[error("{origin}: {url} is there twice")]
    UrlTwice {
        /// Where it was given.
        origin: String,
        /// The URL.
        url: String,
    },
    /// Clients and peers on one port.
    #[error("--listen-client-urls and --listen-peer-urls both name {url}; use two ports")]
    SharedListener {
        /// The URL.
        url: String,
    },
    /// Clients would be told the default, where nobody may listen.
    #[error(
        "--listen-client-urls is given without --advertise-client-urls: what should clients be told \
         to connect to? Try --advertise-client-urls {listen}"
    )]
    AdvertiseMissing {
        /// What is listened on.
        listen: String,
    },
    /// Elections before a leader can show itself.
    #[error(
        "--election-timeout is {election} ms, --heartbeat-interval {heartbeat} ms: a few late \
         heartbeats would start an election; make the timeout at least {} ms",
        heartbeat.saturating_mul(ELECTION_HEARTBEATS_MIN)
    )]
    ElectionTooSoon {
        /// Election timeout in ms.
        election: u64,
        /// Heartbeat interval in ms.
        heartbeat: u64,
    },
    /// A name that cannot stand in `--initial-cluster`, or in a path.
    #[error("{origin}: {name:?} cannot be a member's name: {why}")]
    Name {
        /// Where it was given.
        origin: String,
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An element of `--initial-cluster` without a name.
    #[error(
        "{origin}: {part:?} is not NAME=URL; write the list as n1=http://h1:2380,n2=http://h2:2380"
    )]
    ClusterSyntax {
        /// Where it was given.
        origin: String,
        /// The element.
        part: String,
    },
    /// This node is not in its own cluster.
    #[error(
        "--initial-cluster names {names}, and not this member, {name:?}; add {name}=<its peer URL>, \
         or set --name"
    )]
    ClusterWithoutSelf {
        /// The names in it.
        names: String,
        /// This node's.
        name: String,
    },
    /// Members change, with an engine whose members are fixed.
    #[error(
        "{flag} does not go with --engine zab, whose members are fixed when the cluster is made; leave \
         it out, or run --engine raft"
    )]
    FixedMembers {
        /// The flag, with its value.
        flag: &'static str,
    },
    /// Others would be told one address, and this node another.
    #[error(
        "--initial-cluster gives {name} the peer URLs {listed}, --initial-advertise-peer-urls says \
         {advertised}; they must be the same"
    )]
    ClusterUrlsDiffer {
        /// This node's name.
        name: String,
        /// Its URLs in the list.
        listed: String,
        /// The URLs it advertises.
        advertised: String,
    },
    /// Something that is made of parts, of which one is wrong.
    #[error("{origin}: {why}")]
    Part {
        /// Where it was given.
        origin: String,
        /// Which one, and why.
        why: String,
    },
    /// The file cannot be used.
    #[error("config file {path}: {why}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        why: String,
    },
}

/// Everything that is wrong with the settings; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<ConfigError>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

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
        if self.initial_cluster.len().is_multiple_of(2) {
            let count = self.initial_cluster.len();
            self.warnings.push(format!(
                "--initial-cluster has {count} members: as many failures are survived with {}",
                count - 1
            ));
        }
    }
}

/// Whether a text can stand in a table and in a line of the log.
fn is_plain(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

/// URLs as a flag takes them.
pub(crate) fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

impl Sources {
    /// Reads and checks everything.
    ///
    /// # Errors
    ///
    /// All problems at once.
    pub fn config(&self) -> Result<Config, Problems> {
        let mut read = Reader { sources: self, problems: self.problems().to_vec() };
        let name = read.name();
        let initial_advertise_peer_urls = read.urls("initial-advertise-peer-urls");
        let mut config = Config {
            data_dir: read.data_dir(&name),
            listen_client_urls: read.listeners("listen-client-urls"),
            listen_metrics_urls: match self.value("listen-metrics-urls") {
                "" => Vec::new(),
                _ => read.listeners("listen-metrics-urls"),
            },
            advertise_client_urls: read.urls("advertise-client-urls"),
            listen_peer_urls: read.listeners("listen-peer-urls"),
            initial_cluster: read.cluster(&name, &initial_advertise_peer_urls),
            initial_cluster_state: read.choice(
                "initial-cluster-state",
                "new or existing",
                &[("new", ClusterState::New), ("existing", ClusterState::Existing)],
            ),
            initial_cluster_token: self.value("initial-cluster-token").to_owned(),
            describes_cluster: [
                "initial-cluster",
                "initial-cluster-token",
                "initial-advertise-peer-urls",
            ]
            .iter()
            .any(|flag| self.is_given(flag)),
            engine: read.choice(
                "engine",
                "raft or zab",
                &[("raft", Engine::Raft), ("zab", Engine::Zab)],
            ),
            is_reconfig_strict: read.boolean("strict-reconfig-check"),
            learners_max: read.learners_max(),
            autopilot: read.autopilot(),
            force_new_cluster: read.boolean("force-new-cluster"),
            heartbeat_ms: read.number("heartbeat-interval", 1, ELECTION_MS_MAX),
            election_ms: read.number("election-timeout", 1, ELECTION_MS_MAX),
            snapshot_count: read.number("snapshot-count", 1, u64::MAX),
            quota_bytes_max: read.quota(),
            request_bytes_max: read.number(
                "max-request-bytes",
                REQUEST_BYTES_FLOOR,
                REQUEST_BYTES_CEILING,
            ),
            txn_ops_max: usize::try_from(read.number("max-txn-ops", 1, TXN_OPS_CEILING))
                .unwrap_or(usize::MAX),
            client_connections_max: usize::try_from(read.number(
                "max-client-connections",
                1,
                CLIENT_CONNECTIONS_CEILING,
            ))
            .unwrap_or(usize::MAX),
            keepalive_interval: read.keepalive("grpc-keepalive-interval"),
            keepalive_timeout: read.keepalive("grpc-keepalive-timeout"),
            watch_progress_interval: read.watch_progress(),
            auto_compaction: read.auto_compaction(),
            corrupt_check_interval: read.corrupt_check(),
            initial_corrupt_check: read.boolean("initial-corrupt-check"),
            log_level: read.choice(
                "log-level",
                "trace, debug, info, warn or error",
                &[
                    ("info", LogLevel::Info),
                    ("trace", LogLevel::Trace),
                    ("debug", LogLevel::Debug),
                    ("warn", LogLevel::Warn),
                    ("error", LogLevel::Error),
                    // etcd's two more have nothing of their own here.
                    ("panic", LogLevel::Error),
                    ("fatal", LogLevel::Error),
                ],
            ),
            log_format: read.choice(
                "log-format",
                "json or text",
                &[
                    ("text", LogFormat::Text),
                    ("json", LogFormat::Json),
                    ("console", LogFormat::Text),
                ],
            ),
            warnings: self.warnings().to_vec(),
            name,
            initial_advertise_peer_urls,
        };
        let mut problems = read.problems;
        // What could not be read was replaced by something: its relations would only confuse.
        if problems.is_empty() {
            config.check(self, &mut problems);
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        config.warn();
        Ok(config)
    }
}

/// Reads single settings, and keeps a list of what is wrong with them.
struct Reader<'a> {
    sources: &'a Sources,
    problems: Vec<ConfigError>,
}

impl Reader<'_> {
    fn origin(&self, flag: &str) -> String {
        self.sources.origin(flag)
    }

    fn number(&mut self, flag: &'static str, min: u64, max: u64) -> u64 {
        let text = self.sources.value(flag);
        match text.trim().parse::<u64>() {
            Ok(value) if min <= value && value <= max => value,
            Ok(value) => {
                let origin = self.origin(flag);
                self.problems.push(ConfigError::OutOfRange { origin, value, min, max });
                min
            }
            Err(_) => {
                self.not_a(flag, "a whole number");
                min
            }
        }
    }

    fn boolean(&mut self, flag: &'static str) -> bool {
        self.choice(flag, "true or false", &[("false", false), ("true", true)])
    }

    fn learners_max(&mut self) -> usize {
        if self.sources.is_given("max-learners") {
            let count = self.number("max-learners", 0, LEARNERS_CEILING);
            return usize::try_from(count).unwrap_or(usize::MAX);
        }
        if self.has_autopilot() { LEARNERS_DEFAULT_AUTOPILOT } else { LEARNERS_DEFAULT }
    }

    /// It is on by itself, but where members are fixed. What is no truth at all is said elsewhere.
    fn has_autopilot(&self) -> bool {
        let is = |flag, word| self.sources.value(flag).trim().eq_ignore_ascii_case(word);
        is("autopilot", "true") && (!is("engine", "zab") || self.sources.is_given("autopilot"))
    }

    fn autopilot(&mut self) -> AutopilotConfig {
        AutopilotConfig {
            is_on: self.boolean("autopilot") && self.has_autopilot(),
            settings: self.autopilot_settings(),
            update_interval: self.autopilot_interval("autopilot-update-interval"),
            reconcile_interval: self.autopilot_interval("autopilot-reconcile-interval"),
            member_version: self.member_version(),
            member_tags: self.member_tags(),
        }
    }

    fn autopilot_interval(&mut self, flag: &'static str) -> Duration {
        match parse_duration(self.sources.value(flag).trim()) {
            Ok(span) if AUTOPILOT_INTERVAL_MIN <= span => span,
            _ => {
                self.not_a(flag, "a duration of 10ms or more, such as 2s");
                AUTOPILOT_INTERVAL_MIN
            }
        }
    }

    /// What a new cluster begins with, unless told otherwise.
    fn autopilot_settings(&mut self) -> Settings {
        let flag = "autopilot-config";
        let settings = Settings::default();
        let parts = self.sources.value(flag).split(',').filter(|part| !part.trim().is_empty());
        let changes: Result<_, _> = parts.map(|part| Settings::change_of(part.trim())).collect();
        match changes.and_then(|changes| settings.with(&changes)) {
            Ok(settings) => settings,
            Err(error) => {
                let (origin, why) = (self.origin(flag), error.to_string());
                self.problems.push(ConfigError::Part { origin, why });
                settings
            }
        }
    }

    fn member_version(&mut self) -> String {
        let flag = "member-version";
        match self.sources.value(flag).trim() {
            "" => QUORATE_VERSION.to_owned(),
            text if is_plain(text) => text.to_owned(),
            _ => {
                self.not_a(flag, "a version such as 1.2.0, of 255 bytes at most");
                String::new()
            }
        }
    }

    fn member_tags(&mut self) -> BTreeMap<String, String> {
        let flag = "member-tags";
        let mut tags = BTreeMap::new();
        let text = self.sources.value(flag);
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let tag = part.split_once('=').filter(|(key, _)| !key.trim().is_empty());
            let why = match tag {
                Some((key, value)) if is_plain(key) && is_plain(value) => {
                    let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
                    match tags.insert(key, value) {
                        None if tags.len() <= TAGS_MAX => continue,
                        None => format!("there are more than {TAGS_MAX} tags"),
                        Some(_) => format!("{part:?} is a second value of one tag"),
                    }
                }
                Some(_) => format!("{part:?} is too long, or has control characters"),
                None => format!("{part:?} is not KEY=VALUE; write zone=a,rack=7"),
            };
            let origin = self.origin(flag);
            self.problems.push(ConfigError::Part { origin, why });
        }
        tags
    }

    /// Zero, or a span that leaves both sides time for something else.
    fn keepalive(&mut self, flag: &'static str) -> Duration {
        match parse_duration(self.sources.value(flag).trim()) {
            Ok(span) if span.is_zero() || KEEPALIVE_MIN <= span => span,
            _ => {
                self.not_a(flag, "a duration of 1s or more, such as 2h, or 0");
                Duration::ZERO
            }
        }
    }

    fn watch_progress(&mut self) -> Duration {
        let flag = "watch-progress-notify-interval";
        match parse_duration(self.sources.value(flag).trim()) {
            Ok(span) if WATCH_PROGRESS_MIN <= span => span,
            _ => {
                self.not_a(flag, "a duration of 100ms or more, such as 10m");
                WATCH_PROGRESS_MIN
            }
        }
    }

    /// By time a bare number counts hours.
    fn auto_compaction(&mut self) -> AutoCompaction {
        let flag = "auto-compaction-retention";
        let by_revision = self.choice(
            "auto-compaction-mode",
            "periodic or revision",
            &[("periodic", false), ("revision", true)],
        );
        let text = self.sources.value(flag).trim();
        let hours = text.parse::<u32>().map(|hours| HOUR * hours);
        if by_revision {
            match text.parse::<i64>() {
                Ok(0) => return AutoCompaction::Off,
                Ok(count) if 0 < count => return AutoCompaction::Revision(count),
                _ => self.not_a(flag, "a number of revisions, or 0 for none"),
            }
        } else {
            match hours.or_else(|_| parse_duration(text)) {
                Ok(span) if span.is_zero() => return AutoCompaction::Off,
                Ok(span) if RETENTION_MIN <= span => return AutoCompaction::Periodic(span),
                _ => self.not_a(flag, "hours, a duration of 1s or more such as 30m, or 0"),
            }
        }
        AutoCompaction::Off
    }

    fn corrupt_check(&mut self) -> Duration {
        let flag = "corrupt-check-time";
        match parse_duration(self.sources.value(flag).trim()) {
            Ok(span) if span.is_zero() || CORRUPT_CHECK_MIN <= span => span,
            _ => {
                self.not_a(flag, "a duration of 1s or more, such as 12h, or 0 for never");
                Duration::ZERO
            }
        }
    }

    /// 0 is etcd's default; a negative number is no quota.
    fn quota(&mut self) -> Option<u64> {
        match self.sources.value("quota-backend-bytes").trim().parse::<i64>() {
            Ok(0) => Some(QUOTA_BYTES_DEFAULT),
            Ok(bytes) => u64::try_from(bytes).ok(),
            Err(_) => {
                self.not_a("quota-backend-bytes", "a whole number of bytes");
                None
            }
        }
    }

    /// The first choice stands for one that could not be read.
    fn choice<T: Copy>(
        &mut self,
        flag: &'static str,
        want: &'static str,
        choices: &[(&str, T)],
    ) -> T {
        let text = self.sources.value(flag).trim().to_ascii_lowercase();
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => *value,
            None => {
                self.not_a(flag, want);
                choices[0].1
            }
        }
    }

    fn not_a(&mut self, flag: &'static str, want: &'static str) {
        let value = self.sources.value(flag).to_owned();
        let origin = self.origin(flag);
        self.problems.push(ConfigError::NotA { origin, value, want });
    }

    fn name(&mut self) -> String {
        let name = self.sources.value("name").to_owned();
        let why = if name.is_empty() {
            "it is empty"
        } else if NAME_BYTES_MAX < name.len() {
            "it is longer than 255 bytes"
        } else if name.contains(['=', ',']) {
            "= and , have a meaning in --initial-cluster"
        } else if name.chars().any(char::is_control) {
            "it has control characters"
        } else {
            return name;
        };
        let origin = self.origin("name");
        self.problems.push(ConfigError::Name { origin, name: name.clone(), why });
        name
    }

    fn data_dir(&mut self, name: &str) -> PathBuf {
        if self.sources.is_given("data-dir") {
            if self.sources.value("data-dir").is_empty() {
                self.problems.push(ConfigError::Empty { origin: self.origin("data-dir") });
            }
            return PathBuf::from(self.sources.value("data-dir"));
        }
        if name.contains('/') {
            self.problems.push(ConfigError::Name {
                origin: self.origin("name"),
                name: name.to_owned(),
                why: "the data directory would be called after it; set --data-dir",
            });
        }
        PathBuf::from(format!("{name}.etcd"))
    }

    fn urls(&mut self, flag: &'static str) -> Vec<Url> {
        let urls = match Url::parse_list(self.sources.value(flag)) {
            Ok(urls) => urls,
            Err(error) => {
                let origin = self.origin(flag);
                self.problems.push(ConfigError::Url { origin, error });
                return Vec::new();
            }
        };
        for (at, url) in urls.iter().enumerate() {
            if urls[..at].contains(url) {
                let origin = self.origin(flag);
                self.problems.push(ConfigError::UrlTwice { origin, url: url.to_string() });
            }
        }
        urls
    }

    fn listeners(&mut self, flag: &'static str) -> Vec<Url> {
        let urls = self.urls(flag);
        for url in &urls {
            if let Err(error) = url.bind_address() {
                let origin = self.origin(flag);
                self.problems.push(ConfigError::Url { origin, error });
            }
        }
        urls
    }

    /// `name=url,...`; a name may repeat. By default this member alone.
    fn cluster(&mut self, name: &str, advertised: &[Url]) -> BTreeMap<String, Vec<Url>> {
        let mut cluster: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        if !self.sources.is_given("initial-cluster") {
            cluster.insert(name.to_owned(), advertised.to_vec());
            return cluster;
        }
        for part in self.sources.value("initial-cluster").split(',') {
            let origin = self.origin("initial-cluster");
            match part.trim().split_once('=') {
                Some((name, url)) if !name.is_empty() => match Url::parse(url) {
                    Ok(url) => cluster.entry(name.to_owned()).or_default().push(url),
                    Err(error) => self.problems.push(ConfigError::Url { origin, error }),
                },
                _ => {
                    let part = part.to_owned();
                    self.problems.push(ConfigError::ClusterSyntax { origin, part });
                }
            }
        }
        cluster
    }
}
