//! How much memory an answer may take, and all answers under way together: a short request can ask for
//! the whole state many times over, and many can do so at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An answer to one range takes no more. Nothing longer could be sent: the wire format ends here.
pub const RANGE_ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// An answer to a transaction, or to anything else that changes the state, takes no more in all of
/// its parts.
pub const CHANGE_ANSWER_BYTES_MAX: usize = 128 << 20;

/// So much of each answer is not counted against what all may take together: nearly all of them are
/// smaller, and cost nothing but a comparison.
pub const FREE_ANSWER_BYTES: usize = 64 << 10;

/// A long answer takes room in steps of at least so much.
const STEP_BYTES: usize = 64 << 10;

/// Memory that all long answers under way share. Each draws on it as it grows.
#[derive(Debug)]
pub struct AnswerRoom {
    bytes_max: usize,
    left_bytes: AtomicUsize,
}

impl AnswerRoom {
    /// Room for so much.
    pub fn new(bytes_max: usize) -> Arc<AnswerRoom> {
        Arc::new(AnswerRoom { bytes_max, left_bytes: AtomicUsize::new(bytes_max) })
    }

    /// How much of it is free.
    pub fn left_bytes(&self) -> usize {
        self.left_bytes.load(Ordering::Relaxed)
    }

    /// Takes room for an answer of this length, as long as what is returned is kept; nothing if there
    /// is none.
    pub fn draw(self: &Arc<Self>, answer_bytes: usize) -> Option<Drawn> {
        let mut drawn = Drawn { room: Arc::clone(self), bytes: 0 };
        drawn.holds(answer_bytes).then_some(drawn)
    }

    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        self.left_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
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
}

impl Drop for Drawn {
    fn drop(&mut self) {
        self.room.left_bytes.fetch_add(self.bytes, Ordering::Relaxed);
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
    is_crowded_out: bool,
}

impl Allowance {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Allowance { used_bytes: 0, bytes_max, spent: false, drawn: None, is_crowded_out: false }
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

    /// Whether it is spent only because of what others have taken.
    pub(crate) fn is_crowded_out(&self) -> bool {
        self.is_crowded_out
    }

    /// What it has taken of the room that it shares.
    pub(crate) fn into_drawn(self) -> Option<Drawn> {
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
            self.is_crowded_out = true;
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
        assert!(!first.take(1) && first.is_spent() && first.is_crowded_out());
        assert!(room.draw(FREE_ANSWER_BYTES).is_some() && room.draw(mib).is_none());
        drop(second);
        assert_eq!(room.left_bytes(), 2 * mib);
        assert!(!first.take(1), "what is spent stays spent");
        assert_eq!(first.into_drawn().map(|drawn| drawn.bytes()), Some(mib));
        assert_eq!(room.left_bytes(), 3 * mib);
        // What would never fit waits for nobody.
        let mut long = Allowance::within(usize::MAX, &room);
        assert!(!long.take(4 * mib) && long.is_spent() && !long.is_crowded_out());
        // The last bit of room can be had, though it is less than a step.
        let all = room.draw(FREE_ANSWER_BYTES + 3 * mib - 5).unwrap();
        assert!(room.draw(FREE_ANSWER_BYTES + 5).is_some());
        assert!(room.draw(FREE_ANSWER_BYTES + 6).is_none());
        drop(all);
        assert_eq!(room.left_bytes(), 3 * mib);
    }
}
