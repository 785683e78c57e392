//! The smaller promises, one checker each. They share no code with the search for an order: they walk
//! over what was acknowledged and what was shown, and need neither the model nor a guess.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_types::Revision;

use crate::operation::{Action, Done, History, Item, Operation};
use crate::verdict::Violation;

/// What one member holds when all is over and it has caught up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Final {
    /// The member's name, for the report.
    pub member: String,
    /// Its revision.
    pub revision: Revision,
    /// All of its keys.
    pub items: Vec<Item>,
}

/// What was acknowledged is there at the end: each key as its last acknowledged write left it, at that
/// revision, or as a later request of unknown outcome did; and nothing that nobody wrote.
///
/// Misses what a later acknowledged write hides: a lost write to a key that was written again.
///
/// # Errors
///
/// The first key that breaks this.
pub fn acknowledged_survive(history: &History, end: &Final) -> Result<(), Violation> {
    let writes = Writes::of(history);
    let member = &end.member;
    let broken = |why: String, operations: &[&Operation]| {
        Err(Violation::of(format!("at the end {member} {why}"), operations.iter().copied()))
    };
    for operation in &history.operations {
        let seen = operation.answer().and_then(|(_, response)| response.revision);
        if seen.is_some_and(|seen| end.revision < seen) {
            return broken(format!("is at revision {}", end.revision), &[operation]);
        }
    }
    let items: BTreeMap<&Bytes, &Item> = end.items.iter().map(|item| (&item.key, item)).collect();
    for (key, acknowledged) in &writes.acknowledged {
        let Some((revision, (value, operation))) = acknowledged.last_key_value() else { continue };
        match items.get(key) {
            None if writes.may_be_deleted(key, *revision, None) => {}
            None => return broken("lacks what was acknowledged".to_owned(), &[operation]),
            Some(item) => {
                let modified = item.modified.unwrap_or(end.revision);
                if modified < *revision {
                    return broken(format!("holds the older {item}"), &[operation]);
                }
                if modified == *revision && item.value != **value {
                    return broken(format!("holds another value, {item}"), &[operation]);
                }
            }
        }
    }
    for item in &end.items {
        let acknowledged = writes.acknowledged.get(&item.key);
        let at = |revision| acknowledged.and_then(|writes| writes.get(&revision));
        let was_there = history.initial.items.get(&item.key).is_some_and(|held| {
            held.value == item.value && item.modified.is_none_or(|it| it == held.modified)
        });
        let is_acknowledged = match item.modified {
            Some(modified) => at(modified).is_some_and(|(value, _)| **value == item.value),
            None => acknowledged.is_some_and(|it| it.values().any(|it| *it.0 == item.value)),
        };
        let deleted = item.modified.and_then(|modified| writes.deleted_after(&item.key, modified));
        if let Some(delete) = deleted {
            return broken(format!("holds what was deleted: {item}"), &[delete]);
        }
        let is_possible = writes.unknown.contains_key(&(&item.key, &item.value));
        if !was_there && !is_acknowledged && !is_possible {
            return broken(format!("holds what nobody wrote so: {item}"), &[]);
        }
    }
    Ok(())
}

/// A value that one request wrote is shown with one revision only: the one that was acknowledged.
///
/// Misses a second time that nobody saw, and values that several requests write.
///
/// # Errors
///
/// The first value that was shown at two revisions.
pub fn no_write_twice(history: &History) -> Result<(), Violation> {
    let mut writers: BTreeMap<(&Bytes, &Bytes), Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        for action in operation.request.actions() {
            if let Action::Put { key, value } = action {
                writers.entry((key, value)).or_default().push(operation);
            }
        }
    }
    let mut shown: BTreeMap<(&Bytes, &Bytes), (Revision, &Operation)> = BTreeMap::new();
    for (value, writers) in &writers {
        if let [writer] = **writers
            && let Some(made) = writer.made()
        {
            shown.insert(*value, (made, writer));
        }
    }
    for operation in &history.operations {
        for item in items(operation) {
            let value = (&item.key, &item.value);
            let (Some([_]), Some(modified)) =
                (writers.get(&value).map(Vec::as_slice), item.modified)
            else {
                continue;
            };
            let (first, by) = *shown.entry(value).or_insert((modified, operation));
            if first != modified {
                let why = format!("one write was done twice, at revisions {first} and {modified}");
                return Err(Violation::of(why, [by, operation]));
            }
        }
    }
    Ok(())
}

