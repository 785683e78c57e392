//! Settings out of their texts: each is read by itself, against its own range.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use quorate_autopilot::Settings;

use super::{
    AutoCompaction, ClusterState, Config, ConfigError, LogFormat, LogLevel, Problems, Sources,
};
use crate::Engine;
use crate::autopilot::AutopilotConfig;
use crate::boolean::parse_bool;
use crate::duration::parse_duration;
use crate::urls::Url;
use crate::version::QUORATE_VERSION;

/// Election timeouts above this make a cluster that seems dead.
const ELECTION_MS_MAX: u64 = 50_000;
/// A command must fit into one message between nodes, with room to spare.
const REQUEST_BYTES_CEILING: u64 = 10 << 20;
/// Below this not even a key fits.
const REQUEST_BYTES_FLOOR: u64 = 1 << 10;
const LEARNERS_CEILING: u64 = 1000;
const TXN_OPS_CEILING: u64 = 100_000;
const CLIENT_CONNECTIONS_CEILING: u64 = 1 << 20;
/// Longer is as good as for ever, and no span of it is too long to be reckoned with.
const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
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
/// With less, one client's pages would be in the way of another's.
const ANSWER_BYTES_FLOOR: u64 = 16 << 20;
const ANSWER_BYTES_CEILING: u64 = 1 << 40;

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
            answer_bytes_max: usize::try_from(read.number(
                "max-answer-bytes",
                ANSWER_BYTES_FLOOR,
                ANSWER_BYTES_CEILING,
            ))
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
        parse_bool(self.sources.value(flag)).unwrap_or_else(|| {
            self.not_a(flag, "true or false");
            false
        })
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
        let is_zab = self.sources.value("engine").trim().eq_ignore_ascii_case("zab");
        let is_on = parse_bool(self.sources.value("autopilot")) == Some(true);
        is_on && (!is_zab || self.sources.is_given("autopilot"))
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
        self.duration(flag, AUTOPILOT_INTERVAL_MIN, "a duration of 10ms or more, such as 2s")
    }

    /// What a new cluster begins with, unless told otherwise. Where anything is set it means nothing: what may be
    /// a mistake only is taken, with a warning.
    fn autopilot_settings(&mut self) -> Settings {
        let flag = "autopilot-config";
        let parts = self.sources.value(flag).split(',').filter(|part| !part.trim().is_empty());
        let changes = Settings::changes_of(parts.map(str::trim));
        match changes.and_then(|changes| Settings::from_object(&changes)) {
            Ok(settings) => settings,
            Err(error) => {
                let (origin, why) = (self.origin(flag), error.to_string());
                self.problems.push(ConfigError::Part { origin, why });
                Settings::default()
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
        self.duration_or_zero(flag, KEEPALIVE_MIN, "a duration of 1s or more, such as 2h, or 0")
    }

    fn watch_progress(&mut self) -> Duration {
        let flag = "watch-progress-notify-interval";
        self.duration(flag, WATCH_PROGRESS_MIN, "a duration of 100ms or more, such as 10m")
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
                Ok(span) if RETENTION_MIN <= span => {
                    return AutoCompaction::Periodic(self.not_too_long(flag, span));
                }
                _ => self.not_a(flag, "hours, a duration of 1s or more such as 30m, or 0"),
            }
        }
        AutoCompaction::Off
    }

    fn corrupt_check(&mut self) -> Duration {
        let flag = "corrupt-check-time";
        let want = "a duration of 1s or more, such as 12h, or 0 for never";
        self.duration_or_zero(flag, CORRUPT_CHECK_MIN, want)
    }

    fn duration_or_zero(
        &mut self,
        flag: &'static str,
        min: Duration,
        want: &'static str,
    ) -> Duration {
        match parse_duration(self.sources.value(flag).trim()) {
            Ok(span) if span.is_zero() => span,
            _ => self.duration(flag, min, want),
        }
    }

    fn duration(&mut self, flag: &'static str, min: Duration, want: &'static str) -> Duration {
        match parse_duration(self.sources.value(flag).trim()) {
            Ok(span) if min <= span => self.not_too_long(flag, span),
            _ => {
                self.not_a(flag, want);
                min
            }
        }
    }

    fn not_too_long(&mut self, flag: &'static str, span: Duration) -> Duration {
        if DURATION_MAX < span {
            self.not_a(flag, "a duration of 87600h, which is ten years, or less");
        }
        span.min(DURATION_MAX)
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
        // Every founding member makes the first members of it: all the same, in whatever order they were told.
        cluster.values_mut().for_each(|urls| urls.sort_unstable());
        cluster
    }
}
/// Whether a text can stand in a table and in a line of the log.
fn is_plain(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}
