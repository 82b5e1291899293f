//! Outlier detection of one channel: told of suspects by the calls, of time by the driver.

use crate::fleet::Fleet;
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use waypost_balance::{EndpointState, Outcome, OutlierDetector, OutlierEvent, OutlierSettings, Started};

/// The calls' side: whether a failure is worth a look. Every connection has one of its own, so that calls on different
/// endpoints do not meet here.
#[derive(Debug, Clone)]
pub(crate) struct Suspicion {
    /// `None` while nothing is ejected.
    settings: Arc<ArcSwapOption<OutlierSettings>>,
    suspects: mpsc::Sender<Arc<EndpointState>>,
}

/// A call that has started; a failure of it may arouse suspicion.
#[derive(Debug)]
pub(crate) struct Watched {
    started: Started,
    suspicion: Arc<Suspicion>,
}

/// The driver's side.
pub(crate) struct Wards {
    detector: OutlierDetector,
    /// `None` while nothing is ejected: the detector then has no rule.
    settings: Option<OutlierSettings>,
    suspicion: Suspicion,
}

/// Suspects that wait for the driver. More are not told of: the next failure of theirs does, or the end of the interval.
const MOST_SUSPECTS: usize = 64;

// === impl Suspicion ===

impl Suspicion {
    pub(crate) fn new(settings: Option<&OutlierSettings>) -> (Self, mpsc::Receiver<Arc<EndpointState>>) {
        let (suspects, receiver) = mpsc::channel(MOST_SUSPECTS);
        let settings = Arc::new(ArcSwapOption::from_pointee(settings.cloned()));
        (Self { settings, suspects }, receiver)
    }

    fn ended(&self, endpoint: &Arc<EndpointState>, outcome: Outcome) {
        let failed = matches!(outcome, Outcome::Failed | Outcome::Lost);
        if failed && self.settings.load().as_ref().is_some_and(|settings| settings.suspects(endpoint)) {
            // Full or closed: somebody else's suspicion will do.
            let _ = self.suspects.try_send(Arc::clone(endpoint));
        }
    }
}

// === impl Watched ===

impl Watched {
    pub(crate) fn new(started: Started, suspicion: &Arc<Suspicion>) -> Self {
        Self { started, suspicion: Arc::clone(suspicion) }
    }

    pub(crate) fn endpoint(&self) -> &Arc<EndpointState> {
        self.started.endpoint()
    }

    /// When the call has started.
    pub(crate) fn at(&self) -> Instant {
        self.started.at()
    }

    pub(crate) fn answered(&mut self, now: Instant) {
        self.started.answered(now);
    }

    /// Answers the endpoint.
    pub(crate) fn finished(self, now: Instant, outcome: Outcome) -> Arc<EndpointState> {
        let endpoint = Arc::clone(self.started.endpoint());
        self.started.finished(now, outcome);
        self.suspicion.ended(&endpoint, outcome);
        endpoint
    }
}

// === impl Wards ===

impl Wards {
    /// With what calls tell of.
    pub(crate) fn new(
        settings: Option<OutlierSettings>,
        now: Instant,
    ) -> (Self, mpsc::Receiver<Arc<EndpointState>>) {
        let (suspicion, suspects) = Suspicion::new(settings.as_ref());
        let rules = settings.clone().unwrap_or_else(no_rules);
        (
            Self { detector: OutlierDetector::new(rules, fastrand::u64(..), now), settings, suspicion },
            suspects,
        )
    }

    /// For a connection.
    pub(crate) fn suspicion(&self) -> Arc<Suspicion> {
        Arc::new(self.suspicion.clone())
    }

    /// Follows other rules from now on.
    pub(crate) fn retune(&mut self, settings: Option<&OutlierSettings>, fleet: &mut Fleet, now: Instant) {
        if self.settings.as_ref() == settings {
            return;
        }
        self.settings = settings.cloned();
        self.detector.set_settings(settings.cloned().unwrap_or_else(no_rules), now);
        if settings.is_none() {
            let events = self.detector.readmit_all();
            report(events, fleet);
        }
        self.suspicion.settings.store(settings.cloned().map(Arc::new));
    }

    pub(crate) fn observe(&mut self, endpoint: &Arc<EndpointState>) {
        self.detector.insert(endpoint);
    }

    pub(crate) fn forget(&mut self, endpoint: &Arc<EndpointState>) {
        self.detector.remove(endpoint);
    }

    pub(crate) fn examine(&mut self, suspect: &Arc<EndpointState>, fleet: &mut Fleet, now: Instant) {
        let events = self.detector.examine(suspect, now);
        report(events, fleet);
    }

    /// Does what is due; and, when the fleet has changed, [weighs](Self::weigh).
    pub(crate) fn tick(&mut self, fleet: &mut Fleet, now: Instant) {
        if self.next_wake().is_some_and(|wake| wake <= now) {
            let events = self.detector.tick(now);
            report(events, fleet);
        } else if fleet.has_changed() {
            self.weigh(fleet, now);
        }
    }

    /// While any endpoint is ejected: whether enough others are left that take calls; and whatever else is due by then.
    pub(crate) fn weigh(&mut self, fleet: &mut Fleet, now: Instant) {
        if self.detector.ejected() > 0 {
            let events = self.detector.tick(now);
            report(events, fleet);
        }
    }

    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.settings.is_some().then(|| self.detector.next_wake())
    }
}

fn no_rules() -> OutlierSettings {
    let mut settings = OutlierSettings::default();
    (settings.consecutive_failures, settings.success_rate, settings.failure_percentage) = (None, None, None);
    settings
}

fn report(events: Vec<OutlierEvent>, fleet: &mut Fleet) {
    for event in events {
        match event {
            OutlierEvent::Ejected { endpoint, cause, duration } => {
                let at = endpoint.endpoint();
                tracing::warn!(endpoint = %at, %cause, ?duration, "endpoint ejected");
                fleet.ejected(&endpoint, Some(format!("{cause}, for {duration:?}").into()));
            }
            OutlierEvent::Readmitted { endpoint } => {
                tracing::info!(endpoint = %endpoint.endpoint(), "ejection over");
                fleet.ejected(&endpoint, None);
            }
            OutlierEvent::PanicBegan { available, total } => {
                tracing::warn!(available, total, "too few endpoints left: ejected ones are used as well");
            }
            OutlierEvent::PanicEnded => {
                tracing::info!("enough endpoints are left without those that are ejected");
            }
            _ => {}
        }
    }
}
