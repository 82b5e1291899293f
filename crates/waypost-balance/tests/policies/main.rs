//! The policies over random fleets, and the hazards as simulations in virtual time.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "counts and times of tests are small"
)]

mod allocations;
mod hashing;
mod hazards;
mod outliers;
mod pickers;
mod slow_start;
mod subsets;
mod weighted;
mod zones;
