//! Picking an endpoint for a call: policies and load, without I/O.
//!
//! The split is gRPC's. Something above (the channel) keeps connections and knows which endpoints are ready; a [`Policy`]
//! builds a [`Picker`] for each new set of ready endpoints; a pick is wait-free, allocates nothing and never blocks.
//! Everything here is deterministic: time comes as an argument, randomness comes from the caller, and there is no runtime.
//!
//! Three things meet in a pick:
//!
//! * [`EndpointState`], one for each endpoint, shared between the picker and the calls under way: calls in flight,
//!   successes and failures, latency, and the [`Gate`] that says whether it takes calls at this instant;
//! * [`Policy`] and the [`Picker`] that it builds;
//! * [`PickRequest`], what one call says of itself: the time, its hash, the endpoints that it has already tried.
//!
//! # Which policy
//!
//! | policy | what it does | for |
//! |---|---|---|
//! | [`RoundRobin`] | in turn | calls that cost the same, on servers that are alike |
//! | [`Random`] | any | the same, with many clients of few calls each |
//! | [`WeightedRoundRobin`] | in turn, by weight | servers of different size |
//! | [`LeastRequest`] | the less loaded of two | calls of different cost |
//! | [`PeakEwma`] | the one of two that will answer sooner | servers of which some are slow at times |
//! | [`RingHash`] | by hash; only what must moves when the set changes | caches and sessions |
//! | [`Maglev`] | by hash; even, and fast for large sets | caches of large fleets |
//!
//! Two stand in front of any of them: [`ZoneAware`] keeps calls in the client's zone while that has the capacity, and
//! [`SlowStart`] lets an endpoint that has come, or come back, have its share by and by. `ZoneAware` goes outside:
//! `ZoneAware::new(SlowStart::new(PeakEwma::default()), "eu-west-1a")`.
//!
//! Beside them, [`OutlierDetector`] sets endpoints aside whose calls go badly, and [`Subset`] says which endpoints of a
//! large fleet a client connects to at all.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Instant;
//! use waypost_balance::{EndpointState, Outcome, PickRequest, Policy, RoundRobin, Roster};
//! use waypost_model::{Endpoint, Instance, InstanceKey, ServiceName};
//!
//! let service = ServiceName::new("greeter")?;
//! let now = Instant::now();
//! let ready: Roster = (1..=3)
//!     .map(|n| {
//!         let endpoint = Endpoint::new(format!("10.0.0.{n}"), 50051)?;
//!         let instance = Arc::new(Instance::new(service.clone(), endpoint.clone()));
//!         let key = InstanceKey::of(&instance, 0);
//!         let state = Arc::new(EndpointState::new(key, endpoint, instance, now));
//!         state.open();
//!         Ok(state)
//!     })
//!     .collect::<Result<_, waypost_model::InvalidEndpoint>>()?;
//! let picker = RoundRobin::default().build(ready.clone(), None);
//!
//! let index = picker.pick(&PickRequest::new(now, &|| 7)).expect("three endpoints are open");
//! let call = ready[index].started(now);
//! assert_eq!(ready[index].in_flight(), 1);
//! call.finished(now, Outcome::Ok);
//! assert_eq!(ready[index].in_flight(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod affinity;
mod choose;
mod client_number;
mod endpoint;
#[cfg(test)]
mod fixture;
mod latency;
mod least_request;
mod maglev;
mod outlier;
mod padded;
mod peak_ewma;
mod policy;
mod random;
mod ring_hash;
mod roster;
mod round_robin;
mod schedule;
mod slow_start;
mod subset;
mod turns;
mod vitals;
mod weighted_round_robin;
mod weights;
mod zone_aware;

pub use affinity::hash_key;
pub use client_number::{ClientNumber, InvalidClientNumber};
pub use endpoint::{EndpointState, Gate, Outcome, Started};
pub use least_request::LeastRequest;
pub use maglev::Maglev;
pub use outlier::{
    EjectionCause, FailurePercentage, OutlierDetector, OutlierEvent, OutlierSettings, SuccessRate,
};
pub use peak_ewma::PeakEwma;
pub use policy::{PickRequest, Picker, Policy};
pub use random::Random;
pub use ring_hash::RingHash;
pub use roster::Roster;
pub use round_robin::RoundRobin;
pub use slow_start::SlowStart;
pub use subset::Subset;
pub use weighted_round_robin::WeightedRoundRobin;
pub use zone_aware::ZoneAware;
