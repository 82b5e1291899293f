//! What every benchmark shares: a figure, its goal, and one line that says whether it was met.
//!
//! A figure is measured in several rounds, ours and the peer's interleaved, so that what the machine does meanwhile
//! falls on both. What is reported is the median of the rounds' ratios; the spread stands on the line below.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot go on has no figure to report")]

mod machine;

pub use machine::Machine;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use std::time::Duration;

/// A figure that an issue asks for.
#[derive(Clone, Copy, Debug)]
pub struct Figure<'a> {
    /// Its name, one word.
    pub name: &'a str,
    /// What it is.
    pub unit: Unit,
    /// What it should be.
    pub goal: Goal,
}

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Ours divided by the peer's.
    Ratio,
    /// A plain number; the name says of what.
    Count,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

// === impl Figure ===

impl Figure<'_> {
    /// Prints the line `figure NAME ratio R goal G met|short` for the median of the rounds, and their spread.
    /// Answers whether the goal was met.
    pub fn report(&self, rounds: &[f64]) -> bool {
        let value = median(rounds);
        let (met, goal) = match self.goal {
            Goal::AtMost(goal) => (value <= goal, goal),
            Goal::AtLeast(goal) => (value >= goal, goal),
        };
        let unit = self.unit.name();
        let verdict = if met { "met" } else { "short" };
        println!("figure {} {unit} {} goal {goal} {verdict}", self.name, rounded(value));
        let (low, high) = spread(rounds);
        println!("  {} rounds, {} to {}", rounds.len(), rounded(low), rounded(high));
        met
    }

    /// Prints the line of a figure that cannot be measured here, and why. That is short of any goal.
    pub fn unmeasured(&self, why: &str) {
        let (Goal::AtMost(goal) | Goal::AtLeast(goal)) = self.goal;
        println!("figure {} {} none goal {goal} short", self.name, self.unit.name());
        println!("  not measured: {why}");
    }
}

// === impl Unit ===

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Ratio => "ratio",
            Self::Count => "count",
        }
    }
}

/// The middle of the values; the mean of the two middle ones where their number is even. Zero for none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The median of durations, in seconds.
pub fn median_seconds(durations: &[Duration]) -> f64 {
    median(&durations.iter().map(Duration::as_secs_f64).collect::<Vec<_>>())
}

/// CPU time of this process, all its threads, user and system, in microseconds.
///
/// # Panics
///
/// If the system does not tell.
pub fn own_cpu_micros() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage");
    u64::try_from(usage.user_time().num_microseconds() + usage.system_time().num_microseconds()).unwrap_or(0)
}

/// The least and the greatest of the values.
pub fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, 0.0), |(low, high), value| (low.min(*value), f64::max(high, *value)))
}

/// Three significant digits.
fn rounded(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    #[expect(clippy::cast_possible_truncation, reason = "a decimal exponent of a measured value is small")]
    let digits = 2 - value.abs().log10().floor() as i32;
    format!("{:.*}", usize::try_from(digits).unwrap_or(0), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_digits() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0]) - 2.5).abs() < f64::EPSILON);
        assert_eq!(rounded(1.23456), "1.23");
        assert_eq!(rounded(1234.6), "1235");
        assert_eq!(rounded(0.001_234), "0.00123");
    }

    #[test]
    fn a_goal_is_met_from_its_side() {
        let figure = |goal| Figure { name: "x", unit: Unit::Ratio, goal };
        assert!(figure(Goal::AtMost(1.2)).report(&[1.0, 1.1, 1.9]));
        assert!(!figure(Goal::AtLeast(2.0)).report(&[1.0, 1.1, 3.0]));
    }
}
