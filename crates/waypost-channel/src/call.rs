//! One call: what it asks for, where it goes, and what its caller gets.

use crate::answer::Answer;
use crate::attempt::Ended;
use crate::channel::Inner;
use crate::deadline::{Deadline, Passed};
use crate::driver::now;
use crate::extension::{HashKey, Idempotent, WaitForReady};
use crate::http2::Http2;
use crate::lease::Lease;
use crate::ledger::Record;
use crate::meter::count;
use crate::outgoing::Payload;
use crate::plan::Plan;
use crate::pool::{NotReady, Wish};
use crate::resend::{Pushback, Retries};
use crate::service_config::{HedgingRule, Resend};
use http::header::USER_AGENT;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::body::Body;
use tonic::{Code, Status};
use waypost_balance::EndpointState;

/// A call under way: what all of its attempts have in common.
pub(crate) struct Call<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) record: Record,
    pub(crate) method: Method,
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) deadline: Deadline,
    /// Responses are held back until they are complete.
    pub(crate) held_back: bool,
    since: Instant,
    wait_for_ready: bool,
    /// What it brings itself, without the header that the policy names.
    key: Option<HashKey>,
}

/// How a call may be sent more than once.
enum Course {
    /// Only if it was not processed.
    Once,
    Retries(Retries),
    Hedges(HedgingRule),
}

/// What one attempt after the other has come to.
struct Trail {
    tried: Vec<Arc<EndpointState>>,
    /// Attempts that reached, or may have reached, an endpoint.
    attempts: u32,
    /// Attempts that certainly did not.
    unprocessed: u32,
}

/// How a call ends: with what an endpoint has answered, or with what is told in its place.
pub(crate) enum Verdict {
    Answer(Box<Answer>),
    Status(Status),
}

/// A call that so many endpoints in a row have not even looked at is given up.
pub(crate) const MOST_UNPROCESSED: u32 = 16;

/// What a client calls itself, unless the caller has said.
const OURSELVES: HeaderValue = HeaderValue::from_static(concat!("waypost/", env!("CARGO_PKG_VERSION")));

/// Makes the call. Every failure is a response with a gRPC status.
pub(crate) async fn run(inner: Arc<Inner>, request: Request<Body>) -> Response<Body> {
    inner.start();
    let plan = inner.shared.plan.load_full();
    let (call, course, body) = Call::prepare(&inner, &plan, request);
    let verdict = match Payload::take(body, inner.settings.retry.request_limit) {
        Ok(payload) => call.run(course, payload, &plan).await,
        Err(status) => Verdict::Status(status),
    };
    call.end(verdict)
}

// === impl Call ===

impl<'a> Call<'a> {
    fn prepare(inner: &'a Inner, plan: &Arc<Plan>, request: Request<Body>) -> (Self, Course, Body) {
        let (mut parts, body) = request.into_parts();
        parts.headers.entry(USER_AGENT).or_insert(OURSELVES);
        let settings = &inner.settings;
        let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let config = plan.config.method(path.path());
        let idempotent = settings.all_idempotent
            || parts.extensions.get::<Idempotent>().is_some()
            || settings.idempotent.contains(path.path());
        let course = match config.and_then(|config| config.resend.as_ref()) {
            Some(Resend::Retry(rule)) => Course::Retries(Retries::ruled(rule)),
            Some(Resend::Hedge(rule)) => Course::Hedges(rule.clone()),
            None if idempotent => Course::Retries(Retries::marked(&settings.retry)),
            None => Course::Once,
        };
        let wait = parts.extensions.get::<WaitForReady>().map(|WaitForReady(wait)| *wait);
        let configured = config.and_then(|config| config.wait_for_ready);
        let timeout =
            [settings.timeout, config.and_then(|config| config.timeout)].into_iter().flatten().min();
        let since = Instant::now();
        let call = Self {
            inner,
            method: parts.method,
            deadline: Deadline::of(&parts.headers, timeout, since),
            headers: parts.headers,
            held_back: idempotent,
            since,
            wait_for_ready: wait.or(configured).unwrap_or(settings.wait_for_ready),
            key: parts.extensions.get().copied(),
            record: Record::new(Arc::clone(&inner.shared), Arc::clone(plan), path.path()),
            path,
        };
        (call, course, body)
    }

