//! What the engine would have logged, as values.
//!
//! Notes come with each `Ready`, at most [`Config::notes_max`](crate::Config::notes_max) of them;
//! nothing depends on whether anybody reads them. Nothing is noted on the path of an ordinary
//! entry, heartbeat or read. Their texts name nodes in hexadecimal, as etcd's logs do.

use std::fmt;

use quorate_types::{EntryId, Index, NodeId, Term};

use crate::{CampaignType, ChangeRefusal, DropReason, MessageType, Role};

/// Something worth telling an operator, or a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named by the sentences they stand in")]
pub enum Note {
    /// The node took a role, perhaps the same as before in another term.
    Became { role: Role, term: Term, leader: NodeId },
    /// A follower learned who leads.
    LeaderKnown { leader: NodeId, term: Term },
    /// A follower was told to forget its leader.
    LeaderForgotten { leader: NodeId, term: Term },
    /// A follower was told to forget its leader, and may not, because reads rest on its lease.
    ForgetRefused,
    /// The node asks for votes.
    Campaigning { kind: CampaignType, term: Term },
    /// The node was to campaign and does not.
    CampaignRefused { why: CampaignRefusal },
    /// A vote was given, or promised.
    VoteGranted { candidate: NodeId, term: Term, pre_vote: bool },
    /// A vote was refused.
    VoteRefused { candidate: NodeId, term: Term, pre_vote: bool },
    /// A candidate was ignored, because this node heard from its leader lately.
    LeaseHeld { candidate: NodeId, leader: NodeId },
    /// A candidate was ignored because of a promise to a leader that is not followed any more
    /// ([`Config::lease_ticks`](crate::Config::lease_ticks)).
    PromiseKept { candidate: NodeId },
    /// An answer to a campaign was counted.
    VoteCounted { from: NodeId, granted: bool },
    /// A leader heard from no quorum for an election timeout, and steps down.
    QuorumLost { term: Term },
    /// A message was not handled.
    Dropped { kind: MessageType, from: NodeId, why: MessageFault },
    /// A proposal was not taken.
    ProposalDropped { why: DropReason },
    /// A membership change was replaced by an empty entry.
    ChangeRefused { index: Index, why: ChangeRefusal },
    /// A joint change is over, and the leader proposed to leave it.
    LeavingJoint { index: Index },
    /// Another membership is in force.
    MembershipChanged { voters: usize, outgoing: usize, learners: usize },
    /// A follower's log does not connect to an append.
    AppendRefused { leader: NodeId, at: EntryId, hint: EntryId },
    /// A peer's log did not connect; the leader goes back.
    PeerDiverged { peer: NodeId, refused: Index, next: Index },
    /// A peer could not be reached.
    PeerUnreachable { peer: NodeId },
    /// A peer needs entries that are compacted and gets a snapshot.
    SnapshotSent { peer: NodeId, snapshot: EntryId },
    /// A peer needs a snapshot, but none is ready.
    SnapshotNotReady { peer: NodeId },
    /// The application told what became of a snapshot.
    SnapshotReported { peer: NodeId, failed: bool },
    /// A snapshot replaces the log.
    SnapshotRestored { snapshot: EntryId },
    /// A snapshot was not needed, or not usable.
    SnapshotIgnored { snapshot: EntryId, why: SnapshotFault },
    /// This follower asked its leader for a snapshot at or after this index.
    SnapshotAsked { index: Index },
    /// This follower no longer waits for the snapshot it asked for.
    SnapshotRequestEnded { index: Index },
    /// A peer asked for a snapshot at or after this index.
    SnapshotRequested { peer: NodeId, index: Index },
    /// Leadership is handed over.
    TransferStarted { to: NodeId },
    /// The next leader has the whole log and was told to campaign.
    TransferOrdered { to: NodeId },
    /// A transfer of leadership is over.
    TransferEnded { to: NodeId, outcome: TransferOutcome },
    /// A leader has no vote any more; it leaves office once enough others know.
    Departing { until: Index },
    /// Leadership cannot be handed to this node.
    TransferRefused { to: NodeId },
    /// Reads can no longer be answered.
    ReadsLost { count: usize },
    /// So many notes found no room.
    Missed { count: u64 },
}

/// Why a node does not campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CampaignRefusal {
    /// It leads.
    Leader,
    /// It is no voter, or has a snapshot to install first.
    NotPromotable,
    /// A committed membership change is not applied yet.
    UnappliedChange,
    /// There is no higher term.
    LastTerm,
    /// There is no higher index for the entry that opens a term.
    LastIndex,
    /// A leader may still count on nobody else being elected
    /// ([`Config::lease_ticks`](crate::Config::lease_ticks)).
    Promised,
}

