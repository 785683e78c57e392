//! Makes messages: gometa's `MsgFactory`.

use bytes::Bytes;
use quorate_zab::{
    Address, Command, Epoch, EpochAck, FollowerInfo, LeaderInfo, LogEntry, Message, PeerStatus,
    Proposal, Request, Vote, Zxid,
};

/// Makes the thirteen messages, for those who talk to nodes themselves: to authenticate, or in
/// tests. The node makes its own. What is not an argument is as a gometa process would have it.
#[allow(missing_docs, reason = "each makes the message it is named after")]
pub trait MsgFactory {
    #[allow(clippy::too_many_arguments, reason = "as many as the message has fields")]
    fn create_vote(
        &self,
        round: u64,
        status: PeerStatus,
        epoch: Epoch,
        candidate: &str,
        logged: Zxid,
        committed: Zxid,
        solicit: bool,
    ) -> Vote {
        let candidate = Address::from(candidate);
        Vote { round, status, epoch, candidate, logged, committed, solicit, cluster: None }
    }

    fn create_follower_info(&self, accepted_epoch: Epoch, fid: &str, voting: bool) -> Message {
        let fid = Address::from(fid);
        Message::FollowerInfo(FollowerInfo { accepted_epoch, fid, voting, ..Default::default() })
    }

    fn create_leader_info(&self, epoch: Epoch) -> Message {
        Message::LeaderInfo(LeaderInfo { epoch, caps: None })
    }

    fn create_epoch_ack(&self, logged: Zxid, current_epoch: Epoch) -> Message {
        Message::EpochAck(EpochAck { logged, current_epoch, committed: None })
    }

    fn create_log_entry(&self, zxid: Zxid, command: Command) -> Message {
        Message::LogEntry(LogEntry { zxid, command, keep: None })
    }

    fn create_new_leader(&self, epoch: Epoch) -> Message {
        Message::NewLeader { epoch }
    }

    fn create_new_leader_ack(&self) -> Message {
        Message::NewLeaderAck
    }

    fn create_request(&self, id: u64, command: Command) -> Message {
        Message::Request(Request { id, command })
    }

    fn create_proposal(&self, zxid: Zxid, fid: &str, request: u64, command: Command) -> Message {
        Message::Proposal(Proposal { zxid, fid: Address::from(fid), request, command })
    }

    fn create_accept(&self, zxid: Zxid, fid: &str) -> Message {
        Message::Accept { zxid, fid: Address::from(fid) }
    }

    fn create_commit(&self, zxid: Zxid) -> Message {
        Message::Commit { zxid }
    }

    fn create_abort(&self, fid: &str, request: u64, error: &str) -> Message {
        Message::Abort { request, fid: Address::from(fid), error: error.to_owned() }
    }

    fn create_response(
        &self,
        fid: &str,
        request: u64,
        error: &str,
        content: Option<Bytes>,
    ) -> Message {
        Message::Response { request, fid: Address::from(fid), error: error.to_owned(), content }
    }
}

/// Makes messages as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Messages;

impl MsgFactory for Messages {}
