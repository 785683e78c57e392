//! What the built-in policies are told, in `Config::ext`.

use serde_json::{Map, Value, json};

use crate::config::ConfigError;
use crate::server::{Ext, Server};

/// Settings of the built-in policies. The default switches zones off and migration on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyConfig {
    /// The tag whose value is a server's zone. Empty: there are no zones.
    pub redundancy_zone_tag: String,
    /// Whether newer servers are promoted like any others.
    pub disable_upgrade_migration: bool,
    /// The tag with the version that counts for a migration. Empty: the server's own version.
    pub upgrade_version_tag: String,
    /// The tag that is `true` on a read replica. Empty: there are none.
    pub read_replica_tag: String,
    /// Without zones: promote only while there are fewer voters. 0 is no limit.
    pub target_voters: u64,
}

impl Default for PolicyConfig {
    fn default() -> PolicyConfig {
        PolicyConfig {
            redundancy_zone_tag: String::new(),
            disable_upgrade_migration: false,
            upgrade_version_tag: String::new(),
            read_replica_tag: "read_replica".to_owned(),
            target_voters: 0,
        }
    }
}

impl PolicyConfig {
    /// The settings in `ext`; those that are missing have their defaults.
    ///
    /// # Errors
    ///
    /// A setting of the wrong type, one that does not exist, one tag for two purposes, or a number of
    /// voters together with zones.
    pub fn from_ext(ext: Option<&Ext>) -> Result<PolicyConfig, ConfigError> {
        let object = match ext {
            None | Some(Value::Null) => &Map::new(),
            Some(Value::Object(object)) => object,
            Some(_) => {
                return Err(ConfigError::new("Ext", "is no object with settings of policies"));
            }
        };
        let mut config = PolicyConfig::default();
        for (name, value) in object {
            let text = || {
                let text = value.as_str().map(str::to_owned);
                text.ok_or_else(|| ConfigError::new(name, format!("is {value} and not a text")))
            };
            let truth = || {
                let why = || ConfigError::new(name, format!("is {value} and not true or false"));
                value.as_bool().ok_or_else(why)
            };
            let count = || {
                let why =
                    || ConfigError::new(name, format!("is {value} and not a number of voters"));
                value.as_u64().ok_or_else(why)
            };
            match name.as_str() {
                "redundancy_zone_tag" => config.redundancy_zone_tag = text()?,
                "disable_upgrade_migration" => config.disable_upgrade_migration = truth()?,
                "upgrade_version_tag" => config.upgrade_version_tag = text()?,
                "read_replica_tag" => config.read_replica_tag = text()?,
                "target_voters" => config.target_voters = count()?,
                _ => return Err(ConfigError::new(name, "is no setting of the policies")),
            }
        }
        config.check()?;
        Ok(config)
    }

    /// The settings as they stand in `Config::ext`.
    pub fn to_ext(&self) -> Ext {
        json!({
            "redundancy_zone_tag": self.redundancy_zone_tag,
            "disable_upgrade_migration": self.disable_upgrade_migration,
            "upgrade_version_tag": self.upgrade_version_tag,
            "read_replica_tag": self.read_replica_tag,
            "target_voters": self.target_voters,
        })
    }

    fn check(&self) -> Result<(), ConfigError> {
        let tags = [
            ("redundancy_zone_tag", &self.redundancy_zone_tag),
            ("upgrade_version_tag", &self.upgrade_version_tag),
            ("read_replica_tag", &self.read_replica_tag),
        ];
        for (number, (name, tag)) in tags.iter().enumerate() {
            let earlier = tags[..number].iter().find(|(_, earlier)| earlier == tag);
            if let Some((other, _)) = earlier.filter(|_| !tag.is_empty()) {
                return Err(ConfigError::new(name, format!("is {tag:?}, as {other} is already")));
            }
        }
        if 0 < self.target_voters && self.has_zones() {
            let why = format!("is {} with zones on, which have a voter each", self.target_voters);
            return Err(ConfigError::new("target_voters", why));
        }
        Ok(())
    }

    pub(super) fn has_zones(&self) -> bool {
        !self.redundancy_zone_tag.is_empty()
    }

    /// How many are to vote, if that is limited.
    pub(super) fn voters_max(&self) -> Option<usize> {
        let target = usize::try_from(self.target_voters).unwrap_or(usize::MAX);
        Some(target).filter(|target| 0 < *target && !self.has_zones())
    }

    pub(super) fn zone<'s>(&self, server: &'s Server) -> Option<&'s str> {
        if self.has_zones() { server.tag(&self.redundancy_zone_tag) } else { None }
    }

    pub(super) fn is_replica(&self, server: &Server) -> bool {
        !self.read_replica_tag.is_empty() && server.tag(&self.read_replica_tag) == Some("true")
    }

    /// The version that counts, as text; may be empty or no version at all.
    pub(super) fn version<'s>(&self, server: &'s Server) -> &'s str {
        match self.upgrade_version_tag.as_str() {
            "" => &server.version,
            tag => server.tag(tag).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_back_as_they_were_written() {
        let read = |value: Value| PolicyConfig::from_ext(Some(&value));
        assert_eq!(PolicyConfig::from_ext(None), Ok(PolicyConfig::default()));
        assert_eq!(read(Value::Null), Ok(PolicyConfig::default()));
        assert_eq!(read(json!({})), Ok(PolicyConfig::default()));
        let config = PolicyConfig {
            redundancy_zone_tag: "zone".into(),
            disable_upgrade_migration: true,
            upgrade_version_tag: "build".into(),
            read_replica_tag: String::new(),
            target_voters: 0,
        };
        assert_eq!(read(config.to_ext()), Ok(config));
    }

    #[test]
    fn unreadable_and_contradictory_settings_are_refused_by_name() {
        for (value, field) in [
            (json!("zone"), "Ext"),
            (json!([]), "Ext"),
            (json!({"redundancy_zone_tag": 3}), "redundancy_zone_tag"),
            (json!({"disable_upgrade_migration": "no"}), "disable_upgrade_migration"),
            (json!({"upgrade_version_tag": null}), "upgrade_version_tag"),
            (json!({"read_replica_tag": true}), "read_replica_tag"),
            (json!({"target_voters": -1}), "target_voters"),
            (json!({"target_voters": 2.5}), "target_voters"),
            (json!({"redundancy_zone": "zone"}), "redundancy_zone"),
            (
                json!({"upgrade_version_tag": "a", "redundancy_zone_tag": "a"}),
                "upgrade_version_tag",
            ),
            (json!({"redundancy_zone_tag": "read_replica"}), "read_replica_tag"),
            (json!({"redundancy_zone_tag": "zone", "target_voters": 3}), "target_voters"),
        ] {
            assert_eq!(PolicyConfig::from_ext(Some(&value)).unwrap_err().field, field, "{value}");
        }
    }
}
