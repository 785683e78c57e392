//! Watchers of both servers, opened and closed at random. What they are to be told follows from what
//! a watcher of everything was told.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchResponse,
};
use quorate_proto::mvccpb::Event;
use quorate_proto::mvccpb::event::EventType;

use super::asks::{Change, Dice, Known, key, range_end};
use super::side::Side;
use crate::harness::PATIENCE;

const OPEN_MAX: usize = 12;
const NO_PUT: i32 = 0;
const NO_DELETE: i32 = 1;
/// A stream that is behind in something that is not to be told hears of no progress.
const ASK_AGAIN: Duration = Duration::from_millis(300);

pub(super) struct Watchers {
    /// What the watcher of everything was told; of the past only what may be asked for.
    history: Vec<Event>,
    /// The watcher of everything, and another that takes fragments.
    all: [i64; 2],
    open: Vec<Open>,
    /// The ids of those that were ended by a compaction. For etcd they stay taken.
    ended: BTreeSet<i64>,
    seen: Seen,
}

/// One that was opened at random.
struct Open {
    id: i64,
    asked: WatchCreateRequest,
    /// What it was told of so far.
    told: usize,
    /// What it was to be told of before the part of history that is still there.
    before: usize,
    /// The first revision that it is to be told of.
    first: i64,
}

/// What a run has tried.
#[derive(Default)]
struct Seen {
    events: usize,
    past: u64,
    future: u64,
    compacted: u64,
    refused: u64,
    closed: u64,
    progress: u64,
    fragments: u64,
}

impl Watchers {
    pub(super) async fn new(ours: &mut Side, theirs: &mut Side) -> Watchers {
        let mut all = [0; 2];
        for (place, fragment) in [false, true].into_iter().enumerate() {
            let everything = Bytes::from_static(b"\0");
            let ask = WatchCreateRequest {
                key: everything.clone(),
                range_end: everything,
                prev_kv: true,
                fragment,
                ..WatchCreateRequest::default()
            };
            let [here, there] = create(&ask, ours, theirs).await;
            assert_eq!(here, there);
            all[place] = here.watch_id;
        }
        Watchers {
            history: Vec::new(),
            all,
            open: Vec::new(),
            ended: BTreeSet::new(),
            seen: Seen::default(),
        }
    }

    /// Waits until all have been told everything, and compares.
    pub(super) async fn settle(&mut self, ours: &mut Side, theirs: &mut Side, known: &Known) {
        let mut before = None;
        for id in self.all {
            let here = until(ours, id, known.revision, self.last()).await;
            let there = until(theirs, id, known.revision, self.last()).await;
            compare_events("a watcher of everything", &here, &there);
            before = before.or(Some(here));
        }
        self.history.extend(before.unwrap_or_default());
        for open in &mut self.open {
            let wanted = wanted(&self.history, open);
            let wanted = &wanted[open.told - open.before..];
            for side in [&mut *ours, &mut *theirs] {
                while side.events_count(open.id) < wanted.len() {
                    if side.hear(PATIENCE).await.is_none() {
                        panic!("{:?} is not told {wanted:?}", open.asked);
                    }
                }
            }
            let (here, there) = (ours.take_events(open.id), theirs.take_events(open.id));
            open.told += here.len();
            self.seen.events += here.len();
            compare_events(&format!("{:?}", open.asked), &here, &there);
            // Compared without what was before: that is wanted or not, and may be forgotten.
            let bare = |event: &Event| Event { prev_kv: None, ..event.clone() };
            let (here, wanted): (Vec<_>, Vec<_>) =
                (here.iter().map(bare).collect(), wanted.iter().map(bare).collect());
            compare_events(&format!("{:?} beside everything", open.asked), &here, &wanted);
        }
        self.seen.fragments = ours.fragments.min(theirs.fragments);
        // Nobody can ask for what is compacted.
        let gone = self.history.partition_point(|event| revision_of(event) < known.compacted);
        // The last one says how far everybody is.
        let gone = gone.min(self.history.len().saturating_sub(1));
        for open in &mut self.open {
            open.before += wanted(&self.history[..gone], open).len();
        }
        self.history.drain(..gone);
    }

