//! Standing in line under a name: what locks and elections are made of.
//!
//! Whoever wants to be first puts a key `name/<lease in hexadecimal>` that goes with its lease. The
//! key that was created first is first; all others wait until those before them are gone. Clients
//! that keep a line by themselves write the same keys, so all of them stand in one.
//!
//! A caller that goes away while it waits loses its place. One that is first by then keeps it until
//! its lease ends: it may have asked again, and been told that it is first.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use quorate_kv::{
    Command, Compare, CompareTarget, DeleteRangeRequest, Event, EventKind, KeyValue, KvError,
    PutRequest, RangeRequest, RangeResponse, RequestOp, Response, ResponseOp, SortOrder,
    SortTarget, TxnRequest, TxnResponse, WatchCreateRequest,
};
use tokio::sync::oneshot;
use tonic::Status;

use crate::local::Local;
use crate::status;
use crate::watching::Stream;

/// Of a lease that the server grants because the caller brought none.
const LEASE_SECONDS: i64 = 60;
/// Less than any response takes: they are taken one by one.
const ONE_RESPONSE_BYTES: usize = 1;
/// How often leaving is tried, when others move meanwhile.
const LEAVES_MAX: usize = 10;

/// The line under one name.
#[derive(Clone)]
pub(crate) struct Line {
    local: Local,
    /// `name/`
    prefix: Bytes,
}

/// A place in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) key: Bytes,
    /// The revision that created the key. The same key, created again, is another place.
    pub(crate) created: i64,
    pub(crate) lease: i64,
}

/// What watching a line has shown.
enum Seen {
    Events {
        revision: i64,
        events: Vec<Arc<Event>>,
    },
    /// History was compacted before it could be shown: read again.
    Compacted,
}

impl Line {
    pub(crate) fn new(local: &Local, name: &[u8]) -> Line {
        Line { local: local.clone(), prefix: [name, b"/"].concat().into() }
    }

    /// Enters the line, waits to be first, and says the current revision with the place.
    ///
    /// `lease` 0 has one granted. A place that the lease has already is taken up again; its value
    /// becomes `value` if it is given and differs. When the place is lost while it waits, the answer
    /// is `lost`.
    ///
    /// Dropping the future gives the place up, unless it is the first.
    pub(crate) async fn win(
        self,
        lease: i64,
        value: Option<Bytes>,
        lost: KvError,
    ) -> Result<(Place, i64), Status> {
        let (mut answer, outcome) = oneshot::channel();
        // Not within the call, which ends wherever it is when its client goes.
        tokio::spawn(async move {
            let outcome = self.contend(lease, value, lost, answer.closed()).await;
            let _ = answer.send(outcome);
        });
        outcome.await.unwrap_or_else(|_| Err(status::of_kv(KvError::Stopped)))
    }

    async fn contend(
        &self,
        lease: i64,
        value: Option<Bytes>,
        lost: KvError,
        gone: impl Future<Output = ()>,
    ) -> Result<(Place, i64), Status> {
        let is_granted_here = lease == 0;
        let lease = if is_granted_here { self.grant().await? } else { lease };
        let won = async {
            let (place, first) = self.enter(lease, value, lost).await?;
            match first {
                Some(revision) => Ok((place, revision)),
                None => {
                    let revision = tokio::select! {
                        revision = self.first(&place, lost) => revision,
                        () = gone => Err(status::of_kv(KvError::Canceled)),
                    };
                    if revision.is_err() && !is_granted_here {
                        self.leave(&place).await;
                    }
                    revision.map(|revision| (place, revision))
                }
            }
        };
        let won = won.await;
        if won.is_err() && is_granted_here {
            // Nobody else knows this lease; its key goes with it.
            let _ = self.local.propose(&Command::LeaseRevoke { id: lease }).await;
        }
        won
    }

    async fn grant(&self) -> Result<i64, Status> {
        match self.local.grant_lease(0, LEASE_SECONDS).await? {
            Response::LeaseGrant(granted) => Ok(granted.id),
            other => Err(mismatched("a grant", &other)),
        }
    }

    /// Takes a place, and says the revision if it is the first at once.
    async fn enter(
        &self,
        lease: i64,
        value: Option<Bytes>,
        lost: KvError,
    ) -> Result<(Place, Option<i64>), Status> {
        let key: Bytes = [&self.prefix[..], hex(lease).as_bytes()].concat().into();
        let put = PutRequest {
            key: key.clone(),
            value: value.clone().unwrap_or_default(),
            lease,
            ..PutRequest::default()
        };
        let own = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let first = || RequestOp::Range(RangeRequest { keys_only: true, ..self.oldest() });
        let txn = TxnRequest {
            compare: vec![was_created(&key, 0)],
            success: vec![RequestOp::Put(put), first()],
            failure: vec![RequestOp::Range(own), first()],
        };
        let answer = change(&self.local, txn).await?;
        let revision = answer.revision;
        let mut responses = answer.responses.into_iter();
        let found = match responses.next() {
            Some(ResponseOp::Range(range)) => range.kvs.into_iter().next(),
            _ => None,
        };
        let created = found.as_ref().map_or(revision, |pair| pair.create_revision);
        let place = Place { key, created, lease };
        if let (Some(found), Some(value)) = (found, value)
            && found.value != value
            && self.proclaim(&place, value).await?.is_none()
        {
            return Err(status::of_kv(lost));
        }
        let is_first = match responses.next() {
            Some(ResponseOp::Range(range)) => {
                range.kvs.first().is_some_and(|first| first.create_revision == created)
            }
            _ => false,
        };
        Ok((place, is_first.then_some(revision)))
    }

