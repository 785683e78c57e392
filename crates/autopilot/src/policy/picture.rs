//! What operators see of the policies: tolerances, zones, the migration, and why things are as they are.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::server::{Ext, NodeStatus, RaftState, Server, ServerId};
use crate::state::unhealthy_reason;

use super::Draft;
use super::settings::PolicyConfig;
use super::upgrade::{Upgrade, UpgradeStatus, Versions, optimistic_tolerance};
use super::view::View;

/// What the policies read from a server's tags.
pub(super) fn server_ext(settings: &PolicyConfig, server: &Server) -> Ext {
    json!({
        "zone": settings.zone(server),
        "upgrade_version": settings.version(server),
        "read_replica": settings.is_replica(server),
    })
}

/// The whole picture.
pub(super) fn state_ext(
    view: &View<'_>,
    upgrade: &Upgrade<'_>,
    reasons: &BTreeMap<ServerId, String>,
) -> Ext {
    let servers: Map<String, Value> =
        reasons.iter().map(|(id, reason)| (id.0.clone(), json!(reason))).collect();
    json!({
        "optimistic_failure_tolerance": optimistic_tolerance(view),
        "read_replicas": ids(view.replicas.iter().copied()),
        "redundancy_zones": zones(view),
        "upgrade": upgrade_info(view, upgrade),
        "reasons": { "servers": servers, "upgrade": upgrade_reason(view, upgrade) },
    })
}

fn ids<'i>(ids: impl Iterator<Item = &'i ServerId>) -> Value {
    ids.map(|id| Value::from(id.as_str())).collect()
}

fn zones(view: &View<'_>) -> Value {
    let of_zones = by_zone(view);
    let picture = of_zones.into_iter().map(|(zone, members)| {
        let healthy = members.iter().filter(|id| view.is_healthy(id)).count();
        let voters = members.iter().copied().filter(|id| view.server(id).has_voting_rights());
        let value = json!({
            "servers": ids(members.iter().copied()),
            "voters": ids(voters),
            "failure_tolerance": healthy.saturating_sub(1),
        });
        (zone.to_owned(), value)
    });
    Value::Object(picture.collect())
}

fn by_zone<'a>(view: &View<'a>) -> BTreeMap<&'a str, Vec<&'a ServerId>> {
    let mut zones: BTreeMap<&str, Vec<&ServerId>> = BTreeMap::new();
    for id in &view.eligible {
        if let Some(zone) = view.zone(id) {
            zones.entry(zone).or_default().push(id);
        }
    }
    zones
}

fn upgrade_info(view: &View<'_>, upgrade: &Upgrade<'_>) -> Value {
    let Some(versions) = &upgrade.versions else {
        return json!({ "status": upgrade.status.as_str() });
    };
    let mut info = four_lists(view, versions, &view.eligible);
    let replicas = |is_target: bool| {
        ids(view.replicas.iter().copied().filter(|id| versions.is_target(id) == is_target))
    };
    info.insert("status".into(), upgrade.status.as_str().into());
    info.insert("target_version".into(), versions.target.to_string().into());
    info.insert("target_version_read_replicas".into(), replicas(true));
    info.insert("other_version_read_replicas".into(), replicas(false));
    let zones = by_zone(view).into_iter().map(|(zone, members)| {
        (zone.to_owned(), Value::Object(four_lists(view, versions, &members)))
    });
    info.insert("redundancy_zones".into(), Value::Object(zones.collect()));
    Value::Object(info)
}

fn four_lists(view: &View<'_>, versions: &Versions<'_>, of: &[&ServerId]) -> Map<String, Value> {
    let mut lists = Map::new();
    for (version, is_target) in [("target", true), ("other", false)] {
        for (kind, votes) in [("voters", true), ("non_voters", false)] {
            let is_listed = |id: &&ServerId| {
                versions.is_target(id) == is_target && view.server(id).has_voting_rights() == votes
            };
            let listed = of.iter().copied().filter(is_listed);
            lists.insert(format!("{version}_version_{kind}"), ids(listed));
        }
    }
    lists
}