    fn last(&self) -> i64 {
        self.history.last().map_or(1, revision_of)
    }

    pub(super) async fn change(
        &mut self,
        change: &Change,
        ours: &mut Side,
        theirs: &mut Side,
        known: &Known,
        dice: &mut Dice,
    ) -> Result<(), String> {
        // Whoever asks for the past is caught up by then, and what is there to ask for is known.
        self.settle(ours, theirs, known).await;
        match change {
            Change::Open if self.open.len() < OPEN_MAX => {
                let ask = self.draw(known, dice);
                self.open(ask, ours, theirs, known).await
            }
            Change::Close if !self.open.is_empty() => {
                let open = self.open.remove(dice.roll(self.open.len() as u64) as usize);
                let cancel =
                    || RequestUnion::CancelRequest(WatchCancelRequest { watch_id: open.id });
                ours.ask_to_watch(cancel()).await;
                theirs.ask_to_watch(cancel()).await;
                same(&ours.notice().await, &theirs.notice().await)?;
                // The end comes after all that was told before.
                let late = (ours.take_events(open.id), theirs.take_events(open.id));
                if !late.0.is_empty() || !late.1.is_empty() {
                    return Err(format!("{:?} was told too much: {late:?}", open.asked));
                }
                ours.forget(open.id);
                theirs.forget(open.id);
                self.seen.closed += 1;
                Ok(())
            }
            Change::Progress => self.progress(ours, theirs, known).await,
            Change::Open | Change::Close => {
                // There is no such watcher, so there is no answer.
                let cancel = || RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 4711 });
                ours.ask_to_watch(cancel()).await;
                theirs.ask_to_watch(cancel()).await;
                Ok(())
            }
        }
    }

    async fn progress(
        &mut self,
        ours: &mut Side,
        theirs: &mut Side,
        known: &Known,
    ) -> Result<(), String> {
        // etcd 3.4 tells of progress also those who wait for a revision to come.
        if self.open.iter().any(|open| known.revision + 1 < open.first) {
            return Ok(());
        }
        for side in [ours, theirs] {
            side.progress = 0;
            for _ in 0..100 {
                side.ask_to_watch(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
                if side.hear(ASK_AGAIN).await.is_some() && side.progress == known.revision {
                    break;
                }
            }
            if side.progress != known.revision {
                return Err(format!("progress {}, not {}", side.progress, known.revision));
            }
        }
        self.seen.progress += 1;
        Ok(())
    }

    fn draw(&self, known: &Known, dice: &mut Dice) -> WatchCreateRequest {
        let start_revision = match dice.roll(8) {
            // etcd 3.4 takes one below 0; later ones refuse it.
            0..3 => (known.revision - dice.roll(60) as i64).max(1),
            3 => known.compacted.max(0) + 1,
            4 => known.revision + 1 + dice.roll(5) as i64,
            _ => 0,
        };
        let filters = match dice.roll(8) {
            0 => vec![NO_PUT],
            1 => vec![NO_DELETE],
            2 => vec![NO_DELETE, NO_PUT],
            _ => Vec::new(),
        };
        let mut ask = WatchCreateRequest {
            key: key(dice),
            range_end: range_end(dice),
            start_revision,
            progress_notify: dice.roll(4) == 0,
            filters,
            prev_kv: dice.roll(2) == 0,
            watch_id: if dice.roll(4) == 0 { dice.roll(8) as i64 } else { 0 },
            fragment: dice.roll(2) == 0,
        };
        // etcd 3.4 forgets at once that a key was deleted in the compacted revision.
        let is_forgotten = |event: &Event| {
            revision_of(event) == known.compacted && event.r#type() == EventType::Delete
        };
        if start_revision == known.compacted && self.history.iter().any(is_forgotten) {
            ask.start_revision = 0;
        }
        // One that is told nothing of the past gives no sign that it has caught up, and until then a
        // compaction would end it.
        let open = Open { id: 0, first: ask.start_revision, asked: ask, told: 0, before: 0 };
        let is_past = (1..=known.revision).contains(&open.first) && known.compacted <= open.first;
        let is_silent = is_past && wanted(&self.history, &open).is_empty();
        let start_revision = if is_silent { 0 } else { open.first };
        let is_compacted = 0 < start_revision && start_revision < known.compacted;
        let asked = open.asked.watch_id;
        let watch_id = if is_compacted || self.ended.contains(&asked) { 0 } else { asked };
        WatchCreateRequest { start_revision, watch_id, ..open.asked }
    }

    async fn open(
        &mut self,
        ask: WatchCreateRequest,
        ours: &mut Side,
        theirs: &mut Side,
        known: &Known,
    ) -> Result<(), String> {
        let [here, there] = create(&ask, ours, theirs).await;
        same(&here, &there)?;
        if here.canceled {
            self.seen.refused += 1;
            return Ok(());
        }
        let (id, start) = (here.watch_id, ask.start_revision);
        if 0 < start && start < known.compacted {
            self.seen.compacted += 1;
            self.ended.insert(id);
            let (here, there) = (ours.notice().await, theirs.notice().await);
            ours.forget(id);
            theirs.forget(id);
            return same(&here, &there);
        }
        let first = if start == 0 { known.revision + 1 } else { start };
        self.seen.past += u64::from(first <= known.revision);
        self.seen.future += u64::from(known.revision + 1 < first);
        self.open.push(Open { id, asked: ask, told: 0, before: 0, first });
        Ok(())
    }

    pub(super) fn summary(&self) -> String {
        let Seen { events, past, future, compacted, refused, closed, progress, fragments } =
            &self.seen;
        format!(
            "{events} events to watchers ({past} of the past, {future} of the future, {compacted} of \
             what is compacted, {refused} refused, {closed} closed), {progress} progress requests, \
             {fragments} fragments"
        )
    }

    /// A long run has tried everything.
    pub(super) fn check_coverage(&self) {
        let Seen { events, past, future, compacted, refused, closed, progress, fragments } =
            self.seen;
        let counts = [past, future, compacted, refused, closed, progress, fragments];
        assert!(0 < events && counts.iter().all(|count| 0 < *count), "{}", self.summary());
    }
}

