//! The same load to clusters of several programs, in turn, several times; of each number the median.
//! The order turns with every repeat, so that no program always has the machine after the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use quorate_load::{Load, Progress, Work};
use serde::Serialize;

use crate::cluster::{Cluster, ClusterError, Ports, Program};

/// Between measurements: what a server does after its last answer is not to be the next one's cost.
const SETTLE: Duration = Duration::from_millis(300);

/// What is measured. Each measurement ends after so many requests or so long, whichever is first.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The programs; numbers of the first are divided by those of the second.
    pub programs: Vec<Program>,
    /// What the requests do.
    pub works: Vec<Work>,
    /// Clients, one measurement each.
    pub client_counts: Vec<u32>,
    /// Connections that the clients share, at most.
    pub connections_max: u32,
    /// Requests of one measurement, at most.
    pub request_count: u64,
    /// Length of one measurement, at most.
    pub duration_max: Duration,
    /// How often everything is measured.
    pub repeat_count: usize,
    /// Servers of a cluster.
    pub node_count: usize,
    /// Length of every value.
    pub value_bytes: usize,
    /// Number of different keys; all of them are put before anything is measured.
    pub key_count: u64,
    /// Ports are taken from here on.
    pub first_port: u16,
    /// Where the folders of the servers are made.
    pub folder: PathBuf,
}

#[cfg(test)]
impl Plan {
    /// A small one.
    pub(crate) fn example() -> Plan {
        Plan {
            programs: Vec::new(),
            works: vec![Work::Put],
            client_counts: vec![1, 64],
            connections_max: 1,
            request_count: 1,
            duration_max: Duration::ZERO,
            repeat_count: 3,
            node_count: 3,
            value_bytes: 1,
            key_count: 1,
            first_port: 1,
            folder: PathBuf::new(),
        }
    }
}

/// Why a comparison ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// A cluster did not start, or did not stay.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The numbers of the load do not fit together.
    #[error(transparent)]
    Plan(#[from] quorate_load::PlanError),
    /// A server took no connection.
    #[error(transparent)]
    Connect(#[from] quorate_load::ConnectError),
    /// Puts before the measurement failed.
    #[error("{program}: {count} of the puts before the measurement failed: {kind}")]
    Fill {
        /// The program.
        program: &'static str,
        /// How many failed.
        count: u64,
        /// How the first kind failed.
        kind: String,
    },
}

/// What was measured, by work and clients and program.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    cells: BTreeMap<(usize, usize, usize), Vec<Cell>>,
}

/// One measurement, or the medians of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cell {
    /// Answers per second.
    pub per_second: f64,
    /// Half of the answers took no longer.
    pub p50_ms: f64,
    /// 99 of 100 answers took no longer.
    pub p99_ms: f64,
    /// Processor time of all servers for 100,000 answers.
    pub cpu_seconds_per_100k: f64,
    /// Memory of all servers after the measurement.
    pub resident_mib: f64,
    /// Requests that failed.
    pub failed: f64,
}

/// The medians of one program under one load.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What the requests did.
    pub work: &'static str,
    /// How many clients there were.
    pub clients: u32,
    /// Which program answered.
    pub program: &'static str,
    /// How many measurements the medians are of.
    pub measurements: usize,
    /// The medians.
    #[serde(flatten)]
    pub median: Cell,
}

/// Measures; after each measurement says so on standard error. What was measured before an error is
/// kept in `comparison`.
///
/// # Errors
///
/// A cluster that does not start or does not stay, and numbers that do not fit together.
pub async fn run(plan: &Plan, comparison: &mut Comparison) -> Result<(), CompareError> {
    let mut ports = Ports::from(plan.first_port);
    for repeat in 0..plan.repeat_count {
        for turn in 0..plan.programs.len() {
            let number = (repeat + turn) % plan.programs.len();
            let program = &plan.programs[number];
            let node_count = plan.node_count;
            let mut cluster = Cluster::start(program, node_count, &mut ports, &plan.folder).await?;
            fill(plan, program.name, &cluster).await?;
            for (work_number, work) in plan.works.iter().enumerate() {
                for (clients_number, clients) in plan.client_counts.iter().enumerate() {
                    let cell = measure(plan, *work, *clients, &mut cluster).await?;
                    eprintln!(
                        "repeat {} of {}: {}, {}, {clients} clients: {:.0} per second, p99 {:.2} ms",
                        repeat + 1,
                        plan.repeat_count,
                        program.name,
                        name(*work),
                        cell.per_second,
                        cell.p99_ms,
                    );
                    let key = (work_number, clients_number, number);
                    comparison.cells.entry(key).or_default().push(cell);
                }
            }
        }
    }
    Ok(())
}

