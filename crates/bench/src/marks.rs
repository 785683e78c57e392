//! What a table of loads does not show: what it costs to tell watchers, what many keys take in memory,
//! how soon a member that was killed is back with them, and how soon others take over when the one
//! that was killed led. Each program has its turn at each.

use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use quorate_load::{Load, Progress, Work};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest};
use quorate_proto::tonic::transport::Channel;
use quorate_proto::tonic::{Status, Streaming};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, ClusterError, Ports, Program};
use crate::compare::{CompareError, Plan, Row};

/// Watchers share a stream, as those of one client do.
const WATCHERS_PER_STREAM: u32 = 100;
/// After a kill, the others are asked again so soon; nobody answers for most of the time.
const ASK_AGAIN: Duration = Duration::from_millis(2);
/// One try of a put while nobody leads, and the longest that leadership may take to come back.
const TRY_MAX: Duration = Duration::from_millis(100);
const FAILOVER_MAX: Duration = Duration::from_secs(60);
/// Between two kills: the member that came back has caught up, and timers have run.
const CALM: Duration = Duration::from_secs(3);
/// What a server does after a million puts, beside nothing, is over by then.
const AFTER_FILL: Duration = Duration::from_secs(10);
const MIB: f64 = (1_u32 << 20) as f64;

/// How much of each is done.
#[derive(Clone, Copy, Debug)]
pub struct MarksPlan {
    /// Watchers of one key.
    pub watcher_count: u32,
    /// Puts of that key, each told to all of them.
    pub watched_put_count: u64,
    /// Keys whose memory is measured, and with which a member starts again.
    pub key_count: u64,
    /// Restarts of a member with them; the median counts.
    pub restart_count: usize,
    /// Leaders killed.
    pub failover_count: usize,
}

/// What all servers of one program came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// The program.
    pub program: &'static str,
    /// Processor time of all servers for one event told to one watcher.
    pub watch_cpu_us_per_event: Option<f64>,
    /// Events that all watchers were told in a second, while one client put.
    pub watch_events_per_second: Option<f64>,
    /// Memory of one server with the keys, in the mean.
    pub resident_mib: Option<f64>,
    /// From the start of a killed member's process to its first linearizable read.
    pub restart_seconds: Option<f64>,
    /// From the kill of a leader to the first acknowledged put, of each repeat.
    pub failover_seconds: Vec<f64>,
}

/// Why a figure is missing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MarksError {
    /// The same as of the loads.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// A call that has to work did not.
    #[error("{what} failed: {status}")]
    Call {
        /// What was asked.
        what: &'static str,
        /// What came of it.
        status: Box<Status>,
    },
    /// A stream ended, or told something else than asked for.
    #[error("a watcher was told {told} of {wanted} events")]
    Watch {
        /// How many came.
        told: u64,
        /// How many there were.
        wanted: u64,
    },
    /// Nobody took over.
    #[error("{program}: no put was acknowledged {FAILOVER_MAX:?} after the leader was killed")]
    NoFailover {
        /// The program.
        program: &'static str,
    },
}

impl From<ClusterError> for MarksError {
    fn from(error: ClusterError) -> Self {
        MarksError::Compare(error.into())
    }
}

