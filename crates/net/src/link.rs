//! A connection as a pair of directions: frames are read from one and written to the other, each
//! wait with a deadline.
//!
//! The stream below is boxed, so that TLS can take the place of plain TCP.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::event::Refusal;
use crate::frame::{self, Decoder, Frame, FrameError, Kind};

/// A stream of bytes in both directions.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(crate) type Link = Box<dyn Stream>;

/// A fresh TCP connection as a link.
pub(crate) fn plain(stream: TcpStream) -> Link {
    // Without it small messages would wait for each other's acknowledgements; a system that refuses
    // only makes them late.
    let _ = stream.set_nodelay(true);
    Box::new(stream)
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("nothing was heard for {ms} ms")]
    Silent { ms: u128 },
    #[error("nothing could be written for {ms} ms")]
    Stuck { ms: u128 },
    #[error("the other end closed it")]
    Ended,
    #[error("the other end closed it within a frame")]
    Cut,
    #[error("the events have no reader any more")]
    Unread,
    #[error("the peer has new addresses")]
    Moved,
    #[error("{0}")]
    Refused(Refusal),
    #[error("it was closed here")]
    Closed,
}

/// The frames that come from one direction of a connection.
pub(crate) struct FrameReader<R> {
    read: R,
    decoder: Decoder,
    silence_max: Duration,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(read: R, frame_bytes_max: u32, silence_max: Duration) -> FrameReader<R> {
        FrameReader { read, decoder: Decoder::new(frame_bytes_max), silence_max }
    }

    /// The next frame. The future may be dropped and asked anew: what was read is kept.
    pub(crate) async fn next(&mut self) -> Result<Frame, LinkError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(frame);
            }
            let room = self.decoder.room();
            let before = room.len();
            let read = timeout(self.silence_max, self.read.read_buf(room))
                .await
                .map_err(|_| LinkError::Silent { ms: self.silence_max.as_millis() })??;
            if read == 0 {
                return Err(if before == 0 { LinkError::Ended } else { LinkError::Cut });
            }
        }
    }

    /// Reads and forgets until the other end closes. Closing a socket with unread bytes would take
    /// back what was written to it last.
    pub(crate) async fn drain(&mut self, time_max: Duration) {
        let mut sink = [0; 4096];
        let draining = async { while matches!(self.read.read(&mut sink).await, Ok(1..)) {} };
        let _ = timeout(time_max, draining).await;
    }
}

/// Writes all segments in as few calls as possible, without copying them. Each call must make
/// progress within `stuck_max`.
pub(crate) async fn write_all<W: AsyncWrite + Unpin>(
    write: &mut W,
    segments: &mut VecDeque<Bytes>,
    stuck_max: Duration,
) -> Result<(), LinkError> {
    const SLICES_MAX: usize = 64;
    while !segments.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = slices.len().min(segments.len());
        for (slice, segment) in slices.iter_mut().zip(segments.iter()) {
            *slice = IoSlice::new(segment);
        }
        let mut written = timeout(stuck_max, write.write_vectored(&slices[..count]))
            .await
            .map_err(|_| LinkError::Stuck { ms: stuck_max.as_millis() })??;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        while 0 < written {
            let front = segments.front_mut().expect("no more was written than there was");
            let step = written.min(front.len());
            front.advance(step);
            written -= step;
            if front.is_empty() {
                segments.pop_front();
            }
        }
    }
    Ok(())
}

/// Writes one short frame, and everything before it, out to the peer.
pub(crate) async fn write_frame<W: AsyncWrite + Unpin>(
    write: &mut W,
    kind: Kind,
    payload: &[u8],
    stuck_max: Duration,
) -> Result<(), LinkError> {
    let mut frame = BytesMut::with_capacity(frame::HEADER_BYTES + payload.len());
    frame::put(&mut frame, kind, payload);
    write_all(write, &mut VecDeque::from([frame.freeze()]), stuck_max).await?;
    flush(write, stuck_max).await
}

pub(crate) async fn flush<W: AsyncWrite + Unpin>(
    write: &mut W,
    stuck_max: Duration,
) -> Result<(), LinkError> {
    timeout(stuck_max, write.flush())
        .await
        .map_err(|_| LinkError::Stuck { ms: stuck_max.as_millis() })??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn segments_arrive_in_order_through_a_narrow_pipe() {
        let (mut near, mut far) = tokio::io::duplex(7);
        let parts: Vec<Bytes> =
            (0..200u8).map(|n| Bytes::from(vec![n; usize::from(n % 9) + 1])).collect();
        let want: Vec<u8> = parts.iter().flatten().copied().collect();
        let writing = tokio::spawn(async move {
            let mut segments = VecDeque::from(parts);
            write_all(&mut near, &mut segments, Duration::from_secs(60)).await
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.expect("a pipe in memory");
        writing.await.expect("no panic").expect("a pipe in memory");
        assert_eq!(got, want);
    }

    #[tokio::test]
    async fn a_pipe_that_takes_nothing_is_noticed() {
        let (mut near, _far) = tokio::io::duplex(4);
        let mut segments = VecDeque::from([Bytes::from_static(b"too long for it")]);
        let end = write_all(&mut near, &mut segments, Duration::from_millis(5)).await;
        assert!(matches!(end, Err(LinkError::Stuck { ms: 5 })), "{end:?}");
    }

    #[tokio::test]
    async fn ends_are_told_apart() {
        let mut frame = BytesMut::new();
        frame::put(&mut frame, Kind::Ping, &[0; 8]);
        for (bytes, want) in [
            (&frame[..], "the other end closed it"),
            (&frame[..9], "the other end closed it within a frame"),
        ] {
            let mut reader = FrameReader::new(bytes, 64, Duration::from_secs(60));
            let end = loop {
                match reader.next().await {
                    Ok(frame) => assert_eq!(frame.kind, Kind::Ping),
                    Err(end) => break end,
                }
            };
            assert_eq!(end.to_string(), want);
        }
    }
}
