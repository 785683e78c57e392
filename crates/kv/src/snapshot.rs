//! The whole state as a stream of bytes, for a member too far behind for the log.
//!
//! ```text
//! stream: magic (8) · header block · row blocks · end block
//! block:  kind (1) · payload length (4) · crc32c of the payload (4) · crc32c of these nine bytes (4)
//!         · payload
//! header: cluster id · applied index · applied term · conf state
//! rows:   (table (1) · key · row)*   tables by number, keys ascending
//!         without the row that says whose storage it is
//! end:    count of all rows · crc32c over the payload checksums of all blocks before
//! ```
//! Big-endian where a width is given, otherwise as `wire.rs` has it. Reading verifies all of it: a
//! stream that is cut off, changed or out of order is refused. The state row goes into the new
//! storage last, together with the removal of a mark that was written first, so half a restore can
//! be told from a whole one.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{Index, NodeId, Term};

use crate::alarm;
use crate::backend::{Backend, Batch, Table, View};
use crate::error::StoreError;
use crate::lease;
use crate::member::Members;
use crate::meta::{self, Applied, Meta};
use crate::revision::Revision;
use crate::row;
use crate::sealed;
use crate::store::{Initial, Store};
use crate::wire::{Malformed, Reader, put_bytes, put_varint};

const MAGIC: &[u8; 8] = b"QKVSNAP1";
const BLOCK_HEADER_BYTES: usize = 13;
/// Rows are gathered into blocks of about this size.
const BLOCK_BYTES: usize = 64 << 10;
/// No block is longer: a row of the longest pair, and room for what stands around it.
const BLOCK_BYTES_MAX: usize = 2 * crate::validate::PAIR_BYTES_MAX;
/// A restore commits this much at a time.
const COMMIT_BYTES: usize = 4 << 20;
/// Rows of the table `meta` are held back until the end, so they must stay few.
const META_ROWS_MAX: usize = 64;

/// No founding begins with a higher revision: there have to be some left.
const REVISION_MAX: i64 = i64::MAX / 2;

const HEADER: u8 = 1;
const ROWS: u8 = 2;
const END: u8 = 3;

/// The state at one moment, kept for reading however long that takes. While it is held, storage
/// can neither reuse nor give back the space of what is deleted.
#[derive(Clone)]
pub struct Snapshot {
    view: Arc<dyn View>,
    cluster_id: u64,
    applied: Applied,
}

impl Store {
    /// Flushes, and keeps the state as it then is.
    ///
    /// # Errors
    ///
    /// When the storage fails: the member has to stop.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.flush()?;
        let view = self.state().map_err(|_| self.poisoned())?.rows().into_view();
        // As the view has it: another flush may have ended by now.
        let Meta { cluster_id, applied, .. } = Meta::read(&*view)?;
        Ok(Snapshot { view, cluster_id, applied })
    }

    fn poisoned(&self) -> StoreError {
        StoreError::Broken(self.failure().unwrap_or_default())
    }
}

impl Snapshot {
    /// What the state stands for.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// Starts reading it as a stream; any number of readers may do so.
    pub fn reader(&self) -> SnapshotReader {
        let mut ready = BytesMut::new();
        ready.put_slice(MAGIC);
        let mut header = BytesMut::new();
        put_varint(&mut header, self.cluster_id);
        put_varint(&mut header, self.applied.index.0);
        put_varint(&mut header, self.applied.term.0);
        put_bytes(&mut header, &self.applied.conf_state);
        let mut reader = SnapshotReader {
            view: Arc::clone(&self.view),
            ready,
            next: Some((0, Vec::new())),
            rows_count: 0,
            checksum: 0,
        };
        reader.block(HEADER, &header);
        reader
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("applied", &self.applied).finish_non_exhaustive()
    }
}

