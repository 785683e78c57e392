//! One round: a fresh cluster, clients, the faults of a plan, and the end that has to be well.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_history::{Done, Request, Response};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::chance::Chance;
use crate::clients::{Client, OBSERVER, PROBE, Recorder};
use crate::cluster::{Cluster, ClusterError, Member, Run, failed};
use crate::disk::Volume;
use crate::plan::{Engine, Fault, Kind, Plan, Strike, Whom};
use crate::proxy::{Lines, Way};
use crate::report::{Report, ends, judge};
use crate::syncs::{Library, Syncs};
use crate::told::Told;
use crate::{holders, watchers};

/// What must happen once enough is healed happens within this time, on a slow and shared machine too.
const PROGRESS_LIMIT: Duration = Duration::from_secs(45);
/// Between two looks at the processes.
const TEND_INTERVAL: Duration = Duration::from_millis(50);
/// Between two steps of a replacement.
const CHANGE_INTERVAL: Duration = Duration::from_millis(200);
/// More than a member needs for a log, its next segment and its state, and quick to fill.
const VOLUME_MIB: u32 = 288;
/// A member that ended by itself so often, for no reason that it was given, will not come up.
const ENDS_MAX: u64 = 5;
/// Clients that watch, and those that hold leases.
const WATCHERS: u64 = 3;
const HOLDERS: i64 = 3;
/// Keys of all clients are in between.
const ALL_KEYS: (&str, &str) = ("\0", "~");

/// Where and with what rounds are run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `quorate` program.
    pub program: PathBuf,
    /// Where folders for the members are made.
    pub parent: PathBuf,
    /// What the members run.
    pub engine: Engine,
}

/// A round under way.
pub struct Round {
    plan: Plan,
    chance: Chance,
    cluster: Cluster,
    recorder: Arc<Recorder>,
    report: Report,
    /// Line faults that last, by the number of their strike.
    line_faults: Vec<(usize, LineFault)>,
    /// How often lines were healed with their connections ended.
    era: u64,
    last_leader: Option<usize>,
    begun: Vec<Begun>,
    unexcused_ends: u64,
    /// When a replacement made its last step.
    changed: Instant,
}

/// A fault on lines, with those it hit.
#[derive(Clone, Debug)]
struct LineFault {
    fault: Fault,
    hit: Vec<usize>,
    /// The other end of a partial cut.
    other: Option<usize>,
}

/// What has to be undone when a strike ends.
struct Begun {
    strike: usize,
    kind: Kind,
    hit: Vec<usize>,
    line_hits: u64,
    client_hits: u64,
    sync_hits: u64,
}

impl Round {
    /// Runs a round to its end. `progress` hears how far it has come.
    ///
    /// # Errors
    ///
    /// The cluster could not be set up. What goes wrong later is in the report.
    pub async fn run(
        settings: &Settings,
        plan: Plan,
        progress: impl Fn(Duration),
    ) -> Result<Report, ClusterError> {
        let folder = TempDir::with_prefix_in("quorate-chaos-", &settings.parent)
            .map_err(failed("make a folder in", &settings.parent))?;
        let mut round = Round::prepare(settings, plan, folder.path()).await?;
        if let Err(why) = round.play(&progress).await {
            round.fail(why);
        }
        let mut report = round.close(folder.path());
        if !report.failures.is_empty() {
            report.kept = Some(folder.keep());
        }
        Ok(report)
    }