/// Measures; after each figure says so on standard error. Those from before an error are kept.
///
/// # Errors
///
/// A cluster that does not start or stay, and calls that fail where they must not.
pub async fn run(
    plan: &Plan,
    marks: &MarksPlan,
    figures: &mut Vec<Figures>,
) -> Result<(), MarksError> {
    let mut ports = Ports::from(plan.first_port);
    *figures = unmeasured(plan);
    for (program, figures) in plan.programs.iter().zip(&mut *figures) {
        let mut cluster =
            Cluster::start(program, plan.node_count, &mut ports, &plan.folder).await?;
        watch(marks, &mut cluster, figures).await?;
        say(program.name, "watchers", figures.watch_cpu_us_per_event, "us of CPU an event");
        fail_over(marks.failover_count, &mut cluster, figures).await?;
    }
    for (program, figures) in plan.programs.iter().zip(&mut *figures) {
        let mut cluster =
            Cluster::start(program, plan.node_count, &mut ports, &plan.folder).await?;
        fill(plan, marks, &cluster, program.name).await?;
        let resident = cluster.usage()?.resident_bytes as f64 / MIB;
        figures.resident_mib = Some(resident / plan.node_count as f64);
        say(program.name, "memory", figures.resident_mib, "MiB a server");
        let mut restarts = Vec::new();
        for number in 0..marks.restart_count {
            // Not the leader: how soon another one leads is measured above.
            let node = (cluster.leader().await? + 1 + number) % plan.node_count;
            cluster.kill(node);
            let seconds = cluster.revive(node).await?.as_secs_f64();
            say(program.name, "restart", Some(seconds), "s");
            restarts.push(seconds);
            cluster.settled().await?;
        }
        figures.restart_seconds = median(&mut restarts);
    }
    Ok(())
}

/// Measures failovers alone, so many of each program.
///
/// # Errors
///
/// As of [`run`].
pub async fn failovers(
    plan: &Plan,
    count: usize,
    figures: &mut Vec<Figures>,
) -> Result<(), MarksError> {
    let mut ports = Ports::from(plan.first_port);
    *figures = unmeasured(plan);
    for (program, figures) in plan.programs.iter().zip(figures) {
        let mut cluster =
            Cluster::start(program, plan.node_count, &mut ports, &plan.folder).await?;
        fail_over(count, &mut cluster, figures).await?;
    }
    Ok(())
}

fn unmeasured(plan: &Plan) -> Vec<Figures> {
    let figures = |program: &Program| Figures { program: program.name, ..Figures::default() };
    plan.programs.iter().map(figures).collect()
}

async fn fail_over(
    count: usize,
    cluster: &mut Cluster,
    figures: &mut Figures,
) -> Result<(), MarksError> {
    let program = figures.program;
    for number in 0..count {
        let seconds = failover(cluster, program).await?;
        say(program, &format!("failover {}", number + 1), Some(seconds), "s");
        figures.failover_seconds.push(seconds);
    }
    Ok(())
}

fn say(program: &str, what: &str, value: Option<f64>, unit: &str) {
    eprintln!("{program}, {what}: {:.3} {unit}", value.unwrap_or(f64::NAN));
}

/// Many watchers of one key, which is put again and again by one client.
async fn watch(
    marks: &MarksPlan,
    cluster: &mut Cluster,
    figures: &mut Figures,
) -> Result<(), MarksError> {
    let wanted = marks.watched_put_count;
    let stream_count = marks.watcher_count.div_ceil(WATCHERS_PER_STREAM);
    let channels = connect(cluster, stream_count).await?;
    let mut streams = JoinSet::new();
    let (ready, mut are_ready) = mpsc::channel(1);
    for (number, channel) in (0..stream_count).zip(channels) {
        let left = marks.watcher_count - number * WATCHERS_PER_STREAM;
        let count = left.min(WATCHERS_PER_STREAM);
        streams.spawn(listen(channel, count, wanted * u64::from(count), ready.clone()));
    }
    // Those that are ready, and those that failed, drop their ends: what went wrong is told below.
    drop(ready);
    for _ in 0..stream_count {
        if are_ready.recv().await.is_none() {
            break;
        }
    }
    let mut kv = KvClient::new(connect(cluster, 1).await?.remove(0));
    let before = cluster.usage()?;
    let begun = Instant::now();
    for _ in 0..wanted {
        put(&mut kv, "watched").await?;
    }
    while let Some(ended) = streams.join_next().await {
        ended.unwrap_or(Err(MarksError::Watch { told: 0, wanted }))?;
    }
    let wall = begun.elapsed().as_secs_f64();
    let used = cluster.usage()? - before;
    let events = wanted as f64 * f64::from(marks.watcher_count);
    figures.watch_cpu_us_per_event = Some(used.cpu_seconds * 1e6 / events);
    figures.watch_events_per_second = Some(events / wall);
    Ok(())
}

