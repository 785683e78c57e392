//! A keyed digest on each vote, so that in elections only those are heard who know the key.
//!
//! ```text
//! datagram   a vote's frame as everybody writes it, its total including what follows:
//!            field 102 of its body, 32 bytes: HMAC-SHA256 over the body before it
//! ```
//! gometa skips the field. Nothing is hidden, and the digest does not name the sender: a vote that was
//! overheard can be sent again, from any member's address, and is then believed as that member's.
//! Votes prove nothing by themselves, a leader needs connections to a quorum.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use hmac::digest::Key;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Key and length of the field: number 102, bytes; 32 of them.
const FIELD: [u8; 3] = [0xb2, 0x06, DIGEST_BYTES as u8];

const DIGEST_BYTES: usize = 32;
const SEAL_BYTES: usize = FIELD.len() + DIGEST_BYTES;

/// Before the body: total, length of the name, and the name `Vote`.
const BODY_AT: usize = 8 + 8 + 4;

/// The key that the votes of one ensemble are sealed with.
#[derive(Clone)]
pub(crate) struct Seal(Hmac<Sha256>);

impl Seal {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        let mut padded = Key::<Hmac<Sha256>>::default();
        padded[..key.len()].copy_from_slice(&key);
        Seal(Hmac::new(&padded))
    }

    /// The datagram of a vote with its digest.
    pub(crate) fn close(&self, vote: &Bytes) -> Bytes {
        let mut sealed = BytesMut::with_capacity(vote.len() + SEAL_BYTES);
        sealed.put_u64((vote.len() - 8 + SEAL_BYTES) as u64);
        sealed.put_slice(&vote[8..]);
        sealed.put_slice(&FIELD);
        sealed.put_slice(&self.over(&vote[BODY_AT..]).finalize().into_bytes());
        sealed.freeze()
    }

    /// Whether a datagram ends with the digest of what it says.
    pub(crate) fn is_whole(&self, datagram: &[u8]) -> bool {
        let Some(body) = datagram.get(BODY_AT..) else { return false };
        let Some(said) = body.len().checked_sub(SEAL_BYTES) else { return false };
        let (said, seal) = body.split_at(said);
        // How much of a digest is right does not show in how long this takes.
        let is_right = |digest| self.over(said).verify_slice(digest).is_ok();
        seal.strip_prefix(&FIELD).is_some_and(is_right)
    }

    fn over(&self, body: &[u8]) -> Hmac<Sha256> {
        self.0.clone().chain_update(body)
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
        let digest = Seal::new(key).over(b"Hi There").finalize().into_bytes();
        assert_eq!(
            format!("{digest:x}"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
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
