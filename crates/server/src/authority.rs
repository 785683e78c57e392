//! What comes in from a client, forgiving one old mistake.
//!
//! The etcd client puts what it dials into HTTP/2's `:authority`: up to 3.4 a whole URL, as in
//! `http://10.0.0.1:2379`, 3.5.0 a list, as in `#initially=[10.0.0.1:2379]`, and with unix sockets a
//! path. None of these is an authority, and the HTTP/2 library resets the stream before anyone can be
//! asked, while etcd takes them all. Nobody here asks what a client calls this server: so what would be
//! refused is replaced on the way in.
//!
//! A connection says the same authority in every call: one whose first call says it right is passed
//! on untouched from then on. To shorten a value does not disturb the compression of headers: both
//! sides count entries of their table from the newest, and the receiver only keeps them longer.

use axum::http::uri::Authority;
use bytes::BytesMut;

/// What a client of HTTP/2 says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length (3), type (1), flags (1), stream (4).
const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const FLAG_PADDED: u8 = 0x08;
const FLAG_PRIORITY: u8 = 0x20;
/// Longer frames are not looked into: peers may not send them unless they are asked to.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Place of `:authority` in HTTP/2's table of common headers.
const AUTHORITY: usize = 1;
/// The last pseudo-header of that table, and the last header.
const PSEUDO_MAX: usize = 14;
const COMMON_MAX: usize = 61;
/// What stands for an authority that would be refused: no longer than any.
const PLAIN: &[u8] = b"q";
/// A header that nobody asks for, without a value, in place of an empty authority: no authority is as
/// short. No pseudo-header may come after it; in the calls of Go's library none comes after `:authority`.
/// Where one does, an empty authority is replaced as others are. That is one byte longer than its client
/// counts, and counts only for one whose table of headers is full to that byte.
const NOTHING: &[u8] = b"\x01x\x00";

/// Where in the byte stream a [`Filter`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// It may or may not be HTTP/2.
    #[default]
    Preface,
    /// Before a frame.
    Frame,
    /// So many bytes of a frame of no interest are left.
    Passing(usize),
    /// Nothing more to look for.
    Off,
}

/// Replaces what would be refused in what comes in on one connection.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    stage: Stage,
    /// The beginning of something that has not arrived whole. Bounded by [`FRAME_BYTES_MAX`].
    held: BytesMut,
    /// Whether it is known to be another language, or HTTP/2 with at least the beginning of a frame.
    is_greeted: bool,
    /// Whether any call has been seen, and so was found to need mending.
    has_mended: bool,
}

impl Filter {
    /// Whether the client has said what it speaks.
    pub(crate) fn is_greeted(&self) -> bool {
        self.is_greeted
    }

    /// Whether everything that still comes is right as it is.
    pub(crate) fn is_off(&self) -> bool {
        self.stage == Stage::Off
    }

    /// Takes in what came, and gives out what is whole of it.
    pub(crate) fn feed(&mut self, mut input: &[u8], out: &mut BytesMut) {
        while !input.is_empty() {
            match self.stage {
                Stage::Off => {
                    out.extend_from_slice(input);
                    return;
                }
                Stage::Passing(left) => {
                    let (pass, rest) = input.split_at(left.min(input.len()));
                    out.extend_from_slice(pass);
                    input = rest;
                    self.stage = match left - pass.len() {
                        0 => Stage::Frame,
                        left => Stage::Passing(left),
                    };
                }
                Stage::Preface => {
                    if !self.hold(&mut input, PREFACE.len()) && PREFACE.starts_with(&self.held) {
                        return;
                    }
                    let is_http2 = self.held == PREFACE;
                    out.extend_from_slice(&self.held);
                    self.held.clear();
                    self.stage = if is_http2 { Stage::Frame } else { Stage::Off };
                    self.is_greeted = !is_http2;
                }
                Stage::Frame => {
                    if !self.hold(&mut input, FRAME_HEADER_BYTES) {
                        return;
                    }
                    self.is_greeted = true;
                    let length = self.frame_bytes();
                    if self.held[3] != HEADERS || FRAME_BYTES_MAX < length {
                        out.extend_from_slice(&self.held);
                        self.held.clear();
                        self.stage =
                            if length == 0 { Stage::Frame } else { Stage::Passing(length) };
                    } else if self.hold(&mut input, FRAME_HEADER_BYTES + length) {
                        self.pass_headers(out);
                    } else {
                        return;
                    }
                }
            }
        }
    }

