//! Looks for an order by trying: at each step, one of the operations that no other one has to precede.
//!
//! For histories whose answers do not carry revisions. Operations on keys that have nothing to do with
//! each other are searched apart, since a history is linearizable when its parts are; that needs
//! answers without any revision, because the revision is one for all keys. What was tried is remembered as the set of what
//! stands in order together with the state it leads to: two ways to the same are one.
//!
//! Serializable reads are passed over here: without revisions nothing tells their age.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_types::Revision;

use crate::model::State;
use crate::operation::{Action, Done, History, Item, Operation, Response, Target};
use crate::verdict::{Verdict, Violation};

pub(crate) fn judge(history: &History, work_max: u64) -> Verdict {
    let facts = Facts::of(history);
    let mut work = 0;
    for part in parts(history, &facts) {
        let mut search = Search::new(history, &facts, &part);
        let found = search.run(work_max.saturating_sub(work));
        work += search.work;
        match found {
            Some(true) => {}
            Some(false) => return Verdict::Violated(search.told()),
            None => return Verdict::Undecided { work },
        }
    }
    Verdict::Linearizable
}

/// What answers and conditions are about. The rest of a state need not be told apart.
struct Facts {
    revisions: bool,
    versions: bool,
}

impl Facts {
    fn of(history: &History) -> Facts {
        let mut facts = Facts { revisions: false, versions: false };
        for operation in &history.operations {
            for compare in &operation.request.compares {
                match compare.target {
                    Target::Value(_) => {}
                    Target::Version(_) => facts.versions = true,
                    // That a key is there or not needs no revision.
                    Target::Created(Revision(0)) | Target::Modified(Revision(0)) => {}
                    Target::Created(_) | Target::Modified(_) => facts.revisions = true,
                }
            }
            let Some((_, response)) = operation.answer() else { continue };
            facts.revisions |= response.revision.is_some();
            for item in items(response) {
                facts.revisions |= item.created.is_some() || item.modified.is_some();
                facts.versions |= item.version.is_some();
            }
        }
        facts
    }

    /// Forgets what nobody asks about.
    fn strip(&self, state: &mut State) {
        if !self.revisions {
            // One and not none: conditions tell a key that is there from one that is not.
            state.revision = Revision(1);
        }
        for held in state.items.values_mut() {
            if !self.revisions {
                (held.created, held.modified) = (Revision(1), Revision(1));
            }
            if !self.versions {
                held.version = 1;
            }
        }
    }
}

fn items(response: &Response) -> impl Iterator<Item = &Item> {
    response.done.iter().flat_map(|done| match done {
        Done::Found { items } | Done::Put { previous: Some(items) } => items.as_slice(),
        Done::Put { previous: None } | Done::Deleted { .. } => &[],
    })
}

/// Operations that can be judged apart from all others.
fn parts(history: &History, facts: &Facts) -> Vec<Vec<usize>> {
    let counts = |operation: &Operation| match operation.answer() {
        Some(_) => !operation.request.serializable,
        None => operation.is_unknown() && !operation.request.is_read(),
    };
    let operations = history.operations.iter().enumerate();
    let counted: Vec<usize> =
        operations.filter(|(_, operation)| counts(operation)).map(|(at, _)| at).collect();
    let mut parts: Vec<(BTreeSet<&Bytes>, Vec<usize>)> = Vec::new();
    for at in &counted {
        let request = &history.operations[*at].request;
        let mut keys: BTreeSet<&Bytes> =
            request.compares.iter().map(|compare| &compare.key).collect();
        for action in request.actions() {
            match action {
                Action::Put { key, .. } => drop(keys.insert(key)),
                Action::Delete(span) | Action::Range(span) => {
                    if span.end.is_some() || facts.revisions {
                        return vec![counted];
                    }
                    keys.insert(&span.key);
                }
            }
        }
        let mut whole = (keys, vec![*at]);
        parts.retain_mut(|(keys, operations)| {
            let is_apart = whole.0.is_disjoint(keys);
            if !is_apart {
                whole.0.append(keys);
                whole.1.append(operations);
            }
            is_apart
        });
        parts.push(whole);
    }
    if facts.revisions {
        return vec![counted];
    }
    parts.into_iter().map(|(_, operations)| operations).collect()
}

/// A set of operations that stand in order, and the state that they lead to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reached {
    /// All answered ones before this place, in the order of asking, stand.
    low: usize,
    /// And these behind it.
    beyond: BTreeSet<usize>,
    /// And so many of each class of unknown outcome.
    used: Vec<usize>,
    state: State,
}

struct Step {
    reached: Reached,
    /// What can come next, and how many of that were tried.
    options: Vec<Next>,
    tried: usize,
}

#[derive(Clone, Copy)]
enum Next {
    Answered(usize),
    Unknown(usize),
}

struct Search<'a> {
    operations: &'a [Operation],
    facts: &'a Facts,
    /// Those with an answer, by when they were asked.
    answered: Vec<usize>,
    /// Those without, alike ones together: which is taken makes no difference.
    classes: Vec<Vec<usize>>,
    initial: State,
    work: u64,
    /// The most that could be put in order, and what could not come next.
    best: Option<Reached>,
}

