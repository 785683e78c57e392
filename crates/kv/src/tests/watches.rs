//! Watching: rule by rule, and random watchers of random histories.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;

/// A member with watchers.
struct Watched {
    node: Node,
    watches: Watches,
    stream: StreamId,
}

impl Watched {
    fn new() -> Self {
        Watched::with(WatchLimits::default())
    }

    fn with(limits: WatchLimits) -> Self {
        let node = Node::new();
        let mut watches = Watches::new(limits, &node.store);
        let stream = watches.open();
        Watched { node, watches, stream }
    }

    fn create(&mut self, request: WatchCreateRequest) {
        self.watches.create(self.stream, request, &self.node.store).unwrap();
    }

    /// All that the stream is told by now.
    fn told(&mut self) -> Vec<WatchResponse> {
        let mut told = Vec::new();
        loop {
            let more = self.watches.advance(&self.node.store).unwrap();
            let before = told.len();
            while let Some(response) = self.watches.take(self.stream) {
                told.push(response);
            }
            if !more && told.len() == before && !self.watches.is_behind() {
                return told;
            }
        }
    }

    /// Likewise, as texts.
    fn texts(&mut self) -> Vec<String> {
        self.told().iter().map(text).collect()
    }
}

#[test]
fn changes_are_not_read_for_nobody_and_a_watcher_begins_after_them() {
    let mut watched = Watched::new();
    for number in 0..2500 {
        watched.node.put("a", &number.to_string());
    }
    assert_eq!(watched.watches.advance(&watched.node.store), Ok(false), "one step is all");
    watched.create(watch("a", ""));
    watched.node.put("a", "last");
    let told = watched.told();
    assert_eq!(told.len(), 2, "that it was created, and the one change after that");
    assert_eq!(told[1].events.len(), 1);
}

