use super::*;

/// What voter `id` of a table holds: the first value is that of voter 1.
fn held(values: &[u64]) -> impl Fn(NodeId) -> Option<Index> + '_ {
    |id| match values[id.0 as usize - 1] {
        0 => None,
        index => Some(Index(index)),
    }
}

fn voters(count: u64) -> Majority {
    (1..=count).map(NodeId).collect()
}

fn joint(incoming: &Majority, outgoing: &Majority) -> Joint {
    Joint { incoming: incoming.clone(), outgoing: outgoing.clone() }
}

/// By definition: the highest index that a quorum holds.
fn committed_by_definition(voters: &Majority, acked: impl Fn(NodeId) -> Option<Index>) -> Index {
    if voters.0.is_empty() {
        return UNBOUNDED;
    }
    let held: Vec<Index> = voters.0.iter().map(|id| acked(id).unwrap_or_default()).collect();
    let on_quorum =
        |&&index: &&Index| held.iter().filter(|held| index <= **held).count() > held.len() / 2;
    held.iter().filter(on_quorum).max().copied().unwrap_or_default()
}

/// By definition: won or lost when no missing vote can change it.
fn vote_by_definition(voters: &Majority, votes: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
    let count = |of| voters.0.iter().filter(|id| votes(*id) == of).count();
    let (yes, missing, all) = (count(Some(true)), count(None), voters.0.len());
    if all == 0 || all / 2 < yes {
        VoteResult::Won
    } else if all / 2 < yes + missing {
        VoteResult::Pending
    } else {
        VoteResult::Lost
    }
}

/// All lists of `count` values below `base`.
fn lists(count: u32, base: u64) -> impl Iterator<Item = Vec<u64>> {
    (0..base.pow(count))
        .map(move |number| (0..count).map(|at| number / base.pow(at) % base).collect())
}

/// A small generator of chance, the same in each run.
fn chance(seed: &mut u64, below: u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed % below
}

#[test]
fn majority_commits_what_most_hold() {
    for (values, want) in [
        (&[][..], u64::MAX), // an empty half of a joint quorum holds nothing back
        (&[0], 0),
        (&[12], 12),
        (&[12, 0], 0), // two of two
        (&[7, 3], 3),
        (&[7, 3, 5], 5),    // two of three
        (&[7, 0, 0], 0),    // one ahead moves nothing
        (&[8, 8, 2, 8], 8), // three of four
        (&[9, 8, 2, 3], 3),
        (&[1, 2, 3, 4, 5], 3),
        (&[100, 101, 0, 101, 0, 0, 103], 100),
        (&[1, 2, 3, 4, 5, 6, 7, 8], 4),
        (&[1, 2, 3, 4, 5, 6, 7, 8, 9], 5),
    ] {
        let got = voters(values.len() as u64).committed_index(held(values));
        assert_eq!(got, Index(want), "{values:?}");
    }
}

#[test]
fn small_majorities_agree_with_the_definition() {
    for count in 0..=5 {
        let majority = voters(count.into());
        for values in lists(count, 4) {
            let (acked, values) = (held(&values), &values);
            let got = majority.committed_index(&acked);
            assert_eq!(got, committed_by_definition(&majority, &acked), "{values:?}");
            // What a voter below the result holds does not matter.
            for (at, _) in values.iter().enumerate().filter(|(_, held)| Index(**held) < got) {
                let mut lower = values.clone();
                lower[at] = 0;
                assert_eq!(majority.committed_index(held(&lower)), got, "{values:?}, not {at}");
            }
        }
        for values in lists(count, 3) {
            let votes =
                |id: NodeId| [None, Some(false), Some(true)][values[id.0 as usize - 1] as usize];
            let (got, want) = (majority.vote_result(votes), vote_by_definition(&majority, votes));
            assert_eq!(got, want, "{values:?}");
        }
    }
}

#[test]
fn large_majorities_agree_with_the_definition() {
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..50_000 {
        let count = chance(&mut seed, 13);
        let values: Vec<u64> = (0..count).map(|_| chance(&mut seed, 2 * count + 1)).collect();
        let majority = voters(count);
        let got = majority.committed_index(held(&values));
        assert_eq!(got, committed_by_definition(&majority, held(&values)), "{values:?}");

        let votes =
            |id: NodeId| [None, Some(false), Some(true)][values[id.0 as usize - 1] as usize % 3];
        let got = majority.vote_result(votes);
        assert_eq!(got, vote_by_definition(&majority, votes), "{values:?}");
    }
}

#[test]
fn large_joint_quorums_agree_with_the_definition() {
    let mut seed = 0x2545_f491_4f6c_dd1d;
    for _ in 0..50_000 {
        let count = chance(&mut seed, 13);
        let values: Vec<u64> = (0..count).map(|_| chance(&mut seed, 2 * count + 1)).collect();
        let mut half = || voters(count).0.iter().filter(|_| chance(&mut seed, 2) == 1).collect();
        let (one, other): (Majority, Majority) = (half(), half());
        let both = joint(&one, &other);
        let want = committed_by_definition(&one, held(&values))
            .min(committed_by_definition(&other, held(&values)));
        assert_eq!(both.committed_index(held(&values)), want, "{both} {values:?}");

        // By definition: every set of nodes that agrees must be a majority of both halves.
        let votes =
            |id: NodeId| [None, Some(false), Some(true)][values[id.0 as usize - 1] as usize % 3];
        let yes = |id| votes(id) == Some(true);
        let possible = |id| votes(id) != Some(false);
        let decides = |half: &Majority, says: &dyn Fn(NodeId) -> bool| {
            half.0.is_empty() || half.0.len() / 2 < half.0.iter().filter(|id| says(*id)).count()
        };
        let want = if decides(&one, &yes) && decides(&other, &yes) {
            VoteResult::Won
        } else if decides(&one, &possible) && decides(&other, &possible) {
            VoteResult::Pending
        } else {
            VoteResult::Lost
        };
        assert_eq!(both.vote_result(votes), want, "{both} {values:?}");
    }
}

