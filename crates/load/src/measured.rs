//! What came of a load: how many answers, how fast, and what went wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use quorate_proto::tonic::{Code, Status};

/// Latencies above this are recorded as this.
const LATENCY_MAX: Duration = Duration::from_secs(120);
/// Three figures of each latency are kept.
const FIGURES: u8 = 3;
/// Different failures told apart; more are counted together.
const FAILURE_KINDS_MAX: usize = 32;
/// Of what a server says about a failure, this much is kept.
const REASON_CHARS_MAX: usize = 160;

/// The latencies of answered requests, in a histogram of fixed size.
#[derive(Clone, Debug)]
pub struct Latency {
    micros: Histogram<u64>,
}

impl Latency {
    pub(crate) fn new() -> Latency {
        let highest = LATENCY_MAX.as_micros() as u64;
        let micros = Histogram::new_with_bounds(1, highest, FIGURES);
        Latency { micros: micros.expect("the bounds are in order and the figures few") }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.micros.saturating_record(latency.as_micros().max(1) as u64);
    }

    pub(crate) fn merge(&mut self, other: &Latency) {
        self.micros.add(&other.micros).expect("all histograms have the same bounds");
    }

    /// Number of latencies.
    pub fn count(&self) -> u64 {
        self.micros.len()
    }

    /// The latency that this share (0 to 1) of requests stays within, to three figures.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.micros.value_at_quantile(share))
    }

    /// The mean latency.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos((self.micros.mean() * 1e3) as u64)
    }

    /// The largest latency.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.micros.max())
    }
}

/// One kind of failure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No answer within the request's time.
    NoAnswer,
    /// An error of the server or of the connection to it.
    Refused {
        /// The gRPC code as it is spelled in error messages.
        code: String,
        /// What was said about it, shortened.
        reason: String,
    },
    /// Failures past the number of kinds that are told apart.
    Other,
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Failure {
        let mut reason: String = status.message().chars().take(REASON_CHARS_MAX).collect();
        // What the transport says names streams and ports, which would make each a kind of its own.
        if matches!(status.code(), Code::Unknown | Code::Unavailable | Code::Internal)
            && std::error::Error::source(status).is_some()
        {
            reason = "the connection is broken".to_owned();
        }
        Failure::Refused { code: format!("{:?}", status.code()), reason }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::NoAnswer => f.write_str("no answer in time"),
            Failure::Refused { code, reason } => write!(f, "{code}: {reason}"),
            Failure::Other => f.write_str("other failures"),
        }
    }
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From the first request to the last answer.
    pub wall: Duration,
    /// Latencies of the requests that were answered.
    pub latency: Latency,
    /// Of the answered reads, those that found their key. 0 for writes.
    pub found_count: u64,
    /// The requests that failed, by kind.
    pub failures: BTreeMap<Failure, u64>,
    /// Whether it ended early because nothing was answered any more.
    pub given_up: bool,
}

impl Measured {
    pub(crate) fn new() -> Measured {
        Measured {
            wall: Duration::ZERO,
            latency: Latency::new(),
            found_count: 0,
            failures: BTreeMap::new(),
            given_up: false,
        }
    }

    /// Requests that were answered.
    pub fn answered_count(&self) -> u64 {
        self.latency.count()
    }

    /// Requests that failed.
    pub fn failed_count(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Answered requests per second.
    pub fn rate(&self) -> f64 {
        let seconds = self.wall.as_secs_f64();
        if seconds == 0.0 { 0.0 } else { self.answered_count() as f64 / seconds }
    }

    pub(crate) fn count_failure(&mut self, failure: Failure, count: u64) {
        let known = self.failures.contains_key(&failure);
        let full = FAILURE_KINDS_MAX <= self.failures.len();
        let kind = if known || !full { failure } else { Failure::Other };
        *self.failures.entry(kind).or_default() += count;
    }

    pub(crate) fn merge(&mut self, other: Measured) {
        self.latency.merge(&other.latency);
        self.found_count += other.found_count;
        for (failure, count) in other.failures {
            self.count_failure(failure, count);
        }
    }
}
