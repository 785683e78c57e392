//! Every door through which bytes come in, given bytes that nobody wrote: none may panic, and what is
//! taken in must be what was meant.
//!
//! Each function here is one target. `fuzz/` gives them to `cargo fuzz`, which learns from the code which
//! bytes lead deeper; the tests of this crate give them the same corpus, and changed copies of it, on any
//! toolchain:
//!
//! ```text
//! cargo test -p quorate-fuzz                                    the corpus, and 5,000 changes a target
//! QUORATE_FUZZ_COUNT=1000000 cargo test --release -p quorate-fuzz
//! cargo fuzz run -s none log_segment                            from the root of the repository
//! ```
//! Without a sanitizer (`-s none`) `cargo fuzz` runs on a stable toolchain too; nothing here is unsafe.
//! An input that was found to break something is kept in `fuzz/corpus/<target>/`.

mod draw;
mod engine;
mod ensemble;
mod log;
mod peers;
mod state;

/// A door: bytes in, a panic if it does not hold.
pub type Target = fn(&[u8]);

/// All targets by name; a folder of the corpus has the same name.
pub const TARGETS: [(&str, Target); 9] = [
    ("log_record", log::record),
    ("log_segment", log::segment),
    ("snapshot", state::snapshot),
    ("frames", peers::frames),
    ("raftpb", peers::raftpb),
    ("engine_step", engine::step),
    ("zab_step", ensemble::step),
    ("zab_frames", ensemble::frames),
    ("scripts", scripts),
];

/// Runs the target of this name.
///
/// # Panics
///
/// When there is none, or it does not hold.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target's name");
    target(bytes);
}

/// Scripts are text that a person wrote. Any text is run or refused.
fn scripts(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    // Runs take as long as a script asks them to; these ask for little.
    if 2000 < text.len() {
        return;
    }
    let _ = quorate_script::run_quorum(text);
    let _ = quorate_script::run_confchange(text);
    let _ = quorate_script::run_raft(text);
}
