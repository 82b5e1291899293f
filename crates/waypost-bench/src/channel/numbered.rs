//! A policy that tells by which table a pick was made.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use waypost_balance::{PickRequest, Picker, Policy, Roster};

/// A policy that tells by which of its pickers, counted from 1, the last pick was made. For one picking thread.
#[derive(Debug)]
pub(crate) struct Numbered {
    policy: Arc<dyn Policy>,
    built: AtomicUsize,
    used: Arc<AtomicUsize>,
}

struct NumberedPicker {
    picker: Arc<dyn Picker>,
    number: usize,
    used: Arc<AtomicUsize>,
}

// === impl Numbered ===

impl Numbered {
    /// The policy, and where the number is.
    pub(crate) fn new(policy: Arc<dyn Policy>) -> (Self, Arc<AtomicUsize>) {
        let used = Arc::new(AtomicUsize::new(0));
        (Self { policy, built: AtomicUsize::new(0), used: Arc::clone(&used) }, used)
    }
}

impl Policy for Numbered {
    fn name(&self) -> &'static str {
        self.policy.name()
    }

    fn build(&self, ready: Roster, previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        let previous =
            previous.and_then(|previous| (previous as &dyn std::any::Any).downcast_ref::<NumberedPicker>());
        let picker = self.policy.build(ready, previous.map(|previous| &*previous.picker));
        let number = self.built.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(NumberedPicker { picker, number, used: Arc::clone(&self.used) })
    }
}

// === impl NumberedPicker ===

impl Picker for NumberedPicker {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        self.used.store(self.number, Ordering::Relaxed);
        self.picker.pick(request)
    }
}
