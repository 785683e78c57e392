//! A connection before the protocol begins on it: for authentication.

use bytes::BytesMut;
use quorate_codec::zab::{FrameError, encode_frame, next_frame};
use quorate_zab::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Most bytes of one frame from somebody who has not introduced itself.
pub(crate) const FIRST_FRAME_BYTES_MAX: usize = 64 << 10;

/// Messages over one fresh connection.
#[derive(Debug)]
pub struct Pipe {
    pub(crate) stream: TcpStream,
    /// What came and is no whole frame yet.
    pub(crate) buffer: BytesMut,
}

/// Why a pipe is of no use any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipeError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// What came is no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side ended it.
    #[error("the connection was ended by the other side")]
    Ended,
    /// A frame is longer than is taken from a stranger.
    #[error("a first message of {bytes} bytes and more; the limit is {FIRST_FRAME_BYTES_MAX}")]
    TooLong {
        /// What had come of it.
        bytes: usize,
    },
}

impl Pipe {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Pipe { stream, buffer: BytesMut::new() }
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// [`PipeError::Io`] when the connection failed.
    pub async fn send(&mut self, message: &Message) -> Result<(), PipeError> {
        Ok(self.stream.write_all(&encode_frame(message)).await?)
    }

    /// Waits for the next message.
    ///
    /// # Errors
    ///
    /// [`PipeError`], after which nothing more can be received.
    pub async fn receive(&mut self) -> Result<Message, PipeError> {
        loop {
            if let Some(message) = next_frame(&mut self.buffer)? {
                return Ok(message);
            }
            if FIRST_FRAME_BYTES_MAX < self.buffer.len() {
                return Err(PipeError::TooLong { bytes: self.buffer.len() });
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(PipeError::Ended);
            }
        }
    }
}
