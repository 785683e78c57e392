//! What the leader's autopilot would do next, and why it would not do more, member by member.

use quorate_autopilot::{Outlook, State};
use quorate_kv::KvError;
use quorate_proto::quoratepb::AutopilotExplainRequest;
use serde_json::{Map, Value, json};
use tonic::Status;

use super::answers::{Asked, client};
use super::telling::kind;
use crate::local::Local;
use crate::status;
use crate::way::is_passing;

impl Local {
    /// The next round of this cluster's leader, as JSON. Nothing is done.
    pub(crate) async fn explain_autopilot(&self, is_passed_on: bool) -> Result<String, Status> {
        let asked = async {
            loop {
                let told = match self.ask_autopilot(is_passed_on).await? {
                    Asked::Here(_) => match self.pilot().outlook().await {
                        Some((state, outlook)) => Ok(self.outlook_json(&state, &outlook)),
                        None => Err(status::of_kv(KvError::NotLeader)),
                    },
                    Asked::There => {
                        let answer = self.ask_leader(async |way| {
                            client(way).explain(way.call(AutopilotExplainRequest {})).await
                        });
                        answer.await.map(|answer| answer.into_inner().json)
                    }
                };
                match told {
                    Err(error) if is_passing(&error) && !is_passed_on => {
                        self.before_asking_again().await;
                    }
                    told => return told,
                }
            }
        };
        self.in_time(asked).await
    }

    fn outlook_json(&self, state: &State, outlook: &Outlook) -> String {
        let settings = self.autopilot_settings();
        let is_paused = settings.as_ref().is_ok_and(|settings| settings.is_paused);
        let errors: Vec<String> =
            settings.err().map(|error| error.to_string()).into_iter().collect();
        explained(state, outlook, is_paused, errors)
    }
}

fn explained(state: &State, outlook: &Outlook, is_paused: bool, mut errors: Vec<String>) -> String {
    let actions = outlook.actions.iter().map(|(why, action)| {
        json!({
            "Kind": kind(action),
            "Servers": action.servers().iter().map(|id| id.as_str()).collect::<Vec<_>>(),
            "Change": action.to_string(),
            "Why": why,
        })
    });
    let refusals = outlook.refusals.iter().map(|refusal| {
        json!({
            "Kind": refusal.wanted.to_string(),
            "Server": refusal.id.as_str(),
            "Code": refusal.why.code(),
            "Why": refusal.why.to_string(),
        })
    });
    let of_policy = |name: &str| state.ext.as_ref()?.get("reasons")?.get(name).cloned();
    let reasons = of_policy("servers").unwrap_or_default();
    let servers = state.servers.iter().map(|(id, one)| {
        let reason = reasons.get(id.as_str()).cloned().unwrap_or_default();
        (id.0.clone(), json!({ "Name": one.server.name, "Reason": reason }))
    });
    errors.extend(outlook.errors.iter().cloned());
    let json = json!({
        "Paused": is_paused,
        "Actions": actions.collect::<Vec<_>>(),
        "Refusals": refusals.collect::<Vec<_>>(),
        "Errors": errors,
        "Upgrade": of_policy("upgrade").unwrap_or_default(),
        "Servers": servers.collect::<Map<String, Value>>(),
    });
    json.to_string()
}

#[cfg(test)]
mod tests {
    use quorate_autopilot::{Action, Reason, Refusal, Wanted};

    use super::*;

    #[test]
    fn an_outlook_is_told_with_all_its_reasons() {
        let replace = Action::ReplaceVoter {
            demoted: "a".into(),
            promoted: "b".into(),
            address: "http://h:1".to_owned(),
        };
        let refusal = Refusal { wanted: Wanted::Removal, id: "c".into(), why: Reason::Held };
        let outlook = Outlook {
            actions: vec![("unhealthy".to_owned(), replace)],
            refusals: vec![refusal],
            errors: vec!["prune ended".to_owned()],
        };
        let json = explained(&State::default(), &outlook, true, vec!["settings".to_owned()]);
        let told: Value = serde_json::from_str(&json).unwrap();
        let want = json!({
            "Paused": true,
            "Actions": [{
                "Kind": "replacement",
                "Servers": ["a", "b"],
                "Change": "replace a by b@http://h:1",
                "Why": "unhealthy",
            }],
            "Refusals": [{ "Kind": "removal", "Server": "c", "Code": "held", "Why": "held" }],
            "Errors": ["settings", "prune ended"],
            "Upgrade": null,
            "Servers": {},
        });
        assert_eq!(told, want);
    }
}
