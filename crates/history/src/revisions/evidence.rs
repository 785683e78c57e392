//! What answers say about the gaps, whatever filled the others.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_types::Revision;

use super::Line;
use crate::model::State;
use crate::operation::{Action, Done, Item, Request, Response, Span, Target};
use crate::verdict::Violation;

/// Facts about gaps that hold in every order.
pub(super) struct Evidence {
    /// The gap that a request filled, because a value of it was shown with that revision.
    pins: BTreeMap<usize, Revision>,
    /// The other way round.
    pinned: BTreeMap<Revision, usize>,
    /// Revisions `(first, last]` in which a key was not touched.
    quiet: BTreeMap<Bytes, Vec<(Revision, Revision)>>,
    /// Values that made a difference to somebody.
    seen: BTreeSet<(Bytes, Bytes)>,
    /// Keys of which values were compared.
    compared: BTreeSet<Bytes>,
    /// What keys were at revisions that wrote them: when created, and which version.
    written: BTreeMap<Bytes, BTreeMap<Revision, (Revision, u64)>>,
    /// Revisions at which a key may have been written: those of answered puts, and all gaps.
    chances: BTreeMap<Bytes, Vec<Revision>>,
}

impl Evidence {
    pub(super) fn gather(line: &Line<'_>) -> Result<Evidence, Violation> {
        let operations = &line.history.operations;
        let mut writers: BTreeMap<(&Bytes, &Bytes), Vec<usize>> = BTreeMap::new();
        for at in &line.unknown {
            for action in operations[*at].request.actions() {
                if let Action::Put { key, value } = action {
                    writers.entry((key, value)).or_default().push(*at);
                }
            }
        }
        let acknowledged = acknowledged(line);
        let mut evidence = Evidence {
            pins: BTreeMap::new(),
            pinned: BTreeMap::new(),
            quiet: BTreeMap::new(),
            seen: BTreeSet::new(),
            compared: BTreeSet::new(),
            written: BTreeMap::new(),
            chances: BTreeMap::new(),
        };
        for (number, operation) in operations.iter().enumerate() {
            let compares = operation.request.compares.iter();
            let compares = compares.filter(|it| matches!(it.target, Target::Value(_)));
            evidence.compared.extend(compares.map(|compare| compare.key.clone()));
            let Some((_, response)) = operation.answer() else { continue };
            let Some(at) = response.revision else { continue };
            for item in shown(response) {
                evidence.seen.insert((item.key.clone(), item.value.clone()));
                let Some(modified) = item.modified else { continue };
                if let (Some(created), Some(version)) = (item.created, item.version)
                    && modified < at
                {
                    let of_key = evidence.written.entry(item.key.clone()).or_default();
                    of_key.entry(modified).or_insert((created, version));
                }
                if modified < at {
                    let newer = acknowledged.get(&item.key).and_then(|writes| {
                        writes.range(Revision(modified.0 + 1)..=at).find(|it| *it.1 != number)
                    });
                    if let Some((revision, newer)) = newer {
                        let why = format!("it shows {item}, which revision {revision} replaced");
                        return Err(Violation::of(why, [&operations[*newer], operation]));
                    }
                    evidence.quiet.entry(item.key.clone()).or_default().push((modified, at));
                }
                let place = modified.0.checked_sub(line.first()).map(usize::try_from);
                let place = place.and_then(Result::ok).filter(|place| *place != 0);
                let Some(place) = place.and_then(|place| line.places.get(place)) else { continue };
                if place.writer.is_some() {
                    continue;
                }
                match writers.get(&(&item.key, &item.value)).map(Vec::as_slice) {
                    None => {
                        let why = format!(
                            "it shows what nobody wrote: {item}; revision {modified} was made by \
                             a request of unknown outcome, and none of them writes that"
                        );
                        return Err(Violation::of(why, [operation]));
                    }
                    Some([writer]) => evidence.pin(line, *writer, modified, operation)?,
                    Some(_) => {}
                }
            }
        }
        for spans in evidence.quiet.values_mut() {
            spans.sort_unstable();
            // Overlapping ones become one, so that the last that begins before a revision decides.
            spans.dedup_by(|next, kept| {
                let overlap = next.0 <= kept.1;
                if overlap {
                    kept.1 = kept.1.max(next.1);
                }
                overlap
            });
        }
        let gaps: Vec<Revision> = line.gaps().into_iter().map(|gap| line.revision(gap)).collect();
        for key in evidence.written.keys() {
            let puts = acknowledged.get(key).into_iter().flat_map(BTreeMap::keys);
            let mut chances: Vec<Revision> = gaps.iter().chain(puts).copied().collect();
            chances.sort_unstable();
            evidence.chances.insert(key.clone(), chances);
        }
        Ok(evidence)
    }

