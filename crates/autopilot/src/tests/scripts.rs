//! Stories of the built-in policies, as scripts: what happens stands above `---`, what autopilot makes of
//! it below. With `QUORATE_REWRITE` set in the environment the scripts are written anew, where the tests were
//! built and nowhere else; read them before they are committed.
//!
//! ```text
//! set zones | min-quorum N | target N | no-migration | strict | parity | replace | dead-after S | keep-dead
//! voters a1 b1=2.0.0 …     join and vote; the first voter ever leads
//! join n1=2.0.0 r1! …      join without a vote; ! marks a read replica
//! kill, revive, suspect, well, unstarted, leave, forget, remove  IDS
//! lacking, ready  IDS      too much of the log is missing there for a vote, or no more
//! unable, able  IDS        leadership fails to go over to them, or no more
//! version V IDS            they run that version now
//! hold, release  IDS       an operator wants them left as they are, or not any more
//! lead ID | elect          another leader, who remembers nothing
//! wait SECONDS             with an update every two
//! round [N]                a round, or N; without a word if all goes well and nothing is to do
//! prune                    dead servers go
//! show | types | zones | why IDS | migration
//! ```

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::model::{Model, Peer, text};
use crate::*;

#[test]
fn stories_end_as_they_are_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    #[expect(clippy::disallowed_methods, reason = "a test may be told to rewrite its files")]
    let rewrites = std::env::var("QUORATE_REWRITE").is_ok();
    let here = std::env::current_dir().unwrap();
    assert!(
        !rewrites || here == Path::new(env!("CARGO_MANIFEST_DIR")),
        "built from another tree than {}: its scripts are not to be written anew",
        here.display()
    );
    let (mut count, mut others) = (0, String::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        let got = run(&script);
        if rewrites {
            std::fs::write(&path, &got).unwrap();
        }
        if got != script {
            writeln!(others, "{}:\n{got}", path.display()).unwrap();
        }
        count += 1;
    }
    assert!(others.is_empty(), "stories that end otherwise than they are told:\n{others}");
    assert!(10 <= count, "only {count} scripts");
}

#[test]
fn versions_are_compared_by_precedence() {
    for (old, new, status, round) in [
        ("2.4.0", "2.4.0", "idle", "add-voter n"),
        ("2.4.0-blue.1", "2.4.0-blue.2", "promoting: 1 of 1", "add-voter n"),
        ("2.4.0-blue.9", "2.4.0-blue.10", "promoting: 1 of 1", "add-voter n"),
        ("2.4.0-blue.1", "2.4.0", "promoting: 1 of 1", "add-voter n"),
        // Those that are there are the target.
        ("2.4.0", "2.4.0-blue.1", "await-server-removal", "nothing"),
        ("2.4.0+a.1", "2.4.0+a.2", "idle", "add-voter n"),
        // What is no version is taken for the leader's.
        ("2.4.0", "2.4", "idle", "add-voter n"),
        ("2.4.0", "", "idle", "add-voter n"),
    ] {
        let told = format!("voters o={old}\njoin n={new}\nwait 20\nmigration\nround");
        let want = format!("{told}\n---\n{status}\n{round}\n");
        assert_eq!(run(&told), want, "{old} and {new}");
    }
}

