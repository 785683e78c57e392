//! Who watches a key, found without asking everybody: watchers by the interval they watch.
//!
//! Single keys stand in a map. Intervals stand in a balanced tree in the order of their starts, in
//! which each node knows the furthest end below it, so that what ends before the key is passed over.
//! Watchers of the same interval share a node.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// What a watcher watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// One key.
    One(Bytes),
    /// From the first key up to an end.
    Span(Bytes, End),
}

impl Watched {
    /// What its keys take.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Watched::One(key) | Watched::Span(key, End::Open) => key.len(),
            Watched::Span(key, End::Before(end)) => key.len() + end.len(),
        }
    }
}

/// Where an interval ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Before this key.
    Before(Bytes),
    /// Nowhere. The greatest of all.
    Open,
}

impl End {
    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            End::Before(end) => key < &end[..],
            End::Open => true,
        }
    }
}

/// Watchers by what they watch.
#[derive(Debug, Default)]
pub(super) struct Tree {
    ones: BTreeMap<Bytes, BTreeSet<u64>>,
    root: Link,
}

type Link = Option<Box<Node>>;

#[derive(Debug)]
struct Node {
    place: (Bytes, End),
    watchers: BTreeSet<u64>,
    height: u32,
    /// The furthest end in this part of the tree.
    end_max: End,
    left: Link,
    right: Link,
}

impl Tree {
    pub(super) fn insert(&mut self, watched: &Watched, watcher: u64) {
        match watched {
            Watched::One(key) => {
                self.ones.entry(key.clone()).or_default().insert(watcher);
            }
            Watched::Span(start, end) => {
                let place = (start.clone(), end.clone());
                self.root = Some(insert(self.root.take(), place, watcher));
            }
        }
    }

    pub(super) fn remove(&mut self, watched: &Watched, watcher: u64) {
        match watched {
            Watched::One(key) => {
                if let Some(watchers) = self.ones.get_mut(key) {
                    watchers.remove(&watcher);
                    if watchers.is_empty() {
                        self.ones.remove(key);
                    }
                }
            }
            Watched::Span(start, end) => {
                let place = (start.clone(), end.clone());
                self.root = remove(self.root.take(), &place, watcher);
            }
        }
    }

    /// Visits everybody who watches the key, once.
    pub(super) fn visit(&self, key: &[u8], mut visit: impl FnMut(u64)) {
        self.ones.get(key).into_iter().flatten().for_each(|watcher| visit(*watcher));
        visit_below(&self.root, key, &mut visit);
    }
}

fn visit_below(link: &Link, key: &[u8], visit: &mut impl FnMut(u64)) {
    let Some(node) = link else { return };
    if !node.end_max.is_after(key) {
        return;
    }
    visit_below(&node.left, key, visit);
    if node.place.0 <= key {
        if node.place.1.is_after(key) {
            node.watchers.iter().for_each(|watcher| visit(*watcher));
        }
        visit_below(&node.right, key, visit);
    }
}

fn insert(link: Link, place: (Bytes, End), watcher: u64) -> Box<Node> {
    let Some(mut node) = link else {
        let (watchers, end_max) = (BTreeSet::from([watcher]), place.1.clone());
        return Box::new(Node { place, watchers, height: 1, end_max, left: None, right: None });
    };
    match place.cmp(&node.place) {
        std::cmp::Ordering::Equal => {
            node.watchers.insert(watcher);
            return node;
        }
        std::cmp::Ordering::Less => node.left = Some(insert(node.left.take(), place, watcher)),
        std::cmp::Ordering::Greater => node.right = Some(insert(node.right.take(), place, watcher)),
    }
    balance(node)
}

fn remove(link: Link, place: &(Bytes, End), watcher: u64) -> Link {
    let mut node = link?;
    match place.cmp(&node.place) {
        std::cmp::Ordering::Less => node.left = remove(node.left.take(), place, watcher),
        std::cmp::Ordering::Greater => node.right = remove(node.right.take(), place, watcher),
        std::cmp::Ordering::Equal => {
            node.watchers.remove(&watcher);
            if node.watchers.is_empty() {
                return match (node.left.take(), node.right.take()) {
                    (Some(left), Some(right)) => {
                        let (mut first, rest) = take_first(right);
                        first.left = Some(left);
                        first.right = rest;
                        Some(balance(first))
                    }
                    (one, other) => one.or(other),
                };
            }
        }
    }
    Some(balance(node))
}

/// The first node of this part of the tree, and the rest of it.
fn take_first(mut node: Box<Node>) -> (Box<Node>, Link) {
    let Some(left) = node.left.take() else {
        let rest = node.right.take();
        return (node, rest);
    };
    let (first, rest) = take_first(left);
    node.left = rest;
    (first, Some(balance(node)))
}