/// What a client is told of revisions never goes back, and each change of its own makes a new one.
/// Serializable reads are not meant.
///
/// Misses whatever happens between clients.
///
/// # Errors
///
/// The first answer that goes back.
pub fn revisions_never_go_back(history: &History) -> Result<(), Violation> {
    let counted = |operation: &&Operation| !operation.request.serializable;
    let by_client = |operation: &Operation| Some(operation.client);
    each_after_the_other(history.operations.iter().filter(counted), by_client, |before, after| {
        let (Some(older), Some(newer)) = (revision(before), revision(after)) else { return Ok(()) };
        if newer < older {
            let why = format!("a client was at revision {older}, and then at {newer}");
            return Err(Violation::of(why, [before, after]));
        }
        if newer == older && after.made().is_some() {
            return Err(Violation::of("a change made no new revision", [before, after]));
        }
        Ok(())
    })
}

/// Reads show states that existed: no key in an answer is older than the last write that was
/// acknowledged up to the answer's revision, or newer than that revision. And what one member (in one
/// life) answers never goes back.
///
/// Misses how old an answer is: a serializable read may be as old as it likes.
///
/// # Errors
///
/// The first read that shows something else.
pub fn serializable_reads(history: &History) -> Result<(), Violation> {
    let writes = Writes::of(history);
    for operation in history.operations.iter().filter(|it| it.request.is_read()) {
        writes.existed(operation)?;
    }
    // Reads alone are held against all answers of their member: what it told it has.
    each_after_the_other(
        &history.operations,
        |it| it.member,
        |before, after| {
            let (Some(older), Some(newer)) = (revision(before), revision(after)) else {
                return Ok(());
            };
            if newer < older {
                let why = format!("a member was at revision {older}, and then at {newer}");
                return Err(Violation::of(why, [before, after]));
            }
            Ok(())
        },
    )
}

fn revision(operation: &Operation) -> Option<Revision> {
    operation.answer()?.1.revision
}

fn items(operation: &Operation) -> impl Iterator<Item = &Item> {
    operation.answer().into_iter().flat_map(|(_, response)| response.items())
}

/// Calls `check` for each answered operation and the one of highest revision among those of the same
/// `group` that were answered before it was asked.
fn each_after_the_other<'a>(
    operations: impl IntoIterator<Item = &'a Operation>,
    group: impl Fn(&Operation) -> Option<u64>,
    check: impl Fn(&Operation, &Operation) -> Result<(), Violation>,
) -> Result<(), Violation> {
    // Time, then requests before answers: what touches has overlapped.
    let mut moments: Vec<(u64, bool, u64, &Operation)> = Vec::new();
    for operation in operations {
        if let (Some((at, _)), Some(group)) = (operation.answer(), group(operation)) {
            moments.push((operation.invoked_at, false, group, operation));
            moments.push((at, true, group, operation));
        }
    }
    moments.sort_by_key(|(time, is_answer, ..)| (*time, *is_answer));
    let mut highest: BTreeMap<u64, &Operation> = BTreeMap::new();
    for (_, is_answer, group, operation) in moments {
        if !is_answer {
            if let Some(before) = highest.get(&group) {
                check(before, operation)?;
            }
        } else if highest.get(&group).is_none_or(|it| revision(it) < revision(operation)) {
            highest.insert(group, operation);
        }
    }
    Ok(())
}

