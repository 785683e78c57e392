//! Following what a node applies: local copies that only serve reads, logs for people, other systems.
//!
//! ```text
//! Following ─ its place ─► loop ─ what is applied after it, out of the log ─► Following
//!     ▲                                                                          │
//!     └── waits until more is applied, and a little longer ◄─────────────────────┘
//! ```
//! Nothing is kept for a subscriber but its place. What it is given at a time is bounded, and so is how
//! often it asks and how many there are: so the loop spends next to nothing on them, and the machine
//! nothing. Who is slower than the log is compacted is told so.

use std::sync::Arc;
use std::time::Duration;

use quorate_kv::{Command, MemberChange};
use quorate_raft::{Entries, Entry};
use quorate_replica::{Content, FeedError, Place};
use quorate_types::{Index, Term};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::drive::Call;
use crate::node::{Inner, Node};
use crate::revisions::Forgotten;

/// What one subscriber is told at a time.
const PIECE_BYTES_MAX: u64 = 256 << 10;

/// What is applied in so short a time is told together.
const GATHERED: Duration = Duration::from_millis(5);

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowFrom {
    /// After what is applied now.
    Now,
    /// With the oldest entry that the log still has.
    Oldest,
    /// After a place. One that this node has not reached yet is waited for.
    After(Place),
    /// With the entry that made this revision of the keys, whether it is applied yet or not.
    Revision(i64),
}

/// A subscriber's place in what one node applies.
pub struct Following {
    inner: Arc<Inner>,
    applied: watch::Receiver<Index>,
    place: Place,
    /// Entries before the one that made this revision are passed over.
    revision: i64,
    _seat: OwnedSemaphorePermit,
}

/// One applied entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Its place.
    pub index: Index,
    /// Its term; with ZAB its epoch.
    pub era: Term,
    /// What tells it from any other entry at its place: its term; with ZAB its id.
    pub stamp: u64,
    /// The revision of the keys after it. Nothing for what was applied before this node's start, or long
    /// ago.
    pub revision: Option<i64>,
    /// How many bytes it has in the log.
    pub bytes: u64,
    /// What it asks for.
    pub what: What,
}

/// What an entry asks for. Whether the machine did it depends on its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A command.
    Command(Command),
    /// Nothing: a new leader's first, or a change of membership that came to nothing.
    Empty,
    /// A change of the members. Nothing for one that the engine made itself, as when it leaves a joint
    /// membership.
    Members(Option<MemberChange>),
}

/// Why a subscriber hears no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// What comes next is compacted, or the place is in another log.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// This node no longer knows which entry made the revision, or was started after it.
    #[error(
        "the entry that made revision {revision} is not known here; the first that is made {first}"
    )]
    Forgotten {
        /// The revision that was asked from.
        revision: i64,
        /// The first one whose entry is known, or will be.
        first: i64,
    },
    /// As many follow already as may.
    #[error("too many follow what is applied here; ask another member")]
    Busy,
    /// An entry that a newer release wrote.
    #[error("the entry at {index} cannot be read: {why}")]
    Unreadable {
        /// Its place.
        index: Index,
        /// Why.
        why: String,
    },
    /// The node is stopping, or has stopped. The place stays good, at this node and at others.
    #[error("the node is stopping")]
    Stopped,
}

impl Node {
    /// Follows what is applied here: every entry from a place on, once and in order.
    ///
    /// It costs this node's loop a short look at the log for some hundreds of entries, and at most
    /// some two hundred looks a second for a subscriber that has all there is.
    ///
    /// # Errors
    ///
    /// See [`FollowError`].
    ///
    /// Source: ZAB contract O.4.
    pub async fn follow(&self, from: FollowFrom) -> Result<Following, FollowError> {
        let inner = Arc::clone(&self.inner);
        let seat = Arc::clone(&inner.followers).try_acquire_owned();
        let seat = seat.map_err(|_| FollowError::Busy)?;
        let applied = inner.board.applied();
        let at = |index| Place { index, stamp: None };
        let (place, revision) = match from {
            FollowFrom::Now => (at(self.status().applied), 0),
            FollowFrom::Oldest => (Place::default(), 0),
            FollowFrom::After(place) => (place, 0),
            FollowFrom::Revision(revision) => match inner.revisions.place_before(revision) {
                Ok(index) => (at(index), revision),
                Err(Forgotten { first }) => {
                    return Err(FollowError::Forgotten { revision, first });
                }
            },
        };
        let mut following = Following { inner, applied, place, revision, _seat: seat };
        // Who cannot be told anything hears so at once.
        match following.ask(0).await {
            Err(FollowError::Feed(FeedError::PassedBy { first, .. }))
                if from == FollowFrom::Oldest =>
            {
                following.place = at(first.prev());
            }
            asked => {
                asked?;
            }
        }
        Ok(following)
    }
}

