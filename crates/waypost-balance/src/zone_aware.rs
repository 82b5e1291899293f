//! Zone-aware balancing: the own zone first, and as much of the others as it takes.

use crate::affinity::mix;
use crate::choose::{Rank, rank};
use crate::vitals::Vitals;
use crate::weights::Weights;
use crate::{PickRequest, Picker, Policy, Roster};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Puts the choice of a zone in front of a policy: calls stay in the client's own zone as long as that has the
/// capacity for them, since calls to other zones are slower and cost money; what is too much for it goes to the other
/// zones, in proportion to what they can spare.
///
/// Clients are taken to be spread evenly over the zones. Then a zone has its fair part of the capacity if it has a `1
/// / zones` of the whole, and one that has less keeps
///
/// ```text
/// own = min(1, headroom * capacity(own zone) * zones / capacity(all))
/// ```
///
/// of its calls. The rest goes to each other zone by what it has above the fair part. Capacity is the sum of the
/// weights of the endpoints that take calls now (not ejected, not closed), looked at every 64 picks, or as many as
/// there are endpoints if that is more. This is Envoy's zone-aware routing, with Envoy's overprovisioning factor of
/// 1.4 as the headroom: a zone of unlucky size, or one that has lost a third of its endpoints, still serves itself.
///
/// An endpoint without a zone belongs to a zone of its own kind, which is never the client's. Within a zone the
/// policy picks as it does on its own; a call that the zone cannot take (all tried, all ejected) goes to another one
/// if that can. Calls with a hash choose the zone by it, so they stay together.
///
/// ```
/// use waypost_balance::{PeakEwma, ZoneAware};
///
/// let policy = ZoneAware::new(PeakEwma::default(), "eu-west-1a");
/// ```
#[derive(Debug, Clone)]
pub struct ZoneAware<P> {
    policy: P,
    zone: Arc<str>,
    headroom: f64,
}

struct ZoneAwarePicker {
    /// By name. Empty if there are no endpoints.
    zones: Box<[Zone]>,
    /// The client's own among `zones`.
    own: Option<usize>,
    headroom: f64,
    /// Picks until capacity is looked at again, counted up.
    picks: AtomicU32,
    period: u32,
}

/// The endpoints of one zone.
struct Zone {
    name: Arc<str>,
    members: Roster,
    /// Where the members stand in the whole set.
    places: Box<[usize]>,
    weights: Box<[u32]>,
    picker: Arc<dyn Picker>,
    /// Draws up to here go to this zone, if they have not gone to one before it. Rises from zone to zone.
    upper: AtomicU64,
}

const SHORTEST_PERIOD: u32 = 64;

// === impl ZoneAware ===

impl<P: Policy> ZoneAware<P> {
    /// For a client in `zone`, with a headroom of 1.4.
    pub fn new(policy: P, zone: impl Into<Arc<str>>) -> Self {
        Self { policy, zone: zone.into(), headroom: 1.4 }
    }

    /// How much more than its fair part the own zone is trusted with: 1.4 by default, at least 1.
    pub fn with_headroom(mut self, headroom: f64) -> Self {
        self.headroom = headroom.max(1.0);
        self
    }
}

impl<P: Policy> Policy for ZoneAware<P> {
    fn name(&self) -> &'static str {
        self.policy.name()
    }

    fn build(&self, ready: Roster, previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        let previous = previous.and_then(|previous| (previous as &dyn Any).downcast_ref::<ZoneAwarePicker>());
        let weights = Weights::of(&ready);
        let mut places: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
        for (place, endpoint) in ready.iter().enumerate() {
            let zone = endpoint.instance().zone.as_deref().map(Arc::from).unwrap_or_default();
            places.entry(zone).or_default().push(place);
        }
        let zones: Box<[Zone]> = places
            .into_iter()
            .map(|(name, places)| {
                let members: Roster = places.iter().map(|&place| Arc::clone(&ready[place])).collect();
                let before = previous.and_then(|previous| previous.zone(&name));
                let picker = self.policy.build(members.clone(), before.map(|zone| &*zone.picker));
                let weights = places.iter().map(|&place| weights.get(place)).collect();
                Zone { name, members, places: places.into(), weights, picker, upper: AtomicU64::new(0) }
            })
            .collect();
        let own = zones.iter().position(|zone| !zone.name.is_empty() && zone.name == self.zone);
        let period = u32::try_from(ready.len()).unwrap_or(u32::MAX).max(SHORTEST_PERIOD);
        let picks = AtomicU32::new(1);
        let picker = ZoneAwarePicker { zones, own, headroom: self.headroom, picks, period };
        // Here, for the first pick is not to wait for it; and newcomers count, though their gates are yet to open.
        picker.survey(|vitals| !vitals.is_ejected());
        Arc::new(picker)
    }
}