/// Each with the plan of the policies where one takes part, without zones and with them.
#[test]
fn each_status_of_a_migration_plans_what_its_row_says() {
    let old = "voters a1=1.0.0 b1=1.0.0 c1=1.0.0\nwait 20\nround";
    let all_new = "join a2=2.0.0 b2=2.0.0 c2=2.0.0\nwait 20";
    let gone_over = "voters a2=2.0.0 b2=2.0.0";
    for (told, status, stable, zoned) in [
        (
            format!("set no-migration\n{old}\njoin d2=2.0.0\nwait 20"),
            "disabled",
            "add-voter d2",
            "add-voter d2",
        ),
        (format!("{old}\njoin d1=1.0.0\nwait 20"), "idle", "add-voter d1", "add-voter d1"),
        (
            // An old one that is dead loses its vote to its zone's standby, and a newer one gets none.
            format!("{old}\njoin c3=1.0.0 a2=2.0.0\nwait 20\nkill c1\nwait 2"),
            "await-new-voters: 1 of 3",
            "add-voter c3",
            "demote c1, add-voter c3",
        ),
        (
            format!("{old}\n{all_new}"),
            "promoting: 3 of 3",
            "add-voter a2, add-voter b2, add-voter c2",
            "add-voter a2, add-voter b2, add-voter c2",
        ),
        (
            format!("{old}\n{all_new}\nround\nkill c1\nwait 2"),
            "demoting: 3 of 3",
            "demote c1, demote b1",
            "demote c1, demote b1",
        ),
        (
            format!("{old}\n{all_new}\nround 2"),
            "leader-transfer: 3 of 3",
            "transfer to a2",
            "transfer to a2",
        ),
        (
            format!("{gone_over}\njoin a1=1.0.0 b1=1.0.0 c1=1.0.0 d1=1.0.0 c2=2.0.0\nwait 20"),
            "await-new-servers",
            "add-voter c2",
            "add-voter c2",
        ),
        (
            format!("{gone_over}\njoin a1=1.0.0 c1=1.0.0 c2=2.0.0\nwait 20"),
            "await-server-removal",
            "add-voter c2",
            "add-voter c2",
        ),
    ] {
        for (zones, want) in [("", stable), ("set zones\n", zoned)] {
            let told = format!("{zones}{told}\nmigration\nround");
            let heard = run(&told);
            let heard: Vec<&str> = heard.lines().collect();
            let [.., status_heard, round] = heard[..] else { panic!("{told}: {heard:?}") };
            assert!(status_heard.starts_with(status), "{told}\n{heard:?}");
            assert_eq!(round, want, "{told}");
        }
    }
}

fn run(script: &str) -> String {
    let mut story = Story::new();
    let mut blocks = Vec::new();
    for block in script.trim_end().split("\n\n") {
        let told = block.split("\n---").next().unwrap_or_default();
        let mut heard = String::new();
        for line in told.lines().filter(|line| !line.starts_with('#')) {
            story.tell(line, &mut heard);
        }
        let is_comment = told.lines().all(|line| line.starts_with('#'));
        blocks.push(match (is_comment, heard.trim_end()) {
            (true, _) => told.to_owned(),
            (false, "") => format!("{told}\n---"),
            (false, heard) => format!("{told}\n---\n{heard}"),
        });
    }
    blocks.join("\n\n") + "\n"
}

struct Story {
    model: Model,
    policy: PolicyConfig,
}

impl Story {
    fn new() -> Story {
        let promoter = Arc::new(PolicyPromoter::new());
        let model = Model { promoter, ..Model::new() };
        Story { model, policy: PolicyConfig { target_voters: 0, ..PolicyConfig::default() } }
    }

