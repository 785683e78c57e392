//! A follower: takes in what its leader says, and sends on what is the leader's to answer.

use bytes::Bytes;
use quorate_types::{EntryId, Index, NodeId, Term, bug};

use crate::core::Core;
use crate::log::LogSlice;
use crate::note::{MessageFault, Note, SnapshotFault};
use crate::raft::Next;
use crate::reads::{ReadRequest, without_tick};
use crate::{
    Body, CampaignType, Changer, DropReason, Entries, Entry, Error, Message, MessageType,
    ReadOnlyOption, ReadState, Snapshot, Storage,
};

pub(crate) fn step<S: Storage>(core: &mut Core<S>, message: Message) -> Result<Next, Error> {
    let (from, kind) = (message.from, message.message_type());
    match message.body {
        Body::Append { prev, entries, commit } => {
            hear_from(core, from);
            // The snapshot that is asked for must cover the whole log, so it does not grow.
            if core.snapshot_wanted.is_none() {
                on_append(core, message.term, from, prev, entries, commit)?;
            }
        }
        Body::Heartbeat { commit, context } => {
            hear_from(core, from);
            on_heartbeat(core, from, commit, context)?;
        }
        Body::Snapshot { snapshot } => {
            hear_from(core, from);
            on_snapshot(core, from, snapshot)?;
        }
        Body::TimeoutNow => return Ok(Next::Hup(CampaignType::Transfer)),
        Body::TransferLeader => {
            core.forward(from, Body::TransferLeader);
        }
        Body::ReadIndex { entries } => on_read(core, from, entries),
        Body::ReadIndexReply { index, mut entries } => match (entries.pop(), entries.pop()) {
            (Some(entry), None) => {
                let request_ctx = entry.data.unwrap_or_default();
                core.read_states.push(ReadState { index, request_ctx });
            }
            _ => core.dropped(kind, from, MessageFault::Malformed),
        },
        Body::ForgetLeader => forget_leader(core),
        // Answers to what this node asked in another role, and what only a leader does.
        Body::AppendReply { .. }
        | Body::AppendRefusal { .. }
        | Body::VoteReply { .. }
        | Body::PreVoteReply { .. }
        | Body::HeartbeatReply { .. }
        | Body::Beat
        | Body::CheckQuorum
        | Body::SnapshotStatus { .. }
        | Body::Unreachable => {}
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

/// Sends proposals of `from` on to the leader, which may still refuse or lose them.
pub(crate) fn propose<S: Storage>(
    core: &mut Core<S>,
    from: NodeId,
    entries: Vec<Entry>,
) -> Result<(), Error> {
    if core.lead.is_none() {
        return Err(Error::ProposalDropped(DropReason::NoLeader));
    }
    if core.config.disable_proposal_forwarding {
        return Err(Error::ProposalDropped(DropReason::ForwardingDisabled));
    }
    match core.forward(from, Body::Propose { entries }) {
        true => Ok(()),
        false => Err(Error::ProposalDropped(DropReason::MessagesFull)),
    }
}

/// The leader of this term gave a sign of life.
pub(crate) fn hear_from<S: Storage>(core: &mut Core<S>, leader: NodeId) {
    core.election_since = core.now;
    core.promise();
    core.is_gone = false;
    if core.lead != leader {
        core.lead = leader;
        core.note(Note::LeaderKnown { leader, term: core.term });
        core.on_leader_known();
    }
}

fn on_append<S: Storage>(
    core: &mut Core<S>,
    term: Term,
    leader: NodeId,
    prev: EntryId,
    entries: Entries,
    commit: Index,
) -> Result<(), Error> {
    // It crossed an answer of ours: what is committed, the leader has too.
    if prev.index < core.log.committed() {
        core.send(leader, Body::AppendReply { index: core.log.committed() });
        return Ok(());
    }
    let Ok(slice) = LogSlice::new(term, prev, entries) else {
        core.dropped(MessageType::MsgApp, leader, MessageFault::Malformed);
        return Ok(());
    };
    if let Some(index) = core.log.maybe_append(slice, commit)? {
        core.send(leader, Body::AppendReply { index });
        return Ok(());
    }
    // Our best guess spares the leader a round for each entry that differs.
    let highest = prev.index.min(core.log.last_index());
    let hint = core.log.find_conflict_by_term(highest, prev.term)?;
    core.note(Note::AppendRefused { leader, at: prev, hint });
    core.send(leader, Body::AppendRefusal { index: prev.index, hint });
    Ok(())
}

fn on_heartbeat<S: Storage>(
    core: &mut Core<S>,
    leader: NodeId,
    commit: Index,
    context: Bytes,
) -> Result<(), Error> {
    core.log.commit_to(commit)?;
    let context = match core.config.lease_ticks == 0 || core.is_remembered {
        true => context,
        // The promise would not outlast a crash.
        false => without_tick(&context),
    };
    core.send(leader, Body::HeartbeatReply { context });
    if core.snapshot_wanted.is_some() {
        // What was said before may be lost, and the snapshot after it.
        ask_for_snapshot(core);
    }
    Ok(())
}

/// Tells the leader which snapshot this node waits for.
pub(crate) fn ask_for_snapshot<S: Storage>(core: &mut Core<S>) {
    if let Some(index) = core.snapshot_wanted {
        let hint = EntryId { term: Term(0), index };
        core.send(core.lead, Body::AppendRefusal { index: Index(0), hint });
    }
}

fn on_snapshot<S: Storage>(
    core: &mut Core<S>,
    leader: NodeId,
    snapshot: Box<Snapshot>,
) -> Result<(), Error> {
    let id = snapshot.id();
    match restore(core, snapshot)? {
        None => core.note(Note::SnapshotRestored { snapshot: id }),
        Some(why) => core.note(Note::SnapshotIgnored { snapshot: id, why }),
    }
    // Just restored, the log ends where it is committed.
    core.send(leader, Body::AppendReply { index: core.log.committed() });
    Ok(())
}

/// Starts over from `snapshot`, or says why not.
fn restore<S: Storage>(
    core: &mut Core<S>,
    snapshot: Box<Snapshot>,
) -> Result<Option<SnapshotFault>, Error> {
    let (id, conf_state) = (snapshot.id(), &snapshot.metadata.conf_state);
    if !snapshot.is_possible() {
        return Ok(Some(SnapshotFault::Malformed));
    }
    // It stands for all that this node ever acknowledged: nothing of that may get lost with the log.
    let is_wanted = core.snapshot_wanted.is_some() && core.log.last_index() <= id.index;
    if is_wanted && id.index == core.log.last_index() && !core.log.match_term(id)? {
        return Ok(Some(SnapshotFault::Malformed));
    }
    if id.index <= core.log.committed() && !is_wanted && !bug!("an-older-snapshot-is-taken") {
        return Ok(Some(SnapshotFault::Old));
    }
    let mut members =
        conf_state.voters.iter().chain(&conf_state.learners).chain(&conf_state.voters_outgoing);
    if !members.any(|member| *member == core.id) {
        return Ok(Some(SnapshotFault::NotMember));
    }
    let cuts = is_wanted || bug!("a-snapshot-cuts-entries-that-match");
    if !cuts && core.log.match_term(id)? {
        core.log.commit_to(id.index)?;
        return Ok(Some(SnapshotFault::Known));
    }
    // Before anything is replaced: a snapshot of which no membership can be made helps nobody.
    let changer = Changer { tracker: &core.tracker, last_index: id.index };
    let Ok(membership) = changer.restore(conf_state) else {
        return Ok(Some(SnapshotFault::Membership));
    };
    core.log.restore(snapshot);
    if !bug!("a-snapshot-leaves-the-old-membership") {
        core.install(membership);
    }
    core.restored = id.index;
    core.snapshot_wanted = None;
    Ok(None)
}

/// A read is the leader's to confirm.
fn on_read<S: Storage>(core: &mut Core<S>, from: NodeId, entries: Vec<Entry>) {
    if core.lead.is_none() || core.is_full() {
        core.lose_read(&ReadRequest { from, entries: entries.clone() });
    }
    core.forward(from, Body::ReadIndex { entries });
}

fn forget_leader<S: Storage>(core: &mut Core<S>) {
    if core.config.read_only_option == ReadOnlyOption::LeaseBased {
        // A new leader could arise while the old one's lease still runs.
        core.note(Note::ForgetRefused);
    } else if let Some(leader) = core.lead.known() {
        core.lead = NodeId::NONE;
        core.note(Note::LeaderForgotten { leader, term: core.term });
    }
}
