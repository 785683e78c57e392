//! What a watcher of all keys was told, held against what it asked for, against what clients saw, and
//! against what another watcher was told.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_history::{Action, Done, Final, History, Item, Operation};
use quorate_proto::etcdserverpb::WatchResponse;
use quorate_proto::mvccpb::event::EventType;
use quorate_types::Revision;

use crate::wire;

/// The first revision that a change makes.
const FIRST: Revision = Revision(2);

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    revision: Revision,
    key: Bytes,
    /// What the key holds since; nothing if it was deleted.
    item: Option<Item>,
}

/// All that one watcher was told, over all its streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    changes: Vec<Change>,
    /// What was wrong at once.
    wrong: Vec<String>,
}

impl Told {
    /// From where on the next stream has to tell: nothing comes twice.
    pub(crate) fn next(&self) -> Revision {
        self.changes.last().map_or(FIRST, |change| Revision(change.revision.0 + 1))
    }

    /// How many changes it was told of.
    pub(crate) fn count(&self) -> u64 {
        self.changes.len() as u64
    }

    /// Takes a response of a stream on which all from [`Told::next`] on was asked for. Says whether the
    /// stream goes on.
    pub(crate) fn take(&mut self, response: WatchResponse) -> bool {
        if response.canceled {
            self.wrong.push(format!("it was canceled: {:?}", response.cancel_reason));
            return false;
        }
        // No revision is in two responses, and within one they only grow.
        let mut least = self.next();
        for event in response.events {
            let is_put = event.r#type() == EventType::Put;
            let Some(kv) = event.kv else {
                self.wrong.push("an event has no key".to_owned());
                return false;
            };
            let item = wire::item(&kv);
            let revision = item.modified.unwrap_or_default();
            if revision < least {
                let what = format!("revision {revision} came where {least} or later was due");
                self.wrong.push(what);
                return false;
            }
            least = revision;
            let item = is_put.then_some(item);
            self.changes.push(Change { revision, key: kv.key, item });
        }
        true
    }

    /// What is wrong with it, if it was told up to a revision at which a member holds what `end` says.
    pub(crate) fn judge(&self, history: &History, end: &Final) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        let mut by_revision: BTreeMap<Revision, BTreeMap<&Bytes, Option<&Item>>> = BTreeMap::new();
        for change in self.through(end.revision) {
            let changes = by_revision.entry(change.revision).or_default();
            if changes.insert(&change.key, change.item.as_ref()).is_some() {
                wrong.push(format!("{:?} came twice at {}", change.key, change.revision));
            }
        }
        // Each change makes a revision of its own, and all keys are watched.
        let missing =
            (FIRST.0..=end.revision.0).map(Revision).find(|it| !by_revision.contains_key(it));
        wrong.extend(missing.map(|revision| format!("nothing was told of revision {revision}")));
        let lacking = history.operations.iter().find(|it| !is_told(it, &by_revision));
        wrong.extend(lacking.map(|operation| format!("it lacks a part of: {operation}")));
        let held = self.held_at(end.revision);
        if !end.items.iter().eq(held.values().copied()) {
            wrong.push(format!("it adds up to something else than {} holds", end.member));
        }
        wrong
    }

    /// Whether two watchers were told the same up to a revision.
    pub(crate) fn is_like(&self, other: &Told, revision: Revision) -> bool {
        self.through(revision).eq(other.through(revision))
    }

    fn through(&self, revision: Revision) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(move |change| change.revision <= revision)
    }

    fn held_at(&self, revision: Revision) -> BTreeMap<&Bytes, &Item> {
        let mut held = BTreeMap::new();
        for change in self.through(revision) {
            match &change.item {
                Some(item) => held.insert(&change.key, item),
                None => held.remove(&change.key),
            };
        }
        held
    }
}

/// Whether all that an operation is known to have changed was told as it was asked for.
fn is_told(
    operation: &Operation,
    told: &BTreeMap<Revision, BTreeMap<&Bytes, Option<&Item>>>,
) -> bool {
    let (Some(made), Some((_, response))) = (operation.made(), operation.answer()) else {
        return true;
    };
    let Some(changes) = told.get(&made) else { return false };
    let branch = operation.request.branch(response.succeeded);
    branch.iter().zip(&response.done).all(|(action, done)| match (action, done) {
        (Action::Put { key, value }, _) => {
            changes.get(key).is_some_and(|item| item.is_some_and(|item| item.value == *value))
        }
        (Action::Delete(span), Done::Deleted { count }) => {
            let of_span = changes.iter().filter(|(key, item)| span.has(key) && item.is_none());
            of_span.count() as u64 == *count
        }
        (Action::Delete(_) | Action::Range(_), _) => true,
    })
}

