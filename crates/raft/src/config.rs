//! The options of one node, checked once, when it is built.
//!
//! Names and defaults are etcd's, including its use of 0 for "not given". What Quorate adds stands
//! last and is, by default, such that a node does what etcd's does.

use quorate_types::{Index, NodeId};

use crate::is_local_target;

/// How a leader makes sure that it still leads before it lets a read be served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReadOnlyOption {
    /// It asks a quorum, with one round of heartbeats. Needs no clock.
    #[default]
    Safe,
    /// It trusts that no other leader arose while it holds its office. Needs
    /// [`Config::check_quorum`], which may notice the loss of a quorum a whole election timeout later
    /// than voters elect another: only [`Config::lease_ticks`] makes this a lease.
    LeaseBased,
}

/// All options of one node. Start from [`Config::new`] or [`Config::default`] and set what differs.
///
/// Source: etcd's `raft.Config`; the storage is an argument of its own here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who this node is. An id names one node for all time and is never given to another.
    pub id: NodeId,
    /// Base of the election timeout, in ticks: a follower that hears nothing for a number of ticks
    /// drawn from this one up to twice as many campaigns. Ten times the heartbeat is a good value.
    pub election_tick: u32,
    /// A leader sends heartbeats every so many ticks.
    pub heartbeat_tick: u32,
    /// Highest index that the application has applied already, after a restart; 0 if it does not
    /// know. Nothing up to it is handed out again.
    pub applied: Index,
    /// Most bytes that the entries of one append take encoded. 0 means one entry an append,
    /// `u64::MAX` no limit. One entry always goes.
    pub max_size_per_msg: u64,
    /// Most bytes that entries handed out for application and not yet acknowledged take encoded.
    /// 0 means as much as [`Config::max_size_per_msg`]. One entry is always handed out.
    pub max_committed_size_per_ready: u64,
    /// Most bytes of payload that a leader lets wait for a quorum before it refuses proposals. 0
    /// means no limit. A single proposal of any size is taken when nothing waits.
    pub max_uncommitted_entries_size: u64,
    /// Most appends under way to one peer.
    pub max_inflight_msgs: usize,
    /// Most bytes of payload under way to one peer, which a single append may overshoot. 0 means no
    /// limit.
    pub max_inflight_bytes: u64,
    /// Whether a leader steps down when it hears from no quorum for an election timeout, and voters
    /// ignore candidates while they hear from a leader.
    pub check_quorum: bool,
    /// Whether elections have a first phase that disturbs nobody.
    pub pre_vote: bool,
    /// How reads are confirmed.
    pub read_only_option: ReadOnlyOption,
    /// Whether storage is written by messages to the two storage threads, instead of by
    /// [`Ready`](crate::Ready) and `advance`.
    pub async_storage_writes: bool,
    /// Whether followers refuse proposals instead of forwarding them to the leader.
    pub disable_proposal_forwarding: bool,
    /// Whether a leader takes any proposed membership change, even one that cannot work now.
    pub disable_conf_change_validation: bool,
    /// Whether a leader that was removed or made a learner steps down.
    pub step_down_on_removal: bool,

    /// Where this node's chance starts. Together with its id and its inputs it decides everything
    /// the node does; nodes of one group may share a seed. Groups on the same nodes, and the starts of
    /// one node, should not: they would campaign at the same ticks.
    pub seed: u64,
    /// Whether a read of this node whose answer can no longer come is reported in
    /// [`Ready::lost_reads`](crate::Ready::lost_reads), and forgotten. etcd's library keeps a read
    /// that was asked before the leader's first commit for a later leadership, and forgets others
    /// silently.
    pub report_lost_reads: bool,
    /// Whether even a leader without other voters lets reads wait until it has committed in its
    /// term. Without it, a read after a crash may be served below what was acknowledged before it.
    pub postpone_single_voter_reads: bool,
    /// Whether a candidate leads only once its own vote is durable, even if the others that voted for
    /// it are a quorum without it. Matters with [`Config::async_storage_writes`] alone, where requests
    /// for votes leave at once: a crash before the vote is stored would let the same node be elected
    /// in the same term again, and put other entries in the same places. Turn it on wherever storage
    /// is written asynchronously. Off by default.
    ///
    /// Source: thesis 3.8 (the vote is stored before it counts); etcd's library leads at once.
    pub lead_after_own_vote: bool,
    /// How long the lease of [`ReadOnlyOption::LeaseBased`] lasts, in ticks of the leader after it
    /// sent a heartbeat that a quorum answered. A read that finds none asks a quorum, as with
    /// [`ReadOnlyOption::Safe`]. Voters promise their part with every word of a leader: for an
    /// election timeout of their own ticks, a crash and later terms notwithstanding, they neither
    /// help another candidate nor campaign when asked to, unless the leader itself gave the order.
    ///
    /// The rest of the election timeout is the allowance for clocks: with `lease_ticks` of 8 and
    /// `election_tick` of 10, a read is stale only if a voter's clock gains more than a tick on the
    /// leader's within 8. Ticks must follow real time on every node: a node that was stopped must be
    /// told of the ticks it missed before it is asked for a read.
    ///
    /// 0, the default, means as long as the leader is in office, as in etcd's library. All nodes of a
    /// group are to have the same value.
    ///
    /// Source: thesis 6.4.1.
    pub lease_ticks: u32,
    /// Whether a leader leaves it to its driver when entries go to a peer that it knows to follow
    /// (in [`ProgressState::Replicate`](crate::ProgressState::Replicate)): it appends, and
    /// [`RawNode::pull_append`](crate::RawNode::pull_append) sends as much as the driver wants to
    /// send. So a process with thousands of groups can share one budget of bytes among them. Probes,
    /// snapshots, heartbeats and commit indexes go out as always. Off by default.
    ///
    /// Source: the fork of etcd's library in CockroachDB; etcd's own sends at once.
    pub pull_appends: bool,
    /// Most reads that wait for an answer on a leader; further ones are dropped.
    pub reads_max: usize,
    /// Most notes kept between two Readies; further ones are counted only.
    pub notes_max: usize,
    /// How much this node should lead, compared with the other voters: the higher, the more. 0 is
    /// the default, and what a node counts as that says nothing, such as etcd's.
    ///
    /// A voter refuses a candidate of lower priority whose log ends where its own does, so that it
    /// gets the chance to stand itself. It does so only while it could be elected, and not any more
    /// once it has stood since it last knew a leader: a preference never costs the group its
    /// leader. An election that the leader itself ordered is not held up. Nobody hands an office
    /// back to a node of higher priority by itself; that is a transfer.
    ///
    /// The priority travels in requests for votes, as a field (16) that etcd's nodes skip, and not
    /// at all while it is 0.
    ///
    /// Source: `Config::priority` of the crate `raft`, under which a voter defers for ever, and to
    /// candidates of later terms with shorter logs too.
    pub priority: i64,
    /// Lower end of the range that a follower's patience is drawn from, in ticks. 0, the default,
    /// means [`Config::election_tick`], and it may not be less. To make a node rarely the first to
    /// campaign, give it a later range than the others.
    ///
    /// Source: `Config::min_election_tick` of the crate `raft`.
    pub min_election_tick: u32,
    /// Upper end of that range, in ticks, itself excluded. 0, the default, means twice
    /// [`Config::election_tick`].
    ///
    /// Source: `Config::max_election_tick` of the crate `raft`.
    pub max_election_tick: u32,
    /// Whether a leader sends what it appended and committed between two Readies as one append to
    /// each peer (as far as [`Config::max_size_per_msg`] allows), made when the Ready is, instead of
    /// one for every proposal and every step of the commit index. Off by default. A Ready may then
    /// turn out to be empty although [`RawNode::has_ready`](crate::RawNode::has_ready) said
    /// otherwise.
    ///
    /// Source: thesis 10.2.2; compare `Config::batch_append` of the crate `raft`.
    pub coalesce_appends: bool,
    /// Whether a leader sends a snapshot to a follower that asks for one
    /// ([`RawNode::request_snapshot`](crate::RawNode::request_snapshot)). Off by default: the
    /// request is then what it looks like, a refusal that no longer matters.
    ///
    /// Source: `RawNode::request_snapshot` of the crate `raft`, where it is always on.
    pub snapshot_on_request: bool,
    /// Whether a leader that was removed or made a learner stays in office until a quorum of the
    /// others knows, and then tells the voter that has most of the log to campaign at once. Without
    /// it, a leader that steps down as soon as it has applied the change leaves the group without a
    /// leader for an election timeout, and, if its last messages are lost, a group of two for ever.
    ///
    /// Meanwhile it takes no proposals. It stays for three election timeouts at most; if it goes
    /// before the others know, it still votes as one who wants nothing from a candidate but what it
    /// has committed itself. A follower with this option that may not campaign yet, since it has not
    /// applied that change itself, does so once it has, within an election timeout.
    ///
    /// Needs [`Config::step_down_on_removal`]. Off by default.
    ///
    /// Source: thesis 4.2.2 and 3.10; etcd leaves it as a to-do.
    pub hand_over_on_removal: bool,
    /// Whether a leader that hands its office over repeats the order to campaign with every
    /// heartbeat, in case it was lost. Off by default.
    ///
    /// Source: thesis 3.10; etcd sends the order once.
    pub retry_transfer: bool,
    /// Whether a leader refuses a proposal that holds a membership change which cannot work now
    /// ([`Error::ChangeRefused`](crate::Error::ChangeRefused)), instead of appending an empty entry
    /// in its place and calling that a success. Off by default.
    pub refuse_changes: bool,
    /// Whether a peer that refused an append in the midst of others is trusted with one at a time
    /// again, and with one more for each that it acknowledges, up to the limits above. Without it,
    /// each refusal calls for all that was under way once more, also a refusal of what has been sent
    /// again meanwhile: where messages overtake each other, there are ever more of them. Off by
    /// default.
    ///
    /// Source: the slow start of TCP (RFC 5681, section 3.1); etcd sends a full window again.
    pub narrow_on_refusal: bool,
    /// Most messages to other nodes that wait for the next Ready; further ones are lost, as a network
    /// loses messages, and the leader probes peers whose appends they were. What a node says to
    /// itself is never lost: one message for each vote, and for each append of its own, which
    /// [`Config::max_uncommitted_entries_size`] bounds. With fewer than there are other members,
    /// some of them get no heartbeats and no requests for votes. 0, the default, means no limit but
    /// how much the node is told between two Readies.
    pub messages_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            id: NodeId::NONE,
            election_tick: 0,
            heartbeat_tick: 0,
            applied: Index(0),
            max_size_per_msg: 0,
            max_committed_size_per_ready: 0,
            max_uncommitted_entries_size: 0,
            max_inflight_msgs: 0,
            max_inflight_bytes: 0,
            check_quorum: false,
            pre_vote: false,
            read_only_option: ReadOnlyOption::Safe,
            async_storage_writes: false,
            disable_proposal_forwarding: false,
            disable_conf_change_validation: false,
            step_down_on_removal: false,
            seed: 0,
            report_lost_reads: false,
            postpone_single_voter_reads: false,
            lead_after_own_vote: false,
            lease_ticks: 0,
            pull_appends: false,
            reads_max: 65_536,
            notes_max: 256,
            priority: 0,
            min_election_tick: 0,
            max_election_tick: 0,
            coalesce_appends: false,
            snapshot_on_request: false,
            hand_over_on_removal: false,
            retry_transfer: false,
            refuse_changes: false,
            narrow_on_refusal: false,
            messages_max: 0,
        }
    }
}

