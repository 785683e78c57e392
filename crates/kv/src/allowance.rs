//! How much memory an answer may take: a short request can ask for the whole state many times over.

/// An answer to one range takes no more. Nothing longer could be sent: the wire format ends here.
pub const RANGE_ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// An answer to a transaction, or to anything else that changes the state, takes no more in all of
/// its parts.
pub const CHANGE_ANSWER_BYTES_MAX: usize = 128 << 20;

/// What one answer may still take. Once it would have taken more, it is spent for good.
#[derive(Debug)]
pub(crate) struct Allowance {
    used_bytes: usize,
    bytes_max: usize,
    spent: bool,
}

impl Allowance {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Allowance { used_bytes: 0, bytes_max, spent: false }
    }

    /// For an answer that nobody waits for: nothing may be read for it.
    pub(crate) fn none() -> Self {
        Allowance { used_bytes: 0, bytes_max: 0, spent: true }
    }

    /// Whether there is room for this much, which is then taken.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        self.spent |= self.bytes_max - self.used_bytes < bytes;
        if !self.spent {
            self.used_bytes += bytes;
        }
        !self.spent
    }

    /// What was taken and is free again. What is spent stays so.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        assert!(bytes <= self.used_bytes, "only what was taken comes back");
        self.used_bytes -= bytes;
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.spent
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_stays_spent() {
        let mut allowance = Allowance::new(10);
        let takes = [(4, true), (6, true), (0, true), (1, false), (0, false)];
        for (bytes, want) in takes {
            assert_eq!(allowance.take(bytes), want, "{bytes}");
        }
        assert_eq!((allowance.used_bytes(), allowance.is_spent()), (10, true));
        assert!(!Allowance::none().take(0));
        let mut allowance = Allowance::new(10);
        assert!(allowance.take(10));
        allowance.give_back(4);
        assert!(allowance.take(4) && !allowance.take(1));
    }
}
