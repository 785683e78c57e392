//! Operations as their clients saw them.

use bytes::Bytes;
use quorate_types::Revision;

use crate::model::State;

/// All that the clients of one store did, and what the store held before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What the store held before the first operation.
    pub initial: State,
    /// In any order; only their times count. Whoever wrote to the store has to be in it.
    pub operations: Vec<Operation>,
}

/// One request of a client and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked. A client has one request under way at a time.
    pub client: u64,
    /// The member that was asked, in one of its lives: a restarted member is another one, since it may
    /// have to catch up again. Nothing where that is not known.
    pub member: Option<u64>,
    /// When it was asked, in any unit. What has the same time counts as having overlapped.
    pub invoked_at: u64,
    /// What was asked.
    pub request: Request,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a client knows about the fate of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done between `invoked_at` and `at`.
    Answered {
        /// When the answer was there; not before the request.
        at: u64,
        /// What it said.
        response: Response,
    },
    /// It was done at some time after `invoked_at`, or will be, or never.
    Unknown,
    /// It was not done and never will be.
    Refused,
}

/// Something to be done at one moment. Without compares, `then` is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Asks one member for what it holds, however old that is. For reads only.
    pub serializable: bool,
    /// All must hold for `then`.
    pub compares: Vec<Compare>,
    /// What is done if they do.
    pub then: Vec<Action>,
    /// What is done if they do not.
    pub otherwise: Vec<Action>,
}

/// One step of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Writes one key.
    Put {
        /// The key.
        key: Bytes,
        /// Best unlike any other: the checkers find out more where each value is written once.
        value: Bytes,
    },
    /// Removes keys.
    Delete(Span),
    /// Reads keys.
    Range(Span),
}

/// One key, or those from `key` up to `end`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first key.
    pub key: Bytes,
    /// The first key that is not meant any more.
    pub end: Option<Bytes>,
}

/// A condition on one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Compare {
    /// The key.
    pub key: Bytes,
    /// How what it has relates to `target`.
    pub relation: Relation,
    /// What is compared. A key that is not there has zero revisions and versions, and no value.
    pub target: Target,
}

/// How two things relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// They are the same.
    Equal,
    /// They are not.
    Unequal,
    /// The key's is greater.
    Greater,
    /// The key's is less.
    Less,
}

/// What a condition asks about, and with what it compares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The value; no relation holds where there is none.
    Value(Bytes),
    /// How often the key was written since it was created.
    Version(u64),
    /// When it was created.
    Created(Revision),
    /// When it was last written.
    Modified(Revision),
}

/// What was answered. What an answer did not tell is nothing, and anything goes for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The store's revision right after a change, or while reading.
    pub revision: Option<Revision>,
    /// Whether the compares held.
    pub succeeded: bool,
    /// What came of each action of the branch that was taken.
    pub done: Vec<Done>,
}

/// What came of one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Written; what was there before (one item or none), if that was asked for.
    Put {
        /// The key's former item.
        previous: Option<Vec<Item>>,
    },
    /// Removed.
    Deleted {
        /// How many keys there were.
        count: u64,
    },
    /// Read.
    Found {
        /// All there were, in the order of their keys.
        items: Vec<Item>,
    },
}

/// A key as an answer showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// When it was created.
    pub created: Option<Revision>,
    /// When it was last written.
    pub modified: Option<Revision>,
    /// How often it was written since it was created.
    pub version: Option<u64>,
}

impl History {
    /// A history that begins with a fresh store.
    pub fn of(operations: impl IntoIterator<Item = Operation>) -> History {
        History { initial: State::default(), operations: operations.into_iter().collect() }
    }
}

impl Operation {
    /// A request whose fate is unknown so far.
    pub fn new(client: u64, invoked_at: u64, request: Request) -> Operation {
        Operation { client, member: None, invoked_at, request, outcome: Outcome::Unknown }
    }

    /// The same, asked of that member.
    pub fn of_member(mut self, member: u64) -> Operation {
        self.member = Some(member);
        self
    }

    /// The same, answered.
    pub fn answered(mut self, at: u64, response: Response) -> Operation {
        self.outcome = Outcome::Answered { at, response };
        self
    }

    /// The same, refused.
    pub fn refused(mut self) -> Operation {
        self.outcome = Outcome::Refused;
        self
    }

    /// The answer and when it was there.
    pub fn answer(&self) -> Option<(u64, &Response)> {
        match &self.outcome {
            Outcome::Answered { at, response } => Some((*at, response)),
            Outcome::Unknown | Outcome::Refused => None,
        }
    }

    /// Whether nobody knows if it was done.
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown)
    }

    /// The revision that this operation made, if its answer tells that it made one.
    pub fn made(&self) -> Option<Revision> {
        let (_, response) = self.answer()?;
        response.has_changed(&self.request).then_some(response.revision)?
    }
}

