//! The commands and their arguments.

use bytes::Bytes;
use quorate_raft::{
    AnyConfChange, Body, ConfChange, ConfChangeTransition, ConfChangeV2, Config, Message,
    ReadOnlyOption, Snapshot, SnapshotStatus, Storage, conf_changes_from_string, describe_entries,
    describe_message, quote,
};
use quorate_types::{Index, NodeId, Term};

use super::node::Node;
use super::output::Level;
use super::{Cluster, Failure, Recipient, is_within_node, position, unfit};
use crate::file::Directive;
use crate::run::{boolean, number, truth};

/// Nodes that a script may add.
const NODES_MAX: usize = 1000;

/// What `deliver-msgs type=` may name.
const MESSAGE_TYPES: [&str; 24] = [
    "MsgHup",
    "MsgBeat",
    "MsgProp",
    "MsgApp",
    "MsgAppResp",
    "MsgVote",
    "MsgVoteResp",
    "MsgSnap",
    "MsgHeartbeat",
    "MsgHeartbeatResp",
    "MsgUnreachable",
    "MsgSnapStatus",
    "MsgCheckQuorum",
    "MsgTransferLeader",
    "MsgTimeoutNow",
    "MsgReadIndex",
    "MsgReadIndexResp",
    "MsgPreVote",
    "MsgPreVoteResp",
    "MsgStorageAppend",
    "MsgStorageAppendResp",
    "MsgStorageApply",
    "MsgStorageApplyResp",
    "MsgForgetLeader",
];

/// The settings of every node, unless `add-nodes` says otherwise.
fn config() -> Config {
    Config {
        election_tick: 3,
        heartbeat_tick: 1,
        max_size_per_msg: u64::MAX,
        max_inflight_msgs: i32::MAX as usize,
        ..Config::default()
    }
}

impl Cluster {
    pub(super) fn command(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        match directive.command.as_str() {
            "_breakpoint" => Ok(()),
            "add-nodes" => self.add_nodes(directive),
            "campaign" => self.on_node(directive, |node| node.raw.campaign()),
            "compact" => self.compact(directive),
            "deliver-msgs" => self.deliver_msgs(directive),
            "forget-leader" => self.on_node(directive, |node| node.raw.forget_leader()),
            "log-level" => self.log_level(directive),
            "process-append-thread" => {
                self.each(directive, "processing append thread", Self::process_append)
            }
            "process-apply-thread" => {
                self.each(directive, "processing apply thread", Self::process_apply)
            }
            "process-ready" => self.each(directive, "handling Ready", Self::process_ready),
            "propose" => self.propose(directive),
            "propose-conf-change" => self.propose_conf_change(directive),
            "pull-append" => self.pull_append(directive),
            "raft-log" => {
                let at = self.first_node(directive)?;
                self.raft_log(at)
            }
            "raft-state" => {
                self.raft_state();
                Ok(())
            }
            "read-index" => self.read_index(directive),
            "request-snapshot" => self.on_node(directive, |node| node.raw.request_snapshot()),
            "report-snapshot" => self.report_snapshot(directive),
            "report-unreachable" => self.report_unreachable(directive),
            "restart" => self.restart(directive),
            "send-snapshot" => self.send_snapshot(directive),
            "set-randomized-election-timeout" => self.set_election_timeout(directive),
            "stabilize" => self.stabilize_some(directive),
            "status" => {
                let at = self.first_node(directive)?;
                let progress = self.nodes[at].raw.status().progress.to_string();
                self.output.text(&progress);
                Ok(())
            }
            "tick-election" => self.tick(directive, |config| config.election_tick),
            "tick-heartbeat" => self.tick(directive, |config| config.heartbeat_tick),
            "transfer-leadership" => self.transfer_leadership(directive),
            _ => Err(Failure::Said("unknown command".to_owned())),
        }
    }

