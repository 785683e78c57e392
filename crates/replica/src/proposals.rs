//! The fate of each proposal between its arrival and its place in the log.
//!
//! A proposal is *parked* while no leader is known, *staged* until the end of the turn (all of one
//! turn go to the engine in as few batches as fit into messages), and, when this node leads, *placed*: its index and term are
//! remembered, so that an entry of another leader at that index tells it was superseded. What was
//! passed on to another leader, and is known to be lost when yet another leads, is proposed again.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_raft::{AnyConfChange, Entry, EntryType, encode_conf_change};
use quorate_types::{EntryId, Index, Term, bug};

use crate::passed_on::PassedOn;
use crate::{Config, Refusal, RequestId, open};

/// Proposals of this node that are not applied yet.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    parked: VecDeque<(Asked, Entry)>,
    parked_bytes: u64,
    staged: VecDeque<(Asked, Entry)>,
    /// How many have come.
    arrived: u64,
    /// In log order; only entries this node appended as leader.
    placed: VecDeque<(EntryId, RequestId)>,
    passed_on: PassedOn,
}

/// A proposal by name, with what stays true of it however often it is parked and proposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) request: RequestId,
    /// Its place in the order in which they came, from 1. That is another order than that of their ids,
    /// where several threads draw those.
    pub(crate) number: u64,
    /// When it came.
    pub(crate) since_ticks: u64,
}

impl Proposals {
    /// Takes a command in.
    pub(crate) fn stage(&mut self, request: RequestId, entry: Bytes, now_ticks: u64) {
        let asked = self.arrive(request, now_ticks);
        self.staged.push_back((asked, Entry { data: Some(entry), ..Entry::default() }));
    }

    /// Takes a membership change in.
    pub(crate) fn stage_change(
        &mut self,
        request: RequestId,
        change: &AnyConfChange,
        now_ticks: u64,
    ) {
        let asked = self.arrive(request, now_ticks);
        let (kind, data) = encode_conf_change(change);
        self.staged.push_back((asked, Entry { kind: Some(kind), data, ..Entry::default() }));
    }

    fn arrive(&mut self, request: RequestId, now_ticks: u64) -> Asked {
        self.arrived += 1;
        Asked { request, number: self.arrived, since_ticks: now_ticks }
    }

    /// Whether the turn has anything for the engine.
    pub(crate) fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// The next of the turn, in the order they came: as many as fit into one batch, at least one. A
    /// membership change comes alone, since it may be refused, and a batch is refused as a whole.
    pub(crate) fn take_staged(&mut self, bytes_max: u64) -> Vec<(Asked, Entry)> {
        let mut bytes = 0;
        let mut fits = |(_, entry): &(Asked, Entry)| {
            bytes += entry.encoded_size();
            bytes <= bytes_max && entry.entry_type() == EntryType::Normal
        };
        let count = self.staged.iter().take_while(|staged| fits(staged)).count().max(1);
        self.staged.drain(..count.min(self.staged.len())).collect()
    }

    /// Lays the turn's proposals aside until a leader is known.
    pub(crate) fn park(&mut self, config: &Config, refused: &mut Vec<(RequestId, Refusal)>) {
        for (asked, entry) in std::mem::take(&mut self.staged) {
            let bytes = entry.payload_size();
            if config.parked_count_max <= self.parked.len()
                || config.parked_bytes_max < self.parked_bytes + bytes
            {
                refused.push((asked.request, Refusal::Busy));
                continue;
            }
            self.parked_bytes += bytes;
            self.parked.push_back((asked, entry));
        }
    }

    /// A leader is known: what was parked goes first, in the order it came.
    pub(crate) fn unpark(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let mut staged = std::mem::take(&mut self.parked);
        staged.append(&mut self.staged);
        self.staged = staged;
        self.parked_bytes = 0;
    }

    /// The leader of `reign` is asked to append these.
    pub(crate) fn pass_on(&mut self, reign: u64, batch: impl IntoIterator<Item = (Asked, Entry)>) {
        for (asked, entry) in batch {
            // A change is judged anew by who leads next, at the caller's word.
            if entry.entry_type() == EntryType::Normal {
                self.passed_on.add(reign, asked, entry);
            }
        }
    }