    /// Waits until a place is the first, and says the revision as of which it is.
    async fn first(&self, place: &Place, lost: KvError) -> Result<i64, Status> {
        let mut is_confirmed = false;
        loop {
            let (before, revision) = match self.before(place).await? {
                Some(found) => found,
                None => return Err(status::of_kv(lost)),
            };
            match before {
                None if is_confirmed => return Ok(revision),
                // This member may be the last to know what became of the place.
                None => {
                    self.local.read_barrier().await?;
                    is_confirmed = true;
                }
                Some(before) => {
                    is_confirmed = false;
                    // Either of the two may end.
                    let gone = |key: &Bytes| WatchCreateRequest {
                        key: key.clone(),
                        start_revision: revision + 1,
                        no_put: true,
                        ..WatchCreateRequest::default()
                    };
                    let stream = self.watch(vec![gone(&place.key), gone(&before.key)]).await?;
                    self.seen(&stream).await?;
                }
            }
        }
    }

    /// Who stands before a place, and the revision as of which that was read; nothing if the place
    /// is gone.
    async fn before(&self, place: &Place) -> Result<Option<(Option<KeyValue>, i64)>, Status> {
        let range = RangeRequest {
            sort_order: SortOrder::Descend,
            max_create_revision: place.created,
            limit: 2,
            keys_only: true,
            ..self.oldest()
        };
        let answer = self.read(range).await?;
        let mut pairs = answer.kvs.into_iter();
        Ok(match pairs.next() {
            Some(own) if own.key == place.key && own.create_revision == place.created => {
                Some((pairs.next(), answer.revision))
            }
            _ => None,
        })
    }

    /// Gives up a place that is not the first.
    async fn leave(&self, place: &Place) {
        for _ in 0..LEAVES_MAX {
            let Ok(Some((Some(before), _))) = self.before(place).await else { return };
            let delete = DeleteRangeRequest { key: place.key.clone(), ..Default::default() };
            let txn = TxnRequest {
                compare: vec![
                    was_created(&place.key, place.created),
                    was_created(&before.key, before.create_revision),
                ],
                success: vec![RequestOp::DeleteRange(delete)],
                failure: Vec::new(),
            };
            match change(&self.local, txn).await {
                Ok(answer) if !answer.succeeded => {} // somebody moved
                _ => return,
            }
        }
    }

    /// Puts another value to a place, and says the revision; nothing if the place is gone.
    pub(crate) async fn proclaim(
        &self,
        place: &Place,
        value: Bytes,
    ) -> Result<Option<i64>, Status> {
        let put = PutRequest {
            key: place.key.clone(),
            value,
            lease: place.lease,
            // Whoever does not say the lease does not want to lose it.
            ignore_lease: place.lease == 0,
            ..PutRequest::default()
        };
        let txn = TxnRequest {
            compare: vec![was_created(&place.key, place.created)],
            success: vec![RequestOp::Put(put)],
            failure: Vec::new(),
        };
        let answer = change(&self.local, txn).await?;
        Ok(answer.succeeded.then_some(answer.revision))
    }

    /// Leaves a place, first or not, if it is still there; says the revision.
    pub(crate) async fn resign(&self, place: &Place) -> Result<i64, Status> {
        let delete = DeleteRangeRequest { key: place.key.clone(), ..Default::default() };
        let txn = TxnRequest {
            compare: vec![was_created(&place.key, place.created)],
            success: vec![RequestOp::DeleteRange(delete)],
            failure: Vec::new(),
        };
        Ok(change(&self.local, txn).await?.revision)
    }

    /// Who is first now, and the revision.
    pub(crate) async fn leader(&self) -> Result<(Option<KeyValue>, i64), Status> {
        self.local.read_barrier().await?;
        self.leader_here().await
    }

    async fn leader_here(&self) -> Result<(Option<KeyValue>, i64), Status> {
        let answer = self.read(self.oldest()).await?;
        Ok((answer.kvs.into_iter().next(), answer.revision))
    }

    /// Follows who is first.
    pub(crate) async fn leaders(self) -> Result<Leaders, Status> {
        self.local.read_barrier().await?;
        Ok(Leaders { line: self, reign: None, told: (Bytes::new(), 0), next: VecDeque::new() })
    }

