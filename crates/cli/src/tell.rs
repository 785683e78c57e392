//! What the program says on standard error, each kind in one form. Whoever read it may be gone, which is
//! no reason to panic: the exit code is left all the same.
//!
//! Every line says what is wrong and, where anything would help, what that is. Commands that stand in
//! for `etcdctl`'s begin their errors as it does, for the scripts that look for that.

use std::io::Write;

/// What kept a program from doing what it was asked.
pub(crate) fn error(text: &str) {
    line(&format!("error: {text}"));
}

/// What a program that goes on wants to be known.
pub(crate) fn warning(text: &str) {
    line(&format!("warning: {text}"));
}

/// What kept a command that stands in for one of `etcdctl` from being carried out.
pub(crate) fn etcdctl_error(text: &str) {
    line(&format!("Error: {text}"));
}

/// What went wrong on the way of such a command, which goes on.
pub(crate) fn etcdctl_warning(text: &str) {
    line(&format!("Warning: {text}"));
}

/// A line as it is.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
