//! A keyed digest on each vote, so that in elections only those are heard who know the key.
//!
//! ```text
//! datagram   a vote's frame as everybody writes it, its total including what follows:
//!            field 102 of its body, 32 bytes: HMAC-SHA256 over the body before it
//! ```
//! gometa skips the field. A vote that was overheard can be sent again, and is then believed again:
//! votes prove nothing by themselves, a leader needs connections to a quorum.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

/// Key and length of the field: number 102, bytes; 32 of them.
const FIELD: [u8; 3] = [0xb2, 0x06, DIGEST_BYTES as u8];

const DIGEST_BYTES: usize = 32;
const SEAL_BYTES: usize = FIELD.len() + DIGEST_BYTES;

/// What HMAC pads a key to: SHA-256 works on so many bytes at a time.
const BLOCK_BYTES: usize = 64;

/// Before the body: total, length of the name, and the name `Vote`.
const BODY_AT: usize = 8 + 8 + 4;

/// The key that the votes of one ensemble are sealed with.
#[derive(Clone, Copy)]
pub(crate) struct Seal([u8; 32]);

impl Seal {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Seal(key)
    }

    /// The datagram of a vote with its digest.
    pub(crate) fn close(&self, vote: &Bytes) -> Bytes {
        let mut sealed = BytesMut::with_capacity(vote.len() + SEAL_BYTES);
        sealed.put_u64((vote.len() - 8 + SEAL_BYTES) as u64);
        sealed.put_slice(&vote[8..]);
        sealed.put_slice(&FIELD);
        sealed.put_slice(&self.digest(&vote[BODY_AT..]));
        sealed.freeze()
    }

    /// Whether a datagram ends with the digest of what it says.
    pub(crate) fn is_whole(&self, datagram: &[u8]) -> bool {
        let Some(body) = datagram.get(BODY_AT..) else { return false };
        let Some(said) = body.len().checked_sub(SEAL_BYTES) else { return false };
        let (said, seal) = body.split_at(said);
        let digest = self.digest(said);
        // How much of it is right must not show in how long this takes.
        let differing = seal[FIELD.len()..].iter().zip(digest).fold(0, |all, (a, b)| all | (a ^ b));
        seal.starts_with(&FIELD) && differing == 0
    }

    /// HMAC-SHA256 (RFC 2104).
    fn digest(&self, body: &[u8]) -> [u8; DIGEST_BYTES] {
        let padded = |with: u8| {
            let mut block = [with; BLOCK_BYTES];
            block.iter_mut().zip(self.0).for_each(|(byte, key)| *byte ^= key);
            block
        };
        let inner = Sha256::new().chain_update(padded(0x36)).chain_update(body).finalize();
        Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal") // and not the key
    }
}

#[cfg(test)]
mod tests {
    use quorate_codec::zab::{decode_datagram, decode_frame, encode_datagram};
    use quorate_zab::{Message, Vote};

    use super::*;

    #[test]
    fn the_digest_is_that_of_rfc_4231() {
        let mut key = [0; 32]; // shorter keys are padded with zeros
        key[..20].fill(0x0b);
        let want = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        let digest = Seal(key).digest(b"Hi There");
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, want);
    }

    #[test]
    fn only_what_was_sealed_with_the_key_is_whole() {
        let seal = Seal::new([7; 32]);
        let vote = Vote { round: 3, candidate: "10.0.0.1:5001".into(), ..Vote::default() };
        let bare = encode_datagram(&vote);
        let sealed = seal.close(&bare);
        assert!(seal.is_whole(&sealed));
        // Those without a key skip the field, which is part of the frame.
        assert_eq!(decode_datagram(sealed.clone()), Ok(vote.clone()));
        assert_eq!(decode_frame(sealed.clone()), Ok(Message::Vote(vote)));

        assert!(!seal.is_whole(&bare));
        assert!(!Seal::new([8; 32]).is_whole(&sealed));
        for at in BODY_AT..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert!(!seal.is_whole(&changed), "byte {at}");
            assert!(!seal.is_whole(&sealed[..at]), "cut at {at}");
        }
        assert!(!seal.is_whole(b""));
    }
}
