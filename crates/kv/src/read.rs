//! Reads at one revision while entries go on being applied.
//!
//! A read pins a revision and walks the index in steps, giving the lock back between them, so that
//! a long one holds nobody up. At the end it fetches rows from where the last step saw them, outside
//! the lock. Only a compaction past the pinned revision can disturb it; then it starts over, and
//! after a few such misfortunes keeps the lock.

use std::ops::ControlFlow;
use std::sync::{Arc, RwLockReadGuard};

use bytes::Bytes;

use crate::allowance::{
    Allowance, AnswerRoom, CHANGE_ANSWER_BYTES_MAX, Drawn, RANGE_ANSWER_BYTES_MAX, Unanswered,
};
use crate::error::{KvError, StoreError};
use crate::index::Stamp;
use crate::interval::Interval;
use crate::request::{
    Compare, CompareResult, CompareTarget, RangeRequest, RequestOp, SortOrder, SortTarget,
    TxnRequest,
};
use crate::response::{KeyValue, RangeResponse, ResponseOp, TxnResponse};
use crate::state::{Rows, State};
use crate::store::Store;

/// Keys looked at between two chances for others to take the lock.
pub(crate) const STEP_KEYS: usize = 1000;
/// Reads that a compaction has overtaken this often keep the lock.
pub(crate) const OVERTAKEN_MAX: usize = 3;

