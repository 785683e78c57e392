//! What operators have done by hand: by the rules of all changes, and so that autopilot does not undo it.

use quorate_autopilot::adapter::server_id;
use quorate_autopilot::{Action, RaftError, Settings};
use quorate_kv::KvError;
use quorate_proto::quoratepb::{
    AutopilotConfigResponse, AutopilotDemoteRequest, AutopilotHoldRequest,
    AutopilotSetConfigRequest,
};
use quorate_types::{Index, NodeId};
use tonic::Status;

use super::answers::{Set, client};
use super::site::Site;
use crate::local::Local;
use crate::status;
use crate::way::is_passing;

/// What is to be set.
#[derive(Clone, Copy, Debug)]
enum Wish<'a> {
    /// Some settings; only if they are still those of that entry, if one is given.
    Settings(&'a str, Option<u64>),
    /// Whether a member is held.
    Held(u64, bool),
}

impl Local {
    /// Changes some of what is set; only if it is still that of the entry `expected`, if that is given.
    pub(crate) async fn set_autopilot_config(
        &self,
        json: &str,
        expected: Option<u64>,
        is_passed_on: bool,
    ) -> Result<Set, Status> {
        self.set(Wish::Settings(json, expected), is_passed_on).await
    }

    /// Has autopilot leave a member as it is, or not any more.
    pub(crate) async fn hold_member(
        &self,
        id: u64,
        is_held: bool,
        is_passed_on: bool,
    ) -> Result<Set, Status> {
        self.set(Wish::Held(id, is_held), is_passed_on).await
    }

    async fn set(&self, wish: Wish<'_>, is_passed_on: bool) -> Result<Set, Status> {
        self.check_engine()?;
        self.check_serves_all()?;
        let asked = async {
            loop {
                let error = match self.set_where_it_is_known(wish, is_passed_on).await {
                    Ok(set) => return Ok(set),
                    Err(error) => error,
                };
                // What is compared may have been set by the try before.
                let may_repeat = match wish {
                    Wish::Settings(_, Some(_)) => error.message() == KvError::NotLeader.message(),
                    Wish::Settings(_, None) | Wish::Held(..) => is_passing(&error),
                };
                if is_passed_on || !may_repeat {
                    return Err(error);
                }
                self.before_asking_again().await;
            }
        };
        self.in_time(asked).await
    }

    /// While nothing is set, only the leader knows what a change begins with.
    async fn set_where_it_is_known(
        &self,
        wish: Wish<'_>,
        is_passed_on: bool,
    ) -> Result<Set, Status> {
        self.read_barrier().await?;
        let is_known = self.store().autopilot().is_some() || self.leads().is_some();
        if is_known || is_passed_on {
            return match wish {
                Wish::Settings(json, expected) => self.set_here(json, expected).await,
                Wish::Held(id, is_held) => self.hold_here(id, is_held).await,
            };
        }
        let answer = self.ask_leader(async |way| match wish {
            Wish::Settings(json, expected) => {
                let (json, compare) = (json.to_owned(), expected.is_some());
                let modify_index = expected.unwrap_or(0);
                let request = AutopilotSetConfigRequest { json, compare, modify_index };
                client(way).set_config(way.call(request)).await
            }
            Wish::Held(id, held) => {
                client(way).hold(way.call(AutopilotHoldRequest { id, held })).await
            }
        });
        Ok(set_of_answer(answer.await?.into_inner()))
    }

    async fn hold_here(&self, id: u64, is_held: bool) -> Result<Set, Status> {
        let id = server_id(NodeId(id));
        let was_held = || {
            let settings = self.autopilot_settings();
            settings.is_ok_and(|settings| settings.config.held.contains(&id))
        };
        if !is_held && !self.is_member(&id) && !was_held() {
            return Err(status::of_kv(KvError::MemberNotFound));
        }
        let change = |settings: &Settings| {
            let mut settings = settings.clone();
            if is_held {
                // Who has left never comes back under its id, and takes nobody's place here.
                settings.config.held.retain(|held| self.is_member(held));
            }
            settings.with_held(&id, is_held)
        };
        let (set, _) = self.change_settings(None, change).await?;
        let member = id.as_str();
        match is_held {
            true => tracing::info!(target: "quorate::autopilot", member, "is held by an operator"),
            false => tracing::info!(target: "quorate::autopilot", member, "is released"),
        }
        Ok(set)
    }