/// A snapshot on its way out.
pub struct SnapshotReader {
    view: Arc<dyn View>,
    /// Bytes of the stream that were not read yet.
    ready: BytesMut,
    /// The table, by its place, and the key to go on from; nothing after the end block.
    next: Option<(usize, Vec<u8>)>,
    rows_count: u64,
    checksum: u32,
}

impl SnapshotReader {
    /// The next bytes of the stream, at most `bytes_max`; empty at its end.
    ///
    /// # Errors
    ///
    /// When the storage fails; `Damaged` at a row that is not what was stored. The stream is then
    /// of no use.
    pub fn read(&mut self, bytes_max: usize) -> Result<Bytes, StoreError> {
        while self.ready.len() < bytes_max {
            let Some((place, from)) = self.next.take() else { break };
            self.next = self.fill(place, from)?;
        }
        let length = self.ready.len().min(bytes_max);
        Ok(self.ready.split_to(length).freeze())
    }

    /// Makes the block that begins at `from`; says where the next one does.
    fn fill(
        &mut self,
        place: usize,
        from: Vec<u8>,
    ) -> Result<Option<(usize, Vec<u8>)>, StoreError> {
        let Some(table) = Table::ALL.get(place) else {
            let mut end = BytesMut::new();
            put_varint(&mut end, self.rows_count);
            end.put_u32(self.checksum);
            self.block(END, &end);
            return Ok(None);
        };
        let mut rows = BytesMut::new();
        let mut next = None;
        let mut rows_count = 0;
        sealed::scan(&*self.view, *table, &from, |key, row| {
            if *table == Table::Meta && meta::is_own(key) {
                return ControlFlow::Continue(());
            }
            if BLOCK_BYTES <= rows.len() {
                next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            rows.put_u8(*table as u8);
            put_bytes(&mut rows, key);
            put_bytes(&mut rows, row);
            rows_count += 1;
            ControlFlow::Continue(())
        })?;
        self.rows_count += rows_count;
        if !rows.is_empty() {
            self.block(ROWS, &rows);
        }
        Ok(Some(next.map_or((place + 1, Vec::new()), |key| (place, key))))
    }

    fn block(&mut self, kind: u8, payload: &[u8]) {
        assert!(payload.len() <= BLOCK_BYTES_MAX, "pairs are held to a limit when they come in");
        let payload_checksum = crc32c::crc32c(payload);
        let mut header = [0; BLOCK_HEADER_BYTES];
        header[0] = kind;
        header[1..5].copy_from_slice(&(payload.len() as u32).to_be_bytes());
        header[5..9].copy_from_slice(&payload_checksum.to_be_bytes());
        let header_checksum = crc32c::crc32c(&header[..9]);
        header[9..].copy_from_slice(&header_checksum.to_be_bytes());
        self.ready.put_slice(&header);
        self.ready.put_slice(payload);
        self.checksum = crc32c::crc32c_append(self.checksum, &payload_checksum.to_be_bytes());
    }
}

impl std::fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotReader").field("next", &self.next).finish_non_exhaustive()
    }
}

/// Fills empty storage of member `node` from a stream that [`SnapshotReader`] made; `next` gives
/// its pieces, an empty one at the end. Memory stays at a few megabytes, or twice the longest row.
///
/// Until it returns, the storage counts as half restored and [`Store::open`] refuses it.
///
/// # Errors
///
/// `NotEmpty`; `Snapshot` when the stream is not whole and sound, or `next` fails; `Backend`.
pub fn restore(
    backend: &mut dyn Backend,
    node: NodeId,
    mut next: impl FnMut() -> io::Result<Bytes>,
) -> Result<Applied, StoreError> {
    if !meta::is_empty(&*backend.view()?)? {
        return Err(StoreError::NotEmpty);
    }
    let mut batch = Batch::default();
    meta::begin_restore(&mut batch);
    backend.commit(&batch)?;
    let read = read(&Owner::Member(node), &mut next, &mut |batch| Ok(backend.commit(batch)?))?;
    Ok(read.applied)
}