    /// These were not passed on after all.
    pub(crate) fn not_sent<'a>(
        &mut self,
        data: impl Iterator<Item = &'a Bytes>,
        refused: &mut Vec<(RequestId, Refusal)>,
    ) {
        for data in data {
            if let Ok((request, _)) = open(data.clone())
                && self.passed_on.remove(request)
            {
                refused.push((request, Refusal::Busy));
            }
        }
    }

    /// It was refused by whoever was asked.
    pub(crate) fn forget(&mut self, request: RequestId) {
        self.passed_on.remove(request);
    }

    /// Sees whether an entry that is committed, the next in the log, is one that was passed on.
    pub(crate) fn see_committed(&mut self, data: Option<&Bytes>) {
        if self.passed_on.is_empty() {
            return;
        }
        if let Some(Ok((request, _))) = data.map(|data| open(data.clone())) {
            self.passed_on.see_committed(request);
        }
    }

    /// Whether it is not known yet what became of something that earlier reigns were asked for; only
    /// where nothing is passed on in a reign before that is known.
    pub(crate) fn awaits_fate(&self, reign: u64) -> bool {
        self.passed_on.awaits_fate(reign)
    }

    /// What was committed is all that came of earlier reigns than this one, which were asked in order:
    /// what was asked before some of it is not proposed again after it.
    pub(crate) fn refuse_overtaken(&mut self, reign: u64, refused: &mut Vec<(RequestId, Refusal)>) {
        let overtaken = self.passed_on.take_overtaken(reign).into_iter();
        refused.extend(overtaken.map(|request| (request, Refusal::Busy)));
    }

    /// What was committed is all that came of earlier reigns than this one: the rest is proposed again,
    /// before all that came later.
    pub(crate) fn propose_lost(&mut self, reign: u64) {
        if self.passed_on.is_empty() {
            return;
        }
        let lost = self.passed_on.take_lost(reign);
        if !lost.is_empty() {
            self.unpark();
            lost.into_iter().rev().for_each(|lost| self.staged.push_front(lost));
        }
    }

    /// A bug that tests put back: what was passed on is proposed a second time.
    pub(crate) fn park_again(&mut self, batch: &[Asked], entries: &[Entry], now_ticks: u64) {
        for (asked, entry) in batch.iter().zip(entries) {
            self.parked_bytes += entry.payload_size();
            self.parked.push_back((Asked { since_ticks: now_ticks, ..*asked }, entry.clone()));
        }
    }

    /// A bug that tests put back: what may still be committed is said to be refused.
    pub(crate) fn refuse_placed(&mut self, refused: &mut Vec<(RequestId, Refusal)>) {
        refused.extend(self.placed.drain(..).map(|(_, request)| (request, Refusal::Superseded)));
    }

    /// Refuses what waits for a leader, so long after it came.
    pub(crate) fn expire(
        &mut self,
        ticks_max: u64,
        now_ticks: u64,
        refused: &mut Vec<(RequestId, Refusal)>,
    ) {
        self.passed_on.expire(ticks_max, now_ticks);
        // They stand in the order in which they came.
        let is_due = |(asked, _): &(Asked, Entry)| asked.since_ticks + ticks_max <= now_ticks;
        while self.parked.front().is_some_and(is_due) {
            let Some((asked, entry)) = self.parked.pop_front() else { return };
            self.parked_bytes -= entry.payload_size();
            refused.push((asked.request, Refusal::NoLeader));
            if bug!("refused-and-proposed") {
                self.staged.push_back((asked, entry));
            }
        }
    }

    /// This node appended a batch as leader of `term`; its last entry stands at `last`.
    pub(crate) fn placed(&mut self, term: Term, last: Index, requests: &[RequestId]) {
        let first = last - (requests.len() as u64).saturating_sub(1);
        // A later reign of this node may overwrite places that it filled in an earlier one; those
        // stay in the list until the entry that took the place is committed.
        for (offset, request) in requests.iter().enumerate() {
            self.placed.push_back((EntryId { term, index: first + offset as u64 }, *request));
        }
    }

    /// The entry `committed` is committed: whatever else had been placed there never will be. Names
    /// the request it came from, if this node placed it.
    pub(crate) fn settle(
        &mut self,
        committed: EntryId,
        refused: &mut Vec<(RequestId, Refusal)>,
    ) -> Option<RequestId> {
        if self.placed.is_empty() {
            return None;
        }
        // Entries of an earlier reign may stand behind later ones with lower indexes, so that the
        // list is ordered only within one reign; it is short and mostly settled from its front.
        if self.placed.front().is_some_and(|(id, _)| *id == committed) {
            return self.placed.pop_front().map(|(_, request)| request);
        }
        let mut found = None;
        self.placed.retain(|(id, request)| {
            if *id == committed {
                found = Some(*request);
            }
            // Terms never decrease along a log: what has a lower term than a committed entry and
            // does not stand before it has been replaced; so has what stands in its very place.
            let superseded = (id.term < committed.term && committed.index <= id.index)
                || (id.term != committed.term && committed.index == id.index);
            if superseded {
                refused.push((*request, Refusal::Superseded));
            }
            !superseded && committed.index < id.index
        });
        found
    }

    /// A snapshot stands for everything up to `index`: the fate of what was placed there is unknown.
    pub(crate) fn forget_through(&mut self, index: Index) {
        self.passed_on.forget();
        self.placed.retain(|(id, _)| index < id.index);
    }

    /// How many wait for a leader.
    pub(crate) fn parked_count(&self) -> usize {
        self.parked.len()
    }
}