#[cfg(test)]
mod tests {
    use quorate_history::{Request, Response};
    use quorate_proto::mvccpb::{Event, KeyValue};

    use super::*;

    fn event(revision: i64, key: &'static str, value: Option<&'static str>) -> Event {
        let kv = KeyValue {
            key: key.into(),
            value: value.unwrap_or_default().into(),
            create_revision: if value.is_some() { revision } else { 0 },
            mod_revision: revision,
            version: value.is_some().into(),
            ..KeyValue::default()
        };
        let kind = if value.is_some() { EventType::Put } else { EventType::Delete };
        Event { r#type: kind.into(), kv: Some(kv), prev_kv: None }
    }

    /// What clients saw: `a` is put at 2 and deleted at 4; `b` and `c` are put at 3.
    fn story() -> (History, Final) {
        let put = |key, value: &str| Action::Put { key, value: value.to_owned().into() };
        let both = Request::of([put("b".into(), "2"), put("c".into(), "3")]);
        let (one, other) = (Done::Put { previous: None }, Done::Put { previous: None });
        let history = History::of([
            Operation::new(1, 10, Request::put("a", "1")).answered(20, Response::wrote(2)),
            Operation::new(1, 30, both).answered(40, Response::done(3, [one, other])),
            Operation::new(1, 50, Request::delete("a")).answered(60, Response::deleted(4, 1)),
            Operation::new(1, 70, Request::delete("a")).answered(80, Response::deleted(4, 0)),
        ]);
        let items = vec![Item::new("b", "2").at(3, 3, 1), Item::new("c", "3").at(3, 3, 1)];
        (history, Final { member: "n1".to_owned(), revision: Revision(4), items })
    }

    fn told(responses: &[&[Event]]) -> Told {
        let mut told = Told::default();
        for events in responses {
            let events = events.to_vec();
            told.take(WatchResponse { events, ..WatchResponse::default() });
        }
        told
    }

    #[test]
    fn a_watcher_is_told_all_in_order_and_once() {
        let (history, end) = story();
        let (a, b, c) =
            (event(2, "a", Some("1")), event(3, "b", Some("2")), event(3, "c", Some("3")));
        let deleted = event(4, "a", None);
        // What comes after the end is not judged.
        let late = event(5, "a", Some("9"));
        let all = [&a, &b, &c, &deleted].map(Clone::clone);
        for good in [&[&all[..]][..], &[&all[..1], &all[1..3], &all[3..]], &[&[], &all, &[late]]] {
            assert_eq!(told(good).judge(&history, &end), [""; 0], "{good:?}");
            assert!(told(good).is_like(&told(&[&all]), end.revision));
        }
        let other_value = event(2, "a", Some("8"));
        for (bad, want) in [
            (&[&all[..3]][..], "nothing was told of revision 4"),
            (&[&all[1..]], "nothing was told of revision 2"),
            (&[&all[..2], &all[3..]], "it lacks a part of"),
            (&[&all[..2], &all[2..]], "revision 3 came where 4 or later was due"),
            (&[&all[..], &all[3..]], "revision 4 came where 5 or later was due"),
            (&[&all[1..3], &all[..1]], "revision 2 came where 4 or later was due"),
            (&[&[other_value][..], &all[1..]], "it lacks a part of"),
            (&[&[a, b.clone(), b, c, deleted]], "came twice at 3"),
            (&[&all[..3], &[event(4, "b", None)]], "it adds up to something else than n1 holds"),
        ] {
            let wrong = told(bad).judge(&history, &end);
            assert!(wrong.iter().any(|it| it.contains(want)), "{bad:?}: {wrong:?}");
        }
        assert!(!told(&[&all[..3]]).is_like(&told(&[&all]), end.revision));
        let canceled = WatchResponse { canceled: true, ..WatchResponse::default() };
        let mut told = told(&[&all]);
        assert!(!told.take(canceled));
        assert_eq!(told.judge(&history, &end), ["it was canceled: \"\""]);
    }
}
