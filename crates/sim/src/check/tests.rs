//! Each checker can fail: what is right passes, and what is wrong does not.

use std::sync::Arc;

use bytes::BytesMut;
use quorate_kv::{
    Command, Event, EventKind, KeyValue, LeaseGrantResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, Response, WatchResponse,
};
use quorate_replica::{Applying, RequestId, seal};
use quorate_types::{Index, NodeId, Term};

use super::Finding;
use super::applied::Applied;
use super::history::Clients;
use super::leases::Leases;
use super::queues;
use super::watches::{Change, Changes};
use crate::node::{Ask, Said};
use crate::watching::Watched;

fn put(value: &'static str) -> Command {
    let (key, value) = ("k".into(), value.into());
    Command::Put(PutRequest { key, value, ..PutRequest::default() })
}

fn entry(index: u64, request: u64, command: &Command) -> Applying {
    let mut entry = BytesMut::new();
    seal(RequestId(request), &mut entry);
    command.encode(&mut entry);
    Applying::Command { index: Index(index), term: Term(1), entry: entry.freeze() }
}

#[test]
fn an_entry_that_differs_and_a_request_that_is_applied_twice_are_found() {
    let (one, two) = (put("1"), put("2"));
    for (entries, refused, is_right) in [
        (vec![entry(2, 7, &one), entry(3, 8, &two)], None, true),
        (vec![entry(2, 7, &one), entry(2, 7, &one)], None, true), // by another member
        (vec![entry(2, 7, &one), entry(2, 7, &two)], None, false),
        (vec![entry(2, 7, &one), entry(4, 8, &two)], None, false),
        (vec![entry(2, 7, &one), entry(3, 7, &one)], None, false),
        (vec![entry(2, 7, &one)], Some(7), false),
        (vec![entry(2, 7, &one)], Some(8), true),
    ] {
        let mut applied = Applied::default();
        let mut finding: Finding = refused.map_or(Ok(()), |id| applied.on_refused(RequestId(id)));
        for entry in &entries {
            finding = finding.and_then(|()| applied.on_apply(NodeId(1), entry).map(drop));
        }
        assert_eq!(finding.is_ok(), is_right, "{entries:?} refused {refused:?}: {finding:?}");
    }
}

/// One client asks for a put, and another reads; the read shows this revision.
fn put_and_read(is_committed: bool, is_answered: bool, shown: i64) -> Finding {
    let mut clients = Clients::default();
    let command = put("1");
    clients.on_ask(1, 0, &Ask::Change(command.clone()));
    clients.on_proposed(RequestId(7), 1);
    if is_committed {
        clients.on_commit(1, &entry(2, 7, &command))?;
    }
    if is_answered {
        let answer = Response::Put(PutResponse { revision: 2, prev_kv: None });
        clients.on_said(1, 2, &Said::Changed(Ok(answer)))?;
    }
    let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    clients.on_ask(2, 3, &Ask::Read(range));
    let pair = KeyValue {
        key: "k".into(),
        value: "1".into(),
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        ..KeyValue::default()
    };
    let kvs = if shown == 2 { vec![pair] } else { Vec::new() };
    let count = kvs.len() as i64;
    let answer = RangeResponse { revision: shown, kvs, count, more: false };
    clients.on_said(2, 4, &Said::Read(Ok(answer)))
}

#[test]
fn a_stale_read_and_an_answer_without_a_commit_are_found() {
    for (is_committed, is_answered, shown, is_right) in [
        (true, true, 2, true),
        (true, true, 1, false), // after it was seen
        (true, false, 1, true), // it may still be under way
        (true, false, 2, true),
        (false, false, 2, false),
        (false, true, 1, false), // acknowledged, and nowhere
    ] {
        let finding = put_and_read(is_committed, is_answered, shown);
        let case = (is_committed, is_answered, shown);
        assert_eq!(finding.is_ok(), is_right, "{case:?}: {finding:?}");
    }
}

