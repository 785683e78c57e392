//! Clients that write unlike values to few keys, and remember all they saw.
//!
//! What must not go unseen is a write that happened though it was said not to have, and one that happened
//! twice. Both leave a value where none should be, until the next write to its key. So most writes ask
//! what they replaced, and who got no answer looks at the key.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_history::{Action, Compare, History, Operation, Outcome, Request, Response, Span};
use quorate_proto::tonic::transport::Channel;

use crate::chance::Chance;
use crate::wire::{self, Failure};

/// Below this, a client of the load; from here on, who writes to see whether the cluster goes on.
pub(crate) const PROBE: u64 = 900_000;
/// From here on, who looks at one member after all is over.
pub(crate) const OBSERVER: u64 = 1_000_000;
/// What a client waits after a request that was not answered.
const FAILURE_PAUSE: Duration = Duration::from_millis(25);
/// Lives of a member are counted up from its number times this.
const LIVES_MAX: u64 = 1_000_000;

/// Where everybody writes down what they ask and what comes back.
pub(crate) struct Recorder {
    begun: Instant,
    operations: Mutex<Vec<Operation>>,
    /// How often each member was started.
    lives: Vec<AtomicU64>,
    /// To each member, for the impatient and for the patient.
    channels: Vec<[Channel; 2]>,
    pub(crate) ok: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unknown: AtomicU64,
    /// Why requests were not answered, and how often.
    pub(crate) failures: Mutex<BTreeMap<String, u64>>,
}

impl Recorder {
    pub(crate) fn new(channels: Vec<[Channel; 2]>) -> Recorder {
        Recorder {
            begun: Instant::now(),
            operations: Mutex::default(),
            lives: channels.iter().map(|_| AtomicU64::new(0)).collect(),
            channels,
            ok: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            failures: Mutex::default(),
        }
    }

    /// One to each member, for those who write nothing down here.
    pub(crate) fn channels(&self) -> Vec<Channel> {
        self.channels.iter().map(|[_, patient]| patient.clone()).collect()
    }

    pub(crate) fn set_life(&self, member: usize, life: u64) {
        self.lives[member].store(life, Ordering::SeqCst);
    }

    /// Asks a member and writes it down; the answer, if there was one.
    pub(crate) async fn ask(
        &self,
        client: u64,
        member: usize,
        request: Request,
        wants_previous: bool,
    ) -> Option<Response> {
        let life = self.lives[member].load(Ordering::SeqCst);
        // Written down before it is sent: what is cut short later has been asked all the same.
        let number = {
            let mut operations = self.operations.lock().expect("nobody panics with it");
            operations.push(Operation::new(client, self.now(), request.clone()));
            operations.len() - 1
        };
        // Half of the clients of the load are patient.
        let patience = usize::from(client < PROBE && client % 2 == 1);
        let channel = self.channels[member][patience].clone();
        let answer = wire::ask(channel, &request, wants_previous).await;
        let at = self.now();
        let is_same_life = life == self.lives[member].load(Ordering::SeqCst);
        let (count, outcome) = match &answer {
            Ok(response) => (&self.ok, Outcome::Answered { at, response: response.clone() }),
            Err(Failure::Refused(status)) => {
                self.note(status.message());
                (&self.refused, Outcome::Refused)
            }
            Err(Failure::Unknown(status)) => {
                self.note(status.message());
                (&self.unknown, Outcome::Unknown)
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        let mut operations = self.operations.lock().expect("nobody panics with it");
        operations[number].outcome = outcome;
        operations[number].member = is_same_life.then_some(member as u64 * LIVES_MAX + life);
        answer.ok()
    }

    fn note(&self, why: &str) {
        let mut failures = self.failures.lock().expect("nobody panics with it");
        *failures.entry(why.to_owned()).or_default() += 1;
    }

    /// Microseconds since the beginning.
    fn now(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    /// All that was written down so far.
    pub(crate) fn history(&self) -> History {
        let operations = self.operations.lock().expect("nobody panics with it").clone();
        // A read that nobody answered tells nothing.
        let tells = |it: &Operation| it.answer().is_some() || !it.request.is_read();
        History::of(operations.into_iter().filter(tells))
    }
}

/// What a client is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) number: u64,
    pub(crate) keys: usize,
    pub(crate) think: Duration,
}

impl Client {
    /// Asks one thing after the other until it is told to stop.
    pub(crate) async fn work(
        self,
        recorder: Arc<Recorder>,
        mut chance: Chance,
        stop: Arc<AtomicBool>,
    ) {
        let members = recorder.channels.len();
        let mut member = chance.below(members);
        // Revisions at which keys were seen, to write on condition.
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        // A key whose last write had no answer.
        let mut doubtful: Option<Bytes> = None;
        for turn in 0_u64.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let request = match doubtful.take().filter(|_| chance.percent(70)) {
                Some(key) => Request::get(key),
                None => self.request(&mut chance, turn, &seen),
            };
            let written = request.actions().find_map(|action| match action {
                Action::Put { key, .. } => Some(key.clone()),
                Action::Delete(_) | Action::Range(_) => None,
            });
            let wants_previous = chance.percent(80);
            let answer = recorder.ask(self.number, member, request, wants_previous).await;
            for item in answer.iter().flat_map(Response::items) {
                let key = String::from_utf8_lossy(&item.key).into_owned();
                seen.insert(key, item.modified.map_or(0, |it| it.0));
            }
            if answer.is_none() {
                doubtful = written;
                // Whoever is down refuses at once; there is no use in asking all the time.
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
            if answer.is_none() || chance.percent(15) {
                member = chance.below(members);
            }
            let think = chance.between(0, self.think.as_millis() as u64);
            tokio::time::sleep(Duration::from_millis(think)).await;
        }
    }

    fn request(self, chance: &mut Chance, turn: u64, seen: &BTreeMap<String, u64>) -> Request {
        let key = |chance: &mut Chance| format!("k{}", chance.below(self.keys));
        let value = |part: &str| format!("c{}-{turn}{part}", self.number);
        let one = key(chance);
        let put =
            |key: String, part: &str| Action::Put { key: key.into(), value: value(part).into() };
        match chance.below(100) {
            0..30 => Request::of([put(one, "")]),
            30..55 => Request::get(one),
            55..65 => Request::get(one).serializable(),
            65..72 => Request::delete(one),
            72..78 => Request::range("k", "l"),
            78..94 => {
                let compare = Compare::modified(one.clone(), seen.get(&one).copied().unwrap_or(0));
                let read = Action::Range(Span::one(one.clone()));
                Request::of([put(one, "")]).provided(compare).or_else([read])
            }
            // Two keys at one moment, or the same one read after it was written.
            _ => {
                let other = key(chance);
                let second = match one == other {
                    true => Action::Range(Span::one(other)),
                    false => put(other, "b"),
                };
                Request::of([put(one, "a"), second])
            }
        }
    }
}

#[cfg(test)]
mod tests;
