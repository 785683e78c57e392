//! All that an operator sets for a cluster, as text and back: [`Config`], the policies' settings, and
//! the spans of the strict rules. One object of JSON, whose members have these names and no others.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::adapter::node_id;
use crate::config::{Config, ConfigError};
use crate::policy::PolicyConfig;
use crate::server::ServerId;
use crate::strict::Strictness;
use crate::time::Span;

/// What is set. It is replicated, so every leader goes by the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Of the engine; its `ext` is not used.
    pub config: Config,
    /// Of the built-in policies.
    pub policy: PolicyConfig,
    /// See [`Strictness::dead_server_threshold`].
    pub dead_server_threshold: Span,
    /// See [`Strictness::join_grace`].
    pub join_grace: Span,
    /// Whether rounds and removals do not happen: the members are watched and left alone.
    pub is_paused: bool,
}

impl Default for Settings {
    /// The defaults of the parts, but for these: nobody is removed unless an operator asks for it, and then
    /// at least three are left; newer servers do not take over from older ones by themselves either; and
    /// who is no more than 10,000 entries behind is healthy.
    fn default() -> Settings {
        let strictness = Strictness::server();
        Settings {
            config: Config {
                cleanup_dead_servers: false,
                min_quorum: 3,
                // A busy leader writes Consul's 250 in a few milliseconds.
                max_trailing_logs: 10_000,
                ..Config::default()
            },
            policy: PolicyConfig { disable_upgrade_migration: true, ..PolicyConfig::default() },
            dead_server_threshold: strictness.dead_server_threshold,
            join_grace: strictness.join_grace,
            is_paused: false,
        }
    }
}

/// What the value of a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Truth,
    Count,
    Span,
    Text,
    Ids,
}

const FIELDS: [(&str, Kind); 14] = [
    ("paused", Kind::Truth),
    ("held_servers", Kind::Ids),
    ("cleanup_dead_servers", Kind::Truth),
    ("last_contact_threshold", Kind::Span),
    ("max_trailing_logs", Kind::Count),
    ("min_quorum", Kind::Count),
    ("server_stabilization_time", Kind::Span),
    ("dead_server_threshold", Kind::Span),
    ("join_grace", Kind::Span),
    ("redundancy_zone_tag", Kind::Text),
    ("disable_upgrade_migration", Kind::Truth),
    ("upgrade_version_tag", Kind::Text),
    ("read_replica_tag", Kind::Text),
    ("target_voters", Kind::Count),
];

/// Members that are removed sooner after they died may only have been restarted.
const DEAD_MIN: Span = Span::from_secs(300);
/// Who is stable sooner was hardly looked at, and who is so only then waits longer than anybody means it to.
const STABLE_MIN: Span = Span::from_secs(1);
const STABLE_MAX: Span = Span::from_secs(3600);
/// Who is healthy for longer without a word from the leader may be long dead.
const CONTACT_MAX: Span = Span::from_secs(60);
/// The longest name of a tag.
const TEXT_BYTES_MAX: usize = 255;
/// Members that can be held at one time.
const HELD_MAX: usize = 128;

impl Settings {
    /// The settings in `json`, an object; those that are missing have their defaults.
    ///
    /// # Errors
    ///
    /// As [`Settings::from_object`]. A text that is no object has no field to name.
    pub fn from_json(json: &[u8]) -> Result<Settings, ConfigError> {
        Settings::from_object(&read_object(json)?)
    }

    /// The settings in `object`; those that are missing have their defaults.
    ///
    /// # Errors
    ///
    /// As [`Settings::with`], but that fewer voters than the floor are taken: what is set, or a member is told to
    /// begin with, may be of a build that took them.
    pub fn from_object(object: &Map<String, Value>) -> Result<Settings, ConfigError> {
        Settings::default().changed(object)
    }