    /// Who is first, and the revision as of which that is known; waits for one.
    async fn any_leader(&self) -> Result<(KeyValue, i64), Status> {
        loop {
            let (first, revision) = self.leader_here().await?;
            if let Some(first) = first {
                return Ok((first, revision));
            }
            let entry = WatchCreateRequest {
                range_end: self.end(),
                no_delete: true,
                ..from(&self.prefix, revision + 1)
            };
            let stream = self.watch(vec![entry]).await?;
            if let Seen::Events { events, .. } = self.seen(&stream).await?
                && let Some(event) = events.first()
            {
                // Nobody was there, so whoever comes first is first.
                return Ok((event.kv.clone(), event.kv.mod_revision));
            }
        }
    }

    async fn watch(&self, requests: Vec<WatchCreateRequest>) -> Result<Stream, Status> {
        let stream = self.local.watching().open();
        for request in requests {
            stream.with(move |watches, id, store| watches.create(id, request, store)).await?;
        }
        Ok(stream)
    }

    /// Waits until a watcher of the stream is told something.
    async fn seen(&self, stream: &Stream) -> Result<Seen, Status> {
        loop {
            let responses = tokio::select! {
                responses = stream.told(ONE_RESPONSE_BYTES) => responses,
                () = self.local.stopping() => return Err(status::of_kv(KvError::Stopped)),
            };
            for response in responses {
                if response.canceled {
                    return match response.compact_revision {
                        0 => Err(status::of_kv(KvError::RequestTooManyRequests)),
                        _ => Ok(Seen::Compacted),
                    };
                }
                if !response.events.is_empty() {
                    let (revision, events) = (response.revision, response.events);
                    return Ok(Seen::Events { revision, events });
                }
            }
        }
    }

    /// The read of the one that was created first.
    fn oldest(&self) -> RangeRequest {
        RangeRequest {
            key: self.prefix.clone(),
            range_end: self.end(),
            limit: 1,
            sort_order: SortOrder::Ascend,
            sort_target: SortTarget::Create,
            ..RangeRequest::default()
        }
    }

    /// The end of the interval of all keys of the line.
    fn end(&self) -> Bytes {
        let mut end = self.prefix.to_vec();
        if let Some(slash) = end.last_mut() {
            *slash += 1;
        }
        end.into()
    }

    async fn read(&self, range: RangeRequest) -> Result<RangeResponse, Status> {
        self.local.read(move |store| store.range(&range)).await
    }
}

/// Who is first in a line, one after the other.
pub(crate) struct Leaders {
    line: Line,
    /// Tells what becomes of the one that is first, if that is known.
    reign: Option<Stream>,
    /// Whose change was told last, and its revision.
    told: (Bytes, i64),
    next: VecDeque<(KeyValue, i64)>,
}

impl Leaders {
    /// The one that is first, then each change of its value, and each later one that is first; with
    /// the revision as of which that is known. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<(KeyValue, i64), Status> {
        loop {
            if let Some(next) = self.next.pop_front() {
                return Ok(next);
            }
            let Some(reign) = &self.reign else {
                let (first, revision) = self.line.any_leader().await?;
                let reign = vec![from(&first.key, first.mod_revision + 1)];
                self.reign = Some(self.line.watch(reign).await?);
                // Whoever comes first after another may have been changed last before that one.
                if self.told.0 != first.key || self.told.1 < first.mod_revision {
                    self.told = (first.key.clone(), first.mod_revision);
                    self.next.push_back((first, revision));
                }
                continue;
            };
            match self.line.seen(reign).await? {
                Seen::Compacted => self.reign = None,
                Seen::Events { revision, events } => {
                    for event in events {
                        if event.kind == EventKind::Delete {
                            self.reign = None;
                            break;
                        }
                        self.told = (event.kv.key.clone(), event.kv.mod_revision);
                        self.next.push_back((event.kv.clone(), revision));
                    }
                }
            }
        }
    }
}

/// What is told of a key from a revision on.
fn from(key: &Bytes, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: key.clone(), start_revision, ..WatchCreateRequest::default() }
}

fn was_created(key: &Bytes, revision: i64) -> Compare {
    Compare { target: CompareTarget::Create(revision), key: key.clone(), ..Compare::default() }
}

async fn change(local: &Local, txn: TxnRequest) -> Result<TxnResponse, Status> {
    let command = Command::Txn(txn);
    command.validate(&quorate_kv::Limits::default()).map_err(status::of_kv)?;
    local.check_quota(&command).await?;
    match local.propose(&command).await? {
        Response::Txn(answer) => Ok(answer),
        other => Err(mismatched("a transaction", &other)),
    }
}

/// The machine answered something else than was asked.
fn mismatched(asked: &str, answer: &Response) -> Status {
    tracing::error!(?answer, "the machine gave no answer to {asked}");
    status::of_kv(KvError::Corrupt)
}

/// A lease in its key's name, with a sign where it is negative.
fn hex(lease: i64) -> String {
    let sign = if lease < 0 { "-" } else { "" };
    format!("{sign}{:x}", lease.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_named_as_clients_name_them() {
        for (lease, want) in [
            (1, "1"),
            (0x3269_5410_dcc0_ca06, "32695410dcc0ca06"),
            (-5, "-5"),
            (i64::MAX, "7fffffffffffffff"),
            (i64::MIN, "-8000000000000000"),
        ] {
            assert_eq!(hex(lease), want);
        }
    }
}
