//! Finds for each gap the request of unknown outcome that filled it, while taking the model through all
//! places.
//!
//! Four things keep this from trying every combination. What an answer shows with its revision names
//! the request that filled that gap, and the keys that no gap behind it touched (`evidence.rs`).
//! Requests that differ in nothing anybody saw are one *class*, of which one is tried: whatever may
//! fill a gap may also fill every later one, so it does not matter which. And a contradiction about a
//! key leads back to the last gap that could have touched that key, not to the one before.
//! And a version that is shown later says at once when a key was written too often, or can no longer be
//! written often enough.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::Revision;

use super::evidence::{Evidence, Regions};
use super::{Line, Place};
use crate::model::{State, Trail};
use crate::operation::{Action, Done, Request, Response, Span};
use crate::verdict::{Verdict, Violation};

/// Requests that are as good as each other.
struct Class {
    /// By when they were asked; those in use are the first ones.
    operations: Vec<usize>,
    used: usize,
    /// Whose keys it can read or write.
    regions: BTreeSet<usize>,
}

struct Gap {
    place: usize,
    /// The classes that may fill it.
    options: Vec<usize>,
    /// How many of them were tried.
    tried: usize,
    chosen: Option<usize>,
    /// How the state was before the choice.
    trail_length: usize,
    /// Why the options tried so far did not work.
    conflict: Conflict,
}

/// Earlier gaps of which one must be filled in another way.
#[derive(Clone, Default)]
struct Conflict {
    /// All that can touch these regions.
    regions: BTreeSet<usize>,
    /// And these.
    gaps: BTreeSet<usize>,
}

/// An answer that the model does not give.
struct Mismatch {
    operation: usize,
    place: usize,
    said: Response,
    regions: BTreeSet<usize>,
}

struct Search<'a> {
    line: &'a Line<'a>,
    evidence: Evidence,
    regions: Regions,
    classes: Vec<Class>,
    gaps: Vec<Gap>,
    state: State,
    trail: Trail,
    work: u64,
    /// The one that came furthest, to be told.
    worst: Option<Mismatch>,
    /// The last gap that nothing could fill.
    stuck: usize,
}

pub(super) fn fill(line: &Line<'_>, work_max: u64) -> Verdict {
    let evidence = match Evidence::gather(line) {
        Ok(evidence) => evidence,
        Err(violation) => return Verdict::Violated(violation),
    };
    let mut search = Search::new(line, evidence);
    match search.run(work_max) {
        Some(true) => Verdict::Linearizable,
        Some(false) => Verdict::Violated(search.told()),
        None => Verdict::Undecided { work: search.work },
    }
}

