//! Where settings come from. They stay text until all of them are known.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::ConfigError;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name on the command line without the dashes, and in a file.
    pub name: &'static str,
    /// What stands for its value in a help text.
    pub value: &'static str,
    /// Its default; empty where it follows from other settings.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

const fn flag(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, value, default, help }
}

/// Every setting, in the order in which a help text lists them.
pub const FLAGS: &[Flag] = &[
    flag("name", "NAME", "default", "Name of this member, and its key in --initial-cluster"),
    flag("data-dir", "DIR", "", "Directory of log and state [default: <name>.etcd]"),
    flag(
        "listen-client-urls",
        "URLS",
        "http://localhost:2379",
        "Where clients connect, comma separated; IP addresses or localhost",
    ),
    flag(
        "listen-metrics-urls",
        "URLS",
        "",
        "Where /metrics, /health, /livez and /readyz are served too, comma separated [default: none]",
    ),
    flag(
        "advertise-client-urls",
        "URLS",
        "http://localhost:2379",
        "What clients are told to connect to; needed with --listen-client-urls",
    ),
    flag(
        "listen-peer-urls",
        "URLS",
        "http://localhost:2380",
        "Where other members connect, comma separated; IP addresses or localhost",
    ),
    flag(
        "initial-advertise-peer-urls",
        "URLS",
        "http://localhost:2380",
        "What other members are told to connect to",
    ),
    flag(
        "initial-cluster",
        "LIST",
        "",
        "Members of the cluster, this one among them: n1=http://h1:2380,n2=http://h2:2380 \
         [default: this member alone]",
    ),
    flag(
        "initial-cluster-state",
        "STATE",
        "new",
        "`new` founds a cluster, `existing` joins one that this member was added to",
    ),
    flag(
        "initial-cluster-token",
        "TEXT",
        "etcd-cluster",
        "Keeps clusters apart that have the same URLs; the same on all members",
    ),
    flag(
        "engine",
        "ENGINE",
        "raft",
        "raft or zab: what orders writes; the same on all members, and for as long as they live",
    ),
    flag(
        "strict-reconfig-check",
        "BOOL",
        "true",
        "Refuse changes of the members that would cost, or risk, the quorum",
    ),
    flag(
        "max-learners",
        "COUNT",
        "",
        "Learners that the cluster may have at one time [default: 64; 1 with --autopilot=false]",
    ),
    flag(
        "autopilot",
        "BOOL",
        "true",
        "While this member leads, promote learners that are stable, and whatever else it is told to do about \
         the members",
    ),
    flag(
        "autopilot-config",
        "LIST",
        "",
        "What autopilot's settings begin with in a new cluster: target-voters=5,cleanup-dead-servers=true; \
         see `quorate autopilot set-config`",
    ),
    flag("autopilot-update-interval", "DURATION", "2s", "How often a leader looks at the members"),
    flag(
        "autopilot-reconcile-interval",
        "DURATION",
        "10s",
        "How often a leader's autopilot considers changes",
    ),
    flag(
        "member-version",
        "VERSION",
        "",
        "Version of this member for autopilot's migrations [default: that of the program]",
    ),
    flag(
        "member-tags",
        "LIST",
        "",
        "What autopilot is to know of this member: zone=a,read_replica=true",
    ),
    flag(
        "force-new-cluster",
        "BOOL",
        "false",
        "Go on alone with this member's data, when the others are lost for good; once only",
    ),
    flag("heartbeat-interval", "MS", "100", "How often a leader shows itself, in milliseconds"),
    flag(
        "election-timeout",
        "MS",
        "1000",
        "How long without a leader until an election, in milliseconds; 5 heartbeats or more",
    ),
    flag("snapshot-count", "COUNT", "10000", "Applied entries between snapshots"),
    flag(
        "quota-backend-bytes",
        "BYTES",
        "0",
        "Size of the state over which writes are refused; 0 is 2 GiB, negative is no quota",
    ),
    flag("max-request-bytes", "BYTES", "1572864", "The longest request that is replicated"),
    flag("max-txn-ops", "COUNT", "128", "Operations in each list of a transaction"),
    flag(
        "max-client-connections",
        "COUNT",
        "65536",
        "Client connections at one time; fewer where few files may be open (ulimit -n, less 150)",
    ),
    flag(
        "grpc-keepalive-interval",
        "DURATION",
        "2h",
        "How often a silent client is asked for a sign of life; 0 for never",
    ),
    flag(
        "grpc-keepalive-timeout",
        "DURATION",
        "20s",
        "How long such a client may take to answer before its connection is closed",
    ),
    flag(
        "watch-progress-notify-interval",
        "DURATION",
        "10m",
        "How often watchers that want it hear that nothing has happened",
    ),
    flag(
        "auto-compaction-mode",
        "MODE",
        "periodic",
        "What --auto-compaction-retention counts: `periodic` time, `revision` revisions",
    ),
    flag(
        "auto-compaction-retention",
        "RETENTION",
        "0",
        "History that is kept: hours or a duration such as 30m, or a number of revisions; 0 for all",
    ),
    flag(
        "corrupt-check-time",
        "DURATION",
        "0s",
        "How often the leader compares the members' data; 0 for never",
    ),
    flag(
        "initial-corrupt-check",
        "BOOL",
        "false",
        "Whether a member compares its data with the others' before it serves clients",
    ),
    flag("log-level", "LEVEL", "info", "trace, debug, info, warn or error"),
    flag("log-format", "FORMAT", "text", "text or json, on standard error"),
    flag("config-file", "FILE", "", "TOML file with these flags' names as keys"),
];

