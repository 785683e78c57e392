//! Rows as storage holds them: each with a checksum, so that a damaged one is told and never
//! believed.
//!
//! ```text
//! row · crc32c over table (1), key and row (4, big-endian)
//! ```
//! The checksum covers where a row stands, so one that strayed to another key or table is found
//! like one that changed. What waits for a flush carries no checksum, and no snapshot does: the
//! stream has its own.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::backend::{Batch, Table, View};
use crate::error::StoreError;
use quorate_types::bug;

/// What a row takes beyond its own bytes.
pub(crate) const CHECKSUM_BYTES: usize = 4;

impl Batch {
    /// Stores a row with its checksum.
    pub(crate) fn put_sealed(&mut self, table: Table, key: &[u8], row: &[u8]) {
        let checksum = checksum(table, key, row).to_be_bytes();
        self.put_parts(table, key, [row, &checksum]);
    }
}

/// One row, checked.
pub(crate) fn get(view: &dyn View, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let Some(sealed) = view.get(table, key)? else { return Ok(None) };
    let length = check(table, key, &sealed)?.len();
    Ok(Some(sealed.slice(..length)))
}

/// Walks rows as [`View::scan`] does, each checked; ends at the first damaged one.
pub(crate) fn scan(
    view: &dyn View,
    table: Table,
    from: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    view.scan(table, from, &mut |key, sealed| match check(table, key, sealed) {
        Ok(row) => visit(key, row),
        Err(error) => {
            outcome = Err(error);
            ControlFlow::Break(())
        }
    })?;
    outcome
}

/// The row without its checksum, if it is what was stored under this key.
fn check<'a>(table: Table, key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], StoreError> {
    match sealed.split_last_chunk::<CHECKSUM_BYTES>() {
        Some((row, found))
            if checksum(table, key, row).to_be_bytes() == *found
                || bug!("damaged-rows-are-believed") =>
        {
            Ok(row)
        }
        _ => Err(StoreError::Damaged(format!(
            "row {} of table {table:?} does not match its checksum",
            key.escape_ascii()
        ))),
    }
}

fn checksum(table: Table, key: &[u8], row: &[u8]) -> u32 {
    // Keys of a table have one length or are few and known, so key and row need no mark between.
    let place = crc32c::crc32c_append(crc32c::crc32c(&[table as u8]), key);
    crc32c::crc32c_append(place, row)
}
