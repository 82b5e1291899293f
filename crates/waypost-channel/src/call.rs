//! One call: pick, send, and perhaps again.

use crate::channel::Inner;
use crate::deadline::{Deadline, Passed};
use crate::driver::now;
use crate::extension::{EndpointInfo, HashKey, Idempotent, WaitForReady};
use crate::http2::Http2;
use crate::incoming::{Held, Tracked, UnderWay, passed};
use crate::lease::Lease;
use crate::outgoing::{Outgoing, Payload};
use crate::pool::{NotReady, Wish};
use crate::verdict::{code_of_headers, refused, status_of};
use http::header::USER_AGENT;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use waypost_balance::{EndpointState, Outcome};

/// A call under way: what it asks for, and what it has tried.
pub(crate) struct Call<'a> {
    inner: &'a Inner,
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    since: Instant,
    deadline: Deadline,
    wait_for_ready: bool,
    idempotent: bool,
    /// What it brings itself, without the header that the policy names.
    key: Option<HashKey>,
    tried: Vec<Arc<EndpointState>>,
    /// Attempts that reached, or may have reached, an endpoint.
    attempts: u32,
    /// Attempts that certainly did not.
    unprocessed: u32,
}

/// How one attempt ended without a response for the caller.
enum Setback {
    /// The endpoint has not processed it: it can go to another in any case.
    NotProcessed(Status, Option<Payload>),
    /// The endpoint may have processed it.
    Failed(Status),
    /// It has, and says `UNAVAILABLE`: the response is there for the caller.
    Unavailable(Response<Body>),
    /// There is no time for another attempt.
    Final(Status),
}

/// A call that so many endpoints in a row have not even looked at is given up.
const MOST_UNPROCESSED: u32 = 16;

/// What a client calls itself, unless the caller has said.
const OURSELVES: HeaderValue = HeaderValue::from_static(concat!("waypost/", env!("CARGO_PKG_VERSION")));
/// gRFC A6: the server is told how often the call was tried before.
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// Makes the call. Every failure is a response with a gRPC status.
pub(crate) async fn run(inner: Arc<Inner>, request: Request<Body>) -> Response<Body> {
    inner.pool.start();
    match Call::prepare(&inner, request) {
        Ok((call, payload)) => call.run(payload).await,
        Err(status) => fail(&inner, status),
    }
}

fn fail(inner: &Inner, status: Status) -> Response<Body> {
    inner.shared.counters.ended(status.code());
    status.into_http()
}

// === impl Call ===

impl<'a> Call<'a> {
    fn prepare(inner: &'a Inner, request: Request<Body>) -> Result<(Self, Payload), Status> {
        let (mut parts, body) = request.into_parts();
        parts.headers.entry(USER_AGENT).or_insert(OURSELVES);
        let settings = &inner.settings;
        let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let idempotent = settings.all_idempotent
            || parts.extensions.get::<Idempotent>().is_some()
            || settings.idempotent.contains(path.path());
        let wait = parts.extensions.get::<WaitForReady>().map(|WaitForReady(wait)| *wait);
        let since = Instant::now();
        let payload = Payload::take(body, settings.retry.request_limit)?;
        let call = Self {
            inner,
            method: parts.method,
            path,
            deadline: Deadline::of(&parts.headers, settings.timeout, since),
            headers: parts.headers,
            since,
            wait_for_ready: wait.unwrap_or(settings.wait_for_ready),
            idempotent,
            key: parts.extensions.get().copied(),
            tried: Vec::new(),
            attempts: 0,
            unprocessed: 0,
        };
        Ok((call, payload))
    }

    async fn run(mut self, mut payload: Payload) -> Response<Body> {
        loop {
            let lease = match self.endpoint().await {
                Ok(lease) => lease,
                Err(status) => return fail(self.inner, status),
            };
            let endpoint = Arc::clone(lease.endpoint());
            let spare = payload.copy();
            let setback = match self.attempt(lease, payload).await {
                Ok(response) => return response,
                Err(setback) => setback,
            };
            self.tried.push(endpoint);
            payload = match self.next(setback, spare) {
                Ok(payload) => payload,
                Err(response) => return *response,
            };
        }
    }

    /// What to send to the next endpoint, or what to tell the caller.
    fn next(&mut self, setback: Setback, spare: Option<Payload>) -> Result<Payload, Box<Response<Body>>> {
        let counters = &self.inner.shared.counters;
        let (response, again) = match setback {
            Setback::NotProcessed(status, given_back) => {
                self.unprocessed += 1;
                match given_back.or(spare) {
                    Some(payload) if self.unprocessed < MOST_UNPROCESSED => {
                        counters.sent_elsewhere();
                        return Ok(payload);
                    }
                    _ => return Err(Box::new(fail(self.inner, status))),
                }
            }
            Setback::Failed(status) => {
                let again = status.code() == Code::Unavailable;
                (status.into_http(), again)
            }
            Setback::Unavailable(response) => (response, true),
            Setback::Final(status) => return Err(Box::new(fail(self.inner, status))),
        };
        if let Some(payload) = spare.filter(|_| again && self.may_try_again()) {
            counters.retried();
            return Ok(payload);
        }
        let code = code_of_headers(response.status(), response.headers());
        counters.ended(code.unwrap_or(Code::Unavailable));
        Err(Box::new(response))
    }