    /// Takes a member's vote by hand. It is held as well: a stable learner would be promoted again. One
    /// without a vote is only held.
    pub(crate) async fn demote_member(&self, id: u64, is_passed_on: bool) -> Result<Set, Status> {
        self.check_engine()?;
        self.check_serves_all()?;
        let asked = async {
            loop {
                // To ask twice does no harm: the second time there is no vote to take.
                let error = match self.demote_through(id, is_passed_on).await {
                    Ok(set) => return Ok(set),
                    Err(error) => error,
                };
                if is_passed_on || !is_passing(&error) {
                    return Err(error);
                }
                self.before_asking_again().await;
            }
        };
        self.in_time(asked).await
    }

    async fn demote_through(&self, id: u64, is_passed_on: bool) -> Result<Set, Status> {
        if self.leads().is_some() || is_passed_on {
            return self.demote_here(id).await;
        }
        let answer = self.ask_leader(async |way| {
            client(way).demote(way.call(AutopilotDemoteRequest { id })).await
        });
        Ok(set_of_answer(answer.await?.into_inner()))
    }

    async fn demote_here(&self, id: u64) -> Result<Set, Status> {
        let (site, server) = (Site::new(self.clone()), server_id(NodeId(id)));
        // A try before this one may have held it.
        let is_held = || {
            let settings = self.autopilot_settings();
            settings.is_ok_and(|settings| settings.config.held.contains(&server))
        };
        let leads = self.leader() == Some(NodeId(id));
        let refused = |error: RaftError| refused(&error, is_held(), leads);
        site.judge_demotion(&server).await.map_err(refused)?;
        // Before its vote goes: autopilot must not see a learner that it may promote.
        let set = self.hold_here(id, true).await?;
        let demoted = site.change(Action::DemoteVoter { id: server.clone() }, Index(0)).await;
        demoted.map_err(refused)?;
        let member = server.as_str();
        tracing::info!(target: "quorate::autopilot", member, "demoted by an operator");
        Ok(set)
    }
}

fn set_of_answer(answer: AutopilotConfigResponse) -> Set {
    let AutopilotConfigResponse { json, create_index, modify_index, warnings } = answer;
    Set { json, created: create_index, modified: modify_index, warnings }
}

/// Who is held stays so until it is released: it is said, since nobody may have asked for it. Who leads can lose
/// its vote once another does.
fn refused(error: &RaftError, is_held: bool, leads: bool) -> Status {
    let hint = if leads { " (quorate move-leader ID), then try again" } else { "" };
    let held = if is_held { "; the member is held now, until it is released" } else { "" };
    match error {
        RaftError::NotLeader { .. } => status::of_kv(KvError::NotLeader),
        RaftError::UnknownServer(_) => status::of_kv(KvError::MemberNotFound),
        RaftError::ConfigChangeInProgress
        | RaftError::ProposalDropped
        | RaftError::Unknown
        | RaftError::Timeout(_) => Status::unavailable(format!("autopilot: {error}{held}")),
        error => Status::failed_precondition(format!("autopilot: {error}{hint}{held}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demotion_that_fails_says_whether_the_member_is_held() {
        let error = RaftError::Refused("unhealthy cluster".to_owned());
        for (is_held, want) in [
            (false, "autopilot: refused: unhealthy cluster"),
            (
                true,
                "autopilot: refused: unhealthy cluster; the member is held now, until it is released",
            ),
        ] {
            assert_eq!(refused(&error, is_held, false).message(), want);
        }
        let leads = RaftError::Refused("1 leads; leadership has to go over first".to_owned());
        assert_eq!(
            refused(&leads, false, true).message(),
            "autopilot: refused: 1 leads; leadership has to go over first (quorate move-leader ID), then try \
             again"
        );
        let moved = refused(&RaftError::NotLeader { leader: None }, true, true);
        assert!(is_passing(&moved), "it is asked of the next leader");
    }
}