/// Puts every key, so that reads find something, and both programs are warm.
async fn fill(plan: &Plan, program: &'static str, cluster: &Cluster) -> Result<(), CompareError> {
    let load = Load { client_count: 64, request_count: plan.key_count, ..load(plan, Work::Fill) };
    let channels = quorate_load::connect(&cluster.endpoints(), 6).await?;
    let measured = quorate_load::run(&load, &channels, &Progress::default()).await?;
    match measured.failures.first_key_value() {
        None => Ok(()),
        Some((kind, _)) => Err(CompareError::Fill {
            program,
            count: measured.failed_count(),
            kind: kind.to_string(),
        }),
    }
}

async fn measure(
    plan: &Plan,
    work: Work,
    clients: u32,
    cluster: &mut Cluster,
) -> Result<Cell, CompareError> {
    let load = Load {
        client_count: clients,
        request_count: plan.request_count,
        duration_max: Some(plan.duration_max),
        ..load(plan, work)
    };
    let connections = plan.connections_max.min(clients);
    let channels = quorate_load::connect(&cluster.endpoints(), connections).await?;
    tokio::time::sleep(SETTLE).await;
    let before = cluster.usage()?;
    let measured = quorate_load::run(&load, &channels, &Progress::default()).await?;
    let used = cluster.usage()? - before;
    let answered = measured.answered_count();
    let quantile = |share| measured.latency.quantile(share).as_secs_f64() * 1e3;
    Ok(Cell {
        per_second: measured.rate(),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        cpu_seconds_per_100k: match answered {
            0 => 0.0,
            answered => used.cpu_seconds * 1e5 / answered as f64,
        },
        resident_mib: used.resident_bytes as f64 / f64::from(1 << 20),
        failed: measured.failed_count() as f64,
    })
}

fn load(plan: &Plan, work: Work) -> Load {
    Load { key_count: plan.key_count, value_bytes: plan.value_bytes, ..Load::new(work) }
}

impl Comparison {
    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The medians, by work, clients and program in the order of the plan.
    pub fn rows(&self, plan: &Plan) -> Vec<Row> {
        let row = |(&(work, clients, program), cells): (&(usize, usize, usize), &Vec<Cell>)| Row {
            work: name(plan.works[work]),
            clients: plan.client_counts[clients],
            program: plan.programs[program].name,
            measurements: cells.len(),
            median: Cell::median(cells),
        };
        self.cells.iter().map(row).collect()
    }

    /// The medians as a table; where two programs were measured, with the first divided by the
    /// second below them.
    pub fn table(&self, plan: &Plan) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_FULL_CONDENSED);
        table.set_header([
            "load",
            "clients",
            "program",
            "per second",
            "p50 ms",
            "p99 ms",
            "CPU s/100k",
            "RSS MiB",
            "failed",
        ]);
        let rows = self.rows(plan);
        for (number, row) in rows.iter().enumerate() {
            let same = |other: &&Row| other.work == row.work && other.clients == row.clients;
            let before = number.checked_sub(1).and_then(|before| rows.get(before)).filter(same);
            table.add_row(words(row.work, row.clients, row.program, row.median.figures()));
            if let [first, second] = &plan.programs[..]
                && let Some(before) = before
            {
                let ratio = format!("{}/{}", first.name, second.name);
                let figures = before.median.ratios(&row.median);
                table.add_row(words(row.work, row.clients, &ratio, figures));
            }
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }
}

