//! What became of a change, and of a transfer.

use quorate_types::{Index, NodeId, Term, bug};

use crate::interface::RaftError;
use crate::server::{ServerId, ServerStats};
use crate::time::{Span, Time};

use super::{CoreMembership, server_id};

/// Tells one change from all others of this node; travels with it through the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(pub u64);

/// What became of a change or a transfer, for whoever asked.
#[derive(Clone, Debug)]
pub struct Fate {
    /// Of which change.
    pub tag: Tag,
    /// The index at which it was applied, or why it was not.
    pub result: Result<Index, RaftError>,
}

/// Whether a change that was decided on the configuration of `prev_index` still holds for the one of
/// `index`; 0 holds for any.
///
/// Asked before a change is proposed and again when it is applied. Every node compares the same
/// replicated numbers, so that all of them apply it, or none does.
///
/// # Errors
///
/// `ConfigChanged`: the change is then applied as none.
pub fn admits(index: Index, prev_index: Index) -> Result<(), RaftError> {
    match prev_index == Index(0) || prev_index == index {
        true => Ok(()),
        false => Err(RaftError::ConfigChanged { named: prev_index, latest: index }),
    }
}

/// The one change that may be under way. The core would replace a second one by an empty entry and say
/// nothing; here it is refused.
#[derive(Debug, Default)]
pub struct Changes {
    pending: Option<Pending>,
    tags_given: u64,
}

#[derive(Debug)]
struct Pending {
    tag: Tag,
    /// Where the core said it would stand.
    index: Option<Index>,
    deadline: Time,
    timeout: Span,
}

impl Changes {
    /// Makes room for one change, which is then to be proposed with this tag.
    ///
    /// # Errors
    ///
    /// `ConfigChangeInProgress` while one is under way, the configuration is joint, or leadership is
    /// being handed over, for which the core drops proposals; `ConfigChanged` if it was decided on
    /// another configuration than there is.
    pub fn begin(
        &mut self,
        now: Time,
        membership: &CoreMembership,
        prev_index: Index,
        timeout: Span,
        is_transferring: bool,
    ) -> Result<Tag, RaftError> {
        let is_busy = self.pending.is_some() || membership.is_joint() || is_transferring;
        if is_busy && !bug!("a-second-change-vanishes") {
            return Err(RaftError::ConfigChangeInProgress);
        }
        admits(membership.index, prev_index)?;
        self.tags_given += 1;
        let tag = Tag(self.tags_given);
        let deadline = now.plus(timeout);
        self.pending = Some(Pending { tag, index: None, deadline, timeout });
        Ok(tag)
    }

    /// The core took the proposal, and put it at `index`; or it did not.
    pub fn on_proposed(&mut self, tag: Tag, index: Option<Index>) -> Option<Fate> {
        let pending = self.pending.as_mut().filter(|pending| pending.tag == tag)?;
        pending.index = index;
        if index.is_none() {
            return self.end(Err(RaftError::ProposalDropped));
        }
        None
    }

    /// The entry at `index` was applied; with a change of this node's if it carries a tag of it.
    /// `outcome` is what [`admits`] said about that change.
    pub fn on_applied(
        &mut self,
        index: Index,
        tag: Option<Tag>,
        outcome: Result<(), RaftError>,
    ) -> Option<Fate> {
        let pending = self.pending.as_ref()?;
        if tag == Some(pending.tag) {
            return self.end(outcome.map(|()| index));
        }
        // Something else stands where it was to stand: the core replaced it.
        if pending.index == Some(index) && !bug!("a-second-change-vanishes") {
            return self.end(Err(RaftError::ProposalDropped));
        }
        None
    }

    /// This node leads no more: the change may still come.
    pub fn on_lost_leadership(&mut self) -> Option<Fate> {
        self.end(Err(RaftError::Unknown))
    }

    /// Gives up a change that takes too long.
    pub fn on_time(&mut self, now: Time) -> Option<Fate> {
        let pending = self.pending.as_ref().filter(|pending| pending.deadline <= now)?;
        let timeout = pending.timeout;
        self.end(Err(RaftError::Timeout(timeout)))
    }

    fn end(&mut self, result: Result<Index, RaftError>) -> Option<Fate> {
        self.pending.take().map(|pending| Fate { tag: pending.tag, result })
    }
}

/// The stats of a peer, as a leader can tell without asking it: how far its log matches, the term there
/// (0 if the entry is gone from the log), and when it was last heard from.
pub fn stats_of_peer(
    now: Time,
    matched: Index,
    term_at_matched: Option<Term>,
    heard_at: Option<Time>,
) -> ServerStats {
    let known = term_at_matched.filter(|_| matched != Index(0));
    ServerStats {
        // The clock of the caller does not go back; if it does, the contact is of now.
        last_contact: heard_at.map_or(Span(-1), |at| now.since(at).max(Span::ZERO)),
        last_term: known.unwrap_or_default(),
        last_index: matched,
    }
}

/// The stats of the leader itself.
pub fn stats_of_leader(last_index: Index, last_term: Term) -> ServerStats {
    ServerStats { last_contact: Span::ZERO, last_term, last_index }
}

/// A transfer of leadership under way. It ends when somebody else leads, and after one election timeout
/// at the latest, when the core gives up as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    to: NodeId,
    deadline: Time,
    election_timeout: Span,
}

impl Transfer {
    /// Begins one, for the core to be asked.
    ///
    /// # Errors
    ///
    /// See [`CoreMembership::plan_transfer`].
    pub fn begin(
        now: Time,
        membership: &CoreMembership,
        to: &ServerId,
        election_timeout: Span,
    ) -> Result<Transfer, RaftError> {
        let to = membership.plan_transfer(to)?;
        Ok(Transfer { to, deadline: now.plus(election_timeout), election_timeout })
    }

    /// Whom the core is to be asked to hand over to.
    pub fn to(&self) -> NodeId {
        self.to
    }

    /// Its end, if this is it: who leads now, and what time it is.
    pub fn outcome(
        &self,
        now: Time,
        leader: Option<NodeId>,
        me: NodeId,
    ) -> Option<Result<(), RaftError>> {
        match leader {
            Some(leader) if leader == self.to => Some(Ok(())),
            Some(leader) if leader != me => {
                Some(Err(RaftError::NotLeader { leader: Some(server_id(leader)) }))
            }
            _ if self.deadline <= now && !bug!("a-transfer-never-ends") => {
                Some(Err(RaftError::Timeout(self.election_timeout)))
            }
            _ => None,
        }
    }
}