fn upgrade_reason(view: &View<'_>, upgrade: &Upgrade<'_>) -> String {
    let status = upgrade.status;
    let is_held = |id: &ServerId| view.is_held(id);
    let ready = format!("{status}: {} of {}", upgrade.ready, upgrade.baseline);
    match status {
        UpgradeStatus::LeaderTransfer if upgrade.new_leader(view).is_none_or(|id| is_held(&id)) => {
            format!("{ready}, and all of them are held")
        }
        UpgradeStatus::AwaitNewVoters => match upgrade.weaker_zone {
            Some(zone) => format!("{ready}; zone {zone} has fewer healthy new ones than old ones"),
            None => ready,
        },
        UpgradeStatus::Promoting | UpgradeStatus::Demoting | UpgradeStatus::LeaderTransfer => ready,
        UpgradeStatus::AwaitNewServers | UpgradeStatus::AwaitServerRemoval
            if !upgrade.held_old_voters.is_empty() =>
        {
            let held: Vec<&str> = upgrade.held_old_voters.iter().map(|id| id.as_str()).collect();
            format!("{status}: {} still vote, and are held: release them first", held.join(", "))
        }
        UpgradeStatus::Idle if upgrade.versions.is_none() => format!("{status}: no usable version"),
        UpgradeStatus::Disabled
        | UpgradeStatus::Idle
        | UpgradeStatus::AwaitNewServers
        | UpgradeStatus::AwaitServerRemoval => status.to_string(),
    }
}

/// For each server why it is as it is.
pub(super) fn reasons(
    view: &View<'_>,
    upgrade: &Upgrade<'_>,
    draft: &Draft,
) -> BTreeMap<ServerId, String> {
    let ids = view.state.servers.keys();
    ids.map(|id| (id.clone(), reason(view, upgrade, draft, id))).collect()
}

fn reason(view: &View<'_>, upgrade: &Upgrade<'_>, draft: &Draft, id: &ServerId) -> String {
    let server = view.server(id);
    if draft.demotions.contains(id) {
        let why = if view.is_failed_voter(id) { "failed" } else { "not needed" };
        return format!("demote: {why}");
    }
    if draft.promotions.contains(id) {
        return match draft.waiting.get(id) {
            Some(why) => format!("waits: {why}"),
            None => "promote: stable".to_owned(),
        };
    }
    if draft.leader.as_ref() == Some(id) {
        return match view.is_held(id) {
            true => "held: is to lead, as nobody else could".to_owned(),
            false => "transfer: to lead".to_owned(),
        };
    }
    let unhealthy = unhealthy_reason(view.state, id, view.config);
    if view.is_held(id) {
        return format!("held: {}", unhealthy.as_deref().unwrap_or("left as it is"));
    }
    if draft.kept.contains(id) {
        let why = unhealthy.as_deref().unwrap_or("its vote is not needed");
        return format!("kept: too few voters would be left; {why}");
    }
    if let Some(why) = unhealthy {
        let is_irreplaceable = server.has_voting_rights()
            && 0 < view.settings.target_voters
            && !view.settings.has_zones()
            && server.server.node_status == NodeStatus::Unknown;
        return if is_irreplaceable {
            format!("{why}; never replaced unless it starts")
        } else {
            why
        };
    }
    if server.has_voting_rights() {
        let voters = view.eligible_voters().count();
        return match view.settings.voters_max() {
            Some(most) if most < voters && !upgrade.status.is_going_over() => {
                format!("votes: {voters} do, {most} are to; demote or remove others by hand")
            }
            _ => "votes".to_owned(),
        };
    }
    if view.replicas.contains(&id) {
        return "read-replica".to_owned();
    }
    if server.state != RaftState::NonVoter {
        return format!("is {}", server.state);
    }
    if !view.is_stable(id) {
        let healthy_for = view.now.since(server.health.stable_since);
        return format!("stabilizing: {healthy_for} of {}", view.stable_after);
    }
    if let Some(why) = view.state.kept_back(id) {
        return why.to_string();
    }
    if upgrade.withholds(view, id) {
        return format!("withheld: {}", upgrade_reason(view, upgrade));
    }
    match view.zone(id) {
        Some(zone) => format!("standby: of zone {zone}"),
        None => format!("waits: {} voters", view.state.voters.len()),
    }
}
