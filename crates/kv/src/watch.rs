//! Watching keys: who is told what, and when. A match of changes against watchers, and nothing else.
//!
//! ```text
//! synced   has been told all up to where the changes are handed out, and is told the next as it comes
//! behind   is told history in steps, until it is synced
//! blocked  would be told more, but its stream has no room; goes on from there, behind, once it has
//! ```
//! A watcher is in one of these places, and `next` is the first revision that it has not been told:
//! so nothing is told twice, and nothing is left out unless the watcher hears that it is cancelled.
//! What a stream has not taken yet is bounded. A slow one costs a mark in history, not memory.
//!
//! Events of one revision stand in one response, in their order, or in fragments that say so.
//! Responses of a stream leave in one line, so a notice of progress can't overtake an event.
//!
//! Pure: [`Watches`] is asked to go on by whoever holds it, and reads the [`Store`] when it does.
//! Nothing that applies entries ever waits for it.

mod messages;
mod tree;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::bug;

use crate::changes::{Changes, Limits};
use crate::error::KvError;
use crate::revision::Revision;
use crate::row::Row;
use crate::store::Store;
use messages::RESPONSE_BYTES;
pub use messages::{Event, EventKind, WatchCreateRequest, WatchLimits, WatchResponse};
use tree::{End, Tree, Watched};

/// A response that catches up holds at most so many revisions.
const STEP_REVISIONS_MAX: usize = 1000;
/// And about so many bytes, unless a single revision has more.
const STEP_BYTES_MAX: usize = 128 << 10;
/// A step is over once so many events were matched with watchers, however few revisions they are of.
const STEP_PAIRS_MAX: usize = 100_000;
/// Watchers that are told history in one step, and those that are let on where there is room again.
const STEP_WATCHERS_MAX: usize = 512;
/// However many streams there are, each may have so much waiting.
const STREAM_BYTES_MIN: usize = 16 << 10;

/// A stream of watchers, as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

/// All watchers of one member.
#[derive(Debug)]
pub struct Watches {
    limits: WatchLimits,
    streams: BTreeMap<StreamId, Stream>,
    watchers: BTreeMap<u64, Watcher>,
    synced: Tree,
    /// Those behind, the furthest first.
    queue: BTreeSet<(i64, u64)>,
    /// What is synced has been told everything up to here.
    revision: i64,
    /// Streams that have something to take, and were not reported yet.
    ready: BTreeSet<StreamId>,
    /// Streams that have room again for watchers that wait for it.
    roomy: BTreeSet<StreamId>,
    streams_opened: u64,
    watchers_created: u64,
    /// Of all watchers.
    keys_bytes: usize,
}

#[derive(Debug, Default)]
struct Stream {
    /// By the ids that the client knows.
    watchers: BTreeMap<i64, u64>,
    /// The id to give next, unless it is in use.
    next_id: i64,
    outbox: VecDeque<(usize, WatchResponse)>,
    outbox_bytes: usize,
    blocked: BTreeSet<u64>,
}

#[derive(Debug)]
struct Watcher {
    stream: StreamId,
    id: i64,
    watched: Watched,
    /// The first revision it has not been told.
    next: i64,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    fragment: bool,
    progress_notify: bool,
    /// It was told nothing since the last notice.
    is_quiet: bool,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Synced,
    Behind,
    Blocked,
}

impl Watcher {
    fn wants(&self, revision: i64, kind: EventKind) -> bool {
        let is_filtered = match kind {
            EventKind::Put => self.no_put,
            EventKind::Delete => self.no_delete,
        };
        self.next <= revision && !is_filtered
    }
}

/// A step of history, and who is to be told what of it.
struct Matched {
    events: Vec<Pair>,
    /// In this order.
    told: Vec<Telling>,
    /// How far it goes, if not to the end.
    through: Option<i64>,
}

/// That a watcher is told an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Telling {
    /// Of the event, if each revision is told by itself; otherwise 0.
    revision: i64,
    watcher: u64,
    /// In [`Matched::events`].
    place: usize,
}

/// An event, without and with what was before.
struct Pair {
    bare: Arc<Event>,
    whole: Option<Arc<Event>>,
}

