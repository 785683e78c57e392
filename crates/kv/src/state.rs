//! Everything that is applied, as one thread may change it and many may read it.
//!
//! ```text
//! storage (view)  ◄─ being flushed  ◄─ overlay            rows, oldest to newest
//! flushed         <=                   applied            marks in the log
//! compacted       <=                   current            revisions
//! ```
//! A row is in exactly one of the three places, or in the first two while a flush ends. A stamp in
//! the index stands for a row that is in one of them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quorate_types::{Index as LogIndex, bug};

use crate::alarm::Alarms;
use crate::backend::{Backend, Batch, Table, View};
use crate::error::StoreError;
use crate::index::{Index, Stamp};
use crate::lease::Leases;
use crate::lessor::Lessor;
use crate::member::Members;
use crate::meta::Meta;
use crate::overlay::Overlay;
use crate::recent::Recent;
use crate::response::KeyValue;
use crate::revision::Revision;
use crate::row::{self, Row};
use crate::sealed;

pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) members: Members,
    pub(crate) leases: Leases,
    /// Not replicated: when leases end, if this member leads.
    pub(crate) lessor: Lessor,
    pub(crate) alarms: Alarms,
    /// As it is now; storage has it as of the last flush.
    pub(crate) meta: Meta,
    pub(crate) overlay: Overlay,
    /// The last changes, flushed or not.
    pub(crate) recent: Recent,
    flushing: Option<Arc<Overlay>>,
    view: Arc<dyn View>,
    flushed: LogIndex,
    /// The last compaction whose removal is durable.
    removed_durably: i64,
    /// Rows that compaction has forgotten and storage still has.
    forgotten: Vec<Revision>,
    /// Not replicated: how many compaction has forgotten since this began.
    forgotten_count: u64,
    walk: Option<Walk>,
}

/// Compaction on its way through the keys.
struct Walk {
    target: i64,
    /// The last key it looked at.
    after: Option<Box<[u8]>>,
}

/// Where rows are that are not in the overlay. Stays right however long it is held.
#[derive(Clone)]
pub(crate) struct Rows {
    flushing: Option<Arc<Overlay>>,
    view: Arc<dyn View>,
}

/// A flush under way: what is committed.
pub(crate) struct Flush {
    overlay: Arc<Overlay>,
    meta: Meta,
    members: Vec<([u8; 8], Vec<u8>)>,
    leases: Vec<([u8; 8], Option<BytesMut>)>,
    alarms: Vec<([u8; 9], bool)>,
    forgotten: Vec<Revision>,
}

