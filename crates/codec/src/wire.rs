//! Protobuf's wire format: numbers, tags, lengths. What the fields mean is its callers' business.
//!
//! A [`Reader`] walks the fields of one value and never steps outside it. An [`Out`] takes the same
//! calls twice, first to count the bytes ([`Counter`]), then to write them ([`Chunks`]), so a
//! length can stand before what it measures without a second description of the value.

use bytes::{BufMut, Bytes, BytesMut};

use crate::DecodeError;

/// Values within values, and groups within groups, that are followed before input is refused.
pub const NESTING_MAX: u32 = 100;

/// Payloads of at least this many bytes are passed on as they are; shorter ones are cheaper to copy
/// than to carry as a chunk of their own.
pub const SHARED_BYTES_MIN: usize = 1024;

const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;

/// A value that can be written.
pub(crate) trait Encode {
    /// Writes the fields, in ascending order of their numbers.
    fn write(&self, out: &mut impl Out);
}

/// A value that can be read.
pub(crate) trait Decode: Default {
    /// Takes in the fields of `reader`. What is there already is overwritten by fields that occur
    /// once, kept by those that are absent, and grown by those that repeat.
    fn merge(&mut self, reader: Reader<'_>) -> Result<(), DecodeError>;
}

/// Encodes `value` into one piece.
pub(crate) fn encode(value: &impl Encode) -> Bytes {
    let mut chunks = Chunks::new(count(value), usize::MAX);
    value.write(&mut chunks);
    chunks.buffer.freeze()
}

/// Encodes `value` into pieces that follow each other; large payloads are pieces of their own. All
/// else is written into one piece of memory, which takes `capacity` bytes before it must grow.
pub(crate) fn encode_chunks(value: &impl Encode, capacity: usize) -> Vec<Bytes> {
    let mut chunks = Chunks::new(capacity, SHARED_BYTES_MIN);
    value.write(&mut chunks);
    chunks.cut();
    chunks.done
}

/// Decodes a whole input.
pub(crate) fn decode<T: Decode>(bytes: &Bytes) -> Result<T, DecodeError> {
    let mut value = T::default();
    value.merge(Reader::new(bytes))?;
    Ok(value)
}

/// Where fields are written to.
pub(crate) trait Out {
    /// Takes bytes that are copied.
    fn bytes(&mut self, bytes: &[u8]);

    /// Takes bytes that may be shared.
    fn shared(&mut self, bytes: &Bytes);

    /// Takes one byte.
    fn byte(&mut self, byte: u8);

    /// A number in seven bits a byte, the lowest first.
    fn number(&mut self, mut value: u64) {
        while 0x80 <= value {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// Field `field` with a number.
    fn number_field(&mut self, field: u32, value: u64) {
        self.number(u64::from(field) << 3);
        self.number(value);
    }

    /// Field `field` with a number, if there is one.
    fn optional_field(&mut self, field: u32, value: Option<u64>) {
        if let Some(value) = value {
            self.number_field(field, value);
        }
    }

    /// Field `field` with bytes that may be shared.
    fn payload_field(&mut self, field: u32, bytes: &Bytes) {
        self.length(field, bytes.len());
        self.shared(bytes);
    }

    /// Field `field` with another value.
    fn value_field(&mut self, field: u32, value: &impl Encode)
    where
        Self: Sized,
    {
        self.length(field, count(value));
        value.write(self);
    }

    /// Tag and length of a field that is counted in bytes.
    fn length(&mut self, field: u32, length: usize) {
        self.number(u64::from(field) << 3 | 2);
        self.number(length as u64);
    }
}

/// One field as it was read. Fields of 32 and 64 bits, and groups, are [`Value::Other`]: `raftpb`
/// has none, so they are unknown whatever their number.
pub(crate) enum Value<'a> {
    Number(u64),
    Delimited(Reader<'a>),
    Other,
}

/// Walks over the fields of one value.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    source: &'a Bytes,
    at: usize,
    end: usize,
    depth: u32,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Bytes) -> Self {
        Reader { source, at: 0, end: source.len(), depth: 0 }
    }

    /// The next field and its number, or nothing at the end.
    pub(crate) fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.at == self.end {
            return Ok(None);
        }
        let (number, wire_type, at) = self.tag()?;
        let value = match wire_type {
            WIRE_NUMBER => Value::Number(self.number()?),
            WIRE_DELIMITED => Value::Delimited(self.delimited()?),
            WIRE_GROUP_BEGIN => {
                self.skip_group(number)?;
                Value::Other
            }
            WIRE_GROUP_END => return Err(DecodeError::GroupEnd { number, at }),
            _ => {
                self.skip_plain(wire_type, at)?;
                Value::Other
            }
        };
        Ok(Some((number, value)))
    }

    /// The bytes themselves, shared with the input.
    pub(crate) fn payload(&self) -> Bytes {
        self.source.slice(self.at..self.end)
    }

