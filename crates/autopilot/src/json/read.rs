//! Reading inputs. A missing or null member has its zero value, an unknown one is passed over, and a
//! member of the wrong type is an error that names it.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{Index, Term};
use serde_json::{Map, Value};

use crate::config::Config;
use crate::configuration::{Member, RaftConfiguration, Suffrage};
use crate::server::{
    NodeStatus, NodeType, RaftState, Server, ServerHealth, ServerId, ServerState, ServerStats,
};
use crate::state::{Inputs, State};
use crate::time::{Span, Time};

/// Why a text holds no inputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// It is no JSON at all.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// One member is not what it should be.
    #[error("{path}: {why}")]
    Member {
        /// Where it stands, as in `RaftConfig.Servers[2].Suffrage`.
        path: String,
        /// What it should be, and what it is.
        why: String,
    },
}

/// The inputs of a state.
///
/// # Errors
///
/// See [`evaluate`](crate::evaluate).
pub fn read_inputs(json: &[u8]) -> Result<Inputs, InputError> {
    let value: Value =
        serde_json::from_slice(json).map_err(|error| InputError::NotJson(error.to_string()))?;
    let whole = Place { path: String::new(), value: Some(&value) };
    whole.object()?.ok_or_else(|| whole.is_not("an object"))?;
    let now = whole.at("Now").time()?;
    let current = whole.at("CurrentState");
    Ok(Inputs {
        now,
        first_state_time: whole.at("FirstStateTime").time()?,
        config: config(&whole.at("Config").required()?)?,
        current: if current.is_absent() { None } else { Some(state(&current)?) },
        configuration: configuration(&whole.at("RaftConfig").required()?)?,
        known_servers: map(&whole.at("KnownServers"), server)?,
        last_index: Index(whole.at("LatestIndex").unsigned()?),
        last_term: Term(whole.at("LastTerm").unsigned()?),
        fetched_stats: map(&whole.at("FetchedStats"), stats)?,
        leader: leader(&whole.at("LeaderID"))?,
        is_leader: whole.at("IsLeader").boolean()?,
        receiving_snapshot: Default::default(),
        lacking: Default::default(),
        failed_transfers: Default::default(),
    })
}

fn config(place: &Place<'_>) -> Result<Config, InputError> {
    place.object()?;
    Ok(Config {
        cleanup_dead_servers: place.at("CleanupDeadServers").boolean()?,
        last_contact_threshold: place.at("LastContactThreshold").span()?,
        max_trailing_logs: place.at("MaxTrailingLogs").unsigned()?,
        min_quorum: place.at("MinQuorum").unsigned()?,
        server_stabilization_time: place.at("ServerStabilizationTime").span()?,
        held: BTreeSet::new(),
        ext: place.at("Ext").any(),
    })
}

fn configuration(place: &Place<'_>) -> Result<RaftConfiguration, InputError> {
    place.object()?;
    let mut members = Vec::new();
    for member in place.at("Servers").list()? {
        member.object()?;
        members.push(Member {
            suffrage: Suffrage::from(member.at("Suffrage").signed()?),
            id: ServerId(member.at("ID").text()?),
            address: member.at("Address").text()?,
        });
    }
    Ok(RaftConfiguration { members, index: Index(0) })
}

fn server(place: &Place<'_>) -> Result<Server, InputError> {
    place.object()?;
    let meta = place.at("Meta");
    Ok(Server {
        id: ServerId(place.at("ID").text()?),
        name: place.at("Name").text()?,
        address: place.at("Address").text()?,
        node_status: NodeStatus::from(&*place.at("NodeStatus").text()?),
        version: place.at("Version").text()?,
        meta: if meta.is_absent() { None } else { Some(tags(&meta)?) },
        raft_version: place.at("RaftVersion").signed()?,
        is_leader: place.at("IsLeader").boolean()?,
        node_type: NodeType::from(&*place.at("NodeType").text()?),
        ext: place.at("Ext").any(),
    })
}

fn tags(place: &Place<'_>) -> Result<BTreeMap<String, String>, InputError> {
    let tags = map(place, tag)?;
    Ok(tags.into_iter().map(|(key, value)| (key.0, value)).collect())
}

fn tag(place: &Place<'_>) -> Result<String, InputError> {
    place.text()
}

fn stats(place: &Place<'_>) -> Result<ServerStats, InputError> {
    place.object()?;
    Ok(ServerStats {
        last_contact: place.at("LastContact").span()?,
        last_term: Term(place.at("LastTerm").unsigned()?),
        last_index: Index(place.at("LastIndex").unsigned()?),
    })
}