    async fn prepare(
        settings: &Settings,
        mut plan: Plan,
        folder: &Path,
    ) -> Result<Round, ClusterError> {
        let mut report = Report::default();
        let needs = |kinds: &[Kind]| plan.kinds.iter().any(|kind| kinds.contains(kind));
        let mut library = None;
        if needs(&[Kind::FailSync, Kind::SlowSync]) {
            match Library::compile(folder) {
                Ok(compiled) => library = Some(compiled),
                Err(why) => {
                    report.skipped.insert(Kind::FailSync, why.clone());
                    report.skipped.insert(Kind::SlowSync, why);
                }
            }
        }
        let (needs_volumes, cuts_clients) = (needs(&[Kind::FullDisk]), needs(&[Kind::CutClients]));
        let Plan { members, snapshot_count, .. } = plan;
        let run =
            Run { program: settings.program.clone(), engine: settings.engine, snapshot_count };
        let mut cluster = Cluster::prepare(run, folder, members, library, cuts_clients).await?;
        for at in 0..plan.members {
            if needs_volumes {
                match Volume::mount(&cluster.data_folder(at), VOLUME_MIB) {
                    Ok(volume) => cluster.members[at].volume = Some(volume),
                    Err(why) => drop(report.skipped.insert(Kind::FullDisk, why)),
                }
            }
            cluster.start(at)?;
        }
        let both = |it: &Member| [it.channel.clone(), it.patient_channel.clone()];
        let channels = cluster.members.iter().map(both).collect();
        let recorder = Arc::new(Recorder::new(channels));
        plan.strikes.retain(|strike| !report.skipped.contains_key(&strike.fault.kind));
        let chance = Chance::new(plan.seed ^ 0xc4a05);
        let (line_faults, begun) = (Vec::new(), Vec::new());
        Ok(Round {
            plan,
            chance,
            cluster,
            recorder,
            report,
            line_faults,
            era: 0,
            last_leader: None,
            begun,
            unexcused_ends: 0,
            changed: Instant::now(),
        })
    }

    async fn play(&mut self, progress: &impl Fn(Duration)) -> Result<(), String> {
        let everybody: Vec<usize> = (0..self.plan.members).collect();
        self.goes_on(&everybody, "after the start").await?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for number in 0..self.plan.clients as u64 {
            let client = Client { number, keys: self.plan.keys, think: self.plan.think };
            let chance = Chance::new(self.plan.seed.wrapping_mul(1000).wrapping_add(number));
            clients.spawn(client.work(Arc::clone(&self.recorder), chance, Arc::clone(&stop)));
        }
        let others = self.plan.seed.wrapping_mul(2000);
        let channels = self.recorder.channels();
        // How far all is to be told is known at the end.
        let until = Arc::new(AtomicU64::new(u64::MAX));
        let mut watchers = JoinSet::new();
        for number in 0..WATCHERS {
            let chance = Chance::new(others.wrapping_add(number));
            watchers.spawn(watchers::watch(channels.clone(), chance, Arc::clone(&until)));
        }
        let mut holders = JoinSet::new();
        for number in 1..=HOLDERS {
            let chance = Chance::new(others.wrapping_add(1000 + number.unsigned_abs()));
            holders.spawn(holders::hold(number, channels.clone(), chance, Arc::clone(&stop)));
        }
        self.strike_all(progress).await?;
        self.last_stand().await?;
        stop.store(true, Ordering::Relaxed);
        while let Some(ended) = clients.join_next().await {
            ended.map_err(|error| format!("a client of this program failed: {error}"))?;
        }
        while let Some(ended) = holders.join_next().await {
            let held = ended.map_err(|error| format!("a holder of leases failed: {error}"))?;
            self.report.renewed += held.renewed;
            self.report.ended += held.ended;
            self.report.failures.extend(held.wrong);
        }
        for at in 0..self.plan.members {
            self.cluster.kill(at);
        }
        self.goes_on(&everybody, "after all were killed").await?;
        self.all_equal().await?;
        self.all_told(watchers, &until).await?;
        self.leases_end().await
    }

    /// Lets every fault of the plan begin and end at its time.
    async fn strike_all(&mut self, progress: &impl Fn(Duration)) -> Result<(), String> {
        let strikes = self.plan.strikes.clone();
        let mut moments: Vec<(Duration, bool, usize)> = Vec::new();
        for (number, Strike { at, lasts, .. }) in strikes.iter().enumerate() {
            moments.push((*at, true, number));
            moments.push((*at + *lasts, false, number));
        }
        moments.sort_unstable();
        let begun = Instant::now();
        for (at, begins, number) in moments {
            while begun.elapsed() < at {
                progress(begun.elapsed().min(self.plan.length));
                self.tend().await?;
                let left = at.saturating_sub(begun.elapsed());
                tokio::time::sleep(left.min(TEND_INTERVAL)).await;
            }
            if begins {
                self.begin(number, strikes[number].fault).await;
            } else {
                self.end(number);
            }
        }
        Ok(())
    }