impl Matched {
    /// What a watcher is told, where revisions are not told one by one.
    fn told_to(&self, watcher: u64) -> &[Telling] {
        let begin = self.told.partition_point(|told| told.watcher < watcher);
        let end = self.told.partition_point(|told| told.watcher <= watcher);
        &self.told[begin..end]
    }
}

impl Watches {
    /// Nobody watches yet. What is changed after the store's current revision will be told.
    pub fn new(limits: WatchLimits, store: &Store) -> Self {
        Watches {
            limits,
            streams: BTreeMap::new(),
            watchers: BTreeMap::new(),
            synced: Tree::default(),
            queue: BTreeSet::new(),
            revision: store.marks().0,
            ready: BTreeSet::new(),
            roomy: BTreeSet::new(),
            streams_opened: 0,
            watchers_created: 0,
            keys_bytes: 0,
        }
    }

    /// Opens a stream. Whoever does so bounds how many there are.
    pub fn open(&mut self) -> StreamId {
        self.streams_opened += 1;
        let stream = StreamId(self.streams_opened);
        self.streams.insert(stream, Stream::default());
        stream
    }

    /// Ends a stream and all its watchers. What it has not taken is lost.
    pub fn close(&mut self, stream: StreamId) {
        let Some(closed) = self.streams.remove(&stream) else { return };
        for watcher in closed.watchers.into_values() {
            self.forget(watcher);
        }
        self.ready.remove(&stream);
        self.roomy.remove(&stream);
    }

    /// Begins to watch, and says on the stream whether it did.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the storage fails: the member has to stop.
    ///
    /// Source: etcd's `WatchStream.Watch` and what its server does around it.
    pub fn create(
        &mut self,
        stream: StreamId,
        request: WatchCreateRequest,
        store: &Store,
    ) -> Result<(), KvError> {
        // What is past for the new watcher is past for all that are synced.
        while self.advance_synced(store)? {}
        let (current, compacted) = (self.revision, store.marks().1);
        let watchers_count = self.watchers.len();
        let Some(place) = self.streams.get_mut(&stream) else { return Ok(()) };
        let refusal = if request.start_revision < 0 {
            Some(KvError::Compacted.message())
        } else if request.is_empty() {
            Some("mvcc: watcher range is empty")
        } else if request.watch_id != 0 && place.watchers.contains_key(&request.watch_id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else if self.limits.watchers_max <= watchers_count
            || self.limits.keys_bytes_max < self.keys_bytes + request.keys_bytes()
        {
            Some(KvError::RequestTooManyRequests.message())
        } else {
            None
        };
        let answer = WatchResponse { revision: current, created: true, ..WatchResponse::default() };
        if let Some(cancel_reason) = refusal {
            self.tell(
                stream,
                WatchResponse { watch_id: -1, canceled: true, cancel_reason, ..answer },
            );
            return Ok(());
        }
        let id = if request.watch_id == 0 { place.free_id() } else { request.watch_id };
        self.tell(stream, WatchResponse { watch_id: id, ..answer });
        let next = match request.start_revision {
            0 => current + 1,
            start if bug!("a-watch-begins-one-too-early") => (start - 1).max(compacted).max(1),
            start if start < compacted && bug!("what-is-compacted-is-passed-over-in-silence") => {
                compacted
            }
            start if start < compacted => {
                self.tell_compacted(stream, id, compacted);
                return Ok(());
            }
            start => start,
        };
        self.watchers_created += 1;
        let watcher = self.watchers_created;
        let WatchCreateRequest { no_put, no_delete, prev_kv, fragment, progress_notify, .. } =
            request;
        let watched = watched(request.key, request.range_end);
        self.keys_bytes += watched.bytes();
        let (is_quiet, place) = (true, Place::Blocked);
        self.watchers.insert(
            watcher,
            Watcher {
                stream,
                id,
                watched,
                next,
                no_put,
                no_delete,
                prev_kv,
                fragment,
                progress_notify,
                is_quiet,
                place,
            },
        );
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.watchers.insert(id, watcher);
        }
        self.settle(watcher);
        Ok(())
    }

    /// Ends a watcher, and says so on the stream, after all that it was told before. Nothing, if the
    /// stream does not have it.
    pub fn cancel(&mut self, stream: StreamId, watch_id: i64, store: &Store) {
        if self.end(stream, watch_id) {
            let revision = store.marks().0;
            let ended = WatchResponse { revision, watch_id, canceled: true, ..Default::default() };
            self.tell(stream, ended);
        }
    }

