use std::ffi::OsString;

use super::*;

fn given(flags: &[(&str, &str)]) -> Sources {
    let mut sources = Sources::default();
    for (flag, value) in flags {
        sources.flag(flag, value).unwrap();
    }
    sources
}

fn variables(sources: &mut Sources, variables: &[(&str, &str)]) {
    sources.environment(
        variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))),
    );
}

#[test]
fn without_any_setting_there_is_one_node_on_the_default_ports() {
    let config = Sources::default().config().unwrap();
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(join(&config.listen_client_urls), "http://localhost:2379");
    assert_eq!(join(&config.advertise_client_urls), "http://localhost:2379");
    assert_eq!(join(&config.listen_peer_urls), "http://localhost:2380");
    assert_eq!(config.initial_cluster["default"], config.initial_advertise_peer_urls);
    assert_eq!(config.initial_cluster_state, ClusterState::New);
    assert_eq!(config.initial_cluster_token, "etcd-cluster");
    assert!(!config.describes_cluster);
    assert_eq!((config.heartbeat_ms, config.election_ms), (100, 1000));
    assert_eq!(config.snapshot_count, 10_000);
    assert_eq!(config.quota_bytes_max, Some(2 << 30));
    assert_eq!(config.request_bytes_max, 1_572_864);
    assert_eq!(config.txn_ops_max, 128);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn the_cluster_is_by_default_this_member_under_its_name() {
    let flags = [("name", "n1"), ("initial-advertise-peer-urls", "http://a:1,http://b:1")];
    let config = given(&flags).config().unwrap();
    assert_eq!(config.initial_cluster.len(), 1);
    assert_eq!(join(&config.initial_cluster["n1"]), "http://a:1,http://b:1");
    assert_eq!(config.data_dir, PathBuf::from("n1.etcd"));
    assert!(config.describes_cluster);
}

#[test]
fn a_name_in_the_list_may_repeat() {
    let flags = [
        ("name", "a"),
        ("initial-advertise-peer-urls", "http://h:2,http://h:1"),
        ("initial-cluster", "a=http://h:1,b=http://i:1,a=http://h:2"),
    ];
    let config = given(&flags).config().unwrap();
    assert_eq!(join(&config.initial_cluster["a"]), "http://h:1,http://h:2");
    assert_eq!(join(&config.initial_cluster["b"]), "http://i:1");
}

/// The order in which places are asked, each asked alone and against all below it.
#[test]
fn places_beat_each_other_in_a_fixed_order() {
    for (command, quorate, etcd, file, want) in [
        ("1", "2", "3", "4", "1"),
        ("", "2", "3", "4", "2"),
        ("", "", "3", "4", "3"),
        ("", "", "", "4", "4"),
        ("", "", "", "", "default"),
    ] {
        let mut sources = Sources::default();
        // Whatever the order of reading.
        if !file.is_empty() {
            sources.toml("q.toml", &format!("name = {file:?}"));
        }
        if !command.is_empty() {
            sources.flag("name", command).unwrap();
        }
        variables(&mut sources, &[("ETCD_NAME", etcd), ("QUORATE_NAME", quorate)]);
        assert_eq!(sources.config().unwrap().name, want, "{command}|{quorate}|{etcd}|{file}");
    }
}

#[test]
fn a_file_holds_texts_numbers_and_lists() {
    let mut sources = Sources::default();
    sources.toml(
        "q.toml",
        r#"
            name = "a"
            election-timeout = 2000
            max-txn-ops = "7"
            listen-client-urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
            advertise-client-urls = "http://127.0.0.1:1"
            initial-advertise-peer-urls = "http://h:1"
            [initial-cluster]
            a = "http://h:1"
            b = ["http://i:1", "http://i:2"]
        "#,
    );
    let config = sources.config().unwrap();
    assert_eq!(config.name, "a");
    assert_eq!(config.election_ms, 2000);
    assert_eq!(config.txn_ops_max, 7);
    assert_eq!(config.listen_client_urls.len(), 2);
    assert_eq!(join(&config.initial_cluster["b"]), "http://i:1,http://i:2");
}

#[test]
fn files_that_cannot_be_used_say_why() {
    for (text, want) in [
        ("name: n1", "not TOML"),
        ("nme = \"a\"", "no setting \"nme\""),
        ("data_dir = \"a\"", "did you mean \"data-dir\"?"),
        ("config-file = \"other\"", "no setting \"config-file\""),
        ("name = 1.5", "\"a float\" is not text"),
        ("heartbeat-interval = -1", "not a whole number"),
    ] {
        let mut sources = Sources::default();
        sources.toml("q.toml", text);
        let problems = sources.config().unwrap_err().to_string();
        assert!(problems.contains(want), "{text}: {problems}");
    }
    let missing = given(&[("config-file", "/nonexistent/q.toml")]);
    let mut missing = missing;
    missing.file();
    let problems = missing.config().unwrap_err().to_string();
    assert!(problems.contains("/nonexistent/q.toml"), "{problems}");
}

#[test]
fn variables_of_others_are_left_alone_and_etcds_own_are_warned_about() {
    let mut sources = Sources::default();
    variables(
        &mut sources,
        &[
            ("ETCDCTL_API", "3"),
            ("QUORATE_ENDPOINTS", "x"),
            ("ETCD_CERT_FILE", "c.pem"),
            ("ETCD_NAME", ""),
            ("PATH", "/bin"),
        ],
    );
    let config = sources.config().unwrap();
    assert_eq!(config.name, "default", "an empty variable counts as absent");
    assert_eq!(config.warnings, ["ETCD_CERT_FILE is set and has no meaning here"]);
}

#[test]
fn single_settings_that_cannot_work_are_named() {
    for (flag, value, want) in [
        ("election-timeout", "soon", "--election-timeout: \"soon\" is not a whole number"),
        ("election-timeout", "50001", "use 1 to 50000"),
        ("heartbeat-interval", "0", "--heartbeat-interval: 0 is out of range"),
        ("heartbeat-interval", "99999999999999999999", "is not a whole number"),
        ("snapshot-count", "0", "--snapshot-count: 0 is out of range"),
        ("max-request-bytes", "100", "use 1024 to 10485760"),
        ("max-request-bytes", "20000000", "use 1024 to 10485760"),
        ("max-txn-ops", "0", "use 1 to 100000"),
        ("quota-backend-bytes", "2GB", "not a whole number of bytes"),
        ("initial-cluster-state", "old", "is not new or existing"),
        ("log-level", "loud", "is not trace, debug, info, warn or error"),
        ("log-format", "xml", "is not json or text"),
        ("name", "", "it is empty"),
        ("name", "a=b", "have a meaning in --initial-cluster"),
        ("name", "a\nb", "control characters"),
        ("name", "a/b", "set --data-dir"),
        ("listen-client-urls", "http://example.com:2379", "not the name \"example.com\""),
        ("listen-peer-urls", "https://localhost:2380", "TLS, which is not supported yet"),
        ("listen-peer-urls", "http://localhost:1,http://localhost:1", "is there twice"),
        ("advertise-client-urls", "http://:1", "http://host:port"),
        ("initial-advertise-peer-urls", "", "an empty URL"),
        ("initial-cluster", "http://localhost:2380", "is not NAME=URL"),
        ("initial-cluster", "=http://localhost:2380", "is not NAME=URL"),
        ("initial-cluster", "", "is not NAME=URL"),
    ] {
        let problems = given(&[(flag, value)]).config().unwrap_err().to_string();
        assert!(problems.contains(want), "{flag}={value}: {problems}");
    }
}

#[test]
fn settings_that_do_not_fit_together_are_named() {
    for (flags, want) in [
        (&[("heartbeat-interval", "300")][..], "make the timeout at least 1500 ms"),
        (
            &[("listen-client-urls", "http://127.0.0.1:9")],
            "Try --advertise-client-urls http://127.0.0.1:9",
        ),
        (&[("listen-peer-urls", "http://localhost:2379")], "both name http://localhost:2379"),
        (
            &[("initial-cluster", "a=http://h:1,b=http://h:2")],
            "names a, b, and not this member, \"default\"",
        ),
        (
            &[("initial-cluster", "default=http://h:1")],
            "gives default the peer URLs http://h:1, --initial-advertise-peer-urls says \
             http://localhost:2380",
        ),
        (
            &[("initial-cluster", "default=http://localhost:2380,b=http://localhost:2380")],
            "--initial-cluster: http://localhost:2380 is there twice",
        ),
    ] {
        let problems = given(flags).config().unwrap_err().to_string();
        assert!(problems.contains(want), "{flags:?}: {problems}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let sources = given(&[("election-timeout", "x"), ("name", ""), ("log-level", "y")]);
    assert_eq!(sources.config().unwrap_err().0.len(), 3);
    let sources = given(&[
        ("heartbeat-interval", "999"),
        ("initial-cluster", "b=http://h:2"),
        ("listen-client-urls", "http://127.0.0.1:9"),
    ]);
    assert_eq!(sources.config().unwrap_err().0.len(), 3);
}

#[test]
fn edges_of_ranges_work() {
    for (flag, value) in [
        ("election-timeout", "500"),
        ("election-timeout", "50000"),
        ("heartbeat-interval", "200"),
        ("max-request-bytes", "1024"),
        ("max-request-bytes", "10485760"),
        ("max-txn-ops", "1"),
    ] {
        given(&[(flag, value)]).config().unwrap();
    }
    for (value, want) in [("0", Some(2 << 30)), ("-1", None), ("1000", Some(1000))] {
        let config = given(&[("quota-backend-bytes", value)]).config().unwrap();
        assert_eq!(config.quota_bytes_max, want);
    }
}

#[test]
fn what_works_and_may_not_be_meant_is_warned_about() {
    for (flags, want) in [
        (&[("advertise-client-urls", "http://0.0.0.0:2379")][..], "nobody can connect"),
        (
            &[("initial-cluster", "default=http://localhost:2380,b=http://h:1")],
            "as many failures are survived with 1",
        ),
    ] {
        let warnings = given(flags).config().unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(want), "{warnings:?}");
    }
}

#[test]
fn unknown_flags_are_refused() {
    let error = Sources::default().flag("colour", "x").unwrap_err();
    assert_eq!(error.to_string(), "command line: no setting \"colour\"");
}
