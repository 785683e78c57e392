use std::ffi::OsString;
use std::time::Duration;

use quorate_autopilot::Settings;

use super::*;
use crate::version::QUORATE_VERSION;

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
    let keepalive = (config.keepalive_interval, config.keepalive_timeout);
    assert_eq!(keepalive, (Duration::from_secs(2 * 60 * 60), Duration::from_secs(20)));
    assert_eq!(config.watch_progress_interval, Duration::from_secs(600));
    assert_eq!(config.quota_bytes_max, Some(2 << 30));
    assert_eq!(config.request_bytes_max, 1_572_864);
    assert_eq!(config.txn_ops_max, 128);
    assert_eq!(config.answer_bytes_max, 2 << 30);
    assert_eq!(config.auto_compaction, AutoCompaction::Off);
    assert_eq!(
        (config.corrupt_check_interval, config.initial_corrupt_check),
        (Duration::ZERO, false)
    );
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn autopilot_is_on_and_its_settings_begin_as_the_flags_say() {
    let config = Sources::default().config().unwrap().autopilot;
    assert!(config.is_on);
    let settings = &config.settings;
    assert!(!settings.config.cleanup_dead_servers, "nobody is removed unasked");
    assert!(settings.policy.target_voters == 0 && settings.policy.disable_upgrade_migration);
    assert_eq!((settings.config.min_quorum, settings.config.max_trailing_logs), (3, 10_000));
    assert_eq!(*settings, Settings::default());
    assert_eq!(settings.dead_server_threshold.to_string(), "24h0m0s");
    assert_eq!(config.update_interval, Duration::from_secs(2));
    assert_eq!(config.reconcile_interval, Duration::from_secs(10));
    assert_eq!((config.member_version.as_str(), config.member_tags.len()), (QUORATE_VERSION, 0));

    let config = given(&[
        ("autopilot-config", "min-quorum=5, redundancy-zone-tag=zone"),
        ("member-tags", "zone=a, rack=7"),
        ("member-version", "1.2.0"),
        ("election-timeout", "2000"),
    ]);
    let config = config.config().unwrap().autopilot;
    assert_eq!(config.settings.config.min_quorum, 5);
    assert_eq!(config.settings.policy.redundancy_zone_tag, "zone");
    assert_eq!(config.member_version, "1.2.0");
    let tags = [("rack", "7"), ("zone", "a")].map(|(key, tag)| (key.to_owned(), tag.to_owned()));
    assert_eq!(config.member_tags, tags.into());

    // No reason not to start: where anything is set it means nothing.
    let config = given(&[("autopilot-config", "min-quorum=5,target-voters=3")]).config().unwrap();
    assert_eq!(config.autopilot.settings.policy.target_voters, 3);
    let is_told = |warning: &String| warning.contains("target_voters: 3 are less than");
    assert!(config.warnings.iter().any(is_told), "{:?}", config.warnings);

    for (flags, is_on, learners_max) in [
        (&[("autopilot", "true")][..], true, 64),
        (&[("autopilot", "true"), ("max-learners", "5")], true, 5),
        (&[("autopilot", "false")], false, 1),
        (&[("autopilot", "false"), ("max-learners", "5")], false, 5),
        // Where members are fixed there is nothing to look after.
        (&[("engine", "zab")], false, 1),
    ] {
        let config = given(flags).config().unwrap();
        assert_eq!((config.autopilot.is_on, config.learners_max), (is_on, learners_max));
    }
    let refused = given(&[("engine", "zab"), ("autopilot", "true")]).config().unwrap_err();
    assert!(refused.to_string().contains("--autopilot true does not go with --engine zab"));
    let hasty = given(&[("autopilot-config", "dead-server-threshold=1m")]).config().unwrap();
    let warning = &hasty.warnings[0];
    assert!(
        warning.starts_with("--autopilot-config: dead_server_threshold: 1m0s is less"),
        "{warning}"
    );
    for (version, is_warned) in [("1.2.0-rc.1", false), ("v2.0.0", true), ("2.0", true)] {
        let warnings = given(&[("member-version", version)]).config().unwrap().warnings;
        let want = format!("--member-version {version}: migrations cannot compare it");
        let is_told = warnings.iter().any(|warning| warning.starts_with(&want));
        assert_eq!(is_told, is_warned, "{warnings:?}");
    }
}