fn height(link: &Link) -> u32 {
    link.as_ref().map_or(0, |node| node.height)
}

/// Brings a node up to date whose children are, and whose sides differ by at most two.
fn balance(mut node: Box<Node>) -> Box<Node> {
    let (left, right) = (height(&node.left), height(&node.right));
    if right + 1 < left {
        let mut child = node.left.take().expect("the higher side is not empty");
        if height(&child.left) < height(&child.right) {
            child = rotate_left(child);
        }
        node.left = Some(child);
        return rotate_right(node);
    }
    if left + 1 < right {
        let mut child = node.right.take().expect("the higher side is not empty");
        if height(&child.right) < height(&child.left) {
            child = rotate_right(child);
        }
        node.right = Some(child);
        return rotate_left(node);
    }
    update(&mut node);
    node
}

fn rotate_right(mut node: Box<Node>) -> Box<Node> {
    let mut top = node.left.take().expect("what rises is there");
    node.left = top.right.take();
    update(&mut node);
    top.right = Some(node);
    update(&mut top);
    top
}

fn rotate_left(mut node: Box<Node>) -> Box<Node> {
    let mut top = node.right.take().expect("what rises is there");
    node.right = top.left.take();
    update(&mut node);
    top.left = Some(node);
    update(&mut top);
    top
}

fn update(node: &mut Node) {
    node.height = 1 + height(&node.left).max(height(&node.right));
    let below = [&node.left, &node.right].into_iter().flatten().map(|child| &child.end_max);
    node.end_max = below.chain([&node.place.1]).max().cloned().unwrap_or(End::Open);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Dice;

    fn check(link: &Link) -> u32 {
        let Some(node) = link else { return 0 };
        let (left, right) = (check(&node.left), check(&node.right));
        assert!(left.abs_diff(right) <= 1, "out of balance");
        assert_eq!(node.height, 1 + left.max(right));
        for child in [&node.left, &node.right].into_iter().flatten() {
            assert!(child.end_max <= node.end_max);
        }
        assert!(node.place.1 <= node.end_max && !node.watchers.is_empty());
        assert!(node.left.as_ref().is_none_or(|left| left.place < node.place));
        assert!(node.right.as_ref().is_none_or(|right| node.place < right.place));
        node.height
    }

    fn random(dice: &mut Dice) -> Watched {
        let mut key = |sides| Bytes::from(vec![dice.roll(sides) as u8, dice.roll(3) as u8]);
        let (start, end) = (key(40), key(40));
        match dice.roll(4) {
            0 => Watched::One(start),
            1 => Watched::Span(start, End::Open),
            _ => Watched::Span(start.clone().min(end.clone()), End::Before(start.max(end))),
        }
    }

    fn holds(watched: &Watched, key: &[u8]) -> bool {
        match watched {
            Watched::One(one) => one == key,
            Watched::Span(start, end) => *start <= key && end.is_after(key),
        }
    }

    #[test]
    fn it_finds_what_a_walk_over_all_finds() {
        for seed in 1..=10 {
            let mut dice = Dice(seed);
            let mut tree = Tree::default();
            let mut all: BTreeMap<u64, Watched> = BTreeMap::new();
            for watcher in 0..600 {
                if dice.one_in(3)
                    && let Some((gone, watched)) = all.pop_first()
                {
                    tree.remove(&watched, gone);
                    tree.remove(&watched, gone); // once more does nothing
                }
                let watched = match all.values().next() {
                    Some(same) if dice.one_in(5) => same.clone(),
                    _ => random(&mut dice),
                };
                tree.insert(&watched, watcher);
                all.insert(watcher, watched);
                check(&tree.root);
                let key = [dice.roll(41) as u8, dice.roll(3) as u8];
                let mut found = Vec::new();
                tree.visit(&key, |watcher| found.push(watcher));
                found.sort_unstable();
                let want: Vec<u64> = all
                    .iter()
                    .filter(|(_, watched)| holds(watched, &key))
                    .map(|(watcher, _)| *watcher)
                    .collect();
                assert_eq!(found, want, "seed {seed}, {key:?}");
            }
            for (watcher, watched) in all {
                tree.remove(&watched, watcher);
                check(&tree.root);
            }
            assert!(tree.root.is_none() && tree.ones.is_empty());
        }
    }

    #[test]
    fn ordered_insertions_stay_balanced() {
        let mut tree = Tree::default();
        for number in 0..10_000_u32 {
            let start = Bytes::copy_from_slice(&number.to_be_bytes());
            let end = Bytes::copy_from_slice(&(number + 1).to_be_bytes());
            tree.insert(&Watched::Span(start, End::Before(end)), u64::from(number));
        }
        assert!(check(&tree.root) <= 17);
    }
}