impl Cell {
    /// The median of each number by itself.
    fn median(cells: &[Cell]) -> Cell {
        let median = |number: fn(&Cell) -> f64| {
            let mut numbers: Vec<f64> = cells.iter().map(number).collect();
            numbers.sort_by(f64::total_cmp);
            match numbers.len() {
                0 => 0.0,
                count if count % 2 == 1 => numbers[count / 2],
                count => (numbers[count / 2 - 1] + numbers[count / 2]) / 2.0,
            }
        };
        Cell {
            per_second: median(|cell| cell.per_second),
            p50_ms: median(|cell| cell.p50_ms),
            p99_ms: median(|cell| cell.p99_ms),
            cpu_seconds_per_100k: median(|cell| cell.cpu_seconds_per_100k),
            resident_mib: median(|cell| cell.resident_mib),
            failed: median(|cell| cell.failed),
        }
    }

    fn figures(&self) -> [String; 6] {
        [
            format!("{:.0}", self.per_second),
            format!("{:.2}", self.p50_ms),
            format!("{:.2}", self.p99_ms),
            format!("{:.2}", self.cpu_seconds_per_100k),
            format!("{:.0}", self.resident_mib),
            format!("{:.0}", self.failed),
        ]
    }

    fn ratios(&self, other: &Cell) -> [String; 6] {
        let ratio = |number: fn(&Cell) -> f64| match number(other) {
            0.0 => String::new(),
            below => format!("{:.2}", number(self) / below),
        };
        [
            ratio(|cell| cell.per_second),
            ratio(|cell| cell.p50_ms),
            ratio(|cell| cell.p99_ms),
            ratio(|cell| cell.cpu_seconds_per_100k),
            ratio(|cell| cell.resident_mib),
            String::new(),
        ]
    }
}

fn words(work: &str, clients: u32, program: &str, figures: [String; 6]) -> Vec<String> {
    let mut words = vec![work.to_owned(), clients.to_string(), program.to_owned()];
    words.extend(figures);
    words
}

fn name(work: Work) -> &'static str {
    match work {
        Work::Put => "put",
        Work::Fill => "put in turn",
        Work::Get { serializable: false } => "get",
        Work::Get { serializable: true } => "get serializable",
        Work::Mixed => "mixed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let program = |name| Program { name, path: PathBuf::new(), words: &[] };
        Plan { programs: vec![program("ours"), program("theirs")], ..Plan::example() }
    }

    #[test]
    fn medians_are_taken_number_by_number() {
        let cell = |per_second, p50_ms| Cell { per_second, p50_ms, ..Cell::default() };
        for (cells, want) in [
            (&[][..], (0.0, 0.0)),
            (&[cell(3.0, 1.0)], (3.0, 1.0)),
            (&[cell(3.0, 1.0), cell(1.0, 9.0), cell(2.0, 5.0)], (2.0, 5.0)),
            (&[cell(1.0, 1.0), cell(4.0, 2.0)], (2.5, 1.5)),
        ] {
            let median = Cell::median(cells);
            assert_eq!((median.per_second, median.p50_ms), want, "{cells:?}");
        }
    }

    #[test]
    fn a_ratio_stands_below_each_pair() {
        let cell = |per_second| Cell {
            per_second,
            p50_ms: 1.0,
            p99_ms: 2.0,
            cpu_seconds_per_100k: 0.0,
            resident_mib: 4.0,
            failed: 0.0,
        };
        let mut comparison = Comparison::default();
        comparison.cells.insert((0, 0, 0), vec![cell(300.0)]);
        comparison.cells.insert((0, 0, 1), vec![cell(200.0)]);
        // The run ended before the other program had its turn.
        comparison.cells.insert((0, 1, 0), vec![cell(900.0)]);
        let want = "\
+------+---------+-------------+------------+--------+--------+------------+---------+--------+
| load | clients | program     | per second | p50 ms | p99 ms | CPU s/100k | RSS MiB | failed |
+=============================================================================================+
| put  | 1       | ours        |        300 |   1.00 |   2.00 |       0.00 |       4 |      0 |
| put  | 1       | theirs      |        200 |   1.00 |   2.00 |       0.00 |       4 |      0 |
| put  | 1       | ours/theirs |       1.50 |   1.00 |   1.00 |            |    1.00 |        |
| put  | 64      | ours        |        900 |   1.00 |   2.00 |       0.00 |       4 |      0 |
+------+---------+-------------+------------+--------+--------+------------+---------+--------+";
        assert_eq!(comparison.table(&plan()), want);
    }
}