impl State {
    /// Reads all keys, members, leases and alarms from storage. `progress` hears how many bytes of how
    /// many are read.
    pub(crate) fn load(
        backend: &dyn Backend,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<State, StoreError> {
        let view = backend.view()?;
        let meta = Meta::read(&*view)?;
        let mut tally =
            Tally { rows_count: 0, bytes: 0, total_bytes: backend.in_use_bytes(), progress };
        view.scan(Table::Meta, &[], &mut |key, row| {
            tally.row(key, row.len());
            ControlFlow::Continue(())
        })?;
        let mut leases = load_leases(&*view, &mut tally)?;
        let (index, owners) = load_index(&*view, meta.revision, &mut tally)?;
        if !leases.load_owners(owners) {
            return Err(StoreError::Damaged("a key of a lease that is not there".to_owned()));
        }
        let members = load_members(&*view, &mut tally)?;
        let alarms = load_alarms(&*view, &mut tally)?;
        tally.end()?;
        let (flushed, removed_durably) = (meta.applied.index, meta.removed);
        Ok(State {
            index,
            members,
            leases,
            lessor: Lessor::default(),
            alarms,
            recent: Recent::new(meta.revision),
            meta,
            overlay: Overlay::default(),
            flushing: None,
            view,
            flushed,
            removed_durably,
            forgotten: Vec::new(),
            forgotten_count: 0,
            walk: None,
        })
    }

    pub(crate) fn flushed(&self) -> LogIndex {
        self.flushed
    }

    pub(crate) fn forgotten_count(&self) -> u64 {
        self.forgotten_count
    }

    pub(crate) fn removed_durably(&self) -> i64 {
        self.removed_durably
    }

    /// Memory of what is not in storage yet.
    pub(crate) fn overlay_bytes(&self) -> usize {
        let flushing = self.flushing.as_ref().map_or(0, |overlay| overlay.bytes());
        let forgotten = self.forgotten.len() * size_of::<Revision>();
        self.overlay.bytes() + flushing + forgotten + self.leases.changed_bytes()
    }

    /// Changes that are not in storage yet.
    pub(crate) fn overlay_count(&self) -> usize {
        let flushing = self.flushing.as_ref().map_or(0, |overlay| overlay.count());
        self.overlay.count() + flushing + self.forgotten.len()
    }

    /// Takes a change.
    pub(crate) fn record(&mut self, revision: Revision, row: Bytes) {
        self.recent.push(revision, row.clone());
        self.overlay.push(revision, row);
    }

    /// Where the rows outside the overlay are.
    pub(crate) fn rows(&self) -> Rows {
        Rows { flushing: self.flushing.clone(), view: Arc::clone(&self.view) }
    }

    /// The pair that was put at `stamp`.
    pub(crate) fn pair(&self, stamp: &Stamp) -> Result<KeyValue, StoreError> {
        match self.overlay.row(stamp.revision) {
            Some(row) => pair(stamp.revision, row.clone()),
            None => pair(stamp.revision, find(self.flushing.as_deref(), &*self.view, stamp)?),
        }
    }

    /// Begins to make everything durable; nothing, if all of it is.
    pub(crate) fn begin_flush(&mut self) -> Option<Flush> {
        assert!(self.flushing.is_none(), "one flush at a time, under the backend's lock");
        let is_clean = self.meta.applied.index == self.flushed
            && self.forgotten.is_empty()
            && self.meta.removed == self.removed_durably
            && !self.members.has_changed()
            && !self.leases.has_changed()
            && !self.alarms.has_changed();
        if is_clean {
            return None;
        }
        let overlay = Arc::new(std::mem::take(&mut self.overlay));
        self.flushing = Some(Arc::clone(&overlay));
        Some(Flush {
            overlay,
            meta: self.meta.clone(),
            members: self.members.take_changed(),
            leases: self.leases.take_changed(),
            alarms: self.alarms.take_changed(),
            forgotten: std::mem::take(&mut self.forgotten),
        })
    }

    /// The flush is durable, and `view` shows it.
    pub(crate) fn finish_flush(&mut self, flush: &Flush, view: Arc<dyn View>) {
        assert!(self.flushed <= flush.meta.applied.index, "what is flushed never goes back");
        self.flushed = flush.meta.applied.index;
        self.removed_durably = flush.meta.removed;
        self.view = view;
        self.flushing = None;
    }

    /// The same rows are elsewhere from now on.
    pub(crate) fn look_at(&mut self, view: Arc<dyn View>) {
        assert!(self.flushing.is_none(), "no flush runs under the backend's lock");
        self.view = view;
    }

    /// Goes on with compaction: looks at `keys_max` keys. True when nothing is left to do.
    pub(crate) fn compact_step(&mut self, keys_max: usize) -> bool {
        let compacted = self.meta.compacted;
        if self.walk.is_none() && self.meta.removed < compacted {
            self.walk = Some(Walk { target: compacted, after: None });
        }
        let Some(walk) = &mut self.walk else { return true };
        let from = walk.after.take();
        let forgotten = &mut self.forgotten;
        let before = forgotten.len();
        walk.after = self.index.compact(from.as_deref(), walk.target, keys_max, forgotten);
        self.forgotten_count += (forgotten.len() - before) as u64;
        if walk.after.is_some() {
            return false;
        }
        // A walk is finished before the next begins, however fast compactions come.
        self.meta.removed = walk.target;
        self.walk = None;
        self.meta.removed == compacted
    }
}

impl Flush {
    /// Commits it, in one durable transaction, and returns the view after it.
    pub(crate) fn run(&self, backend: &mut dyn Backend) -> Result<Arc<dyn View>, StoreError> {
        let mut batch = Batch::default();
        if bug!("the-index-is-stored-before-its-effects") {
            self.meta.write(&mut batch);
            backend.commit(&batch)?;
            batch = Batch::default();
        }
        for (revision, row) in self.overlay.rows() {
            batch.put_sealed(Table::Key, &revision.to_key(), row);
        }
        for (id, row) in &self.members {
            batch.put_sealed(Table::Member, id, row);
        }
        for (id, row) in &self.leases {
            match row {
                Some(row) => batch.put_sealed(Table::Lease, id, row),
                None => batch.delete(Table::Lease, id),
            }
        }
        for (key, is_active) in &self.alarms {
            if *is_active {
                batch.put_sealed(Table::Alarm, key, &[]);
            } else {
                batch.delete(Table::Alarm, key);
            }
        }
        self.meta.write(&mut batch);
        for revision in &self.forgotten {
            batch.delete(Table::Key, &revision.to_key());
        }
        backend.commit(&batch)?;
        let view = backend.view()?;
        // The index and its effects in one transaction: read back, not trusted.
        if cfg!(debug_assertions) {
            assert_eq!(Meta::read(&*view)?, self.meta, "a commit holds what was committed");
        }
        Ok(view)
    }
}

impl Rows {
    /// What storage has, to look at.
    pub(crate) fn view(&self) -> &dyn View {
        &*self.view
    }

