//! Long commands, a few at a time.
//!
//! What is proposed and not committed is bounded over all members. What is over is refused at once by the leader,
//! and lost where another member passed it on: nobody knows for long what became of it. Who
//! writes many long values at the same time would hear so of most of them, though the log takes them all in
//! a moment. So each member keeps to its part of that room: the next long command waits until one before
//! it has its answer, in the order in which they came. Those that wait are bounded in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_kv::KvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A command of that length is a long one. It takes more than eight thousand shorter ones at a time, over all
/// members, to have no room.
const LONG_BYTES: usize = 8 << 10;
/// Of long ones under way at a time: for five members half of what a leader may have that is not committed, or
/// not durable with itself. The other half is for short ones, and for what a quorum without it has committed,
/// so that it is answered, while its own disk is behind.
const ROOM_BYTES: usize = 6 << 20;
/// Of long ones that wait for their turn. More are refused.
const WAITING_BYTES_MAX: usize = 512 << 20;
/// Room is given in pieces of this size.
const PIECE_BYTES: usize = 1 << 10;

#[derive(Debug)]
pub(crate) struct LongCommands {
    room: Arc<Semaphore>,
    room_pieces: usize,
    waiting_bytes: AtomicUsize,
    waiting_bytes_max: usize,
}

/// A command's turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _room: OwnedSemaphorePermit,
}

impl LongCommands {
    pub(crate) fn new() -> Self {
        LongCommands::with(ROOM_BYTES, WAITING_BYTES_MAX)
    }

    fn with(room_bytes: usize, waiting_bytes_max: usize) -> Self {
        let room_pieces = room_bytes / PIECE_BYTES;
        let (room, waiting_bytes) = (Arc::new(Semaphore::new(room_pieces)), AtomicUsize::new(0));
        LongCommands { room, room_pieces, waiting_bytes, waiting_bytes_max }
    }

    /// Waits for the turn of a command of that length. Short ones need none.
    ///
    /// # Errors
    ///
    /// `RequestTooManyRequests` if too much waits already, or it has not come in that time: nothing was
    /// done.
    pub(crate) async fn turn(
        &self,
        bytes: usize,
        wait_max: Duration,
    ) -> Result<Option<Turn>, KvError> {
        if bytes < LONG_BYTES {
            return Ok(None);
        }
        let pieces = bytes.div_ceil(PIECE_BYTES).min(self.room_pieces);
        let _waiting = self.enter(bytes).ok_or(KvError::RequestTooManyRequests)?;
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(pieces);
        match tokio::time::timeout(wait_max, room).await {
            Ok(room) => Ok(Some(Turn { _room: room.expect("nobody closes it") })),
            Err(_) => Err(KvError::RequestTooManyRequests),
        }
    }

    fn enter(&self, bytes: usize) -> Option<Waiting<'_>> {
        let order = Ordering::Relaxed;
        let more =
            |before: usize| (before + bytes <= self.waiting_bytes_max).then(|| before + bytes);
        self.waiting_bytes.fetch_update(order, order, more).ok()?;
        Some(Waiting { all: &self.waiting_bytes, bytes })
    }
}

/// One that waits for its turn.
struct Waiting<'a> {
    all: &'a AtomicUsize,
    bytes: usize,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const FOREVER: Duration = Duration::from_secs(3600);

    /// Two thousand of 60,000 bytes, say, would be more than there is room for.
    #[tokio::test]
    async fn commands_of_which_some_thousand_would_be_too_many_are_long() {
        let long = LongCommands::new();
        assert!(long.turn(60_000, FOREVER).await.unwrap().is_some());
        assert!(long.turn(1000, FOREVER).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn long_commands_take_turns_and_short_ones_pass_them() {
        let long = LongCommands::with(2 * LONG_BYTES, 2 * LONG_BYTES);
        let first = long.turn(LONG_BYTES, FOREVER).await.unwrap();
        let second = long.turn(LONG_BYTES, FOREVER).await.unwrap();
        let mut third = Box::pin(long.turn(LONG_BYTES, FOREVER));
        assert!(third.as_mut().now_or_never().is_none(), "it waits");
        assert!(long.turn(LONG_BYTES - 1, FOREVER).now_or_never().unwrap().is_ok());
        let late = long.turn(LONG_BYTES, Duration::from_millis(1)).await;
        assert_eq!(late.unwrap_err(), KvError::RequestTooManyRequests);
        let mut fourth = Box::pin(long.turn(LONG_BYTES, FOREVER));
        assert!(fourth.as_mut().now_or_never().is_none());
        let over = long.turn(LONG_BYTES, FOREVER).now_or_never().unwrap();
        assert_eq!(over.unwrap_err(), KvError::RequestTooManyRequests, "too much waits");
        drop(first);
        let third = third.await.unwrap();
        drop((second, third, fourth));
        assert_eq!(long.waiting_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(long.room.available_permits(), long.room_pieces);
    }

    #[tokio::test]
    async fn one_that_is_longer_than_the_room_has_it_alone() {
        let long = LongCommands::with(2 * LONG_BYTES, 9 * LONG_BYTES);
        let first = long.turn(5 * LONG_BYTES, FOREVER).await.unwrap();
        let mut second = Box::pin(long.turn(LONG_BYTES, FOREVER));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        second.await.unwrap();
    }
}