/// Why a node cannot be built with these options. The texts are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The id is 0.
    #[error("cannot use none as id")]
    IdNone,
    /// The id is that of a storage thread.
    #[error("cannot use local target as id")]
    IdLocalTarget,
    /// The heartbeat interval is 0.
    #[error("heartbeat tick must be greater than 0")]
    HeartbeatTick,
    /// The election timeout is not above the heartbeat interval.
    #[error("election tick must be greater than heartbeat tick")]
    ElectionTick,
    /// No append may be under way.
    #[error("max inflight messages must be greater than 0")]
    MaxInflightMsgs,
    /// The window has no room for a full append.
    #[error("max inflight bytes must be >= max message size")]
    MaxInflightBytes,
    /// A lease without the check that it rests on.
    #[error("CheckQuorum must be enabled when ReadOnlyOption is ReadOnlyLeaseBased")]
    LeaseWithoutCheckQuorum,
    /// Followers would campaign while voters still hold to the leader.
    #[error("min election tick must not be less than election tick")]
    MinElectionTick,
    /// There is nothing to draw election timeouts from.
    #[error("min election tick must be less than max election tick")]
    ElectionTickRange,
    /// Only a leader that steps down hands over.
    #[error("StepDownOnRemoval must be enabled to hand over on removal")]
    HandOverWithoutStepDown,
    /// Nothing rests on the lease.
    #[error("ReadOnlyOption must be ReadOnlyLeaseBased to set lease ticks")]
    LeaseTicksWithoutLease,
    /// The lease would lapse between two heartbeats.
    #[error("lease ticks must be greater than heartbeat tick")]
    LeaseTicksTooFew,
    /// The lease would leave clocks no room.
    #[error("lease ticks must be less than election tick - 1")]
    LeaseTicksTooMany,
}

