//! A registration as the driver of its group holds it: the machine, what it publishes, and who waits for it.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use waypost_etcd::WatchId;
use waypost_model::{Field, Instance};

use crate::{
    error::RegisterError,
    machine::{Member, Outcome},
    metrics::Metrics,
    state::RegistrationState,
};

/// Names a registration for the life of its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SeatId(pub(crate) u64);

/// A registration in its group.
pub(crate) struct Seat {
    pub(crate) member: Member,
    pub(crate) published: Arc<Published>,
    /// The watches of its keys; empty until the keys were seen under the present lease.
    pub(crate) watches: Vec<WatchId>,
    /// Its last transaction was refused together with others: the next one is for it alone.
    pub(crate) alone: bool,
    /// Its watch has lost its history and its keys are being read.
    pub(crate) checking: bool,
    changes: Vec<Reply>,
    removals: Vec<Reply>,
}

/// What the owner of a registration sees of it.
#[derive(Debug)]
pub(crate) struct Published {
    /// `service/id`.
    pub(crate) name: Arc<str>,
    /// The name that it has taken in the registry; `None` where the lease is part of the key.
    pub(crate) taken: Option<Vec<u8>>,
    pub(crate) lost: Vec<Field>,
    pub(crate) state: watch::Sender<RegistrationState>,
    pub(crate) instance: watch::Sender<Arc<Instance>>,
    /// Set before the state becomes `Refused`.
    pub(crate) refusal: OnceLock<RegisterError>,
}

/// Whom to tell when something is done.
pub(crate) type Reply = Box<dyn FnOnce(Result<(), RegisterError>) + Send>;

/// A reply for each of those whom a command concerns.
pub(crate) type Replies = Box<dyn FnMut() -> Reply + Send>;

// === impl Seat ===

impl Seat {
    pub(crate) fn new(member: Member, published: Arc<Published>) -> Self {
        Self {
            member,
            published,
            watches: Vec::new(),
            alone: false,
            checking: false,
            changes: Vec::new(),
            removals: Vec::new(),
        }
    }

    /// Tells `reply` when what is wanted is written, or cannot be.
    pub(crate) fn when_written(&mut self, reply: Reply) {
        self.changes.push(reply);
    }

    /// Tells `reply` when the keys are gone.
    pub(crate) fn when_removed(&mut self, reply: Reply) {
        self.removals.push(reply);
    }

    /// Publishes what has changed, and tells those whose wait is over.
    pub(crate) fn publish(&mut self, metrics: &Metrics) {
        let published = &self.published;
        if let Some((key, lease)) = self.member.refusal() {
            // A second refusal cannot come: the first is final.
            let _ = published.refusal.set(RegisterError::Conflict { key, lease });
        }
        if !Arc::ptr_eq(&published.instance.borrow(), self.member.instance()) {
            published.instance.send_replace(Arc::clone(self.member.instance()));
        }
        if let Some(state) = self.member.state() {
            published.enter(state, self.member.instance(), metrics);
        }
        let ended = || RegisterError::Deregistered { instance: Arc::clone(&published.name) };
        let outcome = match self.member.outcome() {
            Outcome::Pending => None,
            Outcome::Written => Some(Ok(())),
            Outcome::Superseded(cause) => {
                Some(Err(RegisterError::Superseded { instance: Arc::clone(&published.name), cause }))
            }
            Outcome::Ended => Some(Err(published.refusal.get().cloned().unwrap_or_else(ended))),
        };
        if let Some(outcome) = outcome {
            for reply in self.changes.drain(..) {
                reply(outcome.clone());
            }
        }
        if self.member.is_over() {
            for reply in self.removals.drain(..) {
                reply(Ok(()));
            }
        }
    }
}

// === impl Published ===

impl Published {
    /// Nobody is at work for it any more.
    pub(crate) fn abandon(&self, metrics: &Metrics) {
        let instance = Arc::clone(&self.instance.borrow());
        self.enter(RegistrationState::Deregistered, &instance, metrics);
    }

    fn enter(&self, state: RegistrationState, instance: &Instance, metrics: &Metrics) {
        let before = self.state.borrow().clone();
        if before == state {
            return;
        }
        let (service, id) = (instance.service.as_str(), instance.id.as_str());
        if before.name() != state.name() {
            metrics.moved(service, Some(&before), &state);
            match &state {
                RegistrationState::Registered { lease, revision } => {
                    tracing::info!(service, id, lease, revision, "registered");
                }
                RegistrationState::Suspect { cause } => {
                    tracing::warn!(service, id, %cause, "registration is suspect");
                }
                RegistrationState::Refused { cause } => {
                    tracing::error!(service, id, %cause, "registration is refused");
                }
                state => tracing::info!(service, id, %state, "registration changed"),
            }
        }
        self.state.send_replace(state);
    }
}