    /// A minority stays broken for good; the others have to go on without it. Then all is healed.
    async fn last_stand(&mut self) -> Result<(), String> {
        while let Some(begun) = self.begun.last() {
            let strike = begun.strike;
            self.end(strike);
        }
        let healed = Instant::now();
        while self.cluster.is_changing() {
            if PROGRESS_LIMIT < healed.elapsed() {
                return Err(format!("a member cannot be replaced within {PROGRESS_LIMIT:?}"));
            }
            self.tend().await?;
            tokio::time::sleep(TEND_INTERVAL).await;
        }
        let count = self.plan.members;
        let mut healthy: Vec<usize> = (0..count).collect();
        let lasting = [Kind::Kill, Kind::Pause, Kind::Cut, Kind::CutOneWay];
        for number in 0..(count - 1) / 2 {
            let kind = *self.chance.pick(&lasting);
            let at = healthy.swap_remove(self.chance.below(healthy.len()));
            let flavour = self.chance.percent(50);
            let fault = Fault { kind, whom: Whom::One, flavour, by: Duration::ZERO };
            self.hit(usize::MAX - number, fault, vec![at]);
        }
        self.goes_on(&healthy, "while a minority stayed broken").await?;
        while let Some(begun) = self.begun.last() {
            let strike = begun.strike;
            self.end(strike);
        }
        let everybody: Vec<usize> = (0..count).collect();
        self.goes_on(&everybody, "after all was healed").await
    }

    /// Looks after the processes, and at who leads.
    async fn tend(&mut self) -> Result<(), String> {
        let ended = self.cluster.tend().map_err(|error| error.to_string())?;
        for end in ended {
            if end.is_excused {
                self.report.excused_ends += 1;
                continue;
            }
            let name = &self.cluster.members[end.member].name;
            let failure = format!("{name} ended by itself: {}", end.status);
            self.unexcused_ends += 1;
            if ENDS_MAX < self.unexcused_ends {
                return Err(failure);
            }
            self.fail(failure);
        }
        if CHANGE_INTERVAL < self.changed.elapsed() {
            self.cluster.change().await.map_err(|error| error.to_string())?;
            self.changed = Instant::now();
        }
        for (at, member) in self.cluster.members.iter().enumerate() {
            self.recorder.set_life(at, member.life);
        }
        Ok(())
    }

    fn fail(&mut self, why: String) {
        self.report.failures.push(why);
    }

    async fn look_for_leader(&mut self) -> Option<usize> {
        let leader = self.cluster.leader().await;
        if leader.is_some() && leader != self.last_leader {
            self.report.leader_changes += 1;
            self.last_leader = leader;
        }
        leader
    }

    async fn begin(&mut self, number: usize, fault: Fault) {
        let leader = self.look_for_leader().await;
        let count = self.plan.members;
        let any = self.chance.below(count);
        let follower = (0..count).filter(|at| Some(*at) != leader).collect::<Vec<_>>();
        let follower = *self.chance.pick(&follower);
        let hit: Vec<usize> = match fault.whom {
            Whom::Leader => vec![leader.unwrap_or(any)],
            Whom::Follower => vec![follower],
            Whom::One => vec![any],
            Whom::Most => {
                let first = leader.unwrap_or(any);
                (0..=count / 2).map(|step| (first + step) % count).collect()
            }
            Whom::All => (0..count).collect(),
        };
        if fault.kind == Kind::Transfer
            && let [from] = *hit
            && self.cluster.hand_over(from, follower).await
        {
            self.report.faults.entry(fault.kind).or_default().met += 1;
        }
        self.hit(number, fault, hit);
    }

