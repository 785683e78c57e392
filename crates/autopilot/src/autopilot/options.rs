//! What can be chosen when an autopilot is made. The names are those of the reference.

use std::sync::Arc;

use crate::errors::OptionError;
use crate::interface::{Logger, Silence, TimeProvider};
use crate::promoter::{Promoter, StablePromoter};
use crate::strict::Strictness;
use crate::time::Span;

/// Between two updates of the state, unless an option says otherwise.
pub const DEFAULT_UPDATE_INTERVAL: Span = Span::from_secs(2);
/// Between two rounds, unless an option says otherwise.
pub const DEFAULT_RECONCILE_INTERVAL: Span = Span::from_secs(10);

/// What can be chosen once, when an autopilot is made.
#[derive(Clone)]
pub struct Options {
    pub(super) update_interval: Span,
    pub(super) reconcile_interval: Span,
    pub(super) promoter: Arc<dyn Promoter>,
    pub(super) logger: Arc<dyn Logger>,
    pub(super) time: Option<Arc<dyn TimeProvider>>,
    pub(super) is_reconciling: bool,
    pub(super) strictness: Strictness,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            update_interval: DEFAULT_UPDATE_INTERVAL,
            reconcile_interval: DEFAULT_RECONCILE_INTERVAL,
            promoter: Arc::new(StablePromoter),
            logger: Arc::new(Silence),
            time: None,
            is_reconciling: true,
            strictness: Strictness::parity(),
        }
    }
}

impl Options {
    /// Time between updates of the state; 0 is the default of 2 s.
    ///
    /// # Errors
    ///
    /// A negative one is not taken.
    pub fn with_update_interval(self, span: Span) -> Result<Options, OptionError> {
        let update_interval = interval("update_interval", span, DEFAULT_UPDATE_INTERVAL)?;
        Ok(Options { update_interval, ..self })
    }

    /// Time between rounds; 0 is the default of 10 s.
    ///
    /// # Errors
    ///
    /// A negative one is not taken.
    pub fn with_reconcile_interval(self, span: Span) -> Result<Options, OptionError> {
        let reconcile_interval = interval("reconcile_interval", span, DEFAULT_RECONCILE_INTERVAL)?;
        Ok(Options { reconcile_interval, ..self })
    }

    /// The policy; [`StablePromoter`] otherwise.
    #[must_use]
    pub fn with_promoter(self, promoter: Arc<dyn Promoter>) -> Options {
        Options { promoter, ..self }
    }

    /// The clock; the one that [`Autopilot::new`](crate::Autopilot::new) is given otherwise.
    #[must_use]
    pub fn with_time_provider(self, time: Arc<dyn TimeProvider>) -> Options {
        Options { time: Some(time), ..self }
    }

    /// Who hears what is done and why; nobody otherwise.
    #[must_use]
    pub fn with_logger(self, logger: Arc<dyn Logger>) -> Options {
        Options { logger, ..self }
    }

    /// Starts without rounds and prunes; see [`Autopilot::enable_reconciliation`](crate::Autopilot::enable_reconciliation).
    #[must_use]
    pub fn with_reconciliation_disabled(self) -> Options {
        Options { is_reconciling: false, ..self }
    }

    /// The strict rules; none otherwise.
    #[must_use]
    pub fn with_strictness(self, strictness: Strictness) -> Options {
        Options { strictness, ..self }
    }
}

fn interval(option: &'static str, span: Span, default: Span) -> Result<Span, OptionError> {
    match span {
        Span::ZERO => Ok(default),
        span if span.is_negative() => Err(OptionError { option, span }),
        span => Ok(span),
    }
}
