//! States from inputs as JSON: golden cases, and what is no input.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{InputError, evaluate};

fn cases(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Each case is a folder with `inputs.json` and the state it gives; both were read by a person.
#[test]
fn golden_cases_give_their_states_to_the_byte() {
    let cases = cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens"));
    assert!(12 <= cases.len(), "only {} cases", cases.len());
    for case in cases {
        let state = evaluate(read(&case.join("inputs.json")).as_bytes()).unwrap();
        assert_eq!(state, read(&case.join("state.json")), "{}", case.display());
    }
}

/// The reference's own cases, where its data is at hand beside the checkout.
#[test]
fn golden_cases_of_the_reference_give_their_states_to_the_byte() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let places = ["../shared", "../../shared"].map(|place| root.join(place));
    let folders = places.map(|place| place.join("conformance/autopilot/testdata"));
    let Some(folder) = folders.into_iter().find(|folder| folder.exists()) else {
        eprintln!("skipped: the reference's data is not at hand");
        return;
    };
    for case in cases(&folder) {
        let state = evaluate(read(&case.join("inputs.json")).as_bytes()).unwrap();
        assert_eq!(state, read(&case.join("state.json.golden")), "{}", case.display());
    }
}

fn refusal(json: &str) -> String {
    evaluate(json.as_bytes()).map_err(|error| error.to_string()).expect_err(json)
}

