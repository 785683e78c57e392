//! Autopilot on this member: it acts while the member leads, and any member can be asked about it.
//!
//! ```text
//! keep_autopilot   leadership comes: settings are seeded, the engine starts; it goes: the engine stops
//! site             what the engine needs of this member: how things stand, changes, a transfer
//! telling          what it did and left undone and why: in the log, and counted
//! answers          what operators see and set
//! explaining       what the next round would do
//! orders           what operators have done by hand
//! ```
//! What is decided is decided in the crate `autopilot`; what a change needs is judged where it is
//! proposed (`membership.rs`). Nothing here is on the way of a request.

pub(crate) mod answers;
mod explaining;
mod orders;
mod site;
pub(crate) mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_autopilot::{
    Autopilot, ConfigError, OptionError, Options, Outlook, PolicyPromoter, Settings, Signal, Span,
    State, Strictness,
};
use quorate_kv::{Command, Setting};
use quorate_runtime::TokioHost;
use quorate_types::{Index, NodeId, Term};

use crate::local::Local;
use site::Site;
use telling::Telling;

/// How often to see whether this member still leads and what is set has changed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So many rounds without it, and what is said again is news.
const NEWS_AFTER_ROUNDS: u32 = 3;
/// So many updates late, and the leader itself was held up.
const UNSEEN_AFTER_UPDATES: u32 = 5;
/// Promoted members that are remembered.
const PROMOTED_MAX: usize = 1024;

/// How autopilot is set up on this member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutopilotConfig {
    /// Whether it acts while this member leads.
    pub is_on: bool,
    /// What a new cluster begins with.
    pub settings: Settings,
    /// Between two looks at the members.
    pub update_interval: Duration,
    /// Between two rounds of changes.
    pub reconcile_interval: Duration,
    /// Of this member, for migrations.
    pub member_version: String,
    /// What else this member says of itself.
    pub member_tags: BTreeMap<String, String>,
}

/// Autopilot as the rest of the server sees it.
pub(crate) struct Pilot {
    config: AutopilotConfig,
    office: Mutex<Option<Office>>,
    /// What is set, as last read, and by which entry.
    read: Mutex<Option<(Index, Result<Settings, ConfigError>)>>,
    telling: Arc<Telling>,
    /// Members that got their votes from autopilot here, for operators who ask for the same.
    promoted: Mutex<BTreeSet<NodeId>>,
}

/// One reign of this member.
struct Office {
    term: Term,
    autopilot: Autopilot,
    site: Arc<Site>,
}

/// What the figures show of an autopilot that acts.
pub(crate) struct Picture {
    pub(crate) state: Arc<State>,
    pub(crate) age: Duration,
    pub(crate) states_count: u64,
    pub(crate) rounds_count: u64,
    pub(crate) is_paused: bool,
}

