//! Snapshots: streams of unknown length on connections of their own, taken whole or not at all.
//!
//! ```text
//! sender    SnapshotBegin(header), SnapshotChunk(offset, bytes)..., SnapshotEnd(length, crc) ──►
//!           ◄── SnapshotReply(verdict), once the receiver has read the end or let go
//! ```
//!
//! Both sides say "still here" every so often. One connection carries one snapshot, so parts of two
//! can never mix; a broken transfer starts anew.

use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::event::SnapshotError;

mod pace;
mod receive;
mod send;

pub(crate) use pace::Pace;
pub(crate) use receive::receive;
pub(crate) use send::send;

/// Where the bytes of a snapshot come from.
pub trait SnapshotSource: Send {
    /// The next part, at most `max` bytes long; empty at the end. It may block: it is called on a
    /// thread for that, one call at a time. At shutdown a call is not waited for.
    ///
    /// # Errors
    ///
    /// End the transfer; [`SnapshotError::Source`] carries the text.
    fn read(&mut self, max: usize) -> io::Result<Bytes>;
}

/// A snapshot that is coming in.
///
/// Read it to its end: `Ok(None)` from [`next_chunk`](IncomingSnapshot::next_chunk) says that length
/// and checksum of the whole were right. The sender takes it for delivered once it is
/// [accepted](IncomingSnapshot::accept), for which it waits `snapshot_use_ms_max`. Dropped before, it
/// tells the sender that the snapshot was declined.
#[derive(Debug)]
pub struct IncomingSnapshot {
    parts: mpsc::Receiver<Part>,
    fault: Arc<OnceLock<SnapshotError>>,
    bytes: u64,
    ended: bool,
    /// Waited for by the connection from the end on.
    accepted: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
enum Part {
    Chunk(Bytes),
    /// The whole was right.
    End {
        /// The reader has heard of it.
        heard: oneshot::Sender<()>,
        /// It is of use: the transfer is a success.
        accepted: oneshot::Sender<()>,
    },
}

impl IncomingSnapshot {
    /// The next part, in order; `None` after the last, when the whole was found right.
    ///
    /// # Errors
    ///
    /// The transfer failed, and all that was read of it is worth nothing.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        if self.ended {
            return Ok(None);
        }
        let part = self.parts.recv().await;
        self.on_part(part)
    }

    /// As [`next_chunk`](IncomingSnapshot::next_chunk), for a thread that may block.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// When called from an async task.
    pub fn next_chunk_blocking(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        if self.ended {
            return Ok(None);
        }
        let part = self.parts.blocking_recv();
        self.on_part(part)
    }

    /// Tells the sender that the whole has come and is of use. Once is enough.
    ///
    /// # Errors
    ///
    /// The transfer has failed by now, and its sender takes the snapshot for lost; also before its end.
    pub fn accept(&mut self) -> Result<(), SnapshotError> {
        let accepted = self.accepted.take().ok_or_else(|| self.why())?;
        accepted.send(()).map_err(|()| self.why())
    }

    /// Bytes read so far.
    pub fn received_bytes(&self) -> u64 {
        self.bytes
    }

    fn on_part(&mut self, part: Option<Part>) -> Result<Option<Bytes>, SnapshotError> {
        match part {
            Some(Part::Chunk(chunk)) => {
                self.bytes += chunk.len() as u64;
                Ok(Some(chunk))
            }
            // Whole for us can become whole for the sender, if the connection still waits for our word.
            Some(Part::End { heard, accepted }) => {
                heard.send(()).map_err(|()| self.why())?;
                (self.ended, self.accepted) = (true, Some(accepted));
                Ok(None)
            }
            None => Err(self.why()),
        }
    }

    fn why(&self) -> SnapshotError {
        self.fault.get().cloned().unwrap_or(SnapshotError::Closed)
    }
}

// Verdicts on the wire. Numbers are never reused.
fn verdict_code(verdict: &Result<(), SnapshotError>) -> u16 {
    match verdict {
        Ok(()) => 0,
        Err(SnapshotError::Declined) => 1,
        Err(SnapshotError::TooLarge { .. }) => 2,
        Err(SnapshotError::Damaged { .. }) => 3,
        Err(SnapshotError::TimedOut { .. }) => 4,
        Err(
            SnapshotError::Closed
            | SnapshotError::Lost { .. }
            | SnapshotError::Source { .. }
            | SnapshotError::Refused { .. }
            | SnapshotError::Unreachable { .. },
        ) => 5,
    }
}