#[test]
fn leases_that_end_early_or_live_on_after_their_end_are_found() {
    const SECOND: u64 = 1_000_000;
    // Granted at 0 for 10 s, it ends, and is renewed, at these seconds.
    for (drift_permille, ends, renewed, is_right) in [
        (0, 10, None, true),
        (0, 9, None, false),
        (100, 9, None, false),
        (100, 10, None, true),
        (500, 2, None, true), // by such clocks nobody can be held to it
        (0, 12, Some(5), false),
        (0, 15, Some(5), true),
        (0, 10, Some(11), false), // gone already
    ] {
        let mut leases = Leases::default();
        leases.allow_drift(drift_permille);
        let grant = Command::LeaseGrant { id: 1, ttl_seconds: 10 };
        let granted = LeaseGrantResponse { revision: 1, id: 1, ttl_seconds: 10 };
        let granted = Ok(Response::LeaseGrant(granted));
        leases.on_commit(1, &grant, &granted).unwrap();
        let mut finding = leases.on_promise(1, 0);
        let end = Command::LeaseExpire { id: 1, granted: Index(2), term: Term(1) };
        let renew = |leases: &mut Leases| {
            renewed.map_or(Ok(()), |at: u64| leases.on_promise(1, at * SECOND))
        };
        if renewed.is_some_and(|at| at < ends) {
            finding = finding.and_then(|()| renew(&mut leases));
        }
        finding = finding.and_then(|()| leases.on_commit(ends * SECOND, &end, &granted));
        assert_eq!(leases.alive(), 0);
        if renewed.is_some_and(|at| ends <= at) {
            finding = finding.and_then(|()| renew(&mut leases));
        }
        let case = (drift_permille, ends, renewed);
        assert_eq!(finding.is_ok(), is_right, "{case:?}: {finding:?}");
    }
    assert!(Leases::default().on_promise(1, 0).is_err(), "it was never granted");
}

#[test]
fn watchers_that_miss_something_or_hear_it_twice_are_found() {
    let pair = |revision: i64| KeyValue {
        key: "k".into(),
        value: revision.to_string().into(),
        mod_revision: revision,
        ..KeyValue::default()
    };
    let change = |revision: i64| Change {
        revision,
        key: "k".into(),
        before: (2 < revision).then(|| pair(revision - 1)),
        after: Some(pair(revision)),
    };
    let mut changes = Changes::default();
    changes.extend((2..=4).map(change));
    let tell = |events: &[(i64, i64)], revision| {
        let event = |(revision, before): &(i64, i64)| {
            let prev_kv = (1 < *before).then(|| pair(*before));
            Arc::new(Event { kind: EventKind::Put, kv: pair(*revision), prev_kv })
        };
        let events = events.iter().map(event).collect();
        WatchResponse { revision, events, ..WatchResponse::default() }
    };
    for (told, is_right) in [
        (vec![tell(&[(2, 1), (3, 2)], 3), tell(&[(4, 3)], 4)], true),
        (vec![tell(&[(2, 1), (3, 2), (4, 3)], 4)], true),
        (vec![tell(&[(2, 1), (4, 3)], 4)], false),
        (vec![tell(&[(3, 2)], 3)], false),
        (vec![tell(&[(2, 1)], 3), tell(&[(2, 1)], 3)], false),
        (vec![tell(&[(3, 2), (2, 1)], 3)], false),
        (vec![tell(&[(2, 1), (3, 3)], 3)], false), // not the pair before
        (vec![tell(&[(2, 1), (3, 2), (4, 3)], 5)], false), // of what is not committed
        (vec![tell(&[], 3)], false),               // says that there is nothing
        (vec![tell(&[], 1)], true),
    ] {
        let mut watched = Watched { key: "k".into(), prev_kv: true, next: 2, ..Watched::default() };
        let mut finding = Ok(());
        for response in &told {
            finding = finding.and_then(|()| changes.on_told(&mut watched, response, 4, -1));
        }
        assert_eq!(finding.is_ok(), is_right, "{told:?}: {finding:?}");
    }
}

#[test]
fn what_grows_beyond_its_bound_is_found() {
    assert!(queues::check(NodeId(1), 10, 10).is_ok());
    assert!(queues::check(NodeId(1), 1_000_000, 10).is_err());
    assert!(queues::check(NodeId(1), 10, 1_000_000).is_err());
    assert!(queues::check_events(1_000).is_ok() && queues::check_events(1_000_000).is_err());
    assert!(queues::check_log(NodeId(1), 8, 8).is_ok());
    assert!(queues::check_log(NodeId(1), 9, 8).is_err());
}
