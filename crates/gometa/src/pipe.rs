//! A connection before the protocol begins on it: wrapped, if the application wants that, and then
//! there for authentication.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::BytesMut;
use quorate_codec::zab::{FrameError, encode_frame, next_frame};
use quorate_zab::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Most bytes of one frame from somebody who has not introduced itself.
pub(crate) const FIRST_FRAME_BYTES_MAX: usize = 64 << 10;

/// Bytes in both directions: what a connection is once it is wrapped.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What a [`Wrap`] returns: it may wait.
pub type WrapFuture = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Puts something around each connection, TLS say, before anything is said on it; within
/// [`auth_timeout_ms`](crate::SiteConfig::auth_timeout_ms). An error closes the connection. As in
/// gometa, what it is remains the application's. It must not lose what was written when it is shut
/// down.
pub trait Wrap: Send + Sync + 'static {
    /// This node has connected to a leader.
    fn connected(&self, stream: TcpStream, to: SocketAddr) -> WrapFuture;

    /// Somebody has connected to this node.
    fn accepted(&self, stream: TcpStream, from: SocketAddr) -> WrapFuture;
}

/// Messages over one fresh connection.
pub struct Pipe {
    pub(crate) stream: Box<dyn Stream>,
    /// What came and is no whole frame yet.
    pub(crate) buffer: BytesMut,
}

/// Why a pipe is of no use any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipeError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
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
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Pipe { stream, buffer: BytesMut::new() }
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// [`PipeError::Io`] when the connection failed.
    pub async fn send(&mut self, message: &Message) -> Result<(), PipeError> {
        self.stream.write_all(&encode_frame(message)).await?;
        Ok(self.stream.flush().await?)
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

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("buffered_bytes", &self.buffer.len()).finish_non_exhaustive()
    }
}