    /// These settings with some of them changed, checked together. Fewer voters than the floor are refused to
    /// whoever changes one of the two: any other change has nothing to do with it.
    ///
    /// # Errors
    ///
    /// The first setting that does not exist, is of the wrong type, or contradicts another.
    pub fn with(&self, changes: &Map<String, Value>) -> Result<Settings, ConfigError> {
        let changed = self.changed(changes)?;
        let (target, floor) = (changed.policy.target_voters, changed.config.min_quorum);
        let names = |name: &str| changes.contains_key(name);
        let names_one = names("target_voters") || names("min_quorum");
        if names_one && 0 < target && target < floor {
            let why = format!(
                "is {target}, and min_quorum is {floor}, below which no voter goes: set target_voters to at \
                 least {floor}, or min_quorum to no more than {target}"
            );
            return Err(ConfigError::new("target_voters", why));
        }
        Ok(changed)
    }

    fn changed(&self, changes: &Map<String, Value>) -> Result<Settings, ConfigError> {
        let mut changed = self.clone();
        for (name, value) in changes {
            let Some((name, kind)) = FIELDS.into_iter().find(|(known, _)| known == name) else {
                return Err(unknown(name));
            };
            changed.set(name, kind, value)?;
        }
        changed.check()?;
        Ok(changed)
    }

    /// A change of one setting as an operator writes it: `min_quorum=3`, also with dashes.
    ///
    /// # Errors
    ///
    /// When there is no `=`, no such setting, or a value of another type.
    pub fn change_of(text: &str) -> Result<(String, Value), ConfigError> {
        let Some((name, value)) = text.split_once('=') else {
            return Err(ConfigError::new(text, "has no value; write NAME=VALUE"));
        };
        let (name, value) = (name.trim().replace('-', "_"), value.trim());
        let Some((_, kind)) = FIELDS.iter().find(|(known, _)| *known == name) else {
            return Err(unknown(&name));
        };
        let value = match kind {
            Kind::Span | Kind::Text => value.into(),
            Kind::Ids => {
                let ids = value.split(',').map(str::trim).filter(|id| !id.is_empty());
                ids.map(Value::from).collect()
            }
            Kind::Truth => match value {
                "true" => true.into(),
                "false" => false.into(),
                _ => return Err(mistyped(&name, *kind, &value.into())),
            },
            Kind::Count => match value.parse::<u64>() {
                Ok(count) => count.into(),
                Err(_) => return Err(mistyped(&name, *kind, &value.into())),
            },
        };
        Ok((name, value))
    }

