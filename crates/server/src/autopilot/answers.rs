//! What operators see of autopilot, and what they set. Only the leader has a state: another member asks
//! it. What is set is replicated, so that every member knows.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_autopilot::adapter::server_id;
use quorate_autopilot::{
    ConfigError, ServerId, Settings, Span, State, is_older_version, read_object, write_state,
};
use quorate_kv::{Command, KvError, Member, Response, Setting};
use quorate_proto::quoratepb::autopilot_client::AutopilotClient;
use quorate_proto::quoratepb::{AutopilotHealthRequest, AutopilotStateRequest};
use quorate_types::{Index, NodeId};
use serde_json::{Map, Value, json};
use tonic::Status;
use tonic::transport::Channel;

use super::span;
use crate::local::Local;
use crate::way::{Way, is_passing};
use crate::{Engine, status};

/// The longest settings that are taken, as text.
const SETTINGS_BYTES_MAX: usize = 64 << 10;

/// All settings, and which entries made and changed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) json: String,
    pub(crate) created: u64,
    pub(crate) modified: u64,
    /// What is allowed and may well be a mistake.
    pub(crate) warnings: Vec<String>,
}

/// A cluster in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) is_healthy: bool,
    pub(crate) json: String,
}

/// Who knows.
pub(super) enum Asked {
    /// This member, which leads.
    Here(Arc<State>),
    /// The leader.
    There,
}

impl Local {
    /// The cluster as its leader sees it, as the reference writes it.
    pub(crate) async fn autopilot_state(&self, is_passed_on: bool) -> Result<String, Status> {
        let asked = async {
            loop {
                if let Asked::Here(state) = self.ask_autopilot(is_passed_on).await? {
                    return Ok(write_state(&state));
                }
                let answer = self.ask_leader(async |way| {
                    client(way).state(way.call(AutopilotStateRequest {})).await
                });
                match answer.await {
                    Ok(answer) => return Ok(answer.into_inner().json),
                    Err(error) if is_passing(&error) => self.before_asking_again().await,
                    Err(error) => return Err(error),
                }
            }
        };
        self.in_time(asked).await
    }

    /// The same in short.
    pub(crate) async fn autopilot_health(&self, is_passed_on: bool) -> Result<Health, Status> {
        let asked = async {
            loop {
                if let Asked::Here(state) = self.ask_autopilot(is_passed_on).await? {
                    return Ok(health(&state));
                }
                let answer = self.ask_leader(async |way| {
                    client(way).health(way.call(AutopilotHealthRequest {})).await
                });
                match answer.await {
                    Ok(answer) => {
                        let answer = answer.into_inner();
                        return Ok(Health { is_healthy: answer.healthy, json: answer.json });
                    }
                    Err(error) if is_passing(&error) => self.before_asking_again().await,
                    Err(error) => return Err(error),
                }
            }
        };
        self.in_time(asked).await
    }

    /// What is set, as of now.
    pub(crate) async fn autopilot_config(&self) -> Result<Set, Status> {
        self.check_engine()?;
        self.read_barrier().await?;
        self.set_of(self.store().autopilot().as_ref())
    }

    /// Changes some of what is set; only if it is still that of the entry `expected`, if that is given.
    pub(super) async fn set_here(&self, json: &str, expected: Option<u64>) -> Result<Set, Status> {
        if SETTINGS_BYTES_MAX < json.len() {
            let (bytes, bytes_max) = (json.len(), SETTINGS_BYTES_MAX);
            let why = format!("autopilot: settings of {bytes} bytes; {bytes_max} are allowed");
            return Err(Status::invalid_argument(why));
        }
        let changes = read_object(json.as_bytes()).map_err(|error| refused(&error))?;
        let change = |settings: &Settings| settings.with(&changes);
        let (mut set, settings) = self.change_settings(expected, change).await?;
        set.warnings.extend(self.doubts(&settings, &changes));
        Ok(set)
    }

    /// Has `change` made to what is set, as of now; only if that is still of the entry `expected`, if that
    /// is given. While nothing is set, only the leader knows what to begin with.
    pub(super) async fn change_settings(
        &self,
        expected: Option<u64>,
        change: impl Fn(&Settings) -> Result<Settings, ConfigError>,
    ) -> Result<(Set, Settings), Status> {
        let asked = async {
            loop {
                self.read_barrier().await?;
                let before = self.store().autopilot();
                let modified = before.as_ref().map_or(Index(0), |setting| setting.modified);
                if let Some(expected) = expected
                    && Index(expected) != modified
                {
                    return Err(Status::failed_precondition(format!(
                        "autopilot: the settings are those of index {modified}, not of {expected}; \
                         look at them and try again"
                    )));
                }
                let leads = self.leads().is_some();
                let Some(old) = self.pilot().beginning(before.as_ref(), leads) else {
                    return Err(status::of_kv(KvError::NotLeader));
                };
                let old = old.map_err(|error| {
                    Status::failed_precondition(format!(
                        "autopilot: this version cannot read what is set, and would lose it: {error}"
                    ))
                })?;
                let new = change(&old).map_err(|error| refused(&error))?;
                self.check_held(&old, &new).map_err(|error| refused(&error))?;
                let settings = Value::Object(new.to_json()).to_string().into();
                let expected = Some(modified);
                let answer = self.propose(&Command::SetAutopilot { settings, expected }).await?;
                if let Response::SetAutopilot { succeeded: true, setting } = answer {
                    return Ok((self.set_of(setting.as_ref())?, new));
                }
                // Somebody was quicker: what is changed is changed in what they have set.
            }
        };
        self.in_time(asked).await
    }