impl<'a> Search<'a> {
    fn new(line: &'a Line<'a>, evidence: Evidence) -> Search<'a> {
        let operations = &line.history.operations;
        let regions = Regions::of(line);
        let classes: Vec<Class> = evidence
            .classes(line)
            .into_iter()
            .map(|alike| Class {
                regions: regions.of_request(&operations[alike[0]].request),
                operations: alike,
                used: 0,
            })
            .collect();
        let (pinned, free): (Vec<usize>, Vec<usize>) = (0..classes.len())
            .partition(|at| evidence.pin_of(classes[*at].operations[0]).is_some());
        let pinned: BTreeMap<Option<Revision>, usize> =
            pinned.into_iter().map(|at| (evidence.pin_of(classes[at].operations[0]), at)).collect();
        let gaps = line.gaps().into_iter().map(|place| {
            let revision = line.revision(place);
            let fits = |at: &usize| {
                let first = classes[*at].operations[0];
                operations[first].invoked_at <= line.places[place].deadline
                    && evidence.allows(&operations[first].request, revision)
            };
            let options = match pinned.get(&Some(revision)) {
                Some(class) => vec![*class],
                None => free.iter().copied().filter(fits).collect(),
            };
            let conflict = Conflict::default();
            Gap { place, options, tried: 0, chosen: None, trail_length: 0, conflict }
        });
        let gaps: Vec<Gap> = gaps.collect();
        let state = line.history.initial.clone();
        Search {
            line,
            evidence,
            regions,
            classes,
            gaps,
            state,
            trail: Vec::new(),
            work: 0,
            worst: None,
            stuck: 0,
        }
    }

    /// Whether all gaps can be filled; nothing when that takes too much work.
    fn run(&mut self, work_max: u64) -> Option<bool> {
        let first = self.gaps.first().map_or(self.line.places.len(), |gap| gap.place);
        if let Err(mismatch) = self.replay(0, first) {
            self.remember(mismatch);
            return Some(false);
        }
        let mut level = 0;
        while level < self.gaps.len() {
            if work_max < self.work {
                return None;
            }
            if self.choose(level) {
                level += 1;
                continue;
            }
            match self.back(level) {
                Some(target) => level = target,
                None => return Some(false),
            }
        }
        Some(true)
    }

    /// Fills a gap with the next option that leads to the next gap without a contradiction.
    fn choose(&mut self, level: usize) -> bool {
        let operations = &self.line.history.operations;
        let place = self.gaps[level].place;
        let end = self.gaps.get(level + 1).map_or(self.line.places.len(), |gap| gap.place);
        while let Some(class) = self.gaps[level].options.get(self.gaps[level].tried).copied() {
            self.gaps[level].tried += 1;
            self.work += 1;
            let next = self.classes[class].operations.get(self.classes[class].used).copied();
            let deadline = self.line.places[place].deadline;
            let Some(next) = next.filter(|at| operations[*at].invoked_at <= deadline) else {
                let users = (0..level).filter(|at| self.gaps[*at].chosen == Some(class));
                let users: Vec<usize> = users.collect();
                self.gaps[level].conflict.gaps.extend(users);
                continue;
            };
            let length = self.trail.len();
            let revision = self.state.revision;
            self.state.step_on(&operations[next].request, &mut self.trail);
            let why = if self.state.revision == revision {
                // It would have changed nothing here.
                self.classes[class].regions.clone()
            } else if let lost = self.evidence.lost(&self.state)
                && !lost.is_empty()
            {
                lost.into_iter().filter_map(|key| self.regions.of_key(key)).collect()
            } else {
                match self.replay(place, end) {
                    Ok(()) => {
                        self.classes[class].used += 1;
                        self.gaps[level].chosen = Some(class);
                        self.gaps[level].trail_length = length;
                        return true;
                    }
                    Err(mismatch) => self.remember(mismatch),
                }
            };
            self.state.undo(&mut self.trail, length, revision);
            self.gaps[level].conflict.regions.extend(why);
        }
        false
    }

    /// Takes back choices up to the last one that may be to blame, and names its gap.
    fn back(&mut self, level: usize) -> Option<usize> {
        let conflict = std::mem::take(&mut self.gaps[level].conflict);
        self.stuck = self.stuck.max(self.gaps[level].place);
        let target = (0..level).rev().find(|at| {
            conflict.gaps.contains(at) || self.touches(&self.gaps[*at], &conflict.regions)
        })?;
        for at in (target..=level).rev() {
            let gap = &mut self.gaps[at];
            if let Some(class) = gap.chosen.take() {
                self.classes[class].used -= 1;
            }
            if at != target {
                gap.tried = 0;
                gap.conflict = Conflict::default();
            }
        }
        let before = self.line.revision(self.gaps[target].place - 1);
        self.state.undo(&mut self.trail, self.gaps[target].trail_length, before);
        let kept = &mut self.gaps[target].conflict;
        kept.regions.extend(conflict.regions);
        kept.gaps.extend(conflict.gaps.range(..target));
        Some(target)
    }

    fn touches(&self, gap: &Gap, regions: &BTreeSet<usize>) -> bool {
        gap.options.iter().any(|class| !self.classes[*class].regions.is_disjoint(regions))
    }

    /// Takes the model from right behind the change of place `from` to right before that of `end`.
    /// On a mismatch the caller takes the changes back.
    fn replay(&mut self, from: usize, end: usize) -> Result<(), Mismatch> {
        for (place, Place { writer, readers, .. }) in
            self.line.places.iter().enumerate().take(end).skip(from)
        {
            let writer = writer.filter(|_| place != from);
            for operation in writer.into_iter().chain(readers.iter().copied()) {
                self.work += 1;
                let length = self.trail.len();
                let Some((_, seen)) = self.line.history.operations[operation].answer() else {
                    continue;
                };
                let request = &self.line.history.operations[operation].request;
                let said = self.state.step_on(request, &mut self.trail);
                if !said.allows(seen) {
                    let regions = self.blamed(request, &said, seen);
                    return Err(Mismatch { operation, place, said, regions });
                }
                debug_assert!(
                    (length == self.trail.len()) == (writer != Some(operation)),
                    "an answer that is allowed changes what it says"
                );
            }
        }
        Ok(())
    }

    /// The regions about which the model and the answer differ.
    fn blamed(&self, request: &Request, said: &Response, seen: &Response) -> BTreeSet<usize> {
        let mut regions = BTreeSet::new();
        if said.succeeded != seen.succeeded {
            return self.regions.of_request(request);
        }
        let actions = request.branch(said.succeeded).iter();
        for ((action, said), seen) in actions.zip(&said.done).zip(&seen.done) {
            match (action, said, seen) {
                (Action::Range(_), Done::Found { items: said }, Done::Found { items: seen }) => {
                    let keys = |one: &[_], other: &[_]| self.regions.of_missing(one, other);
                    regions.extend(keys(said, seen));
                    regions.extend(keys(seen, said));
                }
                (Action::Put { key, .. }, ..) => {
                    regions.extend(self.regions.of_span(&Span::one(key.clone())));
                }
                (Action::Delete(span) | Action::Range(span), ..) => {
                    regions.extend(self.regions.of_span(span));
                }
            }
        }
        regions
    }

    /// Keeps the mismatch that came furthest; gives its regions.
    fn remember(&mut self, mismatch: Mismatch) -> BTreeSet<usize> {
        let regions = mismatch.regions.clone();
        if self.worst.as_ref().is_none_or(|worst| worst.place < mismatch.place) {
            self.worst = Some(mismatch);
        }
        regions
    }

    fn told(&self) -> Violation {
        let operations = &self.line.history.operations;
        let furthest = self.worst.as_ref().filter(|worst| self.stuck <= worst.place);
        let Some(Mismatch { operation, place, said, .. }) = furthest else {
            let mut violation = self.line.nobody_made(self.stuck);
            violation.why = format!(
                "no request of unknown outcome can have made revision {} and no other, and yet it \
                 was there when this was answered",
                self.line.revision(self.stuck)
            );
            return violation;
        };
        let culprit = &operations[*operation];
        let guesses = match self.gaps.iter().filter(|gap| gap.place <= *place).count() {
            0 => String::new(),
            1 => "whatever made the one revision that no answer claims, ".to_owned(),
            count => format!("whatever made the {count} revisions that no answer claims, "),
        };
        let why = format!("{guesses}the store would have answered {said}");
        let around = self.line.around(*operation, said);
        Violation::of(why, around.iter().map(|at| &operations[*at]).chain([culprit]))
    }
}
