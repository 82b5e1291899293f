//! `least_request`: the least loaded of a few.

use crate::choose::{MOST_CHOICES, least_of, lesser_of_two};
use crate::{PickRequest, Picker, Policy, Roster};
use std::sync::Arc;

/// Draws two endpoints at random, or [a few more](Self::with_choices), and takes the one with the fewest calls in flight (power of
/// two choices).
///
/// It needs no knowledge of the whole set, avoids slow endpoints since calls pile up there, and does not herd: clients that
/// see the same loads do not all choose the same endpoint.
///
/// ```
/// use waypost_balance::{LeastRequest, Policy as _};
///
/// assert_eq!(LeastRequest::default().with_choices(5).name(), "least_request");
/// ```
#[derive(Debug, Clone)]
pub struct LeastRequest {
    /// 2 to [`MOST_CHOICES`].
    choices: usize,
}

struct LesserOfTwo {
    ready: Roster,
}

struct LeastOfSome {
    ready: Roster,
    choices: usize,
}

// === impl LeastRequest ===

impl Default for LeastRequest {
    fn default() -> Self {
        Self { choices: 2 }
    }
}

impl LeastRequest {
    /// How many different endpoints are compared, from 2 to 10 as in gRFC A48 (what is less or more counts as those); all, where there
    /// are fewer. 2 by default: more of them share the load a little better where calls are few, and herd more.
    pub fn with_choices(mut self, choices: usize) -> Self {
        self.choices = choices.clamp(2, MOST_CHOICES);
        self
    }
}

impl Policy for LeastRequest {
    fn name(&self) -> &'static str {
        "least_request"
    }

    fn build(&self, ready: Roster, _previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        match self.choices {
            2 => Arc::new(LesserOfTwo { ready }),
            choices => Arc::new(LeastOfSome { ready, choices }),
        }
    }
}

// === impl LesserOfTwo ===

impl Picker for LesserOfTwo {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        let vitals = self.ready.vitals();
        let le = |one: usize, other: usize| vitals[one].in_flight() <= vitals[other].in_flight();
        lesser_of_two(&self.ready, le, request)
    }
}

// === impl LeastOfSome ===

impl Picker for LeastOfSome {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        least_of(&self.ready, self.choices, |index| self.ready.vitals()[index].in_flight(), request)
    }
}