    /// Tells a stream how far all its watchers are, once: if each has been told everything up to
    /// now. Otherwise it is told nothing, nor if it has no watchers.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the storage fails.
    pub fn progress(&mut self, stream: StreamId, store: &Store) -> Result<(), KvError> {
        while self.advance_synced(store)? {}
        let Some(asking) = self.streams.get(&stream) else { return Ok(()) };
        let mut watchers = asking.watchers.values();
        if !asking.watchers.is_empty() && watchers.all(|watcher| self.is_up_to_date(*watcher)) {
            let revision = self.revision;
            let notice = WatchResponse { revision, watch_id: -1, ..WatchResponse::default() };
            self.tell(stream, notice);
        }
        Ok(())
    }

    /// Tells the watchers that asked for it, and were told nothing since the last time, how far they
    /// are. Call it every so often.
    pub fn notify_progress(&mut self) {
        let revision = self.revision;
        let noticed: Vec<u64> = self
            .watchers
            .iter()
            .filter(|(_, one)| one.progress_notify)
            .map(|(key, _)| *key)
            .collect();
        for watcher in noticed {
            let is_due = self.is_up_to_date(watcher);
            let Some(one) = self.watchers.get_mut(&watcher) else { continue };
            let was_quiet = std::mem::replace(&mut one.is_quiet, true);
            let (stream, watch_id) = (one.stream, one.id);
            if is_due && was_quiet && self.has_room(stream) {
                self.tell(stream, WatchResponse { revision, watch_id, ..WatchResponse::default() });
            }
        }
    }

    /// Goes on telling, a step. True if there is more to tell to somebody who has room for it.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the storage fails: the member has to stop.
    pub fn advance(&mut self, store: &Store) -> Result<bool, KvError> {
        self.let_on();
        let is_current = !self.advance_synced(store)?;
        let is_caught_up = !self.advance_behind(store)?;
        Ok(!(is_current && is_caught_up && self.roomy.is_empty()))
    }

    /// The next response of a stream. Where it makes room for watchers, there is more to tell: call
    /// [`Watches::advance`].
    pub fn take(&mut self, stream: StreamId) -> Option<WatchResponse> {
        self.pop(stream).map(|(_, response)| response)
    }

    /// The next responses of a stream, about so many bytes of them: one more at most. Otherwise as
    /// [`Watches::take`].
    pub fn take_many(&mut self, stream: StreamId, bytes_max: usize) -> Vec<WatchResponse> {
        let (mut taken, mut taken_bytes) = (Vec::new(), 0);
        while taken_bytes < bytes_max
            && let Some((bytes, response)) = self.pop(stream)
        {
            taken_bytes += bytes;
            taken.push(response);
        }
        taken
    }

    fn pop(&mut self, stream: StreamId) -> Option<(usize, WatchResponse)> {
        let room_bytes = self.room_bytes();
        let from = self.streams.get_mut(&stream)?;
        let (bytes, response) = from.outbox.pop_front()?;
        from.outbox_bytes -= bytes;
        if from.outbox_bytes <= room_bytes / 2 && !from.blocked.is_empty() {
            self.roomy.insert(stream);
        }
        Some((bytes, response))
    }

    /// Whether a stream has room for more. As long as it has none its client should not be asked for
    /// further requests, since each has an answer.
    pub fn has_room(&self, stream: StreamId) -> bool {
        let room_bytes = self.room_bytes();
        self.streams.get(&stream).is_some_and(|stream| stream.outbox_bytes < room_bytes)
    }