impl Config {
    /// A node with settings that suit most: an election timeout of ten ticks and heartbeats every
    /// tick, appends of up to 1 MiB and 256 of them under way, a check of the quorum and pre-votes.
    pub fn new(id: NodeId) -> Self {
        Config {
            id,
            election_tick: 10,
            heartbeat_tick: 1,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        }
    }

    /// Whether a node can be built with these options.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, in the order of [`ConfigError`]'s variants.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.id.is_none() {
            return Err(ConfigError::IdNone);
        }
        if is_local_target(self.id) {
            return Err(ConfigError::IdLocalTarget);
        }
        if self.heartbeat_tick == 0 {
            return Err(ConfigError::HeartbeatTick);
        }
        if self.election_tick <= self.heartbeat_tick {
            return Err(ConfigError::ElectionTick);
        }
        if self.max_inflight_msgs == 0 {
            return Err(ConfigError::MaxInflightMsgs);
        }
        if self.max_inflight_bytes != 0 && self.max_inflight_bytes < self.max_size_per_msg {
            return Err(ConfigError::MaxInflightBytes);
        }
        if self.read_only_option == ReadOnlyOption::LeaseBased && !self.check_quorum {
            return Err(ConfigError::LeaseWithoutCheckQuorum);
        }
        if self.min_election_tick != 0 && self.min_election_tick < self.election_tick {
            return Err(ConfigError::MinElectionTick);
        }
        let (min, max) = self.election_range();
        if max <= u64::from(min) {
            return Err(ConfigError::ElectionTickRange);
        }
        if self.hand_over_on_removal && !self.step_down_on_removal {
            return Err(ConfigError::HandOverWithoutStepDown);
        }
        if self.lease_ticks != 0 {
            if self.read_only_option != ReadOnlyOption::LeaseBased {
                return Err(ConfigError::LeaseTicksWithoutLease);
            }
            if self.lease_ticks <= self.heartbeat_tick {
                return Err(ConfigError::LeaseTicksTooFew);
            }
            if self.election_tick - 1 <= self.lease_ticks {
                return Err(ConfigError::LeaseTicksTooMany);
            }
        }
        Ok(())
    }

    /// What election timeouts are drawn from: the first number of ticks, and the one past the last.
    pub(crate) fn election_range(&self) -> (u32, u64) {
        let min = match self.min_election_tick {
            0 => self.election_tick,
            ticks => ticks,
        };
        let max = match self.max_election_tick {
            0 => 2 * u64::from(self.election_tick),
            ticks => u64::from(ticks),
        };
        (min, max)
    }

    /// [`Config::max_committed_size_per_ready`] with its default filled in.
    pub(crate) fn applying_bytes_max(&self) -> u64 {
        match self.max_committed_size_per_ready {
            0 => self.max_size_per_msg,
            bytes => bytes,
        }
    }

    /// [`Config::max_uncommitted_entries_size`] with its default filled in.
    pub(crate) fn uncommitted_bytes_max(&self) -> u64 {
        match self.max_uncommitted_entries_size {
            0 => u64::MAX,
            bytes => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD};

    #[test]
    fn the_first_wrong_option_is_named() {
        let good = Config::new(NodeId(1));
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(Config::default().validate(), Err(ConfigError::IdNone));

        let with = |change: fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            config.validate().expect_err("it is wrong").to_string()
        };
        for (change, want) in [
            ((|config| config.id = NodeId::NONE) as fn(&mut Config), "cannot use none as id"),
            (|config| config.id = LOCAL_APPEND_THREAD, "cannot use local target as id"),
            (|config| config.id = LOCAL_APPLY_THREAD, "cannot use local target as id"),
            (|config| config.heartbeat_tick = 0, "heartbeat tick must be greater than 0"),
            (
                |config| config.election_tick = 1,
                "election tick must be greater than heartbeat tick",
            ),
            (|config| config.max_inflight_msgs = 0, "max inflight messages must be greater than 0"),
            (
                |config| config.max_inflight_bytes = 1,
                "max inflight bytes must be >= max message size",
            ),
            (
                |config| {
                    config.check_quorum = false;
                    config.read_only_option = ReadOnlyOption::LeaseBased;
                },
                "CheckQuorum must be enabled when ReadOnlyOption is ReadOnlyLeaseBased",
            ),
            (
                |config| config.min_election_tick = 9,
                "min election tick must not be less than election tick",
            ),
            (
                |config| config.min_election_tick = 20,
                "min election tick must be less than max election tick",
            ),
            (
                |config| config.max_election_tick = 10,
                "min election tick must be less than max election tick",
            ),
            (
                |config| config.hand_over_on_removal = true,
                "StepDownOnRemoval must be enabled to hand over on removal",
            ),
            (
                |config| config.lease_ticks = 5,
                "ReadOnlyOption must be ReadOnlyLeaseBased to set lease ticks",
            ),
            (
                |config| {
                    config.read_only_option = ReadOnlyOption::LeaseBased;
                    config.lease_ticks = 1;
                },
                "lease ticks must be greater than heartbeat tick",
            ),
            (
                |config| {
                    config.read_only_option = ReadOnlyOption::LeaseBased;
                    config.lease_ticks = 9;
                },
                "lease ticks must be less than election tick - 1",
            ),
            // Two are wrong: the earlier check wins.
            (
                |config| {
                    config.heartbeat_tick = 0;
                    config.max_inflight_msgs = 0;
                },
                "heartbeat tick must be greater than 0",
            ),
        ] {
            assert_eq!(with(change), want);
        }
    }

    #[test]
    fn election_timeouts_are_drawn_from_one_to_two_times_the_base_unless_told_otherwise() {
        for (min, max, want) in
            [(0, 0, (10, 20)), (15, 0, (15, 20)), (0, 11, (10, 11)), (30, 40, (30, 40))]
        {
            let config =
                Config { min_election_tick: min, max_election_tick: max, ..Config::new(NodeId(1)) };
            assert_eq!((config.validate(), config.election_range()), (Ok(()), want));
        }
        let longest = Config { election_tick: u32::MAX, ..Config::new(NodeId(1)) };
        assert_eq!(longest.validate(), Ok(()));
    }

    #[test]
    fn limits_fall_back_on_others() {
        for (per_ready, per_msg, want) in [(0, 0, 0), (0, 9, 9), (4, 9, 4)] {
            let config = Config {
                max_committed_size_per_ready: per_ready,
                max_size_per_msg: per_msg,
                ..Config::default()
            };
            assert_eq!(config.applying_bytes_max(), want);
        }
    }
}
