//! What a load consists of, checked before anything is sent.

use std::time::Duration;

use bytes::Bytes;

/// Keys start with this, so that a measurement does not touch the keys of others.
pub(crate) const KEY_PREFIX: &str = "bench/";
/// What a server takes in one request by default is less; more is a typing error.
const VALUE_BYTES_MAX: usize = 64 << 20;
const KEY_BYTES_MAX: usize = 64 << 10;
const CLIENT_COUNT_MAX: u32 = 100_000;

/// What every request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Puts a value to a key drawn at random from the key space.
    Put,
    /// Puts a value to each key of the key space in turn, starting anew after the last.
    Fill,
    /// Reads a key drawn at random from the key space.
    Get {
        /// Answered from the member's own state, which may be stale, instead of through a quorum.
        serializable: bool,
    },
    /// A bit of everything, each on keys drawn at random: of ten requests five puts, three reads,
    /// one deletion and one transaction.
    Mixed,
}

/// A load: who sends how much of what.
#[derive(Clone, Debug)]
pub struct Load {
    /// What every request does.
    pub work: Work,
    /// Clients, each with one request under way.
    pub client_count: u32,
    /// Requests in all. Failed ones count.
    pub request_count: u64,
    /// No request starts after this long.
    pub duration_max: Option<Duration>,
    /// A request without an answer after this long has failed.
    pub request_timeout: Duration,
    /// When failures have been all there was for this long, the rest is not sent.
    pub silence_max: Duration,
    /// Length of every key; the keys of one key space are equally long.
    pub key_bytes: usize,
    /// Number of different keys.
    pub key_count: u64,
    /// Length of every value.
    pub value_bytes: usize,
    /// Where chance starts: two loads with one seed send each client's keys in the same order.
    pub seed: u64,
}

impl Load {
    /// A load of this work with everything else as the `quorate bench` command has it.
    pub fn new(work: Work) -> Load {
        Load {
            work,
            client_count: 1,
            request_count: 10_000,
            duration_max: None,
            request_timeout: Duration::from_secs(10),
            silence_max: Duration::from_secs(20),
            key_bytes: 24,
            key_count: 10_000,
            value_bytes: 256,
            seed: 1,
        }
    }

    /// Whether the numbers fit together.
    ///
    /// # Errors
    ///
    /// The first number that does not.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.client_count == 0 || CLIENT_COUNT_MAX < self.client_count {
            return Err(PlanError::Clients { count: self.client_count });
        }
        if self.key_count == 0 {
            return Err(PlanError::NoKeys);
        }
        let bytes_min = KEY_PREFIX.len() + digits(self.key_count - 1);
        if self.key_bytes < bytes_min {
            return Err(PlanError::KeyTooShort {
                bytes: self.key_bytes,
                key_count: self.key_count,
                bytes_min,
            });
        }
        if KEY_BYTES_MAX < self.key_bytes {
            return Err(PlanError::KeyTooLong { bytes: self.key_bytes });
        }
        if VALUE_BYTES_MAX < self.value_bytes {
            return Err(PlanError::ValueTooLong { bytes: self.value_bytes });
        }
        Ok(())
    }

    pub(crate) fn key(&self, number: u64) -> Bytes {
        assert!(number < self.key_count, "a key of the key space");
        let width = self.key_bytes - KEY_PREFIX.len();
        format!("{KEY_PREFIX}{number:0width$}").into()
    }
}

/// Why a load cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No client sends nothing; too many are a typing error.
    #[error("{count} clients; between 1 and {CLIENT_COUNT_MAX} can be run")]
    Clients {
        /// What was asked for.
        count: u32,
    },
    /// The key space is empty.
    #[error("the key space is empty; it needs at least one key")]
    NoKeys,
    /// The keys of the key space would not all be different.
    #[error("keys of {bytes} bytes cannot tell {key_count} keys apart; they need {bytes_min}")]
    KeyTooShort {
        /// What was asked for.
        bytes: usize,
        /// Size of the key space.
        key_count: u64,
        /// What would do.
        bytes_min: usize,
    },
    /// No server takes such a key.
    #[error("keys of {bytes} bytes; at most {KEY_BYTES_MAX} can be sent")]
    KeyTooLong {
        /// What was asked for.
        bytes: usize,
    },
    /// No server takes such a value.
    #[error("values of {bytes} bytes; at most {VALUE_BYTES_MAX} can be sent")]
    ValueTooLong {
        /// What was asked for.
        bytes: usize,
    },
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Numbers that look random: splitmix64. Not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, client: u32) -> Dice {
        let mut dice = Dice(seed);
        // A step apart would make neighbours draw the same numbers, one shifted against the other.
        Dice(dice.next() ^ Dice(u64::from(client)).next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, each about equally likely.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        assert!(0 < bound, "there is no number below 0");
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Values that differ from each other and do not compress, without new bytes for each: windows into
/// one piece of noise.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    noise: Bytes,
    value_bytes: usize,
}

impl Values {
    const STARTS: usize = 4096;

    pub(crate) fn new(load: &Load) -> Values {
        let mut dice = Dice::new(load.seed, u32::MAX);
        let mut noise = Vec::with_capacity(load.value_bytes + Values::STARTS + 8);
        while noise.len() < load.value_bytes + Values::STARTS {
            noise.extend_from_slice(&dice.next().to_le_bytes());
        }
        Values { noise: noise.into(), value_bytes: load.value_bytes }
    }

    pub(crate) fn draw(&self, dice: &mut Dice) -> Bytes {
        let start = dice.below(Values::STARTS as u64) as usize;
        self.noise.slice(start..start + self.value_bytes)
    }
}
