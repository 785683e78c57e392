//! A connection of a client. It forgives no silence: one that does not say in time that it speaks HTTP is
//! ended, and so is one that takes nothing of what it is sent. (A request of HTTP/1 whose head is never
//! finished ends in the library.) What comes in goes through `authority.rs`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::task::AtomicWaker;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use crate::authority::Filter;
use crate::patient::STALL_MAX;

/// While the kernel holds so much that it has not sent, it takes no more.
const UNSENT_BYTES: u32 = 64 << 10;
/// How long a client that was told the end is listened to.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// One accepted connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    filter: Filter,
    /// Filtered, and not read yet.
    ready: BytesMut,
    /// When patience ends, until something was said.
    silence: Option<Pin<Box<Sleep>>>,
    /// When patience ends with who takes nothing, while there is something to take.
    stall: Option<Pin<Box<Sleep>>>,
    stall_max: Duration,
    /// When a client that was told the end is not waited for any more.
    linger: Option<Pin<Box<Sleep>>>,
    ends: Ends,
    _seat: OwnedSemaphorePermit,
}

/// Ends a connection from elsewhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    inner: Arc<(AtomicBool, AtomicWaker)>,
}

impl Ends {
    pub(crate) fn end(&self) {
        self.inner.0.store(true, Ordering::Release);
        self.inner.1.wake();
    }

