//! Inputs and states as JSON, in the reference's form: what goes in is read leniently where it lacks
//! something and strictly where it contradicts its form; what comes out is the same to the byte.

mod read;
mod write;

use crate::promoter::StablePromoter;
use crate::state::State;
use crate::strict::Strictness;

pub use read::{InputError, read_inputs};
pub use write::write_state;

/// The state that follows from the inputs in `json`, by the stable promoter and none of the strict
/// rules: a golden case of the reference, run.
///
/// # Errors
///
/// When the text is no JSON, when a member is of another type than it has, and when `Config` or
/// `RaftConfig` is missing; the error names the member.
pub fn evaluate(json: &[u8]) -> Result<String, InputError> {
    let inputs = read_inputs(json)?;
    Ok(write_state(&State::next(&inputs, &StablePromoter, &Strictness::parity())))
}