/// What of history a watcher is to be told.
fn wanted(history: &[Event], open: &Open) -> Vec<Event> {
    let asked = &open.asked;
    let key = if asked.key.is_empty() { &b"\0"[..] } else { &asked.key };
    let is_wanted = |event: &&Event| {
        let its = &event.kv.as_ref().unwrap().key[..];
        let is_inside = match &asked.range_end[..] {
            [] => its == key,
            [0] => key <= its,
            end => key <= its && its < end,
        };
        let filter = if event.r#type() == EventType::Put { NO_PUT } else { NO_DELETE };
        is_inside && open.first <= revision_of(event) && !asked.filters.contains(&filter)
    };
    history.iter().filter(is_wanted).cloned().collect()
}

fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// All events of a watcher of everything, up to a revision.
async fn until(side: &mut Side, id: i64, revision: i64, mut seen: i64) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        events.extend(side.take_events(id));
        seen = events.last().map_or(seen, revision_of);
        if revision <= seen && side.is_whole(id) {
            return events;
        }
        side.hear(PATIENCE).await.unwrap_or_else(|| panic!("told up to {seen}, not {revision}"));
    }
}

/// The answers to a creation.
async fn create(
    ask: &WatchCreateRequest,
    ours: &mut Side,
    theirs: &mut Side,
) -> [WatchResponse; 2] {
    for side in [&mut *ours, &mut *theirs] {
        side.ask_to_watch(RequestUnion::CreateRequest(ask.clone())).await;
    }
    [ours.notice().await, theirs.notice().await]
}

fn same(here: &WatchResponse, there: &WatchResponse) -> Result<(), String> {
    match here == there {
        true => Ok(()),
        false => Err(format!("told otherwise than by etcd:\nours   {here:?}\netcd's {there:?}")),
    }
}

fn compare_events(whose: &str, here: &[Event], there: &[Event]) {
    for (here, there) in here.iter().zip(there) {
        assert_eq!(here, there, "{whose}");
    }
    assert_eq!(here.len(), there.len(), "{whose}: events");
}