    fn add_nodes(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let count: usize = number(first_word(directive)?)?;
        if NODES_MAX.saturating_sub(self.nodes.len()) < count {
            return Err(unfit(format!("a cluster has at most {NODES_MAX} nodes")));
        }
        let mut config = config();
        let mut snapshot = Snapshot::default();
        let mut is_bootstrapped = false;
        for (key, value) in directive.values() {
            is_bootstrapped |= matches!(key, "voters" | "learners" | "index" | "content");
            let conf_state = &mut snapshot.metadata.conf_state;
            match key {
                "voters" => conf_state.voters.push(NodeId(number(value)?)),
                "learners" => conf_state.learners.push(NodeId(number(value)?)),
                "index" => snapshot.metadata.index = Index(number(value)?),
                "content" => snapshot.data = Bytes::copy_from_slice(value.as_bytes()),
                "inflight" => config.max_inflight_msgs = number(value)?,
                "async-storage-writes" => config.async_storage_writes = boolean(value)?,
                "prevote" => config.pre_vote = boolean(value)?,
                "checkquorum" => config.check_quorum = boolean(value)?,
                "max-committed-size-per-ready" => {
                    config.max_committed_size_per_ready = number(value)?;
                }
                "disable-conf-change-validation" => {
                    config.disable_conf_change_validation = boolean(value)?;
                }
                "step-down-on-removal" => config.step_down_on_removal = boolean(value)?,
                // Ours; etcd's scripts have no key for these.
                "disable-proposal-forwarding" => {
                    config.disable_proposal_forwarding = boolean(value)?;
                }
                "max-size-per-msg" => config.max_size_per_msg = number(value)?,
                "max-inflight-bytes" => config.max_inflight_bytes = number(value)?,
                "max-uncommitted-size" => config.max_uncommitted_entries_size = number(value)?,
                "report-lost-reads" => config.report_lost_reads = boolean(value)?,
                "hand-over-on-removal" => config.hand_over_on_removal = boolean(value)?,
                "snapshot-on-request" => config.snapshot_on_request = boolean(value)?,
                "lease-ticks" => config.lease_ticks = number(value)?,
                "pull-appends" => config.pull_appends = boolean(value)?,
                "coalesce-appends" => config.coalesce_appends = boolean(value)?,
                "election-tick" => config.election_tick = number(value)?,
                "read-only" => {
                    config.read_only_option = match value {
                        "safe" => ReadOnlyOption::Safe,
                        "lease-based" => ReadOnlyOption::LeaseBased,
                        other => {
                            let other = quote(other.as_bytes());
                            let text = format!("invalid read-only option {other}");
                            return Err(Failure::Said(text));
                        }
                    };
                }
                _ => {}
            }
        }
        if is_bootstrapped && snapshot.metadata.index <= Index(1) {
            let text = "index must be specified as > 1 due to bootstrap";
            return Err(Failure::Said(text.to_owned()));
        }
        snapshot.metadata.term = Term(1);
        for _ in 0..count {
            let id = NodeId(self.nodes.len() as u64 + 1);
            let snapshot = is_bootstrapped.then(|| snapshot.clone());
            let config = Config { id, ..config.clone() };
            let mut node = Node::new(config, snapshot, self.trace.clone())?;
            self.output.notes(&mut node);
            self.nodes.push(node);
        }
        Ok(())
    }

    fn compact(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let at = self.first_node(directive)?;
        let index = directive.words().nth(1).ok_or_else(|| unfit("`compact` needs an index"))?;
        self.nodes[at].storage.memory.compact(Index(number(index)?))?;
        self.raft_log(at)
    }

    fn deliver_msgs(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let mut recipients: Vec<Recipient> = Vec::new();
        let mut kind = None;
        let mut add = |id: &str, is_dropping: bool| {
            let id = NodeId(number(id)?);
            if recipients.iter().any(|it| it.id == id && it.is_dropping != is_dropping) {
                return Err(unfit(format!(
                    "messages to {id} can be delivered or dropped, not both"
                )));
            }
            recipients.push(Recipient { id, is_dropping });
            Ok(())
        };
        for argument in &directive.arguments {
            if argument.values.is_empty() {
                add(&argument.key, false)?;
            }
            for value in &argument.values {
                match argument.key.as_str() {
                    "drop" => add(value, true)?,
                    "type" if MESSAGE_TYPES.contains(&value.as_str()) => {
                        kind = Some(value.as_str());
                    }
                    "type" => return Err(unfit(format!("unknown message type {value}"))),
                    _ => {}
                }
            }
        }
        if self.deliver(&recipients, kind) == 0 {
            self.output.text("no messages");
        }
        Ok(())
    }

    fn log_level(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        self.output.level = Level::named(first_word(directive)?).map_err(Failure::Said)?;
        Ok(())
    }

    fn propose(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let at = self.first_node(directive)?;
        let (2, Some(data)) = (directive.arguments.len(), directive.words().nth(1)) else {
            return Err(unfit("`propose` needs a node and a word"));
        };
        let data = Bytes::copy_from_slice(data.as_bytes());
        self.with_node(at, |node| node.raw.propose(data))
    }

