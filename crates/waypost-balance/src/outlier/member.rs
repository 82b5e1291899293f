//! One endpoint's record.

use super::OutlierSettings;
use crate::EndpointState;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the detector knows of one endpoint.
pub(super) struct Member {
    pub(super) state: Arc<EndpointState>,
    phase: Phase,
    /// How often it was ejected, less one for each interval in good standing.
    ejections: u32,
    /// What its counts were at the start of the interval.
    before: Tally,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    InUse {
        /// It was in use for all of the interval so far.
        whole_interval: bool,
    },
    Ejected {
        until: Instant,
    },
}

/// Calls that have ended and say something of the endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    successes: u64,
    failures: u64,
}

// === impl Member ===

impl Member {
    /// In good standing, and with nothing counted so far.
    pub(super) fn new(state: &Arc<EndpointState>) -> Self {
        let before = Tally::of(state);
        Self { state: Arc::clone(state), phase: Phase::InUse { whole_interval: false }, ejections: 0, before }
    }

    pub(super) fn ejected_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::InUse { .. } => None,
            Phase::Ejected { until } => Some(until),
        }
    }

    /// For how long.
    pub(super) fn eject(&mut self, settings: &OutlierSettings, now: Instant) -> Duration {
        self.ejections = self.ejections.saturating_add(1);
        let duration = settings.ejection_time(self.ejections);
        self.phase = Phase::Ejected { until: now + duration };
        duration
    }

    pub(super) fn readmit(&mut self) {
        self.phase = Phase::InUse { whole_interval: false };
        // What ended while it was ejected was begun before: it is not held against it twice.
        self.before = Tally::of(&self.state);
    }

    /// For an interval in use throughout, an ejection is forgiven.
    pub(super) fn end_interval(&mut self) {
        if let Phase::InUse { whole_interval } = &mut self.phase {
            self.ejections = self.ejections.saturating_sub(u32::from(*whole_interval));
            *whole_interval = true;
        }
    }

    /// The calls of the interval that ends now.
    pub(super) fn take_tally(&mut self) -> Tally {
        let total = Tally::of(&self.state);
        let before = std::mem::replace(&mut self.before, total);
        Tally {
            successes: total.successes.saturating_sub(before.successes),
            failures: total.failures.saturating_sub(before.failures),
        }
    }
}

// === impl Tally ===

impl Tally {
    fn of(state: &EndpointState) -> Self {
        Self { successes: state.successes(), failures: state.failures() }
    }

    pub(super) fn volume(&self) -> u64 {
        self.successes.saturating_add(self.failures)
    }

    /// From 0 to 1; 1 without calls.
    #[expect(clippy::cast_precision_loss, reason = "a share is worked out of it")]
    pub(super) fn success_rate(&self) -> f64 {
        match self.volume() {
            0 => 1.0,
            volume => self.successes as f64 / volume as f64,
        }
    }
}
