use super::*;

fn progress(state: ProgressState, matched: u64, next: u64) -> Progress {
    let mut progress = Progress::new(Index(next), Inflights::new(4, 0));
    progress.state = state;
    progress.matched = Index(matched);
    progress
}

use ProgressState::{Probe, Replicate, Snapshot};

#[test]
fn text_shows_what_is_out_of_the_ordinary() {
    let mut peer = progress(Snapshot, 1, 2);
    peer.pending_snapshot = Index(123);
    peer.is_learner = true;
    peer.inflights = Inflights::new(1, 0);
    peer.inflights.add(Index(123), 1);
    assert_eq!(
        peer.to_string(),
        "StateSnapshot match=1 next=2 learner paused pendingSnap=123 inactive inflight=1[full]"
    );
    peer.inflights = Inflights::new(2, 0);
    peer.inflights.add(Index(123), 1);
    peer.is_learner = false;
    assert_eq!(
        peer.to_string(),
        "StateSnapshot match=1 next=2 paused pendingSnap=123 inactive inflight=1"
    );
    let mut peer = progress(Replicate, 8, 9);
    peer.recent_active = true;
    assert_eq!(peer.to_string(), "StateReplicate match=8 next=9");
    peer.state = Probe;
    peer.msg_app_flow_paused = true;
    assert_eq!(peer.to_string(), "StateProbe match=8 next=9 paused");

    let mut map = ProgressMap::new();
    map.insert(NodeId(26), progress(Probe, 0, 1));
    map.insert(NodeId(3), progress(Replicate, 4, 5));
    assert_eq!(
        map.to_string(),
        "3: StateReplicate match=4 next=5 inactive\n26: StateProbe match=0 next=1 inactive\n"
    );
}

#[test]
fn paused_by_state_and_flag() {
    for (state, flag, want) in [
        (Probe, false, false),
        (Probe, true, true),
        (Replicate, false, false),
        (Replicate, true, true),
        (Snapshot, false, true),
        (Snapshot, true, true),
    ] {
        let mut peer = progress(state, 0, 1);
        peer.msg_app_flow_paused = flag;
        assert_eq!(peer.is_paused(), want, "{state} {flag}");
    }
}

#[test]
fn news_lifts_the_pause() {
    let mut peer = progress(Probe, 0, 2);
    peer.msg_app_flow_paused = true;
    assert!(peer.maybe_decr_to(Index(1), Index(1)));
    assert!(!peer.msg_app_flow_paused);
    peer.msg_app_flow_paused = true;
    assert!(peer.maybe_update(Index(2)));
    assert!(!peer.msg_app_flow_paused);
    // What is no news does not.
    peer.msg_app_flow_paused = true;
    assert!(!peer.maybe_update(Index(2)));
    assert!(!peer.maybe_decr_to(Index(9), Index(1)));
    assert!(peer.msg_app_flow_paused);
}

#[test]
fn probing_starts_after_what_is_known() {
    for (state, pending, want) in [
        (Replicate, 0, 2),
        (Snapshot, 10, 11), // the snapshot arrived
        (Snapshot, 0, 2),   // it failed: its index was cleared first
        (Probe, 0, 2),
    ] {
        let mut peer = progress(state, 1, 15);
        peer.pending_snapshot = Index(pending);
        peer.inflight_commit = Index(14);
        peer.msg_app_flow_paused = true;
        peer.inflights.add(Index(14), 1);
        peer.become_probe();
        assert_eq!((peer.state, peer.matched, peer.next), (Probe, Index(1), Index(want)));
        assert_eq!((peer.pending_snapshot, peer.inflight_commit), (Index(0), Index(want - 1)));
        assert_eq!((peer.msg_app_flow_paused, peer.inflights.count()), (false, 0));
    }
}

#[test]
fn pipelining_starts_after_what_matches() {
    let mut peer = progress(Probe, 1, 5);
    peer.msg_app_flow_paused = true;
    peer.become_replicate();
    assert_eq!((peer.state, peer.matched, peer.next), (Replicate, Index(1), Index(2)));
    assert!(!peer.msg_app_flow_paused);
}

#[test]
fn a_snapshot_is_waited_for() {
    let mut peer = progress(Probe, 1, 5);
    peer.become_snapshot(Index(10));
    assert_eq!((peer.state, peer.matched, peer.next), (Snapshot, Index(1), Index(11)));
    assert_eq!((peer.pending_snapshot, peer.inflight_commit), (Index(10), Index(10)));
}

#[test]
fn match_and_next_never_fall() {
    for (index, matched, next, news) in [
        (2, 3, 5, false), // before the match
        (3, 3, 5, false), // at it
        (4, 4, 5, true),  // in flight
        (5, 5, 6, true),  // beyond what was sent
        (7, 7, 8, true),
    ] {
        let mut peer = progress(Probe, 3, 5);
        assert_eq!(peer.maybe_update(Index(index)), news, "{index}");
        assert_eq!((peer.matched, peer.next), (Index(matched), Index(next)), "{index}");
    }
}