    /// The stream has ended, or nothing can be mended: what is held goes on as it is.
    pub(crate) fn give_up(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(&self.held);
        self.held.clear();
        self.stage = Stage::Off;
    }

    /// Takes bytes until `want` are held; whether they are.
    fn hold(&mut self, input: &mut &[u8], want: usize) -> bool {
        let missing = want.saturating_sub(self.held.len());
        let (take, rest) = input.split_at(missing.min(input.len()));
        self.held.extend_from_slice(take);
        *input = rest;
        want <= self.held.len()
    }

    fn frame_bytes(&self) -> usize {
        usize::from(self.held[0]) << 16 | usize::from(self.held[1]) << 8 | usize::from(self.held[2])
    }

    /// A whole frame of headers is held.
    fn pass_headers(&mut self, out: &mut BytesMut) {
        let (header, payload) = self.held.split_at(FRAME_HEADER_BYTES);
        match mended(payload, header[4]) {
            Some(payload) => {
                self.has_mended = true;
                let length = payload.len();
                out.extend_from_slice(&[(length >> 16) as u8, (length >> 8) as u8, length as u8]);
                out.extend_from_slice(&header[3..]);
                out.extend_from_slice(&payload);
                self.held.clear();
                self.stage = Stage::Frame;
            }
            None if self.has_mended => {
                // A call that refers to what an earlier one said.
                out.extend_from_slice(&self.held);
                self.held.clear();
                self.stage = Stage::Frame;
            }
            None => self.give_up(out),
        }
    }
}

/// The payload of a frame of headers with its authority put right; `None` if it is right, or if
/// this is nothing to meddle with.
fn mended(payload: &[u8], flags: u8) -> Option<Vec<u8>> {
    let mut at = 0;
    if flags & FLAG_PADDED != 0 {
        at += 1;
    }
    if flags & FLAG_PRIORITY != 0 {
        at += 5;
    }
    // Every step moves `at` forward; whatever does not fit ends the walk.
    loop {
        let first = *payload.get(at)?;
        let (index, is_literal) = match first {
            0x80.. => (integer(payload, &mut at, 7)?, false),
            0x40.. => (integer(payload, &mut at, 6)?, true),
            0x20.. => (integer(payload, &mut at, 5)?, false),
            _ => (integer(payload, &mut at, 4)?, true),
        };
        if !is_literal {
            continue;
        }
        let start = at;
        if index == 0 {
            string(payload, &mut at)?;
        }
        let value = string(payload, &mut at)?;
        if index == AUTHORITY {
            let mut mended = payload[..start].to_vec();
            if value.bytes.is_empty() && !is_pseudo(payload, at) {
                // The same way to say it, with a name of its own.
                *mended.last_mut()? = first - AUTHORITY as u8;
                mended.extend_from_slice(NOTHING);
            } else if value.is_authority() {
                return None;
            } else {
                mended.push(PLAIN.len() as u8);
                mended.extend_from_slice(PLAIN);
            }
            mended.extend_from_slice(&payload[at..]);
            return (mended.len() <= FRAME_BYTES_MAX).then_some(mended);
        }
    }
}

/// Whether the header that begins here is a pseudo-header, or may be one: what is in the table is not known.
fn is_pseudo(payload: &[u8], mut at: usize) -> bool {
    let Some(first) = payload.get(at) else { return false };
    let prefix = match first {
        0x80.. => 7,
        0x40.. => 6,
        0x20.. => return false,
        _ => 4,
    };
    match integer(payload, &mut at, prefix) {
        Some(0) => string(payload, &mut at).is_some_and(|name| name.begins_with_colon()),
        Some(index) => index <= PSEUDO_MAX || COMMON_MAX < index,
        None => false,
    }
}

/// An integer whose first byte has `prefix` bits of it (RFC 7541, 5.1).
fn integer(bytes: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let limit = (1 << prefix) - 1;
    let mut value = usize::from(*bytes.get(*at)?) & limit;
    *at += 1;
    if value < limit {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A string, plain or in Huffman's code (RFC 7541, 5.2).
#[derive(Debug, PartialEq, Eq)]
struct Text<'a> {
    is_huffman: bool,
    bytes: &'a [u8],
}

fn string<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Text<'a>> {
    let is_huffman = *bytes.get(*at)? & 0x80 != 0;
    let length = integer(bytes, at, 7)?;
    let value = bytes.get(*at..at.checked_add(length)?)?;
    *at += length;
    Some(Text { is_huffman, bytes: value })
}

