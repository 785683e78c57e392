//! HTTP on the peer port: a node that joins asks there who the members are, before it is one.
//!
//! The transport carries such a connection to whoever serves it, and no further: how many there are
//! and how long one lasts is bounded, apart from the connections of peers.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep};

use crate::link::Link;

/// Such connections at one time.
const COUNT_MAX: usize = 32;
/// No question takes longer.
const LIFE_MAX: Duration = Duration::from_secs(30);

/// A connection to the peer port on which somebody speaks HTTP. After half a minute reading from it
/// fails.
pub struct HttpConnection {
    /// What was read to see what it is.
    read: Bytes,
    link: Link,
    address: SocketAddr,
    ends_at: Instant,
    /// A clock of the runtime that reads: that of the transport may end before.
    end: Option<Pin<Box<Sleep>>>,
    _seat: OwnedSemaphorePermit,
}

impl HttpConnection {
    /// The other end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl std::fmt::Debug for HttpConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpConnection").field("address", &self.address).finish_non_exhaustive()
    }
}

impl AsyncRead for HttpConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let ends_at = this.ends_at;
        let end = this.end.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(ends_at)));
        if end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !this.read.is_empty() {
            let count = this.read.len().min(buffer.remaining());
            buffer.put_slice(&this.read[..count]);
            this.read.advance(count);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.link).poll_read(context, buffer)
    }
}

impl AsyncWrite for HttpConnection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().link).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link).poll_shutdown(context)
    }
}

/// Where they go.
#[derive(Debug)]
pub(crate) struct Http {
    inbox: Option<mpsc::Sender<HttpConnection>>,
    seats: Arc<Semaphore>,
    life_max: Duration,
}

impl Http {
    pub(crate) fn new(inbox: Option<mpsc::Sender<HttpConnection>>) -> Http {
        Http { inbox, seats: Arc::new(Semaphore::new(COUNT_MAX)), life_max: LIFE_MAX }
    }

    /// Hands a connection over; gives it back if nobody takes it.
    pub(crate) fn take(&self, read: Bytes, link: Link, address: SocketAddr) -> Result<(), Link> {
        let Some(inbox) = &self.inbox else { return Err(link) };
        let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() else { return Err(link) };
        let ends_at = Instant::now() + self.life_max;
        let connection = HttpConnection { read, link, address, ends_at, end: None, _seat: seat };
        inbox.try_send(connection).map_err(|refused| refused.into_inner().link)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn offered(http: &Http) -> Result<tokio::io::DuplexStream, ()> {
        let (near, far) = tokio::io::duplex(64);
        let address = ([127, 0, 0, 1], 1).into();
        match http.take(Bytes::from_static(b"GET "), Box::new(near), address) {
            Ok(()) => Ok(far),
            Err(_) => Err(()),
        }
    }

    #[tokio::test]
    async fn a_connection_is_handed_on_whole_and_for_a_while() {
        assert!(offered(&Http::new(None)).is_err(), "nobody takes them");
        let (sender, mut inbox) = mpsc::channel(1);
        let http = Http { life_max: Duration::from_millis(100), ..Http::new(Some(sender)) };
        let mut far = offered(&http).unwrap();
        assert!(offered(&http).is_err(), "nobody takes any more");
        far.write_all(b"/members").await.unwrap();
        let mut near = inbox.recv().await.unwrap();
        assert!(near.address().ip().is_loopback());
        let mut text = [0; 12];
        near.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"GET /members");
        near.write_all(b"200").await.unwrap();
        let mut answer = [0; 3];
        far.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"200");
        let end = near.read(&mut text).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_connection_may_outlive_the_runtime_of_the_transport() {
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, mut inbox) = mpsc::channel(1);
        let (transports, servers) = (runtime(), runtime());
        let _far = transports.block_on(async { offered(&Http::new(Some(sender))) }).unwrap();
        let mut near = inbox.try_recv().unwrap();
        let mut text = [0; 4];
        servers.block_on(near.read_exact(&mut text)).unwrap();
        assert_eq!(&text, b"GET ");
        drop(transports);
        let more = servers.block_on(async {
            // It waits for more.
            tokio::time::timeout(Duration::from_millis(1), near.read(&mut text)).await
        });
        assert!(more.is_err());
    }

    #[tokio::test]
    async fn they_are_few() {
        let (sender, mut inbox) = mpsc::channel(2 * COUNT_MAX);
        let http = Http::new(Some(sender));
        let held: Vec<_> = (0..COUNT_MAX).map(|_| offered(&http).unwrap()).collect();
        assert!(offered(&http).is_err());
        drop(inbox.recv().await);
        assert!(offered(&http).is_ok());
        drop(held);
    }
}