/// What a cluster begins with whose state comes out of a snapshot of another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Founding {
    /// Everything but the keys, their history, and the leases.
    pub initial: Initial,
    /// Added to the current revision, so that it is higher than any that was ever seen in the other
    /// cluster.
    pub bump_revision: u64,
    /// Whether all history counts as compacted: watchers that go on from before are told to start anew.
    pub mark_compacted: bool,
}

/// Fills empty storage as [`restore`] does, for a new cluster: members, log and alarms of the old one
/// are left behind. Leases begin anew, for as long as they were granted or had left at the last note
/// of it.
///
/// # Errors
///
/// As [`restore`]; also when the revision would be beyond what a revision may be.
///
/// Source: etcd's `snapshot restore`.
pub fn refound(
    backend: &mut dyn Backend,
    founding: &Founding,
    mut next: impl FnMut() -> io::Result<Bytes>,
) -> Result<SnapshotContents, StoreError> {
    if !meta::is_empty(&*backend.view()?)? {
        return Err(StoreError::NotEmpty);
    }
    let mut batch = Batch::default();
    meta::begin_restore(&mut batch);
    backend.commit(&batch)?;
    read(&Owner::Founding(founding), &mut next, &mut |batch| Ok(backend.commit(batch)?))
}

/// Reads a stream as [`restore`] does, with the same checks, and keeps nothing of it: whether this
/// version could restore it. Answers the cluster it belongs to and what it stands for.
///
/// # Errors
///
/// `Snapshot` when the stream is not whole and sound, or `next` fails.
pub fn verify(next: impl FnMut() -> io::Result<Bytes>) -> Result<(u64, Applied), StoreError> {
    let contents = contents(next)?;
    Ok((contents.cluster_id, contents.applied))
}

/// Reads a stream as [`verify`] does, and answers more of it.
///
/// # Errors
///
/// As [`verify`].
pub fn contents(
    mut next: impl FnMut() -> io::Result<Bytes>,
) -> Result<SnapshotContents, StoreError> {
    read(&Owner::Member(NodeId::NONE), &mut next, &mut |_| Ok(()))
}

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotContents {
    /// The cluster it was taken of.
    pub cluster_id: u64,
    /// What it stands for.
    pub applied: Applied,
    /// Its current revision.
    pub revision: i64,
    /// The oldest revision that can be read; -1 before the first compaction.
    pub compact_revision: i64,
    /// Rows of all tables: one for each retained change, member, lease and alarm, and a few more.
    pub rows_count: u64,
}

/// Whose storage is filled.
enum Owner<'a> {
    /// A member's of the same cluster.
    Member(NodeId),
    /// A member's of a new one.
    Founding(&'a Founding),
}

/// Reads a whole stream; `commit` gets its rows in parts, the last one only if all is sound.
fn read(
    owner: &Owner<'_>,
    next: &mut dyn FnMut() -> io::Result<Bytes>,
    commit: &mut dyn FnMut(&Batch) -> Result<(), StoreError>,
) -> Result<SnapshotContents, StoreError> {
    let mut blocks = Blocks { next, buffer: BytesMut::new(), ended: false };
    if blocks.take(MAGIC.len())? != MAGIC[..] {
        return Err(refused("it does not begin as one does"));
    }
    let mut restore = Restore::default();
    loop {
        let (kind, payload_checksum, payload) = blocks.block()?;
        match (kind, &restore.header) {
            (HEADER, None) => restore.header = Some(header(payload)?),
            (ROWS, Some(_)) => restore.rows(owner, payload)?,
            (END, Some(_)) => {
                blocks.end()?;
                return restore.finish(owner, commit, payload);
            }
            _ => return Err(refused(format!("a block of kind {kind} stands where none should"))),
        }
        let checksum = payload_checksum.to_be_bytes();
        restore.checksum = crc32c::crc32c_append(restore.checksum, &checksum);
        if COMMIT_BYTES <= restore.batch.bytes() {
            commit(&std::mem::take(&mut restore.batch))?;
        }
    }
}