fn watch(key: &str, end: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

fn from(start_revision: i64, request: WatchCreateRequest) -> WatchCreateRequest {
    WatchCreateRequest { start_revision, ..request }
}

/// `watch id @ revision: what it says`.
fn text(response: &WatchResponse) -> String {
    let mut text = format!("{}@{}:", response.watch_id, response.revision);
    if response.created {
        text += " created";
    }
    if response.canceled {
        text += " canceled";
    }
    if response.compact_revision != 0 {
        text += &format!(" compacted {}", response.compact_revision);
    }
    if !response.cancel_reason.is_empty() {
        text += &format!(" ({})", response.cancel_reason);
    }
    for event in &response.events {
        let pair = |kv: &KeyValue| {
            let part = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            format!("{}={}", part(&kv.key), part(&kv.value))
        };
        text += match event.kind {
            EventKind::Put => " +",
            EventKind::Delete => " -",
        };
        text += &format!("{}@{}", pair(&event.kv), event.kv.mod_revision);
        if let Some(prev_kv) = &event.prev_kv {
            text += &format!("<{}@{}", pair(prev_kv), prev_kv.mod_revision);
        }
    }
    if response.fragment {
        text += " ...";
    }
    text
}

#[test]
fn every_creation_is_answered_and_ids_are_not_given_twice() {
    let mut watched = Watched::new();
    let with_id = |watch_id| WatchCreateRequest { watch_id, ..watch("a", "") };
    for id in [0, 2, 0, 0, -5] {
        watched.create(with_id(id));
    }
    let created = |ids: &[i64]| ids.iter().map(|id| format!("{id}@1: created")).collect::<Vec<_>>();
    assert_eq!(watched.texts(), created(&[0, 2, 1, 3, -5]));
    watched.watches.cancel(watched.stream, 0, &watched.node.store);
    watched.watches.cancel(watched.stream, 0, &watched.node.store);
    watched.watches.cancel(watched.stream, 99, &watched.node.store);
    assert_eq!(watched.texts(), ["0@1: canceled"]);
    watched.create(with_id(0));
    watched.create(with_id(2));
    let duplicate = "mvcc: duplicate watch ID provided on the WatchStream";
    let refused = format!("-1@1: created canceled ({duplicate})");
    assert_eq!(watched.texts(), ["4@1: created".to_owned(), refused]);
    assert_eq!(watched.watches.watchers_count(), 5);
    watched.watches.close(watched.stream);
    assert_eq!((watched.watches.watchers_count(), watched.watches.streams_count()), (0, 0));
    assert!(watched.watches.take(watched.stream).is_none());
}

#[test]
fn responses_are_taken_in_their_order_by_the_bytes_they_hold() {
    let mut watched = Watched::new();
    watched.create(watch("k", ""));
    watched.told();
    for _ in 0..5 {
        watched.node.put("k", &"v".repeat(1000));
    }
    while watched.watches.advance(&watched.node.store).unwrap() {}
    let mut take = |bytes_max| {
        let taken = watched.watches.take_many(watched.stream, bytes_max);
        taken.iter().map(|response| response.revision).collect::<Vec<_>>()
    };
    assert_eq!(take(0), [0; 0]);
    assert_eq!(take(1), [2], "one at least");
    assert_eq!(take(2000), [3, 4], "one that is over the limit is the last");
    assert_eq!(take(usize::MAX), [5, 6]);
    assert_eq!(take(usize::MAX), [0; 0]);
    assert_eq!(watched.watches.outbox_bytes(watched.stream), 0);
}

#[test]
fn what_cannot_be_watched_is_refused_and_the_stream_goes_on() {
    let empty = Some("mvcc: watcher range is empty");
    let compacted = Some("etcdserver: mvcc: required revision has been compacted");
    for (request, refusal) in [
        (watch("", ""), None),
        (watch("", "\0"), None),
        (watch("b", "\0"), None),
        (watch("b", "c"), None),
        (watch("b", "b"), empty),
        (watch("b", "a"), empty),
        (watch("b", "\0\0"), empty),
        (from(-1, watch("b", "")), compacted),
        (from(i64::MIN, watch("b", "a")), compacted),
        (from(i64::MAX, watch("b", "")), None),
    ] {
        let mut watched = Watched::new();
        watched.create(request.clone());
        let want = match refusal {
            Some(refusal) => format!("-1@1: created canceled ({refusal})"),
            None => "0@1: created".to_owned(),
        };
        assert_eq!(watched.texts(), [want], "{request:?}");
        watched.create(watch("z", ""));
        let next = if refusal.is_some() { 0 } else { 1 };
        assert_eq!(watched.texts(), [format!("{next}@1: created")], "{request:?}");
    }
    let mut watched = Watched::with(WatchLimits { watchers_max: 1, ..WatchLimits::default() });
    watched.create(watch("a", ""));
    watched.create(watch("b", ""));
    let refused = "-1@1: created canceled (etcdserver: too many requests)";
    assert_eq!(watched.texts(), ["0@1: created", refused]);
    // Their keys together may take no more either; what ends makes room.
    let mut watched = Watched::with(WatchLimits { keys_bytes_max: 5, ..WatchLimits::default() });
    watched.create(watch("aaa", "bbb"));
    watched.create(watch("aaa", "bb"));
    watched.create(watch("a", ""));
    assert_eq!(watched.texts(), [refused, "0@1: created", refused]);
    watched.watches.cancel(watched.stream, 0, &watched.node.store);
    watched.create(watch("aaa", "\0"));
    watched.create(watch("aa", ""));
    watched.create(watch("a", ""));
    let created = ["0@1: canceled", "1@1: created", "2@1: created", refused];
    assert_eq!(watched.texts(), created);
}

#[test]
fn each_revision_is_told_whole_and_in_its_order() {
    let mut watched = Watched::new();
    watched.node.put("old", "1");
    watched.create(watch("\0", "\0"));
    watched.create(watch("b", ""));
    watched.create(watch("a", "b"));
    watched.told();
    let success = ["c", "a", "b"].map(|key| RequestOp::Put(put(key, "1"))).to_vec();
    watched.node.txn(TxnRequest { success, ..TxnRequest::default() }).unwrap();
    watched.node.put("b", "2");
    watched.node.delete("a", "c");
    watched.node.delete("x", ""); // nothing
    let told = watched.texts();
    let of = |id: &str| -> Vec<&str> {
        told.iter().filter(|text| text.starts_with(id)).map(String::as_str).collect()
    };
    let deletes = "0@5: -a=@5 -b=@5";
    assert_eq!(of("0"), ["0@3: +c=1@3 +a=1@3 +b=1@3", "0@4: +b=2@4", deletes]);
    assert_eq!(of("1"), ["1@3: +b=1@3", "1@4: +b=2@4", "1@5: -b=@5"]);
    assert_eq!(of("2"), ["2@3: +a=1@3", "2@5: -a=@5"]);
    assert_eq!(told.len(), 8);
}

#[test]
fn an_event_says_what_etcd_says() {
    let mut watched = Watched::new();
    watched.node.grant(7, 10).unwrap();
    watched.create(WatchCreateRequest { prev_kv: true, ..watch("k", "") });
    watched.create(watch("k", ""));
    watched.told();
    watched.node.put_leased("k", 7);
    watched.node.put("k", "2");
    watched.node.put_leased("k", 7);
    watched.node.run(&Command::LeaseRevoke { id: 7 }).unwrap();
    let told = watched.told();
    let stored = |version, value, lease| KeyValue {
        key: bytes("k"),
        create_revision: 2,
        mod_revision: version + 1,
        version,
        value: bytes(value),
        lease,
    };
    let (first, second, third) = (stored(1, "", 7), stored(2, "2", 0), stored(3, "", 7));
    let gone = KeyValue { key: bytes("k"), mod_revision: 5, ..KeyValue::default() };
    for (id, prev) in [(0, true), (1, false)] {
        let events: Vec<Event> = told
            .iter()
            .filter(|response| response.watch_id == id)
            .flat_map(|response| response.events.iter().map(|event| (**event).clone()))
            .collect();
        let event = |kind, kv: &KeyValue, prev_kv: Option<&KeyValue>| {
            let prev_kv = prev_kv.filter(|_| prev).cloned();
            Event { kind, kv: kv.clone(), prev_kv }
        };
        let want = [
            event(EventKind::Put, &first, None),
            event(EventKind::Put, &second, Some(&first)),
            event(EventKind::Put, &third, Some(&second)),
            event(EventKind::Delete, &gone, Some(&third)),
        ];
        assert_eq!(events, want);
    }
}

#[test]
fn filters_leave_out_and_what_is_left_empty_is_not_sent() {
    let mut watched = Watched::new();
    let filtered = |no_put, no_delete| WatchCreateRequest { no_put, no_delete, ..watch("a", "z") };
    for (no_put, no_delete) in [(true, false), (false, true), (true, true)] {
        watched.create(filtered(no_put, no_delete));
    }
    watched.told();
    watched.node.put("a", "1");
    watched.node.delete("a", "");
    assert_eq!(watched.texts(), ["1@2: +a=1@2", "0@3: -a=@3"]);
    for (no_put, no_delete) in [(true, false), (false, true), (true, true)] {
        watched.create(from(1, filtered(no_put, no_delete)));
    }
    let told = watched.texts();
    assert_eq!(told[3..], ["3@3: -a=@3", "4@3: +a=1@2"]);
}

/// Keys a to e put at 2 to 6; a deleted at 7; c put at 8.
fn history() -> Watched {
    let mut watched = Watched::new();
    for key in ["a", "b", "c", "d", "e"] {
        watched.node.put(key, "1");
    }
    watched.node.delete("a", "");
    watched.node.put("c", "2");
    watched
}

#[test]
fn the_past_is_told_and_then_the_present() {
    let mut watched = history();
    for start in [2, 7, 8, 9, 11] {
        watched.create(from(start, watch("a", "d")));
    }
    let told = watched.texts();
    let created = |id: i64| format!("{id}@8: created");
    assert_eq!(told[..5], (0..5).map(created).collect::<Vec<_>>());
    let past = ["0@8: +a=1@2 +b=1@3 +c=1@4 -a=@7 +c=2@8", "1@8: -a=@7 +c=2@8", "2@8: +c=2@8"];
    assert_eq!(told[5..], past);
    for value in ["3", "4", "5"] {
        watched.node.put("a", value);
    }
    let mut told = watched.texts();
    told.sort();
    let live = |id: i64, revision: i64| format!("{id}@{revision}: +a={}@{revision}", revision - 6);
    let mut want: Vec<String> =
        (0..4).flat_map(|id| (9..=11).map(move |revision| live(id, revision))).collect();
    want.push(live(4, 11));
    want.sort();
    assert_eq!(told, want, "nothing below where it starts");
}

#[test]
fn history_comes_from_wherever_it_is() {
    // In storage, being flushed, waiting for a flush, and in memory of the last changes.
    for flushed_at in [None, Some(2), Some(5), Some(8)] {
        for reopened in [false, true] {
            let disk = MemoryBackend::new();
            let mut node = Node::on(disk.clone());
            for number in 2..=8 {
                node.put("k", &number.to_string());
                if flushed_at == Some(number) {
                    node.store.flush().unwrap();
                }
            }
            if reopened {
                node.store = Store::open(disk).unwrap();
                node.store.apply(&node.log).unwrap();
            }
            let mut watches = Watches::new(WatchLimits::default(), &node.store);
            let stream = watches.open();
            let mut watched = Watched { stream, node, watches };
            for start in 2..=8 {
                watched.create(from(start, watch("k", "")));
                let told: Vec<i64> = watched
                    .told()
                    .iter()
                    .flat_map(|response| response.events.iter().map(|one| one.kv.mod_revision))
                    .collect();
                let want: Vec<i64> = (start..=8).collect();
                assert_eq!(told, want, "flushed at {flushed_at:?}, reopened {reopened}");
            }
        }
    }
}

#[test]
fn long_histories_come_in_steps() {
    let mut watched = Watched::new();
    for number in 0..2500 {
        watched.node.put(&format!("k{}", number % 2), "v");
    }
    watched.create(from(2, watch("k0", "")));
    watched.create(from(2, watch("k", "l")));
    let told = watched.told();
    let sizes = |id| -> Vec<usize> {
        let of = told.iter().filter(|response| response.watch_id == id && !response.created);
        of.map(|response| response.events.len()).collect()
    };
    assert_eq!(sizes(0), [500, 500, 250]);
    assert_eq!(sizes(1), [1000, 1000, 500]);
    assert!(told.iter().all(|response| response.revision == 2501));
}

#[test]
fn what_is_compacted_is_not_told_and_that_is_said() {
    let mut watched = history();
    watched.create(watch("z", ""));
    watched.told();
    watched.node.compact(7).unwrap();
    while !watched.node.store.compact_step(1).unwrap() {}
    watched.node.store.flush().unwrap();
    for start in [1, 6, 7, 8] {
        watched.create(from(start, WatchCreateRequest { prev_kv: true, ..watch("a", "d") }));
    }
    let want = [
        "1@8: created",
        "1@0: canceled compacted 7",
        "2@8: created",
        "2@0: canceled compacted 7",
        "3@8: created",
        "4@8: created",
        // Exactly there a deletion is still known; what was before it is not.
        "3@8: -a=@7 +c=2@8<c=1@4",
        "4@8: +c=2@8<c=1@4",
    ];
    assert_eq!(watched.texts(), want);
    assert_eq!(watched.watches.watchers_count(), 3, "those that ended are gone");
}

#[test]
fn who_keeps_up_does_not_mind_compaction() {
    let mut watched = Watched::new();
    watched.create(watch("k", ""));
    watched.told();
    for number in 0..5 {
        watched.node.put("k", &number.to_string());
    }
    watched.node.compact(6).unwrap();
    while !watched.node.store.compact_step(100).unwrap() {}
    watched.node.store.flush().unwrap();
    let want: Vec<String> =
        (0..5).map(|number| format!("0@{0}: +k={number}@{0}", number + 2)).collect();
    assert_eq!(watched.texts(), want);
}

#[test]
fn long_responses_are_cut_for_who_wants_that() {
    let limits = WatchLimits { response_bytes_max: 1000, ..WatchLimits::default() };
    let mut watched = Watched::with(limits);
    watched.create(WatchCreateRequest { fragment: true, ..watch("a", "z") });
    watched.create(watch("a", "z"));
    watched.told();
    let success = (0..5).map(|key| RequestOp::Put(put(&format!("k{key}"), &"v".repeat(250))));
    watched.node.txn(TxnRequest { success: success.collect(), ..TxnRequest::default() }).unwrap();
    watched.node.put("k", &"v".repeat(5000));
    let shape: Vec<(i64, i64, usize, bool)> = watched
        .told()
        .iter()
        .map(|one| (one.watch_id, one.revision, one.events.len(), one.fragment))
        .collect();
    let want = [
        (0, 2, 2, true),
        (0, 2, 2, true),
        (0, 2, 1, false),
        (1, 2, 5, false),
        (0, 3, 1, false), // at least one event in each
        (1, 3, 1, false),
    ];
    assert_eq!(shape, want);
}

#[test]
fn progress_is_told_to_who_asks_when_all_is_told() {
    let mut watched = Watched::new();
    let (stream, other) = (watched.stream, watched.watches.open());
    let ask = |watched: &mut Watched| {
        watched.watches.progress(stream, &watched.node.store).unwrap();
        watched.texts()
    };
    assert_eq!(ask(&mut watched), [""; 0], "nobody watches");
    watched.create(watch("a", ""));
    watched.told();
    assert_eq!(ask(&mut watched), ["-1@1:"]);
    watched.node.put("a", "1");
    watched.node.put("b", "1");
    assert_eq!(ask(&mut watched), ["0@2: +a=1@2", "-1@3:"], "events first");
    // One that is behind, and one that waits for the future, hold it back.
    watched.create(from(1, watch("a", "")));
    watched.watches.progress(stream, &watched.node.store).unwrap();
    assert_eq!(watched.texts(), ["1@3: created", "1@3: +a=1@2"]);
    assert_eq!(ask(&mut watched), ["-1@3:"]);
    watched.create(from(9, watch("a", "")));
    assert_eq!(ask(&mut watched), ["2@3: created"]);
    watched.watches.cancel(stream, 2, &watched.node.store);
    assert_eq!(ask(&mut watched), ["2@3: canceled", "-1@3:"]);
    assert_eq!(watched.watches.take(other), None, "other streams hear nothing");
}

#[test]
fn progress_is_told_now_and_then_to_who_is_quiet() {
    let mut watched = Watched::new();
    let notified = |request| WatchCreateRequest { progress_notify: true, ..request };
    watched.create(notified(watch("a", "")));
    watched.create(watch("a", ""));
    watched.create(notified(from(5, watch("b", ""))));
    watched.told();
    let tick = |watched: &mut Watched| {
        watched.watches.notify_progress();
        watched.texts()
    };
    assert_eq!(tick(&mut watched), ["0@1:"]);
    assert_eq!(tick(&mut watched), ["0@1:"]);
    watched.node.put("a", "1");
    assert_eq!(watched.texts(), ["0@2: +a=1@2", "1@2: +a=1@2"]);
    assert_eq!(tick(&mut watched), [""; 0], "there was an event");
    for _ in 0..3 {
        watched.node.put("z", "1");
    }
    watched.told();
    assert_eq!(tick(&mut watched), ["0@5:", "2@5:"], "the future has come");
}

#[test]
fn a_slow_stream_costs_a_mark_and_loses_nothing() {
    let limits = WatchLimits { stream_bytes_max: 20_000, ..WatchLimits::default() };
    let mut watched = Watched::with(limits);
    let slow = watched.watches.open();
    for stream in [slow, watched.stream] {
        for _ in 0..3 {
            watched.watches.create(stream, watch("k", ""), &watched.node.store).unwrap();
        }
    }
    watched.told();
    for number in 0..1000 {
        watched.node.put("k", &number.to_string().repeat(100));
        let told = watched.told();
        assert_eq!(told.len(), 3, "who reads gets all at once");
    }
    assert!(!watched.watches.has_room(slow));
    assert_eq!((watched.watches.slow_count(), watched.watches.is_behind()), (3, false));
    let waiting = |watched: &Watched| watched.watches.outbox_bytes(slow);
    assert!(waiting(&watched) < 30_000);
    // It begins to read, and gets each event once, in order.
    let mut next = BTreeMap::from([(0, 2), (1, 2), (2, 2)]);
    let mut taken = 0;
    loop {
        while let Some(response) = watched.watches.take(slow) {
            taken += 1;
            for event in &response.events {
                let next = next.get_mut(&response.watch_id).unwrap();
                assert_eq!(event.kv.mod_revision, *next);
                *next += 1;
            }
            if taken % 5 == 0 {
                watched.watches.advance(&watched.node.store).unwrap();
                assert!(waiting(&watched) < 20_000 + 3 * 140_000);
            }
        }
        if !watched.watches.advance(&watched.node.store).unwrap()
            && next.values().all(|at| *at == 1002)
        {
            break;
        }
    }
    assert_eq!(watched.watches.slow_count(), 0);
    // What it has missed is compacted, and too long ago to be in memory: it hears of that.
    for _ in 0..100 {
        watched.node.put("k", &"v".repeat(100_000));
    }
    watched.told();
    watched.node.compact(1101).unwrap();
    let mut ends = Vec::new();
    loop {
        let more = watched.watches.advance(&watched.node.store).unwrap();
        match watched.watches.take(slow) {
            Some(response) if response.canceled => ends.push(text(&response)),
            Some(_) => {}
            None if !more => break,
            None => {}
        }
    }
    let want: Vec<String> = (0..3).map(|id| format!("{id}@0: canceled compacted 1101")).collect();
    assert_eq!(ends, want);
}

#[test]
fn many_streams_share_what_may_wait() {
    let limits = WatchLimits { total_bytes_max: 1 << 20, ..WatchLimits::default() };
    let mut watched = Watched::with(limits);
    let streams: Vec<StreamId> = (0..100).map(|_| watched.watches.open()).collect();
    for stream in &streams {
        watched.watches.create(*stream, watch("k", ""), &watched.node.store).unwrap();
    }
    for _ in 0..100 {
        watched.node.put("k", &"v".repeat(1000));
        while watched.watches.advance(&watched.node.store).unwrap() {}
    }
    let waiting: usize = streams.iter().map(|stream| watched.watches.outbox_bytes(*stream)).sum();
    assert!(waiting < 100 * ((16 << 10) + 2000), "{waiting}");
}

#[test]
fn a_restored_state_is_told_from_where_each_watcher_was() {
    for (compacted, want) in [
        (None, &["0@6: +k=x@4 +k=x@5 +k=x@6"][..]),
        (Some(3), &["0@6: +k=x@4 +k=x@5 +k=x@6"]),
        (Some(4), &["0@6: +k=x@4 +k=x@5 +k=x@6"]),
        (Some(5), &["0@0: canceled compacted 5"]),
    ] {
        let mut watched = Watched::new();
        watched.create(watch("k", ""));
        watched.create(from(9, watch("k", "")));
        for _ in 2..=3 {
            watched.node.put("k", "x");
        }
        watched.told();
        // Another member goes on, and this one gets its state.
        let mut other = Node::new();
        for _ in 2..=6 {
            other.put("k", "x");
        }
        if let Some(revision) = compacted {
            other.compact(revision).unwrap();
            while !other.store.compact_step(10).unwrap() {}
        }
        let mut copy = MemoryBackend::new();
        super::snapshots::copy(&other.store.snapshot().unwrap(), &mut copy);
        watched.node.store.replace(copy).unwrap();
        let told = watched.told();
        let told: Vec<String> = told
            .iter()
            .map(|response| match response.events.is_empty() {
                true => text(response),
                // Whether they come together or one by one is all the same here.
                false => text(&WatchResponse { revision: 6, ..response.clone() }),
            })
            .collect();
        let joined = told.join(" ").replace(" 0@6:", "");
        assert_eq!(joined, want.join(" "), "{compacted:?}");
        for _ in 7..=9 {
            other.put("k", "x");
        }
        watched.node.store.apply(&other.log).unwrap();
        let told = watched.texts();
        assert_eq!(told.last().unwrap(), "1@9: +k=x@9", "who waits for the future still does");
    }
}

#[test]
fn ten_thousand_watchers_are_cheap() {
    let mut watched = Watched::new();
    let streams: Vec<StreamId> = (0..10).map(|_| watched.watches.open()).collect();
    for number in 0..10_000_usize {
        let key = format!("k{number:05}");
        let request =
            if number % 2 == 0 { watch(&key, "") } else { watch(&key, &format!("{key}z")) };
        watched.watches.create(streams[number % 10], request, &watched.node.store).unwrap();
    }
    for number in 0..2000 {
        watched.node.put(&format!("k{:05}", number * 5), "v");
    }
    while watched.watches.advance(&watched.node.store).unwrap() {}
    let mut events = 0;
    for stream in streams {
        while let Some(response) = watched.watches.take(stream) {
            events += response.events.len();
        }
    }
    assert_eq!(events, 2000);
}

/// What a client has heard of one watcher.
struct Heard {
    request: WatchCreateRequest,
    /// The first revision it may hear of.
    start: i64,
    /// The last revision it heard of, or was promised to have heard of.
    last: i64,
    events: Vec<Arc<Event>>,
    ended: Option<i64>,
    in_fragments: bool,
}

#[test]
fn random_watchers_hear_everything_once_and_in_order() {
    for seed in 1..=15 {
        let heard = live(seed);
        assert!(20 < heard, "seed {seed}: {heard} events test little");
    }
}

fn live(seed: u64) -> usize {
    let mut dice = Dice(seed * 31);
    let limits = WatchLimits {
        response_bytes_max: 400,
        stream_bytes_max: 16 << 10,
        ..WatchLimits::default()
    };
    let mut watched = Watched::with(limits);
    // A member that does the same and keeps all history, to ask what was.
    let mut witness = Node::new();
    let streams = [watched.stream, watched.watches.open(), watched.watches.open()];
    let mut heard: BTreeMap<(StreamId, i64), Heard> = BTreeMap::new();
    let mut asked: BTreeMap<StreamId, Vec<WatchCreateRequest>> = BTreeMap::new();
    for _ in 0..600 {
        let revision = watched.node.store.revision();
        let stream = *dice.pick(&streams);
        match dice.roll(12) {
            0 => {
                let start = revision + 5 - dice.roll(20) as i64;
                let key = dice.pick::<&str>(&["a", "aa", "b", "c"]);
                let end = dice.pick::<&str>(&["", "\0", "b", "z"]);
                let request = WatchCreateRequest {
                    start_revision: if dice.one_in(2) { 0 } else { start.max(0) },
                    no_put: dice.one_in(6),
                    no_delete: dice.one_in(6),
                    prev_kv: dice.one_in(2),
                    fragment: dice.one_in(2),
                    ..watch(key, end)
                };
                asked.entry(stream).or_default().push(request.clone());
                watched.watches.create(stream, request, &watched.node.store).unwrap();
            }
            1 => {
                watched.watches.advance(&watched.node.store).unwrap();
            }
            2 => watched.watches.progress(stream, &watched.node.store).unwrap(),
            3 => watched.watches.notify_progress(),
            4 => {
                watched.node.store.compact_step(dice.roll(5) as usize).unwrap();
                watched.node.store.flush().unwrap();
            }
            5 | 6 => {
                for _ in 0..dice.roll(6) {
                    let Some(response) = watched.watches.take(stream) else { break };
                    hear(stream, response, &mut asked, &mut heard);
                }
            }
            _ => {
                let command = super::random::command(&mut dice, revision);
                if !matches!(command, Command::Compact(_)) || dice.one_in(3) {
                    let is_done = watched.node.run(&command).is_ok();
                    if is_done && !matches!(command, Command::Compact(_)) {
                        witness.run(&command).unwrap();
                    } else {
                        // Nothing, so that both logs have the same places.
                        witness.run(&Command::LeaseRevoke { id: 999 }).unwrap_err();
                    }
                }
            }
        }
    }
    // In the end all read to the end.
    loop {
        let more = watched.watches.advance(&watched.node.store).unwrap();
        let mut taken = 0;
        for stream in streams {
            while let Some(response) = watched.watches.take(stream) {
                taken += 1;
                hear(stream, response, &mut asked, &mut heard);
            }
        }
        if !more && taken == 0 && !watched.watches.is_behind() {
            break;
        }
    }
    let compacted = watched.node.store.compact_revision();
    let mut events = 0;
    for (who, heard) in &heard {
        check(heard, &witness, compacted, &format!("seed {seed}, {who:?}"));
        events += heard.events.len();
    }
    events
}

fn hear(
    stream: StreamId,
    response: WatchResponse,
    asked: &mut BTreeMap<StreamId, Vec<WatchCreateRequest>>,
    heard: &mut BTreeMap<(StreamId, i64), Heard>,
) {
    if response.created {
        let request = asked.get_mut(&stream).unwrap().remove(0);
        if !response.canceled {
            let start = match request.start_revision {
                0 => response.revision + 1,
                start => start,
            };
            let (last, events) = (start - 1, Vec::new());
            let new = Heard { request, start, last, events, ended: None, in_fragments: false };
            assert!(heard.insert((stream, response.watch_id), new).is_none());
        }
        return;
    }
    if response.watch_id == -1 {
        for ((of, _), one) in heard.iter_mut() {
            if *of == stream && one.ended.is_none() {
                one.last = one.last.max(response.revision);
            }
        }
        return;
    }
    let one = heard.get_mut(&(stream, response.watch_id)).unwrap();
    assert!(one.ended.is_none(), "nothing after the end");
    if response.canceled {
        one.ended = Some(response.compact_revision);
        return;
    }
    for event in &response.events {
        let revision = event.kv.mod_revision;
        // A revision is never split, unless in fragments; progress promised what it said.
        let is_same = one.events.last().is_some_and(|last| last.kv.mod_revision == revision);
        let is_first = std::ptr::eq(event, &response.events[0]);
        assert!(
            one.last < revision || (is_same && (!is_first || one.in_fragments)),
            "{response:?}"
        );
        one.last = one.last.max(revision);
        one.events.push(Arc::clone(event));
    }
    one.in_fragments = response.fragment;
    if response.events.is_empty() {
        assert!(0 < response.revision && one.start <= response.revision);
        one.last = one.last.max(response.revision);
    }
}

/// The events are exactly those that the witness knows of.
fn check(heard: &Heard, witness: &Node, compacted: i64, who: &str) {
    let request = &heard.request;
    let end = match heard.ended {
        Some(revision) => {
            assert!(heard.last + 1 < revision && revision <= compacted, "{who}");
            heard.last
        }
        None => witness.store.revision(),
    };
    let all_at = |revision: i64| -> BTreeMap<Bytes, KeyValue> {
        let range = RangeRequest {
            key: request.key.clone(),
            range_end: request.range_end.clone(),
            revision,
            ..RangeRequest::default()
        };
        let kvs = witness.store.range(&range).unwrap().kvs;
        kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect()
    };
    let mut places = heard.events.iter();
    for revision in heard.start.max(2)..=end {
        let (before, after) = (all_at(revision - 1), all_at(revision));
        let mut want: BTreeMap<Bytes, (EventKind, KeyValue)> = BTreeMap::new();
        for (key, kv) in &after {
            if kv.mod_revision == revision && !request.no_put {
                want.insert(key.clone(), (EventKind::Put, kv.clone()));
            }
        }
        for key in before.keys().filter(|key| !after.contains_key(*key) && !request.no_delete) {
            let gone = KeyValue { key: key.clone(), mod_revision: revision, ..KeyValue::default() };
            want.insert(key.clone(), (EventKind::Delete, gone));
        }
        for _ in 0..want.len() {
            let event = places.next().unwrap_or_else(|| panic!("{who}: too little at {revision}"));
            let (kind, kv) =
                want.remove(&event.kv.key).unwrap_or_else(|| panic!("{who}: {event:?}"));
            assert_eq!((event.kind, &event.kv), (kind, &kv), "{who}");
            match &event.prev_kv {
                Some(prev_kv) => {
                    assert!(request.prev_kv, "{who}");
                    assert_eq!(Some(prev_kv), before.get(&kv.key), "{who}");
                }
                None if request.prev_kv => {
                    let is_new = !before.contains_key(&kv.key);
                    assert!(is_new || revision <= compacted, "{who}: {event:?}");
                }
                None => {}
            }
        }
    }
    assert_eq!(places.next(), None, "{who}: too much");
}

/// A stream that has room for everything, and so many watchers of one key.
fn crowd(count: i64, start_revision: i64) -> Watched {
    let bytes_max = usize::MAX / 2;
    let mut watched = Watched::with(WatchLimits {
        stream_bytes_max: bytes_max,
        total_bytes_max: bytes_max,
        ..WatchLimits::default()
    });
    for number in 0..150 {
        if start_revision == 0 && number == 0 {
            break;
        }
        watched.node.put("a", &number.to_string());
    }
    for _ in 0..count {
        watched.create(from(start_revision, watch("a", "")));
    }
    while watched.watches.take(watched.stream).is_some() {}
    watched
}

/// Responses after one step.
fn step(watched: &mut Watched) -> (bool, usize) {
    let more = watched.watches.advance(&watched.node.store).unwrap();
    let told = std::iter::from_fn(|| watched.watches.take(watched.stream)).count();
    (more, told)
}

#[test]
fn a_step_is_bounded_however_many_watch_what_changed() {
    let mut watched = crowd(1000, 0);
    for number in 0..150 {
        watched.node.put("a", &number.to_string());
    }
    assert_eq!(step(&mut watched), (true, 100_000));
    assert_eq!(step(&mut watched), (false, 50_000));
}

#[test]
fn history_is_told_to_so_many_at_a_time() {
    let mut watched = crowd(1000, 1);
    let mut steps = vec![step(&mut watched)];
    while steps.last().unwrap().0 {
        steps.push(step(&mut watched));
    }
    // Each has all of it in one response.
    let told: Vec<usize> = steps.into_iter().map(|(_, told)| told).collect();
    assert_eq!(told.iter().sum::<usize>(), 1000, "{told:?}");
    assert!(told.iter().all(|told| *told <= 512), "{told:?}");
}

#[test]
fn who_waits_for_room_is_let_on_in_steps() {
    let limits = WatchLimits { stream_bytes_max: 64 << 10, ..WatchLimits::default() };
    let mut watched = Watched::with(limits);
    for _ in 0..2000 {
        watched.create(watch("a", ""));
        while watched.watches.take(watched.stream).is_some() {}
    }
    watched.node.put("a", &"x".repeat(1000));
    watched.watches.advance(&watched.node.store).unwrap();
    let blocked = watched.watches.slow_count();
    assert!(1900 < blocked, "{blocked}");
    while watched.watches.take(watched.stream).is_some() {}
    assert!(watched.watches.is_behind());
    assert_eq!(watched.watches.slow_count(), blocked, "taking is cheap");
    assert_eq!(watched.told().len(), blocked, "and nobody is left out");
}
