use super::*;

fn window(count_max: usize, bytes_max: u64, appends: &[(u64, u64)]) -> Inflights {
    let mut window = Inflights::new(count_max, bytes_max);
    for &(last, bytes) in appends {
        window.add(Index(last), bytes);
    }
    window
}

fn held(window: &Inflights) -> Vec<(u64, u64)> {
    window.iter().map(|(last, bytes)| (last.0, bytes)).collect()
}

#[test]
fn appends_leave_from_the_oldest_on() {
    for (to, want) in [
        (0, &[(1, 10), (3, 20), (7, 30)][..]), // below the oldest
        (1, &[(3, 20), (7, 30)]),
        (2, &[(3, 20), (7, 30)]), // between two
        (3, &[(7, 30)]),
        (6, &[(7, 30)]),
        (7, &[]),
        (99, &[]), // beyond the newest
    ] {
        let mut window = window(10, 0, &[(1, 10), (3, 20), (7, 30)]);
        window.free_le(Index(to));
        assert_eq!(held(&window), want, "freed to {to}");
        assert_eq!(window.count(), want.len());
        assert_eq!(window.bytes(), want.iter().map(|(_, bytes)| bytes).sum::<u64>());
    }
}

#[test]
fn order_and_bytes_hold_through_rotation() {
    let mut window = Inflights::new(5, 0);
    let (mut added, mut freed) = (0, 0);
    for round in 0..50 {
        while !window.is_full() {
            added += 1;
            window.add(Index(added), added * 100);
        }
        freed += 1 + round % 4;
        window.free_le(Index(freed));
        let want: Vec<_> = (freed + 1..=added).map(|last| (last, last * 100)).collect();
        assert_eq!(held(&window), want);
        assert_eq!(window.bytes(), want.iter().map(|(_, bytes)| bytes).sum::<u64>());
    }
}

/// Random lives of windows agree with a list that is searched from the start each time.
#[test]
fn a_window_agrees_with_a_plain_list() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut chance = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..500 {
        let (count_max, bytes_max) = (1 + chance(20) as usize, chance(3) * chance(200));
        let mut window = Inflights::new(count_max, bytes_max);
        let (mut list, mut last): (Vec<(u64, u64)>, u64) = (vec![], 0);
        for _ in 0..100 {
            let bytes: u64 = list.iter().map(|(_, bytes)| bytes).sum();
            let is_full = list.len() >= count_max || (bytes_max > 0 && bytes >= bytes_max);
            assert_eq!((window.is_full(), window.bytes()), (is_full, bytes));
            assert_eq!((held(&window), window.count()), (list.clone(), list.len()));
            match chance(8) {
                0 => {
                    window.reset();
                    list.clear();
                }
                1..=3 => {
                    // Also before the oldest and beyond the newest.
                    let to = (last + 3).saturating_sub(chance(25));
                    window.free_le(Index(to));
                    list.retain(|(held, _)| to < *held);
                }
                _ if is_full => {}
                _ => {
                    last += 1 + chance(3);
                    let bytes = chance(50);
                    window.add(Index(last), bytes);
                    list.push((last, bytes));
                }
            }
        }
    }
}

#[test]
fn either_limit_fills_the_window() {
    for (count_max, bytes_max, appends, full) in [
        (1, 0, &[][..], false),
        (1, 0, &[(1, 1)], true),
        (3, 0, &[(1, 1000), (2, 1000)], false), // 0 is no limit by bytes
        (3, 0, &[(1, 0), (2, 0), (3, 0)], true),
        (3, 100, &[(1, 99)], false),
        (3, 100, &[(1, 100)], true),
        (3, 100, &[(1, 99), (2, 1000)], true), // one may overshoot
        (3, 100, &[(1, 0), (2, 0)], false),
        (3, 100, &[(1, 0), (2, 0), (3, 0)], true),
    ] {
        let window = window(count_max, bytes_max, appends);
        assert_eq!(window.is_full(), full, "{count_max} {bytes_max} {appends:?}");
    }
}

#[test]
fn a_freed_window_takes_more() {
    let mut window = window(3, 100, &[(1, 60), (2, 60)]);
    assert!(window.is_full());
    window.free_le(Index(1));
    assert!(!window.is_full());
    window.add(Index(3), 39);
    assert!(!window.is_full());
    window.add(Index(4), 0);
    assert!(window.is_full());
}

#[test]
#[should_panic(expected = "nothing is sent while the window is full")]
fn a_full_window_takes_nothing() {
    window(1, 0, &[(1, 1), (2, 1)]);
}

#[test]
fn bytes_do_not_leak_over_resets() {
    let mut window = Inflights::new(3, 100);
    for round in 0..10 {
        window.add(Index(2 * round + 1), 60);
        window.add(Index(2 * round + 2), 60);
        assert!(window.is_full());
        window.reset();
        assert_eq!((window.count(), window.bytes(), window.is_full()), (0, 0, false));
    }
}

#[test]
fn memory_follows_what_is_under_way() {
    let capacity =
        |window: &Inflights| window.window.as_ref().map_or(0, |window| window.appends.capacity());
    let mut window = Inflights::new(100, 0);
    let empty = window.clone();
    assert_eq!(capacity(&window), 0);
    for last in 1..=100 {
        window.add(Index(last), 1);
        assert!(capacity(&window) <= (2 * last as usize).clamp(4, 100), "{last}");
    }
    window.free_le(Index(99));
    assert_ne!(window, empty);
    window.free_le(Index(100));
    assert_eq!((capacity(&window), &window), (0, &empty));
}

#[test]
fn a_narrowed_window_opens_by_one_for_each_acknowledgement() {
    let mut window = Inflights::new(3, 0);
    window.narrow();
    for (round, room) in [1, 2, 3, 3].into_iter().enumerate() {
        while !window.is_full() {
            let last = window.iter().last().map_or(0, |(last, _)| last.0);
            window.add(Index(last + 1), 10);
        }
        assert_eq!(window.count(), room, "in round {round}");
        window.reset();
        assert!(!window.is_full(), "what it is open for survives what is under way");
        window.widen();
    }
}
