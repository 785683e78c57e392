//! Random histories of a store that is right, and the same with something wrong in them.

use quorate_types::Revision;

use super::brute;
use crate::model::State;
use crate::operation::{
    Action, Compare, Done, History, Operation, Outcome, Relation, Request, Response, Span, Target,
};
use crate::promises::{no_write_twice, revisions_never_go_back, serializable_reads};
use crate::verdict::{Verdict, linearizable, linearizable_within};
use crate::{revisions, search};

/// A small generator of chance (splitmix64).
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 33) as usize % bound
    }

    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// What a history is drawn from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) clients: usize,
    pub(super) operations: usize,
    pub(super) keys: usize,
    /// Of each value several writes, or one.
    pub(super) values: Option<usize>,
    pub(super) unknown_percent: usize,
    /// Only gets and puts; or deletes, ranges and transactions too.
    pub(super) is_plain: bool,
}

pub(super) fn request(chance: &mut Chance, shape: &Shape, number: usize, state: &State) -> Request {
    let key = |chance: &mut Chance| format!("k{}", chance.below(shape.keys));
    let put = |chance: &mut Chance, part: &str| {
        let value = match shape.values {
            Some(count) => format!("v{}", chance.below(count)),
            None => format!("v{number}{part}"),
        };
        Action::Put { key: key(chance).into(), value: value.into() }
    };
    let get = |chance: &mut Chance| Action::Range(Span::one(key(chance)));
    let kinds = if shape.is_plain { 6 } else { 10 };
    match chance.below(kinds) {
        0..3 => Request::of([get(chance)]),
        3..6 => Request::of([put(chance, "")]),
        6 => Request::delete(key(chance)),
        7 => Request::range("k0", "k9"),
        8 if chance.percent(30) => {
            Request::of([Action::Delete(Span { key: "k0".into(), end: Some("k2".into()) })])
        }
        _ => {
            let key = key(chance);
            let held = state.items.get(key.as_bytes());
            let target = match chance.below(4) {
                0 => Target::Value(held.map_or("v0".into(), |held| held.value.clone())),
                1 => Target::Version(held.map_or(0, |held| held.version)),
                2 => Target::Created(held.map_or(Revision(0), |held| held.created)),
                _ => Target::Modified(held.map_or(Revision(0), |held| held.modified)),
            };
            let relations = [Relation::Equal, Relation::Unequal, Relation::Greater, Relation::Less];
            let relation = relations[chance.below(8).saturating_sub(4)];
            let compare = Compare { key: key.into(), relation, target };
            let request = Request::of([put(chance, "a")]).provided(compare);
            match chance.below(3) {
                0 => request.or_else([get(chance)]),
                1 => request.or_else([put(chance, "b")]),
                _ => request,
            }
        }
    }
}

/// What a store that is right shows to clients whose requests overlap at random. An answer may come long
/// after the deed; a request of unknown outcome may be done at any time, or never.
pub(super) fn history(chance: &mut Chance, shape: &Shape) -> History {
    let mut store = State::default();
    let mut history = History::of([]);
    let mut idle: Vec<u64> = (0..shape.clients as u64).collect();
    // Asked and not yet done; done and not yet answered.
    let mut asked: Vec<usize> = Vec::new();
    let mut done: Vec<(usize, Response)> = Vec::new();
    let mut late: Vec<usize> = Vec::new();
    let mut now = 0;
    while history.operations.len() < shape.operations || !asked.is_empty() || !done.is_empty() {
        now += chance.below(2) as u64;
        match chance.below(7) {
            0 | 1 if !idle.is_empty() && history.operations.len() < shape.operations => {
                let client = idle.swap_remove(chance.below(idle.len()));
                let number = history.operations.len();
                let request = request(chance, shape, number, &store);
                history.operations.push(Operation::new(client, now, request));
                if chance.percent(shape.unknown_percent) {
                    late.push(number);
                    idle.push(client);
                } else {
                    asked.push(number);
                }
            }
            2 | 3 if !asked.is_empty() => {
                let at = asked.swap_remove(chance.below(asked.len()));
                let mut said = store.step(&history.operations[at].request);
                for done in &mut said.done {
                    if let Done::Put { previous } = done
                        && chance.percent(60)
                    {
                        *previous = None;
                    }
                }
                done.push((at, said));
            }
            4 | 5 if !done.is_empty() => {
                let (at, response) = done.swap_remove(chance.below(done.len()));
                idle.push(history.operations[at].client);
                history.operations[at].outcome = Outcome::Answered { at: now, response };
            }
            6 if !late.is_empty() => {
                let at = late.swap_remove(chance.below(late.len()));
                if chance.percent(60) {
                    store.step(&history.operations[at].request);
                }
            }
            _ => {}
        }
    }
    history
}

