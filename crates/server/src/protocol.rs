//! HTTP as it is spoken with the clients of one listener.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::body::Body;
use tower_service::Service;

use crate::accept::Accepting;
use crate::connection::Connection;
use crate::parts::PART_BYTES_MAX;

/// Calls that one connection may have open. More wait in the client.
const STREAMS_MAX: u32 = 4096;
/// Calls that one connection may have begun and given up before they were looked at. A client that gives up
/// many at once, such as at the end of a deadline that they shared, keeps its connection.
const RESETS_MAX: usize = 1024;
/// What one connection may have sent that its calls have not looked at. By half of it the library bounds
/// small messages, each as if it were of 256 bytes: some 8,000 keep-alives may come at once.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Headers of one call together, as HTTP/2 counts them. More than anybody needs, and less than etcd takes.
const HEADERS_BYTES_MAX: u32 = 1 << 20;
/// What the library takes of one answer ahead of its client, whose window may be as wide as it likes; and one
/// part more. A client that opens thousands of calls and reads nothing has as much of each kept for it.
const AHEAD_BYTES: usize = PART_BYTES_MAX;

/// What answers requests. It is ready at any time.
pub(crate) trait Answers<B>:
    Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static
{
}

impl<S, B> Answers<B> for S where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static
{
}

/// How it is spoken.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    builder: Builder<TokioExecutor>,
}

impl Protocol {
    /// Clients that say nothing for `keepalive_interval` are asked, and ended when they do not answer within
    /// `keepalive_timeout`; none are if one of them is zero.
    pub(crate) fn new(keepalive_interval: Duration, keepalive_timeout: Duration) -> Protocol {
        let asks = !keepalive_interval.is_zero() && !keepalive_timeout.is_zero();
        let mut builder = Builder::new(TokioExecutor::new());
        // With a timer the head of a request of HTTP/1 has to come in time.
        builder.http1().timer(TokioTimer::new());
        let mut http2 = builder.http2();
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .max_pending_accept_reset_streams(RESETS_MAX)
            .max_send_buf_size(AHEAD_BYTES)
            .keep_alive_interval(asks.then_some(keepalive_interval));
        if asks {
            http2.keep_alive_timeout(keepalive_timeout);
        }
        Protocol { builder }
    }

    /// Serves all connections until the server stops, and then until they have ended.
    pub(crate) async fn speak<S, B>(
        self,
        mut accepting: Accepting,
        service: S,
        mut stopping: watch::Receiver<bool>,
    ) where
        S: Answers<B>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes, Error: Into<tonic::codegen::StdError>> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        loop {
            let connection = tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => break,
                Some(_) = connections.join_next() => continue,
                connection = accepting.next() => connection,
            };
            let Some(connection) = connection else { break };
            let protocol = self.clone();
            connections.spawn(protocol.converse(connection, service.clone(), stopping.clone()));
        }
        // Nobody is let in while the others end.
        drop(accepting);
        while connections.join_next().await.is_some() {}
    }

    async fn converse<S, B>(
        self,
        connection: Connection,
        service: S,
        mut stopping: watch::Receiver<bool>,
    ) where
        S: Answers<B>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes, Error: Into<tonic::codegen::StdError>> + Send + 'static,
    {
        let ends = connection.ends();
        let answer = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ends.clone());
            service.clone().call(request)
        });
        let conversation = self.builder.serve_connection(TokioIo::new(connection), answer);
        let mut conversation = std::pin::pin!(conversation);
        tokio::select! {
            ended = &mut conversation => return tell(ended),
            _ = stopping.wait_for(|stop| *stop) => {}
        }
        conversation.as_mut().graceful_shutdown();
        tell(conversation.await);
    }
}

fn tell(ended: Result<(), tonic::codegen::StdError>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use http_body::Frame;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::accept::Seats;

    /// Answers whoever asks without an end, in parts.
    #[derive(Clone, Default)]
    struct Endless {
        begun: Arc<AtomicUsize>,
        taken_bytes: Arc<AtomicUsize>,
    }

    impl Service<Request<Body>> for Endless {
        type Response = Response<Endless>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Endless>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            self.begun.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(Response::new(self.clone())))
        }
    }

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = tonic::Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
            self.taken_bytes.fetch_add(PART_BYTES_MAX, Ordering::Relaxed);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; PART_BYTES_MAX])))))
        }
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// A client that opens calls with windows as wide as there are.
    async fn ask(client: &mut TcpStream, calls: u32) {
        const WIDE: [u8; 4] = 0x7fff_0000_u32.to_be_bytes();
        let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        all.extend(frame(4, 0, 0, &[&[0, 4], &WIDE[..]].concat()));
        all.extend(frame(8, 0, 0, &WIDE));
        for call in 0..calls {
            // GET, http and / by their numbers, and an authority.
            all.extend(frame(1, 5, 2 * call + 1, &[0x82, 0x86, 0x84, 0x01, 1, b'h']));
        }
        client.write_all(&all).await.unwrap();
    }

    #[tokio::test]
    async fn who_opens_many_calls_and_reads_nothing_has_little_of_each_kept() {
        const CALLS: u32 = 600;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let endless = Endless::default();
        let protocol = Protocol::new(Duration::ZERO, Duration::ZERO);
        let accepting = Accepting::new(listener, Seats::new(2));
        let speaking = tokio::spawn(protocol.speak(accepting, endless.clone(), stopping));
        let mut client = TcpStream::connect(address).await.unwrap();
        ask(&mut client, CALLS).await;
        while endless.begun.load(Ordering::Relaxed) < CALLS as usize {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut before = 0;
        loop {
            let taken = endless.taken_bytes.load(Ordering::Relaxed);
            if before == taken && 0 < taken {
                break;
            }
            before = taken;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // What the sockets take between them is megabytes, and does not grow with the calls.
        let kept_max = CALLS as usize * (AHEAD_BYTES + PART_BYTES_MAX) + (16 << 20);
        assert!(before <= kept_max, "{} KiB of each call", before / 1024 / CALLS as usize);

        // And it gets all that it asks for once it reads.
        let mut scratch = vec![0; 1 << 20];
        while endless.taken_bytes.load(Ordering::Relaxed) < 2 * kept_max {
            assert!(0 < client.read(&mut scratch).await.unwrap());
        }
        drop(client);
        stop.send(true).unwrap();
        speaking.await.unwrap();
    }
}
