//! One snapshot coming in: checked part by part and as a whole, handed to its reader, answered.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::send::from_link;
use super::{IncomingSnapshot, Part, verdict_code};
use crate::event::{NetEvent, SnapshotError};
use crate::frame::{FrameError, Kind};
use crate::hello::Hello;
use crate::link::{FrameReader, Link, write_frame};
use crate::net::Shared;

/// Parts that wait for the reader. More would only hide that it is slow.
const PARTS_COUNT_MAX: usize = 2;

/// Receives one snapshot and tells the sender the verdict.
pub(crate) async fn receive(shared: &Shared, link: Link, hello: Hello) {
    let config = &shared.config;
    let (read, mut write) = tokio::io::split(link);
    let mut frames = FrameReader::new(read, config.frame_bytes_max, config.silence_max());
    let fault = Arc::new(OnceLock::new());

    let verdict = tokio::select! {
        biased;
        () = shared.gate.closed() => Err(SnapshotError::Closed),
        verdict = take(shared, hello, &mut frames, &fault) => verdict,
        error = stay_alive(shared, &mut write, &fault) => Err(error),
    };
    tracing::debug!(peer = hello.from.0, ?verdict, "snapshot received");
    // From here on the reader's side is settled; what follows is courtesy, and bounded.
    let answering = async {
        let code = verdict_code(&verdict).to_le_bytes();
        let wrote = write_frame(&mut write, Kind::SnapshotReply, &code, config.linger_max()).await;
        if wrote.is_ok() {
            frames.drain(config.linger_max()).await;
        }
    };
    tokio::select! {
        () = answering => {}
        () = async { shared.gate.closed().await; sleep(config.linger_max()).await } => {}
    }
}

/// Tells the sender every so often that we are still here. Returns only when that fails.
async fn stay_alive<W: AsyncWrite + Unpin>(
    shared: &Shared,
    write: &mut W,
    fault: &OnceLock<SnapshotError>,
) -> SnapshotError {
    loop {
        sleep(shared.config.ping_interval()).await;
        if let Err(error) = write_frame(write, Kind::Pong, &[0; 8], shared.config.write_max()).await
        {
            let error = from_link(error);
            // Before the reader's channel goes, as in `take`.
            let _ = fault.set(error.clone());
            return error;
        }
    }
}

async fn take<R: AsyncRead + Unpin>(
    shared: &Shared,
    hello: Hello,
    frames: &mut FrameReader<R>,
    fault: &Arc<OnceLock<SnapshotError>>,
) -> Result<(), SnapshotError> {
    let header = loop {
        let frame = frames.next().await.map_err(from_link)?;
        match frame.kind {
            Kind::SnapshotBegin => break frame.payload,
            Kind::Ping => {}
            kind => return Err(from_link(FrameError::Unexpected { kind }.into())),
        }
    };
    let (parts, reader) = mpsc::channel(PARTS_COUNT_MAX);
    let stream = IncomingSnapshot {
        parts: reader,
        fault: Arc::clone(fault),
        bytes: 0,
        ended: false,
        accepted: None,
    };
    let event = NetEvent::Snapshot { from: hello.from, header, stream };
    shared.events.send(event).await.map_err(|_| SnapshotError::Closed)?;

    let result = tokio::select! {
        biased;
        result = take_stream(shared, frames, &parts) => result,
        () = parts.closed() => Err(SnapshotError::Declined),
    };
    if let Err(error) = &result {
        // Before `parts` goes: the reader looks for the reason once the channel has ended.
        let _ = fault.set(error.clone());
    }
    result
}

async fn take_stream<R: AsyncRead + Unpin>(
    shared: &Shared,
    frames: &mut FrameReader<R>,
    parts: &mpsc::Sender<Part>,
) -> Result<(), SnapshotError> {
    let config = &shared.config;
    let (mut length, mut crc) = (0u64, 0);
    let damaged = |why: &str| SnapshotError::Damaged { why: why.into() };
    loop {
        let frame = frames.next().await.map_err(from_link)?;
        match frame.kind {
            Kind::Ping => {}
            Kind::SnapshotChunk => {
                let offset = frame.fixed::<8>().map_err(|error| from_link(error.into()))?;
                let mut chunk = frame.payload;
                chunk.advance(offset.len());
                if u64::from_le_bytes(offset) != length || chunk.is_empty() {
                    return Err(damaged("a part is missing, doubled or empty"));
                }
                let bytes_max = config.snapshot_bytes_max;
                if bytes_max - length < chunk.len() as u64 {
                    return Err(SnapshotError::TooLarge { bytes_max });
                }
                length += chunk.len() as u64;
                crc = crc32c::crc32c_append(crc, &chunk);
                hand_over(shared, parts, Part::Chunk(chunk)).await?;
            }
            Kind::SnapshotEnd => {
                let end = frame.fixed::<12>().map_err(|error| from_link(error.into()))?;
                let mut end = &end[..];
                if end.get_u64_le() != length {
                    return Err(damaged("the length of the whole is wrong"));
                }
                if end.get_u32_le() != crc {
                    return Err(damaged("the checksum of the whole is wrong"));
                }
                let (heard, is_heard) = oneshot::channel();
                let (accepted, is_accepted) = oneshot::channel();
                hand_over(shared, parts, Part::End { heard, accepted }).await?;
                word(is_heard, config.snapshot_stall_ms_max).await?;
                return word(is_accepted, config.snapshot_use_ms_max).await;
            }
            kind @ (Kind::Hello
            | Kind::Refused
            | Kind::Message
            | Kind::Pong
            | Kind::SnapshotBegin
            | Kind::SnapshotReply) => {
                return Err(from_link(FrameError::Unexpected { kind }.into()));
            }
        }
    }
}

/// Waits for the reader's word.
async fn word(said: oneshot::Receiver<()>, ms_max: u64) -> Result<(), SnapshotError> {
    match timeout(Duration::from_millis(ms_max), said).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(SnapshotError::Declined),
        Err(_) => Err(SnapshotError::TimedOut { ms: ms_max }),
    }
}

async fn hand_over(
    shared: &Shared,
    parts: &mpsc::Sender<Part>,
    part: Part,
) -> Result<(), SnapshotError> {
    let config = &shared.config;
    parts.send_timeout(part, config.snapshot_stall_max()).await.map_err(|error| match error {
        SendTimeoutError::Timeout(_) => {
            SnapshotError::TimedOut { ms: config.snapshot_stall_ms_max }
        }
        SendTimeoutError::Closed(_) => SnapshotError::Declined,
    })
}