/// Makes one thing in the history another. What comes out may still be possible.
fn spoil(chance: &mut Chance, history: &mut History) {
    let mut at = chance.below(history.operations.len());
    if history.operations[at].answer().is_none() {
        at = chance.below(history.operations.len());
    }
    let others: Vec<Operation> = history.operations.clone();
    let operation = &mut history.operations[at];
    let Outcome::Answered { at: answered_at, response } = &mut operation.outcome else {
        operation.outcome = Outcome::Refused;
        return;
    };
    match chance.below(9) {
        0 => operation.outcome = Outcome::Unknown,
        1 => operation.outcome = Outcome::Refused,
        2 => {
            let by = 2 * chance.below(2) as u64;
            response.revision = response.revision.map(|it| Revision((it.0 + by).max(2) - 1));
        }
        3 => {
            let shift = chance.below(12) as u64;
            operation.invoked_at += shift;
            *answered_at += shift;
        }
        4 => {
            operation.invoked_at = operation.invoked_at.saturating_sub(3);
            *answered_at = operation.invoked_at.max(answered_at.saturating_sub(3));
        }
        5 => {
            // Another's answer to a request of the same form.
            let fitting = others.iter().filter_map(Operation::answer).map(|(_, it)| it);
            let fitting: Vec<_> = fitting.filter(|it| it.fits(&operation.request)).collect();
            *response = fitting[chance.below(fitting.len())].clone();
        }
        _ => {
            for done in &mut response.done {
                match done {
                    Done::Put { .. } => {}
                    Done::Deleted { count } => *count = 1 - (*count).min(1),
                    Done::Found { items } => {
                        if chance.percent(30) {
                            items.clear();
                        }
                        for item in items {
                            match chance.below(4) {
                                0 => item.value = format!("v{}", chance.below(3)).into(),
                                1 => item.version = item.version.map(|it| it + 1),
                                2 => item.modified = item.modified.map(|it| Revision(it.0 - 1)),
                                _ => item.created = item.created.map(|it| Revision(it.0 + 1)),
                            }
                        }
                    }
                }
            }
        }
    }
}

fn without_revisions(history: &History) -> History {
    let mut history = history.clone();
    for operation in &mut history.operations {
        if let Outcome::Answered { response, .. } = &mut operation.outcome {
            *response = response.clone().without_revisions();
        }
    }
    history
}

fn small(chance: &mut Chance) -> Shape {
    Shape {
        clients: 2 + chance.below(3),
        operations: 3 + chance.below(5),
        keys: 1 + chance.below(2),
        values: [None, Some(2)][chance.below(2)],
        unknown_percent: [0, 20, 50][chance.below(3)],
        is_plain: chance.percent(40),
    }
}

fn said(verdict: Verdict, history: &History) -> bool {
    match verdict {
        Verdict::Linearizable => true,
        Verdict::Violated(_) => false,
        Verdict::Undecided { .. } => panic!("undecided:\n{history}"),
    }
}