    fn propose_conf_change(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let said = |text: String| Err(Failure::Said(text));
        let at = self.first_node(directive)?;
        let mut is_v1 = false;
        let mut transition = ConfChangeTransition::Auto;
        for (key, value) in directive.values() {
            match (key, value) {
                ("v1", value) => match truth(value) {
                    Some(truth) => is_v1 = truth,
                    None => {
                        let value = quote(value.as_bytes());
                        return said(format!("strconv.ParseBool: parsing {value}: invalid syntax"));
                    }
                },
                ("transition", "auto") => transition = ConfChangeTransition::Auto,
                ("transition", "implicit") => transition = ConfChangeTransition::JointImplicit,
                ("transition", "explicit") => transition = ConfChangeTransition::JointExplicit,
                ("transition", other) => return said(format!("unknown transition {other}")),
                (other, _) => return said(format!("unknown command {other}")),
            }
        }
        let changes = match conf_changes_from_string(&directive.input) {
            Ok(changes) => changes,
            Err(error) => return said(error.to_string()),
        };
        let change: AnyConfChange = if is_v1 {
            let ([single], ConfChangeTransition::Auto) = (changes.as_slice(), transition) else {
                let text = "v1 conf change can only have one operation and no transition";
                return said(text.to_owned());
            };
            ConfChange {
                change_type: single.change_type,
                node_id: single.node_id,
                ..ConfChange::default()
            }
            .into()
        } else {
            let transition = Some(transition);
            ConfChangeV2 { transition, changes, context: Bytes::new() }.into()
        };
        self.with_node(at, |node| node.raw.propose_conf_change(change))
    }

    fn raft_log(&mut self, at: usize) -> Result<(), Failure> {
        let storage = &self.nodes[at].storage;
        let (first, last) = (storage.first_index()?, storage.last_index()?);
        let text = if last < first {
            format!("log is empty: first index={first}, last index={last}")
        } else {
            describe_entries(&storage.entries(first, last.next(), u64::MAX)?, None)
        };
        self.output.text(&text);
        Ok(())
    }

    fn raft_state(&mut self) {
        for node in &self.nodes {
            let status = node.raw.status();
            let role = status.basic.soft_state.role;
            let vote = if status.config.voters.contains(node.id) { "Voter" } else { "Non-Voter" };
            let (term, lead) = (status.basic.hard_state.term, status.basic.soft_state.lead);
            self.output.line(format_args!("{}: {role} ({vote}) Term:{term} Lead:{lead}", node.id));
        }
    }

    fn report_unreachable(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let [at, peer] = self.all_nodes(directive)?[..] else {
            return Err(Failure::Said(
                "must specify exactly two node indexes: node on which to report, and reported node"
                    .to_owned(),
            ));
        };
        let peer = self.nodes[peer].id;
        self.with_node(at, |node| {
            node.raw.report_unreachable(peer);
            Ok(())
        })
    }

    /// `pull-append A B [bytes=K]`, a command of ours: A sends B what it has not been sent.
    fn pull_append(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let [at, peer] = self.all_nodes(directive)?[..] else {
            return Err(unfit("`pull-append` needs two nodes"));
        };
        let bytes_max = match value(directive, "bytes") {
            Ok(bytes) => number(bytes)?,
            Err(_) => u64::MAX,
        };
        let peer = self.nodes[peer].id;
        self.with_node(at, |node| node.raw.pull_append(peer, bytes_max).map(drop))
    }

    /// `read-index N CONTEXT`, a command of ours: asks where a read may be served.
    fn read_index(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let at = self.first_node(directive)?;
        let context =
            directive.words().nth(1).ok_or_else(|| unfit("`read-index` needs a context"))?;
        let context = Bytes::copy_from_slice(context.as_bytes());
        self.with_node(at, |node| {
            node.raw.read_index(context);
            Ok(())
        })
    }

    /// `report-snapshot A B [failed=true]`, a command of ours: tells A what became of its snapshot
    /// to B.
    fn report_snapshot(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let [at, peer] = self.all_nodes(directive)?[..] else {
            return Err(unfit("`report-snapshot` needs two nodes"));
        };
        let mut status = SnapshotStatus::Finish;
        if let Ok(value) = value(directive, "failed")
            && boolean(value)?
        {
            status = SnapshotStatus::Failure;
        }
        let peer = self.nodes[peer].id;
        self.with_node(at, |node| {
            node.raw.report_snapshot(peer, status);
            Ok(())
        })
    }

