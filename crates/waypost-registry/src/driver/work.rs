//! Requests to etcd: started with a permit each, and what their answers mean.

use std::{future::Future, sync::Arc};

use tokio::time::Instant;
use waypost_etcd::{Error, ErrorKind, Lease, TxnResponse};

use crate::{
    driver::{
        Driver, SeatId, exchange,
        exchange::{Checks, Puts, Removals},
        tenure::Tenure,
    },
    machine::{Event, Step},
};

/// A request that has been answered.
pub(crate) enum Done {
    Granted(Result<(Lease, Instant), Error>),
    Put { puts: Puts, result: Result<TxnResponse, Error> },
    Removed { removals: Removals, result: Result<TxnResponse, Error> },
    Checked { lease: i64, checks: Checks, result: Result<TxnResponse, Error> },
    Revoked { lease: i64, result: Result<(), Error> },
}

// === impl Driver ===

impl Driver {
    /// Starts everything that can be started.
    pub(crate) fn flush(&mut self) {
        let now = Instant::now();
        self.grant.advance(now);
        self.write.advance(now);
        self.check.advance(now);
        self.review_tenure(now);
        if self.write.is_due() {
            let failed = std::mem::take(&mut self.failed);
            self.ready.extend(failed);
        }
        let mut puts = Vec::new();
        let mut removals = Vec::new();
        // While the lease is being revoked its keys go with it.
        let revoking = matches!(self.tenure, Tenure::Ending { .. });
        for id in std::mem::take(&mut self.ready) {
            let Some(seat) = self.seats.get_mut(&id) else { continue };
            if revoking && seat.member.is_leaving() {
                continue;
            }
            self.failed.remove(&id);
            match seat.member.next() {
                Step::Rest => {}
                Step::Put(write) => puts.push((id, write, seat.alone)),
                Step::Remove(removal) => removals.push((id, removal, seat.alone)),
            }
            if seat.member.is_over() {
                self.after(id);
            }
        }
        for puts in exchange::pack_puts(puts) {
            let client = self.context.client.clone();
            self.start(async move {
                let result = client.txn(exchange::put_transaction(&puts)).await;
                Done::Put { puts, result }
            });
        }
        for removals in exchange::pack_removals(removals) {
            let client = self.context.client.clone();
            self.start(async move {
                let result = client.txn(exchange::removal_transaction(&removals)).await;
                Done::Removed { removals, result }
            });
        }
        self.start_checks();
    }

    pub(crate) fn start_grant(&mut self) {
        let (client, ttl) = (self.context.client.clone(), self.context.options.ttl);
        self.start(async move {
            let asked_at = Instant::now();
            Done::Granted(client.lease_grant(ttl, None).await.map(|lease| (lease, asked_at)))
        });
    }

    pub(crate) fn start_revoke(&mut self, lease: i64) {
        let client = self.context.client.clone();
        self.start(async move { Done::Revoked { lease, result: client.lease_revoke(lease).await } });
    }

    fn start_checks(&mut self) {
        let Some(lease) = self.tenure.lease().filter(|_| self.check.is_due()) else { return };
        let checks: Checks = std::mem::take(&mut self.unchecked)
            .into_iter()
            .filter_map(|id| Some((id, Arc::clone(self.seats.get(&id)?.member.leased_entries()?))))
            .collect();
        for checks in exchange::pack_checks(checks) {
            let client = self.context.client.clone();
            self.start(async move {
                let result = client.txn(exchange::check_transaction(&checks)).await;
                Done::Checked { lease, checks, result }
            });
        }
    }