impl Following {
    /// Everything up to here was told. A later subscription goes on from it, at any member.
    pub fn place(&self) -> Place {
        self.place
    }

    /// What comes next, in order and without gaps; waits until there is something. To be dropped while
    /// it waits loses nothing.
    ///
    /// # Errors
    ///
    /// See [`FollowError`]. It then says the same again.
    pub async fn next(&mut self) -> Result<Vec<Followed>, FollowError> {
        loop {
            // Before the question: what is applied after it is news.
            let applied = *self.applied.borrow_and_update();
            let entries = self.ask(PIECE_BYTES_MAX).await?;
            if entries.is_empty() {
                self.wait(applied).await?;
                continue;
            }
            let told = self.take(&entries)?;
            if !told.is_empty() {
                return Ok(told);
            }
        }
    }

    async fn ask(&self, bytes_max: u64) -> Result<Entries, FollowError> {
        let (answer, asked) = oneshot::channel();
        let call = Call::Follow(self.place, bytes_max, answer);
        self.inner.calls.send(call).await.map_err(|_| FollowError::Stopped)?;
        Ok(asked.await.map_err(|_| FollowError::Stopped)??)
    }

    /// Waits until there may be more than when `applied` was.
    async fn wait(&mut self, applied: Index) -> Result<(), FollowError> {
        // An entry whose write is under way comes without being applied once more.
        if applied <= self.place.index {
            let mut stopped = self.inner.stopped.clone();
            tokio::select! {
                changed = self.applied.changed() => changed.map_err(|_| FollowError::Stopped)?,
                _ = stopped.changed() => return Err(FollowError::Stopped),
            }
        }
        tokio::time::sleep(GATHERED).await;
        Ok(())
    }

    /// Reads entries, and moves behind them.
    fn take(&mut self, entries: &Entries) -> Result<Vec<Followed>, FollowError> {
        let revisions = self.inner.revisions.after(entries.iter().map(|entry| entry.index));
        let mut told = Vec::with_capacity(entries.len());
        for (entry, revision) in entries.iter().zip(revisions) {
            let what =
                read(entry).map_err(|why| FollowError::Unreadable { index: entry.index, why })?;
            if revision.is_some_and(|revision| revision < self.revision) {
                continue;
            }
            told.push(Followed {
                index: entry.index,
                era: self.inner.engine.era(entry.term.0),
                stamp: entry.term.0,
                revision,
                bytes: entry.payload().len() as u64,
                what,
            });
        }
        if let Some(last) = entries.last() {
            self.place = Place { index: last.index, stamp: Some(last.term.0) };
        }
        Ok(told)
    }
}

