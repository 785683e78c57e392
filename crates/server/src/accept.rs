//! Connections of one listener, for as long as it is wanted.
//!
//! An error of `accept` is never the end: it concerns one connection, or says that this process has
//! too many files open, which passes. Before it comes to that, [`Seats`] are full: a connection that
//! finds none is closed at once, and those that have one go on.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_stream::Stream;

use crate::connection::Connection;

/// Wait after a failed `accept`, so that a lasting failure costs no processor.
const PAUSE: Duration = Duration::from_millis(100);
/// A client that has not said in this time that it speaks HTTP is none.
pub(crate) const GREETING_MAX: Duration = Duration::from_secs(10);
/// Refusals in between are only counted.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Places for the connections of all listeners together. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    free: Arc<Semaphore>,
    count_max: usize,
    refused: Arc<Mutex<Refused>>,
}

#[derive(Debug, Default)]
struct Refused {
    told: Option<Instant>,
    /// Since then.
    count: u64,
}

impl Seats {
    pub(crate) fn new(count_max: usize) -> Self {
        let free = Arc::new(Semaphore::new(count_max.min(Semaphore::MAX_PERMITS)));
        Seats { free, count_max, refused: Arc::default() }
    }

    fn take(&self, client: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let seat = Arc::clone(&self.free).try_acquire_owned().ok();
        if seat.is_none()
            && let Some(refused) = self.refuse(Instant::now())
        {
            let connections_max = self.count_max;
            tracing::warn!(%client, connections_max, refused, "too many connections; closed one");
        }
        seat
    }

    /// How many were refused since that was last told, if it is to be told now.
    fn refuse(&self, now: Instant) -> Option<u64> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.count += 1;
        if refused.told.is_some_and(|told| now.duration_since(told) < TELL_INTERVAL) {
            return None;
        }
        refused.told = Some(now);
        Some(std::mem::take(&mut refused.count))
    }
}

/// The stream of connections.
#[derive(Debug)]
pub(crate) struct Accepting {
    listener: TcpListener,
    seats: Seats,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Accepting {
    pub(crate) fn new(listener: TcpListener, seats: Seats) -> Self {
        Accepting { listener, seats, pause: None }
    }
}

impl Stream for Accepting {
    type Item = Connection;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(context)) {
                Ok((stream, client)) => {
                    let Some(seat) = self.seats.take(client) else { continue };
                    // Answers are small and somebody waits for each.
                    let _ = stream.set_nodelay(true);
                    let connection = Connection::new(stream, seat, GREETING_MAX);
                    return Poll::Ready(Some(connection));
                }
                Err(error) => {
                    tracing::warn!(%error, "a client's connection was not accepted");
                    self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_the_others_go_on() {
        let seats = Seats::new(2);
        let mut listeners = Vec::new();
        for _ in 0..2 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            listeners.push((address, Accepting::new(listener, seats.clone())));
        }
        let mut held = Vec::new();
        for (address, accepting) in &mut listeners {
            let client = TcpStream::connect(*address).await.unwrap();
            held.push((client, accepting.next().await.unwrap()));
        }
        let (address, accepting) = &mut listeners[0];
        let mut late = TcpStream::connect(*address).await.unwrap();
        let mut byte = [0];
        tokio::select! {
            biased;
            _ = accepting.next() => panic!("let in"),
            end = late.read(&mut byte) => assert!(matches!(end, Ok(0) | Err(_)), "{end:?}"),
        }
        held[0].0.write_all(b"G").await.unwrap();
        // It is held back until it is known not to begin a preface.
        assert_eq!(held[0].1.read(&mut byte).await.unwrap(), 1);
        held.pop();
        let _next = TcpStream::connect(*address).await.unwrap();
        accepting.next().await.unwrap();
    }

    #[tokio::test]
    async fn who_does_not_greet_in_time_is_no_client() {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
        for (says, stays) in [
            (&b""[..], false),
            (&PREFACE[..10], false),
            (PREFACE, false),
            (&settings[..settings.len() - 1], false),
            (&settings, true),
            (b"GET / HTTP/1.1\r\n", true),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            client.write_all(says).await.unwrap();
            let (stream, address) = listener.accept().await.unwrap();
            let seat = Seats::new(1).take(address).unwrap();
            let greeting_max = Duration::from_millis(if stays { 300 } else { 20 });
            let mut connection = Connection::new(stream, seat, greeting_max);
            let (mut bytes, mut got) = ([0; 64], 0);
            let ended = loop {
                if stays && got == says.len() {
                    // Its time is over, and that does not matter any more.
                    tokio::time::sleep(greeting_max).await;
                    let more = tokio::time::timeout(Duration::ZERO, connection.read(&mut bytes));
                    break more.await.ok().map(|more| more.map_err(|error| error.kind()));
                }
                match connection.read(&mut bytes).await {
                    Ok(count) => got += count,
                    Err(error) => break Some(Err(error.kind())),
                }
            };
            let want = if stays { None } else { Some(Err(io::ErrorKind::TimedOut)) };
            assert_eq!(ended, want, "{}", says.escape_ascii());
        }
    }

    #[test]
    fn refusals_are_told_at_a_bearable_rate() {
        let seats = Seats::new(0);
        let start = Instant::now();
        for (after_s, want) in [(0, Some(1)), (1, None), (9, None), (10, Some(3)), (11, None)] {
            let told = seats.refuse(start + Duration::from_secs(after_s));
            assert_eq!(told, want, "after {after_s} s");
        }
    }
}
