//! Whole ensembles of one kind in which members crash, restart and are cut off, where gometa was not
//! watched: what of that which a quorum held is applied everywhere in the end, in one order. Each
//! crash comes before one after the other of a member's writes (with gometa's model, which writes all at
//! once, of the messages it hears).

use quorate_zab::Zxid;

use crate::hand::{Past, id};
use crate::mixed::Ensemble;
use crate::puppet::Kind;

/// How many writes, or messages, after the start a crash comes at the latest.
const WRITES: u64 = 10;

fn past(epoch: u32, committed: u32, last: u32) -> Past {
    let ids: Vec<Zxid> = (1..=last).map(|counter| id(epoch, counter)).collect();
    let committed = if committed == 0 { Zxid::ZERO } else { id(epoch, committed) };
    Past::of_epoch(epoch, &ids, committed)
}

/// Whether all who run have applied the same in the end, `wanted` among it.
fn is_kept(ensemble: &mut Ensemble, wanted: &[Zxid]) -> bool {
    ensemble.heal();
    let up: Vec<u64> =
        ensemble.ids().into_iter().filter(|id| !ensemble.gone.contains(id)).collect();
    let first = ensemble.applied(up[0]);
    wanted.iter().all(|zxid| first.contains(zxid))
        && up.iter().all(|id| ensemble.applied(*id) == first)
}

/// Plays it with the victim's crash at one moment after the other.
fn crashing(kind: Kind, pasts: &[Past], gone: &[u64], victim: u64, wanted: &[Zxid]) -> bool {
    (0..WRITES).all(|at| {
        let mut ensemble = Ensemble::with_pasts(at, kind, pasts);
        ensemble.gone.extend(gone);
        ensemble.light_fuse(victim, at);
        for id in ensemble.ids() {
            ensemble.start(id);
        }
        is_kept(&mut ensemble, wanted)
    })
}

/// Of five, the two that were first to know of (5,10) as committed are gone; only one of the rest has it.
fn last_of_a_quorum(kind: Kind) -> bool {
    let pasts = [past(5, 9, 10), past(5, 9, 10), past(5, 9, 9), past(5, 9, 9), past(5, 9, 10)];
    crashing(kind, &pasts, &[1, 2], 5, &[id(5, 10)])
}

/// A follower without anything crashes on its way into the ensemble.
fn follower(kind: Kind) -> bool {
    let pasts = [past(0, 0, 0), past(1, 2, 2), past(1, 2, 2)];
    crashing(kind, &pasts, &[], 1, &[id(1, 1), id(1, 2)])
}

/// A leader that was elected with what nobody knows to be committed crashes on its way into office.
fn leader(kind: Kind) -> bool {
    let pasts = [past(1, 0, 1), past(1, 0, 2), past(1, 0, 2)];
    crashing(kind, &pasts, &[], 3, &[id(1, 1), id(1, 2)])
}

/// All restart together.
fn tails(kind: Kind) -> bool {
    let pasts = [past(1, 1, 1), past(1, 1, 2), past(1, 1, 3)];
    (0..WRITES).all(|seed| {
        let mut ensemble = Ensemble::with_pasts(seed, kind, &pasts);
        for id in ensemble.ids() {
            ensemble.start(id);
        }
        is_kept(&mut ensemble, &[id(1, 1), id(1, 2), id(1, 3)])
    })
}

/// {A, B} C, then A {B, C}, then {A, C} B, with writes all the time.
fn partitions(kind: Kind) -> bool {
    (0..WRITES).all(|seed| {
        let mut ensemble = Ensemble::with_pasts(seed, kind, &vec![Past::default(); 3]);
        for id in ensemble.ids() {
            ensemble.start(id);
        }
        for part in [&[1, 2][..], &[2, 3], &[1, 3], &[]] {
            let most = |ensemble: &Ensemble| {
                ensemble.ids().into_iter().map(|id| ensemble.applied(id).len()).max()
            };
            let before = most(&ensemble);
            ensemble.cut(part);
            ensemble.run(15_000, &[]);
            let goes_on = before < most(&ensemble);
            assert!(goes_on || kind == Kind::Gometa, "seed {seed}: {part:?} applies nothing");
        }
        is_kept(&mut ensemble, &[])
    })
}

#[test]
fn what_a_quorum_held_survives_upheavals_with_ours() {
    type Play = fn(Kind) -> bool;
    let table: [(&str, &str, Play); 5] = [
        ("L26", "the last of a quorum crashes at each write", last_of_a_quorum),
        ("L27", "a follower crashes at each write", follower),
        ("L28", "a leader crashes at each step into office", leader),
        ("L29", "all restart, with tails of different length", tails),
        ("L30", "a partition moves", partitions),
    ];
    for (number, what, play) in table {
        assert!(play(Kind::Ours), "{number}: {what}: ours");
        assert!(!play(Kind::Gometa), "{number}: {what}: gometa keeps it");
    }
}
