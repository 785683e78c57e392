//! Messages of one peer, from its connection into the channel of events.
//!
//! When the channel is full nothing is read, so the peer's queue fills and the peer drops: that is
//! the back-pressure. Meanwhile the peer is told that we are alive, so that it keeps the connection.

use bytes::Bytes;
use quorate_types::NodeId;
use tokio::io::AsyncWrite;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::sleep;

use crate::event::NetEvent;
use crate::frame::{FrameError, Kind};
use crate::hello::Hello;
use crate::link::{FrameReader, Link, LinkError, write_frame};
use crate::net::Shared;
use crate::senders::{Place, Received};

/// Reads until the connection ends, a newer one takes its place, or the gate closes.
pub(crate) async fn run(
    shared: &Shared,
    link: Link,
    hello: Hello,
    mut place: Place,
    seat: OwnedSemaphorePermit,
) {
    let from = hello.from;
    tracing::debug!(peer = from.0, incarnation = hello.incarnation, "connected by");
    // For people, so not worth a wait.
    let _ = shared.events.try_send(NetEvent::Connected {
        peer: from,
        incarnation: hello.incarnation,
        inbound: true,
    });
    let end = tokio::select! {
        biased;
        () = shared.gate.closed() => LinkError::Closed,
        _ = &mut place.replaced => LinkError::Closed,
        why = shared.lives.contradicted(&hello) => LinkError::Refused(why),
        end = receive(shared, link, from, &place.received) => end,
    };
    if !matches!(end, LinkError::Closed | LinkError::Ended) {
        place.received.fail();
    }
    // In this order: the connection that takes the place finds a free seat.
    drop(seat);
    drop(place);
    tracing::debug!(peer = from.0, why = %end, "connection from it ended");
}

async fn receive(shared: &Shared, link: Link, from: NodeId, received: &Received) -> LinkError {
    let config = &shared.config;
    let (read, mut write) = tokio::io::split(link);
    let mut frames = FrameReader::new(read, config.frame_bytes_max, config.silence_max());
    loop {
        let frame = match frames.next().await {
            Ok(frame) => frame,
            Err(end) => return end,
        };
        let step = match frame.kind {
            Kind::Message => {
                received.count(frame.payload.len());
                deliver(shared, &mut write, from, frame.payload).await
            }
            Kind::Ping => match frame.fixed::<8>() {
                Ok(token) => write_frame(&mut write, Kind::Pong, &token, config.write_max()).await,
                Err(error) => Err(error.into()),
            },
            Kind::Hello
            | Kind::Refused
            | Kind::Pong
            | Kind::SnapshotBegin
            | Kind::SnapshotChunk
            | Kind::SnapshotEnd
            | Kind::SnapshotReply => Err(FrameError::Unexpected { kind: frame.kind }.into()),
        };
        if let Err(end) = step {
            return end;
        }
    }
}

/// Puts a message into the channel, however long that takes.
async fn deliver<W: AsyncWrite + Unpin>(
    shared: &Shared,
    write: &mut W,
    from: NodeId,
    payload: Bytes,
) -> Result<(), LinkError> {
    let event = match shared.events.try_send(NetEvent::Message { from, payload }) {
        Ok(()) => return Ok(()),
        Err(TrySendError::Closed(_)) => return Err(LinkError::Unread),
        Err(TrySendError::Full(event)) => event,
    };
    let mut sending = std::pin::pin!(shared.events.send(event));
    loop {
        tokio::select! {
            sent = &mut sending => return sent.map_err(|_| LinkError::Unread),
            () = sleep(shared.config.ping_interval()) => {
                let alive = [0; 8];
                write_frame(write, Kind::Pong, &alive, shared.config.write_max()).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::NetConfig;
    use crate::frame::CONTROL_BYTES_MAX;
    use crate::net::Net;

    #[tokio::test]
    async fn a_full_inbox_says_that_it_is_alive_and_loses_nothing() {
        let mut config = NetConfig::new(7, NodeId(2));
        config.ping_interval_ms = 1;
        let (events, mut inbox) = mpsc::channel(1);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let net = Net::start(config, vec![listener], events);
        let shared = net.shared();

        let (near, mut far) = tokio::io::duplex(1 << 10);
        let serving = tokio::spawn(async move {
            receive(&shared, Box::new(near), NodeId(1), &Received::default()).await
        });
        for text in ["one", "two"] {
            write_frame(&mut far, Kind::Message, text.as_bytes(), Duration::from_secs(60))
                .await
                .expect("memory");
        }
        let (read, write) = tokio::io::split(far);
        let mut frames = FrameReader::new(read, CONTROL_BYTES_MAX, Duration::from_secs(60));
        for _ in 0..3 {
            let frame = frames.next().await.expect("alive");
            assert_eq!((frame.kind, &frame.payload[..]), (Kind::Pong, &[0; 8][..]));
        }
        for want in ["one", "two"] {
            match inbox.recv().await {
                Some(NetEvent::Message { payload, .. }) => assert_eq!(payload, want),
                other => panic!("{other:?}"),
            }
        }
        drop((frames, write));
        let end = serving.await.expect("no panic");
        assert!(matches!(end, LinkError::Ended | LinkError::Io(_)), "{end}");
        net.shutdown().await;
    }
}
