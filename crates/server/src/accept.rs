//! Connections of one listener, for as long as it is wanted.
//!
//! An error of `accept` is never the end: it concerns one connection, or says that this process has
//! too many files open, which passes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Sleep;
use tokio_stream::Stream;

use crate::authority::Connection;

/// Wait after a failed `accept`, so that a lasting failure costs no processor.
const PAUSE: Duration = Duration::from_millis(100);

/// The stream of connections.
#[derive(Debug)]
pub(crate) struct Accepting {
    listener: TcpListener,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Accepting {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Accepting { listener, pause: None }
    }
}

impl Stream for Accepting {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(context)) {
                Ok((stream, _)) => {
                    // Answers are small and somebody waits for each.
                    let _ = stream.set_nodelay(true);
                    return Poll::Ready(Some(Ok(Connection::new(stream))));
                }
                Err(error) => {
                    tracing::warn!(%error, "a client's connection was not accepted");
                    self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                }
            }
        }
    }
}
