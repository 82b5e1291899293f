//! Outlier ejection: endpoints whose calls go badly are set aside for a while.
//!
//! [`OutlierDetector`] is fed with outcomes by way of the endpoints: every call that ends is counted in its
//! [`EndpointState`], without a lock. It looks at the counts when it is told the time, opens and closes the
//! endpoints' gates, and says what it did. The rules are those of [gRFC A50] (success rate and failure percentage,
//! ejection times that grow, a cap), with two of Envoy's besides: ejection after failures in a row, at once rather
//! than at the end of the interval, and the panic threshold.
//!
//! [gRFC A50]: https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md

mod member;
mod settings;

pub use settings::{FailurePercentage, OutlierSettings, SuccessRate};

use crate::{EndpointState, Gate};
use fastrand::Rng;
use member::{Member, Tally};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Ejects endpoints, and takes them back. One for each channel.
///
/// ```
/// use std::sync::Arc;
/// use std::time::{Duration, Instant};
/// use waypost_balance::{EndpointState, Gate, Outcome, OutlierDetector, OutlierEvent, OutlierSettings};
/// use waypost_model::{Endpoint, Instance, InstanceKey};
///
/// # fn endpoint(n: u8, now: Instant) -> Result<Arc<EndpointState>, Box<dyn std::error::Error>> {
/// #     let endpoint = Endpoint::new(format!("10.0.0.{n}"), 50051)?;
/// #     let instance = Arc::new(Instance::new("greeter".parse()?, endpoint.clone()));
/// #     let state = EndpointState::new(InstanceKey::of(&instance, 0), endpoint, instance, now);
/// #     state.open();
/// #     Ok(Arc::new(state))
/// # }
/// let now = Instant::now();
/// let (good, bad) = (endpoint(1, now)?, endpoint(2, now)?);
/// let settings = OutlierSettings::default();
/// let mut detector = OutlierDetector::new(settings.clone(), 4711, now);
/// detector.set_endpoints([&good, &bad], now);
/// for _ in 0..5 {
///     bad.started(now).finished(now, Outcome::Failed);
/// }
/// assert!(settings.suspects(&bad));
/// let events = detector.examine(&bad, now);
/// assert!(matches!(events[..], [OutlierEvent::Ejected { .. }]));
/// assert_eq!(bad.gate(), Gate::Ejected);
///
/// let later = now + Duration::from_secs(30);
/// assert!(detector.next_wake() <= later);
/// detector.tick(later);
/// assert_eq!(bad.gate(), Gate::Open);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OutlierDetector {
    settings: OutlierSettings,
    /// In the order in which they were given.
    members: Vec<Member>,
    /// Of those, the ones that are ejected.
    ejected: usize,
    /// No ejection ends before this. It is worked out anew when it has come.
    next_end: Option<Instant>,
    next_sweep: Instant,
    panic: bool,
    /// For rules that are enforced at times only.
    dice: Rng,
}

/// What the detector has done. The gates are set already: this is to log and to count.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum OutlierEvent {
    /// An endpoint is set aside.
    Ejected {
        /// Which one.
        endpoint: Arc<EndpointState>,
        /// Why.
        cause: EjectionCause,
        /// For how long.
        duration: Duration,
    },
    /// The time is over: it takes calls again.
    Readmitted {
        /// Which one.
        endpoint: Arc<EndpointState>,
    },
    /// Too few endpoints are left: those that are ejected take calls as well, until there are more.
    PanicBegan {
        /// Endpoints that were left.
        available: usize,
        /// Endpoints that there are.
        total: usize,
    },
    /// There are enough again without those that are ejected.
    PanicEnded,
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum EjectionCause {
    /// So many calls in a row have failed.
    ConsecutiveFailures(u32),
    /// Its success rate is so far below the others'.
    SuccessRate {
        /// Of its calls in the last interval, from 0 to 1.
        rate: f64,
        /// What it would have had to reach.
        threshold: f64,
    },
    /// So many percent of its calls in the last interval have failed.
    FailurePercentage(f64),
}

// === impl OutlierDetector ===

impl OutlierDetector {
    /// Without endpoints. The first interval begins at `now`. By `seed` it is chosen whom a rule spares that is enforced only
    /// [at times](SuccessRate::enforcement_percentage).
    pub fn new(settings: OutlierSettings, seed: u64, now: Instant) -> Self {
        let next_sweep = now + settings.interval();
        let dice = Rng::with_seed(seed);
        Self { settings, members: Vec::new(), ejected: 0, next_end: None, next_sweep, panic: false, dice }
    }

