//! One peer as this node sends to it: a queue, and a task that keeps a connection and empties the
//! queue into it.
//!
//! What is queued when a connection ends, or cannot be made, is dropped: it is old by the time the
//! peer is back, and engines repeat what matters. The user is told once each time.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quorate_types::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};

use crate::backoff::Backoff;
use crate::dial::{DialError, Dialed, dial};
use crate::event::{NetEvent, SendError};
use crate::frame::{self, CONTROL_BYTES_MAX, FrameError, Kind};
use crate::gate::Gate;
use crate::hello::Purpose;
use crate::link::{FrameReader, LinkError, flush, write_all};
use crate::net::{PeerStatus, Shared};
use crate::queue::{Message, Offered, Queue};

/// Messages that go into one write, together.
const BATCH_BYTES: u64 = 256 << 10;
/// Chunks up to this length are cheaper to copy than to hand over one by one.
const COPY_BYTES_MAX: usize = 4 << 10;

/// What all threads know of a peer.
#[derive(Debug)]
pub(crate) struct Peer {
    id: NodeId,
    queue: Queue,
    /// Normalised, so that another spelling is no change.
    pub(crate) addresses: watch::Sender<Vec<String>>,
    /// Closed when the peer is removed or the transport shut down.
    pub(crate) gate: Gate,
    /// The longest frame both sides take, as far as known.
    frame_bytes_max: AtomicU32,
    connection: Mutex<Option<Connection>>,
    sent_messages: AtomicU64,
    sent_bytes: AtomicU64,
    dropped_messages: AtomicU64,
    disconnects: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    since: Instant,
    incarnation: u64,
    rtt: Option<Duration>,
}

