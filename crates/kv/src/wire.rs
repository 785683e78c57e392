//! The small change of our byte formats: variable-length numbers and length-prefixed bytes.
//!
//! Numbers are LEB128 (seven bits a byte, lowest first, the top bit says "more follows"). Bytes and
//! text stand behind their length. What is read is checked and sliced, never copied, and no length
//! is believed before it is compared with what is left.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes are not what they should be; says which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed: {0}")]
pub struct Malformed(pub &'static str);

/// How many bytes [`put_varint`] takes for `number`.
pub(crate) fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn put_varint(out: &mut BytesMut, mut number: u64) {
    while 0x80 <= number {
        out.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// How many bytes [`put_signed`] takes for `number`.
pub(crate) fn signed_len(number: i64) -> usize {
    varint_len(zigzag(number))
}

pub(crate) fn put_signed(out: &mut BytesMut, number: i64) {
    put_varint(out, zigzag(number));
}

/// How many bytes [`put_bytes`] takes for `bytes`.
pub(crate) fn bytes_len(bytes: &[u8]) -> usize {
    varint_len(bytes.len() as u64) + bytes.len()
}

pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

pub(crate) fn put_str(out: &mut BytesMut, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub(crate) fn strings_len(texts: &[String]) -> usize {
    let content: usize = texts.iter().map(|text| bytes_len(text.as_bytes())).sum();
    varint_len(texts.len() as u64) + content
}

pub(crate) fn put_strings(out: &mut BytesMut, texts: &[String]) {
    put_varint(out, texts.len() as u64);
    for text in texts {
        put_str(out, text);
    }
}

/// A version, and tags in the order of their keys.
pub(crate) fn put_tags(out: &mut BytesMut, version: &str, tags: &BTreeMap<String, String>) {
    put_str(out, version);
    put_varint(out, tags.len() as u64);
    for (key, value) in tags {
        put_str(out, key);
        put_str(out, value);
    }
}

pub(crate) fn tags_len(version: &str, tags: &BTreeMap<String, String>) -> usize {
    let each =
        |(key, value): (&String, &String)| bytes_len(key.as_bytes()) + bytes_len(value.as_bytes());
    bytes_len(version.as_bytes())
        + varint_len(tags.len() as u64)
        + tags.iter().map(each).sum::<usize>()
}

/// What [`put_tags`] writes. Something is said, or else nothing is written: equal values have equal bytes.
pub(crate) fn read_tags(
    reader: &mut Reader,
) -> Result<(String, BTreeMap<String, String>), Malformed> {
    let version = reader.string()?;
    let count = reader.count()?;
    let mut tags = BTreeMap::<String, String>::new();
    for _ in 0..count {
        let key = reader.string()?;
        if tags.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(Malformed("tags out of order"));
        }
        tags.insert(key, reader.string()?);
    }
    if version.is_empty() && tags.is_empty() {
        return Err(Malformed("tags that say nothing"));
    }
    Ok((version, tags))
}

/// Numbers near zero stay short, whatever their sign.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// Reads what the functions above wrote.
#[derive(Debug)]
pub(crate) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Reader { rest: bytes }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        if self.rest.is_empty() {
            return Err(Malformed("cut off"));
        }
        Ok(self.rest.get_u8())
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for (place, byte) in self.rest.iter().enumerate() {
            let bits = u64::from(byte & 0x7f);
            // Ten bytes hold 64 bits; of the tenth only the lowest one counts.
            if place == 9 && 1 < *byte {
                return Err(Malformed("a number of more than 64 bits"));
            }
            number |= bits << (7 * place);
            if byte & 0x80 == 0 {
                // One number has one form, so that equal commands have equal bytes.
                if place != 0 && *byte == 0 {
                    return Err(Malformed("a number longer than it need be"));
                }
                self.rest.advance(place + 1);
                return Ok(number);
            }
        }
        Err(Malformed("cut off"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Malformed> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A count of things that take at least one byte each.
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.varint()?;
        // Before it is used as a size: a flipped bit must not ask for gigabytes.
        if (self.rest.len() as u64) < count {
            return Err(Malformed("more items than bytes"));
        }
        Ok(count as usize)
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.varint()?;
        if (self.rest.len() as u64) < length {
            return Err(Malformed("cut off"));
        }
        Ok(self.rest.split_to(length as usize))
    }

    pub(crate) fn string(&mut self) -> Result<String, Malformed> {
        let bytes = self.bytes()?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Malformed("text is not UTF-8")),
        }
    }

    pub(crate) fn strings(&mut self) -> Result<Vec<String>, Malformed> {
        (0..self.count()?).map(|_| self.string()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub(crate) fn rest(self) -> Bytes {
        self.rest
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("bytes left over")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::MAX >> 1, u64::MAX] {
            let mut out = BytesMut::new();
            put_varint(&mut out, number);
            assert_eq!(out.len(), varint_len(number), "{number}");
            assert_eq!(Reader::new(out.freeze()).varint(), Ok(number));
        }
        for number in [0, -1, 1, i64::MIN, i64::MAX] {
            let mut out = BytesMut::new();
            put_signed(&mut out, number);
            assert_eq!(out.len(), signed_len(number), "{number}");
            assert_eq!(Reader::new(out.freeze()).signed(), Ok(number));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (bytes, why) in [
            (&[][..], "cut off"),
            (&[0x80][..], "cut off"),
            (&[0x80, 0x00][..], "a number longer than it need be"),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..], "64 bits"),
            (&[5, 1, 2][..], "cut off"),
        ] {
            let got = Reader::new(Bytes::copy_from_slice(bytes)).bytes();
            assert!(got.is_err_and(|error| error.0.contains(why)), "{bytes:?}");
        }
        assert!(Reader::new(Bytes::from_static(&[9, 0])).strings().is_err());
        assert!(Reader::new(Bytes::from_static(&[1, 0xff])).string().is_err());
    }
}