    async fn run(&self, course: Course, payload: Payload, plan: &Plan) -> Verdict {
        match course {
            Course::Retries(retries) => self.in_turn(Some(retries), payload, plan).await,
            Course::Hedges(rule) if payload.is_whole() => self.hedged(rule, payload, &plan.budget).await,
            Course::Once | Course::Hedges(_) => self.in_turn(None, payload, plan).await,
        }
    }

    /// One attempt after the other.
    async fn in_turn(&self, mut retries: Option<Retries>, mut payload: Payload, plan: &Plan) -> Verdict {
        let mut trail = Trail { tried: Vec::new(), attempts: 0, unprocessed: 0 };
        loop {
            let lease = match self.endpoint(&trail.tried).await {
                Ok(lease) => lease,
                Err(status) => return Verdict::Status(status),
            };
            let endpoint = Arc::clone(lease.endpoint());
            let spare = payload.copy();
            let ended = self.attempt(lease, payload, trail.attempts + 1).await;
            trail.tried.push(endpoint);
            let (verdict, pushback) = match ended {
                Ended::NotProcessed(status, given_back) => {
                    trail.unprocessed += 1;
                    match given_back.or(spare) {
                        Some(again) if trail.unprocessed < MOST_UNPROCESSED => payload = again,
                        _ => return Verdict::Status(status),
                    }
                    count(&self.inner.shared.counters.unprocessed);
                    continue;
                }
                Ended::Passed(status) => return Verdict::Status(status),
                Ended::Lost(status) => (Verdict::Status(status), Pushback::None),
                Ended::Answered(answer) => {
                    let pushback = answer.pushback();
                    (Verdict::Answer(answer), pushback)
                }
            };
            trail.attempts += 1;
            let (Some(code), Some(retries)) = (verdict.failure(), retries.as_mut()) else { return verdict };
            let elsewhere = self.inner.pool.has_others(&trail.tried);
            let wait = retries.after(
                (code, pushback),
                trail.attempts,
                elsewhere,
                &plan.budget,
                now(),
                fastrand::f64(),
            );
            let (Some(wait), Some(again)) = (wait, spare) else { return verdict };
            if !self.pause(wait).await {
                return verdict;
            }
            count(&self.inner.shared.counters.retries);
            payload = again;
        }
    }

    /// Waits, unless that would take the call past its deadline: its caller then learns at once what has failed.
    async fn pause(&self, wait: Duration) -> bool {
        let in_time = self.deadline.0.is_none_or(|deadline| {
            Instant::now().checked_add(wait).is_some_and(|resumed| resumed < deadline)
        });
        if in_time && !wait.is_zero() {
            sleep(wait).await;
        }
        in_time
    }

    /// Picks an endpoint that is ready now and was not tried.
    pub(crate) fn another(&self, tried: &[Arc<EndpointState>]) -> Option<Lease<Http2>> {
        let pool = &self.inner.pool;
        if pool.has_others(tried) { pool.try_lease(&self.wish(tried)) } else { None }
    }

    /// Picks an endpoint, waiting for one if that may help.
    pub(crate) async fn endpoint(&self, tried: &[Arc<EndpointState>]) -> Result<Lease<Http2>, Status> {
        let pool = &self.inner.pool;
        let wish = self.wish(tried);
        if let Some(lease) = pool.try_lease(&wish) {
            return Ok(lease);
        }
        match self.deadline.limit(pool.lease(wish)).await {
            Ok(leased) => leased.map_err(|NotReady { reason }| Status::unavailable(reason)),
            Err(Passed) => {
                Err(Status::deadline_exceeded(format!("no endpoint before the deadline: {}", pool.unready())))
            }
        }
    }

    fn wish<'w>(&'w self, tried: &'w [Arc<EndpointState>]) -> Wish<'w> {
        Wish::new()
            .tried(tried)
            .key(self.key)
            .headers(&self.headers)
            .wait_for_ready(self.wait_for_ready)
            .since(self.since)
    }

    /// What the caller gets.
    fn end(self, verdict: Verdict) -> Response<Body> {
        match verdict {
            Verdict::Answer(answer) => answer.deliver(self.record, self.deadline),
            Verdict::Status(status) => {
                self.record.ended(status.code());
                status.into_http()
            }
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// The status, if it is known and not good.
    pub(crate) fn failure(&self) -> Option<Code> {
        let code = match self {
            Self::Answer(answer) => answer.code()?,
            Self::Status(status) => status.code(),
        };
        Some(code).filter(|code| *code != Code::Ok)
    }
}