    fn may_try_again(&self) -> bool {
        // Asked in this order: a failure costs a token whether or not it is tried again.
        self.idempotent
            && self.inner.shared.budget.withdraw(now())
            && self.attempts < self.inner.settings.retry.max_attempts
    }

    /// Picks an endpoint, waiting for one if that may help.
    async fn endpoint(&self) -> Result<Lease<Http2>, Status> {
        let pool = &self.inner.pool;
        let wish = Wish::new()
            .tried(&self.tried)
            .key(self.key)
            .headers(&self.headers)
            .wait_for_ready(self.wait_for_ready)
            .since(self.since);
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

    /// Sends the call to one endpoint.
    async fn attempt(&mut self, lease: Lease<Http2>, payload: Payload) -> Result<Response<Body>, Setback> {
        self.attempts += 1;
        let whole = payload.is_whole();
        let (outgoing, claim) = Outgoing::new(payload);
        let state = Arc::clone(lease.endpoint());
        let (connection, started) = lease.into_parts();
        let request = self.request(&connection, outgoing);
        let Http2 { mut sender, .. } = connection;
        let call = UnderWay::new(Arc::clone(&self.inner.shared), started, self.attempts);
        let response = sender.try_send_request(request);
        // A request that is queued just as the connection ends is given back when the last sender is gone, and no sooner: a call
        // that kept its own while it waits would wait for ever.
        drop(sender);
        let response = match self.deadline.limit(response).await {
            Ok(Ok(response)) => response,
            Ok(Err(mut error)) => {
                let given_back = error.take_message().is_some();
                let error = error.into_error();
                let unsent = claim.take();
                let status = status_of(&error, &call.context());
                // A whole request of which no byte was asked for: the server has at most seen its headers.
                if given_back || refused(&error) || (whole && unsent.is_some()) {
                    self.attempts -= 1;
                    call.given_up(Outcome::NotSent);
                    return Err(Setback::NotProcessed(status, unsent));
                }
                call.given_up(Outcome::Lost);
                return Err(Setback::Failed(status));
            }
            Err(Passed) => {
                let status = passed(&call.context());
                call.given_up(Outcome::Failed);
                return Err(Setback::Final(status));
            }
        };
        let info = EndpointInfo {
            key: state.key(),
            instance: state.instance(),
            endpoint: state.endpoint().clone(),
            attempts: self.attempts,
        };
        self.receive(response, call, info).await
    }

    /// Passes a response on, or holds it back until it is clear that it need not be tried again.
    async fn receive(
        &self,
        response: Response<Incoming>,
        call: UnderWay,
        info: EndpointInfo,
    ) -> Result<Response<Body>, Setback> {
        let (mut parts, body) = response.into_parts();
        parts.extensions.insert(info);
        let early = code_of_headers(parts.status, &parts.headers);
        if let Some(code) = early {
            // The call is over; the body, if a proxy sent one, is not gRPC's.
            let body = Body::new(Tracked::new(VecDeque::new(), body, self.deadline, None));
            let response = Response::from_parts(parts, body);
            if code == Code::Unavailable {
                call.given_up(Outcome::Failed);
                return Err(Setback::Unavailable(response));
            }
            self.account(code);
            call.ended(code);
            return Ok(response);
        }
        if !self.idempotent {
            let body = Tracked::new(VecDeque::new(), body, self.deadline, Some(call));
            return Ok(Response::from_parts(parts, Body::new(body)));
        }
        match Held::read(body, self.inner.settings.retry.response_limit, self.deadline).await {
            Held::Complete(body) => {
                let code = body.code().unwrap_or(Code::Unknown);
                let response = Response::from_parts(parts, Body::new(body));
                if code == Code::Unavailable {
                    call.given_up(Outcome::Failed);
                    return Err(Setback::Unavailable(response));
                }
                self.account(code);
                call.ended(code);
                Ok(response)
            }
            Held::TooLarge(held, rest) => {
                let body = Tracked::new(held, rest, self.deadline, Some(call));
                Ok(Response::from_parts(parts, Body::new(body)))
            }
            Held::Lost(error) => {
                let status = status_of(&error, &call.context());
                call.given_up(Outcome::Lost);
                Err(Setback::Failed(status))
            }
            Held::Passed => {
                let status = passed(&call.context());
                call.given_up(Outcome::Failed);
                Err(Setback::Final(status))
            }
        }
    }

    /// A success of an idempotent call is worth a part of a retry.
    fn account(&self, code: Code) {
        if self.idempotent && code == Code::Ok {
            self.inner.shared.budget.deposit();
        }
    }

    fn request(&self, connection: &Http2, body: Outgoing) -> Request<Outgoing> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(connection.scheme.clone());
        uri.authority = Some(connection.authority.clone());
        uri.path_and_query = Some(self.path.clone());
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        // All three parts are there, so this never falls back.
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        if self.attempts > 1 {
            request.headers_mut().insert(PREVIOUS_ATTEMPTS, HeaderValue::from(self.attempts - 1));
        }
        self.deadline.write(request.headers_mut(), Instant::now());
        request
    }
}
