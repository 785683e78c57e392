//! One snapshot going out: read, paced, written, and waited for until the receiver's verdict.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::SnapshotSource;
use crate::dial::{DialError, Dialed, dial};
use crate::event::{NetEvent, SnapshotError};
use crate::frame::{self, CONTROL_BYTES_MAX, FrameError, HEADER_BYTES, Kind};
use crate::hello::{Hello, Purpose};
use crate::link::{FrameReader, LinkError, write_all, write_frame};
use crate::net::Shared;
use crate::peer::Peer;

const OFFSET_BYTES: usize = 8;

/// Sends a snapshot and tells how it went. Ends in bounded time, whatever the peer does.
pub(crate) async fn send(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    header: Bytes,
    source: Box<dyn SnapshotSource>,
    lane: OwnedSemaphorePermit,
) {
    let to = peer.id();
    let result = tokio::select! {
        biased;
        () = shared.gate.closed() => return,
        () = peer.gate.closed() => Err(SnapshotError::Closed),
        result = transfer(&shared, &peer, header.clone(), source) => result,
    };
    drop(lane);
    tracing::debug!(peer = to.0, ?result, "snapshot sent");
    tokio::select! {
        biased;
        () = shared.gate.closed() => {}
        _ = shared.events.send(NetEvent::SnapshotSent { to, header, result }) => {}
    }
}

async fn transfer(
    shared: &Shared,
    peer: &Peer,
    header: Bytes,
    source: Box<dyn SnapshotSource>,
) -> Result<(), SnapshotError> {
    let addresses = peer.addresses.borrow().clone();
    let Dialed { link, hello } = dial(shared, peer.id(), &addresses, Purpose::Snapshot)
        .await
        .map_err(|error| match error {
            DialError::Refused(reason) => SnapshotError::Refused { reason },
            DialError::Failed(why) | DialError::Absent(why) => SnapshotError::Unreachable { why },
        })?;
    let ended = AtomicBool::new(false);
    let (read, mut write) = tokio::io::split(link);
    let mut hearing = pin!(hear(shared, &hello, read, &ended));
    let offering = offer(shared, &hello, &mut write, header, source, &ended);
    let failed = tokio::select! {
        biased;
        reason = shared.lives.contradicted(&hello) => {
            return Err(SnapshotError::Refused { reason });
        }
        verdict = &mut hearing => return verdict,
        failed = offering => failed,
    };
    // A receiver that declines closes, and that is seen by a write before its word is read.
    match (failed, timeout(shared.config.linger_max(), hearing)) {
        (SnapshotError::Lost { why }, hearing) => match hearing.await {
            Ok(Err(verdict)) => Err(verdict),
            Ok(Ok(())) | Err(_) => Err(SnapshotError::Lost { why }),
        },
        (failed, _) => Err(failed),
    }
}

/// Reads until the verdict is there.
async fn hear<R: AsyncRead + Unpin>(
    shared: &Shared,
    hello: &Hello,
    read: R,
    ended: &AtomicBool,
) -> Result<(), SnapshotError> {
    let config = &shared.config;
    let mut frames = FrameReader::new(read, CONTROL_BYTES_MAX, config.silence_max());
    loop {
        let frame = frames.next().await.map_err(from_link)?;
        match frame.kind {
            Kind::Pong => {}
            Kind::SnapshotReply => {
                let code = frame.fixed::<2>().map_err(|error| from_link(error.into()))?;
                return match u16::from_le_bytes(code) {
                    0 if ended.load(Ordering::Relaxed) => Ok(()),
                    0 => Err(SnapshotError::Damaged { why: "accepted before its end".into() }),
                    2 => Err(SnapshotError::TooLarge { bytes_max: hello.snapshot_bytes_max }),
                    3 => Err(SnapshotError::Damaged { why: "so says the receiver".into() }),
                    4 if ended.load(Ordering::Relaxed) => {
                        Err(SnapshotError::TimedOut { ms: config.snapshot_use_ms_max })
                    }
                    4 => Err(SnapshotError::TimedOut { ms: config.snapshot_stall_ms_max }),
                    5 => Err(SnapshotError::Lost { why: "the receiver gave up".into() }),
                    _ => Err(SnapshotError::Declined),
                };
            }
            kind => return Err(from_link(FrameError::Unexpected { kind }.into())),
        }
    }
}

/// Writes the stream and then keeps the connection warm. Returns only with a failure: success is
/// for the receiver to say.
async fn offer<W: AsyncWrite + Unpin>(
    shared: &Shared,
    hello: &Hello,
    write: &mut W,
    header: Bytes,
    source: Box<dyn SnapshotSource>,
    ended: &AtomicBool,
) -> SnapshotError {
    match write_stream(shared, hello, write, header, source, ended).await {
        Ok(()) => {
            // The receiver is there, or its silence would be heard; what it does takes its time.
            let ms = shared.config.snapshot_use_ms_max;
            match while_pinging(shared, write, sleep(Duration::from_millis(ms))).await {
                Ok(()) => SnapshotError::TimedOut { ms },
                Err(error) => error,
            }
        }
        Err(error) => error,
    }
}