    /// What is on its way there.
    pub(crate) fn flushing(&self) -> Option<&Overlay> {
        self.flushing.as_deref()
    }

    /// Whether the row at `stamp` is on its way there, and so in memory.
    pub(crate) fn is_flushing(&self, stamp: &Stamp) -> bool {
        self.flushing().is_some_and(|overlay| overlay.row(stamp.revision).is_some())
    }

    /// What storage has.
    pub(crate) fn into_view(self) -> Arc<dyn View> {
        self.view
    }

    /// The pair that was put at `stamp`, given what the overlay had of it.
    pub(crate) fn pair(&self, stamp: &Stamp, row: Option<Bytes>) -> Result<KeyValue, StoreError> {
        pair(stamp.revision, self.row(stamp, row)?)
    }

    /// The row at `stamp`, given what the overlay had of it.
    pub(crate) fn row(&self, stamp: &Stamp, row: Option<Bytes>) -> Result<Bytes, StoreError> {
        row.map_or_else(|| find(self.flushing.as_deref(), &*self.view, stamp), Ok)
    }
}

fn find(flushing: Option<&Overlay>, view: &dyn View, stamp: &Stamp) -> Result<Bytes, StoreError> {
    let revision = stamp.revision;
    if let Some(row) = flushing.and_then(|overlay| overlay.row(revision)) {
        return Ok(row.clone());
    }
    let row = sealed::get(view, Table::Key, &revision.to_key())?;
    row.ok_or_else(|| StoreError::Damaged(format!("no row at {}.{}", revision.main, revision.sub)))
}

fn pair(revision: Revision, bytes: Bytes) -> Result<KeyValue, StoreError> {
    match row::decode(revision, bytes) {
        Ok(Row::Put(kv)) => Ok(kv),
        Ok(Row::Tombstone { .. }) => Err(damaged(revision, "a deletion where a pair should be")),
        Err(error) => Err(damaged(revision, error)),
    }
}

/// Counts what is read, against what storage says there is: no row is gone without a trace.
struct Tally<'a> {
    rows_count: u64,
    bytes: u64,
    total_bytes: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Tally<'_> {
    /// How many rows are read between two words about it.
    const STEP_ROWS: u64 = 1024;