    fn tell(&mut self, line: &str, heard: &mut String) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, rest) = words.split_first().expect(line);
        let model = &mut self.model;
        match *verb {
            "set" => self.set(rest),
            "voters" => rest.iter().for_each(|word| self.join(word, Suffrage::Voter)),
            "join" => rest.iter().for_each(|word| self.join(word, Suffrage::NonVoter)),
            "kill" => rest.iter().for_each(|id| model.peer(id).status = NodeStatus::Failed),
            "revive" => rest.iter().for_each(|id| model.peer(id).status = NodeStatus::Alive),
            "leave" => rest.iter().for_each(|id| model.peer(id).status = NodeStatus::Left),
            "unstarted" => rest.iter().for_each(|id| model.peer(id).status = NodeStatus::Unknown),
            "suspect" => rest.iter().for_each(|id| model.peer(id).is_well = false),
            "well" => rest.iter().for_each(|id| model.peer(id).is_well = true),
            "lacking" => rest.iter().for_each(|id| model.peer(id).is_ready = false),
            "ready" => rest.iter().for_each(|id| model.peer(id).is_ready = true),
            "unable" => rest.iter().for_each(|id| model.peer(id).may_lead = false),
            "able" => rest.iter().for_each(|id| model.peer(id).may_lead = true),
            "forget" => rest.iter().for_each(|id| model.peer(id).is_known = false),
            "remove" => {
                rest.iter().for_each(|id| _ = model.peers.remove(*id).expect(id));
            }
            "version" => {
                rest[1..].iter().for_each(|id| model.peer(id).version = rest[0].to_owned());
            }
            "hold" => model.config.held.extend(rest.iter().map(|id| ServerId::from(*id))),
            "release" => rest.iter().for_each(|id| _ = model.config.held.remove(*id)),
            "lead" => model.lead(Some(rest[0].into())),
            "elect" => model.elect(),
            "wait" => model.wait(rest[0].parse().expect(line)),
            "round" => {
                let count = rest.first().map_or(1, |count| count.parse().expect(line));
                (0..count).for_each(|_| self.round(heard));
            }
            "prune" => {
                let prune = model.prune();
                say(heard, &text(prune.actions()), "nothing is pruned");
                prune.refusals.iter().for_each(|refusal| writeln!(heard, "{refusal}").unwrap());
            }
            "show" => self.show(heard),
            "types" => {
                model.update();
                let types = model
                    .state
                    .servers
                    .iter()
                    .map(|(id, server)| format!("{id} {}", server.server.node_type));
                writeln!(heard, "{}", types.collect::<Vec<_>>().join(", ")).unwrap();
            }
            "zones" => {
                let ext = self.ext();
                for (zone, of) in ext["redundancy_zones"].as_object().unwrap() {
                    let list = |name: &str| words_of(&of[name]);
                    let (servers, voters) = (list("servers"), list("voters"));
                    let tolerance = &of["failure_tolerance"];
                    writeln!(heard, "{zone}: {servers}; votes: {voters}; tolerance {tolerance}")
                        .unwrap();
                }
            }
            "why" => {
                let ext = self.ext();
                for id in rest {
                    let why = ext["reasons"]["servers"][*id].as_str().unwrap_or("?");
                    writeln!(heard, "{id}: {why}").unwrap();
                }
            }
            "migration" => {
                let ext = self.ext();
                writeln!(heard, "{}", ext["reasons"]["upgrade"].as_str().unwrap()).unwrap();
            }
            _ => panic!("no such verb: {line}"),
        }
        self.model.config.ext = Some(self.policy.to_ext());
    }

    fn set(&mut self, words: &[&str]) {
        let number = |word: usize| -> u64 { words[word].parse().unwrap() };
        let model = &mut self.model;
        match words[0] {
            "zones" => self.policy.redundancy_zone_tag = "zone".to_owned(),
            "no-migration" => self.policy.disable_upgrade_migration = true,
            "target" => self.policy.target_voters = number(1),
            "min-quorum" => model.config.min_quorum = number(1),
            "keep-dead" => model.config.cleanup_dead_servers = false,
            "strict" => model.strictness = Strictness::server(),
            "parity" => model.strictness = Strictness::parity(),
            "replace" => model.can_replace = true,
            "dead-after" => {
                model.strictness.dead_server_threshold = Span::from_secs(number(1) as i64);
            }
            other => panic!("nothing to set: {other}"),
        }
    }

    /// The first letter of its name is its zone, but for those that begin with `_`.
    fn join(&mut self, word: &str, suffrage: Suffrage) {
        let (id, version) = word.split_once('=').unwrap_or((word, ""));
        let is_replica = id.ends_with('!');
        let id = id.trim_end_matches('!');
        let mut peer = Peer { version: version.to_owned(), ..Peer::new(suffrage) };
        let zone = &id[..1];
        if zone != "_" {
            peer.meta.insert("zone".into(), zone.into());
        }
        if is_replica {
            peer.meta.insert("read_replica".into(), "true".into());
        }
        let is_first = self.model.leader.is_none() && suffrage == Suffrage::Voter;
        self.model.peers.insert(id.into(), peer);
        if is_first {
            self.model.lead(Some(id.into()));
        }
    }

    fn round(&mut self, heard: &mut String) {
        match self.model.round() {
            Ok(round) => {
                say(heard, &text(&round.actions), "nothing");
                for refusal in round.refusals {
                    writeln!(heard, "  {refusal}").unwrap();
                }
            }
            Err(error) => writeln!(heard, "error: {error}").unwrap(),
        }
    }

    fn show(&mut self, heard: &mut String) {
        let ext = self.ext();
        let state = &self.model.state;
        let mut voters: Vec<&str> = state.voters.iter().map(ServerId::as_str).collect();
        voters.sort_unstable();
        let leader = state.leader.as_ref().map_or("nobody", ServerId::as_str);
        let (tolerance, optimistic) =
            (state.failure_tolerance, &ext["optimistic_failure_tolerance"]);
        let voters = voters.join(" ");
        writeln!(heard, "{leader} leads {voters}; tolerance {tolerance}, optimistic {optimistic}")
            .unwrap();
    }

    fn ext(&mut self) -> Value {
        self.model.update();
        self.model.state.ext.clone().expect("the policies always have something to show")
    }
}

fn say(heard: &mut String, actions: &str, nothing: &str) {
    writeln!(heard, "{}", if actions.is_empty() { nothing } else { actions }).unwrap();
}

fn words_of(list: &Value) -> String {
    let words = list.as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    words.collect::<Vec<_>>().join(" ")
}
