//! A call that is sent to several endpoints, of which the first to answer counts.

use crate::attempt::Ended;
use crate::budget::Budget;
use crate::call::{Call, Verdict};
use crate::driver::now;
use crate::lease::Lease;
use crate::line::Http2;
use crate::meter::count;
use crate::outgoing::Payload;
use crate::resend::{Hedges, Pushback, Unprocessed};
use crate::service_config::HedgingRule;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status};
use waypost_balance::EndpointState;

/// A hedged call under way.
struct Race<'a> {
    call: &'a Call,
    payload: Payload,
    /// For the next attempt, if there is one that none has begun to send.
    unsent: Option<Payload>,
    budget: &'a Budget,
    hedges: Hedges,
    /// With the number of the attempt, and what it sends.
    running: FuturesUnordered<BoxFuture<'a, (u32, Payload, Ended)>>,
    tried: Vec<Arc<EndpointState>>,
    unprocessed: Unprocessed,
}

impl Call {
    /// Sends the call to one endpoint after the other until one has answered; whatever is under way then is cancelled.
    pub(crate) async fn hedged(&self, rule: HedgingRule, payload: Payload) -> Verdict {
        let mut race = Race {
            call: self,
            unsent: Some(payload.copy()),
            payload,
            budget: &self.record.plan().budget,
            hedges: Hedges::new(rule, now()),
            running: FuturesUnordered::new(),
            tried: Vec::new(),
            unprocessed: Unprocessed::default(),
        };
        race.run().await
    }
}

/// What an attempt has come to. One that answers well gets the call, unless another has it already: then only a complete answer
/// counts, since of the request the server has not got all.
fn counted(ended: Ended, payload: &Payload) -> Ended {
    let code = match &ended {
        Ended::Answered(answer) => answer.code(),
        Ended::Over(_) | Ended::Replaced(_) => return ended,
        Ended::NotProcessed(status, ..) | Ended::Lost(status) => Some(status.code()),
    };
    if code.is_none_or(|code| code == Code::Ok) {
        payload.commit();
    }
    if code == Some(Code::Ok) || !payload.is_replaced() {
        return ended;
    }
    Ended::Replaced(Status::cancelled("another attempt goes on"))
}

// === impl Race ===

impl Race<'_> {
    async fn run(&mut self) -> Verdict {
        let number = self.hedges.sent(now());
        let mut last = match self.begin(number).await {
            Ok(()) => None,
            Err(status) => return Verdict::Status(status),
        };
        loop {
            let due = self.hedges.due().map(Instant::from_std);
            if self.running.is_empty() && due.is_none() {
                // Whatever ends an attempt without another leaves what is told in its place.
                return last.unwrap_or_else(|| Verdict::Status(Status::internal("there is nothing to send")));
            }
            let (number, payload, ended) = tokio::select! {
                biased;
                Some(ended) = self.running.next() => ended,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.hedge();
                    match last.take_if(|_| self.is_over()) {
                        Some(verdict) => return verdict,
                        None => continue,
                    }
                }
            };
            let (verdict, pushback) = match counted(ended, &payload) {
                Ended::NotProcessed(status, by, given_back) => {
                    self.unsent = given_back.or(self.unsent.take());
                    if self.has_payload() && self.unprocessed.another(by, self.budget, now()) {
                        if self.running.is_empty() {
                            self.call.settle(self.unprocessed.times(), &self.tried).await;
                            if let Err(status) = self.begin(number).await {
                                return Verdict::Status(status);
                            }
                        } else if let Some(lease) = self.call.another(&self.tried) {
                            // Attempts under way must not wait for an endpoint to become ready.
                            self.send(lease, number);
                        } else {
                            continue;
                        }
                        count(&self.call.inner.shared.counters.unprocessed);
                        continue;
                    }
                    last = Some(Verdict::Status(status));
                    match last.take_if(|_| self.is_over()) {
                        Some(verdict) => return verdict,
                        None => continue,
                    }
                }
                // The one that the call is committed to goes on, or has told how it ended.
                Ended::Replaced(status) => {
                    last.get_or_insert(Verdict::Status(status));
                    match last.take_if(|_| self.is_over()) {
                        Some(verdict) => return verdict,
                        None => continue,
                    }
                }
                Ended::Over(status) => return Verdict::Status(status),
                Ended::Lost(status) => (Verdict::Status(status), Pushback::None),
                Ended::Answered(answer) => {
                    let pushback = answer.pushback();
                    (Verdict::Answer(answer), pushback)
                }
            };
            let Some(code) = verdict.failure() else { return verdict };
            if !self.hedges.failed((code, pushback), self.budget, now()) || self.is_over() {
                return verdict;
            }
            last = Some(verdict);
        }
    }

    /// Whether nothing can answer any more: what would be sent later than the deadline, or could not be sent, is not waited for.
    fn is_over(&self) -> bool {
        let in_time = |due: std::time::Instant| {
            self.call.deadline.0.is_none_or(|deadline| Instant::from_std(due) < deadline)
        };
        let more = self.hedges.due().is_some_and(in_time)
            && self.budget.allows()
            && self.has_payload()
            && self.call.inner.pool.has_others(&self.tried);
        self.running.is_empty() && !more
    }

    /// Sends the call to an endpoint, waiting for one if that may help.
    async fn begin(&mut self, number: u32) -> Result<(), Status> {
        let lease = self.call.endpoint(&self.tried).await?;
        self.send(lease, number);
        Ok(())
    }

    /// Whether there is something to send for another attempt: not once the call is committed to one.
    fn has_payload(&self) -> bool {
        self.unsent.is_some() || self.payload.is_open()
    }

    /// Sends a hedge, if there is an endpoint for it and the budget allows one.
    fn hedge(&mut self) {
        let may = self.budget.allows() && self.has_payload();
        let lease = if may { self.call.another(&self.tried) } else { None };
        match lease {
            Some(lease) => {
                let number = self.hedges.sent(now());
                count(&self.call.inner.shared.counters.hedges);
                self.send(lease, number);
            }
            None => self.hedges.stop(),
        }
    }

    fn send(&mut self, lease: Lease<Http2>, number: u32) {
        // Not committed a moment ago, and only attempts of this call could have.
        let Some(payload) = self.unsent.take().or_else(|| self.payload.another()) else { return };
        let own = payload.copy();
        self.tried.push(Arc::clone(lease.endpoint()));
        let call = self.call;
        let attempt = async move {
            let sent = call.send(lease, payload, number);
            (number, own, call.outcome(sent).await)
        };
        self.running.push(attempt.boxed());
    }
}