impl Pilot {
    pub(crate) fn new(config: AutopilotConfig) -> Pilot {
        let news_after = NEWS_AFTER_ROUNDS * config.reconcile_interval;
        Pilot {
            config,
            office: Mutex::default(),
            read: Mutex::default(),
            telling: Arc::new(Telling::new(news_after)),
            promoted: Mutex::default(),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.config.is_on
    }

    pub(crate) fn telling(&self) -> &Telling {
        &self.telling
    }

    fn promoted(&self, id: NodeId) {
        let mut promoted = self.promoted.lock().unwrap_or_else(PoisonError::into_inner);
        if promoted.len() == PROMOTED_MAX {
            promoted.pop_first();
        }
        promoted.insert(id);
    }

    fn not_promoted(&self, id: NodeId) {
        let mut promoted = self.promoted.lock().unwrap_or_else(PoisonError::into_inner);
        promoted.remove(&id);
    }

    /// Whether autopilot has given a member its vote, or is about to, on this member and since it started.
    pub(crate) fn has_promoted(&self, id: u64) -> bool {
        let promoted = self.promoted.lock().unwrap_or_else(PoisonError::into_inner);
        promoted.contains(&NodeId(id))
    }

    /// The latest state, while this member leads and has made one.
    pub(crate) fn picture(&self) -> Option<Picture> {
        let office = self.office();
        let office = office.as_ref()?;
        let state = office.autopilot.get_state();
        let (made, states_count) = office.site.notified()?;
        let age = Instant::now().saturating_duration_since(made);
        (!state.servers.is_empty()).then_some(Picture {
            state,
            age,
            states_count,
            rounds_count: office.autopilot.round_count(),
            is_paused: !office.autopilot.reconciliation_enabled(),
        })
    }

    fn office(&self) -> MutexGuard<'_, Option<Office>> {
        self.office.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the engine runs in this reign. If so it goes by these settings from now on, and forgets
    /// nothing that it has seen.
    fn is_in_office(&self, term: Term, settings: &Settings) -> bool {
        let office = self.office();
        let Some(office) = office.as_ref().filter(|office| office.term == term) else {
            return false;
        };
        office.autopilot.set_strictness(self.strictness(settings));
        true
    }

    fn strictness(&self, settings: &Settings) -> Strictness {
        let unseen_after = Some(span(UNSEEN_AFTER_UPDATES * self.config.update_interval));
        Strictness { unseen_after, ..settings.strictness() }
    }

    /// What the next round would do, and the state that it would be decided on.
    async fn outlook(&self) -> Option<(Arc<State>, Outlook)> {
        let autopilot = self.office().as_ref()?.autopilot.clone();
        let state = autopilot.get_state();
        Some((state, autopilot.explain().await))
    }

    /// Has rounds and removals happen, or not.
    fn pause(&self, is_paused: bool) {
        let office = self.office();
        let Some(Office { autopilot, .. }) = office.as_ref() else { return };
        match (is_paused, autopilot.reconciliation_enabled()) {
            (true, true) => {
                autopilot.disable_reconciliation();
                tracing::info!(target: "quorate::autopilot", "paused: watches, and changes nothing");
            }
            (false, false) => {
                autopilot.enable_reconciliation();
                tracing::info!(target: "quorate::autopilot", "goes on");
            }
            (true, false) | (false, true) => {}
        }
    }

    fn leave_office(&self) {
        let office = self.office().take();
        if let Some(office) = office {
            // Its task ends by itself; nothing it is about to ask for can be done any more.
            let _ended = office.autopilot.stop();
            tracing::info!(target: "quorate::autopilot", "no longer looks after the members");
        }
    }

    /// What is set, as it is replicated.
    fn settings(&self, setting: &Setting) -> Result<Settings, ConfigError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((index, settings)) = &*read
            && *index == setting.modified
        {
            return settings.clone();
        }
        let settings = Settings::from_json(&setting.value);
        *read = Some((setting.modified, settings.clone()));
        settings
    }

    /// What the cluster goes by, and a change of it begins with: what is set, or, before anybody has set anything,
    /// what its leader was told to begin with. What another member was told is nothing yet: it cannot say.
    fn beginning(
        &self,
        setting: Option<&Setting>,
        leads: bool,
    ) -> Option<Result<Settings, ConfigError>> {
        match setting {
            Some(setting) => Some(self.settings(setting)),
            None => leads.then(|| Ok(self.config.settings.clone())),
        }
    }

    fn options(&self, settings: &Settings) -> Result<Options, OptionError> {
        let options = Options::default()
            .with_update_interval(span(self.config.update_interval))?
            .with_reconcile_interval(span(self.config.reconcile_interval))?;
        Ok(options
            .with_promoter(Arc::new(PolicyPromoter::new()))
            .with_logger(Arc::clone(&self.telling) as _)
            .with_strictness(self.strictness(settings)))
    }
}

