//! Orders a history by the revisions in its answers.
//!
//! Each change makes the revision one greater, and every answer says at which revision it was given.
//! So the place of each answered operation is known: a change stands at its revision, what changed
//! nothing stands behind the change of its revision. What is left to find out:
//!
//! 1. Do the places agree with real time? For places `a < b`, `a` must have been asked by the time `b`
//!    was answered. One pass with the latest request so far decides this.
//! 2. Which request of unknown outcome made each revision that no answer claims (a *gap*)? One that
//!    was asked before all that stands behind the gap was answered.
//! 3. Does the model, taken through all places, give the answers that were given?
//!
//! Steps 2 and 3 are one search over the gaps, in `gaps.rs`.

mod evidence;
mod gaps;

use quorate_types::Revision;

use crate::operation::{Action, History, Operation, Request, Response};
use crate::verdict::{Verdict, Violation};

/// All that stands at one revision.
#[derive(Clone, Debug, Default)]
struct Place {
    /// The change that made it, if its answer is known.
    writer: Option<usize>,
    /// What was answered at this revision and changed nothing.
    readers: Vec<usize>,
    /// When the first of those behind the change was answered.
    deadline: u64,
}

/// The history laid out along its revisions.
struct Line<'a> {
    history: &'a History,
    /// The place of revision `initial + n` at `n`.
    places: Vec<Place>,
    /// Requests of unknown outcome that may have changed something, by when they were asked.
    unknown: Vec<usize>,
}

pub(crate) fn judge(history: &History, work_max: u64) -> Verdict {
    match Line::lay(history).and_then(|line| line.in_time().map(|()| line)) {
        Err(violation) => Verdict::Violated(violation),
        Ok(line) => gaps::fill(&line, work_max),
    }
}

