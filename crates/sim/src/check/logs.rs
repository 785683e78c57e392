//! The promises of Raft's logs across members (thesis 3.2), and of the durable log below them.
//!
//! *Election safety*: at most one leader a term, counted by process, so that a vote given twice
//! around a crash shows. *Log matching*: an entry of an index and term is the same everywhere, and
//! so is all before it. *Leader completeness*: who leads has every entry that a leader of an earlier
//! term committed. What a later one has committed by then it need not have: its votes may come late,
//! when another is in office already, which it finds out with its first word to a majority.
//! *Marks*: what a process has committed or applied never goes back.
//! *Commit*: what a leader commits is durable on a majority by then, not only written. *Recovery*:
//! what a member reads from its disk is what some first part of its writes made of it, and that part
//! has every write that was reported as durable.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use quorate_raft::{ConfState, Role};
use quorate_replica::{Engine, Glance, HardState, Initial, Status, Write, WriteId};
use quorate_types::{Index, NodeId, Term};
use quorate_zab::Zxid;

use super::Finding;
use super::applied::Applied;

/// Entries remembered for log matching; the oldest go first.
const ENTRIES_MAX: usize = 50_000;

/// What was done to a member's disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Harm {
    pub(super) is_wiped: bool,
    /// It lied about what this start had to write.
    pub(super) has_lied: bool,
    /// Bits were flipped on it since the member last started.
    pub(super) has_rotted: bool,
}

#[derive(Default)]
pub(super) struct Logs {
    leaders: BTreeMap<Term, (NodeId, u64)>,
    /// How far the log was known to be committed by anyone in a term. Who knows it has it from a leader
    /// of that term or of an earlier one.
    committed: BTreeMap<Term, Index>,
    /// By index and term: digest, and the term of the entry before.
    entries: BTreeMap<(Index, Term), (u32, Option<Term>)>,
    members: BTreeMap<NodeId, Member>,
}

#[derive(Default)]
struct Member {
    /// As the writes that were handed out make it.
    written: Shadow,
    /// As those make it that are durable.
    durable: Shadow,
    pending: VecDeque<Pending>,
    /// As `durable` was before each of the last syncs, as long as the disk lied about every one of
    /// them: the first that it did not lie about has a record that shows that those before it are lost.
    before_lies: Vec<Shadow>,
    /// The same before earlier lies since it started, of which a later record shows that they were some; if
    /// that one rots, nothing does.
    before_shown_lies: Vec<Shadow>,
    /// As `durable` was whenever a disk was lost, or what one had lied about: what was acknowledged by it
    /// may still count.
    lost: Vec<Shadow>,
    conf_state: ConfState,
    engine: Engine,
    has_started: bool,
    is_wiped: bool,
}

impl Member {
    /// What follows `before` was synced, or not.
    fn on_synced(&mut self, before: Shadow, has_lied: bool) {
        if has_lied {
            self.before_lies.push(before);
        } else {
            self.before_shown_lies.append(&mut self.before_lies);
        }
    }
}

/// What a log does not bring back.
#[derive(Debug)]
pub(super) enum Lost {
    /// The writes of the last syncs, all of which the disk lied about, and nothing else.
    LastGroups,
    /// Something that no disk explains.
    Broken(String),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::LastGroups => f.write_str("recovery: the last groups of writes are lost"),
            Lost::Broken(why) => f.write_str(why),
        }
    }
}

#[derive(Clone, Debug)]
struct Pending {
    id: WriteId,
    install: Option<(Index, Term)>,
    cut_from: Option<Index>,
    entries: Vec<(Index, Term)>,
    hard_state: Option<HardState>,
}

/// A log as indexes and terms.
#[derive(Clone, Debug, Default, PartialEq)]
struct Shadow {
    mark: (Index, Term),
    terms: VecDeque<Term>,
    hard_state: HardState,
}

impl Shadow {
    fn last(&self) -> Index {
        self.mark.0 + self.terms.len() as u64
    }

    fn term(&self, index: Index) -> Option<Term> {
        if index == self.mark.0 {
            return Some(self.mark.1);
        }
        let at = index.0.checked_sub(self.mark.0.0 + 1)?;
        self.terms.get(at as usize).copied()
    }

