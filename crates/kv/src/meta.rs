//! What storage says of the state as a whole: the rows of the table `meta`.
//!
//! They are written together, in every commit, so that the applied index always stands beside the
//! effects of exactly the entries up to it.

use bytes::{Bytes, BytesMut};
use quorate_types::{Index, NodeId, Term};

use crate::backend::{Batch, Table, View};
use crate::error::StoreError;
use crate::sealed;
use crate::setting::Setting;
use crate::wire::{Malformed, Reader, put_bytes, put_signed, put_varint};

/// The format of all tables, as it is written. In 2 every row has a checksum, and one of them names
/// the member. In 3 there are leases and alarms: a version that knows only 2 would pass them over,
/// and not do what the other members do, so it must not read them. In 4 members have tags, and autopilot
/// has settings.
const FORMAT: u64 = 4;

/// The oldest format that is read. A state of an older format is one in which nobody has used what the
/// later ones brought; the next flush makes it one of the latest. Any other format is refused.
const FORMAT_MIN: u64 = 2;

const ROW_FORMAT: &[u8] = b"format";
/// Whose storage it is: the one row that is not the same on every member.
const ROW_NODE: &[u8] = b"node";
const ROW_STATE: &[u8] = b"state";
/// What operators have told autopilot; there once they have.
const ROW_AUTOPILOT: &[u8] = b"autopilot";
const ROW_RESTORING: &[u8] = b"restoring";

/// Up to where the log is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last applied entry.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// The membership as of it, in the engine's bytes.
    pub conf_state: Bytes,
}

/// The state as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The member whose storage it is.
    pub(crate) node: NodeId,
    pub(crate) cluster_id: u64,
    pub(crate) applied: Applied,
    /// The current revision: never less than any ever answered.
    pub(crate) revision: i64,
    /// History below it is gone for readers; -1 before the first compaction.
    pub(crate) compacted: i64,
    /// The last compaction whose data is gone from the tables.
    pub(crate) removed: i64,
    /// What operators have told autopilot.
    pub(crate) autopilot: Option<Setting>,
}

impl Meta {
    pub(crate) fn write(&self, batch: &mut Batch) {
        let mut format = BytesMut::new();
        put_varint(&mut format, FORMAT);
        batch.put_sealed(Table::Meta, ROW_FORMAT, &format);
        batch.put_sealed(Table::Meta, ROW_NODE, &node_row(self.node));
        let mut state = BytesMut::new();
        put_varint(&mut state, self.cluster_id);
        put_varint(&mut state, self.applied.index.0);
        put_varint(&mut state, self.applied.term.0);
        put_bytes(&mut state, &self.applied.conf_state);
        put_signed(&mut state, self.revision);
        put_signed(&mut state, self.compacted);
        put_signed(&mut state, self.removed);
        batch.put_sealed(Table::Meta, ROW_STATE, &state);
        if let Some(autopilot) = &self.autopilot {
            batch.put_sealed(Table::Meta, ROW_AUTOPILOT, &autopilot.row());
        }
    }

    pub(crate) fn read(view: &dyn View) -> Result<Meta, StoreError> {
        if is_restoring(view)? {
            return Err(StoreError::Incomplete);
        }
        // Before any checksum, which the rows of another format may not have.
        check_format(view.get(Table::Meta, ROW_FORMAT)?)?;
        Meta::from_rows(|row| sealed::get(view, Table::Meta, row))
    }

    /// Reads the rows that `row` gives.
    pub(crate) fn from_rows(
        row: impl Fn(&[u8]) -> Result<Option<Bytes>, StoreError>,
    ) -> Result<Meta, StoreError> {
        check_format(row(ROW_FORMAT)?)?;
        let node = row(ROW_NODE)?;
        let node = node.ok_or_else(|| StoreError::Damaged("no member's id".to_owned()))?;
        let node = NodeId(Reader::new(node).varint().map_err(damaged)?);
        let state = row(ROW_STATE)?;
        let state = state.ok_or_else(|| StoreError::Damaged("no applied index".to_owned()))?;
        let autopilot = row(ROW_AUTOPILOT)?.map(Setting::decode).transpose();
        let autopilot = autopilot.map_err(|error| {
            StoreError::Damaged(format!("the row of autopilot's settings is {error}"))
        })?;
        let meta = Meta { autopilot, ..Meta::decode(node, state).map_err(damaged)? };
        if meta.revision < 1 || meta.revision < meta.compacted || meta.compacted < meta.removed {
            return Err(StoreError::Damaged(format!("impossible revisions in {meta:?}")));
        }
        Ok(meta)
    }

    fn decode(node: NodeId, row: Bytes) -> Result<Meta, Malformed> {
        let mut reader = Reader::new(row);
        let cluster_id = reader.varint()?;
        let index = Index(reader.varint()?);
        let term = Term(reader.varint()?);
        // Out of the row, which would otherwise stay in memory whole.
        let conf_state = Bytes::copy_from_slice(&reader.bytes()?);
        let applied = Applied { index, term, conf_state };
        let revision = reader.signed()?;
        let compacted = reader.signed()?;
        let removed = reader.signed()?;
        reader.end()?;
        Ok(Meta { node, cluster_id, applied, revision, compacted, removed, autopilot: None })
    }
}

/// Whose storage it is: the member, and its cluster. Nothing if that cannot be read.
pub fn owner(view: &dyn View) -> Option<(NodeId, u64)> {
    let meta = Meta::read(view).ok()?;
    Some((meta.node, meta.cluster_id))
}

/// The format begins its row, whatever follows.
fn check_format(row: Option<Bytes>) -> Result<(), StoreError> {
    let found = Reader::new(row.ok_or(StoreError::Missing)?).varint().map_err(damaged)?;
    if (FORMAT_MIN..=FORMAT).contains(&found) {
        Ok(())
    } else {
        Err(StoreError::Format { found, oldest: FORMAT_MIN, newest: FORMAT })
    }
}

/// Whether a row of the table `meta` stays with its member when the state travels to another.
pub(crate) fn is_own(key: &[u8]) -> bool {
    key == ROW_NODE
}

/// The row that says whose storage it is.
pub(crate) fn own_row(node: NodeId) -> (Bytes, Bytes) {
    (Bytes::from_static(ROW_NODE), node_row(node).freeze())
}

fn node_row(node: NodeId) -> BytesMut {
    let mut row = BytesMut::new();
    put_varint(&mut row, node.0);
    row
}

/// Whether the storage holds nothing, not even half of something.
pub(crate) fn is_empty(view: &dyn View) -> Result<bool, StoreError> {
    let mut empty = true;
    for table in Table::ALL {
        view.scan(table, &[], &mut |_, _| {
            empty = false;
            std::ops::ControlFlow::Break(())
        })?;
    }
    Ok(empty)
}

fn is_restoring(view: &dyn View) -> Result<bool, StoreError> {
    Ok(view.get(Table::Meta, ROW_RESTORING)?.is_some())
}

/// Marks the storage as half restored, until [`end_restore`].
pub(crate) fn begin_restore(batch: &mut Batch) {
    batch.put(Table::Meta, ROW_RESTORING, b"1");
}

pub(crate) fn end_restore(batch: &mut Batch) {
    batch.delete(Table::Meta, ROW_RESTORING);
}

fn damaged(error: Malformed) -> StoreError {
    StoreError::Damaged(format!("the state row is {error}"))
}
