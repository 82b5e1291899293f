//! The policy of a channel, as users and configurations name it.

use http::HeaderName;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use waypost_balance::{
    LeastRequest, Maglev, PeakEwma, Picker, Policy as Rule, Random, RingHash, Roster, RoundRobin, SlowStart,
    WeightedRoundRobin, ZoneAware,
};

/// How a channel spreads its calls.
///
/// | name | what it does | made by |
/// |---|---|---|
/// | `round_robin` | in turn: the default | [`round_robin`](Self::round_robin) |
/// | `random` | any | [`random`](Self::random) |
/// | `weighted_round_robin` | in turn, by weight | [`weighted_round_robin`](Self::weighted_round_robin) |
/// | `least_request` | the less loaded of two | [`least_request`](Self::least_request) |
/// | `peak_ewma` | the one of two that will answer sooner | [`peak_ewma`](Self::peak_ewma), or [`PeakEwma`] with options |
/// | `ring_hash` | by hash, by a ring of points | [`ring_hash`](Self::ring_hash), or [`RingHash`] with options |
/// | `maglev` | by hash, by a table | [`maglev`](Self::maglev), or [`Maglev`] with options |
///
/// Under the last two, calls with the same key go to the same endpoint: the key is the [`HashKey`](crate::HashKey) of
/// the call, or else what it has in the [header](Self::hash_on_header) that is named here. A call without either goes anywhere.
///
/// What stands in front of a policy (zones, slow start) is the client's affair, not the policy's: see
/// [`ChannelBuilder::zone`](crate::ChannelBuilder::zone) and [`ChannelBuilder::slow_start`](crate::ChannelBuilder::slow_start).
///
/// ```
/// use std::time::Duration;
/// use waypost_channel::{Policy, balance::PeakEwma};
///
/// let by_name: Policy = "maglev".parse()?;
/// let by_user = by_name.hash_on_header(http::HeaderName::from_static("x-user"));
/// let patient = Policy::from(PeakEwma::default().with_decay(Duration::from_secs(60)));
/// assert_eq!((by_user.name(), patient.name()), ("maglev", "peak_ewma"));
/// # Ok::<(), waypost_channel::UnknownPolicy>(())
/// ```
#[derive(Clone)]
pub struct Policy {
    rule: Arc<dyn Rule>,
    hash_header: Option<HeaderName>,
}

/// The rule, and picks by chance while it panics: it may be anybody's, and what it does not get right is not to end the channel.
#[derive(Debug)]
struct Steady(Arc<dyn Rule>);

/// What stands in front of the policy, whichever it is: the client's affair.
#[derive(Debug, Clone, Default)]
pub(crate) struct Front {
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) zone_headroom: Option<f64>,
    pub(crate) slow_start: Option<Duration>,
}

/// There is no policy of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no policy {name:?}: known are {}", Policy::NAMES.join(", "))]
pub struct UnknownPolicy {
    /// What was asked for.
    pub name: String,
}

// === impl Policy ===

impl Policy {
    /// Every name that [`FromStr`] takes.
    pub const NAMES: [&'static str; 7] = [
        "round_robin",
        "random",
        "weighted_round_robin",
        "least_request",
        "peak_ewma",
        "ring_hash",
        "maglev",
    ];

    /// The endpoints in turn, from a random one on.
    pub fn round_robin() -> Self {
        RoundRobin::starting_at(fastrand::usize(..)).into()
    }

    /// Any endpoint.
    pub fn random() -> Self {
        Random.into()
    }

    /// The endpoints in turn, as often as the weights that they are registered with say; from a random one on.
    pub fn weighted_round_robin() -> Self {
        WeightedRoundRobin::starting_at(fastrand::usize(..)).into()
    }

    /// Of two endpoints the one with fewer calls under way.
    pub fn least_request() -> Self {
        LeastRequest::default().into()
    }

