//! Bugs that tests put back, to see whether they are found.
//!
//! Code asks [`bug!`](crate::bug) where a guard stands. Without the feature `bugs`, which only tests
//! turn on, the answer is a constant no and nothing is left of the question. With it, one bug at a time
//! is on for a thread, as `put_back` says.

#[cfg(feature = "bugs")]
thread_local! {
    static ON: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Puts a bug back on this thread in place of the one before, or none.
#[cfg(feature = "bugs")]
pub fn put_back(bug: Option<&'static str>) {
    ON.set(bug);
}

/// Whether a bug is on.
#[cfg(feature = "bugs")]
pub fn is_on(bug: &str) -> bool {
    ON.get() == Some(bug)
}

/// Whether a bug is on: never in a build that is not for tests.
#[cfg(not(feature = "bugs"))]
#[inline(always)]
pub const fn is_on(_bug: &str) -> bool {
    false
}

/// Whether the bug of this name was put back by a test.
#[macro_export]
macro_rules! bug {
    ($name:literal) => {
        $crate::bugs::is_on($name)
    };
}
