//! Clients that watch: each stays with a member for a while, and goes on at another from where it was.

use bytes::Bytes;
use quorate_kv::{WatchCreateRequest, WatchResponse};

use crate::clients;
use crate::plan::SECOND;
use crate::world::{Event, What, World};

/// One that watches, as it knows itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watcher {
    pub(crate) watched: Watched,
    /// Which of its connections counts: what comes on an earlier one is not listened to.
    pub(crate) connection: u64,
    /// The member it is connected to, by its place in the world.
    pub(crate) member: usize,
    /// Takes what it is told only now and then.
    pub(crate) is_slow: bool,
}

/// What is watched, and up to where its watcher was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    pub(crate) key: Bytes,
    pub(crate) range_end: Bytes,
    pub(crate) prev_kv: bool,
    /// The first revision that was not told yet; 0: the next one there will be.
    pub(crate) next: i64,
    /// Ended by the member, so that it has to begin anew.
    pub(crate) has_ended: bool,
}

/// What a watcher hears.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Response(WatchResponse),
    /// The connection is gone.
    Closed,
}

impl World<'_> {
    pub(crate) fn add_watchers(&mut self) {
        for number in 0..self.plan.clients.watchers {
            let mut watched = Watched::default();
            if self.chance.percent(40) {
                watched.key = clients::key(self.chance.below(self.plan.clients.keys));
            } else {
                (watched.key, watched.range_end) = clients::all_keys();
            }
            watched.prev_kv = self.chance.percent(50);
            watched.next = i64::from(self.chance.percent(50));
            let is_slow = self.chance.percent(20);
            self.watchers.push(Watcher { watched, is_slow, ..Watcher::default() });
            let time = self.chance.below(5 * SECOND);
            self.push(time, Event::Watch(number));
        }
    }

    /// A watcher connects anew, to a member of its choice, and leaves where it was.
    pub(crate) fn on_watch(&mut self, number: usize) {
        let members = self.watch_at.clone().unwrap_or_else(|| (0..self.nodes.len()).collect());
        let at = *self.chance.pick(&members);
        let delay = self.chance.between(50, 2_000);
        let watcher = &mut self.watchers[number];
        let (before, left) = (watcher.member, watcher.connection);
        watcher.connection += 1;
        watcher.member = at;
        watcher.watched.has_ended = false;
        let connection = watcher.connection;
        let request = WatchCreateRequest {
            key: watcher.watched.key.clone(),
            range_end: watcher.watched.range_end.clone(),
            prev_kv: watcher.watched.prev_kv,
            start_revision: watcher.watched.next,
            progress_notify: number.is_multiple_of(2),
            ..WatchCreateRequest::default()
        };
        let is_slow = watcher.is_slow && self.faults_are_on;
        let id = self.nodes[before].id;
        let what = What::Unwatch { watcher: number, connection: left };
        self.push(self.now + delay, Event::Any { id, what });
        let id = self.nodes[at].id;
        let what = What::Watch { watcher: number, connection, request, is_slow };
        self.push(self.now + delay, Event::Any { id, what });
        // It stays for a while, and hears there whatever it hears.
        let stays = self.chance.around(20 * SECOND);
        self.push(self.now + stays, Event::Leave { watcher: number, connection });
    }

    /// A watcher has stayed long enough with a member.
    pub(crate) fn on_leave(&mut self, watcher: usize, connection: u64) {
        if self.watchers[watcher].connection == connection {
            self.on_watch(watcher);
        }
    }

    pub(crate) fn on_told(&mut self, number: usize, connection: u64, told: Told) {
        if self.watchers[number].connection != connection {
            return;
        }
        let again = match told {
            Told::Closed => true,
            Told::Response(response) => {
                let watched = &mut self.watchers[number].watched;
                self.checks.on_told(watched, &response);
                watched.has_ended
            }
        };
        if again {
            let pause = self.chance.around(SECOND / 2);
            self.push(self.now + pause, Event::Leave { watcher: number, connection });
        }
    }

    /// Whether every watcher has been told all up to a revision.
    pub(crate) fn all_told(&self, revision: i64) -> bool {
        self.watchers.iter().all(|watcher| revision < watcher.watched.next)
    }
}