// === impl ZoneAwarePicker ===

impl ZoneAwarePicker {
    fn zone(&self, name: &str) -> Option<&Zone> {
        self.zones.iter().find(|zone| &*zone.name == name)
    }

    /// Shares the calls out anew, by what counts.
    fn survey(&self, counts: impl Fn(&Vitals) -> bool) {
        let capacity = |zone: &Zone| zone.capacity(&counts);
        let all: f64 = self.zones.iter().map(capacity).sum();
        // The client's own zone counts even if nothing is left of it.
        let count = self.zones.len() + usize::from(self.own.is_none());
        #[expect(clippy::cast_precision_loss, reason = "a number of zones")]
        let fair = all / count as f64;
        let own = self.own.map_or(0.0, |own| capacity(&self.zones[own]));
        let kept = if own > 0.0 { (self.headroom * own / fair).min(1.0) } else { 0.0 };
        let others = || self.zones.iter().enumerate().filter(|&(at, _)| Some(at) != self.own);
        let spare: f64 = others().map(|(_, zone)| (capacity(zone) - fair).max(0.0)).sum();
        let rest: f64 = others().map(|(_, zone)| capacity(zone)).sum();
        let mut upper = 0.0;
        for (at, zone) in self.zones.iter().enumerate() {
            upper += match capacity(zone) {
                _ if Some(at) == self.own => kept,
                capacity if spare > 0.0 => (1.0 - kept) * (capacity - fair).max(0.0) / spare,
                capacity if rest > 0.0 => (1.0 - kept) * capacity / rest,
                _ => 0.0,
            };
            zone.upper.store(fraction_of_u64(upper), Ordering::Relaxed);
        }
    }

    fn drawn(&self, request: &PickRequest<'_>) -> usize {
        // Mixed, since the zone's policy uses the same hash: each zone is to see all of it.
        let draw = request.hash.map_or_else(request.random, |hash| mix(hash, 0x7a6f_6e65));
        let drawn = self.zones.iter().position(|zone| draw < zone.upper.load(Ordering::Relaxed));
        // Where nothing takes calls, and where rounding leaves a gap at the top.
        drawn.or(self.own).unwrap_or(0)
    }
}

impl Picker for ZoneAwarePicker {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        if self.picks.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.period) {
            self.survey(Vitals::admits);
        }
        let drawn = self.drawn(request);
        let first = self.zones.get(drawn)?.pick(request);
        if let Some((place, Rank::Fresh)) = first {
            return Some(place);
        }
        // The own zone, then the others from the drawn one on, so that not all go to the same.
        let round = (drawn + 1..self.zones.len()).chain(0..drawn);
        let mut best = first;
        for at in self.own.into_iter().chain(round).filter(|&at| at != drawn) {
            match (self.zones[at].pick(request), best) {
                (Some((place, Rank::Fresh)), _) => return Some(place),
                (Some((place, rank)), Some((_, known))) if rank < known => best = Some((place, rank)),
                (Some(found), None) => best = Some(found),
                _ => {}
            }
        }
        best.map(|(place, _)| place)
    }
}

// === impl Zone ===

impl Zone {
    #[expect(clippy::cast_precision_loss, reason = "a share is worked out of it")]
    fn capacity(&self, counts: impl Fn(&Vitals) -> bool) -> f64 {
        let open = self.members.vitals().iter().zip(&self.weights).filter(|(vitals, _)| counts(vitals));
        open.map(|(_, &weight)| u64::from(weight)).sum::<u64>() as f64
    }

    fn pick(&self, request: &PickRequest<'_>) -> Option<(usize, Rank)> {
        let picked = self.picker.pick(request)?;
        Some((*self.places.get(picked)?, rank(&self.members, picked, request)?))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "`as` saturates: 1 and more is all"
)]
fn fraction_of_u64(fraction: f64) -> u64 {
    (fraction * u64::MAX as f64) as u64
}