#[derive(Default)]
struct Restore {
    header: Option<(u64, Applied)>,
    batch: Batch,
    /// Rows of the table `meta`, which are written last.
    meta: Vec<(Bytes, Bytes)>,
    /// Where the last row stood.
    last: Option<(Table, Bytes)>,
    rows_count: u64,
    checksum: u32,
}

impl Restore {
    fn rows(&mut self, owner: &Owner<'_>, payload: Bytes) -> Result<(), StoreError> {
        let mut reader = Reader::new(payload);
        while !reader.is_empty() {
            let number = reader.byte().map_err(malformed)?;
            let key = reader.bytes().map_err(malformed)?;
            let row = reader.bytes().map_err(malformed)?;
            let Some(table) = Table::from_number(number) else {
                return Err(refused(format!("table {number} is not known to this version")));
            };
            self.row(owner, table, key, row)?;
        }
        Ok(())
    }

    fn row(
        &mut self,
        owner: &Owner<'_>,
        table: Table,
        key: Bytes,
        row: Bytes,
    ) -> Result<(), StoreError> {
        let is_founding = matches!(owner, Owner::Founding(_));
        if self.last.as_ref().is_some_and(|(last, last_key)| (*last, last_key) >= (table, &key)) {
            return Err(refused("rows are out of order"));
        }
        match table {
            Table::Meta => {
                if self.meta.len() == META_ROWS_MAX {
                    return Err(refused("too many rows in the table of marks"));
                }
                self.meta.push((key.clone(), row));
            }
            Table::Key => {
                let revision = Revision::from_key(&key);
                let revision = revision.ok_or_else(|| refused("a row without a revision"))?;
                row::decode(revision, row.clone()).map_err(malformed)?;
                self.batch.put_sealed(table, &key, &row);
            }
            Table::Lease if is_founding => {
                let row = lease::refounded(&key, &row).map_err(malformed)?;
                self.batch.put_sealed(table, &key, &row);
            }
            Table::Lease => {
                lease::decode(&key, &row).map_err(malformed)?;
                self.batch.put_sealed(table, &key, &row);
            }
            Table::Alarm => {
                alarm::decode(&key, &row).map_err(malformed)?;
                if !is_founding {
                    self.batch.put_sealed(table, &key, &row);
                }
            }
            // Who founds a cluster has told its members.
            Table::Member if is_founding => {}
            Table::Member => self.batch.put_sealed(table, &key, &row),
        }
        self.last = Some((table, key));
        self.rows_count += 1;
        Ok(())
    }

    fn finish(
        mut self,
        owner: &Owner<'_>,
        commit: &mut dyn FnMut(&Batch) -> Result<(), StoreError>,
        payload: Bytes,
    ) -> Result<SnapshotContents, StoreError> {
        let mut reader = Reader::new(payload);
        let rows_count = reader.varint().map_err(malformed)?;
        if rows_count != self.rows_count {
            return Err(refused(format!("{} rows of {rows_count}", self.rows_count)));
        }
        if reader.rest()[..] != self.checksum.to_be_bytes() {
            return Err(refused("blocks are missing or not its own"));
        }
        let node = match owner {
            Owner::Member(node) => *node,
            Owner::Founding(founding) => founding.initial.node,
        };
        self.meta.retain(|(key, _)| !meta::is_own(key));
        self.meta.push(meta::own_row(node));
        // Looked at before it is written.
        let Some((cluster_id, applied)) = self.header.take() else {
            return Err(refused("it has no header"));
        };
        let read = Meta::from_rows(|name| {
            let row = self.meta.iter().find(|(key, _)| key == name);
            Ok(row.map(|(_, row)| row.clone()))
        })?;
        if (read.cluster_id, &read.applied) != (cluster_id, &applied) {
            return Err(refused("its header does not belong to its rows"));
        }
        let (revision, compact_revision) = (read.revision, read.compacted);
        match owner {
            Owner::Member(_) => {
                for (key, row) in &self.meta {
                    self.batch.put_sealed(Table::Meta, key, row);
                }
            }
            Owner::Founding(founding) => found(founding, read, &mut self.batch)?,
        }
        meta::end_restore(&mut self.batch);
        commit(&self.batch)?;
        Ok(SnapshotContents { cluster_id, applied, revision, compact_revision, rows_count })
    }
}