fn read(entry: &Entry) -> Result<What, String> {
    Ok(match Content::of(entry).map_err(text)? {
        Content::Command(command) => What::Command(Command::decode(command).map_err(text)?),
        Content::Empty => What::Empty,
        Content::Change(change) => {
            What::Members(change.map(MemberChange::decode).transpose().map_err(text)?)
        }
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use quorate_kv::{CompactionRequest, DeleteRangeRequest, Member, PutRequest};
    use quorate_replica::Engine;
    use quorate_types::NodeId;
    use tempfile::TempDir;

    use super::*;
    use crate::node::NodeConfig;

    async fn start(engine: Engine, data_dir: &Path) -> Node {
        let members = vec![Member { id: 1, ..Member::default() }];
        let config = NodeConfig {
            engine,
            members,
            heartbeat_ms: 10,
            election_ms: 50,
            followers_max: 2,
            ..NodeConfig::new(NodeId(1), 7, data_dir.to_owned())
        };
        Node::start(config).await.unwrap()
    }

    fn put(key: &str) -> Command {
        Command::Put(PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            ..Default::default()
        })
    }

    async fn run(node: &Node, command: &Command) {
        let _ = node.propose(command).await.unwrap();
    }

    /// The next `count` entries that hold something.
    async fn commands(following: &mut Following, count: usize) -> Vec<Followed> {
        let mut told: Vec<Followed> = Vec::new();
        while told.len() < count {
            let next = following.next().await.unwrap();
            told.extend(next.into_iter().filter(|entry| entry.what != What::Empty));
        }
        assert_eq!(told.len(), count, "{told:?}");
        told
    }

    #[tokio::test]
    async fn a_subscriber_hears_everything_from_its_place_on_with_either_engine() {
        for engine in Engine::ALL {
            let directory = TempDir::new().unwrap();
            let node = start(engine, directory.path()).await;
            let delete =
                DeleteRangeRequest { key: Bytes::from_static(b"none"), ..Default::default() };
            let wanted = [put("a"), Command::DeleteRange(delete), put("b")];
            for command in &wanted {
                run(&node, command).await;
            }
            let mut following = node.follow(FollowFrom::Oldest).await.unwrap();
            let told = commands(&mut following, 3).await;
            for (entry, command) in told.iter().zip(&wanted) {
                assert_eq!(entry.what, What::Command(command.clone()), "{engine}");
                assert_eq!(entry.era, engine.era(entry.stamp), "{engine}");
            }
            let revisions = told.iter().map(|entry| entry.revision);
            let wanted = [Some(2), Some(2), Some(3)];
            assert_eq!(revisions.collect::<Vec<_>>(), wanted, "a deletion of nothing makes none");

            // Nothing yet; and what comes while nobody waits is not lost.
            let wait = Duration::from_millis(20);
            assert!(tokio::time::timeout(wait, following.next()).await.is_err());
            run(&node, &put("c")).await;
            assert_eq!(commands(&mut following, 1).await[0].what, What::Command(put("c")));

            // From revisions, known and to come.
            let mut later = node.follow(FollowFrom::Revision(5)).await.unwrap();
            assert!(matches!(node.follow(FollowFrom::Now).await, Err(FollowError::Busy)));
            run(&node, &put("d")).await;
            run(&node, &put("e")).await;
            assert_eq!(commands(&mut later, 2).await[0].what, What::Command(put("d")));
            drop(later);
            let mut known = node.follow(FollowFrom::Revision(3)).await.unwrap();
            assert_eq!(commands(&mut known, 4).await[0].what, What::Command(put("b")));

            // Who outlives the node goes on from its place when it is back.
            let place = following.place();
            node.shutdown().await;
            let stopped = loop {
                match following.next().await {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(stopped, FollowError::Stopped);
            drop((following, known, node));
            let node = start(engine, directory.path()).await;
            let mut following = node.follow(FollowFrom::After(place)).await.unwrap();
            let told = commands(&mut following, 2).await;
            assert_eq!(told[1].what, What::Command(put("e")), "{engine}");
            let forgotten = node.follow(FollowFrom::Revision(2)).await.map(|_| ());
            let first = node.store().revision() + 1;
            assert_eq!(forgotten, Err(FollowError::Forgotten { revision: 2, first }));
            let stamp = place.stamp.map(|stamp| stamp + 1);
            let elsewhere =
                node.follow(FollowFrom::After(Place { stamp, ..place })).await.map(|_| ());
            let elsewhere = elsewhere.unwrap_err();
            assert!(
                matches!(elsewhere, FollowError::Feed(FeedError::OtherLog { .. })),
                "{elsewhere}"
            );
            node.shutdown().await;
        }
    }

    #[tokio::test]
    async fn now_is_after_all_that_was_acknowledged() {
        let directory = TempDir::new().unwrap();
        let node = start(Engine::Raft, directory.path()).await;
        for number in 0..200 {
            run(&node, &put("before")).await;
            let mut following = node.follow(FollowFrom::Now).await.unwrap();
            run(&node, &put("after")).await;
            let told = commands(&mut following, 1).await;
            assert_eq!(told[0].what, What::Command(put("after")), "round {number}");
        }
        node.shutdown().await;
    }

    #[tokio::test]
    async fn a_compaction_of_keys_is_an_entry_like_any_other() {
        let directory = TempDir::new().unwrap();
        let node = start(Engine::Raft, directory.path()).await;
        run(&node, &put("a")).await;
        let mut following = node.follow(FollowFrom::Now).await.unwrap();
        let compact = Command::Compact(CompactionRequest { revision: 2, physical: false });
        run(&node, &compact).await;
        let told = commands(&mut following, 1).await;
        assert_eq!((&told[0].what, told[0].revision), (&What::Command(compact), Some(2)));
        node.shutdown().await;
    }
}