    /// Lets a fault begin at these members.
    fn hit(&mut self, strike: usize, fault: Fault, hit: Vec<usize>) {
        let mut met = false;
        let line_hits = self.cluster.lines.hits();
        let client_hits = self.cluster.client_lines.as_ref().map_or(0, Lines::hits);
        let sync_hits = self.sync_hits();
        match fault.kind {
            Kind::Kill | Kind::KillAll => {
                for at in &hit {
                    met |= self.cluster.kill(*at);
                    self.cluster.members[*at].down += 1;
                }
            }
            Kind::Pause => {
                for at in &hit {
                    met |= self.cluster.signal(*at, Signal::STOP);
                    self.cluster.members[*at].paused += 1;
                }
            }
            Kind::Cut | Kind::CutOneWay | Kind::CutPart | Kind::Delay | Kind::Throttle => {
                let others: Vec<usize> =
                    (0..self.plan.members).filter(|at| !hit.contains(at)).collect();
                let other = match fault.kind {
                    Kind::CutPart => Some(*self.chance.pick(&others)),
                    _ => None,
                };
                self.line_faults.push((strike, LineFault { fault, hit: hit.clone(), other }));
                self.lay_lines();
            }
            Kind::CutClients => {
                let fault = LineFault { fault, hit: hit.clone(), other: None };
                self.line_faults.push((strike, fault));
                self.lay_client_lines();
            }
            // It was asked for before, and nothing of it has to end.
            Kind::Transfer => {}
            Kind::Replace => {
                for at in &hit {
                    met |= self.cluster.replace(*at);
                }
            }
            Kind::FullDisk => {
                for at in &hit {
                    let member = &mut self.cluster.members[*at];
                    member.is_excused = true;
                    member.full += 1;
                    met |= member.volume.as_ref().is_some_and(|volume| volume.fill().is_ok());
                }
            }
            Kind::FailSync | Kind::SlowSync => {
                for at in &hit {
                    let member = &mut self.cluster.members[*at];
                    member.is_excused = true;
                    member.unsynced += 1;
                    let Some(syncs) = &member.syncs else { continue };
                    let said = match fault.kind {
                        Kind::FailSync => syncs.fail(),
                        _ => syncs.take(fault.by),
                    };
                    if let Err(error) = said {
                        self.report.failures.push(format!("cannot order bad syncs: {error}"));
                    }
                }
            }
        }
        let counts = self.report.faults.entry(fault.kind).or_default();
        counts.struck += 1;
        counts.met += u64::from(met);
        let kind = fault.kind;
        self.begun.push(Begun { strike, kind, hit, line_hits, client_hits, sync_hits });
    }

    fn end(&mut self, strike: usize) {
        let Some(place) = self.begun.iter().position(|it| it.strike == strike) else { return };
        let Begun { kind, hit, line_hits, client_hits, sync_hits, .. } = self.begun.remove(place);
        let mut met = false;
        match kind {
            Kind::Kill | Kind::KillAll => {
                // Started again when somebody looks next.
                for at in &hit {
                    self.cluster.members[*at].down -= 1;
                }
            }
            Kind::Pause => {
                for at in &hit {
                    self.cluster.members[*at].paused -= 1;
                    if self.cluster.members[*at].paused == 0 {
                        self.cluster.signal(*at, Signal::CONT);
                    }
                }
            }
            Kind::Cut | Kind::CutOneWay | Kind::CutPart | Kind::Delay | Kind::Throttle => {
                met = line_hits < self.cluster.lines.hits();
                self.line_faults.retain(|(other, _)| *other != strike);
                // Half of the time what was held back arrives late, otherwise it is lost.
                self.era += u64::from(self.chance.percent(50));
                self.lay_lines();
            }
            Kind::CutClients => {
                let hits = self.cluster.client_lines.as_ref().map_or(0, Lines::hits);
                met = client_hits < hits;
                self.line_faults.retain(|(other, _)| *other != strike);
                self.era += u64::from(self.chance.percent(50));
                self.lay_client_lines();
            }
            // One that is under way goes on until it is done.
            Kind::Transfer | Kind::Replace => {}
            Kind::FullDisk => {
                for at in &hit {
                    let member = &mut self.cluster.members[*at];
                    member.full -= 1;
                    if let (0, Some(volume)) = (member.full, &member.volume) {
                        volume.free();
                    }
                }
            }
            Kind::FailSync | Kind::SlowSync => {
                met = sync_hits < self.sync_hits();
                for at in &hit {
                    let member = &mut self.cluster.members[*at];
                    member.unsynced -= 1;
                    if let (0, Some(syncs)) = (member.unsynced, &member.syncs)
                        && let Err(error) = syncs.heal()
                    {
                        self.report.failures.push(format!("cannot heal syncs: {error}"));
                    }
                }
            }
        }
        self.report.faults.entry(kind).or_default().met += u64::from(met);
    }

