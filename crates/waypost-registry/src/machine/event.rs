//! What goes into the machine of a registration, and what comes out of it.

use std::sync::Arc;

use waypost_model::Entry;

use crate::machine::view::{Held, Sight};

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// There is a lease to write under.
    Granted { lease: i64 },
    /// There is still no lease.
    GrantFailed { cause: Arc<str> },
    /// The write that [`Member::next`] asked for was done at this revision.
    Written { ticket: Ticket, revision: i64 },
    /// Its guard did not hold; this is what the keys held at revision `at`.
    Refused { ticket: Ticket, at: i64, found: Vec<Option<Held>> },
    /// The write or removal failed, or its outcome is not known.
    Failed { ticket: Ticket, cause: Arc<str> },
    /// A watch saw a key change.
    Seen { part: u8, sight: Sight },
    /// The keys were read after the watch had lost its history; earlier revisions mean nothing any more.
    Checked { at: i64, found: Vec<Option<Held>> },
    /// The lease is not being renewed in time.
    LeaseSuspect { cause: Arc<str> },
    /// The lease is being renewed.
    LeaseAlive,
    /// The lease is gone for good.
    LeaseLost { cause: Arc<str> },
    /// The owner has ended the registration.
    Deregister,
    /// The removal was done, or the lease was revoked.
    Removed,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Rest,
    Put(Write),
    Remove(Removal),
}

/// Put `entries` under `lease`, if `guard` holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Write {
    pub(crate) ticket: Ticket,
    pub(crate) lease: i64,
    pub(crate) entries: Arc<[Entry]>,
    pub(crate) guard: Guard,
}

/// What must hold for a write.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Guard {
    /// Nothing: the first registration under [`Conflict::Replace`].
    Nothing,
    /// Each key was last written at this revision; 0: does not exist.
    Unchanged(Vec<i64>),
}

/// Delete the keys of `entries` that are still attached to `lease`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Removal {
    pub(crate) ticket: Ticket,
    pub(crate) lease: i64,
    pub(crate) entries: Arc<[Entry]>,
}

/// What those who wait for a change to be written are told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Pending,
    Written,
    /// Somebody else has the key.
    Superseded(Arc<str>),
    /// The registration has ended.
    Ended,
}

/// Names one write or removal, so that an answer that comes late is not taken for that of the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

// === impl Ticket ===

impl Ticket {
    /// The next one.
    pub(crate) fn following(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}