impl Store {
    /// Reads the keys of an interval, now or at a revision of the past.
    ///
    /// The answer is as of what is applied here; whether that is recent enough is the caller's
    /// concern.
    ///
    /// # Errors
    ///
    /// Those of [`RangeRequest::validate`]; `FutureRev` and `Compacted`. `ResponseTooLarge` over
    /// [`RANGE_ANSWER_BYTES_MAX`]. When the storage fails or is damaged, `Corrupt`, and
    /// [`Store::failure`] says why.
    ///
    /// Source: etcd's `Range`.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        Ok(self.range_by(Scan::new, None, request)?.0)
    }

    /// As [`Store::range`], with an answer that draws on what all answers may take together; that is
    /// taken as long as the second part of what is returned is kept.
    ///
    /// # Errors
    ///
    /// As of `range`; `Crowded` where others leave no room.
    pub fn range_within(
        &self,
        room: &Arc<AnswerRoom>,
        request: &RangeRequest,
    ) -> Result<(RangeResponse, Option<Drawn>), Unanswered> {
        self.range_by(Scan::new, Some(room), request)
    }

    /// Reads one key, if that takes nothing from storage, which may have to wait for a disk. Nothing
    /// if it does, or if more than one key is asked for.
    ///
    /// # Errors
    ///
    /// As of [`Store::range`].
    pub fn range_in_memory(
        &self,
        request: &RangeRequest,
    ) -> Result<Option<RangeResponse>, KvError> {
        request.validate()?;
        if !request.range_end.is_empty() {
            return Ok(None);
        }
        let state = self.state()?;
        let revision = state.meta.revision;
        check_range(request, revision, state.meta.compacted)?;
        let main = if 0 < request.revision { request.revision } else { revision };
        let (mut scan, mut budget) = (Scan::new(request, main), usize::MAX);
        let mut allowance = Allowance::new(RANGE_ANSWER_BYTES_MAX);
        scan.step(&state, &mut budget, &mut allowance);
        let rows = state.rows();
        drop(state);
        let is_held = |(stamp, row): &Found| row.is_some() || rows.is_flushing(stamp);
        if !scan.found.iter().all(is_held) {
            return Ok(None);
        }
        let finished = scan.finish(&rows, revision, &mut allowance);
        finished.map(Some).map_err(|error| self.failed_read(error))
    }

    /// Reads a page of an interval: as [`Store::range`], but it goes no further than the limit, so the
    /// count is not of the interval. The keys of the next page begin after the last of this one.
    ///
    /// # Errors
    ///
    /// As of [`Store::range`].
    pub fn page(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        Ok(self.range_by(Scan::page, None, request)?.0)
    }

    /// As [`Store::range_within`], with `bytes_max` of keys and values, as they take memory, at most; or
    /// with one pair, however long. There is more if that cuts it short.
    ///
    /// # Errors
    ///
    /// As of `range_within`.
    pub fn first_piece_within(
        &self,
        room: &Arc<AnswerRoom>,
        bytes_max: usize,
        request: &RangeRequest,
    ) -> Result<(RangeResponse, Option<Drawn>), Unanswered> {
        let scan = |request, main| Scan { bytes_max, ..Scan::new(request, main) };
        self.range_by(scan, Some(room), request)
    }

    /// As [`Store::page`], with `bytes_max` of keys and values, as they take memory, at most; or with
    /// one pair, however long. There is more if that cuts it short.
    ///
    /// # Errors
    ///
    /// As of `range_within`.
    pub fn next_piece_within(
        &self,
        room: &Arc<AnswerRoom>,
        bytes_max: usize,
        request: &RangeRequest,
    ) -> Result<(RangeResponse, Option<Drawn>), Unanswered> {
        let scan = |request, main| Scan { bytes_max, ..Scan::page(request, main) };
        self.range_by(scan, Some(room), request)
    }

    fn range_by<'r>(
        &self,
        scan: impl Fn(&'r RangeRequest, i64) -> Scan<'r>,
        room: Option<&Arc<AnswerRoom>>,
        request: &'r RangeRequest,
    ) -> Result<(RangeResponse, Option<Drawn>), Unanswered> {
        request.validate()?;
        let ((), mut responses, drawn) =
            self.read_by(scan, RANGE_ANSWER_BYTES_MAX, room, |state| {
                check_range(request, state.meta.revision, state.meta.compacted)?;
                Ok(((), vec![request]))
            })?;
        Ok((responses.remove(0), drawn))
    }

    /// Runs a transaction that holds nothing but ranges, all of them on one state.
    ///
    /// # Errors
    ///
    /// As [`Store::range`], but all ranges together are held to [`CHANGE_ANSWER_BYTES_MAX`], and a
    /// negative revision is the newest one only down to the compacted one.
    ///
    /// # Panics
    ///
    /// If the transaction is not [`TxnRequest::is_read_only`].
    pub fn read_txn(&self, txn: &TxnRequest) -> Result<TxnResponse, KvError> {
        Ok(self.read_txn_by(None, txn)?.0)
    }

    /// As [`Store::read_txn`], with an answer that draws on what all answers may take together; that is
    /// taken as long as the second part of what is returned is kept.
    ///
    /// # Errors
    ///
    /// As of `read_txn`; `Crowded` where others leave no room.
    ///
    /// # Panics
    ///
    /// As `read_txn`.
    pub fn read_txn_within(
        &self,
        room: &Arc<AnswerRoom>,
        txn: &TxnRequest,
    ) -> Result<(TxnResponse, Option<Drawn>), Unanswered> {
        self.read_txn_by(Some(room), txn)
    }

    fn read_txn_by(
        &self,
        room: Option<&Arc<AnswerRoom>>,
        txn: &TxnRequest,
    ) -> Result<(TxnResponse, Option<Drawn>), Unanswered> {
        assert!(txn.is_read_only(), "what writes goes through the log");
        let ((succeeded, revision), responses, drawn) =
            self.read_by(Scan::new, CHANGE_ANSWER_BYTES_MAX, room, |state| {
                let revision = state.meta.revision;
                let succeeded =
                    compares_hold(state, &txn.compare, revision).map_err(ReadError::Storage)?;
                let mut ranges = Vec::new();
                for op in if succeeded { &txn.success } else { &txn.failure } {
                    let RequestOp::Range(range) = op else { continue };
                    range.validate()?;
                    check_txn_range(range, revision, state.meta.compacted)?;
                    ranges.push(range);
                }
                Ok(((succeeded, revision), ranges))
            })?;
        let responses = responses.into_iter().map(ResponseOp::Range).collect();
        Ok((TxnResponse { revision, succeeded, responses }, drawn))
    }

    /// Reads the ranges that `plan` asks for, all on the state that `plan` sees, in scans of one kind.
    fn read_by<'r, T>(
        &self,
        scan: impl Fn(&'r RangeRequest, i64) -> Scan<'r>,
        bytes_max: usize,
        room: Option<&Arc<AnswerRoom>>,
        plan: impl Fn(&State) -> Result<(T, Vec<&'r RangeRequest>), ReadError>,
    ) -> Result<(T, Vec<RangeResponse>, Option<Drawn>), Unanswered> {
        for tries in 0.. {
            let mut allowance = match room {
                Some(room) => Allowance::within(bytes_max, room),
                None => Allowance::new(bytes_max),
            };
            match self.try_read(&scan, &plan, tries == OVERTAKEN_MAX, &mut allowance) {
                Ok((planned, responses)) => {
                    if let Some(needed_bytes) = allowance.lacked_bytes() {
                        return Err(Unanswered::Crowded { needed_bytes });
                    }
                    if allowance.is_spent() {
                        return Err(KvError::ResponseTooLarge.into());
                    }
                    return Ok((planned, responses, allowance.into_drawn()));
                }
                Err(ReadError::Overtaken) => {}
                Err(ReadError::Refused(refused)) => return Err(refused.into()),
                Err(ReadError::Storage(error)) => return Err(self.failed_read(error).into()),
            }
        }
        unreachable!("a read that keeps the lock is not overtaken")
    }

    fn try_read<'r, T>(
        &self,
        scan: impl Fn(&'r RangeRequest, i64) -> Scan<'r>,
        plan: impl Fn(&State) -> Result<(T, Vec<&'r RangeRequest>), ReadError>,
        keeps_lock: bool,
        allowance: &mut Allowance,
    ) -> Result<(T, Vec<RangeResponse>), ReadError> {
        let mut state = self.state()?;
        let revision = state.meta.revision;
        let (planned, requests) = plan(&state)?;
        let mut budget = if keeps_lock { usize::MAX } else { STEP_KEYS };
        let mut scans = Vec::with_capacity(requests.len());
        for request in requests {
            let main = if 0 < request.revision { request.revision } else { revision };
            let mut scan = scan(request, main);
            while !scan.step(&state, &mut budget, allowance) {
                state = self.let_others(state)?;
                budget = STEP_KEYS;
                let compacted = state.meta.compacted;
                if scans.iter().chain([&scan]).any(|scan| scan.main < compacted) {
                    return Err(ReadError::Overtaken);
                }
            }
            scans.push(scan);
        }
        // What an earlier scan found is still there: no compaction has passed it.
        let rows = state.rows();
        drop(state);
        let finish = |scan: Scan<'_>| scan.finish(&rows, revision, allowance);
        let responses = scans.into_iter().map(finish).collect::<Result<_, _>>();
        let responses = responses.map_err(ReadError::Storage)?;
        Ok((planned, responses))
    }

    /// Gives the lock back and takes it again.
    fn let_others<'s>(
        &'s self,
        held: RwLockReadGuard<'s, State>,
    ) -> Result<RwLockReadGuard<'s, State>, KvError> {
        drop(held);
        self.state()
    }
}

