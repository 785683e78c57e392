//! Changes of membership, one after the other.
//!
//! Source: etcd's `confchange/testdata`.

use quorate_raft::{Changer, Membership, ProgressTracker, conf_changes_from_string};
use quorate_types::Index;

use crate::file::{Directive, FileError, FileErrorReason};
use crate::run::{self, Interpreter, Outcome, boolean};

/// Runs a script of `simple`, `enter-joint` and `leave-joint` commands, from a group without
/// members.
///
/// # Errors
///
/// [`FileError`] if `text` is no script, or has arguments that the commands do not take.
pub fn run_confchange(text: &str) -> Result<Outcome, FileError> {
    let tracker = ProgressTracker::new(INFLIGHT_MAX, 0);
    run::run(text, &mut ConfChange { tracker, last_index: Index(0) })
}

const INFLIGHT_MAX: usize = 10;

struct ConfChange {
    tracker: ProgressTracker,
    /// One more with every directive, whatever comes of it.
    last_index: Index,
}

impl Interpreter for ConfChange {
    fn run(&mut self, directive: &Directive<'_>) -> Result<String, FileErrorReason> {
        let changed = self.change(directive);
        self.last_index += 1;
        Ok(match changed? {
            Ok(membership) => {
                self.tracker.switch(membership);
                format!("{}\n{}", self.tracker.config, self.tracker.progress)
            }
            Err(error) => error,
        })
    }
}

impl ConfChange {
    /// The next membership, or why there is none.
    fn change(
        &self,
        directive: &Directive<'_>,
    ) -> Result<Result<Membership, String>, FileErrorReason> {
        let changes = match conf_changes_from_string(&directive.input) {
            Ok(changes) => changes,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let mut auto_leave = false;
        for (_, value) in directive.values().filter(|(key, _)| *key == "autoleave") {
            auto_leave = boolean(value)?;
        }
        let changer = Changer { tracker: &self.tracker, last_index: self.last_index };
        let changed = match directive.command.as_str() {
            "simple" => changer.simple(&changes),
            "enter-joint" => changer.enter_joint(auto_leave, &changes),
            "leave-joint" if changes.is_empty() => changer.leave_joint(),
            "leave-joint" => return Ok(Err("this command takes no input".to_owned())),
            _ => return Ok(Err("unknown command".to_owned())),
        };
        Ok(changed.map_err(|error| error.to_string()))
    }
}