impl Peer {
    pub(crate) fn new(shared: &Shared, id: NodeId, addresses: Vec<String>) -> Peer {
        Peer {
            id,
            queue: Queue::new(&shared.config),
            addresses: watch::Sender::new(addresses),
            gate: Gate::new(),
            frame_bytes_max: AtomicU32::new(shared.config.frame_bytes_max),
            connection: Mutex::new(None),
            sent_messages: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            dropped_messages: AtomicU64::new(0),
            disconnects: AtomicU64::new(0),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    pub(crate) fn frame_bytes_max(&self) -> u32 {
        self.frame_bytes_max.load(Ordering::Relaxed)
    }

    /// Queues a message. Never waits.
    pub(crate) fn send(&self, shared: &Shared, chunks: Vec<Bytes>) -> Result<(), SendError> {
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let bytes_max = u64::from(self.frame_bytes_max());
        if bytes_max < bytes {
            return Err(SendError::TooLarge { bytes, bytes_max });
        }
        if self.gate.is_closed() {
            return Err(SendError::Closed);
        }
        let offered = self.queue.offer(Message { chunks, bytes });
        if offered == Offered::Queued {
            return Ok(());
        }
        self.dropped_messages.fetch_add(1, Ordering::Relaxed);
        if offered == Offered::JustFull {
            // The caller knows already; this is for who does not look at results.
            let _ = shared.events.try_send(NetEvent::Unreachable { to: self.id, is_absent: false });
        }
        Err(SendError::Full { to: self.id })
    }

    pub(crate) fn status(&self) -> PeerStatus {
        let connection = *self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let (queue_bytes, queue_count) = self.queue.fill();
        PeerStatus {
            id: self.id,
            connected_since: connection.map(|connection| connection.since),
            incarnation: connection.map(|connection| connection.incarnation),
            rtt: connection.and_then(|connection| connection.rtt),
            queue_bytes,
            queue_count,
            sent_messages: self.sent_messages.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            dropped_messages: self.dropped_messages.load(Ordering::Relaxed),
            received_messages: 0,
            received_bytes: 0,
            receive_failures: 0,
            disconnects: self.disconnects.load(Ordering::Relaxed),
        }
    }

    fn set_connection(&self, connection: Option<Connection>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    fn set_rtt(&self, rtt: Duration) {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = &mut *connection {
            connection.rtt = Some(rtt);
        }
    }

    fn drop_messages(&self, count: usize) {
        self.dropped_messages.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Keeps a connection to the peer until its gate closes.
pub(crate) async fn run(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut backoff = Backoff::new(&shared.config, peer.id.0);
    let mut moves = peer.addresses.subscribe();
    while !peer.gate.is_closed() {
        let addresses = moves.borrow_and_update().clone();
        let dialed = tokio::select! {
            biased;
            () = peer.gate.closed() => break,
            dialed = dial(&shared, peer.id, &addresses, Purpose::Messages) => dialed,
        };
        let is_absent = matches!(dialed, Err(DialError::Absent(_)));
        let mut has_lasted = false;
        match dialed {
            Ok(dialed) => {
                let began = Instant::now();
                let (end, heard) = talk(&shared, &peer, dialed, &mut moves).await;
                has_lasted = heard && shared.config.ping_interval() <= began.elapsed();
                if heard {
                    backoff.reset();
                }
                tracing::debug!(peer = peer.id.0, why = %end, "connection ended");
            }
            Err(why) => tracing::debug!(peer = peer.id.0, %why, "cannot connect"),
        }
        peer.drop_messages(peer.queue.clear());

        // Whether the peer is gone altogether is known once it is asked again, and others may wait for that.
        let wait = if has_lasted { Duration::ZERO } else { backoff.wait() };
        let retry_at = tokio::time::Instant::now() + wait;
        let waiting = async {
            let _ = shared.events.send(NetEvent::Unreachable { to: peer.id, is_absent }).await;
            tokio::select! {
                () = sleep_until(retry_at) => {}
                _ = moves.changed() => backoff.reset(),
            }
        };
        tokio::select! {
            biased;
            () = peer.gate.closed() => break,
            () = waiting => {}
        }
    }
    peer.drop_messages(peer.queue.clear());
}

/// Uses one connection until it ends; says why, and whether the peer was ever heard on it.
async fn talk(
    shared: &Shared,
    peer: &Peer,
    dialed: Dialed,
    moves: &mut watch::Receiver<Vec<String>>,
) -> (LinkError, bool) {
    let Dialed { link, hello } = dialed;
    peer.frame_bytes_max
        .store(shared.config.frame_bytes_max.min(hello.frame_bytes_max), Ordering::Relaxed);
    let incarnation = hello.incarnation;
    peer.set_connection(Some(Connection { since: Instant::now(), incarnation, rtt: None }));
    tracing::debug!(peer = peer.id.0, incarnation, "connected");
    // For people, so not worth a wait.
    let connected = NetEvent::Connected { peer: peer.id, incarnation, inbound: false };
    let _ = shared.events.try_send(connected);

    let heard = AtomicBool::new(false);
    let (read, mut write) = tokio::io::split(link);
    let end = {
        let hearing = pin!(hear(shared, peer, read, &heard));
        let speaking = pin!(async {
            match speak(shared, peer, &mut write).await {
                // All is written. The other end closes when it has read it: `hear` notices.
                Ok(()) => std::future::pending().await,
                Err(end) => end,
            }
        });
        let lingering = pin!(async {
            peer.gate.closed().await;
            sleep(shared.config.linger_max()).await;
        });
        tokio::select! {
            biased;
            why = shared.lives.contradicted(&hello) => LinkError::Refused(why),
            end = hearing => end,
            end = speaking => end,
            () = lingering => LinkError::Closed,
            _ = moves.changed() => {
                // The new list is read before the next attempt.
                moves.mark_changed();
                LinkError::Moved
            }
        }
    };
    peer.set_connection(None);
    peer.disconnects.fetch_add(1, Ordering::Relaxed);
    (end, heard.load(Ordering::Relaxed))
}

/// Reads what comes back on our own connection: answers to pings, and nothing else.
async fn hear<R: AsyncRead + Unpin>(
    shared: &Shared,
    peer: &Peer,
    read: R,
    heard: &AtomicBool,
) -> LinkError {
    let mut frames = FrameReader::new(read, CONTROL_BYTES_MAX, shared.config.silence_max());
    loop {
        let token = match frames.next().await {
            Ok(frame) if frame.kind == Kind::Pong => frame.fixed::<8>(),
            Ok(frame) => Err(FrameError::Unexpected { kind: frame.kind }),
            Err(end) => return end,
        };
        match token {
            Ok(token) => {
                heard.store(true, Ordering::Relaxed);
                if let Some(rtt) = shared.since_token(u64::from_le_bytes(token)) {
                    peer.set_rtt(rtt);
                }
            }
            Err(error) => return error.into(),
        }
    }
}

/// Writes messages as they come and a ping every so often. `Ok` once the gate is closed and the
/// queue is empty.
async fn speak<W: AsyncWrite + Unpin>(
    shared: &Shared,
    peer: &Peer,
    write: &mut W,
) -> Result<(), LinkError> {
    let stuck_max = shared.config.write_max();
    let mut ping_at = tokio::time::Instant::now();
    let mut batch = Vec::new();
    let mut out = Outgoing::default();
    loop {
        let now = tokio::time::Instant::now();
        if ping_at <= now {
            out.control(Kind::Ping, &shared.token().to_le_bytes());
            ping_at = now + shared.config.ping_interval();
        }
        peer.queue.take(BATCH_BYTES, &mut batch);
        let (count, bytes) = (batch.len(), batch.iter().map(|message| message.bytes).sum::<u64>());
        let (mut skipped, mut skipped_bytes) = (0, 0);
        for message in batch.drain(..) {
            if u64::from(peer.frame_bytes_max()) < message.bytes {
                // Queued before the peer told its limit. Sent, it would cost the connection.
                skipped += 1;
                skipped_bytes += message.bytes;
            } else {
                out.message(message);
            }
        }
        write_all(write, out.finish(), stuck_max).await?;
        if count == 0 {
            flush(write, stuck_max).await?;
            if peer.gate.is_closed() {
                return match timeout(stuck_max, write.shutdown()).await {
                    Ok(ended) => Ok(ended?),
                    Err(_) => Err(LinkError::Stuck { ms: stuck_max.as_millis() }),
                };
            }
            tokio::select! {
                () = peer.queue.offered() => {}
                () = sleep_until(ping_at) => {}
                () = peer.gate.closed() => {}
            }
            continue;
        }
        peer.queue.release(bytes, count);
        peer.sent_messages.fetch_add((count - skipped) as u64, Ordering::Relaxed);
        peer.sent_bytes.fetch_add(bytes - skipped_bytes, Ordering::Relaxed);
        if 0 < skipped {
            peer.drop_messages(skipped);
            let _ = shared.events.try_send(NetEvent::Unreachable { to: peer.id, is_absent: false });
        }
    }
}

/// Frames made ready for one vectored write: what is short stands together in one buffer, long
/// chunks stay where they are.
#[derive(Default)]
struct Outgoing {
    short: BytesMut,
    segments: VecDeque<Bytes>,
}

impl Outgoing {
    fn control(&mut self, kind: Kind, payload: &[u8]) {
        frame::put(&mut self.short, kind, payload);
    }

    fn message(&mut self, message: Message) {
        let length = u32::try_from(message.bytes).expect("no longer than a frame may be");
        let chunks = message.chunks.iter().map(|chunk| &chunk[..]);
        self.short.extend_from_slice(&frame::header(Kind::Message, length, chunks));
        for chunk in message.chunks {
            if chunk.len() <= COPY_BYTES_MAX {
                self.short.extend_from_slice(&chunk);
            } else {
                self.finish();
                self.segments.push_back(chunk);
            }
        }
    }

    fn finish(&mut self) -> &mut VecDeque<Bytes> {
        if !self.short.is_empty() {
            self.segments.push_back(self.short.split().freeze());
        }
        &mut self.segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Decoder;

    #[test]
    fn long_chunks_are_not_copied_and_frames_stay_whole() {
        let long = Bytes::from(vec![7; COPY_BYTES_MAX + 1]);
        let short = Bytes::from_static(b"abc");
        for chunks in [
            vec![],
            vec![short.clone()],
            vec![long.clone()],
            vec![short.clone(), long.clone(), short.clone()],
            vec![long.clone(), long.clone()],
            vec![Bytes::new(), short.clone(), Bytes::new()],
        ] {
            let want: Vec<u8> = chunks.iter().flatten().copied().collect();
            let bytes = want.len() as u64;
            let mut out = Outgoing::default();
            out.control(Kind::Ping, &[1; 8]);
            out.message(Message { chunks: chunks.clone(), bytes });
            out.control(Kind::Ping, &[2; 8]);
            let segments = std::mem::take(out.finish());
            for chunk in chunks.iter().filter(|chunk| COPY_BYTES_MAX < chunk.len()) {
                let kept = segments.iter().any(|segment| segment.as_ptr() == chunk.as_ptr());
                assert!(kept, "a chunk of {} bytes was copied", chunk.len());
            }
            assert!(segments.iter().all(|segment| !segment.is_empty()), "no write of nothing");

            let mut decoder = Decoder::new(1 << 20);
            segments.iter().for_each(|segment| decoder.room().extend_from_slice(segment));
            let frames: Vec<_> =
                std::iter::from_fn(|| decoder.next().expect("well formed")).collect();
            assert_eq!(frames.len(), 3);
            assert_eq!(frames[1].kind, Kind::Message);
            assert_eq!(frames[1].payload, want);
        }
    }
}