/// Why a read has no answer yet.
enum ReadError {
    Refused(KvError),
    Overtaken,
    Storage(StoreError),
}

impl From<KvError> for ReadError {
    fn from(refused: KvError) -> Self {
        ReadError::Refused(refused)
    }
}

/// Whether a range's revision may be read. A negative one stands for the newest.
pub(crate) fn check_range(
    range: &RangeRequest,
    current: i64,
    compacted: i64,
) -> Result<(), KvError> {
    if current < range.revision {
        return Err(KvError::FutureRev);
    }
    if 0 < range.revision && range.revision < compacted {
        return Err(KvError::Compacted);
    }
    Ok(())
}

/// Whether a revision that a range of a transaction asks for may be read. A negative one is below
/// what is compacted, as in etcd; before the first compaction -1 is not, and stands for the newest.
pub(crate) fn check_txn_range(
    range: &RangeRequest,
    current: i64,
    compacted: i64,
) -> Result<(), KvError> {
    if range.revision < compacted && range.revision != 0 {
        return Err(KvError::Compacted);
    }
    check_range(range, current, compacted)
}

/// What is noted of a key until its row is fetched: the stamp, and the row if the overlay had it.
type Found = (Stamp, Option<Bytes>);

/// A range on its way through the index, at one revision.
pub(crate) struct Scan<'r> {
    request: &'r RangeRequest,
    main: i64,
    after: Option<Box<[u8]>>,
    /// Keys in the interval.
    count: i64,
    /// Keys of those that pass the filters.
    matched: usize,
    /// As many of those as can be in the answer.
    found: Vec<Found>,
    found_max: usize,
    /// Of those, as many are in the answer as take no more memory; at least one.
    bytes_max: usize,
    /// Whether it is over with the first key that has no place in the answer.
    is_page: bool,
}