/// As autopilot counts time; about 292 years at most.
fn span(duration: Duration) -> Span {
    Span(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

impl Local {
    /// Has autopilot act while this member leads; never returns.
    pub(crate) async fn keep_autopilot(&self) {
        let pilot = self.pilot();
        if !pilot.is_on() {
            std::future::pending::<()>().await;
        }
        // However this future ends, the engine ends with it.
        let _leaves = Leaves(self);
        let mut leader = self.node().leader();
        loop {
            match self.leads() {
                Some(term) => self.take_office(term).await,
                None => pilot.leave_office(),
            }
            tokio::select! {
                _ = leader.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Sees to it that the engine runs by what is set.
    async fn take_office(&self, term: Term) {
        let pilot = self.pilot();
        if self.store().autopilot().is_none() && pilot.config.settings != Settings::default() {
            self.seed_settings().await;
        }
        // Settings that this version cannot read stop the engine from acting, not from saying so.
        let settings = self.autopilot_settings().unwrap_or_default();
        if pilot.is_in_office(term, &settings) {
            pilot.pause(settings.is_paused);
            return;
        }
        pilot.leave_office();
        let options = match pilot.options(&settings) {
            Ok(options) => options,
            Err(error) => {
                tracing::error!(target: "quorate::autopilot", %error, "does not run");
                return;
            }
        };
        pilot.telling.begin();
        let (site, host) = (Arc::new(Site::new(self.clone())), Arc::new(TokioHost::current()));
        let (raft, application) = (Arc::clone(&site), Arc::clone(&site));
        let autopilot = Autopilot::new(raft, application, host.clone(), host, options);
        let office = Office { term, autopilot: autopilot.clone(), site };
        *pilot.office() = Some(office);
        tracing::info!(target: "quorate::autopilot", "looks after the members");
        pilot.pause(settings.is_paused);
        autopilot.start(Signal::new()).await;
    }

    /// Has the cluster begin with what this member was told to begin with, so that every leader goes by
    /// the same. What nobody was told to set need not be written down.
    async fn seed_settings(&self) {
        let json = serde_json::Value::Object(self.pilot().config.settings.to_json()).to_string();
        let expected = Some(Index(0));
        let seed = Command::SetAutopilot { settings: json.into(), expected };
        if let Err(error) = self.propose(&seed).await {
            tracing::debug!(target: "quorate::autopilot", reason = error.message(), "not seeded yet");
        }
    }

    /// What is set, on this member's word.
    pub(crate) fn autopilot_settings(&self) -> Result<Settings, ConfigError> {
        self.settings_of(self.store().autopilot().as_ref())
    }

    /// What the cluster goes by, as far as this member can say.
    fn settings_of(&self, setting: Option<&Setting>) -> Result<Settings, ConfigError> {
        let known = self.pilot().beginning(setting, self.leads().is_some());
        known.unwrap_or_else(|| Ok(Settings::default()))
    }
}

/// Ends the engine.
struct Leaves<'a>(&'a Local);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.pilot().leave_office();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_begins_with_what_is_set_or_with_what_the_leader_was_told() {
        let told = Settings::default().with_held(&"7".into(), true).expect("an id");
        let pilot = Pilot::new(AutopilotConfig {
            is_on: true,
            settings: told.clone(),
            update_interval: Duration::from_secs(2),
            reconcile_interval: Duration::from_secs(10),
            member_version: String::new(),
            member_tags: BTreeMap::new(),
        });
        assert_eq!(pilot.beginning(None, true), Some(Ok(told)));
        assert_eq!(pilot.beginning(None, false), None, "nothing is changed on top of defaults");
        let (value, index) = (bytes::Bytes::from_static(b"{\"paused\":true}"), Index(7));
        let set = Setting { value, created: index, modified: index };
        for leads in [true, false] {
            let read = pilot.beginning(Some(&set), leads);
            assert!(read.is_some_and(|read| read.is_ok_and(|settings| settings.is_paused)));
        }
    }
}