    /// Of two endpoints the one that is expected to answer sooner.
    pub fn peak_ewma() -> Self {
        PeakEwma::default().into()
    }

    /// By the key of the call, by a ring of points.
    pub fn ring_hash() -> Self {
        RingHash::default().into()
    }

    /// By the key of the call, by a table.
    pub fn maglev() -> Self {
        Maglev::default().into()
    }

    /// A policy of one's own, or one of [`balance`](crate::balance)'s with options.
    ///
    /// While one's own panics where it [builds](Rule::build) a picker, which is logged as an error, calls go to any endpoint that what stands in
    /// front of it (zones, slow start) has left to choose from.
    pub fn custom(rule: impl Rule + 'static) -> Self {
        Self { rule: Arc::new(rule), hash_header: None }
    }

    /// Takes the key of a call that brings no [`HashKey`](crate::HashKey) from this header. Several values count as one, joined
    /// by commas, as in gRFC A76. Without effect under the policies that do not hash.
    pub fn hash_on_header(mut self, header: impl Into<Option<HeaderName>>) -> Self {
        self.hash_header = header.into();
        self
    }

    /// The header that [`hash_on_header`](Self::hash_on_header) has named.
    pub fn hash_header(&self) -> Option<&HeaderName> {
        self.hash_header.as_ref()
    }

    /// The name, as configuration and metrics have it.
    pub fn name(&self) -> &'static str {
        self.rule.name()
    }

    /// A picker for nothing.
    pub(crate) fn idle(&self) -> Arc<dyn Picker> {
        self.steady().build(Roster::default(), None)
    }

    fn steady(&self) -> Steady {
        Steady(Arc::clone(&self.rule))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::round_robin()
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        Ok(match name {
            "round_robin" => Self::round_robin(),
            "random" => Self::random(),
            "weighted_round_robin" => Self::weighted_round_robin(),
            "least_request" => Self::least_request(),
            "peak_ewma" => Self::peak_ewma(),
            "ring_hash" => Self::ring_hash(),
            "maglev" => Self::maglev(),
            _ => return Err(UnknownPolicy { name: name.to_owned() }),
        })
    }
}

macro_rules! from_rule {
    ($($rule:ty),*) => {
        $(impl From<$rule> for Policy {
            fn from(rule: $rule) -> Self {
                Self::custom(rule)
            }
        })*
    };
}

from_rule!(RoundRobin, Random, WeightedRoundRobin, LeastRequest, PeakEwma, RingHash, Maglev);

impl<P: Rule + 'static> From<SlowStart<P>> for Policy {
    fn from(rule: SlowStart<P>) -> Self {
        Self::custom(rule)
    }
}