    fn take(&mut self, write: &Pending) {
        if let Some((index, term)) = write.install {
            if self.term(index) == Some(term) {
                self.terms.drain(..(index - self.mark.0) as usize);
            } else {
                self.terms.clear();
            }
            self.mark = (index, term);
        }
        if let Some(from) = write.cut_from
            && self.mark.0 < from
        {
            self.terms.truncate((from - self.mark.0) as usize - 1);
        }
        let mut replaced = false;
        for (index, term) in &write.entries {
            if *index <= self.mark.0 {
                continue;
            }
            if !replaced {
                self.terms.truncate((*index - self.mark.0) as usize - 1);
                replaced = true;
            }
            self.terms.push_back(*term);
        }
        if let Some(hard_state) = &write.hard_state {
            self.hard_state = without_hint(hard_state);
        }
    }

    /// Whether both say the same where both reach.
    fn agrees(&self, other: &Shadow) -> bool {
        let same_state = self.hard_state == other.hard_state;
        let from = self.mark.0.max(other.mark.0).0;
        let until = self.last().max(other.last()).0;
        same_state && (from..=until).all(|at| self.term(Index(at)) == other.term(Index(at)))
    }

    fn compact(&mut self, keep: u64) {
        while keep < self.terms.len() as u64 {
            let Some(term) = self.terms.pop_front() else { return };
            self.mark = (self.mark.0.next(), term);
        }
    }
}

/// What must survive; how much is committed need not.
fn without_hint(hard_state: &HardState) -> HardState {
    match hard_state.clone() {
        HardState::Raft(state) => {
            HardState::Raft(quorate_raft::HardState { commit: Index(0), ..state })
        }
        HardState::Zab(state) => {
            let committed = Zxid::ZERO;
            HardState::Zab(quorate_zab::HardState { committed, ..state })
        }
    }
}

impl Logs {
    pub(super) fn terms_led(&self) -> u64 {
        self.leaders.len() as u64
    }

    pub(super) fn has_led(&self, term: Term) -> bool {
        self.leaders.contains_key(&term)
    }

    /// What stands at a place in the log that a member has written, synced or not.
    pub(super) fn written(&self, node: NodeId, index: Index) -> Option<Term> {
        self.members.get(&node)?.written.term(index)
    }

    pub(super) fn on_start(
        &mut self,
        node: NodeId,
        initial: &Initial,
        harm: Harm,
    ) -> Result<(), Lost> {
        let Harm { is_wiped, has_lied, has_rotted } = harm;
        let member = self.members.entry(node).or_default();
        if is_wiped && !member.is_wiped {
            member.is_wiped = true;
            member.lost.push(std::mem::take(&mut member.durable));
            member.has_started = false;
        }
        let found = Shadow {
            mark: (initial.mark.index, Term(initial.mark.stamp)),
            terms: initial.entries.iter().map(|entry| entry.term).collect(),
            hard_state: without_hint(&initial.hard_state),
        };
        let mut finding = Ok(());
        if member.has_started {
            let mut could_be = member.durable.clone();
            let mut agrees = could_be.agrees(&found);
            for write in &member.pending {
                could_be.take(write);
                agrees |= could_be.agrees(&found);
            }
            let shown = member.before_shown_lies.iter().filter(|_| has_rotted);
            let mut lies = member.before_lies.iter().chain(shown);
            if !agrees && lies.any(|before| before.agrees(&found)) {
                finding = Err(Lost::LastGroups);
                member.lost.push(member.durable.clone());
            } else if !agrees {
                finding = Err(Lost::Broken(format!(
                    "recovery: {node} reads a log from {} to {} with {:?}; what was durable goes \
                     from {} to {} with {:?}",
                    found.mark.0,
                    found.last(),
                    found.hard_state,
                    member.durable.mark.0,
                    member.durable.last(),
                    member.durable.hard_state,
                )));
            }
        }
        // Not only as many and of these terms, but the very same.
        for entry in &initial.entries {
            let digest = entry.data.as_deref().map_or(0, crc32c::crc32c);
            let known = self.entries.get(&(entry.index, entry.term));
            if known.is_some_and(|(known, _)| *known != digest) {
                let (index, term) = (entry.index, entry.term);
                finding = Err(Lost::Broken(format!(
                    "recovery: {node} reads {index}@{term} with another content than was written"
                )));
            }
        }
        member.pending.clear();
        member.written = found.clone();
        // What is there beyond what was durable, recovery has synced: that may have been a lie, too.
        let before = std::mem::replace(&mut member.durable, found);
        member.on_synced(before, has_lied && member.has_started);
        member.before_shown_lies.clear();
        member.has_started = true;
        member.conf_state = initial.conf_state.clone();
        member.engine = initial.hard_state.engine();
        finding
    }

