//! What watchers are told: every change of what they watch, once, in order, whole revisions at a time,
//! nothing that is not committed, and the pair before each as it was. Whoever asks for what is gone
//! hears that it is gone.

use bytes::Bytes;
use quorate_kv::{EventKind, KeyValue, WatchResponse};

use super::Finding;
use crate::watching::Watched;

/// All changes that were ever committed, in their order.
#[derive(Default)]
pub(super) struct Changes {
    log: Vec<Change>,
}

/// What one revision did to one key.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: i64,
    pub(super) key: Bytes,
    pub(super) before: Option<KeyValue>,
    /// Nothing where it was deleted.
    pub(super) after: Option<KeyValue>,
}

impl Changes {
    pub(super) fn extend(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.log.extend(changes);
    }

    /// A watcher is told this. `revision` and `compacted` are the newest of any member.
    pub(super) fn on_told(
        &self,
        watched: &mut Watched,
        response: &WatchResponse,
        revision: i64,
        compacted: i64,
    ) -> Finding {
        if revision < response.revision {
            let told = response.revision;
            return Err(format!("watch: told of revision {told}, which is not committed"));
        }
        if response.created {
            if response.canceled {
                return Err(format!("watch: refused: {}", response.cancel_reason));
            }
            if watched.next == 0 {
                watched.next = response.revision + 1;
            }
            return Ok(());
        }
        if response.canceled {
            let gone = response.compact_revision;
            if gone <= watched.next || compacted < gone {
                return Err(format!(
                    "watch: ended at {} since {gone} is compacted, and {compacted} is",
                    watched.next
                ));
            }
            watched.next = gone;
            watched.has_ended = true;
            return Ok(());
        }
        // A notice of progress says that there is nothing up to its revision.
        let through = response.events.last().map_or(response.revision, |it| it.kv.mod_revision);
        if revision < through {
            return Err(format!("watch: told of revision {through}, which is not committed"));
        }
        let mut expected = self.between(watched, through);
        for event in &response.events {
            let Some(want) = expected.next() else {
                return Err(format!("watch: told {event:?} and expected nothing more"));
            };
            let (kind, after) = match &want.after {
                Some(after) => (EventKind::Put, after.clone()),
                None => {
                    let key = want.key.clone();
                    let gone = KeyValue { key, mod_revision: want.revision, ..KeyValue::default() };
                    (EventKind::Delete, gone)
                }
            };
            if (event.kind, &event.kv) != (kind, &after) {
                return Err(format!("watch: told {event:?} instead of {want:?}"));
            }
            let is_forgotten = want.revision - 1 < compacted;
            let is_before_right = match &event.prev_kv {
                Some(before) => watched.prev_kv && want.before.as_ref() == Some(before),
                None => !watched.prev_kv || want.before.is_none() || is_forgotten,
            };
            if !is_before_right {
                return Err(format!("watch: the pair before: {event:?} instead of {want:?}"));
            }
        }
        if let Some(missing) = expected.next() {
            return Err(format!(
                "watch: told up to {through} from {} without {missing:?}",
                watched.next
            ));
        }
        watched.next = watched.next.max(through + 1);
        Ok(())
    }

    /// What a watcher has not been told yet, up to and with a revision.
    fn between(&self, watched: &Watched, through: i64) -> impl Iterator<Item = &Change> + use<'_> {
        let from = self.log.partition_point(|change| change.revision < watched.next);
        let (key, end) = (watched.key.clone(), watched.range_end.clone());
        self.log[from..].iter().take_while(move |change| change.revision <= through).filter(
            move |change| match end.is_empty() {
                true => change.key == key,
                false => key <= change.key && change.key < end,
            },
        )
    }
}
