//! Every setting there is: its name, its default, and what it does.

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name on the command line without the dashes, and in a file.
    pub name: &'static str,
    /// What stands for its value in a help text.
    pub value: &'static str,
    /// Its default; empty where it follows from other settings.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

const fn flag(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, value, default, help }
}

/// Every setting, in the order in which a help text lists them.
pub const FLAGS: &[Flag] = &[
    flag("name", "NAME", "default", "Name of this member, and its key in --initial-cluster"),
    flag("data-dir", "DIR", "", "Directory of log and state [default: <name>.etcd]"),
    flag(
        "listen-client-urls",
        "URLS",
        "http://localhost:2379",
        "Where clients connect, comma separated; IP addresses or localhost",
    ),
    flag(
        "listen-metrics-urls",
        "URLS",
        "",
        "Where /metrics, /health, /livez and /readyz are served too, comma separated [default: none]",
    ),
    flag(
        "advertise-client-urls",
        "URLS",
        "http://localhost:2379",
        "What clients are told to connect to; needed with --listen-client-urls",
    ),
    flag(
        "listen-peer-urls",
        "URLS",
        "http://localhost:2380",
        "Where other members connect, comma separated; IP addresses or localhost",
    ),
    flag(
        "initial-advertise-peer-urls",
        "URLS",
        "http://localhost:2380",
        "What other members are told to connect to",
    ),
    flag(
        "initial-cluster",
        "LIST",
        "",
        "Members of the cluster, this one among them: n1=http://h1:2380,n2=http://h2:2380 \
         [default: this member alone]",
    ),
    flag(
        "initial-cluster-state",
        "STATE",
        "new",
        "`new` founds a cluster, `existing` joins one that this member was added to",
    ),
    flag(
        "initial-cluster-token",
        "TEXT",
        "etcd-cluster",
        "Keeps clusters apart that have the same URLs; the same on all members",
    ),
    flag(
        "engine",
        "ENGINE",
        "raft",
        "raft or zab: what orders writes; the same on all members, and for as long as they live",
    ),
    flag(
        "strict-reconfig-check",
        "BOOL",
        "true",
        "Refuse changes of the members that would cost, or risk, the quorum",
    ),
    flag(
        "max-learners",
        "COUNT",
        "",
        "Learners that the cluster may have at one time [default: 64; 1 with --autopilot=false]",
    ),
    flag(
        "autopilot",
        "BOOL",
        "true",
        "While this member leads, promote learners that are stable, and whatever else it is told to do about \
         the members",
    ),
    flag(
        "autopilot-config",
        "LIST",
        "",
        "What autopilot's settings begin with in a new cluster: target-voters=5,cleanup-dead-servers=true; \
         see `quorate autopilot set-config`",
    ),
    flag("autopilot-update-interval", "DURATION", "2s", "How often a leader looks at the members"),
    flag(
        "autopilot-reconcile-interval",
        "DURATION",
        "10s",
        "How often a leader's autopilot considers changes",
    ),
    flag(
        "member-version",
        "VERSION",
        "",
        "Version of this member for autopilot's migrations [default: that of the program]",
    ),
    flag(
        "member-tags",
        "LIST",
        "",
        "What autopilot is to know of this member: zone=a,read_replica=true",
    ),
    flag(
        "force-new-cluster",
        "BOOL",
        "false",
        "Go on alone with this member's data, when the others are lost for good; once only",
    ),
    flag("heartbeat-interval", "MS", "100", "How often a leader shows itself, in milliseconds"),
    flag(
        "election-timeout",
        "MS",
        "1000",
        "How long without a leader until an election, in milliseconds; 5 heartbeats or more",
    ),
    flag("snapshot-count", "COUNT", "10000", "Applied entries between snapshots"),
    flag(
        "quota-backend-bytes",
        "BYTES",
        "0",
        "Size of the state over which writes are refused; 0 is 2 GiB, negative is no quota",
    ),
    flag("max-request-bytes", "BYTES", "1572864", "The longest request that is replicated"),
    flag("max-txn-ops", "COUNT", "128", "Operations in each list of a transaction"),
    flag(
        "max-answer-bytes",
        "BYTES",
        "2147483648",
        "Memory for the keys and values of all answers of more than 8 KiB under way; reads that find \
         none wait, then fail",
    ),
    flag(
        "max-client-connections",
        "COUNT",
        "65536",
        "Client connections at one time; fewer where few files may be open (ulimit -n, less 150)",
    ),
    flag(
        "grpc-keepalive-interval",
        "DURATION",
        "2h",
        "How often a silent client is asked for a sign of life; 0 for never",
    ),
    flag(
        "grpc-keepalive-timeout",
        "DURATION",
        "20s",
        "How long such a client may take to answer before its connection is closed",
    ),
    flag(
        "watch-progress-notify-interval",
        "DURATION",
        "10m",
        "How often watchers that want it hear that nothing has happened",
    ),
    flag(
        "auto-compaction-mode",
        "MODE",
        "periodic",
        "What --auto-compaction-retention counts: `periodic` time, `revision` revisions",
    ),
    flag(
        "auto-compaction-retention",
        "RETENTION",
        "0",
        "History that is kept: hours or a duration such as 30m, or a number of revisions; 0 for all",
    ),
    flag(
        "corrupt-check-time",
        "DURATION",
        "0s",
        "How often the leader compares the members' data; 0 for never",
    ),
    flag(
        "initial-corrupt-check",
        "BOOL",
        "false",
        "Whether a member compares its data with the others' before it serves clients",
    ),
    flag("log-level", "LEVEL", "info", "trace, debug, info, warn or error"),
    flag("log-format", "FORMAT", "text", "text or json, on standard error"),
    flag("config-file", "FILE", "", "TOML file with these flags' names as keys"),
];

const fn ignored(name: &'static str, value: &'static str) -> Flag {
    flag(name, value, "", "")
}

/// Flags of etcd that are taken and change nothing here: what they tune does not exist, or is always as
/// etcd has it by default; but streams of one connection have a bound of their own. Nothing is among
/// them that keeps others out or says where data are.
pub const IGNORED: &[Flag] = &[
    ignored("backend-batch-interval", "DURATION"),
    ignored("backend-batch-limit", "COUNT"),
    ignored("backend-bbolt-freelist-type", "TEXT"),
    ignored("bootstrap-defrag-threshold-megabytes", "COUNT"),
    ignored("compact-hash-check-time", "DURATION"),
    ignored("compaction-batch-limit", "COUNT"),
    ignored("compaction-sleep-interval", "DURATION"),
    ignored("enable-pprof", "BOOL"),
    ignored("grpc-keepalive-min-time", "DURATION"),
    ignored("initial-election-tick-advance", "BOOL"),
    ignored("log-outputs", "LIST"),
    ignored("logger", "TEXT"),
    ignored("max-concurrent-streams", "COUNT"),
    ignored("max-snapshots", "COUNT"),
    ignored("max-wals", "COUNT"),
    ignored("metrics", "TEXT"),
    ignored("pre-vote", "BOOL"),
    ignored("snapshot-catchup-entries", "COUNT"),
    ignored("socket-reuse-address", "BOOL"),
    ignored("socket-reuse-port", "BOOL"),
    ignored("unsafe-no-fsync", "BOOL"),
    ignored("warning-apply-duration", "DURATION"),
    ignored("warning-unary-request-duration", "DURATION"),
];