impl<'a> Line<'a> {
    /// Puts every answered operation into its place.
    fn lay(history: &'a History) -> Result<Line<'a>, Violation> {
        let operations = &history.operations;
        let mut unknown: Vec<usize> =
            (0..operations.len()).filter(|at| operations[*at].may_have_changed()).collect();
        unknown.sort_by_key(|at| operations[*at].invoked_at);
        let made = operations.iter().filter(|operation| operation.made().is_some()).count();
        let mut line = Line { history, places: vec![Place::default()], unknown };
        for (at, operation) in operations.iter().enumerate() {
            let Some((_, response)) = operation.answer() else { continue };
            let Some(revision) = response.revision else { continue };
            let offset = revision.0.checked_sub(line.first()).map(usize::try_from);
            // Checked before it is used as a size.
            let Some(Ok(offset)) = offset else {
                let why = format!("revision {revision} is before the first, {}", line.first());
                return Err(Violation::of(why, [operation]));
            };
            let most = made + line.unknown.len();
            if most < offset {
                let why = format!("revision {revision}, but at most {most} changes were made");
                return Err(Violation::of(why, [operation]));
            }
            if line.places.len() <= offset {
                line.places.resize(offset + 1, Place::default());
            }
            let place = &mut line.places[offset];
            if operation.made().is_none() {
                place.readers.push(at);
            } else if let Some(other) = place.writer.replace(at) {
                let why = format!("two changes made revision {revision}");
                return Err(Violation::of(why, [&operations[other], operation]));
            } else if offset == 0 {
                let why = format!("a change made revision {revision}, which was there before");
                return Err(Violation::of(why, [operation]));
            }
        }
        let mut deadline = u64::MAX;
        for place in line.places.iter_mut().rev() {
            let readers = place.readers.iter().map(|at| operations[*at].answered_at());
            deadline = readers.min().unwrap_or(u64::MAX).min(deadline);
            place.deadline = deadline;
            if let Some(writer) = place.writer {
                deadline = deadline.min(operations[writer].answered_at());
            }
        }
        Ok(line)
    }

    /// Whether whatever stands before something else was asked before that was answered.
    fn in_time(&self) -> Result<(), Violation> {
        let operations = &self.history.operations;
        // The latest request so far: of all that count for real time, and of changes alone.
        let mut latest: Option<usize> = None;
        let mut latest_change: Option<usize> = None;
        let later = |one: Option<usize>, other: usize| {
            let is_later =
                one.is_none_or(|one| operations[one].invoked_at < operations[other].invoked_at);
            if is_later { Some(other) } else { one }
        };
        for place in &self.places {
            if let Some(writer) = place.writer {
                self.not_before(latest, writer)?;
                latest = later(latest, writer);
                latest_change = later(latest_change, writer);
            }
            let before = latest;
            for reader in &place.readers {
                if operations[*reader].request.serializable {
                    self.not_before(latest_change, *reader)?;
                } else {
                    self.not_before(before, *reader)?;
                    latest = later(latest, *reader);
                }
            }
        }
        let gaps = self.gaps();
        for (count, gap) in gaps.iter().enumerate() {
            // What may fill a gap may fill every later one too, so the earliest requests decide.
            let last = self.unknown.get(count).map(|at| operations[*at].invoked_at);
            if last.is_none_or(|asked| self.places[*gap].deadline < asked) {
                return Err(self.nobody_made(*gap));
            }
        }
        Ok(())
    }

    fn not_before(&self, earlier: Option<usize>, later: usize) -> Result<(), Violation> {
        let Some(earlier) = earlier.map(|at| &self.history.operations[at]) else { return Ok(()) };
        let later = &self.history.operations[later];
        if earlier.invoked_at <= later.answered_at() {
            return Ok(());
        }
        let revision = |operation: &Operation| operation.revision().map_or(0, |it| it.0);
        let why = format!(
            "the one of revision {} was answered before the one of revision {} was asked, and yet \
             comes after it",
            revision(later),
            revision(earlier)
        );
        Err(Violation::of(why, [later, earlier]))
    }

    /// That no request is there which could have made the revision of this gap.
    fn nobody_made(&self, gap: usize) -> Violation {
        let after = self.places[gap].readers.first().copied();
        let after = after.or_else(|| {
            let behind = self.places[gap + 1..].iter();
            behind.flat_map(|place| place.writer.into_iter().chain(place.readers.clone())).next()
        });
        let why = format!(
            "revision {} was made by something that nobody had asked for when this was answered",
            self.revision(gap)
        );
        Violation::of(why, after.map(|at| &self.history.operations[at]))
    }

    /// The operations that wrote what an answer showed, or what it should have shown.
    fn around(&self, operation: usize, said: &Response) -> Vec<usize> {
        let seen = self.history.operations[operation].answer().map(|(_, response)| response);
        let items = || seen.into_iter().chain([said]).flat_map(Response::items);
        let wrote = |request: &Request| {
            request.actions().any(|action| match action {
                Action::Put { key, value } => {
                    items().any(|item| item.key == *key && item.value == *value)
                }
                Action::Delete(_) | Action::Range(_) => false,
            })
        };
        let operations = self.history.operations.iter().enumerate();
        operations.filter(|(_, other)| wrote(&other.request)).map(|(at, _)| at).collect()
    }

    fn first(&self) -> u64 {
        self.history.initial.revision.0
    }

    fn revision(&self, offset: usize) -> Revision {
        Revision(self.first() + offset as u64)
    }

    /// The places whose change no answer claims.
    fn gaps(&self) -> Vec<usize> {
        (1..self.places.len()).filter(|at| self.places[*at].writer.is_none()).collect()
    }
}

impl Operation {
    fn may_have_changed(&self) -> bool {
        self.is_unknown() && !self.request.is_read()
    }

    fn answered_at(&self) -> u64 {
        self.answer().map_or(u64::MAX, |(at, _)| at)
    }

    fn revision(&self) -> Option<Revision> {
        self.answer()?.1.revision
    }
}
