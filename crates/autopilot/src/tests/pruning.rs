//! Which dead servers go.

use std::collections::BTreeMap;

use super::model::{Model, Peer, text};
use crate::*;

fn pruned(servers: &str, min_quorum: u64) -> String {
    let mut model = Model::of(servers);
    model.config.min_quorum = min_quorum;
    let prune = model.plan_prune();
    let ids = prune.actions().map(|action| match action {
        Action::RemoveServer { id } => id.to_string(),
        Action::RemoveFailedServer(server) => server.id.to_string(),
        other => panic!("{other}"),
    });
    ids.collect::<Vec<_>>().join(" ")
}

#[test]
fn no_more_go_than_can_be_spared() {
    for (servers, min_quorum, want) in [
        ("VVVFSsf", 3, "s5 S4 f6 F3"),
        ("VVVFFSsf", 3, "s6 S5 f7 F3 F4"),
        ("VFVFSsf", 3, "s5 S4 f6 F1"),
        ("VVf", 3, ""),
        ("VF", 3, ""),
        ("VVF", 0, "F2"),
        ("VVF", 3, ""),
        ("VVVF", 3, "F3"),
        ("VVVFFF", 0, "F3 F4"),
        ("VVVVFFF", 0, "F4 F5 F6"),
        ("VVVfff", 0, "f3 f4 f5"),
        ("VVVfff", 3, "f3 f4 f5"),
        ("VVVFf", 4, "f4"),
        ("VVVVF", 4, "F4"),
        ("VVVVF", 5, ""),
        ("VVSs", 3, "s3"),
        ("VSS", 0, ""),
        ("VVVS", 3, "S3"),
        ("V", 0, ""),
        ("F", 0, ""),
        ("S", 0, ""),
        ("VS", 0, ""),
        ("", 0, ""),
        // The floor keeps a new server that was never promoted.
        ("VVnf", 4, ""),
        // What a class used up counts in that class alone: one of four, then one of three.
        ("VVfF", 0, "f2 F3"),
        // Failed non-voters that may come to vote use up what the next class counts from.
        ("VVVVFFf", 0, "f6 F4 F5"),
    ] {
        assert_eq!(pruned(servers, min_quorum), want, "{servers}, floor {min_quorum}");
    }
}

#[test]
fn stale_ones_are_removed_and_failed_ones_handed_over() {
    let model = Model::of("VVVFSsf");
    let prune = model.plan_prune();
    assert_eq!(text(prune.actions()), "remove s5, remove S4, remove-failed f6, remove-failed F3");
    assert_eq!(prune.classes.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 1]);
}

