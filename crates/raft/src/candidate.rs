//! A candidate, or a pre-candidate: counts votes, and gives way to a leader.
//!
//! The votes themselves are counted by the membership ([`ProgressTracker`](crate::ProgressTracker)),
//! which knows who has one.

use quorate_types::quorum::VoteResult;
use quorate_types::{NodeId, bug};

use crate::core::Core;
use crate::note::{MessageFault, Note};
use crate::raft::Next;
use crate::reads::ReadRequest;
use crate::{Body, CampaignType, Error, Message, Storage};

pub(crate) fn step<S: Storage>(
    core: &mut Core<S>,
    campaign: CampaignType,
    message: Message,
) -> Result<Next, Error> {
    let (from, kind) = (message.from, message.message_type());
    match message.body {
        // Somebody else won this term.
        Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. } => {
            return Ok(Next::Relay(Box::new(message)));
        }
        Body::VoteReply { reject } if campaign == CampaignType::Election => {
            return Ok(on_vote(core, campaign, from, !reject));
        }
        Body::PreVoteReply { reject }
            if campaign == CampaignType::PreElection
                || bug!("promises-of-votes-count-as-votes") =>
        {
            return Ok(on_vote(core, campaign, from, !reject));
        }
        // Votes of the other stage of this campaign.
        Body::VoteReply { .. } | Body::PreVoteReply { .. } => {}
        Body::ReadIndex { entries } => {
            core.lose_read(&ReadRequest { from, entries });
            core.dropped(kind, from, MessageFault::Role);
        }
        Body::TimeoutNow | Body::TransferLeader | Body::ReadIndexReply { .. } => {
            core.dropped(kind, from, MessageFault::Role);
        }
        // Answers to what this node asked in another role, and what only others do.
        Body::AppendReply { .. }
        | Body::AppendRefusal { .. }
        | Body::HeartbeatReply { .. }
        | Body::Beat
        | Body::CheckQuorum
        | Body::SnapshotStatus { .. }
        | Body::Unreachable
        | Body::ForgetLeader => {}
        // Handled before the role is looked at, or by storage.
        Body::Hup
        | Body::Propose { .. }
        | Body::Vote { .. }
        | Body::PreVote { .. }
        | Body::StorageAppend { .. }
        | Body::StorageAppendReply { .. }
        | Body::StorageApply { .. }
        | Body::StorageApplyReply { .. } => {}
    }
    Ok(Next::Stay)
}

fn on_vote<S: Storage>(
    core: &mut Core<S>,
    campaign: CampaignType,
    from: NodeId,
    granted: bool,
) -> Next {
    core.note(Note::VoteCounted { from, granted });
    core.tracker.record_vote(from, granted);
    match core.tracker.tally_votes().result {
        VoteResult::Pending => Next::Stay,
        VoteResult::Won if campaign == CampaignType::PreElection => {
            Next::Campaign(CampaignType::Election)
        }
        VoteResult::Won
            if core.config.lead_after_own_vote
                && core.tracker.vote(core.config.id).is_none()
                && !bug!("leads-before-its-own-vote") =>
        {
            Next::Stay
        }
        VoteResult::Won => Next::Lead,
        // In its own term: an answer to a pre-vote may carry a later one.
        VoteResult::Lost => Next::Follow { term: core.term, lead: NodeId::NONE },
    }
}
