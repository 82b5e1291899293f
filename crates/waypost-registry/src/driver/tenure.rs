//! The lease of a group: granted, kept, lost, granted anew, and in the end revoked.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use waypost_etcd::{Error, KeptLease, Lease, LeaseState};

use crate::{driver::Driver, machine::Event};

/// How long a lease outlives its last key. etcd does not tell a reader why a key was deleted; one whose set is empty
/// by that asks for the lease, and takes a lease that is gone for one that has expired, whose instances may be alive.
/// So the keys are deleted first, and the lease is revoked when such a question has been answered.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Where a group stands with its lease.
pub(crate) enum Tenure {
    /// There is none.
    Vacant,
    /// One has been asked for.
    Granting,
    /// It is kept alive.
    Held { kept: KeptLease, state: watch::Receiver<LeaseState>, suspect: bool },
    /// Everybody has left, some time ago: it is not renewed any more, and is to be revoked.
    Ending { lease: i64, in_flight: bool },
}

// === impl Tenure ===

impl Tenure {
    /// The lease to write under.
    pub(crate) fn lease(&self) -> Option<i64> {
        match self {
            Self::Held { kept, .. } => Some(kept.id()),
            _ => None,
        }
    }

    /// The next state of the lease; never, while there is none. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Option<LeaseState> {
        match self {
            Self::Held { state, .. } => match state.changed().await {
                Ok(()) => Some(state.borrow_and_update().clone()),
                Err(_) => None,
            },
            _ => std::future::pending().await,
        }
    }
}

// === impl Driver ===

impl Driver {
    pub(crate) fn lease_changed(&mut self, changed: Option<LeaseState>) {
        let Tenure::Held { suspect, .. } = &mut self.tenure else { return };
        match changed {
            Some(LeaseState::Alive { .. }) => {
                if std::mem::take(suspect) {
                    self.tell_all(&Event::LeaseAlive);
                }
            }
            Some(LeaseState::Suspect { cause, .. }) => {
                *suspect = true;
                self.tell_all(&Event::LeaseSuspect { cause });
            }
            Some(LeaseState::Lost { cause }) => self.lease_lost(cause.to_string().into()),
            Some(_) => {}
            None => self.lease_lost("the task that renews it has ended".into()),
        }
    }

    /// The lease is gone, and is never used again: everything is put anew under the next one.
    pub(crate) fn lease_lost(&mut self, cause: Arc<str>) {
        let Some(lease) = self.tenure.lease() else { return };
        tracing::warn!(lease, %cause, registrations = self.seats.len(), "lease lost");
        self.context.metrics.leases_lost.inc();
        self.tenure = Tenure::Vacant;
        // What the old watches still have to tell is about keys of the old lease.
        self.watcher = self.context.client.watch();
        self.watches.clear();
        self.unchecked.clear();
        for seat in self.seats.values_mut() {
            seat.watches.clear();
            seat.checking = false;
        }
        self.grant.later();
        self.tell_all(&Event::LeaseLost { cause });
    }

    pub(crate) fn granted(&mut self, result: Result<(Lease, Instant), Error>) {
        match result {
            Ok((lease, asked_at)) => {
                self.context.owned().add(lease.id);
                let kept = self.context.keeper().keep(lease, asked_at);
                let state = kept.state();
                tracing::debug!(lease = lease.id, ttl = ?lease.ttl, "lease granted");
                self.tenure = Tenure::Held { kept, state, suspect: false };
                self.tell_all(&Event::Granted { lease: lease.id });
            }
            Err(error) => {
                self.tenure = Tenure::Vacant;
                self.context.metrics.retries.inc();
                self.grant.later();
                match self.grant.backoff.failures() {
                    1 => tracing::warn!(%error, "no lease was granted, and will be asked for until one is"),
                    attempt => tracing::debug!(%error, attempt, "no lease was granted"),
                }
                self.tell_all(&Event::GrantFailed { cause: error.to_string().into() });
            }
        }
    }

    /// Gives the lease up when nobody needs it any more, and asks for one when somebody does.
    pub(crate) fn review_tenure(&mut self, now: Instant) {
        let wanted = self.seats.values().any(|seat| !seat.member.is_leaving());
        self.vacated = match &self.tenure {
            Tenure::Held { .. } if self.seats.is_empty() => self.vacated.or(Some(now)),
            _ => None,
        };
        match &mut self.tenure {
            Tenure::Held { kept, .. }
                if !self.hold_lease && self.vacated.is_some_and(|vacated| now >= vacated + LINGER) =>
            {
                self.tenure = Tenure::Ending { lease: kept.id(), in_flight: false };
                self.write.at = None;
            }
            Tenure::Vacant if wanted && self.grant.is_due() => {
                self.tenure = Tenure::Granting;
                self.start_grant();
                return;
            }
            _ => {}
        }
        if let Tenure::Ending { lease, in_flight } = &mut self.tenure
            && !*in_flight
            && self.write.is_due()
        {
            *in_flight = true;
            let lease = *lease;
            self.start_revoke(lease);
        }
    }
}
