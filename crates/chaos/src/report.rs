//! What came of a round, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use quorate_history::{
    Done, Final, History, Operation, Verdict, acknowledged_survive, linearizable, no_write_twice,
    revisions_never_go_back, serializable_reads,
};

use crate::clients::OBSERVER;
use crate::plan::Kind;

/// How often something was tried, and how often it showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Faults that struck.
    pub struck: u64,
    /// Those that met something: a process that ran, a connection, a sync.
    pub met: u64,
}

/// What came of a round, or of several.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Faults by kind.
    pub faults: BTreeMap<Kind, Counts>,
    /// Kinds that this machine does not let us try, and why.
    pub skipped: BTreeMap<Kind, String>,
    /// Requests that were answered.
    pub ok: u64,
    /// Requests that were certainly not done.
    pub refused: u64,
    /// Requests of which nobody knows.
    pub unknown: u64,
    /// Changes that watchers were told of.
    pub told: u64,
    /// Leases that were renewed, as often as they were.
    pub renewed: u64,
    /// Leases that ended by themselves.
    pub ended: u64,
    /// How often another member led than the last time somebody looked.
    pub leader_changes: u64,
    /// Members that ended by themselves because of their disk, or because they were removed.
    pub excused_ends: u64,
    /// Bytes that members sent each other.
    pub carried_bytes: u64,
    /// What is wrong; nothing if all is well.
    pub failures: Vec<String>,
    /// Where data and logs were left, if something is wrong.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Adds what came of another round.
    pub fn add(&mut self, other: Report) {
        for (kind, counts) in other.faults {
            let sum = self.faults.entry(kind).or_default();
            sum.struck += counts.struck;
            sum.met += counts.met;
        }
        self.skipped.extend(other.skipped);
        self.ok += other.ok;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.told += other.told;
        self.renewed += other.renewed;
        self.ended += other.ended;
        self.leader_changes += other.leader_changes;
        self.excused_ends += other.excused_ends;
        self.carried_bytes += other.carried_bytes;
        self.failures.extend(other.failures);
        self.kept = self.kept.take().or(other.kept);
    }

    /// What was not put to the test though it looks so: a run in which nothing happened has shown
    /// nothing.
    pub fn idle(&self) -> Vec<String> {
        let mut idle = Vec::new();
        if self.ok < 100 {
            idle.push(format!("only {} requests were answered", self.ok));
        }
        for (count, what) in
            [(self.told, "watchers were told nothing"), (self.renewed, "no lease was renewed")]
        {
            if count == 0 {
                idle.push(what.to_owned());
            }
        }
        if self.carried_bytes == 0 {
            idle.push("members did not talk through the proxies".to_owned());
        }
        if self.faults.values().all(|counts| counts.met == 0) {
            idle.push("no fault met anything".to_owned());
        }
        for (kind, counts) in &self.faults {
            if 3 <= counts.struck && counts.met == 0 {
                idle.push(format!("{kind} struck {} times and never met anything", counts.struck));
            }
        }
        idle
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ok, refused, unknown) = (self.ok, self.refused, self.unknown);
        writeln!(f, "operations      {ok} ok, {refused} refused, {unknown} unknown")?;
        let (told, renewed, ended) = (self.told, self.renewed, self.ended);
        writeln!(f, "watchers        told of {told} changes")?;
        writeln!(f, "leases          {renewed} times renewed, {ended} ended by themselves")?;
        writeln!(f, "leader changes  {} seen", self.leader_changes)?;
        writeln!(f, "ended by itself {} times, with a reason", self.excused_ends)?;
        writeln!(f, "between members {} KiB", self.carried_bytes >> 10)?;
        for (kind, Counts { struck, met }) in &self.faults {
            writeln!(f, "{kind:<15} {struck} struck, {met} met something")?;
        }
        for (kind, why) in &self.skipped {
            writeln!(f, "{kind:<15} skipped: {why}")?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILED: {failure}")?;
        }
        if let Some(kept) = &self.kept {
            writeln!(f, "kept in {}", kept.display())?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a history, with the reads of the observers at its end as what each
/// member holds. Undecided counts.
pub fn judge(history: &History) -> Vec<String> {
    let mut failures = Vec::new();
    match linearizable(history) {
        Verdict::Linearizable => {}
        Verdict::Violated(violation) => failures.push(format!("not linearizable: {violation}")),
        Verdict::Undecided { work } => {
            failures.push(format!("no verdict after {work} steps, so nothing was shown"));
        }
    }
    for (promise, kept) in [
        ("a write happened twice", no_write_twice(history)),
        ("a client went back", revisions_never_go_back(history)),
        ("a read of one member", serializable_reads(history)),
    ] {
        failures.extend(kept.err().map(|violation| format!("{promise}: {violation}")));
    }
    let finals = ends(history);
    for end in &finals {
        let kept = acknowledged_survive(history, end);
        failures.extend(kept.err().map(|violation| violation.to_string()));
    }
    for pair in finals.windows(2) {
        if pair[0].revision != pair[1].revision || pair[0].items != pair[1].items {
            failures.push(format!("{} and {} differ at the end", pair[0].member, pair[1].member));
        }
    }
    failures
}

/// What the members held at the end, as those who looked saw it.
pub(crate) fn ends(history: &History) -> Vec<Final> {
    history.operations.iter().filter_map(end).collect()
}

fn end(operation: &Operation) -> Option<Final> {
    let (_, response) = operation.answer()?;
    let (true, true, [Done::Found { items }]) =
        (OBSERVER <= operation.client, operation.request.serializable, &*response.done)
    else {
        return None;
    };
    let member = format!("n{}", operation.client - OBSERVER + 1);
    Some(Final { member, revision: response.revision?, items: items.clone() })
}
