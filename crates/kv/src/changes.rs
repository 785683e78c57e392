//! History in the order in which it was made: what watchers are told.
//!
//! Changes come in whole revisions and bounded steps. The latest are in memory (`recent.rs`); older
//! ones are read from wherever their rows are, outside the lock.

use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_types::bug;

use crate::backend::Table;
use crate::error::{KvError, StoreError};
use crate::response::KeyValue;
use crate::revision::Revision;
use crate::row::{self, Row};
use crate::sealed;
use crate::state::Rows;
use crate::store::Store;

/// How much a step may bring. A single revision comes whole, however large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) revisions_max: usize,
    pub(crate) bytes_max: usize,
}

/// The changes after some revision, or why there are none.
#[derive(Debug)]
pub(crate) enum Changes {
    /// Those up to and with `through`, oldest first; `current` is the latest of all.
    Found { rows: Vec<(Revision, Row)>, through: i64, current: i64 },
    /// The first of them is gone: only those from here on are known.
    Compacted(i64),
}

/// Rows on their way into a step.
struct Step {
    limits: Limits,
    rows: Vec<(Revision, Bytes)>,
    revisions: usize,
    bytes: usize,
}

impl Step {
    /// Takes a row; breaks off, and leaves it, if it begins a revision that has no room any more.
    fn take(&mut self, revision: Revision, row: &[u8]) -> ControlFlow<()> {
        self.take_shared(revision, || Bytes::copy_from_slice(row))
    }

    fn take_shared(&mut self, revision: Revision, row: impl FnOnce() -> Bytes) -> ControlFlow<()> {
        let last = self.rows.last().map(|(last, _)| last.main);
        if last != Some(revision.main) {
            if self.limits.revisions_max <= self.revisions || self.limits.bytes_max <= self.bytes {
                return ControlFlow::Break(());
            }
            self.revisions += 1;
        }
        let row = row();
        self.bytes += row.len();
        self.rows.push((revision, row));
        ControlFlow::Continue(())
    }

    fn last(&self) -> i64 {
        self.rows.last().map_or(0, |(last, _)| last.main)
    }

    fn decoded(self) -> Result<Vec<(Revision, Row)>, StoreError> {
        let decode = |(revision, bytes): (Revision, Bytes)| {
            let row = row::decode(revision, bytes);
            row.map(|row| (revision, row)).map_err(|error| {
                StoreError::Damaged(format!("at {}.{}: {error}", revision.main, revision.sub))
            })
        };
        self.rows.into_iter().map(decode).collect()
    }
}

impl Store {
    /// The current revision and the compacted one.
    pub(crate) fn marks(&self) -> (i64, i64) {
        let state = self.any_state();
        (state.meta.revision, state.meta.compacted)
    }

    /// What was changed after `revision`, a step of it.
    pub(crate) fn changes_after(&self, revision: i64, limits: Limits) -> Result<Changes, KvError> {
        let mut step = Step { limits, rows: Vec::new(), revisions: 0, bytes: 0 };
        let state = self.state()?;
        let current = state.meta.revision;
        let mut end = current;
        let taken = if let Some(recent) = state.recent.after(revision) {
            take_all(&mut step, recent)
        } else if bug!("only-recent-changes-are-told") {
            ControlFlow::Continue(())
        } else if revision + 1 < state.meta.compacted {
            return Ok(Changes::Compacted(state.meta.compacted));
        } else if state.overlay.first().is_some_and(|first| first.main <= revision + 1) {
            let rows = state.overlay.rows().skip_while(|(row, _)| row.main <= revision);
            take_all(&mut step, rows)
        } else {
            // What is in the overlay comes with the next step.
            end = state.overlay.first().map_or(current, |first| first.main - 1);
            let rows = state.rows();
            drop(state);
            take_stored(&mut step, revision, &rows).map_err(|error| self.failed_read(error))?
        };
        let through = if taken.is_break() { step.last() } else { end };
        let rows = step.decoded().map_err(|error| self.failed_read(error))?;
        Ok(Changes::Found { rows, through, current })
    }

    /// The pairs of these keys as they were just before these revisions, where that is still known.
    pub(crate) fn pairs_before(
        &self,
        places: &[(Bytes, i64)],
    ) -> Result<Vec<Option<KeyValue>>, KvError> {
        let state = self.state()?;
        let compacted = state.meta.compacted;
        let found: Vec<_> = places
            .iter()
            .map(|(key, main)| {
                let before = main - i64::from(!bug!("the-pair-before-is-the-one-after"));
                let is_known = compacted <= before;
                let stamp = is_known.then(|| state.index.at(key, before)).flatten()?;
                Some((stamp, state.overlay.row(stamp.revision).cloned()))
            })
            .collect();
        let rows = state.rows();
        drop(state);
        found
            .into_iter()
            .map(|found| found.map(|(stamp, row)| rows.pair(&stamp, row)).transpose())
            .collect::<Result<_, _>>()
            .map_err(|error| self.failed_read(error))
    }
}

fn take_all<'a>(
    step: &mut Step,
    mut rows: impl Iterator<Item = &'a (Revision, Bytes)>,
) -> ControlFlow<()> {
    rows.try_for_each(|(revision, row)| step.take_shared(*revision, || row.clone()))
}

/// Takes rows after `revision` that are in storage or being flushed: two places, never both.
fn take_stored(step: &mut Step, revision: i64, rows: &Rows) -> Result<ControlFlow<()>, StoreError> {
    let from = Revision { main: revision + 1, sub: 0 };
    let mut outcome = Ok(ControlFlow::Continue(()));
    sealed::scan(rows.view(), Table::Key, &from.to_key(), |key, row| {
        match Revision::from_key(key) {
            Some(revision) => {
                let taken = step.take(revision, row);
                outcome = Ok(taken);
                taken
            }
            None => {
                outcome = Err(StoreError::Damaged("a row without a revision".to_owned()));
                ControlFlow::Break(())
            }
        }
    })?;
    if outcome.as_ref().is_ok_and(ControlFlow::is_continue)
        && let Some(flushing) = rows.flushing()
    {
        let rows = flushing.rows().skip_while(|(row, _)| row.main <= revision);
        outcome = Ok(take_all(step, rows));
    }
    outcome
}
