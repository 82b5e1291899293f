//! One call: what it asks for, where it goes, and what its caller gets.

use crate::answer::Answer;
use crate::attempt::Ended;
use crate::channel::Inner;
use crate::deadline::{Deadline, Passed};
use crate::driver::now;
use crate::extension::{HashKey, Idempotent, WaitForReady};
use crate::lease::Lease;
use crate::ledger::Record;
use crate::length::Limit;
use crate::line::Http2;
use crate::meter::count;
use crate::outgoing::Payload;
use crate::plan::Plan;
use crate::pool::{NotReady, Wish};
use crate::resend::{Pushback, Retries, Unprocessed};
use crate::service_config::{HedgingRule, MethodConfig, Resend};
use http::header::{CONNECTION, TRANSFER_ENCODING, UPGRADE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::body::Body;
use tonic::{Code, Status};
use waypost_balance::EndpointState;

/// A call under way: what all of its attempts have in common.
pub(crate) struct Call {
    pub(crate) inner: Arc<Inner>,
    pub(crate) record: Record,
    pub(crate) method: Method,
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) deadline: Deadline,
    /// Responses are held back until they are complete.
    pub(crate) held_back: bool,
    /// Of the messages of responses.
    pub(crate) longest: Limit,
    wait_for_ready: bool,
    /// What it brings itself, without the header that the policy names.
    key: Option<HashKey>,
}

/// How a call may be sent more than once.
enum Course {
    /// Only if it was not processed.
    Once,
    Retries(Box<Retries>),
    Hedges(Box<HedgingRule>),
}

/// What becomes of a call that is not sent to one endpoint after the other.
enum Other {
    /// Nothing: its request was not made.
    Unmade(Status),
    Hedged(HedgingRule, Payload),
}

/// What one attempt after the other has come to.
struct Trail {
    /// For the next.
    payload: Option<Payload>,
    retries: Option<Box<Retries>>,
    tried: Vec<Arc<EndpointState>>,
    /// Attempts that reached, or may have reached, an endpoint, or found none.
    attempts: u32,
    /// Of a call whose first attempt has come to nothing.
    past: Option<Box<Past>>,
}

/// What is behind a call that is sent once more.
#[derive(Default)]
struct Past {
    /// Attempts that certainly did not reach an endpoint.
    unprocessed: Unprocessed,
    /// Why there is to be another, counted when there is.
    again: Option<Again>,
    /// What the last attempt came to, while an endpoint is looked for.
    last: Option<Verdict>,
}

/// Why a call is sent once more.
enum Again {
    Unprocessed,
    Failed,
}

/// How a call ends: with what an endpoint has answered, or with what is told in its place.
pub(crate) enum Verdict {
    Answer(Box<Answer>),
    Status(Status),
}

/// What a client calls itself, unless the caller has said.
const OURSELVES: HeaderValue = HeaderValue::from_static(concat!("waypost/", env!("CARGO_PKG_VERSION")));

/// What HTTP/1 says of a connection; HTTP/2 takes no request that has it.
const OF_A_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Leaves out what HTTP/2 does not take.
pub(crate) fn strip(headers: &mut HeaderMap) {
    if headers.keys().any(|name| OF_A_CONNECTION.contains(name)) {
        for name in OF_A_CONNECTION {
            headers.remove(name);
        }
    }
}

