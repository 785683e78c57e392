//! The store as it should be: what a request does to it and what it answers. Changes are remembered
//! on a trail, so that a search can take them back.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use quorate_types::Revision;

use crate::operation::{Action, Compare, Done, Item, Request, Response, Span, Target};

/// What a store holds at one moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// One more with each change; a fresh store is at 1.
    pub revision: Revision,
    /// The keys that are there.
    pub items: BTreeMap<Bytes, Held>,
}

/// What a store holds of one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The value.
    pub value: Bytes,
    /// When it was created.
    pub created: Revision,
    /// When it was last written.
    pub modified: Revision,
    /// How often it was written since it was created.
    pub version: u64,
}

/// What was there before a change, newest last.
pub(crate) type Trail = Vec<(Bytes, Option<Held>)>;

impl Default for State {
    fn default() -> Self {
        State { revision: Revision(1), items: BTreeMap::new() }
    }
}

impl State {
    /// Does what is asked, at one moment, and answers.
    pub fn step(&mut self, request: &Request) -> Response {
        self.step_on(request, &mut Vec::new())
    }

    /// Does what is asked and leaves on the trail what was there before.
    pub(crate) fn step_on(&mut self, request: &Request, trail: &mut Trail) -> Response {
        let succeeded = request.compares.iter().all(|compare| self.holds(compare));
        let next = Revision(self.revision.0.saturating_add(1));
        let begun = trail.len();
        let mut done = Vec::new();
        for action in request.branch(succeeded) {
            done.push(match action {
                Action::Put { key, value } => {
                    let before = self.items.get(key);
                    let previous = before.map(|held| held.item(key)).into_iter().collect();
                    let held = Held {
                        value: value.clone(),
                        created: before.map_or(next, |held| held.created),
                        modified: next,
                        version: before.map_or(1, |held| held.version.saturating_add(1)),
                    };
                    let before = self.items.insert(key.clone(), held);
                    trail.push((key.clone(), before));
                    Done::Put { previous: Some(previous) }
                }
                Action::Delete(span) => {
                    let keys: Vec<Bytes> = self.within(span).map(|(key, _)| key.clone()).collect();
                    for key in &keys {
                        let before = self.items.remove(key);
                        trail.push((key.clone(), before));
                    }
                    Done::Deleted { count: keys.len() as u64 }
                }
                Action::Range(span) => Done::Found {
                    items: self.within(span).map(|(key, held)| held.item(key)).collect(),
                },
            });
        }
        if begun < trail.len() {
            self.revision = next;
        }
        Response { revision: Some(self.revision), succeeded, done }
    }

    /// Takes back what came onto the trail since it was `length` long, and the revision with it.
    pub(crate) fn undo(&mut self, trail: &mut Trail, length: usize, revision: Revision) {
        while length < trail.len() {
            match trail.pop() {
                Some((key, Some(held))) => drop(self.items.insert(key, held)),
                Some((key, None)) => drop(self.items.remove(&key)),
                None => {}
            }
        }
        self.revision = revision;
    }

    fn within<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = (&'a Bytes, &'a Held)> {
        let bounds = match &span.end {
            None => (Bound::Included(&*span.key), Bound::Included(&*span.key)),
            // An empty span: one that a map would not take.
            Some(end) if *end <= span.key => {
                (Bound::Included(&*span.key), Bound::Excluded(&*span.key))
            }
            Some(end) => (Bound::Included(&*span.key), Bound::Excluded(&**end)),
        };
        self.items.range::<[u8], _>(bounds)
    }

    fn holds(&self, compare: &Compare) -> bool {
        let held = self.items.get(&compare.key);
        let relation = compare.relation;
        match &compare.target {
            Target::Value(value) => held.is_some_and(|held| relation.holds(&held.value, value)),
            Target::Version(version) => {
                relation.holds(&held.map_or(0, |held| held.version), version)
            }
            Target::Created(revision) => {
                relation.holds(&held.map_or(Revision(0), |held| held.created), revision)
            }
            Target::Modified(revision) => {
                relation.holds(&held.map_or(Revision(0), |held| held.modified), revision)
            }
        }
    }
}

impl Held {
    fn item(&self, key: &Bytes) -> Item {
        Item {
            key: key.clone(),
            value: self.value.clone(),
            created: Some(self.created),
            modified: Some(self.modified),
            version: Some(self.version),
        }
    }
}

impl Response {
    /// Whether a client may have seen `seen` where the store said this.
    pub(crate) fn allows(&self, seen: &Response) -> bool {
        self.succeeded == seen.succeeded
            && seen.revision.is_none_or(|revision| Some(revision) == self.revision)
            && self.done.len() == seen.done.len()
            && self.done.iter().zip(&seen.done).all(|(said, seen)| match (said, seen) {
                (Done::Put { previous: Some(said) }, Done::Put { previous: Some(seen) })
                | (Done::Found { items: said }, Done::Found { items: seen }) => {
                    said.len() == seen.len()
                        && said.iter().zip(seen).all(|(said, seen)| said.allows(seen))
                }
                (Done::Put { .. }, Done::Put { .. }) => true,
                (Done::Deleted { count: said }, Done::Deleted { count: seen }) => said == seen,
                (Done::Put { .. } | Done::Deleted { .. } | Done::Found { .. }, _) => false,
            })
    }
}

impl Item {
    fn allows(&self, seen: &Item) -> bool {
        self.key == seen.key
            && self.value == seen.value
            && (seen.created.is_none() || seen.created == self.created)
            && (seen.modified.is_none() || seen.modified == self.modified)
            && (seen.version.is_none() || seen.version == self.version)
    }
}
