//! What figures are written to, in the text format that Prometheus reads.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use quorate_runtime::{BUCKETS, Histogram};

/// One page of figures.
pub(super) struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl<'a> Page<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Page { encoder }
    }

    pub(super) fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.encoder.encode_descriptor(name, help, None, kind)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.family(name, help, MetricType::Gauge)?)
    }

    /// Its name gets `_total` at its end.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.family(name, help, MetricType::Counter)?)
    }

    /// A counter of seconds. Its name gets `_total` at its end.
    pub(super) fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        ConstCounter::new(value).encode(self.family(name, help, MetricType::Counter)?)
    }

    pub(super) fn durations(
        &mut self,
        name: &str,
        help: &str,
        histogram: &Histogram,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Histogram)?;
        encode_durations(&mut family, histogram)
    }
}

/// `limit_us` says up to where a bucket but the last counts.
pub(super) fn encode_histogram(
    encoder: &mut MetricEncoder<'_>,
    sum_seconds: f64,
    counts: &[u64],
    limit_us: impl Fn(usize) -> u64,
) -> fmt::Result {
    let buckets: Vec<(f64, u64)> = counts
        .iter()
        .enumerate()
        .map(|(at, count)| match at + 1 == counts.len() {
            true => (f64::INFINITY, *count),
            false => (limit_us(at) as f64 / 1e6, *count),
        })
        .collect();
    encoder.encode_histogram::<NoLabelSet>(sum_seconds, counts.iter().sum(), &buckets, None)
}

pub(super) fn encode_durations(
    encoder: &mut MetricEncoder<'_>,
    histogram: &Histogram,
) -> fmt::Result {
    let (counts, sum_us): ([u64; BUCKETS], u64) = histogram.picture();
    encode_histogram(encoder, sum_us as f64 / 1e6, &counts, Histogram::limit_us)
}

/// OpenMetrics in the older text format: it has no end mark, and a counter has one name everywhere.
pub(super) fn in_version_0_0_4(text: &str) -> String {
    let mut older = String::with_capacity(text.len() + text.len() / 8);
    let counters: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    for line in text.lines().filter(|line| *line != "# EOF") {
        let described = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        match described.and_then(|rest| rest.split_once(' ')) {
            Some((name, rest)) if counters.contains(&name) => {
                older.push_str(&line[..7]);
                older.push_str(name);
                older.push_str("_total ");
                older.push_str(rest);
            }
            _ => older.push_str(line),
        }
        older.push('\n');
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_one_name_in_the_older_format() {
        let newer = "# HELP a b c.\n# TYPE a counter\na_total 1\n# HELP b_total x.\n# TYPE b_total \
                     gauge\nb_total 2\n# EOF\n";
        let older = "# HELP a_total b c.\n# TYPE a_total counter\na_total 1\n# HELP b_total x.\n# \
                     TYPE b_total gauge\nb_total 2\n";
        assert_eq!(in_version_0_0_4(newer), older);
    }
}
