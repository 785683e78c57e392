//! How much memory an answer may take, and all answers under way together: a short request can ask for
//! the whole state many times over, and many can do so at a time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::KvError;

/// An answer to one range takes no more. Nothing longer could be sent: the wire format ends here.
pub const RANGE_ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// An answer to a transaction, or to anything else that changes the state, takes no more in all of
/// its parts.
pub const CHANGE_ANSWER_BYTES_MAX: usize = 128 << 20;

/// So much of each answer is not counted against what all may take together: most are smaller, cost
/// nothing but a comparison, and take no more than the call itself does.
pub const FREE_ANSWER_BYTES: usize = 8 << 10;

/// A long answer takes room in steps of at least so much.
const STEP_BYTES: usize = 64 << 10;

/// Why a read that shares room with others has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Others have taken the room. There may be some later.
    #[error(
        "others have taken the room for long answers; this one needs {needed_bytes} bytes of it"
    )]
    Crowded {
        /// As much of the room as it needs, or less: the read went no further.
        needed_bytes: usize,
    },
    /// It would have none with all the room there is.
    #[error(transparent)]
    Refused(#[from] KvError),
}

impl From<Unanswered> for KvError {
    fn from(unanswered: Unanswered) -> KvError {
        match unanswered {
            Unanswered::Crowded { .. } => KvError::RequestTooManyRequests,
            Unanswered::Refused(refused) => refused,
        }
    }
}

/// Memory that all long answers under way share. Each draws on it as it grows.
pub struct AnswerRoom {
    bytes_max: usize,
    left_bytes: AtomicUsize,
    freed: Box<dyn Fn() + Send + Sync>,
}

impl AnswerRoom {
    /// Room for so much.
    pub fn new(bytes_max: usize) -> Arc<AnswerRoom> {
        AnswerRoom::telling(bytes_max, || ())
    }

    /// Room for so much. `freed` is called whenever some of it was given back, by whoever gives it: it
    /// must be quick.
    pub fn telling(bytes_max: usize, freed: impl Fn() + Send + Sync + 'static) -> Arc<AnswerRoom> {
        let left_bytes = AtomicUsize::new(bytes_max);
        Arc::new(AnswerRoom { bytes_max, left_bytes, freed: Box::new(freed) })
    }

    /// How much of it is free.
    pub fn left_bytes(&self) -> usize {
        self.left_bytes.load(Ordering::Relaxed)
    }

    /// Takes room for an answer of this length, as long as what is returned is kept; nothing if there
    /// is none.
    pub fn draw(self: &Arc<Self>, answer_bytes: usize) -> Option<Drawn> {
        let mut drawn = Drawn { room: Arc::clone(self), bytes: 0 };
        let is_there = drawn.holds(answer_bytes);
        drawn.shrink(answer_bytes);
        is_there.then_some(drawn)
    }

    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        self.left_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        if 0 < bytes {
            self.left_bytes.fetch_add(bytes, Ordering::Relaxed);
            (self.freed)();
        }
    }
}

impl fmt::Debug for AnswerRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = f.debug_struct("AnswerRoom");
        room.field("bytes_max", &self.bytes_max).field("left_bytes", &self.left_bytes);
        room.finish_non_exhaustive()
    }
}

/// Room that an answer has taken. Given back when it is dropped.
#[derive(Debug)]
pub struct Drawn {
    room: Arc<AnswerRoom>,
    bytes: usize,
}

impl Drawn {
    /// What it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether others may soon find no room: less than a quarter of it is left.
    pub fn is_crowded(&self) -> bool {
        self.room.left_bytes() < self.room.bytes_max / 4
    }

    /// Whether there is room for an answer that has grown to this length, which is then taken.
    fn holds(&mut self, answer_bytes: usize) -> bool {
        let lacking = answer_bytes.saturating_sub(FREE_ANSWER_BYTES).saturating_sub(self.bytes);
        if lacking == 0 {
            return true;
        }
        // A whole step, or what is needed if that is all there is.
        for bytes in [lacking.max(STEP_BYTES), lacking] {
            if self.room.take(bytes) {
                self.bytes += bytes;
                return true;
            }
        }
        false
    }