    /// Whether all that are held anew are members. One that was held and has left does no harm.
    fn check_held(&self, old: &Settings, new: &Settings) -> Result<(), ConfigError> {
        let stranger = new.config.held.difference(&old.config.held).find(|id| !self.is_member(id));
        stranger.map_or(Ok(()), |id| {
            Err(ConfigError::new("held_servers", format!("{id} is no member of the cluster")))
        })
    }

    pub(super) fn is_member(&self, id: &ServerId) -> bool {
        self.store().members().iter().any(|member| server_id(NodeId(member.id)) == *id)
    }

    /// What is allowed and does not do on this cluster what may be expected of it.
    fn doubts(&self, settings: &Settings, changes: &Map<String, Value>) -> Vec<String> {
        let mut doubts = Vec::new();
        let (threshold, election) =
            (settings.config.last_contact_threshold, span(self.election_timeout()));
        if changes.contains_key("last_contact_threshold") && threshold < election {
            doubts.push(format!(
                "last_contact_threshold: {threshold} is less than the election timeout of {election}, \
                 which counts instead"
            ));
        }
        let members = self.store().members();
        doubts.extend(strangers(&settings.config.held, &members));
        let voters = members.iter().filter(|member| !member.is_learner).count() as u64;
        let floor = settings.config.min_quorum;
        if !settings.policy.disable_upgrade_migration && voters < floor {
            doubts.push(format!(
                "min_quorum: {floor} is more than the {voters} that vote: a migration waits for {floor} newer \
                 members; min_quorum={voters} lets {voters} take over"
            ));
        }
        if changes.contains_key("disable_upgrade_migration") {
            doubts.extend(old_learners(settings, &members));
        }
        if changes.contains_key("target_voters") {
            doubts.extend(too_many_voters(settings, &members));
        }
        doubts
    }

    fn set_of(&self, setting: Option<&Setting>) -> Result<Set, Status> {
        let settings = self.settings_of(setting).map_err(|error| {
            Status::failed_precondition(format!(
                "autopilot: this version cannot read what is set: {error}"
            ))
        })?;
        Ok(Set {
            json: Value::Object(settings.to_json()).to_string(),
            created: setting.map_or(0, |setting| setting.created.0),
            modified: setting.map_or(0, |setting| setting.modified.0),
            warnings: settings.warnings(),
        })
    }

    pub(super) fn check_engine(&self) -> Result<(), Status> {
        match self.engine() {
            Engine::Raft => Ok(()),
            Engine::Zab => Err(Status::unimplemented(
                "autopilot does not run on the zab engine, whose members are fixed when the cluster is \
                 made",
            )),
        }
    }

    /// This member's own state if it leads, or that another is to be asked.
    pub(super) async fn ask_autopilot(&self, is_passed_on: bool) -> Result<Asked, Status> {
        self.check_engine()?;
        loop {
            if self.leads().is_some() {
                if !self.pilot().is_on() {
                    return Err(Status::failed_precondition(
                        "autopilot is off on the leader (--autopilot=false)",
                    ));
                }
                if let Some(picture) = self.pilot().picture() {
                    return Ok(Asked::Here(picture.state));
                }
                // It has only just been elected.
            } else if is_passed_on {
                return Err(status::of_kv(KvError::NotLeader));
            } else if self.leader().is_some() {
                return Ok(Asked::There);
            }
            self.before_asking_again().await;
        }
    }
}

pub(super) fn client(way: &Way) -> AutopilotClient<Channel> {
    AutopilotClient::new(way.channel())
}

/// Who is held and no member any more, or was named before the cluster was there.
fn strangers(held: &BTreeSet<ServerId>, members: &[Member]) -> Vec<String> {
    let is_member = |id: &&ServerId| members.iter().any(|one| server_id(NodeId(one.id)) == **id);
    let strangers = held.iter().filter(|id| !is_member(id));
    strangers.map(|id| format!("held_servers: {id} is no member of the cluster")).collect()
}