impl<'r> Scan<'r> {
    pub(crate) fn new(request: &'r RangeRequest, main: i64) -> Self {
        let found_max = if request.count_only {
            0
        } else if is_key_ascending(request) {
            limit(request)
        } else {
            usize::MAX // the limit is for what is first after sorting
        };
        Scan {
            request,
            main,
            after: None,
            count: 0,
            matched: 0,
            found: Vec::new(),
            found_max,
            bytes_max: usize::MAX,
            is_page: false,
        }
    }

    /// One that does not count what it does not answer.
    fn page(request: &'r RangeRequest, main: i64) -> Self {
        Scan { is_page: true, ..Scan::new(request, main) }
    }

    /// Goes on, for at most `budget` keys, which it takes from. True when the walk is over, which it
    /// also is once the allowance is spent.
    pub(crate) fn step(
        &mut self,
        state: &State,
        budget: &mut usize,
        allowance: &mut Allowance,
    ) -> bool {
        let request = self.request;
        let interval = Interval::new(&request.key, &request.range_end);
        let after = self.after.take();
        let before = self.count;
        self.after = state.index.walk(
            interval,
            after.as_deref(),
            self.main,
            (*budget).max(1),
            |_, stamp| {
                self.count += 1;
                if passes(request, stamp) {
                    self.matched += 1;
                    if self.found.len() < self.found_max {
                        if !allowance.take(size_of::<Found>()) {
                            return ControlFlow::Break(());
                        }
                        self.found.push((*stamp, state.overlay.row(stamp.revision).cloned()));
                    } else if self.is_page {
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            },
        );
        let used = if self.after.is_some() { *budget } else { (self.count - before) as usize };
        *budget = budget.saturating_sub(used);
        self.after.is_none()
    }

    /// The answer, with rows from where the last step saw them; not the whole of it, if that spends
    /// the allowance.
    pub(crate) fn finish(
        mut self,
        rows: &Rows,
        revision: i64,
        allowance: &mut Allowance,
    ) -> Result<RangeResponse, StoreError> {
        let request = self.request;
        let limit = limit(request);
        let noted_bytes = self.found.len() * size_of::<Found>();
        let descending = request.sort_order == SortOrder::Descend;
        let by_value = request.sort_target == SortTarget::Value;
        if !by_value {
            sort(&mut self.found, request.sort_target, descending);
            self.found.truncate(limit);
        }
        let mut kvs = Vec::new();
        let (mut left_bytes, mut is_cut) = (self.bytes_max, false);
        for (stamp, row) in self.found {
            if allowance.is_spent() {
                break;
            }
            let mut kv = rows.pair(&stamp, row)?;
            if request.keys_only && !by_value {
                strip(&mut kv);
            }
            is_cut = left_bytes < kv.memory_bytes() && !kvs.is_empty();
            if is_cut {
                break;
            }
            left_bytes = left_bytes.saturating_sub(kv.memory_bytes());
            if allowance.take(kv.memory_bytes()) {
                kvs.push(kv);
            }
        }
        let fetched_bytes = memory_bytes(&kvs);
        if by_value {
            kvs.sort_by(|one, other| one.value.cmp(&other.value));
            if descending {
                kvs.reverse();
            }
            kvs.truncate(limit);
        }
        if request.keys_only && by_value {
            kvs.iter_mut().for_each(strip);
        }
        allowance.give_back(noted_bytes + fetched_bytes - memory_bytes(&kvs));
        let more = is_cut || !request.count_only && limit < self.matched;
        Ok(RangeResponse { revision, kvs, more, count: self.count })
    }
}

fn memory_bytes(kvs: &[KeyValue]) -> usize {
    kvs.iter().map(KeyValue::memory_bytes).sum()
}

/// Leaves the key alone; a slice would keep its value in memory.
fn strip(kv: &mut KeyValue) {
    kv.key = Bytes::copy_from_slice(&kv.key);
    kv.value = Bytes::new();
}

fn limit(request: &RangeRequest) -> usize {
    if 0 < request.limit {
        usize::try_from(request.limit).unwrap_or(usize::MAX)
    } else {
        usize::MAX
    }
}

fn is_key_ascending(request: &RangeRequest) -> bool {
    request.sort_target == SortTarget::Key && request.sort_order != SortOrder::Descend
}

fn passes(request: &RangeRequest, stamp: &Stamp) -> bool {
    let within = |revision: i64, min: i64, max: i64| {
        (min == 0 || min <= revision) && (max == 0 || revision <= max)
    };
    within(stamp.revision.main, request.min_mod_revision, request.max_mod_revision)
        && within(stamp.created, request.min_create_revision, request.max_create_revision)
}

/// Sorts what was found in key order.
fn sort(found: &mut [Found], target: SortTarget, descending: bool) {
    match target {
        SortTarget::Key | SortTarget::Value | SortTarget::Unknown(_) => {}
        SortTarget::Version => found.sort_by_key(|(stamp, _)| stamp.version),
        SortTarget::Create => found.sort_by_key(|(stamp, _)| stamp.created),
        SortTarget::Mod => found.sort_by_key(|(stamp, _)| stamp.revision.main),
    }
    if descending {
        found.reverse();
    }
}

/// Whether all compares hold at revision `main`.
pub(crate) fn compares_hold(
    state: &State,
    compares: &[Compare],
    main: i64,
) -> Result<bool, StoreError> {
    for compare in compares {
        if !holds(state, compare, main)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds(state: &State, compare: &Compare, main: i64) -> Result<bool, StoreError> {
    let interval = Interval::new(&compare.key, &compare.range_end);
    let mut outcome = None;
    state.index.walk(interval, None, main, usize::MAX, |_, stamp| {
        let held = holds_for(state, compare, stamp);
        let go_on = matches!(held, Ok(true));
        outcome = Some(held);
        if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    outcome.unwrap_or_else(|| Ok(holds_for_absent(compare)))
}

fn holds_for(state: &State, compare: &Compare, stamp: &Stamp) -> Result<bool, StoreError> {
    let relation = match &compare.target {
        CompareTarget::Version(given) => stamp.version.cmp(given),
        CompareTarget::Create(given) => stamp.created.cmp(given),
        CompareTarget::Mod(given) => stamp.revision.main.cmp(given),
        CompareTarget::Value(given) => state.pair(stamp)?.value.cmp(given),
        CompareTarget::Lease(given) => state.pair(stamp)?.lease.cmp(given),
        CompareTarget::Unknown(_) => std::cmp::Ordering::Equal,
    };
    Ok(fits(compare.result, relation))
}

/// An absent key has every number at 0. It has no value, and nothing holds of that.
fn holds_for_absent(compare: &Compare) -> bool {
    let relation = match &compare.target {
        CompareTarget::Value(_) => return false,
        CompareTarget::Version(given)
        | CompareTarget::Create(given)
        | CompareTarget::Mod(given)
        | CompareTarget::Lease(given) => 0.cmp(given),
        CompareTarget::Unknown(_) => std::cmp::Ordering::Equal,
    };
    fits(compare.result, relation)
}

fn fits(result: CompareResult, relation: std::cmp::Ordering) -> bool {
    match result {
        CompareResult::Equal => relation.is_eq(),
        CompareResult::NotEqual => relation.is_ne(),
        CompareResult::Greater => relation.is_gt(),
        CompareResult::Less => relation.is_lt(),
        CompareResult::Unknown(_) => true,
    }
}
