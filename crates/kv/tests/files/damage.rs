//! A damaged file of the state gives what it held, or is refused: nothing else, and no panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use quorate_kv::hush_panics_of_damage;

use super::{Contents, Held, entry, filled, open};

const ENTRIES: u64 = 40;
const PAGE_BYTES: usize = 4096;
/// How an error begins that was a panic.
const PANICKED: &str = "the storage is damaged (";
/// Held by who puts another hook in place of the one there is.
static HOOKS: Mutex<()> = Mutex::new(());
/// The name of the threads that judge.
const JUDGE: &str = "judge";

/// A file as it was closed, or as a crash left it, and the states it had after each flush. An older one
/// is a state that the log carries on from.
fn sample(is_closed: bool) -> (Vec<u8>, Vec<Held>) {
    let mut states = Vec::new();
    for entries in (0..=ENTRIES).step_by(10) {
        states.push(Held::of(&filled(&Contents::default(), entries)).unwrap());
    }
    let contents = Contents::default();
    let store = filled(&contents, ENTRIES);
    let crashed = contents.bytes();
    drop(store);
    (if is_closed { contents.bytes() } else { crashed }, states)
}

#[derive(Default)]
struct Outcomes {
    count: AtomicU64,
    accepted_count: AtomicU64,
    panics_count: AtomicU64,
    changed_count: AtomicU64,
}

impl Outcomes {
    /// Opens a damaged file. One that is accepted goes on as if nothing had happened.
    fn judge(&self, bytes: Vec<u8>, states: &[Held], what: &str) {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let contents = Contents::new(bytes.clone());
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let store = open(&contents)?;
            let found = Held::of(&store)?;
            // All of them would take long.
            if number.is_multiple_of(16) {
                for number in found.applied.index.0 + 1..=ENTRIES + 10 {
                    store.apply(&[entry(number)]).map_err(|error| error.to_string())?;
                }
                store.flush().map_err(|error| error.to_string())?;
                let after = Held::of(&store)?;
                drop(store);
                assert_eq!(Held::of(&open(&contents)?)?, after, "{what}, one flush later");
            }
            Ok::<_, String>(found)
        }));
        match opened {
            Ok(Ok(found)) => {
                self.accepted_count.fetch_add(1, Ordering::Relaxed);
                assert!(states.contains(&found), "{what}: {found:?} was never held");
            }
            Ok(Err(error)) => {
                let is_as_before = contents.bytes() == bytes;
                self.changed_count.fetch_add(u64::from(!is_as_before), Ordering::Relaxed);
                let is_panic = error.contains(PANICKED);
                self.panics_count.fetch_add(u64::from(is_panic), Ordering::Relaxed);
            }
            Err(_) => panic!("{what}: a panic, or a state that was never held"),
        }
    }

    fn tell(&self, what: &str) {
        println!(
            "{} files with {what}: {} accepted, {} panics below the door, {} refused and changed",
            self.count.load(Ordering::Relaxed),
            self.accepted_count.load(Ordering::Relaxed),
            self.panics_count.load(Ordering::Relaxed),
            self.changed_count.load(Ordering::Relaxed)
        );
    }
}

/// Judges all of these places on two threads.
fn judge_all(places: &[usize], judge: impl Fn(usize) + Sync) {
    static SILENCE: Once = Once::new();
    // Of these threads only: what panics below the door is counted, and what does not hold is told.
    SILENCE.call_once(|| {
        let _one_at_a_time = HOOKS.lock();
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() != Some(JUDGE) {
                tell(panic);
            }
        }));
    });
    let judge = &judge;
    let threads: Vec<_> = std::thread::scope(|scope| {
        let halves = places.chunks(places.len().div_ceil(2).max(1));
        let started: Vec<_> = halves
            .map(|half| {
                let judge_half = move || half.iter().for_each(|place| judge(*place));
                let thread = std::thread::Builder::new().name(JUDGE.to_owned());
                thread.spawn_scoped(scope, judge_half).expect("a thread can be started")
            })
            .collect();
        started.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    for thread in threads {
        if let Err(panic) = thread {
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_file_is_harmless_or_refused() {
    let outcomes = Outcomes::default();
    for is_closed in [true, false] {
        let (whole, states) = sample(is_closed);
        // Every byte that is not zero, and some of the others on pages that are in use.
        let places: Vec<_> = (0..whole.len())
            .filter(|at| {
                let page = &whole[at / PAGE_BYTES * PAGE_BYTES..][..PAGE_BYTES];
                whole[*at] != 0 || (at % 61 == 0 && page.iter().any(|byte| *byte != 0))
            })
            // The file of a crash differs little: every seventh byte of it.
            .filter(|at| is_closed || at % 7 == 0)
            .collect();
        judge_all(&places, |at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            outcomes.judge(bytes, &states, &format!("byte {at}, closed {is_closed}"));
        });
    }
    outcomes.tell("a flipped bit");
}

#[test]
fn a_file_that_is_cut_or_longer_is_harmless_or_refused() {
    let outcomes = Outcomes::default();
    let (whole, states) = sample(true);
    let places: Vec<_> = (0..whole.len() + PAGE_BYTES).step_by(509).collect();
    judge_all(&places, |length| {
        let mut bytes = whole.clone();
        bytes.resize(length, 0);
        // No bytes at all are a file that was never written to, and hold no state.
        outcomes.judge(bytes, &states, &format!("{length} bytes"));
    });
    outcomes.tell("another length");
}

#[test]
fn a_lost_or_misplaced_sector_or_page_is_harmless_or_refused() {
    let outcomes = Outcomes::default();
    let (whole, states) = sample(true);
    let sectors: Vec<_> = (0..whole.len()).step_by(512).collect();
    judge_all(&sectors, |at| {
        for bytes in [512, PAGE_BYTES] {
            let end = whole.len().min(at + bytes);
            for fill in [0, 0xff] {
                let mut lost = whole.clone();
                lost[at..end].fill(fill);
                outcomes.judge(lost, &states, &format!("{bytes} bytes of {fill} at {at}"));
            }
            for shift in [bytes, 3 * bytes, 7 * bytes] {
                let from = (at + shift) % whole.len();
                let from_end = whole.len().min(from + (end - at));
                let mut misplaced = whole.clone();
                misplaced.copy_within(from..from_end, at);
                outcomes.judge(misplaced, &states, &format!("{bytes} bytes from {from} at {at}"));
            }
        }
    });
    outcomes.tell("sectors and pages lost or in the wrong place");
}

#[test]
fn a_panic_at_the_opening_of_a_damaged_file_is_told_as_an_error_only() {
    static TOLD: AtomicU64 = AtomicU64::new(0);
    let own = std::thread::current().id();
    let one_at_a_time = HOOKS.lock();
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() == own {
            TOLD.fetch_add(1, Ordering::Relaxed);
        } else {
            tell(panic);
        }
    }));
    hush_panics_of_damage();
    drop(one_at_a_time);
    let (whole, _) = sample(true);
    let panicked = (0..whole.len()).filter(|at| whole[*at] != 0).step_by(5).filter(|at| {
        let mut bytes = whole.clone();
        bytes[*at] ^= 1 << (at % 8);
        open(&Contents::new(bytes)).is_err_and(|error| error.to_string().contains(PANICKED))
    });
    assert!(0 < panicked.count(), "none of these makes redb panic any more");
    assert_eq!(TOLD.load(Ordering::Relaxed), 0);
    let other = catch_unwind(|| panic!("something else"));
    assert!(other.is_err() && TOLD.load(Ordering::Relaxed) == 1, "what is no damage is told");
}