    /// Tells the connections apart that there are at a time.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.inner).addr()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.inner.0.load(Ordering::Acquire)
    }

    /// Whether it is over; if not, the waker is called when it is.
    fn check(&self, context: &mut Context<'_>) -> io::Result<()> {
        self.inner.1.register(context.waker());
        match self.is_over() {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

impl Connection {
    /// Takes a connection, its place among all, and how long it may take to greet.
    pub(crate) fn new(
        stream: TcpStream,
        seat: OwnedSemaphorePermit,
        greeting_max: Duration,
    ) -> Self {
        let silence = Some(Box::pin(tokio::time::sleep(greeting_max)));
        // Without it who reads slowly is seen to have read only once it has taken a third of what the
        // kernel holds for it, which may be megabytes.
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        let (filter, ready) = (Filter::default(), BytesMut::new());
        let (stall, stall_max, linger, ends) = (None, STALL_MAX, None, Ends::default());
        Connection { stream, filter, ready, silence, stall, stall_max, linger, ends, _seat: seat }
    }

    /// What ends it from elsewhere.
    pub(crate) fn ends(&self) -> Ends {
        self.ends.clone()
    }

    /// Reads what the client still says, until it has nothing more to say or has been waited for. A socket
    /// that is closed with something unread takes back what was written last: the client would not
    /// hear how its calls ended.
    fn poll_drained(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER_MAX)));
        if linger.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let mut scratch = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }

    /// What comes of writing: an error in place of a wait that has been too long.
    fn taken<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            if self.stall.take().is_some() {
                // Reading goes on.
                context.waker().wake_by_ref();
            }
            return outcome;
        }
        self.ends.check(context)?;
        let stall_max = self.stall_max;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_max)));
        stall.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ends the connection when it has taken too long to greet.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.filter.is_greeted() {
            self.silence = None;
        }
        match self.silence.as_mut().map(|silence| silence.as_mut().poll(context)) {
            Some(Poll::Ready(())) => Err(io::ErrorKind::TimedOut.into()),
            Some(Poll::Pending) | None => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.ends.check(context)?;
        // Who takes nothing is asked for nothing more: every request would have an answer.
        if this.stall.is_some() {
            return Poll::Pending;
        }
        loop {
            if !this.ready.is_empty() {
                let count = this.ready.len().min(buffer.remaining());
                buffer.put_slice(&this.ready[..count]);
                this.ready.advance(count);
                return Poll::Ready(Ok(()));
            }
            this.poll_silence(context)?;
            if this.filter.is_off() {
                return Pin::new(&mut this.stream).poll_read(context, buffer);
            }
            let mut bytes = [0; 4096];
            let mut incoming = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut incoming))?;
            if incoming.filled().is_empty() {
                this.filter.give_up(&mut this.ready);
            } else {
                this.filter.feed(incoming.filled(), &mut this.ready);
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.taken(outcome, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.taken(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        this.poll_drained(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;

    /// A connection whose other side is a socket.
    async fn connected(stall_max: Duration) -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let seat = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let mut connection = Connection::new(stream, seat, Duration::from_secs(600));
        connection.stall_max = stall_max;
        (connection, client)
    }

    #[tokio::test]
    async fn who_takes_nothing_is_asked_for_nothing_more_and_ended_after_a_while() {
        let stall_max = Duration::from_millis(300);
        let (mut connection, mut client) = connected(stall_max).await;
        client.write_all(b"GET / HTTP/1.1").await.unwrap();
        let mut bytes = [0; 64];
        assert_eq!(connection.read(&mut bytes).await.unwrap(), 14);
        client.write_all(b"more").await.unwrap();
        let lot = vec![7; 64 << 20];
        let mut write = Box::pin(connection.write_all(&lot));
        // Until the sockets are full.
        assert!(tokio::time::timeout(stall_max / 10, &mut write).await.is_err());
        drop(write);
        let read = tokio::time::timeout(stall_max / 10, connection.read(&mut bytes));
        assert!(read.await.is_err(), "it is not read from");
        let ended = tokio::time::timeout(Duration::from_secs(60), connection.write_all(&lot));
        let ended = ended.await.expect("it is ended").unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_takes_something_now_and_then_stays_and_is_read_from_again() {
        let (connection, mut client) = connected(Duration::from_secs(600)).await;
        let lot = vec![7; 16 << 20];
        client.write_all(b"GET / HTTP/1.1").await.unwrap();
        let (mut read, mut write) = tokio::io::split(connection);
        let mut bytes = [0; 64];
        assert_eq!(read.read(&mut bytes).await.unwrap(), 14);
        let taking = async {
            client.write_all(b"more").await.unwrap();
            let mut taken = vec![0; 16 << 20];
            client.read_exact(&mut taken).await.unwrap();
            taken
        };
        let (written, taken) = tokio::join!(write.write_all(&lot), taking);
        written.unwrap();
        assert_eq!(taken, lot);
        assert_eq!(read.read(&mut bytes).await.unwrap(), 4);
    }

    /// Long before it has read a third of what the kernel would hold for it.
    #[tokio::test]
    async fn who_reads_slowly_is_seen_to_read() {
        const STEP_BYTES: usize = 4 << 10;
        const SEEN_AFTER_BYTES_MAX: usize = 384 << 10;
        let (mut connection, mut client) = connected(Duration::from_secs(600)).await;
        let lot = vec![7; 1 << 20];
        let moment = Duration::from_millis(300);
        // Until the sockets are full.
        while let Ok(written) = tokio::time::timeout(moment, connection.write(&lot)).await {
            assert!(0 < written.unwrap());
        }
        for _ in 0..3 {
            let mut taken = 0;
            let reading = async {
                let mut part = [0; STEP_BYTES];
                while taken < SEEN_AFTER_BYTES_MAX {
                    taken += client.read(&mut part).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::select! {
                written = connection.write(&lot) => assert!(0 < written.unwrap()),
                () = reading => panic!("it has read, and nobody has seen it"),
            }
        }
    }

    #[tokio::test]
    async fn a_connection_is_ended_from_elsewhere() {
        let (mut connection, _client) = connected(Duration::from_secs(600)).await;
        let ends = connection.ends();
        let mut bytes = [0; 64];
        let begun = Instant::now();
        let (read, ()) = tokio::join!(connection.read(&mut bytes), async { ends.end() });
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(begun.elapsed() < Duration::from_secs(300), "not only once it was silent for long");
    }
}
