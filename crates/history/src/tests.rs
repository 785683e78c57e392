//! The checkers, held against histories with known verdicts and against each other.

mod brute;
mod known;
mod machine;
mod promises;
mod random;
mod text;