#[cfg(test)]
mod tests {
    use quorate_raft::ConfChangeV2;
    use quorate_types::NodeId;

    use super::*;

    fn entry(bytes: usize) -> Bytes {
        Bytes::from(vec![0; bytes])
    }

    #[test]
    fn batches_fit_into_a_message_and_changes_come_alone() {
        let mut proposals = Proposals::default();
        for request in [1, 2] {
            proposals.stage(RequestId(request), entry(40), 0);
        }
        proposals.stage_change(RequestId(3), &AnyConfChange::V2(ConfChangeV2::default()), 0);
        for request in [4, 5, 6] {
            proposals.stage(RequestId(request), entry(40), 0);
        }
        let mut batches = Vec::new();
        while proposals.has_staged() {
            let batch = proposals.take_staged(100);
            batches.push(batch.iter().map(|(asked, _)| asked.request.0).collect::<Vec<_>>());
        }
        assert_eq!(batches, [vec![1, 2], vec![3], vec![4, 5], vec![6]]);
    }

    #[test]
    fn parked_proposals_are_bounded_and_expire() {
        let config = Config {
            parked_count_max: 3,
            parked_bytes_max: 20,
            parked_ticks_max: 5,
            ..Config::new(NodeId(1), 1)
        };
        let mut proposals = Proposals::default();
        let mut refused = Vec::new();
        proposals.stage(RequestId(1), entry(10), 100);
        proposals.stage(RequestId(2), entry(11), 100);
        proposals.stage(RequestId(3), entry(10), 100);
        proposals.park(&config, &mut refused);
        assert_eq!(refused, [(RequestId(2), Refusal::Busy)], "by bytes");
        proposals.stage(RequestId(4), entry(0), 102);
        proposals.stage(RequestId(5), entry(0), 102);
        proposals.park(&config, &mut refused);
        assert_eq!(refused.pop(), Some((RequestId(5), Refusal::Busy)), "by count");

        refused.clear();
        proposals.expire(5, 104, &mut refused);
        assert_eq!(refused, []);
        proposals.expire(5, 105, &mut refused);
        assert_eq!(refused, [(RequestId(1), Refusal::NoLeader), (RequestId(3), Refusal::NoLeader)]);
        proposals.stage(RequestId(6), entry(1), 105);
        proposals.unpark();
        let order: Vec<_> =
            proposals.take_staged(u64::MAX).iter().map(|(asked, _)| asked.request.0).collect();
        assert_eq!(order, [4, 6], "what waited goes first");
        assert_eq!((proposals.parked_count(), proposals.parked_bytes), (0, 0));
    }