    fn sync_hits(&self) -> u64 {
        self.cluster.members.iter().filter_map(|it| it.syncs.as_ref()).map(Syncs::hits).sum()
    }

    /// Sets every line to what the faults that last say together.
    fn lay_lines(&self) {
        let era = self.era;
        self.cluster.lines.change(|from, to, way| {
            *way = Way { era, ..Way::default() };
            for (_, LineFault { fault, hit, other }) in &self.line_faults {
                let (out, into) = (hit.contains(&from), hit.contains(&to));
                let crosses = out != into;
                match fault.kind {
                    Kind::Cut if crosses => {
                        way.is_cut = true;
                        way.is_closed |= fault.flavour;
                    }
                    Kind::CutOneWay if crosses => way.is_cut |= out == fault.flavour,
                    Kind::CutPart if out && *other == Some(to) || into && *other == Some(from) => {
                        way.is_cut = true;
                        way.is_closed |= fault.flavour;
                    }
                    Kind::Delay if out || into => way.delay = way.delay.max(fault.by),
                    Kind::Throttle if out || into => way.bytes_per_second = 4096,
                    _ => {}
                }
            }
        });
    }

    /// The same for the lines of clients, which are the end behind the last member.
    fn lay_client_lines(&self) {
        let Some(lines) = &self.cluster.client_lines else { return };
        let (era, clients) = (self.era, self.plan.members);
        lines.change(|from, to, way| {
            *way = Way { era, ..Way::default() };
            for (_, LineFault { fault, hit, .. }) in &self.line_faults {
                if fault.kind != Kind::CutClients {
                    continue;
                }
                if fault.flavour {
                    way.is_closed |= hit.contains(&from) || hit.contains(&to);
                } else {
                    way.is_cut |= hit.contains(&from) && to == clients;
                }
            }
        });
    }

    /// Asks each of these members to write and to read until it has done both.
    async fn goes_on(&mut self, members: &[usize], when: &str) -> Result<(), String> {
        let begun = Instant::now();
        for at in members {
            for turn in 0_u64.. {
                self.tend().await?;
                let number = PROBE + *at as u64;
                let value = format!("p{at}-{:?}-{turn}", begun.elapsed());
                let put = Request::put("k0", value);
                let has_written = self.recorder.ask(number, *at, put, false).await.is_some();
                if has_written
                    && self.recorder.ask(number, *at, Request::get("k0"), false).await.is_some()
                {
                    break;
                }
                if PROGRESS_LIMIT < begun.elapsed() {
                    let name = &self.cluster.members[*at].name;
                    return Err(format!("no progress at {name} for {PROGRESS_LIMIT:?} {when}"));
                }
                tokio::time::sleep(TEND_INTERVAL).await;
            }
        }
        self.look_for_leader().await;
        Ok(())
    }