    /// The same bytes as a value within the one this field was found in.
    pub(crate) fn descend(mut self) -> Result<Self, DecodeError> {
        if self.depth == NESTING_MAX {
            return Err(DecodeError::TooDeep { nesting_max: NESTING_MAX, at: self.at });
        }
        self.depth += 1;
        Ok(self)
    }

    /// The numbers of a packed field, handed to `take` one by one.
    pub(crate) fn packed(mut self, mut take: impl FnMut(u64)) -> Result<(), DecodeError> {
        while self.at < self.end {
            take(self.number()?);
        }
        Ok(())
    }

    fn tag(&mut self) -> Result<(u32, u8, usize), DecodeError> {
        let at = self.at;
        let tag = self.number()?;
        let number = tag >> 3;
        if number == 0 || FIELD_NUMBER_MAX < number {
            return Err(DecodeError::FieldNumber { number, at });
        }
        Ok((number as u32, (tag & 7) as u8, at))
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let start = self.at;
        // Most numbers are tags and lengths of one byte.
        if let Some(&byte) = self.source[..self.end].get(start)
            && byte < 0x80
        {
            self.at += 1;
            return Ok(u64::from(byte));
        }
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            // The tenth byte has room for one bit.
            if shift == 63 && 1 < byte {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::NumberTooLong { at: start })
    }

    fn delimited(&mut self) -> Result<Reader<'a>, DecodeError> {
        let length = self.number()?;
        let at = self.at;
        self.take(length)?;
        Ok(Reader { source: self.source, at, end: self.at, depth: self.depth })
    }

    /// Steps over `length` bytes; the only place where the reader moves.
    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let left = self.end - self.at;
        // Compared as 64 bits: a hostile length must not wrap where a `usize` is shorter.
        if (left as u64) < length {
            return Err(DecodeError::Truncated { at: self.at, wanted: length, left });
        }
        let start = self.at;
        self.at += length as usize;
        Ok(&self.source[start..self.at])
    }

    /// Steps over a field that is neither the start nor the end of a group.
    fn skip_plain(&mut self, wire_type: u8, at: usize) -> Result<(), DecodeError> {
        match wire_type {
            WIRE_NUMBER => self.number().map(drop),
            WIRE_FIXED64 => self.take(8).map(drop),
            WIRE_DELIMITED => self.delimited().map(drop),
            WIRE_FIXED32 => self.take(4).map(drop),
            _ => Err(DecodeError::WireType { wire_type, at }),
        }
    }

    /// Steps to the end of group `number`, whose start was just read.
    fn skip_group(&mut self, number: u32) -> Result<(), DecodeError> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let (number, wire_type, at) = self.tag()?;
            match wire_type {
                WIRE_GROUP_BEGIN if self.depth as usize + open.len() == NESTING_MAX as usize => {
                    return Err(DecodeError::TooDeep { nesting_max: NESTING_MAX, at });
                }
                WIRE_GROUP_BEGIN => open.push(number),
                WIRE_GROUP_END if number == innermost => {
                    open.pop();
                }
                WIRE_GROUP_END => return Err(DecodeError::GroupEnd { number, at }),
                _ => self.skip_plain(wire_type, at)?,
            }
        }
        Ok(())
    }
}

const WIRE_NUMBER: u8 = 0;
const WIRE_FIXED64: u8 = 1;
const WIRE_DELIMITED: u8 = 2;
const WIRE_GROUP_BEGIN: u8 = 3;
const WIRE_GROUP_END: u8 = 4;
const WIRE_FIXED32: u8 = 5;

/// Length of `value` when encoded.
pub(crate) fn count(value: &impl Encode) -> usize {
    let mut counter = Counter(0);
    value.write(&mut counter);
    counter.0
}

/// Counts what it is given.
struct Counter(usize);

impl Out for Counter {
    fn byte(&mut self, _: u8) {
        self.0 += 1;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn shared(&mut self, bytes: &Bytes) {
        self.0 += bytes.len();
    }
}

/// Copies what it is given behind what is there.
pub(crate) struct Copying<'a>(pub(crate) &'a mut BytesMut);

impl Out for Copying<'_> {
    fn byte(&mut self, byte: u8) {
        self.0.put_u8(byte);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn shared(&mut self, bytes: &Bytes) {
        self.bytes(bytes);
    }
}

/// Keeps what it is given: small pieces in a buffer, payloads from `shared_min` bytes as they are.
struct Chunks {
    done: Vec<Bytes>,
    buffer: BytesMut,
    shared_min: usize,
}

impl Chunks {
    fn new(capacity: usize, shared_min: usize) -> Self {
        Chunks { done: Vec::new(), buffer: BytesMut::with_capacity(capacity), shared_min }
    }

    /// Ends the piece being written.
    fn cut(&mut self) {
        if !self.buffer.is_empty() {
            self.done.push(self.buffer.split().freeze());
        }
    }
}

impl Out for Chunks {
    fn byte(&mut self, byte: u8) {
        self.buffer.put_u8(byte);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn shared(&mut self, bytes: &Bytes) {
        if bytes.len() < self.shared_min {
            self.bytes(bytes);
        } else {
            self.cut();
            self.done.push(bytes.clone());
        }
    }
}