/// What became of a transfer of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named by the sentences they stand in")]
pub enum TransferOutcome {
    /// The chosen node leads.
    Transferred,
    /// Within an election timeout the chosen node did not take over; this node still leads, or
    /// gave way and heard of no leader since.
    TimedOut,
    /// It was not begun: the chosen node is no voter, or leads already.
    Refused,
    /// This node was told to keep its office.
    Cancelled,
    /// This node was told to hand over to another instead.
    Replaced { by: NodeId },
    /// The chosen node is no voter any more.
    TargetRemoved,
    /// Another node leads.
    OtherLeader { leader: NodeId },
    /// This node stepped down before the chosen node could take over: it heard from no quorum, or
    /// is no voter any more.
    LeadershipLost,
}

/// Why a message was not handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MessageFault {
    /// It is of an earlier term.
    OldTerm,
    /// It has no term, no sender, or a sender who cannot have sent it.
    Envelope,
    /// What it says contradicts itself or what is known.
    Malformed,
    /// The sender is not a member.
    NotMember,
    /// The node's role has no use for it.
    Role,
    /// It would have to go on to a leader, and none is known.
    NoLeader,
    /// It leads to a message to the node itself, or to nobody.
    NoRecipient,
    /// Too many reads wait already.
    TooManyReads,
    /// Too many messages wait to be sent.
    NoRoom,
}

/// Why a snapshot was not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SnapshotFault {
    /// All of it is committed here.
    Old,
    /// The log reaches as far already; only the commit index moved.
    Known,
    /// This node is no member in it.
    NotMember,
    /// Its membership is none.
    Membership,
    /// Its index or term cannot be, or contradict what is committed here.
    Malformed,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Note::Became { role, term, leader } => {
                write!(f, "became {} at term {term}", word(role))?;
                match leader.known() {
                    Some(leader) if role == Role::Follower => write!(f, ", following {leader:x}"),
                    _ => Ok(()),
                }
            }
            Note::LeaderKnown { leader, term } => write!(f, "follows {leader:x} at term {term}"),
            Note::LeaderForgotten { leader, term } => {
                write!(f, "forgets leader {leader:x} at term {term}")
            }
            Note::ForgetRefused => {
                write!(f, "keeps its leader, because reads rest on the leader's lease")
            }
            Note::Campaigning { kind, term } => {
                let kind = match kind {
                    CampaignType::PreElection => "pre-votes",
                    CampaignType::Election => "votes",
                    CampaignType::Transfer => "votes, by order of the leader,",
                };
                write!(f, "asks for {kind} for term {term}")
            }
            Note::CampaignRefused { why } => write!(f, "does not campaign: {why}"),
            Note::VoteGranted { candidate, term, pre_vote } => {
                write!(f, "gives {candidate:x} its {} for term {term}", ballot(pre_vote))
            }
            Note::VoteRefused { candidate, term, pre_vote } => {
                write!(f, "refuses {candidate:x} its {} for term {term}", ballot(pre_vote))
            }
            Note::LeaseHeld { candidate, leader } => {
                write!(
                    f,
                    "ignores candidate {candidate:x}: leader {leader:x} was heard from lately"
                )
            }
            Note::PromiseKept { candidate } => {
                write!(f, "ignores candidate {candidate:x}: a leader may still count on that")
            }
            Note::VoteCounted { from, granted } => {
                write!(f, "{from:x} says {}", if granted { "yes" } else { "no" })
            }
            Note::QuorumLost { term } => write!(f, "heard from no quorum at term {term}"),
            Note::Dropped { kind, from, why } => write!(f, "dropped {kind:?} from {from:x}: {why}"),
            Note::ProposalDropped { why } => write!(f, "dropped a proposal: {why}"),
            Note::ChangeRefused { index, why } => {
                write!(f, "refused the membership change at {index}: {why}")
            }
            Note::LeavingJoint { index } => write!(f, "leaves the joint membership by {index}"),
            Note::MembershipChanged { voters, outgoing, learners } => {
                write!(f, "has {voters} voters, {outgoing} outgoing, {learners} learners")
            }
            Note::AppendRefused { leader, at, hint } => {
                write!(f, "refused to append after {at} from {leader:x}: perhaps after {hint}")
            }
            Note::PeerDiverged { peer, refused, next } => {
                write!(f, "{peer:x} refused to append after {refused}: next is {next}")
            }
            Note::PeerUnreachable { peer } => write!(f, "{peer:x} could not be reached"),
            Note::SnapshotSent { peer, snapshot } => {
                write!(f, "sent snapshot {snapshot} to {peer:x}")
            }
            Note::SnapshotNotReady { peer } => write!(f, "no snapshot is ready for {peer:x}"),
            Note::SnapshotReported { peer, failed } => {
                write!(f, "snapshot to {peer:x} {}", if failed { "failed" } else { "was sent" })
            }
            Note::SnapshotRestored { snapshot } => {
                write!(f, "starts over from snapshot {snapshot}")
            }
            Note::SnapshotIgnored { snapshot, why } => {
                write!(f, "ignored snapshot {snapshot}: {why}")
            }
            Note::SnapshotAsked { index } => {
                write!(f, "asked for a snapshot at or after {index}")
            }
            Note::SnapshotRequestEnded { index } => {
                write!(f, "no longer waits for a snapshot at or after {index}")
            }
            Note::SnapshotRequested { peer, index } => {
                write!(f, "{peer:x} asks for a snapshot at or after {index}")
            }
            Note::TransferStarted { to } => write!(f, "hands leadership to {to:x}"),
            Note::TransferOrdered { to } => write!(f, "told {to:x} to campaign"),
            Note::TransferEnded { to, outcome } => {
                write!(f, "transfer of leadership to {to:x}: {outcome}")
            }
            Note::Departing { until } => {
                write!(f, "has no vote any more, and leads until {until} is committed")
            }
            Note::TransferRefused { to } => write!(f, "cannot hand leadership to {to:x}"),
            Note::ReadsLost { count } => write!(f, "cannot answer {count} reads"),
            Note::Missed { count } => write!(f, "{count} more notes"),
        }
    }
}

