//! What waits to be sent to one peer: bounded in bytes and in messages, filled by any thread,
//! emptied by one task.
//!
//! A message counts until it is written or dropped, so what the writer holds is within the bound.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::config::NetConfig;

/// One message in the chunks it was given in, and the length of all of them.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) bytes: u64,
}

/// What became of an offered message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    Queued,
    /// No room; the first to find none since there was plenty.
    JustFull,
    /// No room, as before.
    StillFull,
}

#[derive(Debug)]
pub(crate) struct Queue {
    bytes_max: u64,
    count_max: usize,
    lane: Mutex<Lane>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Message>,
    /// Of all that is waiting or taken.
    bytes: u64,
    count: usize,
    full: bool,
}

impl Queue {
    pub(crate) fn new(config: &NetConfig) -> Queue {
        Queue {
            bytes_max: config.queue_bytes_max,
            count_max: config.queue_count_max,
            lane: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Takes a message, if there is room for all of it.
    pub(crate) fn offer(&self, message: Message) -> Offered {
        let mut lane = self.lane();
        let bytes = lane.bytes.saturating_add(message.bytes);
        if self.bytes_max < bytes || self.count_max <= lane.count {
            let was_full = std::mem::replace(&mut lane.full, true);
            return if was_full { Offered::StillFull } else { Offered::JustFull };
        }
        lane.bytes = bytes;
        lane.count += 1;
        lane.waiting.push_back(message);
        drop(lane);
        self.wake.notify_one();
        Offered::Queued
    }

    /// Moves messages of up to `bytes_max` together, but at least one if there is any. They count
    /// until they are released.
    pub(crate) fn take(&self, bytes_max: u64, batch: &mut Vec<Message>) {
        let mut lane = self.lane();
        let mut bytes = 0;
        while let Some(message) = lane.waiting.front() {
            bytes += message.bytes;
            if bytes_max < bytes && !batch.is_empty() {
                break;
            }
            batch.extend(lane.waiting.pop_front());
        }
    }

    /// Messages that were taken are written or dropped.
    pub(crate) fn release(&self, bytes: u64, count: usize) {
        let mut lane = self.lane();
        assert!(count <= lane.count && bytes <= lane.bytes, "only what was taken is released");
        lane.bytes -= bytes;
        lane.count -= count;
        // A burst of refusals ends when there is plenty of room again, not with every message.
        if lane.bytes <= self.bytes_max / 2 && lane.count <= self.count_max / 2 {
            lane.full = false;
        }
    }

    /// Drops everything, what was taken included, and says how many messages that were.
    pub(crate) fn clear(&self) -> usize {
        let lane = std::mem::take(&mut *self.lane());
        lane.count
    }

    /// Returns once something may have been offered since the last time.
    pub(crate) async fn offered(&self) {
        self.wake.notified().await;
    }

    /// Bytes and messages that wait or are being written.
    pub(crate) fn fill(&self) -> (u64, usize) {
        let lane = self.lane();
        (lane.bytes, lane.count)
    }

    fn lane(&self) -> MutexGuard<'_, Lane> {
        // Nothing in here panics between two changes that belong together.
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::NodeId;

    fn message(bytes: usize) -> Message {
        Message { chunks: vec![Bytes::from(vec![0; bytes])], bytes: bytes as u64 }
    }

    fn queue(bytes_max: u64, count_max: usize) -> Queue {
        let mut config = NetConfig::new(7, NodeId(1));
        (config.queue_bytes_max, config.queue_count_max) = (bytes_max, count_max);
        Queue::new(&config)
    }

    #[test]
    fn both_bounds_hold_at_the_very_edge() {
        for (bytes_max, count_max, offers, taken) in [
            (10, 100, &[5, 5, 0, 1][..], 3), // bytes: an empty message still fits
            (10, 100, &[11, 10, 1], 1),      // too long alone; the next one fits
            (100, 2, &[0, 0, 0], 2),         // count: even for empty ones
        ] {
            let queue = queue(bytes_max, count_max);
            let got = offers
                .iter()
                .filter(|bytes| queue.offer(message(**bytes)) == Offered::Queued)
                .count();
            assert_eq!(got, taken, "{offers:?} into {bytes_max} bytes, {count_max} messages");
        }
    }

    #[test]
    fn what_is_being_written_still_counts() {
        let queue = queue(10, 10);
        assert_eq!(queue.offer(message(10)), Offered::Queued);
        let mut batch = Vec::new();
        queue.take(1, &mut batch);
        assert_eq!(batch.len(), 1, "one message is taken however long it is");
        assert_eq!(queue.offer(message(1)), Offered::JustFull);
        assert_eq!(queue.offer(message(1)), Offered::StillFull);
        queue.release(10, 1);
        assert_eq!(queue.offer(message(10)), Offered::Queued);
        assert_eq!(queue.offer(message(1)), Offered::JustFull, "a new burst");
        assert_eq!(queue.clear(), 1);
        assert_eq!(queue.fill(), (0, 0));
    }

    #[test]
    fn batches_stop_at_their_bound() {
        let queue = queue(100, 100);
        for bytes in [4, 4, 4, 9, 1] {
            queue.offer(message(bytes));
        }
        let mut sizes = Vec::new();
        loop {
            let mut batch = Vec::new();
            queue.take(8, &mut batch);
            if batch.is_empty() {
                break;
            }
            sizes.push(batch.iter().map(|message| message.bytes).collect::<Vec<_>>());
        }
        assert_eq!(sizes, [vec![4, 4], vec![4], vec![9], vec![1]]);
    }
}