impl<P: Rule + 'static> From<ZoneAware<P>> for Policy {
    fn from(rule: ZoneAware<P>) -> Self {
        Self::custom(rule)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("rule", &self.rule).field("hash_header", &self.hash_header).finish()
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

// === impl Steady ===

impl Rule for Steady {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn build(&self, ready: Roster, previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        let by_rule = {
            let ready = ready.clone();
            // Nothing that it may have left half done is used again but by itself: pickers share what they know by atomics.
            panic::catch_unwind(AssertUnwindSafe(|| self.0.build(ready, previous)))
        };
        by_rule.unwrap_or_else(|_| {
            tracing::error!(
                policy = self.name(),
                "the policy has panicked: until it builds a picker, calls go anywhere"
            );
            Random.build(ready, None)
        })
    }
}

// === impl Front ===

impl Front {
    /// `policy` with what stands in front of it: the zone is chosen first, and within it slow start may refuse.
    pub(crate) fn of(&self, policy: &Policy) -> Arc<dyn Rule> {
        let mut rule: Arc<dyn Rule> = Arc::new(policy.steady());
        if let Some(window) = self.slow_start {
            rule = Arc::new(SlowStart::new(rule).with_window(window));
        }
        let Some(zone) = &self.zone else { return rule };
        let zoned = ZoneAware::new(rule, Arc::clone(zone));
        Arc::new(match self.zone_headroom {
            Some(headroom) => zoned.with_headroom(headroom),
            None => zoned,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Instant;
    use waypost_balance::{EndpointState, PickRequest};
    use waypost_model::{Endpoint, Instance, InstanceKey};

    fn endpoint(n: u8, zone: &str, now: Instant) -> Arc<EndpointState> {
        let endpoint = Endpoint::new(format!("10.0.0.{n}"), 50051).unwrap();
        let instance = Instance::new("greeter".parse().unwrap(), endpoint.clone()).with_zone(zone);
        let key = InstanceKey::of(&instance, 0);
        let state = EndpointState::new(key, endpoint, Arc::new(instance), now);
        state.open();
        Arc::new(state)
    }

    /// How many of 3,000 picks go to the endpoint at `index`.
    fn share(picker: &dyn Picker, index: usize, now: Instant) -> usize {
        let rng = std::cell::RefCell::new(fastrand::Rng::with_seed(7));
        let random = || rng.borrow_mut().u64(..);
        let picks = (0..3000).map(|_| picker.pick(&PickRequest::new(now, &random)));
        picks.filter(|pick| *pick == Some(index)).count()
    }

    #[test]
    fn slow_start_stands_in_front_of_the_policy_and_zones_in_front_of_both() {
        let (now, window) = (Instant::now(), Duration::from_secs(30));
        let fleet: Vec<_> =
            [(1, "a"), (2, "a"), (3, "a"), (4, "b")].map(|(n, zone)| endpoint(n, zone, now)).into();
        let front = Front { zone: Some("a".into()), zone_headroom: Some(4.0), slow_start: Some(window) };
        let rule = front.of(&Policy::round_robin());
        let before = rule.build(Roster::from_iter([0, 1, 3].map(|at| Arc::clone(&fleet[at]))), None);
        share(&*before, 0, now);
        let now = now + window;
        let picker = rule.build(fleet.into(), Some(&*before));
        // It has just joined: a tenth of its part, to begin with.
        assert!((50..300).contains(&share(&*picker, 2, now)), "{}", share(&*picker, 2, now));
        assert_eq!(share(&*picker, 2, now + window), 1000);
        assert_eq!(share(&*picker, 3, now + window), 0);
    }

    #[derive(Debug)]
    struct Panics;

    impl Rule for Panics {
        fn name(&self) -> &'static str {
            "panics"
        }

        fn build(&self, _ready: Roster, _previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
            panic!("as it is told to")
        }
    }

    #[test]
    fn what_stands_in_front_of_a_policy_that_panics_goes_on() {
        let (now, window) = (Instant::now(), Duration::from_secs(30));
        let fleet: Vec<_> = [(1, "a"), (2, "a"), (3, "b")].map(|(n, zone)| endpoint(n, zone, now)).into();
        let front = Front { zone: Some("a".into()), zone_headroom: Some(4.0), slow_start: Some(window) };
        let rule = front.of(&Policy::custom(Panics));
        let before = rule.build(Roster::from_iter([0, 2].map(|at| Arc::clone(&fleet[at]))), None);
        assert_eq!(share(&*before, 1, now), 0, "the other zone");
        let now = now + window;
        let picker = rule.build(fleet.into(), Some(&*before));
        // Which of the two has just joined is not forgotten.
        assert!((50..500).contains(&share(&*picker, 1, now)), "{}", share(&*picker, 1, now));
        assert_eq!(share(&*picker, 2, now), 0);
    }

    #[test]
    fn every_name_is_that_of_its_policy() {
        for name in Policy::NAMES {
            assert_eq!(name.parse::<Policy>().unwrap().name(), name);
        }
        let error = "pick_first".parse::<Policy>().unwrap_err().to_string();
        assert!(error.contains("pick_first") && error.contains("weighted_round_robin"), "{error}");
    }
}
