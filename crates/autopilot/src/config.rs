//! What an operator sets. The application answers with it every time it is asked, so that a change
//! takes effect at once.

use std::collections::BTreeSet;

use crate::server::{Ext, ServerId};
use crate::time::Span;

/// Settings that may change at any time. The default is Consul's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether dead servers are removed at all.
    pub cleanup_dead_servers: bool,
    /// A server that was out of contact with the leader for longer is unhealthy.
    pub last_contact_threshold: Span,
    /// A server further behind the leader, in entries, is unhealthy.
    pub max_trailing_logs: u64,
    /// Removals never go below this many potential voters; 0 is no floor.
    pub min_quorum: u64,
    /// How long a server must have been healthy without a break before it is promoted.
    pub server_stabilization_time: Span,
    /// Servers that are left as they are: they keep or lack their votes, are not removed, and leadership
    /// is neither handed to them nor taken from them. Beyond the reference.
    pub held: BTreeSet<ServerId>,
    /// For the promoter; see [`PolicyConfig`](crate::PolicyConfig) for what the built-in one reads.
    pub ext: Option<Ext>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cleanup_dead_servers: true,
            last_contact_threshold: Span::from_millis(200),
            max_trailing_logs: 250,
            min_quorum: 0,
            server_stabilization_time: Span::from_secs(10),
            held: BTreeSet::new(),
            ext: None,
        }
    }
}

/// What is wrong with a setting, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct ConfigError {
    /// Its name, as the operator writes it.
    pub field: String,
    /// What is wrong, with the value and what would help.
    pub why: String,
}

impl ConfigError {
    /// `why` is wrong with `field`.
    pub fn new(field: &str, why: impl Into<String>) -> ConfigError {
        ConfigError { field: field.to_owned(), why: why.into() }
    }
}

impl Config {
    /// Whether the settings make sense together, for a door where an operator sets them.
    ///
    /// The engine itself takes any values: it must go on with what the application answers.
    ///
    /// # Errors
    ///
    /// The first setting that is contradictory: a threshold under which no server is ever healthy, a
    /// negative time, or removal of dead servers without a floor of at least one.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.last_contact_threshold <= Span::ZERO {
            let why = format!(
                "{} is not more than 0s: no follower would ever be healthy",
                self.last_contact_threshold
            );
            return Err(ConfigError::new("LastContactThreshold", why));
        }
        if self.server_stabilization_time.is_negative() {
            let why = format!("{} is less than no time", self.server_stabilization_time);
            return Err(ConfigError::new("ServerStabilizationTime", why));
        }
        if self.cleanup_dead_servers && self.min_quorum == 0 {
            let why = "CleanupDeadServers is on and nothing stops removals from shrinking the \
                       cluster; set it to at least 1, better 3";
            return Err(ConfigError::new("MinQuorum", why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_consuls() {
        let config = Config::default();
        assert!(config.cleanup_dead_servers);
        assert_eq!(config.last_contact_threshold.to_string(), "200ms");
        assert_eq!((config.max_trailing_logs, config.min_quorum), (250, 0));
        assert_eq!(config.server_stabilization_time.to_string(), "10s");
        assert_eq!((config.held.len(), config.ext), (0, None));
    }

    #[test]
    fn contradictory_settings_are_refused_by_name() {
        let good = Config { min_quorum: 3, ..Config::default() };
        assert_eq!(good.check(), Ok(()));
        assert_eq!(Config { cleanup_dead_servers: false, ..Config::default() }.check(), Ok(()));
        for (config, field) in [
            (Config { last_contact_threshold: Span::ZERO, ..good.clone() }, "LastContactThreshold"),
            (Config { last_contact_threshold: Span(-1), ..good.clone() }, "LastContactThreshold"),
            (
                Config { server_stabilization_time: Span(-1), ..good.clone() },
                "ServerStabilizationTime",
            ),
            (Config { min_quorum: 0, ..good.clone() }, "MinQuorum"),
        ] {
            let error = config.check().unwrap_err();
            assert_eq!(error.field, field);
            assert!(error.to_string().starts_with(&format!("{field}: ")), "{error}");
        }
    }
}