    /// A row as storage has it.
    fn row(&mut self, key: &[u8], row_bytes: usize) {
        self.bytes += (key.len() + row_bytes) as u64;
        self.rows_count += 1;
        if self.rows_count.is_multiple_of(Self::STEP_ROWS) {
            (self.progress)(self.bytes, self.total_bytes);
        }
    }

    fn end(self) -> Result<(), StoreError> {
        let Tally { bytes, total_bytes, progress, .. } = self;
        if bytes != total_bytes {
            return Err(StoreError::Damaged(format!(
                "there are {bytes} bytes of rows, and there should be {total_bytes}"
            )));
        }
        progress(bytes, total_bytes);
        Ok(())
    }
}

/// The index, and which lease each key belongs to by its newest put.
fn load_index(
    view: &dyn View,
    current: i64,
    tally: &mut Tally<'_>,
) -> Result<(Index, BTreeMap<Bytes, i64>), StoreError> {
    let mut stamps = Vec::new();
    let mut owners = BTreeMap::new();
    each(view, Table::Key, |key, bytes| {
        tally.row(key, bytes.len() + sealed::CHECKSUM_BYTES);
        let Some(revision) = Revision::from_key(key) else {
            return Err(StoreError::Damaged("a row without a revision".to_owned()));
        };
        if current < revision.main {
            return Err(damaged(revision, format!("later than the current one, {current}")));
        }
        let row = row::decode(revision, Bytes::copy_from_slice(bytes));
        let (key, stamp) = match row.map_err(|error| damaged(revision, error))? {
            Row::Put(kv) => {
                let counts = !bug!("versions-begin-anew-with-a-restart");
                let version = if counts { kv.version } else { 1 };
                if kv.lease == 0 {
                    owners.remove(&kv.key);
                } else {
                    // Out of the row, whose value need not stay in memory.
                    owners.insert(Bytes::copy_from_slice(&kv.key), kv.lease);
                }
                (kv.key, Stamp::put(revision, kv.create_revision, version))
            }
            Row::Tombstone { key } => {
                owners.remove(&key);
                (key, Stamp::tombstone(revision))
            }
        };
        stamps.push((Box::<[u8]>::from(&key[..]), stamp));
        Ok(())
    })?;
    Ok((Index::build(stamps), owners))
}

fn load_leases(view: &dyn View, tally: &mut Tally<'_>) -> Result<Leases, StoreError> {
    let mut leases = Leases::default();
    each(view, Table::Lease, |key, row| {
        tally.row(key, row.len() + sealed::CHECKSUM_BYTES);
        let loaded = leases.load(key, row);
        loaded.map_err(|error| StoreError::Damaged(format!("a lease's row is {error}")))
    })?;
    Ok(leases)
}

fn load_alarms(view: &dyn View, tally: &mut Tally<'_>) -> Result<Alarms, StoreError> {
    let mut alarms = Alarms::default();
    each(view, Table::Alarm, |key, row| {
        tally.row(key, row.len() + sealed::CHECKSUM_BYTES);
        let loaded = alarms.load(key, row);
        loaded.map_err(|error| StoreError::Damaged(format!("an alarm's row is {error}")))
    })?;
    Ok(alarms)
}

fn load_members(view: &dyn View, tally: &mut Tally<'_>) -> Result<Members, StoreError> {
    let mut members = Members::default();
    each(view, Table::Member, |key, row| {
        tally.row(key, row.len() + sealed::CHECKSUM_BYTES);
        let loaded = members.load(key, row);
        loaded.map_err(|error| StoreError::Damaged(format!("a member's row is {error}")))
    })?;
    Ok(members)
}

/// Walks a table until the first error.
fn each(
    view: &dyn View,
    table: Table,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    sealed::scan(view, table, &[], |key, row| {
        outcome = visit(key, row);
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    outcome
}

fn damaged(revision: Revision, what: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("at {}.{}: {what}", revision.main, revision.sub))
}