fn state(place: &Place<'_>) -> Result<State, InputError> {
    place.object()?;
    let mut voters = Vec::new();
    for voter in place.at("Voters").list()? {
        voters.push(ServerId(voter.text()?));
    }
    let failure_tolerance = place.at("FailureTolerance");
    Ok(State {
        healthy: place.at("Healthy").boolean()?,
        failure_tolerance: u64::try_from(failure_tolerance.signed()?).unwrap_or(0),
        servers: map(&place.at("Servers"), server_state)?,
        leader: leader(&place.at("Leader"))?,
        voters,
        ext: place.at("Ext").any(),
        ..State::default()
    })
}

fn server_state(place: &Place<'_>) -> Result<ServerState, InputError> {
    place.object()?;
    let (state, health) = (place.at("State"), place.at("Health"));
    health.object()?;
    let word = state.text()?;
    Ok(ServerState {
        server: server(&place.at("Server"))?,
        // It is computed anew from the Raft configuration, so that a word of no meaning harms nothing.
        state: RaftState::from_text(&word).unwrap_or_default(),
        stats: stats(&place.at("Stats"))?,
        health: ServerHealth {
            healthy: health.at("Healthy").boolean()?,
            stable_since: health.at("StableSince").time()?,
        },
    })
}

fn leader(place: &Place<'_>) -> Result<Option<ServerId>, InputError> {
    let id = place.text()?;
    Ok((!id.is_empty()).then_some(ServerId(id)))
}

fn map<T>(
    place: &Place<'_>,
    read: impl Fn(&Place<'_>) -> Result<T, InputError>,
) -> Result<BTreeMap<ServerId, T>, InputError> {
    let mut read_map = BTreeMap::new();
    for key in place.object()?.into_iter().flat_map(Map::keys) {
        read_map.insert(ServerId(key.clone()), read(&place.at(key))?);
    }
    Ok(read_map)
}

/// A value, or none, and the way to it.
struct Place<'a> {
    path: String,
    value: Option<&'a Value>,
}

impl<'a> Place<'a> {
    /// The member `name` of an object. Of anything else there is none; whoever wants the object itself
    /// has said so by then.
    fn at(&self, name: &str) -> Place<'a> {
        let dot = if self.path.is_empty() { "" } else { "." };
        let value = self.value.and_then(|value| value.get(name));
        Place { path: format!("{}{dot}{name}", self.path), value }
    }

    fn is_absent(&self) -> bool {
        self.value.is_none_or(Value::is_null)
    }

    fn required(self) -> Result<Self, InputError> {
        match self.is_absent() {
            true => Err(InputError::Member { path: self.path, why: "is missing".to_owned() }),
            false => Ok(self),
        }
    }

    fn is_not(&self, wanted: &str) -> InputError {
        let path = if self.path.is_empty() { "the input" } else { &self.path };
        let found = match self.value {
            None | Some(Value::Null) => "nothing".to_owned(),
            Some(Value::Object(_)) => "an object".to_owned(),
            Some(Value::Array(_)) => "a list".to_owned(),
            Some(value) => value.to_string().chars().take(40).collect(),
        };
        InputError::Member { path: path.to_owned(), why: format!("is {found} and not {wanted}") }
    }

    fn present(&self) -> Option<&'a Value> {
        self.value.filter(|value| !value.is_null())
    }

    fn read<T: Default>(
        &self,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, InputError> {
        let Some(value) = self.present() else { return Ok(T::default()) };
        read(value).ok_or_else(|| self.is_not(wanted))
    }

    fn boolean(&self) -> Result<bool, InputError> {
        self.read("true or false", Value::as_bool)
    }

    fn unsigned(&self) -> Result<u64, InputError> {
        self.read("a whole number from 0 to 2^64-1", Value::as_u64)
    }

    fn signed(&self) -> Result<i64, InputError> {
        self.read("a whole number of 64 bits", Value::as_i64)
    }

    fn span(&self) -> Result<Span, InputError> {
        self.read("a whole number of nanoseconds", |value| value.as_i64().map(Span))
    }

    fn text(&self) -> Result<String, InputError> {
        self.read("a text", |value| value.as_str().map(str::to_owned))
    }

    fn time(&self) -> Result<Time, InputError> {
        let wanted = "a time as in 2020-11-02T15:00:00.12+01:00";
        self.read(wanted, |value| value.as_str()?.parse().ok())
    }

    fn object(&self) -> Result<Option<&'a Map<String, Value>>, InputError> {
        self.read("an object", |value| value.as_object().map(Some))
    }

    fn list(&self) -> Result<Vec<Place<'a>>, InputError> {
        let list =
            self.read("a list", |value| value.as_array().map(|list| list.iter().collect()))?;
        let list: Vec<&'a Value> = list;
        let places = list.into_iter().enumerate().map(|(number, value)| Place {
            path: format!("{}[{number}]", self.path),
            value: Some(value),
        });
        Ok(places.collect())
    }

    fn any(&self) -> Option<Value> {
        self.present().cloned()
    }
}
