//! One change of one key as bytes: what a revision stores.
//!
//! ```text
//! put:       1 · key length · key · create revision · version · lease · value (the rest)
//! tombstone: 2 · key (the rest)
//! ```
//! Numbers and lengths as `wire.rs` has them. The mod revision is the row's key.

use bytes::{BufMut, Bytes, BytesMut};

use crate::response::KeyValue;
use crate::revision::Revision;
use crate::wire::{Malformed, Reader, bytes_len, put_bytes, put_signed, signed_len};

const PUT: u8 = 1;
const TOMBSTONE: u8 = 2;

/// A row read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Put(KeyValue),
    Tombstone { key: Bytes },
}

/// A put as bytes.
pub(crate) fn put(kv: &KeyValue) -> Bytes {
    let numbers = [kv.create_revision, kv.version, kv.lease];
    let length = 1
        + bytes_len(&kv.key)
        + numbers.into_iter().map(signed_len).sum::<usize>()
        + kv.value.len();
    let mut row = BytesMut::with_capacity(length);
    row.put_u8(PUT);
    put_bytes(&mut row, &kv.key);
    for number in numbers {
        put_signed(&mut row, number);
    }
    row.put_slice(&kv.value);
    row.freeze()
}

/// A deletion as bytes.
pub(crate) fn tombstone(key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(1 + key.len());
    row.put_u8(TOMBSTONE);
    row.put_slice(key);
    row.freeze()
}

/// Reads what stands at `revision`. Key and value are slices of `bytes`.
pub(crate) fn decode(revision: Revision, bytes: Bytes) -> Result<Row, Malformed> {
    let mut reader = Reader::new(bytes);
    match reader.byte()? {
        PUT => {
            let key = reader.bytes()?;
            let create_revision = reader.signed()?;
            let version = reader.signed()?;
            let lease = reader.signed()?;
            let mod_revision = revision.main;
            if key.is_empty()
                || version < 1
                || create_revision < 1
                || mod_revision < create_revision
            {
                return Err(Malformed("a pair that cannot be"));
            }
            let value = reader.rest();
            Ok(Row::Put(KeyValue { key, create_revision, mod_revision, version, value, lease }))
        }
        TOMBSTONE => Ok(Row::Tombstone { key: reader.rest() }),
        _ => Err(Malformed("kind of row")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        let revision = Revision { main: 700, sub: 3 };
        let kv = KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: 300,
            mod_revision: 700,
            version: 5,
            value: Bytes::from_static(b"\0value"),
            lease: -7,
        };
        assert_eq!(decode(revision, put(&kv)), Ok(Row::Put(kv.clone())));
        let bare = KeyValue { value: Bytes::new(), lease: 0, ..kv };
        assert_eq!(decode(revision, put(&bare)), Ok(Row::Put(bare)));
        let gone = Row::Tombstone { key: Bytes::from_static(b"k") };
        assert_eq!(decode(revision, tombstone(b"k")), Ok(gone));
    }

    #[test]
    fn nonsense_is_refused() {
        let revision = Revision { main: 2, sub: 0 };
        for nonsense in [&b""[..], b"\x03k", b"\x01", b"\x01\x05k", b"\x01\x01k\x02\x00\x00v"] {
            assert!(decode(revision, Bytes::copy_from_slice(nonsense)).is_err(), "{nonsense:?}");
        }
    }
}