impl<'a> Search<'a> {
    fn new(history: &'a History, facts: &'a Facts, part: &[usize]) -> Search<'a> {
        let operations = &history.operations;
        let (mut answered, mut unknown): (Vec<usize>, Vec<usize>) =
            part.iter().partition(|at| operations[**at].answer().is_some());
        answered.sort_by_key(|at| operations[*at].invoked_at);
        unknown.sort_by_key(|at| operations[*at].invoked_at);
        let mut classes: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for at in unknown {
            classes.entry(&operations[at].request).or_default().push(at);
        }
        let mut initial = history.initial.clone();
        facts.strip(&mut initial);
        let classes = classes.into_values().collect();
        Search { operations, facts, answered, classes, initial, work: 0, best: None }
    }

    /// Whether all answered operations can be put in order; nothing when that takes too much work.
    fn run(&mut self, work_max: u64) -> Option<bool> {
        let used = vec![0; self.classes.len()];
        let state = self.initial.clone();
        let first = Reached { low: 0, beyond: BTreeSet::new(), used, state };
        let mut known = BTreeSet::new();
        let mut steps = vec![self.step(first)];
        while let Some(step) = steps.last_mut() {
            if step.reached.low == self.answered.len() {
                return Some(true);
            }
            let Some(next) = step.options.get(step.tried).copied() else {
                steps.pop();
                continue;
            };
            step.tried += 1;
            if work_max <= self.work {
                return None;
            }
            self.work += 1;
            let reached = step.reached.clone();
            if let Some(reached) = self.follow(reached, next)
                && known.insert(reached.clone())
            {
                steps.push(self.step(reached));
            }
        }
        Some(false)
    }

    /// What may come next there: all that were asked before any that is left was answered.
    fn step(&mut self, reached: Reached) -> Step {
        let mut options = Vec::new();
        let mut deadline = u64::MAX;
        for at in reached.low..self.answered.len() {
            let operation = &self.operations[self.answered[at]];
            if deadline < operation.invoked_at {
                break;
            }
            if let Some((answered_at, _)) = operation.answer()
                && !reached.beyond.contains(&at)
            {
                deadline = deadline.min(answered_at);
                options.push(Next::Answered(at));
            }
        }
        options.retain(|next| match next {
            Next::Answered(at) => self.operations[self.answered[*at]].invoked_at <= deadline,
            Next::Unknown(_) => true,
        });
        for (class, alike) in self.classes.iter().enumerate() {
            let next = alike.get(reached.used[class]).map(|at| &self.operations[*at]);
            if next.is_some_and(|next| next.invoked_at <= deadline) {
                options.push(Next::Unknown(class));
            }
        }
        let count = |reached: &Reached| reached.low + reached.beyond.len();
        if self.best.as_ref().is_none_or(|best| count(best) < count(&reached)) {
            self.best = Some(reached.clone());
        }
        Step { reached, options, tried: 0 }
    }

    /// Where that leads, if the model answers as was answered.
    fn follow(&self, mut reached: Reached, next: Next) -> Option<Reached> {
        match next {
            Next::Answered(at) => {
                let operation = &self.operations[self.answered[at]];
                let (_, seen) = operation.answer()?;
                if !reached.state.step(&operation.request).allows(seen) {
                    return None;
                }
                reached.beyond.insert(at);
                while reached.beyond.remove(&reached.low) {
                    reached.low += 1;
                }
            }
            Next::Unknown(class) => {
                let operation = self.classes[class].get(reached.used[class])?;
                let before = reached.state.clone();
                reached.state.step(&self.operations[*operation].request);
                // One that changes nothing may as well not have happened yet.
                if before == reached.state {
                    return None;
                }
                reached.used[class] += 1;
            }
        }
        self.facts.strip(&mut reached.state);
        Some(reached)
    }

    fn told(&self) -> Violation {
        let Some(best) = &self.best else {
            return Violation::of("no order was found", []);
        };
        let left = (best.low..self.answered.len()).filter(|at| !best.beyond.contains(at));
        let left: Vec<usize> = left.map(|at| self.answered[at]).collect();
        let deadline = left.iter().filter_map(|at| self.operations[*at].answer()).map(|(at, _)| at);
        let deadline = deadline.min().unwrap_or(u64::MAX);
        let mut why = format!(
            "of {} answered operations at most {} can be put in order; then the store holds ",
            self.answered.len(),
            self.answered.len() - left.len()
        );
        for (at, (key, held)) in best.state.items.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            why.push_str(&format!("{comma}{:?} = {:?}", key, held.value));
        }
        if best.state.items.is_empty() {
            why.push_str("nothing");
        }
        why.push_str(", and none of these can come next");
        let next = left.iter().map(|at| &self.operations[*at]);
        Violation::of(why, next.filter(|operation| operation.invoked_at <= deadline))
    }
}