impl Text<'_> {
    fn begins_with_colon(&self) -> bool {
        let first = self.bytes.first().copied().unwrap_or_default();
        // In Huffman's code it has seven bits.
        if self.is_huffman { first >> 1 == 0x5c } else { first == b':' }
    }

    /// Whether the HTTP/2 library takes it for an authority.
    fn is_authority(&self) -> bool {
        match self.is_huffman {
            true => decoded(self.bytes).is_some_and(|plain| is_authority(&plain)),
            false => is_authority(self.bytes),
        }
    }
}

fn is_authority(text: &[u8]) -> bool {
    Authority::try_from(text).is_ok()
}

/// Huffman's code for what a host and its port are made of (RFC 7541, appendix B): character, code, bits
/// of it.
#[rustfmt::skip]
const CODES: &[(u8, u32, u32)] = &[
    (b'0', 0x00, 5), (b'1', 0x01, 5), (b'2', 0x02, 5), (b'a', 0x03, 5), (b'c', 0x04, 5),
    (b'e', 0x05, 5), (b'i', 0x06, 5), (b'o', 0x07, 5), (b's', 0x08, 5), (b't', 0x09, 5),
    (b'%', 0x15, 6), (b'-', 0x16, 6), (b'.', 0x17, 6), (b'/', 0x18, 6), (b'3', 0x19, 6),
    (b'4', 0x1a, 6), (b'5', 0x1b, 6), (b'6', 0x1c, 6), (b'7', 0x1d, 6), (b'8', 0x1e, 6),
    (b'9', 0x1f, 6), (b'A', 0x21, 6), (b'_', 0x22, 6), (b'b', 0x23, 6), (b'd', 0x24, 6),
    (b'f', 0x25, 6), (b'g', 0x26, 6), (b'h', 0x27, 6), (b'l', 0x28, 6), (b'm', 0x29, 6),
    (b'n', 0x2a, 6), (b'p', 0x2b, 6), (b'r', 0x2c, 6), (b'u', 0x2d, 6), (b':', 0x5c, 7),
    (b'B', 0x5d, 7), (b'C', 0x5e, 7), (b'D', 0x5f, 7), (b'E', 0x60, 7), (b'F', 0x61, 7),
    (b'G', 0x62, 7), (b'H', 0x63, 7), (b'I', 0x64, 7), (b'J', 0x65, 7), (b'K', 0x66, 7),
    (b'L', 0x67, 7), (b'M', 0x68, 7), (b'N', 0x69, 7), (b'O', 0x6a, 7), (b'P', 0x6b, 7),
    (b'Q', 0x6c, 7), (b'R', 0x6d, 7), (b'S', 0x6e, 7), (b'T', 0x6f, 7), (b'U', 0x70, 7),
    (b'V', 0x71, 7), (b'W', 0x72, 7), (b'Y', 0x73, 7), (b'j', 0x74, 7), (b'k', 0x75, 7),
    (b'q', 0x76, 7), (b'v', 0x77, 7), (b'w', 0x78, 7), (b'x', 0x79, 7), (b'y', 0x7a, 7),
    (b'z', 0x7b, 7), (b'X', 0xfc, 8), (b'Z', 0xfd, 8), (b'[', 0x1ffb, 13), (b']', 0x1ffc, 13),
];
const CODE_BITS_MAX: u32 = 13;
/// A valid end is a byte's last bits, all of them one.
const PADDING_BITS_MAX: u32 = 7;

