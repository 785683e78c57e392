use bytes::Bytes;

use super::cases::{Case, Library};
use super::{Applied, Group, Proposing, Quorate, RaftRs, Setup, replicate};

#[test]
fn every_setup_replicates() {
    fn check<G: Group>(setup: Setup) {
        for (proposing, batch) in [(Proposing::Batched, 1), (Proposing::Each, 300)] {
            let mut group = G::new(setup);
            replicate(&mut group, proposing, &Bytes::from_static(b"some payload"), batch, 3);
            let entries = 3 * batch as u64;
            let want = Applied { entries, bytes: 12 * entries };
            assert_eq!(group.applied(), vec![want; setup.members as usize], "{setup:?}");
            group.compact();
            replicate(&mut group, proposing, &Bytes::from_static(b"more"), batch, 1);
            for _ in 0..50 {
                group.tick();
                group.settle();
            }
            assert!(group.is_led());
        }
    }
    for members in [1, 2, 3] {
        for coalesce in [false, true] {
            for encoded in [false, true] {
                let setup = Setup { coalesce, encoded, ..Setup::of(members) };
                check::<RaftRs>(setup);
                check::<Quorate>(setup);
                check::<Quorate>(Setup { async_writes: true, ..setup });
            }
        }
    }
}

#[test]
fn idle_groups_stay_as_they_are() {
    for library in Library::ALL {
        for beats in [false, true] {
            library.tick(beats, 100, |work| work());
        }
    }
}

#[test]
fn names_tell_cases_apart() {
    let mut names: Vec<String> = Case::all().iter().map(ToString::to_string).collect();
    assert!(names.contains(&"256/64/batched/moved".to_owned()));
    assert!(names.contains(&"16/1024/each-coalesced/encoded".to_owned()));
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn nodes_are_given_up_one_by_one() {
    fn leaders<G: Group>() -> Vec<bool> {
        let mut leaders = Vec::new();
        G::new(Setup::of(3)).give_up(|leads, _| leaders.push(leads));
        leaders
    }
    assert_eq!(leaders::<Quorate>(), [true, false, false]);
    assert_eq!(leaders::<RaftRs>(), [true, false, false]);
}