    /// The streams that were told something since this was asked last.
    pub fn take_ready(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.ready).into_iter().collect()
    }

    /// Whether anybody is behind who has room.
    pub fn is_behind(&self) -> bool {
        !self.queue.is_empty() || !self.roomy.is_empty()
    }

    /// How many watchers there are.
    pub fn watchers_count(&self) -> usize {
        self.watchers.len()
    }

    /// How many watchers are slow: behind, or without room.
    pub fn slow_count(&self) -> usize {
        self.queue.len() + self.streams.values().map(|stream| stream.blocked.len()).sum::<usize>()
    }

    /// Events that streams have not taken yet.
    pub fn waiting_events_count(&self) -> usize {
        let waiting = self.streams.values().flat_map(|stream| &stream.outbox);
        waiting.map(|(_, response)| response.events.len()).sum()
    }

    /// How many streams are open.
    pub fn streams_count(&self) -> usize {
        self.streams.len()
    }

    /// What waits on a stream.
    #[cfg(test)]
    pub(crate) fn outbox_bytes(&self, stream: StreamId) -> usize {
        self.streams[&stream].outbox_bytes
    }

    /// Hands out the next changes to all that are synced, a step. True if there are more.
    ///
    /// # Errors
    ///
    /// As [`Watches::advance`].
    pub fn advance_synced(&mut self, store: &Store) -> Result<bool, KvError> {
        if self.watchers.is_empty() {
            // Nothing is read for nobody.
            self.revision = self.revision.max(store.marks().0);
            return Ok(false);
        }
        let limits = Limits { revisions_max: STEP_REVISIONS_MAX, bytes_max: STEP_BYTES_MAX };
        match store.changes_after(self.revision, limits)? {
            Changes::Found { rows, through, current } => {
                let matched = self.matched(&self.synced, true, &rows, store)?;
                self.tell_each_revision(&matched);
                let through = matched.through.unwrap_or(through);
                self.revision = through;
                Ok(through < current)
            }
            // Only after a restored snapshot, or if nobody has called for very long.
            Changes::Compacted(compacted) => {
                let is_cut = |one: &Watcher| one.place == Place::Synced && one.next < compacted;
                self.end_compacted(compacted, is_cut);
                self.revision = compacted - 1;
                Ok(true)
            }
        }
    }

    /// Hands out a step of history to those that are furthest behind. True if any are left.
    fn advance_behind(&mut self, store: &Store) -> Result<bool, KvError> {
        let Some((next, _)) = self.queue.first().copied() else { return Ok(false) };
        let limits = Limits { revisions_max: STEP_REVISIONS_MAX, bytes_max: STEP_BYTES_MAX };
        match store.changes_after(next - 1, limits)? {
            Changes::Found { rows, through, current } => {
                let last = Bound::Included((through, u64::MAX));
                let furthest = self.queue.range((Bound::Unbounded, last)).take(STEP_WATCHERS_MAX);
                let furthest: Vec<(i64, u64)> = furthest.copied().collect();
                let mut tree = Tree::default();
                for (_, watcher) in &furthest {
                    tree.insert(&self.watchers[watcher].watched, *watcher);
                }
                let matched = self.matched(&tree, false, &rows, store)?;
                let through = matched.through.unwrap_or(through);
                for (_, watcher) in furthest.into_iter().filter(|(next, _)| *next <= through) {
                    self.catch_up(
                        watcher,
                        &matched.events,
                        matched.told_to(watcher),
                        through,
                        current,
                    );
                }
            }
            Changes::Compacted(compacted) => {
                let is_cut = |one: &Watcher| one.place == Place::Behind && one.next < compacted;
                self.end_compacted(compacted, is_cut);
            }
        }
        Ok(!self.queue.is_empty())
    }

    /// Tells a watcher a step of history, if its stream has room.
    fn catch_up(
        &mut self,
        watcher: u64,
        events: &[Pair],
        told: &[Telling],
        through: i64,
        current: i64,
    ) {
        let one = &self.watchers[&watcher];
        let has_room = told.is_empty() || self.has_room(one.stream);
        self.displace(watcher);
        if has_room {
            if !told.is_empty() {
                self.tell_events(watcher, current, events, told);
            }
            if let Some(one) = self.watchers.get_mut(&watcher) {
                one.next = through + 1 + i64::from(bug!("a-watch-that-catches-up-skips-one"));
            }
            self.settle(watcher);
        } else {
            self.block(watcher);
        }
    }

    /// What of these rows the watchers in `tree` are to be told, each revision by itself or all
    /// together.
    fn matched(
        &self,
        tree: &Tree,
        one_by_one: bool,
        rows: &[(Revision, Row)],
        store: &Store,
    ) -> Result<Matched, KvError> {
        let mut told = Vec::new();
        let mut kept: Vec<(Revision, &Row)> = Vec::new();
        let mut asked = Vec::new(); // places of those whose pair before is wanted
        let (mut last, mut through) = (0, None);
        for (revision, row) in rows {
            if STEP_PAIRS_MAX <= told.len() && last < revision.main {
                through = Some(last);
                break;
            }
            last = revision.main;
            let (key, kind) = match row {
                Row::Put(kv) => (&kv.key, EventKind::Put),
                Row::Tombstone { key } => (key, EventKind::Delete),
            };
            let (mut is_wanted, mut is_prev_wanted) = (false, false);
            tree.visit(key, |watcher| {
                let one = &self.watchers[&watcher];
                if one.wants(revision.main, kind) {
                    is_wanted = true;
                    is_prev_wanted |= one.prev_kv;
                    let revision = if one_by_one { revision.main } else { 0 };
                    told.push(Telling { revision, watcher, place: kept.len() });
                }
            });
            if is_prev_wanted {
                asked.push(kept.len());
            }
            if is_wanted {
                kept.push((*revision, row));
            }
        }
        let places: Vec<(Bytes, i64)> = asked
            .iter()
            .map(|place| (key_of(kept[*place].1).clone(), kept[*place].0.main))
            .collect();
        let before = if places.is_empty() { Vec::new() } else { store.pairs_before(&places)? };
        let mut events: Vec<Pair> = kept
            .into_iter()
            .map(|(revision, row)| Pair { bare: Arc::new(Event::of(revision, row)), whole: None })
            .collect();
        for (place, prev_kv) in asked.into_iter().zip(before) {
            if prev_kv.is_some() {
                let whole = Event { prev_kv, ..(*events[place].bare).clone() };
                events[place].whole = Some(Arc::new(whole));
            }
        }
        told.sort_unstable();
        Ok(Matched { events, told, through })
    }

    /// Tells synced watchers each revision in a response of its own. One whose stream has no room
    /// any more goes on from there later.
    fn tell_each_revision(&mut self, matched: &Matched) {
        for told in matched
            .told
            .chunk_by(|one, next| (one.revision, one.watcher) == (next.revision, next.watcher))
        {
            let Telling { revision, watcher, .. } = told[0];
            let one = &self.watchers[&watcher];
            if one.place != Place::Synced {
                continue; // since an earlier revision
            }
            if self.has_room(one.stream) {
                self.tell_events(watcher, revision, &matched.events, told);
            } else {
                self.displace(watcher);
                self.block(watcher);
            }
            if let Some(one) = self.watchers.get_mut(&watcher) {
                one.next = revision + i64::from(one.place == Place::Synced);
            }
        }
    }

    /// Puts events into the watcher's stream, in fragments if need be.
    fn tell_events(&mut self, watcher: u64, revision: i64, events: &[Pair], told: &[Telling]) {
        let Some(one) = self.watchers.get_mut(&watcher) else { return };
        one.is_quiet = false;
        let (stream, watch_id, prev_kv) = (one.stream, one.id, one.prev_kv);
        let bytes_max = if one.fragment { self.limits.response_bytes_max } else { usize::MAX };
        let mut response = WatchResponse { revision, watch_id, ..WatchResponse::default() };
        let mut response_bytes = RESPONSE_BYTES;
        for Telling { place, .. } in told {
            let Pair { bare, whole } = &events[*place];
            let event = whole.as_ref().filter(|_| prev_kv).unwrap_or(bare);
            let bytes = event.bytes();
            if !response.events.is_empty() && bytes_max < response_bytes + bytes {
                let rest = WatchResponse { revision, watch_id, ..WatchResponse::default() };
                let part = std::mem::replace(&mut response, rest);
                self.tell(stream, WatchResponse { fragment: true, ..part });
                response_bytes = RESPONSE_BYTES;
            }
            response_bytes += bytes;
            response.events.push(Arc::clone(event));
        }
        self.tell(stream, response);
    }

    fn tell(&mut self, stream: StreamId, response: WatchResponse) {
        let Some(to) = self.streams.get_mut(&stream) else { return };
        let bytes = response.bytes();
        to.outbox_bytes += bytes;
        to.outbox.push_back((bytes, response));
        self.ready.insert(stream);
    }

    fn tell_compacted(&mut self, stream: StreamId, watch_id: i64, compact_revision: i64) {
        let canceled = true;
        let ended = WatchResponse { watch_id, canceled, compact_revision, ..Default::default() };
        self.tell(stream, ended);
    }

    /// Ends all watchers that lack something of what is gone.
    fn end_compacted(&mut self, compacted: i64, is_cut: impl Fn(&Watcher) -> bool) {
        let cut: Vec<(StreamId, i64)> = self
            .watchers
            .values()
            .filter(|one| is_cut(one))
            .map(|one| (one.stream, one.id))
            .collect();
        for (stream, watch_id) in cut {
            self.end(stream, watch_id);
            self.tell_compacted(stream, watch_id, compacted);
        }
    }

    /// Takes a watcher away; false if there is none.
    fn end(&mut self, stream: StreamId, watch_id: i64) -> bool {
        let Some(from) = self.streams.get_mut(&stream) else { return false };
        let Some(watcher) = from.watchers.remove(&watch_id) else { return false };
        self.forget(watcher);
        true
    }

    /// Takes a watcher from where it is, for good.
    fn forget(&mut self, watcher: u64) {
        self.displace(watcher);
        let forgotten = self.watchers.remove(&watcher);
        self.keys_bytes -= forgotten.map_or(0, |watcher| watcher.watched.bytes());
    }

    /// Puts a watcher that is nowhere where it belongs: with those it is as far as.
    fn settle(&mut self, watcher: u64) {
        let Some(one) = self.watchers.get_mut(&watcher) else { return };
        if self.revision < one.next {
            one.place = Place::Synced;
            self.synced.insert(&one.watched, watcher);
        } else {
            one.place = Place::Behind;
            self.queue.insert((one.next, watcher));
        }
    }

    /// Puts a watcher that is nowhere with those that wait for room.
    fn block(&mut self, watcher: u64) {
        let Some(one) = self.watchers.get_mut(&watcher) else { return };
        one.place = Place::Blocked;
        if let Some(stream) = self.streams.get_mut(&one.stream) {
            stream.blocked.insert(watcher);
        }
    }

    /// Lets some of those go on that waited for room, and have it again.
    fn let_on(&mut self) {
        for _ in 0..STEP_WATCHERS_MAX {
            let Some(stream) = self.roomy.first().copied() else { return };
            let has_room = self.has_room(stream);
            let waiting = self.streams.get_mut(&stream).filter(|_| has_room);
            match waiting.and_then(|stream| stream.blocked.pop_first()) {
                Some(watcher) => self.settle(watcher),
                None => {
                    self.roomy.remove(&stream);
                }
            }
        }
    }

    /// Takes a watcher from where it is.
    fn displace(&mut self, watcher: u64) {
        let Some(one) = self.watchers.get(&watcher) else { return };
        match one.place {
            Place::Synced => self.synced.remove(&one.watched, watcher),
            Place::Behind => {
                self.queue.remove(&(one.next, watcher));
            }
            Place::Blocked => {
                if let Some(stream) = self.streams.get_mut(&one.stream) {
                    stream.blocked.remove(&watcher);
                }
            }
        }
    }

    /// Whether a watcher has been told everything up to now, and waits for nothing in particular.
    fn is_up_to_date(&self, watcher: u64) -> bool {
        self.watchers
            .get(&watcher)
            .is_some_and(|one| one.place == Place::Synced && one.next <= self.revision + 1)
    }

    /// How much may wait on one stream.
    fn room_bytes(&self) -> usize {
        let part = self.limits.total_bytes_max / self.streams.len().max(1);
        part.max(STREAM_BYTES_MIN).min(self.limits.stream_bytes_max)
    }
}

impl Stream {
    /// An id that is not in use and was not given before.
    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        id
    }
}

fn watched(key: Bytes, range_end: Bytes) -> Watched {
    // Out of the request, which would otherwise stay in memory whole.
    let key = if key.is_empty() { Bytes::from_static(&[0]) } else { Bytes::copy_from_slice(&key) };
    match &range_end[..] {
        [] => Watched::One(key),
        [0] => Watched::Span(key, End::Open),
        end => Watched::Span(key, End::Before(Bytes::copy_from_slice(end))),
    }
}

fn key_of(row: &Row) -> &Bytes {
    match row {
        Row::Put(kv) => &kv.key,
        Row::Tombstone { key } => key,
    }
}