#[test]
fn retentions_are_read_as_etcd_reads_them() {
    use AutoCompaction::{Off, Periodic, Revision};
    let seconds = Duration::from_secs;
    for (mode, retention, want) in [
        ("periodic", "0", Some(Off)),
        ("periodic", "0h", Some(Off)),
        ("periodic", "1", Some(Periodic(seconds(3600)))),
        ("periodic", "72", Some(Periodic(seconds(72 * 3600)))),
        ("periodic", "30m", Some(Periodic(seconds(1800)))),
        ("periodic", "1h30m", Some(Periodic(seconds(5400)))),
        ("periodic", "5s", Some(Periodic(seconds(5)))),
        ("revision", "0", Some(Off)),
        ("revision", "1000", Some(Revision(1000))),
        ("revision", "1h", None),
        ("revision", "-5", None),
        ("periodic", "-5", None),
        ("periodic", "1ms", None),
        ("periodic", "soon", None),
        ("periodic", "", None),
        ("sometimes", "1", None),
    ] {
        let flags = [("auto-compaction-mode", mode), ("auto-compaction-retention", retention)];
        let read = given(&flags).config().map(|config| config.auto_compaction);
        assert_eq!(read.ok(), want, "{mode} {retention}");
    }
}

#[test]
fn comparisons_are_set_by_time() {
    for (time, initial, want) in [
        ("0s", "false", Some((0, false))),
        ("0", "true", Some((0, true))),
        ("12h", "TRUE", Some((12 * 3600, true))),
        ("1ms", "true", None),
        ("12", "true", None),
        ("1h", "maybe", None),
    ] {
        let flags = [("corrupt-check-time", time), ("initial-corrupt-check", initial)];
        let read = given(&flags).config().ok();
        let read = read.map(|c| (c.corrupt_check_interval.as_secs(), c.initial_corrupt_check));
        assert_eq!(read, want, "{time} {initial}");
    }
}