    /// Runs a request when the registry has a permit for it.
    fn start(&self, request: impl Future<Output = Done> + Send + 'static) {
        let permits = Arc::clone(&self.context.permits);
        self.work.push(Box::pin(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire_owned().await;
            request.await
        }));
    }

    pub(crate) fn done(&mut self, done: Done) {
        match done {
            Done::Granted(result) => self.granted(result),
            Done::Put { puts, result } => self.put_answered(puts, result),
            Done::Removed { removals, result } => match result {
                Ok(_) => {
                    self.write_succeeded();
                    for (id, _) in removals {
                        self.tell(id, Event::Removed);
                    }
                }
                Err(error) => {
                    let tickets = removals.iter().map(|(id, removal)| (*id, removal.ticket)).collect();
                    self.write_failed(tickets, &error);
                }
            },
            Done::Checked { lease, checks, result } => self.check_answered(lease, checks, result),
            Done::Revoked { lease, result } => self.revoked(lease, result),
        }
    }

    fn put_answered(&mut self, puts: Puts, result: Result<TxnResponse, Error>) {
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                let lease = puts.first().map(|(_, write)| write.lease);
                let tickets = puts.iter().map(|(id, write)| (*id, write.ticket)).collect();
                self.write_failed(tickets, &error);
                if error.kind() == ErrorKind::LeaseNotFound && lease == self.tenure.lease() {
                    self.lease_lost(error.to_string().into());
                }
                return;
            }
        };
        let revision = exchange::revision(&answer).unwrap_or_default();
        if answer.succeeded {
            self.write_succeeded();
            self.grant.succeed();
            for (id, write) in puts {
                self.context.metrics.puts.inc_by(write.entries.len() as u64);
                if let Some(seat) = self.seats.get_mut(&id) {
                    seat.alone = false;
                }
                self.tell(id, Event::Written { ticket: write.ticket, revision });
            }
            return;
        }
        let lease = self.tenure.lease();
        let mut found = exchange::found(answer);
        for (id, write) in puts {
            let found = {
                let owned = self.context.owned();
                (0..write.entries.len())
                    .map(|_| found.next().flatten().map(|kv| exchange::held(&kv, &owned, lease)))
                    .collect()
            };
            self.tell(id, Event::Refused { ticket: write.ticket, at: revision, found });
        }
    }

    /// The schedule starts anew only when nobody waits for it.
    fn write_succeeded(&mut self) {
        if self.failed.is_empty() {
            self.write.succeed();
        }
    }

    /// One that etcd refuses for what is in it is tried again by itself, at once if it was in company, so that it
    /// does not hold up the others; everything else waits for its turn.
    fn write_failed(&mut self, tickets: Vec<(SeatId, crate::machine::Ticket)>, error: &Error) {
        self.context.metrics.retries.inc();
        let about_its_content = matches!(
            error.kind(),
            ErrorKind::InvalidArgument
                | ErrorKind::TooLarge
                | ErrorKind::PermissionDenied
                | ErrorKind::FailedPrecondition
        );
        let in_company = tickets.len() > 1 && about_its_content;
        if !in_company {
            self.write.later();
        }
        let instances = tickets.len();
        match self.write.backoff.failures() {
            1 => tracing::warn!(%error, instances, "a write failed, and will be tried until it succeeds"),
            attempt => tracing::debug!(%error, instances, attempt, "a write failed"),
        }
        let cause: Arc<str> = error.to_string().into();
        for (id, ticket) in tickets {
            self.tell(id, Event::Failed { ticket, cause: Arc::clone(&cause) });
            if let Some(seat) = self.seats.get_mut(&id) {
                seat.alone |= in_company;
                if !in_company && self.ready.remove(&id) {
                    self.failed.insert(id);
                }
            }
        }
    }

    fn check_answered(&mut self, lease: i64, checks: Checks, result: Result<TxnResponse, Error>) {
        if self.tenure.lease() != Some(lease) {
            return;
        }
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "the keys of registrations could not be read");
                self.check.later();
                self.unchecked.extend(checks.into_iter().map(|(id, _)| id));
                return;
            }
        };
        self.check.succeed();
        for (id, _) in &checks {
            if let Some(seat) = self.seats.get_mut(id) {
                seat.checking = false;
            }
        }
        let at = exchange::revision(&answer).unwrap_or_default();
        let mut found = exchange::found(answer);
        for (id, entries) in checks {
            let found = {
                let owned = self.context.owned();
                (0..entries.len())
                    .map(|_| found.next().flatten().map(|kv| exchange::held(&kv, &owned, Some(lease))))
                    .collect()
            };
            self.tell(id, Event::Checked { at, found });
        }
    }

    fn revoked(&mut self, lease: i64, result: Result<(), Error>) {
        match result {
            Err(error) if error.kind() != ErrorKind::LeaseNotFound => {
                tracing::debug!(lease, %error, "the lease could not be revoked");
                self.context.metrics.retries.inc();
                self.write.later();
                if let Tenure::Ending { in_flight, .. } = &mut self.tenure {
                    *in_flight = false;
                }
            }
            _ => {
                tracing::debug!(lease, "lease revoked");
                self.tenure = Tenure::Vacant;
                self.write.succeed();
                let leaving: Vec<SeatId> = self
                    .seats
                    .iter()
                    .filter_map(|(id, seat)| seat.member.is_leaving().then_some(*id))
                    .collect();
                for id in leaving {
                    self.tell(id, Event::Removed);
                }
            }
        }
    }
}