    /// Waits until all members are at one revision, and lets each show what it holds there.
    async fn all_equal(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            self.tend().await?;
            let mut revisions = Vec::new();
            for at in 0..self.plan.members {
                let read = Request::get("k0").serializable();
                let answer = self.recorder.ask(PROBE + at as u64, at, read, false).await;
                revisions.push(answer.and_then(|answer| answer.revision));
            }
            if revisions[0].is_some() && revisions.iter().all(|it| *it == revisions[0]) {
                break;
            }
            if PROGRESS_LIMIT < begun.elapsed() {
                return Err(format!("members do not catch up: they are at {revisions:?}"));
            }
            tokio::time::sleep(TEND_INTERVAL).await;
        }
        for at in 0..self.plan.members {
            for request in [
                Request::range(ALL_KEYS.0, ALL_KEYS.1).serializable(),
                Request::range(ALL_KEYS.0, ALL_KEYS.1),
            ] {
                let answer = self.recorder.ask(OBSERVER + at as u64, at, request, false).await;
                if !answer.as_ref().is_some_and(is_read) {
                    return Err(format!(
                        "{} does not show what it holds",
                        self.cluster.members[at].name
                    ));
                }
            }
        }
        Ok(())
    }

    /// Waits until all watchers were told what the members hold, and judges what that was.
    async fn all_told(
        &mut self,
        mut watchers: JoinSet<Told>,
        until: &AtomicU64,
    ) -> Result<(), String> {
        let history = self.recorder.history();
        let ends = ends(&history);
        let Some(end) = ends.first() else { return Err("nobody has seen the end".to_owned()) };
        until.store(end.revision.0, Ordering::Relaxed);
        let mut first: Option<Told> = None;
        while let Some(ended) = tokio::time::timeout(PROGRESS_LIMIT, watchers.join_next())
            .await
            .map_err(|_| format!("a watcher is not told all within {PROGRESS_LIMIT:?}"))?
        {
            let told = ended.map_err(|error| format!("a watcher failed: {error}"))?;
            self.report.told += told.count();
            let wrong = told.judge(&history, end).into_iter();
            self.report.failures.extend(wrong.map(|what| format!("a watcher: {what}")));
            match &first {
                None => first = Some(told),
                Some(first) if first.is_like(&told, end.revision) => {}
                Some(_) => self.fail("two watchers were told different things".to_owned()),
            }
        }
        Ok(())
    }

    /// Waits until no lease is left: nobody renews one any more.
    async fn leases_end(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        for (at, channel) in self.recorder.channels().iter().enumerate() {
            while !holders::has_none(channel).await {
                self.tend().await?;
                if PROGRESS_LIMIT < begun.elapsed() {
                    let name = &self.cluster.members[at].name;
                    return Err(format!("leases at {name} do not end"));
                }
                tokio::time::sleep(TEND_INTERVAL).await;
            }
        }
        Ok(())
    }

    /// Judges the history and the logs.
    fn close(mut self, folder: &Path) -> Report {
        let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        self.report.ok = count(&self.recorder.ok);
        self.report.refused = count(&self.recorder.refused);
        self.report.unknown = count(&self.recorder.unknown);
        self.report.carried_bytes = self.cluster.lines.carried_bytes();
        let history = self.recorder.history();
        let seed = self.plan.seed;
        for failure in judge(&history) {
            self.fail(failure);
        }
        for at in 0..self.plan.members {
            let log = std::fs::read(self.cluster.log(at)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
                self.fail(format!("{} panicked: {line}", self.cluster.members[at].name));
            }
        }
        for failure in &mut self.report.failures {
            *failure = format!("seed {seed}: {failure}");
        }
        if !self.report.failures.is_empty() {
            let mut text = format!("# seed {seed}, {:?}\n", self.plan.kinds);
            for (why, count) in self.recorder.failures.lock().expect("nobody panics with it").iter()
            {
                text.push_str(&format!("# {count} times: {}\n", why.replace('\n', " ")));
            }
            text.push_str(&history.to_string());
            let path = folder.join("history.txt");
            if let Err(error) = std::fs::write(&path, text) {
                self.report.failures.push(format!("cannot write {}: {error}", path.display()));
            }
        }
        self.report
    }
}

fn is_read(response: &Response) -> bool {
    matches!(&*response.done, [Done::Found { .. }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cluster_that_cannot_form_is_not_well_and_has_tested_nothing() {
        let parent = TempDir::new().unwrap();
        let settings = Settings {
            program: "/bin/false".into(),
            parent: parent.path().to_owned(),
            engine: Engine::Raft,
        };
        let plan = Plan::with(1, Duration::from_secs(5), vec![Kind::Kill]);
        let report = Round::run(&settings, plan, |_| ()).await.unwrap();
        let first = report.failures.first().map(String::as_str).unwrap_or_default();
        assert!(first.contains("ended by itself: exit status: 1"), "{report}");
        assert!(!report.idle().is_empty());
        assert!(report.kept.is_some_and(|kept| kept.join("history.txt").is_file()));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_told() {
        let parent = TempDir::new().unwrap();
        let settings = Settings {
            program: "/nowhere/it".into(),
            parent: parent.path().to_owned(),
            engine: Engine::Raft,
        };
        let plan = Plan::with(1, Duration::from_secs(5), vec![]);
        let error = Round::run(&settings, plan, |_| ()).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot start /nowhere/it: "), "{error}");
    }
}
