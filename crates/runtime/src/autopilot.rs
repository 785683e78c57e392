//! The surroundings that autopilot runs in, made of tokio: its clock, its timers, its tasks, its log.
//! What it decides is none of this module's business.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_autopilot::{Answer, Host, Logger, Note, Span, Time, TimeProvider};
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Runs autopilots on a tokio runtime.
///
/// Its time is that of the wall when it was made, and moves with the monotonic clock from then on: a
/// wall clock that is set cannot make a server stable, or dead, before its time.
#[derive(Clone, Debug)]
pub struct TokioHost {
    handle: Handle,
    began: Instant,
    began_at: Time,
}

impl TokioHost {
    /// On the runtime that the caller is in.
    ///
    /// # Panics
    ///
    /// Outside of any tokio runtime.
    pub fn current() -> TokioHost {
        // A clock before 1970 is as good as one at 1970: only differences count.
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
        TokioHost {
            handle: Handle::current(),
            began: Instant::now(),
            began_at: Time::from_unix(seconds, at.subsec_nanos()),
        }
    }
}

impl TimeProvider for TokioHost {
    fn now(&self) -> Time {
        let nanos = i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.began_at.plus(Span(nanos))
    }
}

impl Host for TokioHost {
    fn sleep(&self, span: Span) -> Answer<'static, ()> {
        let nanos = u64::try_from(span.0).unwrap_or(0);
        // Made here, so that it counts from now and not from when it is first asked.
        let _runtime = self.handle.enter();
        Box::pin(tokio::time::sleep(Duration::from_nanos(nanos)))
    }

    fn spawn(&self, task: Answer<'static, ()>) {
        self.handle.spawn(task);
    }
}

/// Writes autopilot's notes into the log of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingLogger;

impl Logger for TracingLogger {
    fn log(&self, note: &Note) {
        match note {
            Note::Doing { action, why } => {
                tracing::info!(target: "autopilot", %action, why, "changes the cluster");
            }
            Note::Done(_) => tracing::debug!(target: "autopilot", "{note}"),
            // Said again every round as long as it lasts.
            Note::Refused(refusal) => {
                tracing::debug!(target: "autopilot", code = refusal.why.code(), "{refusal}");
            }
            Note::UpdateFailed(_) | Note::ReconcileFailed(_) | Note::PruneFailed(_) => {
                tracing::warn!(target: "autopilot", "{note}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use quorate_autopilot::{
        ApplicationIntegration, Autopilot, Config, ExecutionStatus, Options, Raft,
        RaftConfiguration, RaftError, RaftRole, Server, ServerId, ServerStats, Signal, State,
    };
    use quorate_types::Index;

    use super::*;

    /// A cluster without servers, and somebody who counts its states.
    #[derive(Default)]
    struct Nobody {
        states: AtomicU64,
    }

    type Change<'a> = Answer<'a, Result<Index, RaftError>>;

    fn refused<'a, T: Send + 'a>() -> Answer<'a, Result<T, RaftError>> {
        Box::pin(async { Err(RaftError::NotLeader { leader: None }) })
    }

    impl Raft for Nobody {
        fn add_nonvoter(&self, _: &ServerId, _: &str, _: Index, _: Span) -> Change<'_> {
            refused()
        }
        fn add_voter(&self, _: &ServerId, _: &str, _: Index, _: Span) -> Change<'_> {
            refused()
        }
        fn demote_voter(&self, _: &ServerId, _: Index, _: Span) -> Change<'_> {
            refused()
        }
        fn remove_server(&self, _: &ServerId, _: Index, _: Span) -> Change<'_> {
            refused()
        }
        fn get_configuration(&self) -> Answer<'_, Result<RaftConfiguration, RaftError>> {
            Box::pin(async { Ok(RaftConfiguration::default()) })
        }
        fn last_index(&self) -> Index {
            Index(1)
        }
        fn leader(&self) -> String {
            String::new()
        }
        fn state(&self) -> RaftRole {
            RaftRole::Follower
        }
        fn stats(&self) -> BTreeMap<String, String> {
            [("last_log_term".to_owned(), "1".to_owned())].into()
        }
        fn leadership_transfer_to_server(
            &self,
            _: &ServerId,
            _: &str,
        ) -> Answer<'_, Result<(), RaftError>> {
            refused()
        }
    }

    impl ApplicationIntegration for Nobody {
        fn autopilot_config(&self) -> Option<Config> {
            Some(Config::default())
        }
        fn known_servers(&self) -> BTreeMap<ServerId, Server> {
            BTreeMap::new()
        }
        fn fetch_server_stats(
            &self,
            _: Span,
            _: BTreeMap<ServerId, Server>,
        ) -> Answer<'_, BTreeMap<ServerId, ServerStats>> {
            Box::pin(async { BTreeMap::new() })
        }
        fn notify_state(&self, _: &Arc<State>) {
            self.states.fetch_add(1, Ordering::SeqCst);
        }
        fn remove_failed_server(&self, _: &Server) {}
    }

    #[tokio::test(start_paused = true)]
    async fn an_autopilot_runs_on_tokio_and_leaves_nothing_behind() {
        let (nobody, host) = (Arc::new(Nobody::default()), Arc::new(TokioHost::current()));
        let options = Options::default().with_logger(Arc::new(TracingLogger));
        let autopilot =
            Autopilot::new(nobody.clone(), nobody.clone(), host.clone(), host.clone(), options);
        let before = host.now();
        autopilot.start(Signal::new()).await;
        tokio::time::sleep(Duration::from_millis(21_500)).await;
        assert_eq!(nobody.states.load(Ordering::SeqCst), 11, "at once and every two seconds");
        assert!(Span::from_secs(21) < host.now().since(before));
        autopilot.stop().wait().await;
        assert_eq!(autopilot.is_running().0, ExecutionStatus::NotRunning);
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(nobody.states.load(Ordering::SeqCst), 11);
    }
}