    #[test]
    fn a_proposal_that_is_parked_again_has_no_more_time_than_it_had() {
        let config = Config { parked_ticks_max: 5, ..Config::new(NodeId(1), 1) };
        let mut proposals = Proposals::default();
        let mut refused = Vec::new();
        proposals.stage(RequestId(1), entry(1), 100);
        proposals.park(&config, &mut refused);
        proposals.unpark();
        let batch = proposals.take_staged(u64::MAX);
        proposals.pass_on(1, batch);
        proposals.expire(5, 104, &mut refused);
        proposals.propose_lost(2);
        proposals.park(&config, &mut refused);
        assert_eq!((proposals.parked_count(), &refused[..]), (1, &[][..]));
        proposals.expire(5, 105, &mut refused);
        assert_eq!(refused, [(RequestId(1), Refusal::NoLeader)]);

        proposals.stage(RequestId(2), entry(1), 200);
        proposals.park(&config, &mut refused);
        proposals.expire(5, 204, &mut refused);
        proposals.unpark();
        let batch = proposals.take_staged(u64::MAX);
        proposals.pass_on(3, batch);
        proposals.expire(5, 205, &mut refused);
        proposals.propose_lost(4);
        assert!(!proposals.has_staged(), "nobody waits for it any more");
    }

    #[test]
    fn what_another_leader_overwrote_is_refused() {
        let mut proposals = Proposals::default();
        let mut refused = Vec::new();
        proposals.placed(Term(2), Index(12), &[RequestId(10), RequestId(11), RequestId(12)]);
        proposals.settle(EntryId::new(2, 10), &mut refused);
        assert_eq!(refused, [], "committed as placed");
        proposals.settle(EntryId::new(3, 11), &mut refused);
        assert_eq!(
            refused,
            [(RequestId(11), Refusal::Superseded), (RequestId(12), Refusal::Superseded)],
            "a later term at 11 means that 12 of the old one is gone as well"
        );
        assert!(proposals.placed.is_empty());
    }

    #[test]
    fn an_older_entry_in_its_place_refuses_a_request() {
        let mut proposals = Proposals::default();
        let mut refused = Vec::new();
        proposals.placed(Term(4), Index(12), &[RequestId(11), RequestId(12)]);
        assert_eq!(proposals.settle(EntryId::new(4, 11), &mut refused), Some(RequestId(11)));
        assert_eq!(proposals.settle(EntryId::new(2, 12), &mut refused), None);
        assert_eq!(refused, [(RequestId(12), Refusal::Superseded)]);
        assert!(proposals.placed.is_empty());
    }

    #[test]
    fn batches_fit_into_a_message() {
        let mut proposals = Proposals::default();
        for (request, bytes) in [(1, 100), (2, 100), (3, 1000), (4, 10), (5, 10)] {
            proposals.stage(RequestId(request), entry(bytes), 0);
        }
        let mut batches = Vec::new();
        while proposals.has_staged() {
            let batch = proposals.take_staged(300);
            batches.push(batch.iter().map(|(asked, _)| asked.request.0).collect::<Vec<_>>());
        }
        assert_eq!(batches, [&[1, 2][..], &[3], &[4, 5]], "in order; one too long goes alone");
    }

    #[test]
    fn a_second_reign_settles_what_the_first_left() {
        let mut proposals = Proposals::default();
        let mut refused = Vec::new();
        proposals.placed(Term(2), Index(12), &[RequestId(11), RequestId(12)]);
        proposals.placed(Term(4), Index(12), &[RequestId(21)]);
        // 11 of the first reign survived into the second; 12 did not.
        proposals.settle(EntryId::new(2, 11), &mut refused);
        assert_eq!(refused, []);
        proposals.settle(EntryId::new(4, 12), &mut refused);
        assert_eq!(refused, [(RequestId(12), Refusal::Superseded)]);
        assert!(proposals.placed.is_empty());
    }
}