/// Who wrote what.
struct Writes<'a> {
    /// By key and revision: value and operation.
    acknowledged: BTreeMap<&'a Bytes, BTreeMap<Revision, (&'a Bytes, &'a Operation)>>,
    /// Values that requests of unknown outcome may have written.
    unknown: BTreeMap<(&'a Bytes, &'a Bytes), &'a Operation>,
    /// Those that have deleted something, or may have.
    deletes: Vec<&'a Operation>,
}

impl<'a> Writes<'a> {
    fn of(history: &'a History) -> Writes<'a> {
        let (acknowledged, unknown) = (BTreeMap::new(), BTreeMap::new());
        let mut writes = Writes { acknowledged, unknown, deletes: Vec::new() };
        for operation in &history.operations {
            let actions: Vec<&Action> = match operation.answer() {
                Some((_, response)) => {
                    operation.request.branch(response.succeeded).iter().collect()
                }
                None if operation.is_unknown() => operation.request.actions().collect(),
                None => continue,
            };
            if actions.iter().any(|action| matches!(action, Action::Delete(_))) {
                writes.deletes.push(operation);
            }
            for action in actions {
                let Action::Put { key, value } = action else { continue };
                if let Some(made) = operation.made() {
                    let of_key = writes.acknowledged.entry(key).or_default();
                    of_key.insert(made, (value, operation));
                } else {
                    // Unknown, or done at a revision that was not told.
                    writes.unknown.insert((key, value), operation);
                }
            }
        }
        writes
    }

    /// Whether something may have removed the key after one revision and up to another.
    fn may_be_deleted(&self, key: &[u8], after: Revision, until: Option<Revision>) -> bool {
        self.deletes.iter().any(|operation| {
            let is_meant = operation.request.actions().any(|action| match action {
                Action::Delete(span) => span.has(key),
                Action::Put { .. } | Action::Range(_) => false,
            });
            let is_then = match (operation.made(), operation.answer()) {
                (Some(made), _) => after < made && until.is_none_or(|until| made <= until),
                // It is known to have found nothing.
                (None, Some((_, response))) => response.revision.is_none(),
                (None, None) => true,
            };
            is_meant && is_then
        })
    }

    /// An acknowledged delete of that key alone after that revision.
    fn deleted_after(&self, key: &[u8], revision: Revision) -> Option<&'a Operation> {
        let is_it = |operation: &&&Operation| {
            let one = |action: &Action| matches!(action, Action::Delete(it) if it.end.is_none() && it.has(key));
            operation.made().is_some_and(|made| revision < made)
                && operation.request.compares.is_empty()
                && matches!(&*operation.request.then, [action] if one(action))
        };
        self.deletes.iter().find(is_it).copied()
    }

    fn existed(&self, read: &Operation) -> Result<(), Violation> {
        let Some((_, response)) = read.answer() else { return Ok(()) };
        let Some(at) = response.revision else { return Ok(()) };
        for item in response.items() {
            let Some(modified) = item.modified else { continue };
            if at < modified {
                return Err(Violation::of("it shows something newer than its revision", [read]));
            }
            let Some(acknowledged) = self.acknowledged.get(&item.key) else { continue };
            if let Some((_, (_, newer))) = acknowledged.range(modified..=at).next_back()
                && newer.made() != Some(modified)
            {
                let why = "it shows something that was replaced by its revision";
                return Err(Violation::of(why, [newer, read]));
            }
        }
        for (action, done) in read.request.branch(response.succeeded).iter().zip(&response.done) {
            let (Action::Range(span), Done::Found { items }) = (action, done) else { continue };
            let of_span = self.acknowledged.iter().filter(|(key, _)| span.has(key));
            for (key, writes) in of_span {
                if items.iter().any(|item| item.key == **key) {
                    continue;
                }
                if let Some((made, (_, write))) = writes.range(..=at).next_back()
                    && !self.may_be_deleted(key, *made, Some(at))
                {
                    let why = format!("it lacks {key:?}, which was there at its revision");
                    return Err(Violation::of(why, [*write, read]));
                }
            }
        }
        Ok(())
    }
}