    pub(super) fn on_end(&mut self, _node: NodeId) {}

    pub(super) fn on_write(&mut self, node: NodeId, write: &Write) -> Finding {
        let member = self.members.entry(node).or_default();
        let pending = Pending {
            id: write.id,
            install: write.mark.as_ref().map(|mark| (mark.index, Term(mark.stamp))),
            cut_from: write.cut_from,
            entries: write.entries.iter().map(|entry| (entry.index, entry.term)).collect(),
            hard_state: write.hard_state.clone(),
        };
        member.written.take(&pending);
        let before = write.entries.first().map(|first| member.written.term(first.index.prev()));
        let mut before = before.flatten();
        member.pending.push_back(pending);
        for entry in &write.entries {
            let digest = entry.data.as_deref().map_or(0, crc32c::crc32c);
            let known = *self.entries.entry((entry.index, entry.term)).or_insert((digest, before));
            let same_before = known.1.is_none() || before.is_none() || known.1 == before;
            if known.0 != digest || !same_before {
                return Err(format!(
                    "log matching: {node} writes {}@{} with another content or past than others",
                    entry.index, entry.term
                ));
            }
            before = Some(entry.term);
        }
        while ENTRIES_MAX < self.entries.len() {
            self.entries.pop_first();
        }
        Ok(())
    }

    /// The log has everything up to this write.
    pub(super) fn on_durable(
        &mut self,
        node: NodeId,
        last: WriteId,
        is_synced: bool,
        has_lied: bool,
    ) {
        let Some(member) = self.members.get_mut(&node) else { return };
        if !is_synced {
            return;
        }
        member.on_synced(member.durable.clone(), has_lied);
        while member.pending.front().is_some_and(|write| write.id <= last) {
            let Some(write) = member.pending.pop_front() else { break };
            member.durable.take(&write);
        }
        // Long logs cost time where they are looked at; members compact theirs.
        member.durable.compact(5_000);
        member.written.compact(10_000);
    }

    pub(super) fn on_glance(
        &mut self,
        node: NodeId,
        life: u64,
        before: Option<Glance>,
        now: Glance,
        applied: &Applied,
        status: impl Fn() -> Status,
    ) -> Finding {
        if before.is_some_and(|before| now.commit < before.commit || now.applied < before.applied) {
            return Err(format!("marks: {node} goes from {before:?} back to {now:?}"));
        }
        let committed = self.committed.entry(now.term).or_default();
        *committed = now.commit.max(*committed);
        let leads = now.role == Role::Leader;
        let began = leads
            && before.is_none_or(|before| before.role != Role::Leader || before.term != now.term);
        if began {
            let known = *self.leaders.entry(now.term).or_insert((node, life));
            if known != (node, life) {
                return Err(format!(
                    "election safety: {node} (process {life}) leads term {}, and so did {} \
                     (process {})",
                    now.term, known.0, known.1
                ));
            }
            self.check_complete(node, now.term, applied)?;
        }
        let moved = before.is_some_and(|before| before.commit < now.commit);
        let changed = before.is_none_or(|before| before.memberships != now.memberships);
        if (leads && moved) || changed {
            let conf_state = status().conf_state;
            let member = self.members.entry(node).or_default();
            // What a leader of Raft knows to be committed when it begins was so in another reign. One of
            // ZAB's has just committed all that it was elected with.
            let is_checked = leads && moved && (!began || member.engine == Engine::Zab);
            let former = std::mem::replace(&mut member.conf_state, conf_state.clone());
            // A change may have come into force in the same turn.
            if is_checked
                && !self.is_held(node, now.commit, &conf_state)
                && !self.is_held(node, now.commit, &former)
            {
                return Err(format!(
                    "commit: {node} commits {} in term {}, which is not durable on a majority",
                    now.commit, now.term
                ));
            }
        }
        Ok(())
    }