#[test]
fn only_genuine_refusals_pull_back() {
    for (state, matched, next, rejected, hint, news, want) in [
        // Replicate: at or before the match it is stale, after it next goes back to the match.
        (Replicate, 5, 10, 5, 5, false, 10),
        (Replicate, 5, 10, 4, 4, false, 10),
        (Replicate, 5, 10, 9, 9, true, 6),
        (Replicate, 5, 10, 6, 2, true, 6),
        // Probe: stale unless it answers the probe that is out.
        (Probe, 0, 0, 0, 0, true, 1),
        (Probe, 0, 10, 5, 5, false, 10),
        (Probe, 0, 10, 9, 9, true, 9),
        (Probe, 0, 2, 1, 1, true, 1),
        (Probe, 0, 1, 0, 0, true, 1),
        (Probe, 0, 10, 9, 2, true, 3),
        (Probe, 0, 10, 9, 0, true, 1),
        (Probe, 4, 10, 9, 2, true, 5), // never below what matches
        (Snapshot, 4, 10, 9, 2, true, 5),
    ] {
        let mut peer = progress(state, matched, next);
        peer.inflight_commit = Index(next);
        let case = format!("{state} {matched} {next} refused {rejected} hint {hint}");
        assert_eq!(peer.maybe_decr_to(Index(rejected), Index(hint)), news, "{case}");
        assert_eq!((peer.matched, peer.next), (Index(matched), Index(want)), "{case}");
        let commit = if news { want - 1 } else { next };
        assert_eq!(peer.inflight_commit, Index(commit), "{case}");
    }
}

#[test]
fn sending_moves_next_only_when_pipelined() {
    let mut peer = progress(Replicate, 3, 5);
    peer.inflights = Inflights::new(2, 0);
    peer.sent_entries(2, 10);
    assert_eq!((peer.next, peer.inflights.count(), peer.is_paused()), (Index(7), 1, false));
    peer.sent_entries(0, 0);
    assert_eq!((peer.next, peer.inflights.count(), peer.is_paused()), (Index(7), 1, false));
    peer.sent_entries(1, 10);
    assert_eq!((peer.next, peer.inflights.count(), peer.is_paused()), (Index(8), 2, true));
    // The window is full; a heartbeat answer lets one empty append out, which pauses again.
    peer.msg_app_flow_paused = false;
    peer.sent_entries(0, 0);
    assert_eq!((peer.next, peer.inflights.count(), peer.is_paused()), (Index(8), 2, true));

    let mut peer = progress(Probe, 3, 5);
    peer.sent_entries(0, 0);
    assert_eq!((peer.next, peer.is_paused()), (Index(5), false));
    peer.sent_entries(2, 10);
    assert_eq!((peer.next, peer.inflights.count(), peer.is_paused()), (Index(5), 0, true));
}

#[test]
#[should_panic(expected = "nothing is sent to a peer that waits for a snapshot")]
fn nothing_is_sent_beside_a_snapshot() {
    progress(Snapshot, 0, 1).sent_entries(1, 1);
}

#[test]
fn commit_is_told_when_nothing_on_its_way_tells_it() {
    for (inflight_commit, next, commit, want) in [
        (5, 10, 5, false), // told
        (5, 10, 6, true),
        (9, 10, 12, false), // all that was sent is known to be committed
        (8, 10, 12, true),
        (0, 1, 3, false), // nothing was sent that could be committed
    ] {
        let mut peer = progress(Replicate, 0, next);
        peer.sent_commit(Index(inflight_commit));
        assert_eq!(peer.can_bump_commit(Index(commit)), want, "{inflight_commit} {next} {commit}");
    }
    let mut peer = progress(Replicate, 0, 10);
    peer.sent_commit(Index(7));
    peer.sent_commit(Index(4)); // also lowers
    assert_eq!(peer.inflight_commit, Index(4));
}

#[test]
fn maps_stay_ascending() {
    let mut map = ProgressMap::new();
    for id in [3, 1, 2] {
        map.insert(NodeId(id), progress(Probe, id, id + 1));
    }
    map.insert(NodeId(2), progress(Probe, 9, 10));
    let seen: Vec<_> = map.iter().map(|(id, of)| (id.0, of.matched.0)).collect();
    assert_eq!(seen, [(1, 1), (2, 9), (3, 3)]);
    assert_eq!((map.id_at(0), map.id_at(3)), (Some(NodeId(1)), None));
    for (_, of) in map.iter_mut() {
        of.recent_active = true;
    }
    assert!(map.get(NodeId(3)).is_some_and(|of| of.recent_active));
    assert!(map.get_mut(NodeId(4)).is_none() && !map.contains(NodeId(4)));
    assert!(map.remove(NodeId(1)).is_some() && map.remove(NodeId(1)).is_none());
    assert_eq!((map.len(), map.is_empty()), (2, false));
}

#[test]
fn maps_of_any_size_find_what_they_hold() {
    for count in 0..20 {
        let mut map = ProgressMap::new();
        for id in (1..=count).rev() {
            map.insert(NodeId(2 * id), progress(Probe, id, id + 1));
        }
        for id in 0..=2 * count + 1 {
            let want = (id % 2 == 0 && id > 0).then_some(Index(id / 2));
            assert_eq!(map.get(NodeId(id)).map(|of| of.matched), want, "{id} of {count}");
        }
    }
}

#[test]
fn a_peer_costs_little_memory() {
    assert!(size_of::<(NodeId, Progress)>() <= 72, "{}", size_of::<(NodeId, Progress)>());
}