/// Learners of an older version than a voter's: while migration is on they get no votes.
fn old_learners(settings: &Settings, members: &[Member]) -> Option<String> {
    let tag = &settings.policy.upgrade_version_tag;
    let version = |member: &Member| match tag.is_empty() {
        true => member.version.clone(),
        false => member.tags.get(tag).cloned().unwrap_or_default(),
    };
    let replica_tag = &settings.policy.read_replica_tag;
    let is_replica = |member: &Member| {
        member.tags.get(replica_tag).is_some_and(|value| value == "true") && !replica_tag.is_empty()
    };
    let voters: Vec<String> = members.iter().filter(|one| !one.is_learner).map(version).collect();
    let is_old = |member: &&Member| {
        let own = version(member);
        let is_older = voters.iter().any(|of_voter| is_older_version(&own, of_voter));
        member.is_learner && !is_replica(member) && is_older
    };
    let old: Vec<String> =
        members.iter().filter(is_old).map(|one| server_id(NodeId(one.id)).0).collect();
    (settings.policy.disable_upgrade_migration && !old.is_empty()).then(|| {
        format!(
            "disable_upgrade_migration: {} are of an older version and without a vote; if they run, they get \
             votes as any other learners: stop and remove them first",
            old.join(", ")
        )
    })
}

/// Where more vote than are wanted: nobody loses its vote for that.
fn too_many_voters(settings: &Settings, members: &[Member]) -> Option<String> {
    let voters = members.iter().filter(|member| !member.is_learner).count() as u64;
    let target = settings.policy.target_voters;
    (0 < target && target < voters).then(|| {
        format!(
            "target_voters: {target} are less than the {voters} that vote: nobody loses its vote for that; \
             demote or remove some by hand"
        )
    })
}

fn refused(error: &ConfigError) -> Status {
    Status::invalid_argument(format!("autopilot: {error}"))
}

/// A state in short: what an operator looks at first.
fn health(state: &State) -> Health {
    let number = |name: &str| state.ext.as_ref()?.get(name)?.as_u64();
    let servers: Vec<Value> = state
        .servers
        .iter()
        .map(|(id, one)| {
            let reason = state.ext.as_ref().and_then(|ext| {
                ext.get("reasons")?.get("servers")?.get(id.as_str())?.as_str()
            });
            let contact = one.stats.last_contact;
            json!({
                "ID": id.as_str(),
                "Name": one.server.name,
                "Address": one.server.address,
                "NodeStatus": one.server.node_status.as_str(),
                "NodeType": one.server.node_type.as_str(),
                "Version": one.server.version,
                "State": one.state.as_str(),
                "Voter": one.has_voting_rights(),
                "Healthy": one.health.healthy,
                "StableSince": one.health.stable_since.to_string(),
                "LastContact": if contact < Span::ZERO { "never".to_owned() } else { contact.to_string() },
                "LastTerm": one.stats.last_term.0,
                "LastIndex": one.stats.last_index.0,
                "Reason": reason.unwrap_or_default(),
            })
        })
        .collect();
    let tolerance = state.failure_tolerance;
    let voters: Vec<&str> = state.voters.iter().map(ServerId::as_str).collect();
    let upgrade = state.ext.as_ref().and_then(|ext| ext.get("upgrade")?.get("status")?.as_str());
    let json = json!({
        "Healthy": state.healthy,
        "FailureTolerance": tolerance,
        "OptimisticFailureTolerance": number("optimistic_failure_tolerance").unwrap_or(tolerance),
        "Leader": state.leader.as_ref().map_or("", |id| id.as_str()),
        "Voters": voters,
        "Upgrade": upgrade.unwrap_or_default(),
        "Servers": servers,
    });
    Health { is_healthy: state.healthy, json: json.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_held_and_is_no_member_is_named() {
        let members = [1, 0xab].map(|id| Member { id, ..Member::default() });
        let held = |ids: &[&str]| ids.iter().map(|id| ServerId::from(*id)).collect();
        assert_eq!(strangers(&held(&["1", "ab"]), &members), [] as [String; 0]);
        let want = ["held_servers: cd is no member of the cluster"];
        assert_eq!(strangers(&held(&["ab", "cd"]), &members), want);
    }

    #[test]
    fn whoever_would_vote_again_or_too_much_is_named() {
        let member = |id, is_learner, version: &str| Member {
            id,
            is_learner,
            version: version.to_owned(),
            ..Member::default()
        };
        let replica = Member {
            tags: [("read_replica".to_owned(), "true".to_owned())].into(),
            ..member(6, true, "1.0.0")
        };
        let members = [
            member(1, true, "1.0.0"),
            member(2, false, "2.0.0"),
            member(3, false, "2.0.0"),
            member(4, true, "2.0.0"),
            member(5, true, ""),
            replica,
        ];
        let mut settings = Settings::default();
        let said = old_learners(&settings, &members).unwrap();
        assert!(said.starts_with("disable_upgrade_migration: 1 are of an older version"), "{said}");
        assert_eq!(old_learners(&settings, &members[1..]), None);
        settings.policy.disable_upgrade_migration = false;
        assert_eq!(old_learners(&settings, &members), None, "while it is on they get none");

        assert_eq!(too_many_voters(&settings, &members), None);
        settings.policy.target_voters = 2;
        assert_eq!(too_many_voters(&settings, &members), None);
        settings.policy.target_voters = 1;
        let said = too_many_voters(&settings, &members).unwrap();
        assert!(said.starts_with("target_voters: 1 are less than the 2 that vote"), "{said}");
    }
}