/// Watchers on one stream, until they have been told everything.
async fn listen(
    channel: Channel,
    count: u32,
    wanted: u64,
    ready: mpsc::Sender<()>,
) -> Result<(), MarksError> {
    let failed = |status| MarksError::Call { what: "a watch stream", status: Box::new(status) };
    let (requests, outgoing) = mpsc::channel(1);
    let mut client = WatchClient::new(channel);
    let asked = tokio::spawn(async move {
        for _ in 0..count {
            let create =
                WatchCreateRequest { key: "watched".into(), ..WatchCreateRequest::default() };
            let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            if requests.send(create).await.is_err() {
                break;
            }
        }
        requests // the stream is open as long as it is kept
    });
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut told: Streaming<_> = client.watch(outgoing).await.map_err(failed)?.into_inner();
    let (mut created, mut events) = (0, 0);
    let mut ready = Some(ready);
    while events < wanted {
        let Some(response) = told.message().await.map_err(failed)? else {
            return Err(MarksError::Watch { told: events, wanted });
        };
        if response.created {
            created += 1;
            if created == count
                && let Some(ready) = ready.take()
            {
                let _ = ready.send(()).await;
            }
        }
        events += response.events.len() as u64;
    }
    drop(asked);
    Ok(())
}

async fn fill(
    plan: &Plan,
    marks: &MarksPlan,
    cluster: &Cluster,
    program: &'static str,
) -> Result<(), MarksError> {
    let load = Load {
        client_count: 256,
        request_count: marks.key_count,
        key_count: marks.key_count.max(1),
        value_bytes: plan.value_bytes,
        ..Load::new(Work::Fill)
    };
    let channels = connect(cluster, plan.connections_max).await?;
    let measured = quorate_load::run(&load, &channels, &Progress::default()).await;
    let measured = measured.map_err(CompareError::from)?;
    if let Some((kind, _)) = measured.failures.first_key_value() {
        let (count, kind) = (measured.failed_count(), kind.to_string());
        return Err(CompareError::Fill { program, count, kind }.into());
    }
    tokio::time::sleep(AFTER_FILL).await;
    Ok(())
}

