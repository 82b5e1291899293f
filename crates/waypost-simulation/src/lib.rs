//! Balancing policies in virtual time: fleets to pick from, servers with queues, and the figures of `docs/balancing.md`.
//!
//! Everything is drawn from [`Dice`] with a seed, so that a run can be repeated. For the tests of `waypost-balance`, its
//! benchmarks, and the program `simulate-balancing`.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    reason = "fleets are made of constants, and a simulation that is wrong must stop"
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and times of simulations are small"
)]
#![allow(clippy::missing_panics_doc, reason = "as above")]

mod dice;
mod fleet;
mod plot;
mod queues;
mod report;
mod subsets;

pub use dice::Dice;
pub use fleet::{OPEN, Ready, Sketch, every_policy, fleet, open, shares, warm, weighted};
pub use plot::plot;
pub use queues::{Call, Conduct, Simulation, percentile};
pub use report::{BEGIN, END, tables};
pub use subsets::{google, moved, numbered, servers, subset, unevenness};
