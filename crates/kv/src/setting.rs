//! What operators have set for the whole cluster, beside keys: replicated, with the entries that made
//! and changed it, and opaque here.

use bytes::{Bytes, BytesMut};
use quorate_types::Index;

use crate::wire::{Malformed, Reader, put_bytes, put_varint};

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its bytes.
    pub value: Bytes,
    /// The entry that first set it.
    pub created: Index,
    /// The entry that set it to this.
    pub modified: Index,
}

/// The format of a row; what `value` holds has one of its own.
const FORMAT: u64 = 1;

impl Setting {
    /// The row: format, created, modified, value.
    pub(crate) fn row(&self) -> BytesMut {
        let mut row = BytesMut::new();
        put_varint(&mut row, FORMAT);
        put_varint(&mut row, self.created.0);
        put_varint(&mut row, self.modified.0);
        put_bytes(&mut row, &self.value);
        row
    }

    /// Reads a row.
    pub(crate) fn decode(row: Bytes) -> Result<Setting, Malformed> {
        let mut reader = Reader::new(row);
        if reader.varint()? != FORMAT {
            return Err(Malformed("format of a setting; a newer version wrote it"));
        }
        let (created, modified) = (Index(reader.varint()?), Index(reader.varint()?));
        // Out of the row, which would otherwise stay in memory whole.
        let value = Bytes::copy_from_slice(&reader.bytes()?);
        reader.end()?;
        if modified < created {
            return Err(Malformed("a setting that was changed before it was made"));
        }
        Ok(Setting { value, created, modified })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_comes_back_from_its_row_and_nothing_else_does() {
        let value = Bytes::from_static(b"{}");
        let setting = Setting { value, created: Index(3), modified: Index(300) };
        let row = setting.row().freeze();
        assert_eq!(Setting::decode(row.clone()), Ok(setting.clone()));
        for length in 0..row.len() {
            assert!(Setting::decode(row.slice(..length)).is_err(), "cut to {length}");
        }
        assert!(Setting::decode([&row[..], b"x"].concat().into()).is_err());
        assert!(Setting::decode(Bytes::from_static(&[2, 1, 1, 0])).is_err(), "a newer format");
        let backwards = Setting { created: Index(301), ..setting };
        assert!(Setting::decode(backwards.row().freeze()).is_err());
    }
}