#[test]
fn what_is_on_or_off_is_said_in_words() {
    let config = Sources::default().config().unwrap();
    assert!(config.is_reconfig_strict && !config.force_new_cluster);
    assert_eq!(config.learners_max, 64);
    for (text, want) in [
        ("true", Some(true)),
        ("FALSE", Some(false)),
        ("1", Some(true)),
        ("f", Some(false)),
        ("tRUE", None),
        ("yes", None),
        ("", None),
    ] {
        let config = given(&[("strict-reconfig-check", text)]).config();
        assert_eq!(config.ok().map(|config| config.is_reconfig_strict), want, "{text:?}");
    }
    let mut sources = Sources::default();
    sources.toml("q.toml", "strict-reconfig-check = false\nmax-learners = 3");
    let config = sources.config().unwrap();
    assert_eq!((config.is_reconfig_strict, config.learners_max), (false, 3));
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
fn a_name_in_the_list_may_repeat_and_the_order_makes_no_difference() {
    for cluster in
        ["a=http://h:1,b=http://i:1,a=http://h:2", "b=http://i:1,a=http://h:2,a=http://h:1"]
    {
        let flags = [
            ("name", "a"),
            ("initial-advertise-peer-urls", "http://h:2,http://h:1"),
            ("advertise-client-urls", "http://h:4,http://h:3"),
            ("initial-cluster", cluster),
        ];
        let config = given(&flags).config().unwrap();
        assert_eq!(join(&config.initial_cluster["a"]), "http://h:1,http://h:2");
        assert_eq!(join(&config.initial_cluster["b"]), "http://i:1");
        assert_eq!(join(&config.initial_advertise_peer_urls), "http://h:1,http://h:2");
        assert_eq!(join(&config.advertise_client_urls), "http://h:3,http://h:4");
    }
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
fn variables_of_others_are_left_alone_and_those_without_a_meaning_are_warned_about() {
    let mut sources = Sources::default();
    variables(
        &mut sources,
        &[
            ("ETCDCTL_API", "3"),
            ("QUORATE_ENDPOINTS", "x"),
            ("QUORATE_NMAE", "x"),
            ("ETCD_MAX_WALS", "5"),
            ("ETCD_NAME", ""),
            ("PATH", "/bin"),
        ],
    );
    let config = sources.config().unwrap();
    assert_eq!(config.name, "default", "an empty variable counts as absent");
    assert_eq!(
        config.warnings,
        ["QUORATE_NMAE", "ETCD_MAX_WALS"]
            .map(|name| format!("{name} is set and has no meaning here"))
    );
}

/// A value of a setting that cannot work, and what is said about it after the place it came from:
/// what is wrong, and what would do. Every setting has one, but for those that take any text.
const BAD: &[(&str, &str, &str)] = &[
    ("auto-compaction-mode", "daily", "\"daily\" is not periodic or revision"),
    ("auto-compaction-retention", "-1", "\"-1\" is not hours, a duration of 1s or more"),
    ("auto-compaction-retention", "10ms", "\"10ms\" is not hours, a duration of 1s or more"),
    ("corrupt-check-time", "soon", "\"soon\" is not a duration of 1s or more"),
    ("initial-corrupt-check", "yes", "\"yes\" is not true or false"),
    ("election-timeout", "soon", "\"soon\" is not a whole number"),
    ("election-timeout", "50001", "50001 is out of range; use 1 to 50000"),
    ("election-timeout", "1s", "\"1s\" is not a whole number"),
    ("engine", "paxos", "\"paxos\" is not raft or zab"),
    ("heartbeat-interval", "0", "0 is out of range; use 1 to 50000"),
    ("heartbeat-interval", "99999999999999999999", "is not a whole number"),
    ("heartbeat-interval", "-5", "\"-5\" is not a whole number"),
    ("snapshot-count", "0", "0 is out of range; use 1 to"),
    ("snapshot-count", "1e5", "\"1e5\" is not a whole number"),
    ("max-request-bytes", "100", "100 is out of range; use 1024 to 10485760"),
    ("max-request-bytes", "20000000", "use 1024 to 10485760"),
    ("max-request-bytes", "1MiB", "\"1MiB\" is not a whole number"),
    ("max-txn-ops", "0", "0 is out of range; use 1 to 100000"),
    ("max-txn-ops", "100001", "use 1 to 100000"),
    ("max-answer-bytes", "1048576", "use 16777216 to 1099511627776"),
    ("max-answer-bytes", "2GiB", "\"2GiB\" is not a whole number"),
    ("max-client-connections", "0", "0 is out of range; use 1 to 1048576"),
    ("max-client-connections", "many", "\"many\" is not a whole number"),
    (
        "grpc-keepalive-interval",
        "7200",
        "\"7200\" is not a duration of 1s or more, such as 2h, or 0",
    ),
    ("grpc-keepalive-interval", "999ms", "\"999ms\" is not a duration of 1s or more"),
    ("grpc-keepalive-timeout", "-1s", "\"-1s\" is not a duration of 1s or more"),
    (
        "watch-progress-notify-interval",
        "99ms",
        "\"99ms\" is not a duration of 100ms or more, such as 10m",
    ),
    ("quota-backend-bytes", "2GB", "\"2GB\" is not a whole number of bytes"),
    ("quota-backend-bytes", "99999999999999999999", "is not a whole number of bytes"),
    ("strict-reconfig-check", "yes", "\"yes\" is not true or false"),
    ("max-learners", "-1", "\"-1\" is not a whole number"),
    ("autopilot", "on", "\"on\" is not true or false"),
    ("autopilot-config", "min-quorum", "min-quorum: has no value; write NAME=VALUE"),
    (
        "autopilot-config",
        "min-quorum=0,cleanup-dead-servers=true",
        "min_quorum: cleanup_dead_servers is on",
    ),
    ("autopilot-config", "min-quorum=3, min_quorum=4", "min_quorum: is named twice"),
    ("autopilot-config", "max-quorum=3", "max_quorum: is no setting of autopilot; there are"),
    ("autopilot-update-interval", "2", "\"2\" is not a duration of 10ms or more, such as 2s"),
    ("autopilot-reconcile-interval", "0s", "\"0s\" is not a duration of 10ms or more"),
    ("autopilot-reconcile-interval", "9000000000000000000s", "is not a duration of 87600h"),
    ("watch-progress-notify-interval", "18446744073709550000s", "is not a duration of 87600h"),
    (
        "grpc-keepalive-timeout",
        "87601h",
        "is not a duration of 87600h, which is ten years, or less",
    ),
    ("corrupt-check-time", "87601h", "is not a duration of 87600h"),
    ("auto-compaction-retention", "87601", "is not a duration of 87600h"),
    ("member-version", "1\n0", "is not a version such as 1.2.0"),
    ("member-tags", "zone", "\"zone\" is not KEY=VALUE; write zone=a,rack=7"),
    ("member-tags", "zone=a,zone=b", "\"zone=b\" is a second value of one tag"),
    ("force-new-cluster", "2", "\"2\" is not true or false"),
    ("initial-cluster-state", "old", "\"old\" is not new or existing"),
    ("log-level", "loud", "\"loud\" is not trace, debug, info, warn or error"),
    ("log-format", "xml", "\"xml\" is not json or text"),
    ("name", "a=b", "= and , have a meaning in --initial-cluster"),
    ("name", "a\nb", "it has control characters"),
    ("name", "a/b", "the data directory would be called after it; set --data-dir"),
    ("listen-client-urls", "127.0.0.1:2379", "has no scheme http; write it as http://host:port"),
    (
        "listen-client-urls",
        "http://example.com:2379",
        "not the name \"example.com\"; use the address",
    ),
    ("listen-client-urls", "http://127.0.0.1", "does not have the form http://host:port"),
    ("listen-client-urls", "http://127.0.0.1:99999", "http://host:port"),
    ("listen-peer-urls", "https://localhost:2380", "TLS, which is not supported yet; use http://"),
    ("listen-peer-urls", "unix:///run/q.sock", "use http://host:port"),
    ("listen-metrics-urls", "metrics:9090", "has no scheme http; write it as http://host:port"),
    (
        "listen-peer-urls",
        "http://localhost:1,http://localhost:1",
        "http://localhost:1 is there twice",
    ),
    ("advertise-client-urls", "http://:1", "http://host:port"),
    ("advertise-client-urls", "http://a:1/v3", "must end after the port"),
    ("initial-advertise-peer-urls", "http://a:1,", "an empty URL; write it as http://host:port"),
    ("initial-cluster", "http://localhost:2380", "is not NAME=URL; write the list as n1=http://"),
    ("initial-cluster", "=http://localhost:2380", "is not NAME=URL"),
    ("initial-cluster", "a=localhost:2380", "has no scheme http; write it as http://host:port"),
    ("config-file", "/nonexistent/q.toml", "/nonexistent/q.toml: "),
];
/// A directory is found out to be unusable when it is used.
const ANY_TEXT: &[&str] = &["data-dir", "initial-cluster-token"];

#[test]
fn single_settings_that_cannot_work_are_named_wherever_they_come_from() {
    for flag in FLAGS {
        let is_there = BAD.iter().any(|(name, ..)| *name == flag.name);
        assert!(is_there != ANY_TEXT.contains(&flag.name), "--{} has no bad value here", flag.name);
    }
    for (flag, value, want) in BAD {
        let variable = flag.to_ascii_uppercase().replace('-', "_");
        let (quorate, etcd) = (format!("QUORATE_{variable}"), format!("ETCD_{variable}"));
        let mut sources = [given(&[(flag, value)]), Sources::default(), Sources::default()];
        variables(&mut sources[1], &[(&quorate, value)]);
        variables(&mut sources[2], &[(&etcd, value)]);
        for (mut sources, origin) in sources.into_iter().zip([format!("--{flag}"), quorate, etcd]) {
            sources.file();
            assert_told(&sources, &origin, flag, want);
        }
        if *flag != "config-file" {
            let mut sources = Sources::default();
            sources.toml("q.toml", &format!("{flag} = {value:?}"));
            assert_told(&sources, &format!("{flag} in "), flag, want);
        }
    }
}

#[track_caller]
fn assert_told(sources: &Sources, origin: &str, flag: &str, want: &str) {
    let problems = sources.config().unwrap_err().to_string();
    assert!(problems.contains(want), "{origin}: {problems}");
    // A file that cannot be read is named by its path.
    let is_named = problems.contains(origin) || flag == "config-file";
    assert!(is_named, "{origin} is not named: {problems}");
}

#[test]
fn empty_settings_are_told() {
    for (flag, want) in [
        ("name", "it is empty"),
        ("data-dir", "--data-dir: it is empty"),
        ("initial-advertise-peer-urls", "an empty URL; write it as http://host:port"),
        ("listen-client-urls", "an empty URL"),
        ("initial-cluster", "is not NAME=URL"),
        ("heartbeat-interval", "is not a whole number"),
        ("log-level", "is not trace"),
        ("config-file", "config file : "),
    ] {
        let mut sources = given(&[(flag, "")]);
        sources.file();
        let problems = sources.config().unwrap_err().to_string();
        assert!(problems.contains(want), "--{flag}: {problems}");
    }
}

#[test]
fn every_setting_refuses_types_it_is_not() {
    for flag in FLAGS.iter().filter(|flag| flag.name != "config-file") {
        for (value, kind) in [
            ("1.5", "float"),
            ("true", "boolean"),
            ("1979-05-27", "datetime"),
            ("[1, 2]", "array"),
            ("{ a = 1.5 }", "table"),
        ] {
            if (kind, flag.value) == ("boolean", "BOOL") {
                continue;
            }
            let mut sources = Sources::default();
            sources.toml("q.toml", &format!("{} = {value}", flag.name));
            let want = format!(
                "config file q.toml, {}: \"a {kind}\" is not text, number or list of texts",
                flag.name
            );
            let problems = sources.config().unwrap_err().to_string();
            assert!(problems.contains(&want), "{problems}, instead of {want}");
        }
    }
}

#[test]
fn text_that_is_not_utf_8_is_told() {
    use std::os::unix::ffi::OsStringExt;
    let mut sources = Sources::default();
    sources.environment([("QUORATE_NAME".into(), OsString::from_vec(vec![b'n', 0xff]))]);
    let problems = sources.config().unwrap_err().to_string();
    assert!(
        problems.contains("QUORATE_NAME: ") && problems.contains("text in UTF-8"),
        "{problems}"
    );
}

#[test]
fn settings_that_do_not_fit_together_are_named() {
    for (flags, want) in [
        (
            &[("engine", "zab"), ("initial-cluster-state", "existing")][..],
            "does not go with --engine zab",
        ),
        (
            &[("engine", "zab"), ("force-new-cluster", "true")],
            "--force-new-cluster does not go with",
        ),
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
        ("engine", "zab"),
        ("election-timeout", "500"),
        ("election-timeout", "50000"),
        ("heartbeat-interval", "200"),
        ("max-request-bytes", "1024"),
        ("max-request-bytes", "10485760"),
        ("max-txn-ops", "1"),
        ("max-client-connections", "1"),
        ("grpc-keepalive-interval", "0"),
        ("grpc-keepalive-interval", "1s"),
        ("grpc-keepalive-timeout", "1m30s"),
        ("watch-progress-notify-interval", "100ms"),
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

#[test]
fn flags_of_etcd_that_change_nothing_are_taken_and_told() {
    let mut sources = Sources::default();
    for flag in IGNORED {
        assert!(!FLAGS.iter().any(|known| known.name == flag.name), "{} is a setting", flag.name);
        sources.flag(flag.name, "whatever").unwrap();
    }
    sources.toml("q.toml", "logger = \"zap\"\nname = \"n1\"\n");
    variables(&mut sources, &[("ETCD_LOGGER", "zap"), ("ETCD_MAX_WALS", "5")]);
    let config = sources.config().unwrap();
    assert_eq!(config.name, "n1");
    assert_eq!(config.warnings.len(), IGNORED.len() + 3, "{:?}", config.warnings);
    for want in [
        "--logger is one of etcd's and changes nothing here",
        "config file q.toml, logger is one of etcd's and changes nothing here",
        "ETCD_MAX_WALS is set and has no meaning here",
    ] {
        assert!(config.warnings.iter().any(|warning| warning == want), "{want}");
    }
    // What would keep others out, or put data elsewhere, is never passed over.
    for flag in ["client-cert-auth", "cert-file", "wal-dir", "auth-token", "host-whitelist"] {
        assert!(Sources::default().flag(flag, "x").is_err(), "{flag}");
        let variable = format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"));
        let mut sources = Sources::default();
        sources.environment([(variable.clone().into(), "x".into())]);
        let refused = sources.config().unwrap_err().to_string();
        assert!(refused.contains(&variable), "{refused}");
    }
    for (word, is_taken) in [("false", true), ("0", true), ("F", true), ("1", false), ("no", false)]
    {
        let mut sources = Sources::default();
        sources.environment([("ETCD_CLIENT_CERT_AUTH".into(), word.into())]);
        assert_eq!(sources.config().is_ok(), is_taken, "{word}");
    }
}
