//! What happens to the fleet, and when.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

/// Servers at the start.
pub(super) const SERVERS: usize = 3;

/// Something that happens to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    /// SIGKILL.
    Kill,
    /// SIGTERM: drained, deregistered, stopped.
    Drain,
    /// A new one is started.
    Join,
}

/// An action and its time after the first call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) at: Duration,
    pub(super) action: Action,
}

/// The steps, spread evenly over the duration.
pub(super) fn steps(duration: Duration) -> VecDeque<Step> {
    let step = |quarter, action| Step { at: duration * quarter / 4, action };
    [step(1, Action::Kill), step(2, Action::Drain), step(3, Action::Join)].into()
}

// === impl Action ===

impl Action {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Drain => "drain",
            Self::Join => "join",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_happens_within_the_duration() {
        let steps = steps(Duration::from_secs(20));
        let times: Vec<u64> = steps.iter().map(|step| step.at.as_secs()).collect();
        assert_eq!(times, [5, 10, 15]);
    }
}