    /// Changes of several settings, each as [`Settings::change_of`] takes it.
    ///
    /// # Errors
    ///
    /// The same, and a setting that is named twice.
    pub fn changes_of<'t>(
        texts: impl Iterator<Item = &'t str>,
    ) -> Result<Map<String, Value>, ConfigError> {
        let mut changes = Map::new();
        for text in texts {
            let (name, value) = Settings::change_of(text)?;
            if changes.contains_key(&name) {
                return Err(ConfigError::new(&name, "is named twice"));
            }
            changes.insert(name, value);
        }
        Ok(changes)
    }

    /// All settings, as an object; [`Settings::from_json`] reads it.
    pub fn to_json(&self) -> Map<String, Value> {
        let value = |name| match name {
            "cleanup_dead_servers" => self.config.cleanup_dead_servers.into(),
            "last_contact_threshold" => self.config.last_contact_threshold.to_string().into(),
            "max_trailing_logs" => self.config.max_trailing_logs.into(),
            "min_quorum" => self.config.min_quorum.into(),
            "server_stabilization_time" => self.config.server_stabilization_time.to_string().into(),
            "dead_server_threshold" => self.dead_server_threshold.to_string().into(),
            "join_grace" => self.join_grace.to_string().into(),
            "redundancy_zone_tag" => self.policy.redundancy_zone_tag.clone().into(),
            "disable_upgrade_migration" => self.policy.disable_upgrade_migration.into(),
            "upgrade_version_tag" => self.policy.upgrade_version_tag.clone().into(),
            "read_replica_tag" => self.policy.read_replica_tag.clone().into(),
            "target_voters" => self.policy.target_voters.into(),
            "paused" => self.is_paused.into(),
            "held_servers" => self.config.held.iter().map(|id| Value::from(id.as_str())).collect(),
            _ => Value::Null,
        };
        FIELDS.into_iter().map(|(name, _)| (name.to_owned(), value(name))).collect()
    }

    /// These settings with a member held, or not held any more.
    ///
    /// # Errors
    ///
    /// An id that is none of a member's, and too many of them.
    pub fn with_held(&self, id: &ServerId, is_held: bool) -> Result<Settings, ConfigError> {
        let mut changed = self.clone();
        match is_held {
            true => _ = changed.config.held.insert(id.clone()),
            false => _ = changed.config.held.remove(id),
        }
        changed.check()?;
        Ok(changed)
    }

    /// What is allowed and may well be a mistake, each with the name of its setting.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.is_paused {
            let why = "paused: nobody is promoted, demoted, replaced or removed until it is false";
            warnings.push(why.to_owned());
        }
        let (target, floor) = (self.policy.target_voters, self.config.min_quorum);
        if target == 1 {
            warnings.push("target_voters: with 1, that one may not fail".to_owned());
        } else if target.is_multiple_of(2) && 0 < target {
            warnings.push(format!(
                "target_voters: with {target} no more may fail than with {}",
                target - 1
            ));
        }
        let stable = self.config.server_stabilization_time;
        if stable < STABLE_MIN {
            warnings.push(format!(
                "server_stabilization_time: {stable} is less than {STABLE_MIN}: a member that comes and goes \
                 gets a vote, and one that is only restarted may lose it"
            ));
        } else if STABLE_MAX < stable {
            warnings.push(format!(
                "server_stabilization_time: {stable} is more than {STABLE_MAX}: for so long nobody is promoted, \
                 and no failed voter replaced"
            ));
        }
        let contact = self.config.last_contact_threshold;
        if CONTACT_MAX < contact {
            warnings.push(format!(
                "last_contact_threshold: {contact} is more than {CONTACT_MAX}: for so long a member that is \
                 gone counts as healthy"
            ));
        }
        if 0 < target && target < floor {
            warnings.push(format!(
                "target_voters: {target} are less than min_quorum, {floor}, below which no voter goes: set one of \
                 them anew"
            ));
        }
        let dead = self.dead_server_threshold;
        if dead < DEAD_MIN {
            let when = match self.config.cleanup_dead_servers {
                true => "",
                false => ", once cleanup_dead_servers is on",
            };
            warnings.push(format!(
                "dead_server_threshold: {dead} is less than {DEAD_MIN}: a member that is only restarted may \
                 be removed for good{when}; it could come back only as a new one, with an empty directory"
            ));
        }
        if self.config.cleanup_dead_servers && self.config.min_quorum < 3 {
            let floor = self.config.min_quorum;
            warnings.push(format!(
                "min_quorum: with {floor}, removals may leave a cluster in which no voter may fail; 3 is the \
                 least that survives a failure"
            ));
        }
        warnings
    }

    /// As the engine takes them.
    pub fn config(&self) -> Config {
        Config { ext: Some(self.policy.to_ext()), ..self.config.clone() }
    }

    /// The server's strict rules with these spans.
    pub fn strictness(&self) -> Strictness {
        Strictness {
            dead_server_threshold: self.dead_server_threshold,
            join_grace: self.join_grace,
            ..Strictness::server()
        }
    }

    fn set(&mut self, name: &str, kind: Kind, value: &Value) -> Result<(), ConfigError> {
        let wrong = || mistyped(name, kind, value);
        let truth = || value.as_bool().ok_or_else(wrong);
        let count = || value.as_u64().ok_or_else(wrong);
        let span = || {
            let text = value.as_str().ok_or_else(wrong)?;
            text.parse::<Span>().map_err(|_| wrong())
        };
        let text = || {
            let text = value.as_str().ok_or_else(wrong)?;
            if TEXT_BYTES_MAX < text.len() {
                let why = format!("is {} bytes long; {TEXT_BYTES_MAX} are allowed", text.len());
                return Err(ConfigError::new(name, why));
            }
            Ok(text.to_owned())
        };
        match name {
            "cleanup_dead_servers" => self.config.cleanup_dead_servers = truth()?,
            "last_contact_threshold" => self.config.last_contact_threshold = span()?,
            "max_trailing_logs" => self.config.max_trailing_logs = count()?,
            "min_quorum" => self.config.min_quorum = count()?,
            "server_stabilization_time" => self.config.server_stabilization_time = span()?,
            "dead_server_threshold" => self.dead_server_threshold = span()?,
            "join_grace" => self.join_grace = span()?,
            "redundancy_zone_tag" => self.policy.redundancy_zone_tag = text()?,
            "disable_upgrade_migration" => self.policy.disable_upgrade_migration = truth()?,
            "upgrade_version_tag" => self.policy.upgrade_version_tag = text()?,
            "read_replica_tag" => self.policy.read_replica_tag = text()?,
            "target_voters" => self.policy.target_voters = count()?,
            "paused" => self.is_paused = truth()?,
            "held_servers" => {
                let ids = value.as_array().ok_or_else(wrong)?.iter();
                let ids = ids.map(|id| id.as_str().map(ServerId::from).ok_or_else(wrong));
                self.config.held = ids.collect::<Result<BTreeSet<ServerId>, ConfigError>>()?;
            }
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let named_here = |error: ConfigError| ConfigError {
            field: snake_case(&error.field),
            why: snake_case_words(&error.why),
        };
        self.config.check().map_err(named_here)?;
        let held = &self.config.held;
        if HELD_MAX < held.len() {
            let why = format!("are {}; {HELD_MAX} can be held at one time", held.len());
            return Err(ConfigError::new("held_servers", why));
        }
        if let Some(id) = held.iter().find(|id| node_id(id).is_none()) {
            let why = format!("{:?} is no id of a member, such as 8e9e05c52164694d", id.as_str());
            return Err(ConfigError::new("held_servers", why));
        }
        PolicyConfig::from_ext(Some(&self.policy.to_ext()))?;
        for (name, span) in
            [("dead_server_threshold", self.dead_server_threshold), ("join_grace", self.join_grace)]
        {
            if span.is_negative() {
                return Err(ConfigError::new(name, format!("{span} is less than no time")));
            }
        }
        Ok(())
    }
}

