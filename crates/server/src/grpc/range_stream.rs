//! `KV.RangeStream`: a range in pieces, so that neither side has to hold a long answer whole.
//!
//! All pieces are of one revision, the current one of the first piece, or the one that was asked for.
//! Put together they are what Range would have answered. As much as one piece waits for a client that
//! takes its time, while it takes another one; nothing else is kept for it, not even the history that
//! it reads. Each keeps its room among the long answers until the client has taken it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use quorate_kv as kv;
use quorate_kv::{Drawn, KvError, RangeRequest, SortOrder, SortTarget};
use quorate_proto::etcdserverpb::{RangeResponse, RangeStreamResponse};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

use crate::local::Local;
use crate::{convert, status};

/// Keys of the first piece, at most: who asked sees soon that there is an answer.
const FIRST_KEYS: i64 = 10;
/// A piece has at most so many times the keys of the one before.
const GROWTH: i64 = 8;

/// A part of the answer, or its end, with the room that it takes.
pub(super) type Piece = (Result<RangeStreamResponse, Status>, Option<Drawn>);

/// Pieces on their way to a client.
pub(super) struct Pieces {
    outgoing: mpsc::Receiver<Piece>,
    /// Of the piece that the client is taking: until it asks for the next one.
    _drawn: Option<Drawn>,
}

impl Pieces {
    /// By which pieces are sent, one ahead of the client; and what the client takes.
    pub(super) fn channel() -> (mpsc::Sender<Piece>, Pieces) {
        let (pieces, outgoing) = mpsc::channel(1);
        (pieces, Pieces { outgoing, _drawn: None })
    }
}

impl Stream for Pieces {
    type Item = Result<RangeStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self._drawn = None;
        let piece = ready!(self.outgoing.poll_recv(context));
        Poll::Ready(piece.map(|(piece, drawn)| {
            self._drawn = drawn;
            piece
        }))
    }
}

/// Checks what only a stream refuses.
pub(super) fn check(range: &RangeRequest) -> Result<(), KvError> {
    if range.sort_order != SortOrder::None || range.sort_target != SortTarget::Key {
        return Err(KvError::RangeStreamSorted);
    }
    let filters = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    if filters.iter().any(|filter| *filter != 0) {
        return Err(KvError::RangeStreamFiltered);
    }
    Ok(())
}

/// Sends a range piece by piece, until it ends or its client goes away. Pieces of `piece_bytes` or less,
/// but for pairs that are longer.
pub(super) async fn send(
    local: &Local,
    range: RangeRequest,
    piece_bytes: usize,
    pieces: &mpsc::Sender<Piece>,
) {
    let mut walk = Walk::new(range);
    loop {
        // Nothing is read before there is a place for it.
        let Ok(place) = pieces.reserve().await else { return };
        let (ask, is_first) = (walk.ask(), walk.pinned.is_none());
        let answered = tokio::select! {
            answered = local.read_long(move |store, room| match is_first {
                true => store.first_piece_within(room, piece_bytes, &ask),
                false => store.next_piece_within(room, piece_bytes, &ask),
            }) => answered,
            () = local.stopping() => Err(status::of_kv(KvError::Stopped)),
        };
        let (answer, drawn) = match answered {
            Ok(answered) => answered,
            Err(status) => return place.send((Err(status), None)),
        };
        let piece = walk.take(answer, piece_bytes, local);
        let is_last = piece.header.is_some();
        place.send((Ok(RangeStreamResponse { range_response: Some(piece) }), drawn));
        if is_last {
            return;
        }
    }
}

/// How far a stream is.
struct Walk {
    /// What is left to ask for.
    range: RangeRequest,
    /// Keys that may still be sent; `None` for all.
    left: Option<i64>,
    /// Keys of the next piece.
    keys: i64,
    pinned: Option<Pinned>,
}

/// What the first piece said of the whole.
struct Pinned {
    revision: i64,
    count: i64,
    more: bool,
}

impl Walk {
    fn new(range: RangeRequest) -> Walk {
        let left = Some(range.limit).filter(|limit| 0 < *limit);
        Walk { range, left, keys: FIRST_KEYS, pinned: None }
    }

    /// The next piece's request.
    fn ask(&self) -> RangeRequest {
        let limit = self.left.map_or(self.keys, |left| left.min(self.keys));
        RangeRequest { limit, ..self.range.clone() }
    }

    /// The piece to send for an answer to [`Walk::ask`]. The last one has a header.
    fn take(
        &mut self,
        answer: kv::RangeResponse,
        piece_bytes: usize,
        local: &Local,
    ) -> RangeResponse {
        let pinned = self.pinned.get_or_insert_with(|| Pinned {
            revision: answer.revision,
            count: answer.count,
            more: !self.range.count_only && self.left.is_some_and(|limit| limit < answer.count),
        });
        if self.range.revision <= 0 {
            self.range.revision = pinned.revision;
        }
        let sent = answer.kvs.len() as i64;
        self.left = self.left.map(|left| left - sent);
        let is_last = !answer.more || self.left == Some(0);
        if let Some(last) = answer.kvs.last() {
            let bytes: usize = answer.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
            let each = bytes / answer.kvs.len() + size_of::<kv::KeyValue>();
            let fitting = i64::try_from(piece_bytes / each).unwrap_or(i64::MAX);
            self.keys = fitting.clamp(1, self.keys.saturating_mul(GROWTH));
            self.range.key = next_key(&last.key);
        }
        let kvs = answer.kvs.into_iter().map(convert::key_value).collect();
        match is_last {
            true => RangeResponse {
                header: Some(local.header(pinned.revision)),
                kvs,
                more: pinned.more,
                count: pinned.count,
            },
            false => RangeResponse { kvs, ..RangeResponse::default() },
        }
    }
}

/// The key right after another.
fn next_key(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
