//! Messages of gRPC in a stream of bytes.

/// One byte for compression, four for the length.
pub(super) const HEADER_BYTES: usize = 5;

/// Where in a stream of messages one is.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// Of the next message.
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    missing_bytes: usize,
    length_bytes: usize,
}

impl Messages {
    /// How many messages begin in these bytes: their headers end there.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> u64 {
        let mut begun = 0;
        while !bytes.is_empty() {
            let skipped = self.missing_bytes.min(bytes.len());
            self.missing_bytes -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEADER_BYTES - self.header_bytes).min(bytes.len());
            self.header[self.header_bytes..][..taken].copy_from_slice(&bytes[..taken]);
            self.header_bytes += taken;
            bytes = &bytes[taken..];
            if self.header_bytes == HEADER_BYTES {
                let [_, length @ ..] = self.header;
                self.length_bytes = u32::from_be_bytes(length) as usize;
                self.missing_bytes = self.length_bytes;
                self.header_bytes = 0;
                begun += 1;
            }
        }
        begun
    }

    /// Whether part of a header has come.
    pub(super) fn is_in_header(&self) -> bool {
        0 < self.header_bytes
    }

    /// What is missing of the message at hand, whose header has come.
    pub(super) fn missing_bytes(&self) -> usize {
        self.missing_bytes
    }

    /// The length of the message at hand, or of the last one.
    pub(super) fn length_bytes(&self) -> usize {
        self.length_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let message = |length: u8| {
            let mut bytes = vec![0, 0, 0, 0, length];
            bytes.resize(HEADER_BYTES + usize::from(length), 7);
            bytes
        };
        let stream = [message(3), message(0), message(200), message(1)].concat();
        for size in 1..=stream.len() {
            let mut messages = Messages::default();
            let count: u64 = stream.chunks(size).map(|part| messages.feed(part)).sum();
            assert_eq!(count, 4, "in parts of {size}");
            assert_eq!((messages.is_in_header(), messages.missing_bytes()), (false, 0));
        }
    }
}