impl Request {
    /// Writes one key.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Request {
        Request::of([Action::Put { key: key.into(), value: value.into() }])
    }

    /// Removes one key.
    pub fn delete(key: impl Into<Bytes>) -> Request {
        Request::of([Action::Delete(Span::one(key))])
    }

    /// Reads one key.
    pub fn get(key: impl Into<Bytes>) -> Request {
        Request::of([Action::Range(Span::one(key))])
    }

    /// Reads the keys from `key` up to `end`.
    pub fn range(key: impl Into<Bytes>, end: impl Into<Bytes>) -> Request {
        Request::of([Action::Range(Span { key: key.into(), end: Some(end.into()) })])
    }

    /// Does all of these at one moment.
    pub fn of(actions: impl IntoIterator<Item = Action>) -> Request {
        Request { then: actions.into_iter().collect(), ..Request::default() }
    }

    /// The same, under a condition.
    pub fn provided(mut self, compare: Compare) -> Request {
        self.compares.push(compare);
        self
    }

    /// The same, with something else to do if the conditions do not hold.
    pub fn or_else(mut self, actions: impl IntoIterator<Item = Action>) -> Request {
        self.otherwise.extend(actions);
        self
    }

    /// The same, answered by one member from what it holds.
    pub fn serializable(mut self) -> Request {
        self.serializable = true;
        self
    }

    /// Whether it can change nothing, whatever the store holds.
    pub fn is_read(&self) -> bool {
        self.actions().all(|action| matches!(action, Action::Range(_)))
    }

    /// The actions of both branches.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.then.iter().chain(&self.otherwise)
    }

    /// The actions of the branch that is taken.
    pub fn branch(&self, succeeded: bool) -> &[Action] {
        if succeeded { &self.then } else { &self.otherwise }
    }
}

impl Span {
    /// One key.
    pub fn one(key: impl Into<Bytes>) -> Span {
        Span { key: key.into(), end: None }
    }

    /// Whether the key is meant.
    pub fn has(&self, key: &[u8]) -> bool {
        match &self.end {
            None => key == self.key,
            Some(end) => *self.key <= *key && *key < **end,
        }
    }
}

impl Compare {
    /// That the key was last written at that revision; 0: that it is not there.
    pub fn modified(key: impl Into<Bytes>, revision: u64) -> Compare {
        let target = Target::Modified(Revision(revision));
        Compare { key: key.into(), relation: Relation::Equal, target }
    }

    /// That the key has that value.
    pub fn value(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Compare {
        let target = Target::Value(value.into());
        Compare { key: key.into(), relation: Relation::Equal, target }
    }
}

impl Relation {
    /// Whether `left` relates so to `right`.
    pub fn holds<T: Ord + ?Sized>(self, left: &T, right: &T) -> bool {
        match self {
            Relation::Equal => left == right,
            Relation::Unequal => left != right,
            Relation::Greater => left > right,
            Relation::Less => left < right,
        }
    }
}

impl Response {
    /// The answer to a put that did not ask for more.
    pub fn wrote(revision: u64) -> Response {
        Response::done(revision, [Done::Put { previous: None }])
    }

    /// The answer to a delete.
    pub fn deleted(revision: u64, count: u64) -> Response {
        Response::done(revision, [Done::Deleted { count }])
    }

    /// The answer to a read.
    pub fn found(revision: u64, items: impl IntoIterator<Item = Item>) -> Response {
        Response::done(revision, [Done::Found { items: items.into_iter().collect() }])
    }

    /// The answer to a request whose compares, if any, held.
    pub fn done(revision: u64, done: impl IntoIterator<Item = Done>) -> Response {
        Response {
            revision: Some(Revision(revision)),
            succeeded: true,
            done: done.into_iter().collect(),
        }
    }

    /// The same, but the compares did not hold.
    pub fn otherwise(mut self) -> Response {
        self.succeeded = false;
        self
    }

    /// The same with nothing known of any revision, version included.
    pub fn without_revisions(mut self) -> Response {
        self.revision = None;
        for done in &mut self.done {
            let items = match done {
                Done::Put { previous: Some(items) } | Done::Found { items } => items,
                Done::Put { previous: None } | Done::Deleted { .. } => continue,
            };
            for item in items {
                (item.created, item.modified, item.version) = (None, None, None);
            }
        }
        self
    }

    /// Whether a request that was answered so has changed the store, and made a revision.
    pub fn has_changed(&self, request: &Request) -> bool {
        let actions = request.branch(self.succeeded).iter();
        actions.zip(&self.done).any(|(action, done)| match (action, done) {
            (Action::Put { .. }, _) => true,
            (Action::Delete(_), Done::Deleted { count }) => 0 < *count,
            (Action::Delete(_) | Action::Range(_), _) => false,
        })
    }

    /// All items that it showed as the store held them right after it; those that a put replaced
    /// are not among them.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.done.iter().flat_map(|done| match done {
            Done::Found { items } => items.as_slice(),
            Done::Put { .. } | Done::Deleted { .. } => &[],
        })
    }

    /// Whether it has the form of an answer to that request.
    pub fn fits(&self, request: &Request) -> bool {
        let actions = request.branch(self.succeeded);
        (self.succeeded || !request.compares.is_empty())
            && actions.len() == self.done.len()
            && actions.iter().zip(&self.done).all(|pair| {
                matches!(
                    pair,
                    (Action::Put { .. }, Done::Put { .. })
                        | (Action::Delete(_), Done::Deleted { .. })
                        | (Action::Range(_), Done::Found { .. })
                )
            })
    }
}

impl Item {
    /// A key of which only the value is known.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Item {
        let (key, value) = (key.into(), value.into());
        Item { key, value, created: None, modified: None, version: None }
    }

    /// The same with its revisions and its version.
    pub fn at(mut self, created: u64, modified: u64, version: u64) -> Item {
        (self.created, self.modified) = (Some(Revision(created)), Some(Revision(modified)));
        self.version = Some(version);
        self
    }
}