#[test]
fn joint_quorums_decide_what_both_halves_decide() {
    let halves: Vec<Majority> = (0..16_u64)
        .map(|set| (0..4).filter(|at| set >> at & 1 == 1).map(|at| NodeId(at + 1)).collect())
        .collect();
    let empty = Majority::default();
    for one in &halves {
        for other in &halves {
            let (there, back) = (joint(one, other), joint(other, one));
            for values in lists(4, 3) {
                let acked = held(&values);
                let (first, second) = (one.committed_index(&acked), other.committed_index(&acked));
                let got = there.committed_index(&acked);
                assert_eq!(got, first.min(second), "{there} {values:?}");
                assert_eq!(back.committed_index(&acked), got, "{back} {values:?}");
                assert_eq!(joint(one, &empty).committed_index(&acked), first);
                assert_eq!(joint(one, one).committed_index(&acked), first);

                let votes = |id: NodeId| {
                    [None, Some(false), Some(true)][values[id.0 as usize - 1] as usize]
                };
                let (first, second) = (one.vote_result(votes), other.vote_result(votes));
                let want = match (first, second) {
                    (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
                    (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
                    (VoteResult::Pending, _) | (_, VoteResult::Pending) => VoteResult::Pending,
                };
                assert_eq!(there.vote_result(votes), want, "{there} {values:?}");
                assert_eq!(back.vote_result(votes), want, "{back} {values:?}");
                assert_eq!(joint(one, &empty).vote_result(votes), first);
                assert_eq!(joint(one, one).vote_result(votes), first);
            }
        }
    }
}

#[test]
fn votes_are_asked_for_once_and_in_order() {
    for count in [3, 7, 8] {
        let mut asked = Vec::new();
        voters(count).committed_index(|id| {
            asked.push(id);
            None
        });
        assert_eq!(asked, (1..=count).map(NodeId).collect::<Vec<_>>());
    }
}

#[test]
fn tables_show_ranks() {
    let acked = |known: &'static [(u64, u64)]| {
        move |id: NodeId| known.iter().find(|(of, _)| *of == id.0).map(|(_, index)| Index(*index))
    };
    let table = "       idx\n\
                 ?        0    (id=1)\n\
                 xx>      7    (id=3)\n\
                 x>       4    (id=14)\n";
    assert_eq!(Majority::from([3, 1, 20]).describe(acked(&[(3, 7), (20, 4)])), table);

    let table = "        idx\n\
                 x>        8    (id=1)\n\
                 x>        8    (id=2)\n\
                 >         2    (id=3)\n\
                 x>        8    (id=4)\n";
    let known = &[(1, 8), (2, 8), (3, 2), (4, 8)];
    assert_eq!(Majority::from([1, 2, 3, 4]).describe(acked(known)), table);

    let table = "       idx\n\
                 x>       5    (id=a)\n\
                 xx>      6    (id=b)\n\
                 >        4    (id=c)\n";
    let both = joint(&Majority::from([10, 11]), &Majority::from([11, 12]));
    assert_eq!(both.describe(acked(&[(10, 5), (11, 6), (12, 4)])), table);

    let table = "      idx\nx>      3    (id=1)\n?       0    (id=2)\n";
    let half = joint(&Majority::from([1, 2]), &Majority::default());
    assert_eq!(half.describe(acked(&[(1, 3)])), table);

    assert_eq!(Joint::default().describe(|_| None), "<empty majority quorum>");
}

#[test]
fn texts_are_those_of_etcd() {
    let (old, new) = (Majority::from([26, 1, 2]), Majority::from([3]));
    assert_eq!(old.to_string(), "(1 2 1a)");
    assert_eq!(Majority::default().to_string(), "()");
    assert_eq!(joint(&new, &old).to_string(), "(3)&&(1 2 1a)");
    assert_eq!(joint(&new, &Majority::default()).to_string(), "(3)");
    for (result, number, text) in [
        (VoteResult::Pending, 1, "VotePending"),
        (VoteResult::Lost, 2, "VoteLost"),
        (VoteResult::Won, 3, "VoteWon"),
    ] {
        assert_eq!((result as u8, result.to_string().as_str()), (number, text));
    }
    assert_eq!(IndexText(Index(17)).to_string(), "17");
    assert_eq!(IndexText(UNBOUNDED).to_string(), "∞");
}

#[test]
fn node_sets_stay_ascending() {
    let mut set = NodeSet::from([5, 1, 5, 3]);
    assert_eq!(set.as_slice(), [NodeId(1), NodeId(3), NodeId(5)]);
    assert!(set.insert(NodeId(4)) && !set.insert(NodeId(4)));
    assert!(set.remove(NodeId(1)) && !set.remove(NodeId(1)));
    assert_eq!(set, NodeSet::from([3, 4, 5]));
    assert!(set.contains(NodeId(4)) && !set.contains(NodeId(1)));
    assert_eq!((set.len(), set.is_empty()), (3, false));
    set.clear();
    assert_eq!(set, NodeSet::new());
}