/// An object of JSON, whatever is in it.
///
/// # Errors
///
/// When it is none.
pub fn read_object(json: &[u8]) -> Result<Map<String, Value>, ConfigError> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ConfigError::new("settings", "are no object of JSON")),
        Err(error) => Err(ConfigError::new("settings", format!("are no JSON: {error}"))),
    }
}

fn unknown(name: &str) -> ConfigError {
    let mut why = "is no setting of autopilot; there are ".to_owned();
    for (number, (known, _)) in FIELDS.iter().enumerate() {
        let _ = write!(why, "{}{known}", if number == 0 { "" } else { ", " });
    }
    ConfigError::new(name, why)
}

fn mistyped(name: &str, kind: Kind, value: &Value) -> ConfigError {
    let want = match kind {
        Kind::Truth => "true or false",
        Kind::Count => "a whole number",
        Kind::Span => "a span of time such as 200ms, 10s or 24h",
        Kind::Text => "a text",
        Kind::Ids => "a list of members' ids",
    };
    ConfigError::new(name, format!("is {value} and not {want}"))
}

/// `MinQuorum` as it is written here.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && 0 < at {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn snake_case_words(text: &str) -> String {
    let is_name = |word: &str| FIELDS.iter().any(|(name, _)| *name == snake_case(word));
    let words = text.split(' ').map(|word| match is_name(word) {
        true => snake_case(word),
        false => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_from_their_text() {
        let settings = Settings::default();
        let json = Value::Object(settings.to_json()).to_string();
        assert_eq!(Settings::from_json(json.as_bytes()), Ok(settings.clone()));
        assert_eq!(Settings::from_json(b"{}"), Ok(settings.clone()));
        assert_eq!(settings.to_json().len(), FIELDS.len());
        assert!(settings.to_json().values().all(|value| !value.is_null()));
        for (change, name, want) in [
            ("min-quorum=5", "min_quorum", "5"),
            ("cleanup_dead_servers = true", "cleanup_dead_servers", "true"),
            ("last-contact-threshold=1500ms", "last_contact_threshold", "\"1.5s\""),
            ("dead_server_threshold=0", "dead_server_threshold", "\"0s\""),
            ("redundancy-zone-tag=zone", "redundancy_zone_tag", "\"zone\""),
            ("read_replica_tag=", "read_replica_tag", "\"\""),
            ("paused=true", "paused", "true"),
            ("held-servers=9, 8e9e,9", "held_servers", "[\"8e9e\",\"9\"]"),
        ] {
            let (field, value) = Settings::change_of(change).unwrap();
            assert_eq!(field, name);
            let changed = settings.with(&[(field, value)].into_iter().collect()).unwrap();
            assert_eq!(changed.to_json()[name].to_string(), want, "{change}");
            assert_ne!(changed, settings);
        }
    }

    #[test]
    fn members_are_held_and_released() {
        let (one, two) = (ServerId::from("8e9e"), ServerId::from("f"));
        let held = Settings::default().with_held(&one, true).unwrap().with_held(&two, true);
        let held = held.unwrap();
        assert!(held.config().held.contains("8e9e"), "the engine knows");
        assert_eq!(held.to_json()["held_servers"].to_string(), "[\"8e9e\",\"f\"]");
        let released = held.with_held(&two, false).unwrap().with_held(&two, false).unwrap();
        assert_eq!(released.to_json()["held_servers"].to_string(), "[\"8e9e\"]");
        assert_eq!(held.with_held(&"n3".into(), true).unwrap_err().field, "held_servers");
    }

    #[test]
    fn what_may_be_a_mistake_is_said_by_name() {
        for (json, names) in [
            ("{}", &[][..]),
            ("{\"cleanup_dead_servers\":true}", &[]),
            ("{\"dead_server_threshold\":\"5m\"}", &[]),
            ("{\"dead_server_threshold\":\"299s\"}", &["dead_server_threshold: 4m59s"]),
            ("{\"dead_server_threshold\":\"0s\"}", &["dead_server_threshold: 0s"]),
            ("{\"min_quorum\":2}", &[]),
            ("{\"paused\":true}", &["paused: nobody"]),
            ("{\"target_voters\":1,\"min_quorum\":1}", &["target_voters: with 1,"]),
            (
                "{\"target_voters\":2,\"min_quorum\":2}",
                &["target_voters: with 2 no more may fail than with 1"],
            ),
            ("{\"target_voters\":3}", &[]),
            ("{\"target_voters\":4}", &["target_voters: with 4 no more may fail than with 3"]),
            ("{\"server_stabilization_time\":\"0s\"}", &["server_stabilization_time: 0s is less"]),
            ("{\"server_stabilization_time\":\"1s\",\"last_contact_threshold\":\"1m\"}", &[]),
            (
                "{\"server_stabilization_time\":\"61m\"}",
                &["server_stabilization_time: 1h1m0s is more"],
            ),
            ("{\"last_contact_threshold\":\"61s\"}", &["last_contact_threshold: 1m1s is more"]),
            (
                "{\"target_voters\":3,\"min_quorum\":5}",
                &["target_voters: 3 are less than min_quorum, 5"],
            ),
            (
                "{\"min_quorum\":2,\"cleanup_dead_servers\":true,\"dead_server_threshold\":\"1s\"}",
                &["dead_server_threshold: 1s", "min_quorum: with 2"],
            ),
        ] {
            let warnings = Settings::from_json(json.as_bytes()).unwrap().warnings();
            assert_eq!(warnings.len(), names.len(), "{json}: {warnings:?}");
            for (warning, name) in warnings.iter().zip(names) {
                assert!(warning.starts_with(name), "{json}: {warning}");
            }
        }
        assert!(!Settings::default().config.cleanup_dead_servers, "nobody is removed unasked");
    }

    #[test]
    fn fewer_voters_than_the_floor_are_refused_and_read_all_the_same() {
        let change = |of: &Settings, texts: &[&str]| {
            of.with(&Settings::changes_of(texts.iter().copied()).unwrap())
        };
        let of_old = Settings::from_json(b"{\"target_voters\":3,\"min_quorum\":5}").unwrap();
        for (settings, texts) in [
            (&Settings::default(), &["target-voters=2"][..]),
            (&Settings::default(), &["target-voters=4", "min-quorum=5"]),
            (&change(&Settings::default(), &["target-voters=3"]).unwrap(), &["min-quorum=4"]),
            (&of_old, &["min-quorum=4"]),
            (&of_old, &["target-voters=4", "paused=true"]),
        ] {
            let error = change(settings, texts).unwrap_err();
            assert_eq!(error.field, "target_voters", "{texts:?}");
            assert!(error.why.contains("min_quorum"), "{error}");
        }
        for texts in
            [&["min-quorum=3"][..], &["target-voters=5"], &["target-voters=0"], &["paused=true"]]
        {
            assert!(change(&of_old, texts).is_ok(), "{texts:?}");
        }
        assert!(of_old.with_held(&"7".into(), true).is_ok(), "a hold has nothing to do with it");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (json, field) in [
            ("", "settings"),
            ("[]", "settings"),
            ("{\"min_quorum\":3", "settings"),
            ("{\"min_quorums\":3}", "min_quorums"),
            ("{\"min_quorum\":\"3\"}", "min_quorum"),
            ("{\"min_quorum\":-1}", "min_quorum"),
            ("{\"min_quorum\":0,\"cleanup_dead_servers\":true}", "min_quorum"),
            ("{\"cleanup_dead_servers\":1}", "cleanup_dead_servers"),
            ("{\"last_contact_threshold\":200}", "last_contact_threshold"),
            ("{\"last_contact_threshold\":\"200\"}", "last_contact_threshold"),
            ("{\"last_contact_threshold\":\"0s\"}", "last_contact_threshold"),
            ("{\"server_stabilization_time\":\"-1s\"}", "server_stabilization_time"),
            ("{\"dead_server_threshold\":\"-1s\"}", "dead_server_threshold"),
            ("{\"join_grace\":\"-1s\"}", "join_grace"),
            ("{\"redundancy_zone_tag\":\"z\",\"target_voters\":3}", "target_voters"),
            ("{\"redundancy_zone_tag\":\"z\",\"read_replica_tag\":\"z\"}", "read_replica_tag"),
            ("{\"read_replica_tag\":null}", "read_replica_tag"),
            ("{\"paused\":\"yes\"}", "paused"),
            ("{\"held_servers\":\"8e9e\"}", "held_servers"),
            ("{\"held_servers\":[8]}", "held_servers"),
            ("{\"held_servers\":[\"n3\"]}", "held_servers"),
            ("{\"held_servers\":[\"8E9E\"]}", "held_servers"),
            ("{\"held_servers\":[\"0\"]}", "held_servers"),
            ("{\"held_servers\":[\"\"]}", "held_servers"),
        ] {
            let error = Settings::from_json(json.as_bytes()).unwrap_err();
            assert_eq!(error.field, field, "{json}: {error}");
        }
        let long = format!("{{\"read_replica_tag\":\"{}\"}}", "x".repeat(256));
        assert_eq!(Settings::from_json(long.as_bytes()).unwrap_err().field, "read_replica_tag");
        for (text, field) in [
            ("min_quorum", "min_quorum"),
            ("min_quorum=three", "min_quorum"),
            ("=3", ""),
            ("cleanup_dead_servers=yes", "cleanup_dead_servers"),
            ("pause=true", "pause"),
        ] {
            assert_eq!(Settings::change_of(text).unwrap_err().field, field, "{text}");
        }
        let twice =
            Settings::changes_of(["min-quorum=3", "paused=true", "min_quorum=4"].into_iter());
        assert_eq!(twice.unwrap_err().to_string(), "min_quorum: is named twice");
        let once = Settings::changes_of(["min-quorum=3", "paused=true"].into_iter()).unwrap();
        assert_eq!(once.len(), 2);
        let many: Vec<String> = (1..=129).map(|id| format!("\"{id:x}\"")).collect();
        let many = format!("{{\"held_servers\":[{}]}}", many.join(","));
        assert_eq!(Settings::from_json(many.as_bytes()).unwrap_err().field, "held_servers");
        let error = Settings::from_json(b"{\"min_quorum\":0,\"cleanup_dead_servers\":true}")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("min_quorum: cleanup_dead_servers is on"), "{error}");
    }
}