/// What our own client reads, which is none of the server's business.
const CLIENT_VARIABLES: &[&str] =
    &["QUORATE_ENDPOINTS", "QUORATE_COMMAND_TIMEOUT", "QUORATE_DIAL_TIMEOUT", "QUORATE_WRITE_OUT"];

/// A place that settings come from; a later one beats an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    File,
    EtcdVariable,
    QuorateVariable,
    CommandLine,
}

/// Settings as they were given, and by whom.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    given: BTreeMap<&'static str, (Origin, String)>,
    problems: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Sources {
    /// Takes a flag of the command line.
    ///
    /// # Errors
    ///
    /// `Unknown` if there is no such flag.
    pub fn flag(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let flag = known(name).ok_or_else(|| unknown("command line".to_owned(), name))?;
        self.put(flag, Origin::CommandLine, value.to_owned());
        Ok(())
    }

    /// Takes all variables that mean something here.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        for (name, value) in variables {
            let Some(name) = name.to_str() else { continue };
            let (origin, rest) = match (name.strip_prefix("QUORATE_"), name.strip_prefix("ETCD_")) {
                (Some(rest), _) => (Origin::QuorateVariable, rest),
                (_, Some(rest)) => (Origin::EtcdVariable, rest),
                _ => continue,
            };
            if value.is_empty() {
                continue;
            }
            let Some(flag) = known(&rest.to_ascii_lowercase().replace('_', "-")) else {
                if !CLIENT_VARIABLES.contains(&name) {
                    let text = format!("{name} is set and has no meaning here");
                    self.warnings.push(text);
                }
                continue;
            };
            match value.into_string() {
                Ok(value) => self.put(flag, origin, value),
                Err(value) => self.problems.push(ConfigError::NotA {
                    origin: name.to_owned(),
                    value: value.to_string_lossy().into_owned(),
                    want: "text in UTF-8",
                }),
            }
        }
    }

    /// Reads the file that `--config-file` or its variable names, if one does. Call it last.
    pub fn file(&mut self) {
        if !self.is_given("config-file") {
            return;
        }
        let path = self.value("config-file").to_owned();
        match std::fs::read_to_string(Path::new(&path)) {
            Ok(text) => self.toml(&path, &text),
            Err(error) => {
                self.problems.push(ConfigError::File { path, why: error.to_string() });
            }
        }
    }

    /// Takes the settings in `text`, which came from the file at `path`.
    pub(super) fn toml(&mut self, path: &str, text: &str) {
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                let before = error.span().and_then(|span| text.get(..span.start));
                let line = before.map_or(1, |before| before.split('\n').count());
                let why = format!(
                    "line {line} is not TOML ({}); write one setting a line, as in: name = \"n1\"",
                    error.message().trim().replace('\n', " ")
                );
                self.problems.push(ConfigError::File { path: path.to_owned(), why });
                return;
            }
        };
        for (key, value) in table {
            let Some(flag) = known(&key).filter(|flag| *flag != "config-file") else {
                self.problems.push(unknown(format!("config file {path}"), &key));
                continue;
            };
            match plain(flag, &value) {
                Some(value) => self.put(flag, Origin::File, value),
                None => self.problems.push(ConfigError::NotA {
                    origin: format!("config file {path}, {key}"),
                    value: format!("a {}", value.type_str()),
                    want: "text, number or list of texts",
                }),
            }
        }
    }

    /// Whether anyone gave it.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// What was given, or the default.
    pub(super) fn value(&self, name: &str) -> &str {
        match self.given.get(name) {
            Some((_, value)) => value,
            None => FLAGS.iter().find(|flag| flag.name == name).map_or("", |flag| flag.default),
        }
    }

    /// Who gave it, for error texts.
    pub(super) fn origin(&self, name: &str) -> String {
        let variable = || name.to_ascii_uppercase().replace('-', "_");
        match self.given.get(name) {
            Some((Origin::QuorateVariable, _)) => format!("QUORATE_{}", variable()),
            Some((Origin::EtcdVariable, _)) => format!("ETCD_{}", variable()),
            Some((Origin::File, _)) => format!("{name} in {}", self.value("config-file")),
            Some((Origin::CommandLine, _)) | None => format!("--{name}"),
        }
    }

    pub(super) fn problems(&self) -> &[ConfigError] {
        &self.problems
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn put(&mut self, name: &'static str, origin: Origin, value: String) {
        let beaten = self.given.get(name).is_none_or(|(held, _)| *held <= origin);
        if beaten {
            self.given.insert(name, (origin, value));
        }
    }
}

fn known(name: &str) -> Option<&'static str> {
    FLAGS.iter().map(|flag| flag.name).find(|known| *known == name)
}

/// Whether it is on or off.
fn is_switch(name: &str) -> bool {
    FLAGS.iter().any(|flag| flag.name == name && flag.value == "BOOL")
}

fn unknown(origin: String, name: &str) -> ConfigError {
    let hint = known(&name.trim_start_matches('-').to_ascii_lowercase().replace('_', "-"));
    ConfigError::Unknown { origin, name: name.to_owned(), hint }
}

/// A value as the command line would have it. `initial-cluster` may be a table of names.
fn plain(flag: &str, value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(is_set) if is_switch(flag) => Some(is_set.to_string()),
        toml::Value::Array(parts) => {
            let parts: Option<Vec<&str>> = parts.iter().map(toml::Value::as_str).collect();
            parts.map(|parts| parts.join(","))
        }
        toml::Value::Table(members) if flag == "initial-cluster" => {
            let mut parts = Vec::new();
            for (name, urls) in members {
                let urls = plain("", urls)?;
                parts.extend(urls.split(',').map(|url| format!("{name}={url}")));
            }
            Some(parts.join(","))
        }
        _ => None,
    }
}