/// `None` if there is any character that has no business in a host and its port.
fn decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(bytes.len() * 2);
    let (mut code, mut bits) = (0_u32, 0_u32);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        code = code << 1 | u32::from(bit);
        bits += 1;
        if let Some((character, ..)) = CODES.iter().find(|known| (known.1, known.2) == (code, bits))
        {
            plain.push(*character);
            (code, bits) = (0, 0);
        } else if CODE_BITS_MAX <= bits {
            return None;
        }
    }
    (bits <= PADDING_BITS_MAX && code == (1 << bits) - 1).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(plain: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(plain.len());
        let (mut waiting, mut bits) = (0_u32, 0_u32);
        for character in plain {
            let (_, code, length) = CODES.iter().find(|known| known.0 == *character)?;
            waiting = waiting << length | code;
            bits += length;
            while 8 <= bits {
                bits -= 8;
                bytes.push((waiting >> bits) as u8);
                waiting &= (1 << bits) - 1;
            }
        }
        if 0 < bits {
            bytes.push((waiting << (8 - bits)) as u8 | 0xff >> bits);
        }
        Some(bytes)
    }

    /// `:path /a`, then `:authority` with this value, then one more that stays as it is.
    fn call(authority: &[u8], is_huffman: bool) -> Vec<u8> {
        let flag = if is_huffman { 0x80 } else { 0 };
        let mut payload = vec![0x83, 0x44, 2, b'/', b'a', 0x41];
        match authority.len() {
            length @ ..127 => payload.push(flag | length as u8),
            length => {
                let rest = length - 127;
                payload.push(flag | 127);
                payload.extend_from_slice(&[rest as u8 | 0x80, (rest >> 7) as u8]);
            }
        }
        payload.extend_from_slice(authority);
        payload.extend_from_slice(b"\x40\x01x\x01y");
        payload
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len();
        let mut frame = vec![(length >> 16) as u8, (length >> 8) as u8, length as u8];
        frame.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        frame.extend_from_slice(payload);
        frame
    }

    fn filtered(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> (Vec<u8>, Stage) {
        let (mut filter, mut out) = (Filter::default(), BytesMut::new());
        for part in parts {
            filter.feed(part.as_ref(), &mut out);
        }
        let stage = filter.stage;
        filter.give_up(&mut out);
        (out.to_vec(), stage)
    }

    #[test]
    fn huffmans_code_is_that_of_the_standard() {
        let example = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&example).unwrap(), b"www.example.com");
        assert_eq!(encoded(b"www.example.com").unwrap(), example);
        for (plain, _, bits) in CODES {
            assert_eq!(decoded(&encoded(&[*plain]).unwrap()).unwrap(), [*plain], "{bits}");
        }
        for text in ["http://127.0.0.1:2379", "HTTP://[fe80::1%25eth0]:1", "a_b-9", ""] {
            assert_eq!(decoded(&encoded(text.as_bytes()).unwrap()).unwrap(), text.as_bytes());
        }
        for bad in [&[0xff, 0xff][..], &[0x07, 0xff], &[0xfe], &[0x18]] {
            assert_eq!(decoded(bad), None, "{bad:?}");
        }
        assert_eq!(encoded(b"a b"), None);
    }

    #[test]
    fn no_code_begins_another() {
        for (a, code_a, bits_a) in CODES {
            for (b, code_b, bits_b) in CODES.iter().filter(|b| b.2 >= *bits_a) {
                assert!(a == b || code_b >> (bits_b - bits_a) != *code_a, "{a} {b}");
            }
        }
    }

    #[test]
    fn what_would_be_refused_is_replaced() {
        let long = format!("http://{}:2379", "long-name.".repeat(30));
        for text in ["http://127.0.0.1:2379", "HTTP://h:1", "/tmp/x.sock", "%", "a:1,b:2", &long] {
            assert_eq!(mended(&call(text.as_bytes(), false), 0).unwrap(), call(PLAIN, false));
            let coded = encoded(text.as_bytes());
            if let Some(coded) = coded {
                assert_eq!(mended(&call(&coded, true), 0).unwrap(), call(PLAIN, false), "{text}");
            }
        }
        // Characters that no authority has, and bytes that are no code.
        for coded in [&[0xff; 9][..], &[0xff, 0xa7], &[0xff]] {
            assert_eq!(mended(&call(coded, true), 0).unwrap(), call(PLAIN, false));
        }
        // Before the headers: a length of padding, a priority, both.
        for (flags, before) in
            [(FLAG_PADDED, 1), (FLAG_PRIORITY, 5), (FLAG_PADDED | FLAG_PRIORITY, 6)]
        {
            let with = |text: &[u8]| [vec![0; before], call(text, false)].concat();
            assert_eq!(mended(&with(b"http://a:1"), flags).unwrap(), with(PLAIN));
        }
    }

    #[test]
    fn an_empty_authority_becomes_a_header_that_nobody_asks_for() {
        for (is_huffman, kind) in [(false, 0x40), (true, 0x40), (false, 0x00), (false, 0x10)] {
            let mut empty = call(b"", is_huffman);
            assert_eq!(empty[5], 0x41);
            empty[5] = kind | AUTHORITY as u8;
            let want = [&[0x83, 0x44, 2, b'/', b'a', kind][..], b"\x01x\0", b"\x40\x01x\x01y"];
            assert_eq!(mended(&empty, 0).unwrap(), want.concat());
        }
    }

    #[test]
    fn an_empty_authority_is_replaced_where_a_pseudo_header_follows() {
        let method = [&[0x00, 7][..], b":method\x04POST"].concat();
        let huffman = [&[0x00, 0x85][..], &[0xb9, 0x49, 0x53, 0x39, 0xe4], &[1, b'x']].concat();
        for (next, follows) in [
            (&[0x83][..], true),   // :method POST
            (b"\x44\x02/a", true), // :path, and into the table
            (b"\x04\x02/a", true), // :path
            (&method, true),
            (&huffman, true),
            (&[0xbe], true),          // whatever is in the table
            (b"\x7f\x00\x01x", true), // a name in the table
            (b"\x5f\x01x", false),    // content-type
            (b"\x40\x01x\x01y", false),
            (&[0x90], false), // accept-encoding
            (&[], false),
        ] {
            for kind in [0x40, 0x00, 0x10] {
                let empty = [&[0x83, kind | AUTHORITY as u8, 0], next].concat();
                let want = match follows {
                    true => [&[0x83, kind | AUTHORITY as u8, 1, b'q'], next].concat(),
                    false => [&[0x83, kind], NOTHING, next].concat(),
                };
                assert_eq!(mended(&empty, 0).unwrap(), want, "{next:x?}");
            }
        }
    }

    #[test]
    fn what_is_right_or_no_headers_is_left_alone() {
        for payload in [
            call(b"127.0.0.1:2379", false),
            call(&encoded(b"127.0.0.1:2379").unwrap(), true),
            call(&encoded(b"[::1]:2379").unwrap(), true),
            vec![0x83, 0x84],
            vec![0x41, 0xff, 0xff, 0xff, 0xff, 0xff],
            vec![0x41, 100, b'h'],
            vec![],
        ] {
            assert_eq!(mended(&payload, 0), None, "{payload:?}");
        }
    }

    #[test]
    fn however_the_bytes_arrive_the_outcome_is_the_same() {
        let settings = frame(4, 0, &[]);
        let wrong = frame(HEADERS, 4, &call(b"http://a:1", false));
        let right = frame(HEADERS, 4, &call(PLAIN, false));
        let data = frame(0, 1, &[7; 300]);
        let later = frame(HEADERS, 4, &[0x83, 0xbe]);
        let sent = [PREFACE, &settings, &wrong, &data, &later, &wrong, &data].concat();
        let want = [PREFACE, &settings, &right, &data, &later, &right, &data].concat();
        for size in [1, 2, 3, 7, 24, 33, 100, sent.len()] {
            let (got, stage) = filtered(sent.chunks(size));
            assert_eq!(got, want, "in pieces of {size}");
            assert_eq!(stage, Stage::Frame);
        }
    }

    #[test]
    fn a_connection_that_needs_nothing_is_left_alone_from_then_on() {
        let right = frame(HEADERS, 4, &call(b"a:1", false));
        let wrong = frame(HEADERS, 4, &call(b"http://a:1", false));
        let http1 = b"GET /health HTTP/1.1\r\n\r\n".to_vec();
        for sent in [
            [PREFACE, &right, &wrong].concat(),
            http1,
            b"PRX".to_vec(),
            [&PREFACE[..20], b"oops"].concat(),
        ] {
            for size in [1, 5, sent.len()] {
                assert_eq!(filtered(sent.chunks(size)), (sent.clone(), Stage::Off));
            }
        }
    }

    #[test]
    fn no_bytes_get_lost_or_break_it() {
        // Cheap pseudo-random frames behind a right preface; lengths are kept truthful, so that the
        // walk gets into the payloads.
        let mut seed = 7_u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        for _ in 0..2000 {
            let payload: Vec<u8> = (0..next() % 40).map(|_| next()).collect();
            let sent = [PREFACE, &frame(HEADERS, next(), &payload), b"tail"].concat();
            let (got, _) = filtered(sent.chunks(11));
            // An empty authority takes two bytes more.
            assert!(got.ends_with(b"tail") && got.len() <= sent.len() + 2);
        }
    }
}