/// Writes what a new cluster begins with beside keys and leases; `read` is what the old one had.
fn found(founding: &Founding, read: Meta, batch: &mut Batch) -> Result<(), StoreError> {
    let Initial { node, cluster_id, applied: index, term, conf_state, members } =
        founding.initial.clone();
    let bumped = i64::try_from(founding.bump_revision).ok();
    let bumped = bumped.and_then(|by| read.revision.checked_add(by));
    let Some(revision) = bumped.filter(|revision| *revision <= REVISION_MAX) else {
        return Err(refused(format!(
            "its revision, {}, cannot be raised by {}",
            read.revision, founding.bump_revision
        )));
    };
    for (id, row) in Members::new(members).take_changed() {
        batch.put_sealed(Table::Member, &id, &row);
    }
    let compacted = if founding.mark_compacted { revision } else { read.compacted };
    let applied = Applied { index, term, conf_state };
    // What the old cluster's operators told autopilot was about its members.
    let (removed, autopilot) = (read.removed, None);
    Meta { node, cluster_id, applied, revision, compacted, removed, autopilot }.write(batch);
    Ok(())
}

/// The stream, block by block.
struct Blocks<'a> {
    next: &'a mut dyn FnMut() -> io::Result<Bytes>,
    buffer: BytesMut,
    ended: bool,
}

impl Blocks<'_> {
    fn block(&mut self) -> Result<(u8, u32, Bytes), StoreError> {
        let header = self.take(BLOCK_HEADER_BYTES)?;
        let number = |from: usize| {
            let bytes = header[from..from + 4].try_into().expect("four bytes");
            u32::from_be_bytes(bytes)
        };
        // The length is believed only after its checksum, and even then it is bounded.
        let length = number(1) as usize;
        if crc32c::crc32c(&header[..9]) != number(9) || BLOCK_BYTES_MAX < length {
            return Err(refused("a block's header is damaged"));
        }
        let payload = self.take(length)?;
        if crc32c::crc32c(&payload) != number(5) {
            return Err(refused("a block is damaged"));
        }
        Ok((header[0], number(5), payload))
    }

    fn end(&mut self) -> Result<(), StoreError> {
        if self.buffer.is_empty() && !self.more()? {
            return Ok(());
        }
        Err(refused("bytes follow its end"))
    }

    fn take(&mut self, length: usize) -> Result<Bytes, StoreError> {
        while self.buffer.len() < length {
            if !self.more()? {
                return Err(refused("it is cut off"));
            }
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    /// Gets one piece more; false at the end.
    fn more(&mut self) -> Result<bool, StoreError> {
        if !self.ended {
            let piece = (self.next)().map_err(refused)?;
            self.ended = piece.is_empty();
            self.buffer.extend_from_slice(&piece);
        }
        Ok(!self.ended)
    }
}

fn header(payload: Bytes) -> Result<(u64, Applied), StoreError> {
    let mut reader = Reader::new(payload);
    let mut read = || {
        let cluster_id = reader.varint()?;
        let index = Index(reader.varint()?);
        let term = Term(reader.varint()?);
        let conf_state = Bytes::copy_from_slice(&reader.bytes()?);
        reader.end()?;
        Ok((cluster_id, Applied { index, term, conf_state }))
    };
    read().map_err(malformed)
}

fn malformed(error: Malformed) -> StoreError {
    refused(error)
}

fn refused(why: impl std::fmt::Display) -> StoreError {
    StoreError::Snapshot(why.to_string())
}
