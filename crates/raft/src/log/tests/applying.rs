//! Handing out for application.

use super::*;

/// Committed 5 of 6 entries after a snapshot at 3; 4 is stable.
fn log_to_apply() -> RaftLog<MemoryStorage> {
    let mut log = log_after((1, 3), &[1], &[1, 1]);
    log.commit_to(Index(5)).unwrap();
    log
}

#[test]
fn committed_entries_are_handed_out_once() {
    for (applied, applying, allow_unstable, paused, with_snapshot, want) in [
        (3, 3, true, false, false, &[4, 5][..]),
        (3, 4, true, false, false, &[5]),
        (3, 5, true, false, false, &[]),
        (4, 4, true, false, false, &[5]),
        (4, 5, true, false, false, &[]),
        (5, 5, true, false, false, &[]),
        // Stable ones only.
        (3, 3, false, false, false, &[4]),
        (3, 4, false, false, false, &[]),
        (4, 4, false, false, false, &[]),
        // Not while paused, or while a snapshot waits.
        (3, 3, true, true, false, &[]),
        (3, 3, true, false, true, &[]),
    ] {
        let mut log = log_to_apply();
        log.applied_to(Index(applied), 0).unwrap();
        log.accept_applying(Index(applying), 0, allow_unstable).unwrap();
        log.applying_paused = paused;
        if with_snapshot {
            log.restore(snapshot(5, 1));
        }
        let case = format!("{applied} {applying} {allow_unstable} {paused} {with_snapshot}");
        assert_eq!(log.has_next_committed_ents(allow_unstable), !want.is_empty(), "{case}");
        let got = log.next_committed_ents(allow_unstable).unwrap();
        assert_eq!(indexes(&got), want, "{case}");
    }
}

#[test]
fn application_pauses_when_the_limit_is_reached() {
    for (to, allow_unstable, bytes, paused) in [
        // The last that can be applied: by bytes alone.
        (5, true, 99, false),
        (5, true, 100, true),
        (5, true, 101, true),
        // Short of it: the next one did not fit.
        (4, true, 99, true),
        (4, true, 100, true),
        // Stable ones only: 4 is the last that can be applied.
        (4, false, 99, false),
        (4, false, 100, true),
        (5, false, 99, false),
    ] {
        let mut log = log_to_apply();
        log.applying_bytes_max = 100;
        log.accept_applying(Index(to), bytes, allow_unstable).unwrap();
        assert_eq!(log.applying_paused, paused, "{to} {allow_unstable} {bytes}");
    }
    let got = log_to_apply().accept_applying(Index(6), 0, true);
    let (to, applying, committed) = (Index(6), Index(3), Index(5));
    assert_eq!(got, Err(Fatal::ApplyingOutOfRange { to, applying, committed }));
}

#[test]
fn what_is_handed_out_leaves_less_room_for_the_next() {
    let size = log_to_apply().next_committed_ents(true).unwrap()[0].encoded_size();
    // How many more entries there is room for beside the one that is handed out.
    for (room, want) in [(3, &[5, 6, 7][..]), (2, &[5, 6]), (1, &[5])] {
        let mut log = log_after((1, 3), &[1], &[1, 1, 1]);
        log.applying_bytes_max = (1 + room) * size;
        log.commit_to(Index(4)).unwrap();
        assert_eq!(indexes(&log.next_committed_ents(true).unwrap()), [4]);
        log.accept_applying(Index(4), size, true).unwrap();
        log.commit_to(Index(7)).unwrap();
        assert_eq!(indexes(&log.next_committed_ents(true).unwrap()), want, "room for {room}");
    }
}

#[test]
fn acknowledged_application_makes_room() {
    for (to, bytes, left, paused) in [
        (4, 4, 101, true), // still too much
        (4, 5, 100, true),
        (4, 6, 99, false),
        (5, 105, 0, false),
        (5, 110, 0, false), // never below nothing
    ] {
        let mut log = log_to_apply();
        log.applying_bytes_max = 100;
        log.accept_applying(Index(5), 105, true).unwrap();
        log.applied_to(Index(to), bytes).unwrap();
        assert_eq!((log.applied(), log.applying()), (Index(to), Index(5)));
        assert_eq!((log.applying_bytes, log.applying_paused), (left, paused), "{to} {bytes}");
    }
    let mut log = log_to_apply();
    log.applied_to(Index(4), 0).unwrap();
    assert_eq!((log.applied(), log.applying()), (Index(4), Index(4)));
    for to in [3, 6] {
        let (to, applied, committed) = (Index(to), Index(4), Index(5));
        let got = log.applied_to(to, 0);
        assert_eq!(got, Err(Fatal::AppliedOutOfRange { to, applied, committed }));
    }
}

#[test]
fn a_limit_of_nothing_hands_out_one_at_a_time() {
    let storage = MemoryStorage::new();
    storage.append(&entries(1, &[1, 1, 1])).unwrap();
    let mut log = RaftLog::new(storage, 0).unwrap();
    log.commit_to(Index(3)).unwrap();
    for index in 1..=3 {
        let got = log.next_committed_ents(true).unwrap();
        assert_eq!(indexes(&got), [index]);
        log.accept_applying(Index(index), got.encoded_size(), true).unwrap();
        assert!(!log.has_next_committed_ents(true));
        log.applied_to(Index(index), got.encoded_size()).unwrap();
    }
    assert_eq!(log.next_committed_ents(true), Ok(Entries::new()));
}
