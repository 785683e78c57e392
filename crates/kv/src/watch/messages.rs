//! What is asked of watchers and what they are told, and the bounds of both.

use std::sync::Arc;

use bytes::Bytes;

use crate::response::KeyValue;
use crate::revision::Revision;
use crate::row::Row;

/// What a response takes beside its events.
pub(super) const RESPONSE_BYTES: usize = 64;
/// What an event takes beside its keys and values: more than its numbers can.
const EVENT_BYTES: usize = 128;

/// Bounds of watching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchLimits {
    /// Longer responses are cut into fragments for whoever asked for that.
    pub response_bytes_max: usize,
    /// A stream that has so much waiting is told no more until it has taken some.
    pub stream_bytes_max: usize,
    /// What may wait on all streams together; each gets its part of it.
    pub total_bytes_max: usize,
    /// Watchers on all streams together.
    pub watchers_max: usize,
    /// What the keys take that they watch.
    pub keys_bytes_max: usize,
}

impl Default for WatchLimits {
    fn default() -> Self {
        WatchLimits {
            response_bytes_max: 2 << 20,
            stream_bytes_max: 4 << 20,
            total_bytes_max: 256 << 20,
            watchers_max: 1_000_000,
            keys_bytes_max: 256 << 20,
        }
    }
}

/// Begins to watch. etcd's `WatchCreateRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchCreateRequest {
    /// First key of the interval; empty: one zero byte.
    pub key: Bytes,
    /// End of the interval, as in [`crate::RangeRequest::range_end`].
    pub range_end: Bytes,
    /// The first revision to be told; 0: the next one. It may lie in the future.
    pub start_revision: i64,
    /// Wants to hear now and then that nothing has happened.
    pub progress_notify: bool,
    /// Does not want puts.
    pub no_put: bool,
    /// Does not want deletions.
    pub no_delete: bool,
    /// Wants the pairs as they were before.
    pub prev_kv: bool,
    /// Its id on the stream; 0: the stream gives it one.
    pub watch_id: i64,
    /// Takes long responses in fragments.
    pub fragment: bool,
}

impl WatchCreateRequest {
    /// Whether there is no key that it could mean.
    pub(super) fn is_empty(&self) -> bool {
        let key = if self.key.is_empty() { &[0][..] } else { &self.key };
        match &self.range_end[..] {
            [] | [0] => false,
            end => end <= key,
        }
    }

    /// What its keys take.
    pub(super) fn keys_bytes(&self) -> usize {
        self.key.len() + self.range_end.len()
    }
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was put.
    Put,
    /// It was deleted, or its lease ended.
    Delete,
}

/// One change of one key. etcd's `mvccpb.Event`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The pair after it; of a deletion only the key and, in `mod_revision`, when.
    pub kv: KeyValue,
    /// The pair before it, if there was one, it was asked for, and it is not compacted.
    pub prev_kv: Option<KeyValue>,
}

impl Event {
    /// What a row says of its key, without the pair before.
    pub(super) fn of(revision: Revision, row: &Row) -> Event {
        match row {
            Row::Put(kv) => Event { kind: EventKind::Put, kv: kv.clone(), prev_kv: None },
            Row::Tombstone { key } => {
                let (key, mod_revision) = (key.clone(), revision.main);
                let kv = KeyValue { key, mod_revision, ..KeyValue::default() };
                Event { kind: EventKind::Delete, kv, prev_kv: None }
            }
        }
    }

    /// At least what it takes in a message.
    pub(super) fn bytes(&self) -> usize {
        let pair = |kv: &KeyValue| kv.key.len() + kv.value.len();
        EVENT_BYTES + pair(&self.kv) + self.prev_kv.as_ref().map_or(0, pair)
    }
}

/// Something to tell a stream. etcd's `WatchResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchResponse {
    /// For the header. 0 when a watcher ends because of a compaction.
    pub revision: i64,
    /// Whom it is for; -1: all of the stream, or one that was refused.
    pub watch_id: i64,
    /// The answer to a creation.
    pub created: bool,
    /// The watcher has ended, or never began.
    pub canceled: bool,
    /// What the watcher wanted to be told is gone below this revision; 0 if that is not why.
    pub compact_revision: i64,
    /// Why the watcher has ended, if there is more to say.
    pub cancel_reason: &'static str,
    /// More of the same follows.
    pub fragment: bool,
    /// What happened. Empty in a notice of progress.
    pub events: Vec<Arc<Event>>,
}

impl WatchResponse {
    /// At least what it takes in a message.
    pub(super) fn bytes(&self) -> usize {
        RESPONSE_BYTES + self.events.iter().map(|event| event.bytes()).sum::<usize>()
    }
}