/// Makes the call. Every failure is a response with a gRPC status.
///
/// The future is allocated for each call, with room for all that it may come to hold. An `async fn` keeps its arguments beside what
/// it makes of them, so the calls' path has few of those, and what is rare is in a box of its own.
pub(crate) fn run(
    inner: Arc<Inner>,
    request: Request<Body>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static {
    let plan = inner.shared.plan.load_full();
    let limit = inner.settings.retry.request_limit;
    let (call, course, body, longest) = Call::prepare(inner, &plan, request);
    let (payload, retries, other) =
        match (Payload::take(body, limit, longest, &call.inner.shared.kept), course) {
            (Err(unmade), _) => (None, None, Some(Box::new(Other::Unmade(unmade.told(&call.name()))))),
            (Ok(payload), Course::Hedges(rule)) => {
                (None, None, Some(Box::new(Other::Hedged(*rule, payload))))
            }
            (Ok(payload), Course::Retries(retries)) => (Some(payload), Some(retries), None),
            (Ok(payload), Course::Once) => (Some(payload), None, None),
        };
    let mut trail = Trail { payload, retries, tried: Vec::new(), attempts: 0, past: None };
    async move {
        call.inner.start();
        let verdict = match other {
            None => call.in_turn(&mut trail).await,
            Some(other) => Box::pin(call.otherwise(*other)).await,
        };
        trail.commit();
        Ok(call.end(verdict))
    }
}

// === impl Call ===

impl Call {
    /// The call, how it may be sent more than once, and its body with the limit of its messages.
    fn prepare(inner: Arc<Inner>, plan: &Arc<Plan>, request: Request<Body>) -> (Self, Course, Body, Limit) {
        let (mut parts, body) = request.into_parts();
        parts.headers.entry(USER_AGENT).or_insert(OURSELVES);
        strip(&mut parts.headers);
        let settings = &inner.settings;
        let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let config = plan.config.method(path.path());
        let idempotent = settings.all_idempotent
            || parts.extensions.get::<Idempotent>().is_some()
            || settings.idempotent.contains(path.path());
        let course = match config.and_then(|config| config.resend.as_ref()) {
            Some(Resend::Retry(rule)) => Course::Retries(Box::new(Retries::ruled(rule))),
            Some(Resend::Hedge(rule)) => Course::Hedges(Box::new(rule.clone())),
            None if idempotent => Course::Retries(Box::new(Retries::marked(&settings.retry))),
            None => Course::Once,
        };
        let wait = parts.extensions.get::<WaitForReady>().map(|WaitForReady(wait)| *wait);
        let configured = config.and_then(|config| config.wait_for_ready);
        let timeout =
            [settings.timeout, config.and_then(|config| config.timeout)].into_iter().flatten().min();
        let limit = |own, of: fn(&MethodConfig) -> Option<u32>| {
            Limit::lower(own, config.and_then(|config| of(config)))
        };
        let longest_request =
            limit(settings.max_request_message_bytes, |config| config.max_request_message_bytes);
        let since = Instant::now();
        let call = Self {
            method: parts.method,
            deadline: Deadline::of(&parts.headers, timeout, since),
            headers: parts.headers,
            held_back: idempotent,
            longest: limit(settings.max_response_message_bytes, |config| config.max_response_message_bytes),
            wait_for_ready: wait.or(configured).unwrap_or(settings.wait_for_ready),
            key: parts.extensions.get().copied(),
            record: Record::new(Arc::clone(&inner.shared), Arc::clone(plan), path.path(), since.into_std()),
            path,
            inner,
        };
        (call, course, body, longest_request)
    }

    /// As errors have it that no endpoint has to do with.
    fn name(&self) -> String {
        format!("{} {}", self.inner.shared.service(), self.path.path())
    }

    async fn otherwise(&self, other: Other) -> Verdict {
        match other {
            Other::Unmade(status) => Verdict::Status(status),
            Other::Hedged(rule, payload) => self.hedged(rule, payload).await,
        }
    }

    /// One attempt after the other.
    async fn in_turn(&self, trail: &mut Trail) -> Verdict {
        while let Some(payload) = trail.payload.take() {
            let (endpoint, sent) = {
                let lease = match self.endpoint(&trail.tried).await {
                    Ok(lease) => lease,
                    Err(status) => {
                        trail.payload = Some(payload);
                        match self.unplaced(trail, status).await {
                            Some(verdict) => return verdict,
                            None => continue,
                        }
                    }
                };
                if let Some(past) = &mut trail.past {
                    past.last = None;
                    self.count(past.again.take());
                }
                let endpoint = Arc::clone(lease.endpoint());
                trail.payload = Some(payload.copy());
                (endpoint, self.send(lease, payload, trail.attempts + 1))
            };
            let ended = self.outcome(sent).await;
            let (verdict, pushback) = match ended {
                Ended::NotProcessed(status, by, given_back) => {
                    trail.tried.push(endpoint);
                    trail.payload = given_back.or(trail.payload.take());
                    let past = trail.past.get_or_insert_default();
                    let may = past.unprocessed.another(by, &self.record.plan().budget, now());
                    past.again = Some(Again::Unprocessed);
                    let times = past.unprocessed.times();
                    if !may || !trail.renew() {
                        return Verdict::Status(status);
                    }
                    self.settle(times, &trail.tried).await;
                    continue;
                }
                Ended::Over(status) | Ended::Replaced(status) => return Verdict::Status(status),
                Ended::Lost(status) => (Verdict::Status(status), Pushback::None),
                Ended::Answered(answer) => {
                    let pushback = answer.pushback();
                    (Verdict::Answer(answer), pushback)
                }
            };
            trail.attempts += 1;
            trail.tried.push(endpoint);
            if !self.retry(trail, &verdict, pushback).await {
                return verdict;
            }
            trail.past.get_or_insert_default().last = Some(verdict);
        }
        // Every turn that does not end the call leaves a payload.
        Verdict::Status(Status::internal("there is nothing to send"))
    }

    /// An attempt has failed, or found no endpoint: whether there is to be another, after the wait before it.
    async fn retry(&self, trail: &mut Trail, verdict: &Verdict, pushback: Pushback) -> bool {
        let (Some(code), Some(retries)) = (verdict.failure(), trail.retries.as_mut()) else { return false };
        let elsewhere = self.inner.pool.has_others(&trail.tried);
        let budget = &self.record.plan().budget;
        let made = trail.attempts;
        let wait = retries.after((code, pushback), made, elsewhere, budget, now(), fastrand::f64());
        let Some(wait) = wait else { return false };
        trail.past.get_or_insert_default().again = Some(Again::Failed);
        trail.renew() && self.pause(wait).await
    }

    /// There is no endpoint for the call. Under a `retryPolicy` that is a failed attempt, as it is in gRPC; a call that is marked idempotent
    /// fails at once as any other does, unless an attempt has failed before. What the caller learns is what that one came to.
    async fn unplaced(&self, trail: &mut Trail, status: Status) -> Option<Verdict> {
        let unready = status.code() == Code::Unavailable;
        let counts = trail.retries.as_ref().is_some_and(|retries| retries.include_unplaced(trail.attempts));
        let verdict = Verdict::Status(status);
        if unready && counts {
            trail.attempts += 1;
            if Box::pin(self.retry(trail, &verdict, Pushback::None)).await {
                trail.past.get_or_insert_default().last.get_or_insert(verdict);
                return None;
            }
        }
        let last = trail.past.as_mut().and_then(|past| past.last.take());
        Some(last.filter(|_| unready).unwrap_or(verdict))
    }

    fn count(&self, again: Option<Again>) {
        let counters = &self.inner.shared.counters;
        let counter = again.map(|again| match again {
            Again::Unprocessed => &counters.unprocessed,
            Again::Failed => &counters.retries,
        });
        counter.into_iter().for_each(count);
    }

    /// Waits, unless that would take the call past its deadline: its caller then learns at once what has failed.
    async fn pause(&self, wait: Duration) -> bool {
        let in_time = self.deadline.0.is_none_or(|deadline| {
            Instant::now().checked_add(wait).is_some_and(|resumed| resumed < deadline)
        });
        if in_time && !wait.is_zero() {
            Box::pin(sleep(wait)).await;
        }
        in_time
    }

    /// Before a call that was not processed so often goes back to where it has been: waits until the fleet is another, or for the
    /// backoff of a retry. What was lost a moment ago, or is too busy, takes no more calls for being asked again at once.
    pub(crate) async fn settle(&self, unprocessed: u32, tried: &[Arc<EndpointState>]) {
        let pool = &self.inner.pool;
        if unprocessed < 2 || pool.has_others(tried) {
            return;
        }
        let wait = self.inner.settings.retry.backoff.delay(1, fastrand::f64());
        // Whichever comes first, another attempt follows; past the deadline it says so.
        let _ = Box::pin(self.deadline.limit(timeout(wait, pool.changed()))).await;
    }

    /// Picks an endpoint that is ready now and was not tried.
    pub(crate) fn another(&self, tried: &[Arc<EndpointState>]) -> Option<Lease<Http2>> {
        let pool = &self.inner.pool;
        if pool.has_others(tried) { pool.try_lease(&self.wish(tried)) } else { None }
    }

    /// Picks an endpoint, waiting for one if that may help.
    pub(crate) async fn endpoint(&self, tried: &[Arc<EndpointState>]) -> Result<Lease<Http2>, Status> {
        let pool = &self.inner.pool;
        // Of a first attempt, by when the call began.
        let now = || if tried.is_empty() { Instant::from_std(self.record.since()) } else { Instant::now() };
        if self.deadline.0.is_some_and(|deadline| deadline <= now()) {
            let name = self.name();
            return Err(Status::deadline_exceeded(format!("{name}: the deadline passed before it was sent")));
        }
        let wish = self.wish(tried);
        let asked = match pool.lease_now(&wish) {
            Ok(lease) => return Ok(lease),
            Err(asked) => asked,
        };
        match Box::pin(self.deadline.limit(pool.lease_after(wish, asked))).await {
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
            .since(Instant::from_std(self.record.since()))
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

// === impl Trail ===

impl Trail {
    /// Whether the payload can be sent once more.
    fn renew(&mut self) -> bool {
        self.payload.as_mut().is_some_and(Payload::renew)
    }

    /// There will be no further attempt.
    fn commit(&self) {
        if let Some(payload) = &self.payload {
            payload.commit();
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