    /// `restart N`, a command of ours: the node forgets all but what its storage and its application
    /// hold, and with it all work that was not done.
    fn restart(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let at = self.first_node(directive)?;
        self.nodes[at].restart(self.trace.clone())?;
        let id = self.nodes[at].id;
        self.in_flight.retain(|message| message.to != id || !is_within_node(message));
        self.output.notes(&mut self.nodes[at]);
        Ok(())
    }

    fn send_snapshot(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let from = &self.nodes[self.first_node(directive)?];
        // The other one need not exist yet.
        let to =
            directive.words().nth(1).ok_or_else(|| unfit("`send-snapshot` needs two nodes"))?;
        let message = Message {
            to: NodeId(number(to)?),
            from: from.id,
            term: from.raw.basic_status().hard_state.term,
            body: Body::Snapshot { snapshot: Box::new(from.storage.latest()) },
        };
        self.output.text(&describe_message(&message, None));
        self.in_flight.push(message);
        Ok(())
    }

    fn set_election_timeout(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let at = self.first_node(directive)?;
        let ticks: u32 = number(value(directive, "timeout")?)?;
        if ticks == 0 {
            return Err(unfit("`timeout` must be above 0"));
        }
        self.nodes[at].raw.set_randomized_election_timeout(ticks);
        Ok(())
    }

    fn stabilize_some(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let mut nodes = self.all_nodes(directive)?;
        if nodes.is_empty() {
            nodes = (0..self.nodes.len()).collect();
        }
        let level = self.output.level;
        if let Ok(name) = value(directive, "log-level") {
            self.output.level = Level::named(name).map_err(Failure::Said)?;
        }
        let done = self.stabilize(&nodes);
        self.output.level = level;
        done
    }

    fn tick(
        &mut self,
        directive: &Directive<'_>,
        ticks: fn(&Config) -> u32,
    ) -> Result<(), Failure> {
        self.on_node(directive, |node| {
            (0..ticks(node.raw.config())).try_for_each(|_| node.raw.tick())
        })
    }

    fn transfer_leadership(&mut self, directive: &Directive<'_>) -> Result<(), Failure> {
        let from = self.node(value(directive, "from")?)?;
        let to = NodeId(number(value(directive, "to")?)?);
        self.with_node(from, |node| {
            node.raw.transfer_leader(to);
            Ok(())
        })
    }

    /// Does `work` for each node named; with more than one, each under a heading.
    fn each(
        &mut self,
        directive: &Directive<'_>,
        what: &str,
        work: impl Fn(&mut Self, usize) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self.all_nodes(directive)?[..] {
            [at] => work(self, at),
            ref nodes => {
                nodes.iter().try_for_each(|&at| self.indented(at, what, |it| work(it, at)))
            }
        }
    }

    /// Does something to the node named first.
    fn on_node(
        &mut self,
        directive: &Directive<'_>,
        work: impl FnOnce(&mut Node) -> Result<(), quorate_raft::Error>,
    ) -> Result<(), Failure> {
        let at = self.first_node(directive)?;
        self.with_node(at, work)
    }

    /// Does something to a node, and prints what it notes.
    fn with_node(
        &mut self,
        at: usize,
        work: impl FnOnce(&mut Node) -> Result<(), quorate_raft::Error>,
    ) -> Result<(), Failure> {
        let node = &mut self.nodes[at];
        let done = work(node);
        self.output.notes(node);
        done?;
        // Not every call says so itself.
        match node.raw.fatal() {
            Some(fatal) => Err(Failure::Said(fatal.to_string())),
            None => Ok(()),
        }
    }

    fn first_node(&self, directive: &Directive<'_>) -> Result<usize, Failure> {
        self.node(first_word(directive)?)
    }

    /// All nodes named, in the order they are.
    fn all_nodes(&self, directive: &Directive<'_>) -> Result<Vec<usize>, Failure> {
        directive.words().map(|id| self.node(id)).collect()
    }

    /// The place of a node that exists.
    fn node(&self, id: &str) -> Result<usize, Failure> {
        let at = position(NodeId(number(id)?));
        at.filter(|at| *at < self.nodes.len())
            .ok_or_else(|| unfit(format!("there is no node {id}")))
    }
}

fn first_word<'a>(directive: &'a Directive<'_>) -> Result<&'a str, Failure> {
    let missing = || unfit(format!("`{}` needs an argument", directive.command));
    directive.words().next().ok_or_else(missing)
}

fn value<'a>(directive: &'a Directive<'_>, key: &str) -> Result<&'a str, Failure> {
    let found = directive.values().find(|(known, _)| *known == key).map(|(_, value)| value);
    found.ok_or_else(|| unfit(format!("`{}` needs `{key}=`", directive.command)))
}