/// Small histories, right ones and spoilt ones: all three ways agree, in both directions.
#[test]
fn both_checkers_agree_with_every_order_there_is() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..30_000 {
        let mut chance = Chance(seed);
        let shape = small(&mut chance);
        let mut history = history(&mut chance, &shape);
        let is_spoilt = chance.percent(90);
        if is_spoilt {
            spoil(&mut chance, &mut history);
        }
        let want = brute::linearizable(&history);
        assert!(want || is_spoilt, "seed {seed}: the generator is right\n{history}");
        for (name, verdict) in [
            ("revisions", revisions::judge(&history, u64::MAX)),
            ("search", search::judge(&history, u64::MAX)),
            ("both", linearizable(&history)),
        ] {
            assert_eq!(said(verdict, &history), want, "seed {seed}, {name}:\n{history}");
        }
        let bare = without_revisions(&history);
        let bare_want = brute::linearizable(&bare);
        assert!(bare_want || !want, "seed {seed}: less is known");
        let got = said(search::judge(&bare, u64::MAX), &bare);
        assert_eq!(got, bare_want, "seed {seed}, without revisions:\n{bare}");
        *(if want { &mut good } else { &mut bad }) += 1;
    }
    assert!(5000 < good && 5000 < bad, "{good} good ones, {bad} bad ones");
}

#[test]
fn what_a_right_store_shows_breaks_no_promise() {
    for seed in 0..300 {
        let mut chance = Chance(seed);
        let shape = Shape {
            clients: 2 + chance.below(10),
            operations: 300,
            keys: 1 + chance.below(5),
            values: [None, Some(3)][chance.below(2)],
            unknown_percent: [0, 5, 20][chance.below(3)],
            is_plain: chance.percent(50),
        };
        let history = history(&mut chance, &shape);
        assert_eq!(linearizable(&history), Verdict::Linearizable, "seed {seed}, {shape:?}");
        for promise in [no_write_twice, revisions_never_go_back, serializable_reads] {
            assert_eq!(promise(&history), Ok(()), "seed {seed}, {shape:?}");
        }
    }
}

#[test]
fn a_long_history_is_decided() {
    for (clients, keys, is_plain) in [(20, 5, true), (20, 5, false), (8, 1, false), (50, 30, false)]
    {
        let mut chance = Chance(7);
        let operations = 10_000;
        let shape = Shape { clients, operations, keys, values: None, unknown_percent: 5, is_plain };
        let mut history = history(&mut chance, &shape);
        assert_eq!(linearizable(&history), Verdict::Linearizable, "{shape:?}");
        // Somebody in the second half sees what was replaced long ago.
        let stale = history.operations.iter().find_map(|it| {
            let (_, response) = it.answer()?;
            let items = response.items().count();
            (it.request.is_read()
                && 1 == items
                && response.fits(&Request::get("k0"))
                && it.request == Request::get("k0"))
            .then(|| response.clone())
        });
        let late = history.operations[5000..]
            .iter_mut()
            .find(|it| it.request == Request::get("k0") && it.answer().is_some());
        if let (Some(stale), Some(late)) = (stale, late)
            && let Outcome::Answered { response, .. } = &mut late.outcome
        {
            let now = response.revision;
            *response = Response { revision: now, ..stale };
        }
        let Verdict::Violated(violation) = linearizable(&history) else {
            panic!("a stale read in {shape:?}")
        };
        assert!(violation.operations.len() < 6, "few operations tell it: {violation}");
    }
}

#[test]
fn a_checker_without_time_says_that_it_has_shown_nothing() {
    let mut chance = Chance(1);
    let shape = Shape {
        clients: 5,
        operations: 100,
        keys: 2,
        values: None,
        unknown_percent: 20,
        is_plain: false,
    };
    let history = history(&mut chance, &shape);
    for history in [without_revisions(&history), history] {
        let verdict = linearizable_within(&history, 3);
        assert!(matches!(verdict, Verdict::Undecided { .. }), "{verdict:?}");
    }
}
