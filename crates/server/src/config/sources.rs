//! Where settings come from. They stay text until all of them are known.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::{ConfigError, FLAGS, IGNORED};
use crate::boolean::parse_bool;

/// What our own client reads, which is none of the server's business.
const CLIENT_VARIABLES: &[&str] =
    &["QUORATE_ENDPOINTS", "QUORATE_COMMAND_TIMEOUT", "QUORATE_DIAL_TIMEOUT", "QUORATE_WRITE_OUT"];

/// Settings of etcd's that keep others out, or say where data are, and what each is where it does
/// neither. A server that passes one over does something else than whoever set it believes.
const NOT_PASSED_OVER: &[(&str, &str)] = &[
    ("auth-token", "simple"),
    ("auto-tls", "false"),
    ("cert-file", ""),
    ("cipher-suites", ""),
    ("client-cert-allowed-hostname", ""),
    ("client-cert-auth", "false"),
    ("client-crl-file", ""),
    ("host-whitelist", "*"),
    ("key-file", ""),
    ("peer-auto-tls", "false"),
    ("peer-cert-allowed-cn", ""),
    ("peer-cert-allowed-hostname", ""),
    ("peer-cert-file", ""),
    ("peer-client-cert-auth", "false"),
    ("peer-crl-file", ""),
    ("peer-key-file", ""),
    ("peer-trusted-ca-file", ""),
    ("tls-min-version", ""),
    ("trusted-ca-file", ""),
    ("wal-dir", ""),
];

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
        if is_ignored(name) {
            self.warnings.push(changes_nothing(format_args!("--{name}")));
            return Ok(());
        }
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
            let setting = rest.to_ascii_lowercase().replace('_', "-");
            let Some(flag) = known(&setting) else {
                let without = NOT_PASSED_OVER.iter().find(|(other, _)| *other == setting);
                if without.is_some_and(|(_, harmless)| !says(&value, harmless)) {
                    self.problems.push(unknown("environment".to_owned(), name));
                } else if !CLIENT_VARIABLES.contains(&name) {
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
            if is_ignored(&key) {
                self.warnings.push(changes_nothing(format_args!("config file {path}, {key}")));
                continue;
            }
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

/// Whether a variable says what is said here: yes and no are said in several words.
fn says(value: &OsString, word: &str) -> bool {
    let same = |value: &str| parse_bool(value).is_some() && parse_bool(value) == parse_bool(word);
    value == word || value.to_str().is_some_and(same)
}

fn known(name: &str) -> Option<&'static str> {
    FLAGS.iter().map(|flag| flag.name).find(|known| *known == name)
}

/// Whether it is a flag of etcd that changes nothing here.
fn is_ignored(name: &str) -> bool {
    IGNORED.iter().any(|flag| flag.name == name)
}

fn changes_nothing(origin: std::fmt::Arguments<'_>) -> String {
    format!("{origin} is one of etcd's and changes nothing here")
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
