//! The task of one connection: first it is wrapped and authenticates, then it reads and writes
//! messages.
//!
//! What it reads goes to the node's inbox, which is bounded in messages and bytes; while that is
//! full the connection is not read. What it writes is bounded by the engine, which closes a
//! connection on which too much waits. Whatever is wrong with what comes ends this connection and
//! nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_codec::zab::{encode_frame, next_frame};
use quorate_zab::{Address, ConnId, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::pipe::FIRST_FRAME_BYTES_MAX;
use crate::pipe::Stream;
use crate::{ClientAuth, Pipe, PipeError, ServerAuth, Wrap};

/// Frames that wait are written together up to about so many bytes.
const WRITE_BYTES: usize = 256 << 10;

/// The node hears so often that a long message is on its way.
const HEARD_EVERY: Duration = Duration::from_millis(200);

/// What a connection has to say to its node. Per connection in the order it happened.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// Somebody has connected, and was admitted.
    Accepted {
        conn: ConnId,
        link: Link,
    },
    /// The connection that was asked for stands.
    Connected {
        to: Address,
        conn: ConnId,
        link: Link,
    },
    /// It does not.
    ConnectFailed {
        to: Address,
        why: String,
    },
    /// `room` is its part of the inbox's bytes.
    Received {
        conn: ConnId,
        message: Message,
        room: OwnedSemaphorePermit,
    },
    Heard {
        conn: ConnId,
    },
    Written {
        conn: ConnId,
        count: usize,
    },
    Closed {
        conn: ConnId,
    },
}

/// The node's end of a connection's task. Dropping it closes the connection, after what was sent on
/// it, for which it is given a moment.
#[derive(Debug)]
pub(crate) struct Link {
    /// Bounded in bytes by the engine.
    pub(crate) outbox: mpsc::UnboundedSender<Message>,
    _open: oneshot::Sender<()>,
}

/// What all connections of a node share.
pub(crate) struct Shared {
    pub(crate) inbox: mpsc::Sender<Inbound>,
    /// One permit for each byte that waits in the inbox.
    pub(crate) inbox_bytes: Arc<Semaphore>,
    pub(crate) inbox_bytes_max: usize,
    pub(crate) wrap: Option<Arc<dyn Wrap>>,
    pub(crate) server_auth: Option<Arc<dyn ServerAuth>>,
    pub(crate) client_auth: Option<Arc<dyn ClientAuth>>,
    pub(crate) connect_timeout: Duration,
    pub(crate) auth_timeout: Duration,
    pub(crate) flush: Duration,
}

/// Somebody has connected.
pub(crate) async fn accepted(
    shared: Arc<Shared>,
    conn: ConnId,
    stream: TcpStream,
    from: SocketAddr,
) {
    let _ = stream.set_nodelay(true);
    let stream: Box<dyn Stream> = match &shared.wrap {
        None => Box::new(stream),
        Some(wrap) => match timeout(shared.auth_timeout, wrap.accepted(stream, from)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::warn!(%from, %error, "a connection was not what it should be");
                return;
            }
            Err(_) => {
                tracing::warn!(%from, "a connection did not begin in time");
                return;
            }
        },
    };
    let mut pipe = Pipe::new(stream);
    let mut first = None;
    if let Some(auth) = &shared.server_auth {
        match timeout(shared.auth_timeout, auth.authenticate(&mut pipe)).await {
            Ok(Ok(message)) => first = message,
            Ok(Err(error)) => {
                tracing::warn!(%from, %error, "a connection was not admitted");
                return linger(pipe.stream, shared.flush).await;
            }
            Err(_) => {
                tracing::warn!(%from, "a connection did not authenticate in time");
                return;
            }
        }
    }
    let (link, ends) = link();
    if shared.inbox.send(Inbound::Accepted { conn, link }).await.is_ok() {
        serve(&shared, conn, pipe, first, ends, from).await;
    }
}

/// Connects to a leader.
pub(crate) async fn connect(shared: Arc<Shared>, conn: ConnId, to: Address) {
    match reach(&shared, &to).await {
        Ok((pipe, from)) => {
            let (link, ends) = link();
            if shared.inbox.send(Inbound::Connected { to, conn, link }).await.is_ok() {
                serve(&shared, conn, pipe, None, ends, from).await;
            }
        }
        Err(why) => {
            let _ = shared.inbox.send(Inbound::ConnectFailed { to, why }).await;
        }
    }
}

async fn reach(shared: &Shared, to: &Address) -> Result<(Pipe, SocketAddr), String> {
    let at: SocketAddr = to.as_str().parse().map_err(|_| "no address".to_owned())?;
    let connecting = timeout(shared.connect_timeout, TcpStream::connect(at)).await;
    let stream = connecting.map_err(|_| "no answer in time".to_owned())?;
    let stream = stream.map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    let stream: Box<dyn Stream> = match &shared.wrap {
        None => Box::new(stream),
        Some(wrap) => {
            let wrapping = timeout(shared.auth_timeout, wrap.connected(stream, at)).await;
            let result = wrapping.map_err(|_| "it did not begin in time".to_owned())?;
            result.map_err(|error| error.to_string())?
        }
    };
    let mut pipe = Pipe::new(stream);
    if let Some(auth) = &shared.client_auth {
        let authenticating = timeout(shared.auth_timeout, auth.authenticate(&mut pipe)).await;
        let result = authenticating.map_err(|_| "no authentication in time".to_owned())?;
        result.map_err(|error| error.to_string())?;
    }
    Ok((pipe, at))
}

