//! One attempt: a call is sent to one endpoint, and what comes of that.

use crate::answer::Answer;
use crate::call::Call;
use crate::deadline::Passed;
use crate::extension::EndpointInfo;
use crate::http2::Http2;
use crate::incoming::{Held, passed};
use crate::lease::Lease;
use crate::ledger::UnderWay;
use crate::outgoing::{Claim, Outgoing, Payload};
use crate::verdict::{code_of_headers, refused, status_of};
use futures::future::BoxFuture;
use http::response::Parts;
use http::{HeaderName, HeaderValue, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use std::collections::VecDeque;
use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Code, Status};
use waypost_balance::EndpointState;

/// How an attempt ended.
pub(crate) enum Ended {
    /// The endpoint has answered, well or not.
    Answered(Box<Answer>),
    /// It has not processed the call, which can go to another in any case; with the payload, if that was not sent.
    NotProcessed(Status, Option<Payload>),
    /// It may have processed it.
    Lost(Status),
    /// There is no time for another attempt.
    Passed(Status),
}

/// An attempt that is under way.
pub(crate) struct Sent {
    /// A response, or the error with the request, if that was not sent.
    response: BoxFuture<'static, Result<Response<Incoming>, TrySendError<Request<Outgoing>>>>,
    claim: Arc<Claim>,
    /// The server gets all of the request at once.
    whole: bool,
    state: Arc<EndpointState>,
    under_way: UnderWay,
    number: u32,
}

/// A response whose status is still to come.
type Begun = (Parts, Incoming, UnderWay);

/// gRFC A6: the server is told how often the call was tried before.
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

impl Call {
    /// Sends the call to one endpoint, as the attempt of this number.
    pub(crate) fn send(&self, lease: Lease<Http2>, payload: Payload, number: u32) -> Sent {
        let whole = payload.is_whole();
        let (outgoing, claim) = Outgoing::new(payload);
        let state = Arc::clone(lease.endpoint());
        let (connection, started) = lease.into_parts();
        let request = self.request(&connection, outgoing, number);
        let Http2 { mut sender, .. } = connection;
        let under_way = UnderWay::new(Arc::clone(&self.inner.shared), started, number, self.record.span());
        // A request that is queued just as the connection ends is given back when the last sender is gone, and no sooner: a call
        // that kept its own while it waits would wait for ever.
        let response = Box::pin(sender.try_send_request(request));
        Sent { response, claim, whole, state, under_way, number }
    }

    /// What comes of it.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` keeps a second `Sent` beside its argument; see `call::run`"
    )]
    pub(crate) fn outcome(&self, mut sent: Sent) -> impl Future<Output = Ended> + Send {
        async move {
            let response = match self.deadline.limit(&mut sent.response).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return sent.failed(error),
                Err(Passed) => {
                    let status = passed(&sent.under_way.context());
                    sent.under_way.ended(status.code());
                    return Ended::Passed(status);
                }
            };
            let (parts, body, attempt) = match self.answered(response, sent) {
                ControlFlow::Break(ended) => return ended,
                ControlFlow::Continue(held_back) => held_back,
            };
            Box::pin(self.hold(parts, body, attempt)).await
        }
    }

    /// Looks at the headers of a response; goes on if they do not decide.
    fn answered(&self, response: Response<Incoming>, sent: Sent) -> ControlFlow<Ended, Begun> {
        let Sent { state, mut under_way, number, .. } = sent;
        let (mut parts, body) = response.into_parts();
        parts.extensions.insert(EndpointInfo {
            key: state.key(),
            instance: state.instance(),
            endpoint: state.endpoint().clone(),
            attempts: number,
        });
        if let Some(code) = code_of_headers(parts.status, &parts.headers) {
            under_way.ended(code);
            return ControlFlow::Break(Ended::Answered(Box::new(Answer::in_headers(parts, code, body))));
        }
        under_way.answered();
        if self.held_back {
            return ControlFlow::Continue((parts, body, under_way));
        }
        let answer = Answer::begun(parts, VecDeque::new(), body, under_way);
        ControlFlow::Break(Ended::Answered(Box::new(answer)))
    }

    /// Looks at a response as far as is needed to know whether it is one to try again after.
    async fn hold(&self, parts: Parts, body: Incoming, attempt: UnderWay) -> Ended {
        match Held::read(body, self.inner.settings.retry.response_limit, self.deadline).await {
            Held::Complete(body) => {
                let code = body.code().unwrap_or(Code::Unknown);
                attempt.ended(code);
                Ended::Answered(Box::new(Answer::whole(parts, code, body)))
            }
            Held::TooLarge(held, rest) => {
                Ended::Answered(Box::new(Answer::begun(parts, held, rest, attempt)))
            }
            Held::Lost(error) => {
                let status = status_of(&error, &attempt.context());
                attempt.lost(status.code());
                Ended::Lost(status)
            }
            Held::Passed => {
                let status = passed(&attempt.context());
                attempt.ended(status.code());
                Ended::Passed(status)
            }
        }
    }

    fn request(&self, connection: &Http2, body: Outgoing, number: u32) -> Request<Outgoing> {
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
        if number > 1 {
            request.headers_mut().insert(PREVIOUS_ATTEMPTS, HeaderValue::from(number - 1));
        }
        self.deadline.write(request.headers_mut(), Instant::now);
        request
    }
}

// === impl Sent ===

impl Sent {
    /// There will be no response.
    fn failed(self, mut error: TrySendError<Request<Outgoing>>) -> Ended {
        let given_back = error.take_message().is_some();
        let error = error.into_error();
        let unsent = self.claim.take();
        let status = status_of(&error, &self.under_way.context());
        // A whole request of which no byte was asked for: the server has at most seen its headers.
        if given_back || refused(&error) || (self.whole && unsent.is_some()) {
            self.under_way.not_sent();
            return Ended::NotProcessed(status, unsent);
        }
        self.under_way.lost(status.code());
        Ended::Lost(status)
    }
}