    /// The endpoints that there are now: all of the fleet, with a connection or without, so that one which reconnects
    /// stays ejected. Those that were there before keep their record. One that is gone is no longer ejected.
    pub fn set_endpoints<'a>(
        &mut self,
        endpoints: impl IntoIterator<Item = &'a Arc<EndpointState>>,
        now: Instant,
    ) -> Vec<OutlierEvent> {
        let mut known: HashMap<*const EndpointState, Member> =
            self.members.drain(..).map(|member| (Arc::as_ptr(&member.state), member)).collect();
        self.members.extend(
            endpoints
                .into_iter()
                .map(|state| known.remove(&Arc::as_ptr(state)).unwrap_or_else(|| Member::new(state))),
        );
        // Whoever left is no longer ours to take back: should it return, it is to find its gate open.
        for member in known.into_values().filter(|member| member.ejected_until().is_some()) {
            member.state.readmit();
            self.ejected -= 1;
        }
        let mut events = Vec::new();
        self.readmit_due(now, &mut events);
        self.weigh_panic(&mut events);
        events
    }

    /// One endpoint more, as by [`set_endpoints`](Self::set_endpoints) with all. It must not be there already.
    pub fn insert(&mut self, endpoint: &Arc<EndpointState>) {
        self.members.push(Member::new(endpoint));
    }

    /// One endpoint less. It is no longer ejected. Takes time in the number of endpoints, but looks at no endpoint itself.
    pub fn remove(&mut self, endpoint: &Arc<EndpointState>) {
        if let Some(at) = self.members.iter().position(|member| Arc::ptr_eq(&member.state, endpoint)) {
            let member = self.members.swap_remove(at);
            if member.ejected_until().is_some() {
                member.state.readmit();
                self.ejected -= 1;
            }
        }
    }

    /// Other settings from now on. Who is ejected stays so for its time. If the end of an interval has passed without a
    /// [`tick`](Self::tick), for nothing was to be judged, another begins now.
    pub fn set_settings(&mut self, settings: OutlierSettings, now: Instant) {
        let end = now + settings.interval();
        if self.next_sweep <= now {
            for member in &mut self.members {
                member.take_tally();
            }
            self.next_sweep = end;
        }
        self.next_sweep = self.next_sweep.min(end);
        self.settings = settings;
    }

    /// Ends all ejections, and a panic with them.
    pub fn readmit_all(&mut self) -> Vec<OutlierEvent> {
        let mut events = Vec::new();
        for member in self.members.iter_mut().filter(|member| member.ejected_until().is_some()) {
            readmit(member, &mut events);
        }
        self.ejected = 0;
        self.weigh_panic(&mut events);
        events
    }

    /// Looks at one endpoint for failures in a row, and ejects it if there are enough. For use when a call has failed
    /// there: where [`OutlierSettings::suspects`] says no, which takes no lock, it would do nothing.
    pub fn examine(&mut self, endpoint: &Arc<EndpointState>, now: Instant) -> Vec<OutlierEvent> {
        let mut events = Vec::new();
        if self.settings.suspects(endpoint)
            && !self.is_at_cap()
            && let Some(at) = self.members.iter().position(|member| Arc::ptr_eq(&member.state, endpoint))
        {
            self.eject_for_failures_in_a_row(at, now, &mut events);
            self.weigh_panic(&mut events);
        }
        events
    }

    /// Does what is due at `now`: ends ejections, and at the end of each interval looks at its calls. Also notices
    /// failures in a row that it was not told of by [`examine`](Self::examine), and endpoints that have lost their
    /// connection.
    pub fn tick(&mut self, now: Instant) -> Vec<OutlierEvent> {
        let mut events = Vec::new();
        self.readmit_due(now, &mut events);
        for at in 0..self.members.len() {
            self.eject_for_failures_in_a_row(at, now, &mut events);
        }
        if now >= self.next_sweep {
            self.next_sweep = now + self.settings.interval();
            self.sweep(now, &mut events);
        }
        self.weigh_panic(&mut events);
        events
    }

    /// When [`tick`](Self::tick) is due: the end of the interval, or of an ejection before that.
    pub fn next_wake(&self) -> Instant {
        match self.ejected {
            0 => self.next_sweep,
            _ => self.next_end.map_or(self.next_sweep, |end| end.min(self.next_sweep)),
        }
    }

    /// Whether ejections are suspended, for too few endpoints are left without those that are ejected.
    pub fn in_panic(&self) -> bool {
        self.panic
    }

    /// How many endpoints are ejected, in a panic too.
    pub fn ejected(&self) -> usize {
        self.ejected
    }

    fn eject_for_failures_in_a_row(&mut self, at: usize, now: Instant, events: &mut Vec<OutlierEvent>) {
        let state = &self.members[at].state;
        if self.settings.suspects(state) {
            let failures = state.consecutive_failures();
            self.eject(at, EjectionCause::ConsecutiveFailures(failures), now, events);
        }
    }

    /// The end of an interval, in the order of A50: tallies, success rates, failure percentages, and the multipliers.
    fn sweep(&mut self, now: Instant, events: &mut Vec<OutlierEvent>) {
        let tallies: Vec<Tally> = self.members.iter_mut().map(Member::take_tally).collect();
        if let Some(rule) = self.settings.success_rate.clone()
            && let Some(threshold) = rule.threshold(&tallies)
        {
            for (at, tally) in tallies.iter().enumerate() {
                if tally.volume() >= rule.request_volume
                    && tally.success_rate() < threshold
                    && self.enforces(rule.enforcement_percentage)
                {
                    let cause = EjectionCause::SuccessRate { rate: tally.success_rate(), threshold };
                    self.eject(at, cause, now, events);
                }
            }
        }
        if let Some(rule) = self.settings.failure_percentage.clone()
            && self.members.len() >= rule.minimum_hosts
        {
            for (at, tally) in tallies.iter().enumerate() {
                let percentage = 100.0 * (1.0 - tally.success_rate());
                if tally.volume() >= rule.request_volume
                    && percentage > f64::from(rule.threshold)
                    && self.enforces(rule.enforcement_percentage)
                {
                    self.eject(at, EjectionCause::FailurePercentage(percentage), now, events);
                }
            }
        }
        for member in &mut self.members {
            member.end_interval();
        }
    }

    /// Whether a rule is enforced this time: never of 0 percent, always of 100.
    fn enforces(&mut self, percentage: u8) -> bool {
        percentage >= 100 || self.dice.u8(..100) < percentage
    }

    /// Ejects, unless it is ejected already or the cap is reached.
    fn eject(&mut self, at: usize, cause: EjectionCause, now: Instant, events: &mut Vec<OutlierEvent>) {
        if self.members[at].ejected_until().is_some() || self.is_at_cap() {
            return;
        }
        let member = &mut self.members[at];
        let duration = member.eject(&self.settings, now);
        self.next_end = self.next_end.into_iter().chain(member.ejected_until()).min();
        self.ejected += 1;
        if !self.panic {
            member.state.eject();
        }
        events.push(OutlierEvent::Ejected { endpoint: Arc::clone(&member.state), cause, duration });
    }

    /// Below the cap before rather than after: one may always be ejected, unless the cap is 0.
    fn is_at_cap(&self) -> bool {
        self.ejected * 100 >= self.members.len() * usize::from(self.settings.max_ejection_percent)
    }

    fn readmit_due(&mut self, now: Instant, events: &mut Vec<OutlierEvent>) {
        if self.ejected == 0 || self.next_end.is_none_or(|end| end > now) {
            return;
        }
        let due = |member: &Member| member.ejected_until().is_some_and(|until| until <= now);
        for member in self.members.iter_mut().filter(|member| due(member)) {
            readmit(member, events);
            self.ejected -= 1;
        }
        self.next_end = self.members.iter().filter_map(Member::ejected_until).min();
    }

    /// Suspends the ejections if too few endpoints are left, and resumes them if there are enough.
    fn weigh_panic(&mut self, events: &mut Vec<OutlierEvent>) {
        let total = self.members.len();
        let ejected = || self.members.iter().filter(|member| member.ejected_until().is_some());
        let in_use =
            |member: &&Member| member.ejected_until().is_none() && member.state.gate() != Gate::Closed;
        // Not counted without need: it looks at every endpoint.
        let available = if self.ejected == 0 { total } else { self.members.iter().filter(in_use).count() };
        let panic = self.ejected > 0 && available * 100 < total * usize::from(self.settings.panic_threshold);
        match (self.panic, panic) {
            (false, true) => {
                for member in ejected() {
                    member.state.lift_ejection();
                }
                events.push(OutlierEvent::PanicBegan { available, total });
            }
            (true, false) => {
                for member in ejected() {
                    member.state.eject();
                }
                events.push(OutlierEvent::PanicEnded);
            }
            _ => {}
        }
        self.panic = panic;
    }
}

impl fmt::Debug for OutlierDetector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutlierDetector")
            .field("endpoints", &self.members.len())
            .field("ejected", &self.ejected())
            .field("panic", &self.panic)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn readmit(member: &mut Member, events: &mut Vec<OutlierEvent>) {
    member.readmit();
    member.state.readmit();
    events.push(OutlierEvent::Readmitted { endpoint: Arc::clone(&member.state) });
}

// === impl EjectionCause ===

impl fmt::Display for EjectionCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConsecutiveFailures(count) => write!(f, "{count} failures in a row"),
            Self::SuccessRate { rate, threshold } => {
                write!(f, "a success rate of {:.1} % below {:.1} %", 100.0 * rate, 100.0 * threshold)
            }
            Self::FailurePercentage(percentage) => write!(f, "{percentage:.1} % of its calls failed"),
        }
    }
}