    fn check_complete(&self, node: NodeId, term: Term, applied: &Applied) -> Finding {
        let Some(member) = self.members.get(&node) else { return Ok(()) };
        let log = &member.written;
        let earlier = self.committed.range(..term).map(|(_, index)| *index);
        // What nobody has applied yet is looked at when the next one leads.
        let last = earlier.max().unwrap_or_default().min(applied.last());
        for at in log.mark.0.0 + 1..=last.0 {
            let want = applied.term(Index(at));
            let held = log.term(Index(at)).map(|stamp| member.engine.era(stamp.0));
            if held != want {
                return Err(format!(
                    "leader completeness: {node} leads term {term} without committed entry {at}"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn conf_state_of(&self, id: NodeId) -> Option<&ConfState> {
        self.members.get(&id).map(|member| &member.conf_state)
    }

    fn is_held(&self, leader: NodeId, commit: Index, conf_state: &ConfState) -> bool {
        let Some(term) = self.members.get(&leader).and_then(|it| it.written.term(commit)) else {
            return true; // compacted already
        };
        let holds = |voter: &NodeId| {
            self.members.get(voter).is_some_and(|member| {
                let holds = |log: &Shadow| commit < log.mark.0 || log.term(commit) == Some(term);
                holds(&member.durable) || member.lost.iter().any(holds)
            })
        };
        let majority = |voters: &[NodeId]| {
            voters.is_empty() || voters.len() / 2 < voters.iter().filter(|it| holds(it)).count()
        };
        majority(&conf_state.voters) && majority(&conf_state.voters_outgoing)
    }
}

#[cfg(test)]
mod tests {
    use quorate_replica::Applying;
    use quorate_types::Mark;

    use super::*;

    /// What a member shows of itself.
    fn glance(role: Role, term: u64, commit: u64) -> Glance {
        let (commit, leader) = (Index(commit), NodeId::NONE);
        Glance { term: Term(term), commit, applied: Index(1), role, leader, memberships: 1 }
    }

    /// A member's log as it is read from the disk: entries from 2 to `last`.
    fn initial(last: u64) -> Initial {
        let mark = Mark { index: Index(1), stamp: 1, ..Mark::default() };
        let entry = |index| quorate_raft::Entry {
            term: Term(1),
            index: Index(index),
            ..quorate_raft::Entry::default()
        };
        let entries: Vec<_> = (2..=last).map(entry).collect();
        Initial { mark, entries, ..Initial::default() }
    }

    #[test]
    fn only_of_the_last_syncs_that_were_lies_may_a_log_know_nothing() {
        // Whether the disk lied about each sync of an entry, from the second on; how many are read then.
        // What has rotted may be what shows that.
        for (lies, found, want, want_rotted) in [
            (&[false, false][..], 3, "right", "right"),
            (&[false, false], 2, "broken", "broken"),
            (&[false, true], 2, "unknowable", "unknowable"),
            (&[false, true], 1, "broken", "broken"),
            (&[true, true], 2, "unknowable", "unknowable"),
            (&[true, true], 1, "unknowable", "unknowable"),
            (&[true, false], 2, "broken", "broken"),
            (&[true, false], 1, "broken", "unknowable"),
            (&[true, false, true], 3, "unknowable", "unknowable"),
            (&[true, false, true], 1, "broken", "unknowable"),
        ] {
            for (has_rotted, want) in [(true, want_rotted), (false, want)] {
                let (mut logs, node) = (Logs::default(), NodeId(1));
                logs.on_start(node, &initial(1), Harm::default()).unwrap();
                for (number, has_lied) in (1..).zip(lies) {
                    let mut entries = initial(number + 1).entries;
                    let last = entries.pop().unwrap();
                    let write =
                        Write { entries: vec![last].into(), id: WriteId(number), ..synced() };
                    logs.on_write(node, &write).unwrap();
                    logs.on_durable(node, write.id, true, *has_lied);
                }
                let harm = Harm { has_rotted, ..Harm::default() };
                let finding = match logs.on_start(node, &initial(found), harm) {
                    Ok(()) => "right",
                    Err(Lost::LastGroups) => "unknowable",
                    Err(Lost::Broken(_)) => "broken",
                };
                assert_eq!(finding, want, "{lies:?}, rot {has_rotted}: reads up to {found}");
            }
        }
    }

    fn synced() -> Write {
        Write {
            id: WriteId(0),
            hard_state: None,
            cut_from: None,
            entries: Vec::new().into(),
            install: None,
            mark: None,
            must_sync: true,
        }
    }

    #[test]
    fn who_leads_has_what_earlier_leaders_committed_and_needs_no_more() {
        let write = |term| Write {
            entries: vec![quorate_raft::Entry {
                term: Term(term),
                index: Index(2),
                ..quorate_raft::Entry::default()
            }]
            .into(),
            id: WriteId(1),
            hard_state: None,
            cut_from: None,
            mark: None,
            install: None,
            must_sync: true,
        };
        for (term, is_right) in [(2, true), (4, false)] {
            let (mut logs, mut applied) = (Logs::default(), Applied::default());
            for node in [NodeId(1), NodeId(2)] {
                let mark = quorate_types::Mark { index: Index(1), ..Default::default() };
                logs.on_start(node, &Initial { mark, ..Initial::default() }, Harm::default())
                    .unwrap();
            }
            logs.on_write(NodeId(2), &write(3)).unwrap();
            let entry = Applying::Empty { index: Index(2), term: Term(3) };
            applied.on_apply(NodeId(2), &entry).unwrap();
            let mut shows = |node, now| {
                let before = Glance { role: Role::Follower, term: Term(1), ..now };
                let life = 1;
                logs.on_glance(NodeId(node), life, Some(before), now, &applied, || unreachable!())
            };
            shows(2, glance(Role::Leader, 3, 2)).unwrap();
            let finding = shows(1, glance(Role::Leader, term, 1));
            assert_eq!(finding.is_ok(), is_right, "leads term {term}: {finding:?}");
        }
    }

    /// The last member of the majority reads what it has synced, or its disk has lied about that.
    #[test]
    fn what_was_acknowledged_by_a_disk_that_lied_may_be_committed() {
        for (lies, is_wiped) in [(true, false), (true, true), (false, false)] {
            let mut logs = elected_with(1);
            let node = NodeId(2);
            let last = initial(3).entries;
            let write = Write { entries: last.into(), id: WriteId(1), ..synced() };
            logs.on_write(node, &write).unwrap();
            logs.on_durable(node, write.id, true, lies);
            let found = logs.on_start(node, &zab(1), Harm::default());
            assert_eq!(matches!(found, Err(Lost::LastGroups)), lies);
            if is_wiped {
                logs.on_start(node, &zab(1), Harm { is_wiped: true, ..Harm::default() }).unwrap();
            }
            assert_eq!(commits(&mut logs).is_ok(), lies);
        }
    }

    fn zab(last: u64) -> Initial {
        let voters = [1, 2, 3].map(NodeId).to_vec();
        Initial {
            hard_state: HardState::Zab(quorate_zab::HardState::default()),
            conf_state: ConfState { voters, ..ConfState::default() },
            ..initial(last)
        }
    }

    /// Three members: one that has entries up to 3, one up to `held`, and one without any.
    fn elected_with(held: u64) -> Logs {
        let mut logs = Logs::default();
        for (node, last) in [(1, 3), (2, held), (3, 1)] {
            logs.on_start(NodeId(node), &zab(last), Harm::default()).unwrap();
        }
        logs
    }

    /// The first of them leads, and commits all that it has.
    fn commits(logs: &mut Logs) -> Finding {
        let status = || Status {
            node: NodeId(1),
            engine: Engine::Zab,
            leader: Some(NodeId(1)),
            role: Role::Leader,
            term: Term(2),
            commit: Index(3),
            applied: Index(1),
            flushed: Index(1),
            first: Index(2),
            last: Index(3),
            log_bytes: 0,
            conf_state: zab(1).conf_state,
            parked_count: 0,
            reads_count: 0,
            writes_count: 0,
            applies_count: 0,
        };
        let before = glance(Role::Candidate, 1, 1);
        let now = glance(Role::Leader, 2, 3);
        logs.on_glance(NodeId(1), 1, Some(before), now, &Applied::default(), status)
    }

    #[test]
    fn what_a_leader_of_zab_was_elected_with_is_committed_once_a_majority_has_it() {
        assert_eq!(commits(&mut elected_with(3)), Ok(()));
        assert!(commits(&mut elected_with(2)).is_err());
    }
}