async fn write_stream<W: AsyncWrite + Unpin>(
    shared: &Shared,
    hello: &Hello,
    write: &mut W,
    header: Bytes,
    mut source: Box<dyn SnapshotSource>,
    ended: &AtomicBool,
) -> Result<(), SnapshotError> {
    let config = &shared.config;
    let frame_bytes_max = config.frame_bytes_max.min(hello.frame_bytes_max) as usize;
    if frame_bytes_max < header.len().max(OFFSET_BYTES + 1) {
        return Err(SnapshotError::TooLarge { bytes_max: frame_bytes_max as u64 });
    }
    let chunk_bytes_max =
        (config.snapshot_chunk_bytes as usize).min(frame_bytes_max - OFFSET_BYTES);
    let bytes_max = config.snapshot_bytes_max.min(hello.snapshot_bytes_max);

    write_parts(shared, write, Kind::SnapshotBegin, &[], header).await?;
    let (mut offset, mut crc) = (0, 0);
    loop {
        let reading = tokio::task::spawn_blocking(move || {
            let read = source.read(chunk_bytes_max);
            (source, read)
        });
        let read = while_pinging(shared, write, timeout(config.snapshot_stall_max(), reading));
        let (back, read) = read
            .await?
            .map_err(|_| SnapshotError::TimedOut { ms: config.snapshot_stall_ms_max })?
            .map_err(|panic| SnapshotError::Source { why: panic.to_string() })?;
        source = back;
        let mut bytes = read.map_err(|error| SnapshotError::Source { why: error.to_string() })?;
        if bytes.is_empty() {
            break;
        }
        if bytes_max - offset < bytes.len() as u64 {
            return Err(SnapshotError::TooLarge { bytes_max });
        }
        // A source that gives more than it was asked for is cut, not trusted.
        while !bytes.is_empty() {
            let chunk = bytes.split_to(chunk_bytes_max.min(bytes.len()));
            let length = chunk.len() as u64;
            let start = shared.pace.grant(length, Instant::now());
            while_pinging(shared, write, sleep_until(start)).await?;
            crc = crc32c::crc32c_append(crc, &chunk);
            let at = u64::to_le_bytes(offset);
            write_parts(shared, write, Kind::SnapshotChunk, &at, chunk).await?;
            offset += length;
        }
    }
    ended.store(true, Ordering::Relaxed);
    let mut end = [0; 12];
    end[..8].copy_from_slice(&offset.to_le_bytes());
    end[8..].copy_from_slice(&crc.to_le_bytes());
    write_frame(write, Kind::SnapshotEnd, &end, config.snapshot_stall_max())
        .await
        .map_err(from_link)
}

/// Writes one frame of two parts, the second uncopied, within the time that one chunk may take.
async fn write_parts<W: AsyncWrite + Unpin>(
    shared: &Shared,
    write: &mut W,
    kind: Kind,
    first: &[u8],
    second: Bytes,
) -> Result<(), SnapshotError> {
    let length = u32::try_from(first.len() + second.len()).expect("no longer than a frame may be");
    let mut head = BytesMut::with_capacity(HEADER_BYTES + first.len());
    head.extend_from_slice(&frame::header(kind, length, [first, &second[..]].into_iter()));
    head.extend_from_slice(first);
    let mut segments = VecDeque::from([head.freeze(), second]);
    segments.retain(|segment| !segment.is_empty());
    let stall_max = shared.config.snapshot_stall_max();
    timeout(stall_max, write_all(write, &mut segments, stall_max))
        .await
        .map_err(|_| SnapshotError::TimedOut { ms: shared.config.snapshot_stall_ms_max })?
        .map_err(from_link)
}

/// Waits for something, and tells the receiver every so often that we are still here.
async fn while_pinging<W: AsyncWrite + Unpin, F: Future>(
    shared: &Shared,
    write: &mut W,
    waiting: F,
) -> Result<F::Output, SnapshotError> {
    let mut waiting = pin!(waiting);
    loop {
        tokio::select! {
            biased;
            output = &mut waiting => return Ok(output),
            () = sleep(shared.config.ping_interval()) => {
                let token = shared.token().to_le_bytes();
                write_frame(write, Kind::Ping, &token, shared.config.snapshot_stall_max())
                    .await
                    .map_err(from_link)?;
            }
        }
    }
}

pub(super) fn from_link(error: LinkError) -> SnapshotError {
    match error {
        LinkError::Frame(error) => SnapshotError::Damaged { why: error.to_string() },
        LinkError::Stuck { ms } => {
            SnapshotError::TimedOut { ms: u64::try_from(ms).unwrap_or(u64::MAX) }
        }
        error => SnapshotError::Lost { why: error.to_string() },
    }
}