    /// Keeps no more than an answer of this length needs.
    pub fn shrink(&mut self, answer_bytes: usize) {
        let needed = answer_bytes.saturating_sub(FREE_ANSWER_BYTES).min(self.bytes);
        let spare = self.bytes - needed;
        self.bytes = needed;
        self.room.give_back(spare);
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

/// What one answer may still take. Once it would have taken more, it is spent for good.
#[derive(Debug)]
pub(crate) struct Allowance {
    used_bytes: usize,
    bytes_max: usize,
    spent: bool,
    /// What it has of the room that it shares with others, if it does.
    drawn: Option<Drawn>,
    /// As much of that room as it would have needed, once others have left it too little.
    lacked_bytes: Option<usize>,
}

impl Allowance {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Allowance { used_bytes: 0, bytes_max, spent: false, drawn: None, lacked_bytes: None }
    }

    /// For an answer that shares room with others.
    pub(crate) fn within(bytes_max: usize, room: &Arc<AnswerRoom>) -> Self {
        // More than there is at all is too much, and no matter of waiting.
        let bytes_max = bytes_max.min(room.bytes_max.saturating_add(FREE_ANSWER_BYTES));
        let drawn = Some(Drawn { room: Arc::clone(room), bytes: 0 });
        Allowance { drawn, ..Allowance::new(bytes_max) }
    }

    /// For an answer that nobody waits for: nothing may be read for it.
    pub(crate) fn none() -> Self {
        Allowance { spent: true, ..Allowance::new(0) }
    }

    /// If it is spent only because of what others have taken: how much room it would have needed when
    /// it was.
    pub(crate) fn lacked_bytes(&self) -> Option<usize> {
        self.lacked_bytes
    }

    /// What it has taken of the room that it shares, without what it gave back.
    pub(crate) fn into_drawn(mut self) -> Option<Drawn> {
        if let Some(drawn) = &mut self.drawn {
            drawn.shrink(self.used_bytes);
        }
        self.drawn
    }

    /// Whether there is room for this much, which is then taken.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        self.spent |= self.bytes_max - self.used_bytes < bytes;
        if !self.spent
            && let Some(drawn) = &mut self.drawn
            && !drawn.holds(self.used_bytes + bytes)
        {
            self.spent = true;
            self.lacked_bytes = Some(self.used_bytes + bytes - FREE_ANSWER_BYTES);
        }
        if !self.spent {
            self.used_bytes += bytes;
        }
        !self.spent
    }

    /// What was taken and is free again. What is spent stays so.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        assert!(bytes <= self.used_bytes, "only what was taken comes back");
        self.used_bytes -= bytes;
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.spent
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_stays_spent() {
        let mut allowance = Allowance::new(10);
        let takes = [(4, true), (6, true), (0, true), (1, false), (0, false)];
        for (bytes, want) in takes {
            assert_eq!(allowance.take(bytes), want, "{bytes}");
        }
        assert_eq!((allowance.used_bytes(), allowance.is_spent()), (10, true));
        assert!(!Allowance::none().take(0));
        let mut allowance = Allowance::new(10);
        assert!(allowance.take(10));
        allowance.give_back(4);
        assert!(allowance.take(4) && !allowance.take(1));
    }

    #[test]
    fn long_answers_share_one_room_and_give_it_back() {
        let mib = 1 << 20;
        let room = AnswerRoom::new(3 * mib);
        let mut first = Allowance::within(usize::MAX, &room);
        assert!(first.take(FREE_ANSWER_BYTES));
        assert_eq!(room.left_bytes(), 3 * mib, "a short one takes none");
        assert!(first.take(1) && first.take(mib - 1));
        assert_eq!(room.left_bytes(), 2 * mib, "in steps, and no more than it needs");
        let mut second = Allowance::within(usize::MAX, &room);
        assert!(second.take(2 * mib) && second.take(FREE_ANSWER_BYTES));
        assert_eq!(room.left_bytes(), 0);
        assert!(!first.take(1) && first.is_spent());
        assert_eq!(first.lacked_bytes(), Some(mib + 1), "what it has, and what it asked for");
        assert!(room.draw(FREE_ANSWER_BYTES).is_some() && room.draw(mib).is_none());
        drop(second);
        assert_eq!(room.left_bytes(), 2 * mib);
        assert!(!first.take(1), "what is spent stays spent");
        assert_eq!(first.into_drawn().map(|drawn| drawn.bytes()), Some(mib));
        assert_eq!(room.left_bytes(), 3 * mib);
        // What would never fit waits for nobody.
        let mut long = Allowance::within(usize::MAX, &room);
        assert!(!long.take(4 * mib) && long.is_spent() && long.lacked_bytes().is_none());
        // The last bit of room can be had, though it is less than a step.
        let all = room.draw(FREE_ANSWER_BYTES + 3 * mib - 5).unwrap();
        assert!(room.draw(FREE_ANSWER_BYTES + 5).is_some());
        assert!(room.draw(FREE_ANSWER_BYTES + 6).is_none());
        assert!(all.is_crowded());
        drop(all);
        let one = room.draw(FREE_ANSWER_BYTES + 1).unwrap();
        assert_eq!((one.bytes(), one.is_crowded()), (1, false), "what its length is, is known");
        drop(one);
        assert_eq!(room.left_bytes(), 3 * mib);
    }

    #[test]
    fn room_is_given_back_as_soon_as_it_is_spare_and_whoever_waits_hears_of_it() {
        let (mib, told) = (1 << 20, Arc::new(AtomicUsize::new(0)));
        let room = AnswerRoom::telling(8 * mib, {
            let told = Arc::clone(&told);
            move || {
                told.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut allowance = Allowance::within(usize::MAX, &room);
        assert!(allowance.take(FREE_ANSWER_BYTES + 7 * mib));
        // Much was noted, and one row of it goes out.
        allowance.give_back(5 * mib);
        let drawn = allowance.into_drawn().unwrap();
        assert_eq!((drawn.bytes(), room.left_bytes()), (2 * mib, 6 * mib));
        assert_eq!(told.load(Ordering::Relaxed), 1);
        drop(drawn);
        assert_eq!((room.left_bytes(), told.load(Ordering::Relaxed)), (8 * mib, 2));
        drop(room.draw(FREE_ANSWER_BYTES));
        assert_eq!(told.load(Ordering::Relaxed), 2, "nothing was taken, nothing came back");
    }
}