impl fmt::Display for CampaignRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CampaignRefusal::Leader => "it leads",
            CampaignRefusal::NotPromotable => "it may not be elected now",
            CampaignRefusal::UnappliedChange => "a committed membership change is not applied yet",
            CampaignRefusal::LastTerm => "there is no higher term",
            CampaignRefusal::LastIndex => "there is no higher index",
            CampaignRefusal::Promised => "a leader may still count on that",
        })
    }
}

impl fmt::Display for TransferOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransferOutcome::Transferred => f.write_str("done"),
            TransferOutcome::TimedOut => f.write_str("timed out"),
            TransferOutcome::Refused => f.write_str("refused"),
            TransferOutcome::Cancelled => f.write_str("cancelled"),
            TransferOutcome::Replaced { by } => write!(f, "replaced by one to {by:x}"),
            TransferOutcome::TargetRemoved => f.write_str("it is no voter any more"),
            TransferOutcome::OtherLeader { leader } => write!(f, "{leader:x} leads instead"),
            TransferOutcome::LeadershipLost => f.write_str("this node stepped down before"),
        }
    }
}

impl fmt::Display for MessageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MessageFault::OldTerm => "old term",
            MessageFault::Envelope => "bad envelope",
            MessageFault::Malformed => "malformed",
            MessageFault::NotMember => "not a member",
            MessageFault::Role => "not in this role",
            MessageFault::NoLeader => "no leader",
            MessageFault::NoRecipient => "no recipient",
            MessageFault::TooManyReads => "too many reads wait",
            MessageFault::NoRoom => "too many messages wait to be sent",
        })
    }
}

impl fmt::Display for SnapshotFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SnapshotFault::Old => "it is committed here already",
            SnapshotFault::Known => "the log has it already",
            SnapshotFault::NotMember => "this node is not in it",
            SnapshotFault::Membership => "its membership is none",
            SnapshotFault::Malformed => "malformed",
        })
    }
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::PreCandidate => "pre-candidate",
    }
}

fn ballot(pre_vote: bool) -> &'static str {
    if pre_vote { "pre-vote" } else { "vote" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_name_nodes_in_hexadecimal() {
        let (to, term) = (NodeId(0x143e_e4a8), Term(2));
        let told = [
            (Note::LeaderKnown { leader: to, term }, "follows 143ee4a8 at term 2"),
            (
                Note::Became { role: Role::Follower, term, leader: to },
                "became follower at term 2, following 143ee4a8",
            ),
            (
                Note::TransferEnded { to, outcome: TransferOutcome::OtherLeader { leader: to } },
                "transfer of leadership to 143ee4a8: 143ee4a8 leads instead",
            ),
        ];
        for (note, text) in told {
            assert_eq!(note.to_string(), text, "{note:?}");
        }
    }
}