#[test]
fn every_server_is_of_one_class() {
    let mut model = Model::of("VVVnn");
    let mut add = |id: &str, suffrage, status: &str, is_known| {
        let status = NodeStatus::from(status);
        let peer = Peer { status, is_known, ..Peer::new(suffrage) };
        model.peers.insert(id.into(), peer);
    };
    add("d-failed", Suffrage::Voter, "failed", true);
    add("c-left", Suffrage::Voter, "left", true);
    add("b-unknown", Suffrage::Voter, "unknown", true);
    add("a-unset", Suffrage::Voter, "", true);
    add("staging", Suffrage::Staging, "failed", true);
    add("other", Suffrage::Other(9), "left", true);
    add("failed", Suffrage::NonVoter, "failed", true);
    add("lost-voter", Suffrage::Voter, "", false);
    add("lost-staging", Suffrage::Staging, "", false);
    add("lost-other", Suffrage::Other(9), "", false);
    add("lost", Suffrage::NonVoter, "", false);
    let mut outside = Peer::new(Suffrage::Voter);
    (outside.suffrage, outside.status) = (None, NodeStatus::Failed);
    model.peers.insert("outside".into(), outside);

    let failed = failed_servers(&model.configuration(), &model.known(), &Strictness::parity());
    let ids = |ids: &[ServerId]| ids.iter().map(ServerId::as_str).collect::<Vec<_>>().join(" ");
    let of = |servers: &[Server]| {
        servers.iter().map(|server| server.id.as_str()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids(&failed.stale_voters), "lost-voter");
    assert_eq!(ids(&failed.stale_nonvoters), "lost lost-other lost-staging");
    assert_eq!(of(&failed.failed_voters), "a-unset b-unknown c-left d-failed");
    assert_eq!(of(&failed.failed_nonvoters), "failed other staging");
}

#[test]
fn who_is_alive_stays_however_unhealthy() {
    let mut model = Model::of("LVVn");
    for id in ["V1", "V2", "n3"] {
        model.peer(id).is_well = false;
    }
    model.wait(60);
    assert!(!model.state.healthy);
    assert_eq!(text(model.plan_prune().actions()), "");
}

/// Lets `spared` live, and invents a server.
#[derive(Debug)]
struct Sparing {
    spared: &'static str,
}

impl Promoter for Sparing {
    fn get_server_ext(&self, _: Time, _: &Config, _: &ServerState) -> Option<Ext> {
        None
    }
    fn get_state_ext(&self, _: Time, _: &Config, _: &State) -> Option<Ext> {
        None
    }
    fn get_node_types(&self, _: Time, _: &Config, _: &State) -> BTreeMap<ServerId, NodeType> {
        BTreeMap::new()
    }
    fn calculate_promotions_and_demotions(&self, _: Time, _: &Config, _: &State) -> RaftChanges {
        RaftChanges::default()
    }
    fn filter_failed_server_removals(
        &self,
        _: Time,
        _: &Config,
        _: &State,
        mut failed: FailedServers,
    ) -> FailedServers {
        failed.stale_voters.retain(|id| id.as_str() != self.spared);
        failed.failed_voters.retain(|server| server.id.as_str() != self.spared);
        failed.stale_nonvoters.push("invented".into());
        failed.failed_voters.push(Server { id: "invented".into(), ..Server::default() });
        // A server that is alive is nobody to be removed, whatever a filter says.
        failed.failed_voters.push(Server { id: "V0".into(), ..Server::default() });
        failed
    }
    fn is_potential_voter(&self, node_type: &NodeType) -> bool {
        *node_type == NodeType::Voter
    }
}

#[test]
fn the_promoter_may_spare_and_cannot_invent() {
    let mut model = Model::of("VVVVFS");
    model.promoter = std::sync::Arc::new(Sparing { spared: "F4" });
    assert_eq!(text(model.plan_prune().actions()), "remove S5");
    model.promoter = std::sync::Arc::new(Sparing { spared: "S5" });
    assert_eq!(text(model.plan_prune().actions()), "remove-failed F4");
}

#[test]
fn a_type_is_looked_up_in_application_state_and_policy() {
    // With two voters and a failed server that counts, the floor of three keeps it.
    for (own, of_state, want) in [
        ("voter", "read-replica", ""),
        ("read-replica", "voter", "remove-failed f2"),
        ("", "read-replica", "remove-failed f2"),
        ("", "voter", ""),
        ("", "", ""), // taken for a voter
        ("arbiter", "", "remove-failed f2"),
    ] {
        let mut model = Model::of("VVf");
        model.config.min_quorum = 3;
        model.peer("f2").node_type = own.into();
        model.state.servers.get_mut("f2").unwrap().server.node_type = of_state.into();
        assert_eq!(text(model.plan_prune().actions()), want, "{own:?} {of_state:?}");
    }
}

#[test]
fn permanent_non_voters_go_regardless_of_the_floor() {
    let mut model = Model::of("VVVfff");
    model.config.min_quorum = 6;
    for id in ["f3", "f4", "f5"] {
        model.peer(id).node_type = NodeType::ReadReplica;
    }
    let want = "remove-failed f3, remove-failed f4, remove-failed f5";
    assert_eq!(text(model.plan_prune().actions()), want);
}

#[test]
fn whoever_stays_has_a_reason() {
    let why = |servers: &str, min_quorum| {
        let mut model = Model::of(servers);
        model.config.min_quorum = min_quorum;
        let refusals = model.plan_prune().refusals;
        refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(why("VVF", 3), "no removal of F2: min-quorum: 2 left of at least 3");
    assert_eq!(why("VFF", 0), "no removal of F2: majority");
}