    /// The keys that can no longer become what they were shown as, from this state on.
    pub(super) fn lost(&self, state: &State) -> Vec<&Bytes> {
        let now = state.revision;
        let is_lost = |key: &Bytes, written: &BTreeMap<Revision, (Revision, u64)>| {
            let Some((then, (created, version))) = written.range(now..).next() else {
                return false;
            };
            if now < *created {
                return false;
            }
            let Some(held) = state.items.get(key).filter(|it| it.created == *created) else {
                return true;
            };
            // One more with each put; and a put there must have been.
            let Some(missing) = version.checked_sub(held.version) else { return true };
            let chances = self.chances.get(key).map(Vec::as_slice).unwrap_or_default();
            let left =
                chances.partition_point(|it| it <= then) - chances.partition_point(|it| *it <= now);
            (left as u64) < missing || (now < *then && missing == 0)
        };
        self.written.iter().filter(|(key, written)| is_lost(key, written)).map(|it| it.0).collect()
    }

    fn pin(
        &mut self,
        line: &Line<'_>,
        writer: usize,
        revision: Revision,
        shown: &crate::Operation,
    ) -> Result<(), Violation> {
        let writer_itself = &line.history.operations[writer];
        if let Some(other) = self.pins.insert(writer, revision).filter(|it| *it != revision) {
            let why = format!("one write made both revision {other} and revision {revision}");
            return Err(Violation::of(why, [writer_itself, shown]));
        }
        if let Some(other) = self.pinned.insert(revision, writer).filter(|it| *it != writer) {
            let why = format!("two writes made revision {revision}");
            let other = &line.history.operations[other];
            return Err(Violation::of(why, [other, writer_itself, shown]));
        }
        Ok(())
    }

    /// The requests of unknown outcome in classes, each by when they were asked.
    pub(super) fn classes(&self, line: &Line<'_>) -> Vec<Vec<usize>> {
        let mut classes: BTreeMap<(Option<Revision>, Request), Vec<usize>> = BTreeMap::new();
        for at in &line.unknown {
            let mut request = line.history.operations[*at].request.clone();
            if let ([], [Action::Put { key, value }]) = (&*request.compares, &mut *request.then)
                && !self.compared.contains(key)
                && !self.seen.contains(&(key.clone(), value.clone()))
            {
                *value = Bytes::new();
            }
            // `unknown` is in the order of asking, and so are its parts.
            classes.entry((self.pin_of(*at), request)).or_default().push(*at);
        }
        classes.into_values().collect()
    }

    /// The revision that a request is known to have made.
    pub(super) fn pin_of(&self, operation: usize) -> Option<Revision> {
        self.pins.get(&operation).copied()
    }

    /// Whether nothing is known of its keys that keeps this request from having made that revision.
    pub(super) fn allows(&self, request: &Request, revision: Revision) -> bool {
        // What is sure to touch a key.
        !request.compares.is_empty()
            || request.then.iter().all(|action| match action {
                Action::Put { key, .. } => !self.is_quiet(key, revision),
                Action::Delete(Span { key, end: None }) if request.then.len() == 1 => {
                    !self.is_quiet(key, revision)
                }
                Action::Delete(_) | Action::Range(_) => true,
            })
    }