/// The task's ends of a link.
struct Ends {
    outbox: mpsc::UnboundedReceiver<Message>,
    open: oneshot::Receiver<()>,
}

fn link() -> (Link, Ends) {
    let (sender, outbox) = mpsc::unbounded_channel();
    let (_open, open) = oneshot::channel();
    (Link { outbox: sender, _open }, Ends { outbox, open })
}

async fn serve(
    shared: &Shared,
    conn: ConnId,
    pipe: Pipe,
    first: Option<Message>,
    ends: Ends,
    peer: SocketAddr,
) {
    let (read, mut write) = tokio::io::split(pipe.stream);
    let mut reader = Reader { shared, conn, read, buffer: pipe.buffer, is_known: false };
    let mut outbox = ends.outbox;
    let closing = async {
        let _ = ends.open.await; // the node has dropped its end
        tokio::time::sleep(shared.flush).await;
    };
    let is_flushed = tokio::select! {
        error = reader.run(first) => {
            match error {
                // How most connections end.
                PipeError::Ended | PipeError::Io(_) => tracing::debug!(%peer, %error, "ended"),
                _ => tracing::warn!(%peer, %error, "what came is not of the protocol"),
            }
            false
        }
        is_flushed = write_all(shared, conn, &mut write, &mut outbox) => is_flushed,
        () = closing => false,
    };
    if is_flushed {
        linger(reader.read.unsplit(write), shared.flush).await;
    }
    let _ = shared.inbox.send(Inbound::Closed { conn }).await;
}

/// Ends a connection so that what was sent last arrives: one that is closed while something waits to
/// be read is reset, and takes with it what is on its way.
async fn linger(mut stream: Box<dyn Stream>, most: Duration) {
    let _ = timeout(most, async {
        stream.shutdown().await?;
        let mut scratch = [0; 4096];
        while 0 < stream.read(&mut scratch).await? {}
        Ok::<(), std::io::Error>(())
    })
    .await;
}

struct Reader<'a> {
    shared: &'a Shared,
    conn: ConnId,
    read: ReadHalf<Box<dyn Stream>>,
    buffer: BytesMut,
    /// Whether it has sent a whole message.
    is_known: bool,
}

impl Reader<'_> {
    /// Reads until it cannot go on.
    async fn run(&mut self, first: Option<Message>) -> PipeError {
        match self.read_all(first).await {
            Ok(()) => PipeError::Ended,
            Err(error) => error,
        }
    }

    async fn read_all(&mut self, first: Option<Message>) -> Result<(), PipeError> {
        if let Some(message) = first {
            self.deliver(message, 0).await?;
        }
        let mut heard_at = Instant::now();
        loop {
            let mut before = self.buffer.len();
            while let Some(message) = next_frame(&mut self.buffer)? {
                let bytes = before - self.buffer.len();
                before = self.buffer.len();
                self.deliver(message, bytes).await?;
                heard_at = Instant::now();
            }
            let length = self.buffer.len();
            if !self.is_known && FIRST_FRAME_BYTES_MAX < length {
                return Err(PipeError::TooLong { bytes: length });
            }
            if 0 < length && HEARD_EVERY <= heard_at.elapsed() {
                heard_at = Instant::now();
                self.send(Inbound::Heard { conn: self.conn }).await?;
            }
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return Err(PipeError::Ended);
            }
        }
    }

    async fn deliver(&mut self, message: Message, bytes: usize) -> Result<(), PipeError> {
        self.is_known = true;
        let wanted = bytes.clamp(1, self.shared.inbox_bytes_max);
        let permits = u32::try_from(wanted).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.shared.inbox_bytes).acquire_many_owned(permits).await;
        let room = room.map_err(|_| PipeError::Ended)?;
        self.send(Inbound::Received { conn: self.conn, message, room }).await
    }

    /// The node is gone when it cannot.
    async fn send(&mut self, inbound: Inbound) -> Result<(), PipeError> {
        self.shared.inbox.send(inbound).await.map_err(|_| PipeError::Ended)
    }
}

/// Writes what the node sends until it closes the connection; says whether all of it was written.
async fn write_all(
    shared: &Shared,
    conn: ConnId,
    write: &mut WriteHalf<Box<dyn Stream>>,
    outbox: &mut mpsc::UnboundedReceiver<Message>,
) -> bool {
    let mut together = BytesMut::new();
    while let Some(message) = outbox.recv().await {
        let mut count = 1;
        let mut frame: Bytes = encode_frame(&message);
        together.clear();
        // Long ones go by themselves and are not copied.
        while frame.len() + together.len() < WRITE_BYTES {
            together.extend_from_slice(&frame);
            frame = Bytes::new();
            let Ok(next) = outbox.try_recv() else { break };
            count += 1;
            frame = encode_frame(&next);
        }
        for bytes in [&together[..], &frame] {
            if write.write_all(bytes).await.is_err() {
                return false;
            }
        }
        if write.flush().await.is_err() {
            return false;
        }
        if shared.inbox.send(Inbound::Written { conn, count }).await.is_err() {
            return false;
        }
    }
    true
}
