//! The engines' values as bytes and back, byte for byte as etcd's `raftpb` has them, and gometa.
//!
//! ```text
//! peers     Message                  encode_message / decode_message
//! log       Entry <-> LogEntry       to_log_entry / from_log_entry
//!           HardState, ConfState     version byte, then raftpb
//! anyone    each raftpb type         encode_* / decode_*
//! ZAB       gometa's frames          the module `zab`
//! ```
//!
//! What is read comes from outside, so every length is checked before it is used, nesting is
//! bounded, and whatever cannot be understood is a [`DecodeError`], never a panic. Fields this
//! version does not know are skipped. Payloads are shared, not copied: a large one leaves as a
//! chunk of its own, and what is decoded is a slice of what came in.
//!
//! Not here: frames, checksums and lengths around these bytes (the `net` and `wal` crates).

mod error;
mod log;
mod message;
mod values;
mod wire;
pub mod zab;

pub use error::DecodeError;
pub use log::{
    decode_conf_state_record, decode_hard_state_record, decode_zab_hard_state_record,
    encode_conf_state_record, encode_hard_state_record, encode_zab_hard_state_record,
    from_log_entry, from_mark, is_zab_hard_state_record, to_log_entry, to_mark,
};
pub use message::{decode_message, encode_message};
pub use values::{
    decode_conf_change, decode_conf_change_v2, decode_conf_state, decode_entry, decode_hard_state,
    decode_snapshot, encode_conf_change, encode_conf_change_v2, encode_conf_state, encode_entry,
    encode_hard_state, encode_snapshot,
};
pub use wire::{NESTING_MAX, SHARED_BYTES_MIN};

#[cfg(test)]
mod tests;
