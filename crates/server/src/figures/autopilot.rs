//! Autopilot's figures. Those of the cluster are the leader's alone: on another member they are absent,
//! since 0 would be an alarm.

use std::fmt;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use quorate_autopilot::{ServerState, State};

use super::Page;
use crate::autopilot::Pilot;

pub(super) fn write(page: &mut Page<'_>, pilot: &Pilot) -> fmt::Result {
    if !pilot.is_on() {
        return Ok(());
    }
    let counts = pilot.telling().counts();
    for (name, help, label, counted) in [
        ("quorate_autopilot_changes", "Changes that autopilot made here", "kind", counts.changes),
        (
            "quorate_autopilot_refusals",
            "Changes that were wanted and not made, once for each reason",
            "reason",
            counts.refusals,
        ),
    ] {
        let mut family = page.family(name, help, MetricType::Counter)?;
        for (word, count) in counted {
            ConstCounter::new(count).encode(family.encode_family(&[(label, word)])?)?;
        }
    }
    let help = "States not made, and rounds and removals that did not come to their end";
    page.counter("quorate_autopilot_failures", help, counts.failures)?;
    let Some(picture) = pilot.picture() else { return Ok(()) };
    let state = &*picture.state;
    page.counter("quorate_autopilot_states", "States made in this reign", picture.states_count)?;
    page.counter("quorate_autopilot_rounds", "Rounds begun in this reign", picture.rounds_count)?;
    for (name, help, value) in [
        (
            "quorate_autopilot_paused",
            "Whether no round is made",
            f64::from(u8::from(picture.is_paused)),
        ),
        (
            "quorate_autopilot_healthy",
            "Whether all members are",
            f64::from(u8::from(state.healthy)),
        ),
        (
            "quorate_autopilot_failure_tolerance",
            "Voters that may fail at once without an outage",
            state.failure_tolerance as f64,
        ),
        (
            "quorate_autopilot_optimistic_failure_tolerance",
            "Members that may fail one after the other without an outage",
            optimistic(state) as f64,
        ),
        ("quorate_autopilot_voters", "Members with a vote", state.voters.len() as f64),
        (
            "quorate_autopilot_state_age_seconds",
            "Time since the members were last looked at",
            picture.age.as_secs_f64(),
        ),
    ] {
        page.gauge(name, help, value)?;
    }
    let end = state.leader.as_ref().and_then(|leader| state.servers.get(leader));
    let end = end.map_or(0, |leader| leader.stats.last_index.0);
    servers(page, state, "healthy", "Whether a member is", |one| {
        Some(f64::from(u8::from(one.health.healthy)))
    })?;
    let silence = "Time since a member was heard from, or since it stored what it was sent, if that is longer";
    servers(page, state, "last_contact_seconds", silence, |one| {
        let contact = one.stats.last_contact;
        (!contact.is_negative()).then_some(contact.0 as f64 / 1e9)
    })?;
    servers(page, state, "trailing_entries", "Entries that a member lacks", |one| {
        Some(end.saturating_sub(one.stats.last_index.0) as f64)
    })
}

fn optimistic(state: &State) -> u64 {
    let figure =
        state.ext.as_ref().and_then(|ext| ext.get("optimistic_failure_tolerance")?.as_u64());
    figure.unwrap_or(state.failure_tolerance)
}

/// One figure of each member.
fn servers(
    page: &mut Page<'_>,
    state: &State,
    name: &str,
    help: &str,
    value: impl Fn(&ServerState) -> Option<f64>,
) -> fmt::Result {
    let name = format!("quorate_autopilot_server_{name}");
    let mut family = page.family(&name, help, MetricType::Gauge)?;
    for (id, one) in &state.servers {
        if let Some(value) = value(one) {
            let labels = [("server_id", id.as_str())];
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