/// Kills the leader, and measures until another acknowledges a put that began after that.
async fn failover(cluster: &mut Cluster, program: &'static str) -> Result<f64, MarksError> {
    tokio::time::sleep(CALM).await;
    let leader = cluster.leader().await?;
    let others = cluster.endpoints();
    let others = others.into_iter().enumerate().filter(|(number, _)| *number != leader);
    let mut clients: Vec<_> = others
        .map(|(_, endpoint)| KvClient::new(endpoint.timeout(TRY_MAX).connect_lazy()))
        .collect();
    // Each has its connection, and the member that was killed last does not slow the others down.
    for client in &mut clients {
        let connected = async {
            while put(client, "before").await.is_err() {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        let connected = tokio::time::timeout(FAILOVER_MAX, connected).await;
        connected.map_err(|_| MarksError::NoFailover { program })?;
    }
    cluster.kill(leader);
    let killed = Instant::now();
    // Each of the others is asked all the time; the first answer counts.
    let mut asking = JoinSet::new();
    for mut client in clients {
        asking.spawn(async move {
            while put(&mut client, "after").await.is_err() {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            killed.elapsed()
        });
    }
    let first = tokio::time::timeout(FAILOVER_MAX, asking.join_next()).await;
    asking.shutdown().await;
    let Ok(Some(Ok(took))) = first else { return Err(MarksError::NoFailover { program }) };
    cluster.revive(leader).await?;
    cluster.settled().await?;
    Ok(took.as_secs_f64())
}

async fn put(client: &mut KvClient<Channel>, key: &'static str) -> Result<(), MarksError> {
    let put = PutRequest { key: key.into(), value: vec![7; 64].into(), ..PutRequest::default() };
    let answered = client.put(put).await;
    answered
        .map(drop)
        .map_err(|status| MarksError::Call { what: "a put", status: Box::new(status) })
}

async fn connect(cluster: &Cluster, count: u32) -> Result<Vec<Channel>, MarksError> {
    let connected = quorate_load::connect(&cluster.endpoints(), count).await;
    Ok(connected.map_err(CompareError::from)?)
}

fn median(numbers: &mut [f64]) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let (lower, upper) = (numbers.len().checked_sub(1)? / 2, numbers.len() / 2);
    Some((numbers[lower] + numbers[upper]) / 2.0)
}

/// What is to be reached, of the first program's number divided by the second's.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Goal {
    AtMost(f64),
    AtLeast(f64),
    None,
}

/// All marks as a table, those of the loads too: the first program beside the second, what it is to
/// reach, and whether it does.
pub fn table(plan: &Plan, rows: &[Row], figures: &[Figures]) -> String {
    let names: Vec<&str> = plan.programs.iter().map(|program| program.name).collect();
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED);
    let mut header = vec!["mark"];
    header.extend(&names);
    header.extend(["ratio", "goal", ""]);
    table.set_header(header);
    for (mark, goal, values) in marks(&names, rows, figures) {
        let mut cells = vec![mark];
        cells.extend(values.iter().map(|value| value.map_or(String::new(), number)));
        let ratio = match values[..] {
            [Some(first), Some(second)] if 0.0 < second => Some(first / second),
            _ => None,
        };
        cells.push(ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")));
        let (wanted, is_met) = match goal {
            Goal::AtMost(most) => (format!("<= {most:.2}"), ratio.map(|ratio| ratio <= most)),
            Goal::AtLeast(least) => (format!(">= {least:.2}"), ratio.map(|ratio| least <= ratio)),
            Goal::None => (String::new(), None),
        };
        cells.push(wanted);
        let word = |is_met| if is_met { "yes" } else { "no" };
        cells.push(is_met.map_or("", word).to_owned());
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1).take(names.len() + 2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// How soon there were writes again after a leader was killed, as a table.
pub fn failover_table(figures: &[Figures]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED);
    table.set_header(["leader killed", "times", "median s", "slowest s"]);
    for figures in figures {
        let seconds = &figures.failover_seconds;
        let told = |value: Option<f64>| value.map_or(String::new(), number);
        table.add_row([
            figures.program.to_owned(),
            seconds.len().to_string(),
            told(median(&mut seconds.clone())),
            told(seconds.iter().copied().max_by(f64::total_cmp)),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn number(value: f64) -> String {
    if value < 10.0 { format!("{value:.3}") } else { format!("{value:.1}") }
}

/// Every mark: its name, what is to be reached, and the number of each program.
fn marks(
    names: &[&str],
    rows: &[Row],
    figures: &[Figures],
) -> Vec<(String, Goal, Vec<Option<f64>>)> {
    let most_clients = rows.iter().map(|row| row.clients).max().unwrap_or(0);
    let of_load = |work: &str, clients: u32, value: fn(&Row) -> f64| -> Vec<Option<f64>> {
        let row = |name: &&str| {
            rows.iter()
                .find(|row| row.work == work && row.clients == clients && row.program == *name)
        };
        names.iter().map(|name| row(name).map(value)).collect()
    };
    let of_figures = |value: fn(&Figures) -> Option<f64>| -> Vec<Option<f64>> {
        let its = |name: &&str| figures.iter().find(|figures| figures.program == *name);
        names.iter().map(|name| its(name).and_then(value)).collect()
    };
    let cpu = |row: &Row| row.median.cpu_seconds_per_100k;
    let failover = |figures: &Figures| median(&mut figures.failover_seconds.clone());
    let slowest =
        |figures: &Figures| figures.failover_seconds.iter().copied().max_by(f64::total_cmp);
    let with = |what: &str| format!("{what}, {most_clients} clients");
    vec![
        (with("put: CPU s/100k"), Goal::AtMost(0.40), of_load("put", most_clients, cpu)),
        (
            with("put: per second"),
            Goal::AtLeast(2.0),
            of_load("put", most_clients, |row| row.median.per_second),
        ),
        (with("get: CPU s/100k"), Goal::AtMost(0.40), of_load("get", most_clients, cpu)),
        (
            with("get serializable: CPU s/100k"),
            Goal::AtMost(0.50),
            of_load("get serializable", most_clients, cpu),
        ),
        (
            "put: p50 ms, 1 client".to_owned(),
            Goal::AtMost(0.60),
            of_load("put", 1, |row| row.median.p50_ms),
        ),
        (
            "get: p50 ms, 1 client".to_owned(),
            Goal::AtMost(0.60),
            of_load("get", 1, |row| row.median.p50_ms),
        ),
        (
            "watch: CPU us/event".to_owned(),
            Goal::AtMost(0.40),
            of_figures(|figures| figures.watch_cpu_us_per_event),
        ),
        (
            "watch: events per second".to_owned(),
            Goal::None,
            of_figures(|figures| figures.watch_events_per_second),
        ),
        (
            "many keys: RSS MiB a server".to_owned(),
            Goal::AtMost(0.65),
            of_figures(|figures| figures.resident_mib),
        ),
        (
            "many keys: restart s".to_owned(),
            Goal::AtMost(0.25),
            of_figures(|figures| figures.restart_seconds),
        ),
        ("failover: median s".to_owned(), Goal::None, of_figures(failover)),
        ("failover: slowest s".to_owned(), Goal::None, of_figures(slowest)),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::compare::Cell;

    #[test]
    fn marks_stand_beside_what_is_to_be_reached() {
        let programs: Vec<Program> = ["ours", "theirs"]
            .map(|name| Program { name, path: PathBuf::new(), words: &[] })
            .into();
        let row = |program, per_second, cpu_seconds_per_100k| Row {
            work: "put",
            clients: 256,
            program,
            measurements: 1,
            median: Cell { per_second, cpu_seconds_per_100k, ..Cell::default() },
        };
        let rows = [row("ours", 300.0, 1.0), row("theirs", 200.0, 4.0)];
        let figures = [
            Figures {
                program: "ours",
                resident_mib: Some(70.0),
                failover_seconds: vec![3.0, 1.0, 2.0],
                ..Figures::default()
            },
            Figures { program: "theirs", resident_mib: Some(100.0), ..Figures::default() },
        ];
        let plan = Plan { programs, ..Plan::example() };
        let told: Vec<Vec<String>> = table(&plan, &rows, &figures)
            .lines()
            .filter(|line| line.starts_with("| "))
            .map(|line| line.trim_matches('|').split('|').map(|it| it.trim().to_owned()).collect())
            .collect();
        let find = |mark: &str| told.iter().find(|row| row[0] == mark).unwrap()[1..].join(" ");
        for (mark, want) in [
            ("mark", "ours theirs ratio goal "),
            ("put: CPU s/100k, 256 clients", "1.000 4.000 0.25 <= 0.40 yes"),
            ("put: per second, 256 clients", "300.0 200.0 1.50 >= 2.00 no"),
            ("many keys: RSS MiB a server", "70.0 100.0 0.70 <= 0.65 no"),
            // Not measured, or of one alone.
            ("watch: CPU us/event", "   <= 0.40 "),
            ("failover: median s", "2.000    "),
            ("failover: slowest s", "3.000    "),
        ] {
            assert_eq!(find(mark), want, "{mark}");
        }
    }

    #[test]
    fn failovers_are_told_by_program() {
        let figures = [("ours", vec![3.0, 1.0, 2.0]), ("theirs", vec![])].map(
            |(program, failover_seconds)| Figures {
                program,
                failover_seconds,
                ..Figures::default()
            },
        );
        let want = "\
+---------------+-------+----------+-----------+
| leader killed | times | median s | slowest s |
+==============================================+
| ours          |     3 |    2.000 |     3.000 |
| theirs        |     0 |          |           |
+---------------+-------+----------+-----------+";
        assert_eq!(failover_table(&figures), want);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        for (numbers, want) in [
            (&mut [][..], None),
            (&mut [5.0], Some(5.0)),
            (&mut [9.0, 1.0], Some(5.0)),
            (&mut [9.0, 1.0, 2.0], Some(2.0)),
        ] {
            assert_eq!(median(numbers), want);
        }
    }
}
