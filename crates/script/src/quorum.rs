//! The arithmetic of quorums: how far a log is committed, and how a vote stands.
//!
//! Source: etcd's `quorum/testdata`.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use quorate_types::quorum::{IndexText, Joint, Majority};
use quorate_types::{Index, NodeId};

use crate::file::{Directive, FileError, FileErrorReason};
use crate::run::{self, Interpreter, Outcome, number};

/// Runs a script of `committed` and `vote` commands.
///
/// Every result is computed in other ways too, which must agree; where they do not, a line with
/// `<--` says so.
///
/// # Errors
///
/// [`FileError`] if `text` is no script, or has arguments that the commands do not take.
pub fn run_quorum(text: &str) -> Result<Outcome, FileError> {
    run::run(text, &mut Quorum)
}

struct Quorum;

impl Interpreter for Quorum {
    fn run(&mut self, directive: &Directive<'_>) -> Result<String, FileErrorReason> {
        let case = Case::read(directive)?;
        let (what, given) = match directive.command.as_str() {
            "committed" => ("idx", case.indexes.len()),
            "vote" => ("votes", case.votes.len()),
            _ => return Ok("unknown command".to_owned()),
        };
        let ids = case.voters.ids();
        if ids.len() != given {
            return Ok(format!(
                "error: mismatched input (explicit or _) for voters {ids}: {given} {what}"
            ));
        }
        Ok(if what == "idx" { case.committed() } else { case.vote() })
    }
}

/// One set of arguments.
#[derive(Default)]
struct Case {
    voters: Joint,
    /// Whether the second half was given, be it empty.
    is_joint: bool,
    /// The ids of both halves, in the order they were first named.
    named: Vec<NodeId>,
    indexes: Vec<Option<Index>>,
    votes: Vec<Option<bool>>,
}

impl Case {
    fn read(directive: &Directive<'_>) -> Result<Self, FileErrorReason> {
        let mut case = Case::default();
        let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
        for argument in &directive.arguments {
            case.is_joint |= argument.key == "cfgj";
            for value in argument.values.iter().map(|value| value.trim()) {
                match (argument.key.as_str(), value) {
                    ("cfg" | "cfgj", "") | ("cfgj", "zero") => {}
                    ("cfg", id) => incoming.push(NodeId(number(id)?)),
                    ("cfgj", id) => outgoing.push(NodeId(number(id)?)),
                    ("idx" | "votes", "") => {}
                    ("idx", "_") => case.indexes.push(None),
                    ("idx", index) => match number(index)? {
                        0 => return Err(unfit("idx", "0")),
                        index => case.indexes.push(Some(Index(index))),
                    },
                    ("votes", "_") => case.votes.push(None),
                    ("votes", "y") => case.votes.push(Some(true)),
                    ("votes", "n") => case.votes.push(Some(false)),
                    (key, value) => return Err(unfit(key, value)),
                }
            }
            if !matches!(argument.key.as_str(), "cfg" | "cfgj" | "idx" | "votes") {
                return Err(unfit(&argument.key, ""));
            }
        }
        for id in incoming.iter().chain(&outgoing) {
            if !case.named.contains(id) {
                case.named.push(*id);
            }
        }
        case.voters = Joint {
            incoming: incoming.into_iter().collect(),
            outgoing: outgoing.into_iter().collect(),
        };
        Ok(case)
    }

    fn committed(&self) -> String {
        let acked: BTreeMap<NodeId, Index> = known(&self.named, &self.indexes);
        let committed = |voters: &Joint| voters.committed_index(|id| acked.get(&id).copied());
        let result = committed(&self.voters);
        let mut text = self.voters.describe(|id| acked.get(&id).copied());
        let mut check = |other: Index, how: &dyn Display| {
            if other != result {
                writeln!(text, "{} <-- {how}", IndexText(other)).expect("a string takes all text");
            }
        };
        if self.is_joint {
            check(committed(&swapped(&self.voters)), &"via symmetry");
        } else {
            let majority = &self.voters.incoming;
            check(plain_committed(majority, &acked), &"via alternative computation");
            check(committed(&joined(majority, &Majority::default())), &"via zero-joint quorum");
            check(committed(&joined(majority, majority)), &"via self-joint quorum");
            // What lies below the result already may lie anywhere below it.
            for (&id, &index) in acked.iter().filter(|(_, index)| **index < result) {
                for lower in [index - 1, Index(0)] {
                    let lowered = |of| if of == id { Some(lower) } else { acked.get(&of).copied() };
                    let other = majority.committed_index(lowered);
                    check(other, &format_args!("overlaying {id}->{lower}"));
                }
            }
        }
        text + &format!("{}\n", IndexText(result))
    }

    fn vote(&self) -> String {
        let cast: BTreeMap<NodeId, bool> = known(&self.named, &self.votes);
        let vote = |voters: &Joint| voters.vote_result(|id| cast.get(&id).copied());
        let (result, other) = (vote(&self.voters), vote(&swapped(&self.voters)));
        let mut text = String::new();
        if other != result {
            text = format!("{other} <-- via symmetry\n");
        }
        text + &format!("{result}\n")
    }
}

/// What was given for each id, unless it is unknown.
fn known<T: Copy>(ids: &[NodeId], values: &[Option<T>]) -> BTreeMap<NodeId, T> {
    ids.iter().zip(values).filter_map(|(id, value)| Some((*id, (*value)?))).collect()
}

fn swapped(voters: &Joint) -> Joint {
    joined(&voters.outgoing, &voters.incoming)
}

fn joined(incoming: &Majority, outgoing: &Majority) -> Joint {
    Joint { incoming: incoming.clone(), outgoing: outgoing.clone() }
}

/// The committed index by its definition: the highest that more than half have reached.
fn plain_committed(majority: &Majority, acked: &BTreeMap<NodeId, Index>) -> Index {
    let ids = majority.ids();
    if ids.is_empty() {
        return Index(u64::MAX);
    }
    let index = |id| acked.get(&id).copied().unwrap_or_default();
    let reached = |at: Index| 2 * ids.iter().filter(|id| at <= index(*id)).count() > ids.len();
    ids.iter().map(index).filter(|at| reached(*at)).max().unwrap_or_default()
}

fn unfit(key: &str, value: &str) -> FileErrorReason {
    FileErrorReason::Argument(format!("`{key}` cannot be `{value}`"))
}