#[test]
fn what_is_no_input_is_refused_and_the_member_named() {
    for (json, want) in [
        ("[]", "the input: is a list and not an object"),
        ("null", "the input: is nothing and not an object"),
        ("3", "the input: is 3 and not an object"),
        ("{}", "Config: is missing"),
        (r#"{"Config": {}}"#, "RaftConfig: is missing"),
        (r#"{"RaftConfig": {}}"#, "Config: is missing"),
        (r#"{"Config": null, "RaftConfig": {}}"#, "Config: is missing"),
        (r#"{"Config": {}, "RaftConfig": null}"#, "RaftConfig: is missing"),
        (r#"{"Config": 1, "RaftConfig": {}}"#, "Config: is 1 and not an object"),
        (r#"{"Config": {}, "RaftConfig": []}"#, "RaftConfig: is a list and not an object"),
    ] {
        assert_eq!(refusal(json), want, "{json}");
    }
    for (member, want) in [
        (r#""Now": "yesterday""#, "Now: is \"yesterday\" and not a time"),
        (r#""Now": 5"#, "Now: is 5 and not a time"),
        (r#""FirstStateTime": "2020-02-30T00:00:00Z""#, "FirstStateTime: "),
        (r#""LatestIndex": -1"#, "LatestIndex: is -1 and not a whole number from 0"),
        (r#""LatestIndex": 1.5"#, "LatestIndex: is 1.5 and not"),
        (r#""LastTerm": "3""#, "LastTerm: is \"3\" and not"),
        (r#""LastTerm": 18446744073709551616"#, "LastTerm: is "),
        (r#""LeaderID": 7"#, "LeaderID: is 7 and not a text"),
        (r#""IsLeader": "yes""#, "IsLeader: is \"yes\" and not true or false"),
        (r#""KnownServers": []"#, "KnownServers: is a list and not an object"),
        (r#""KnownServers": {"a": 1}"#, "KnownServers.a: is 1 and not an object"),
        (r#""KnownServers": {"a": {"Meta": {"k": 1}}}"#, "KnownServers.a.Meta.k: is 1 and not"),
        (r#""KnownServers": {"a": {"Meta": "k"}}"#, "KnownServers.a.Meta: is \"k\" and not"),
        (r#""KnownServers": {"a": {"RaftVersion": 2.5}}"#, "KnownServers.a.RaftVersion: is 2.5"),
        (
            r#""FetchedStats": {"a": {"LastContact": "1s"}}"#,
            "FetchedStats.a.LastContact: is \"1s\"",
        ),
        (r#""CurrentState": 3"#, "CurrentState: is 3 and not an object"),
        (r#""CurrentState": {"Voters": {}}"#, "CurrentState.Voters: is an object and not a list"),
        (r#""CurrentState": {"Voters": ["a", 4]}"#, "CurrentState.Voters[1]: is 4 and not a text"),
        (
            r#""CurrentState": {"Servers": {"a": {"Health": {"StableSince": "x"}}}}"#,
            "CurrentState.Servers.a.Health.StableSince: is \"x\" and not a time",
        ),
        (
            r#""CurrentState": {"Servers": {"a": {"Health": 1}}}"#,
            "CurrentState.Servers.a.Health: is 1 and not an object",
        ),
    ] {
        let refusal = refusal(&format!(r#"{{"Config": {{}}, "RaftConfig": {{}}, {member}}}"#));
        assert!(refusal.starts_with(want), "{member}: {refusal}");
    }
    for (config, want) in [
        (r#"{"MinQuorum": -3}"#, "Config.MinQuorum: is -3 and not"),
        (r#"{"LastContactThreshold": "200ms"}"#, "Config.LastContactThreshold: is \"200ms\""),
        (r#"{"CleanupDeadServers": 1}"#, "Config.CleanupDeadServers: is 1 and not true or false"),
    ] {
        let refusal = refusal(&format!(r#"{{"Config": {config}, "RaftConfig": {{}}}}"#));
        assert!(refusal.starts_with(want), "{config}: {refusal}");
    }
    for (servers, want) in [
        (r#"[{"Suffrage": "voter"}]"#, "RaftConfig.Servers[0].Suffrage: is \"voter\" and not"),
        (r#"[{}, 3]"#, "RaftConfig.Servers[1]: is 3 and not an object"),
        (r#"{}"#, "RaftConfig.Servers: is an object and not a list"),
    ] {
        let json = format!(r#"{{"Config": {{}}, "RaftConfig": {{"Servers": {servers}}}}}"#);
        assert!(refusal(&json).starts_with(want), "{servers}: {}", refusal(&json));
    }
    for json in ["", "{", "{} {}", "{'Config': 1}", "\u{feff}{}"] {
        assert!(matches!(evaluate(json.as_bytes()), Err(InputError::NotJson(_))), "{json}");
    }
    assert!(matches!(evaluate(b"{\"\xff\": 1}"), Err(InputError::NotJson(_))));
}

#[test]
fn missing_and_null_members_are_zero_and_unknown_ones_nothing() {
    let want = "{\n   \"Healthy\": true,\n   \"FailureTolerance\": 0,\n   \"Servers\": {},\n   \
                \"Leader\": \"\",\n   \"Voters\": null,\n   \"Ext\": null\n}";
    for json in [
        r#"{"Config": {}, "RaftConfig": {}}"#,
        r#"{"Config": {"Ext": {"a": 1}}, "RaftConfig": {"Servers": []}, "AliveServers": 3}"#,
        r#"{"Config": {"MinQuorum": null}, "RaftConfig": {"Servers": null}, "Now": null,
            "KnownServers": null, "LatestIndex": null, "FetchedStats": null, "LeaderID": null,
            "IsLeader": null, "CurrentState": null, "Unknown": {"deep": [1]}}"#,
        r#"{"Config": {}, "RaftConfig": {}, "CurrentState": {}}"#,
        r#"{"Config": {}, "RaftConfig": {},
            "CurrentState": {"Healthy": true, "Voters": ["a"], "Leader": "a", "Ext": 3}}"#,
    ] {
        assert_eq!(evaluate(json.as_bytes()).unwrap(), want, "{json}");
    }
    let json = r#"{"Config": {}, "RaftConfig": {"Servers": [null]}, "KnownServers": {"": null}}"#;
    let state: Value = serde_json::from_str(&evaluate(json.as_bytes()).unwrap()).unwrap();
    assert_eq!(state["Servers"][""]["Health"]["StableSince"], "0001-01-01T00:00:00Z");
    assert_eq!(state["Servers"][""]["Server"]["NodeStatus"], "");
}

#[test]
fn a_state_that_was_written_can_be_read_as_the_one_before() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/several-kinds");
    let mut inputs: Value = serde_json::from_str(&read(&case.join("inputs.json"))).unwrap();
    let state = read(&case.join("state.json"));
    inputs["CurrentState"] = serde_json::from_str(&state).unwrap();
    assert_eq!(evaluate(inputs.to_string().as_bytes()).unwrap(), state, "nothing has changed");
}