    fn is_quiet(&self, key: &Bytes, revision: Revision) -> bool {
        let Some(spans) = self.quiet.get(key) else { return false };
        let begun = spans.partition_point(|(first, _)| *first < revision);
        begun.checked_sub(1).is_some_and(|last| revision <= spans[last].1)
    }
}

/// By key and revision, the answered operations that put something there.
fn acknowledged<'a>(line: &Line<'a>) -> BTreeMap<&'a Bytes, BTreeMap<Revision, usize>> {
    let mut writes: BTreeMap<&Bytes, BTreeMap<Revision, usize>> = BTreeMap::new();
    for (at, operation) in line.history.operations.iter().enumerate() {
        let (Some((_, response)), Some(made)) = (operation.answer(), operation.made()) else {
            continue;
        };
        for action in operation.request.branch(response.succeeded) {
            if let Action::Put { key, .. } = action {
                writes.entry(key).or_default().insert(made, at);
            }
        }
    }
    writes
}

/// Every item that an answer showed.
fn shown(response: &Response) -> impl Iterator<Item = &Item> {
    response.done.iter().flat_map(|done| match done {
        Done::Found { items } | Done::Put { previous: Some(items) } => items.as_slice(),
        Done::Put { previous: None } | Done::Deleted { .. } => &[],
    })
}

/// Keys in regions: what is in one does not depend on gaps that touch only others. Keys that one request
/// of unknown outcome names are in the same.
pub(super) struct Regions {
    by_key: BTreeMap<Bytes, usize>,
}

impl Regions {
    pub(super) fn of(line: &Line<'_>) -> Regions {
        let mut regions = Regions { by_key: BTreeMap::new() };
        let mut keys: BTreeSet<&Bytes> = line.history.initial.items.keys().collect();
        for operation in &line.history.operations {
            keys.extend(operation.request.actions().map(|action| match action {
                Action::Put { key, .. } => key,
                Action::Delete(span) | Action::Range(span) => &span.key,
            }));
            keys.extend(operation.request.compares.iter().map(|compare| &compare.key));
            if let Some((_, response)) = operation.answer() {
                keys.extend(shown(response).map(|item| &item.key));
            }
        }
        regions.by_key = keys.into_iter().cloned().zip(0..).collect();
        let mut joined: Vec<usize> = (0..regions.by_key.len()).collect();
        for at in &line.unknown {
            let together = regions.of_request(&line.history.operations[*at].request);
            let mut roots = together.iter().map(|region| root(&joined, *region));
            let Some(first) = roots.next() else { continue };
            for other in roots.collect::<Vec<_>>() {
                joined[other] = first;
            }
        }
        for region in regions.by_key.values_mut() {
            *region = root(&joined, *region);
        }
        regions
    }

    pub(super) fn of_key(&self, key: &Bytes) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    pub(super) fn of_span(&self, span: &Span) -> BTreeSet<usize> {
        match &span.end {
            None => self.by_key.get(&span.key).copied().into_iter().collect(),
            Some(_) => {
                let keys = self.by_key.iter().filter(|(key, _)| span.has(key));
                keys.map(|(_, region)| *region).collect()
            }
        }
    }

    pub(super) fn of_request(&self, request: &Request) -> BTreeSet<usize> {
        let compared = request.compares.iter().map(|compare| &compare.key);
        let mut regions: BTreeSet<usize> =
            compared.filter_map(|key| self.by_key.get(key)).copied().collect();
        for action in request.actions() {
            match action {
                Action::Put { key, .. } => regions.extend(self.by_key.get(key)),
                Action::Delete(span) | Action::Range(span) => regions.extend(self.of_span(span)),
            }
        }
        regions
    }

    /// The regions of items in `one` that `other` does not show just so.
    pub(super) fn of_missing(&self, one: &[Item], other: &[Item]) -> BTreeSet<usize> {
        let missing = one.iter().filter(|item| !other.contains(item));
        missing.filter_map(|item| self.by_key.get(&item.key)).copied().collect()
    }
}

fn root(joined: &[usize], mut region: usize) -> usize {
    while joined[region] != region {
        region = joined[region];
    }
    region
}
