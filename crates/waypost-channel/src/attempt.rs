//! One attempt: a call is sent to one endpoint, and what comes of that.

use crate::answer::Answer;
use crate::call::Call;
use crate::deadline::Passed;
use crate::extension::EndpointInfo;
use crate::http2::Http2;
use crate::incoming::{Broken, Held, Passing, passed};
use crate::lease::Lease;
use crate::ledger::UnderWay;
use crate::outgoing::{Claim, Outgoing, Payload};
use crate::verdict::{code_of_headers, refused, status_of};
use futures::future::BoxFuture;
use http::response::Parts;
use http::{HeaderName, HeaderValue, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
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
    /// The call cannot go on: there is no time for another attempt, or what is wrong is the caller's.
    Over(Status),
}

/// An attempt that is under way.
pub(crate) struct Sent {
    /// A response, or the error with the request, if that was not sent.
    response: BoxFuture<'static, Result<Response<Incoming>, TrySendError<Request<Outgoing>>>>,
    claim: Arc<Claim>,
    state: Arc<EndpointState>,
    under_way: UnderWay,
    number: u32,
}

/// gRFC A6: the server is told how often the call was tried before.
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

impl Call {
    /// Sends the call to one endpoint, as the attempt of this number.
    pub(crate) fn send(&self, lease: Lease<Http2>, payload: Payload, number: u32) -> Sent {
        let (outgoing, claim) = Outgoing::new(payload);
        let state = Arc::clone(lease.endpoint());
        let (connection, started) = lease.into_parts();
        let request = self.request(&connection, outgoing, number);
        let Http2 { mut sender, .. } = connection;
        let under_way = UnderWay::new(Arc::clone(&self.inner.shared), started, number, self.record.span());
        // A request that is queued just as the connection ends is given back when the last sender is gone, and no sooner: a call
        // that kept its own while it waits would wait for ever.
        let response = Box::pin(sender.try_send_request(request));
        Sent { response, claim, state, under_way, number }
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
                    return Ended::Over(status);
                }
            };
            let holding = match self.answered(response, sent) {
                ControlFlow::Break(ended) => return ended,
                ControlFlow::Continue(holding) => holding,
            };
            holding.await
        }
    }

    /// Looks at the headers of a response; goes on if they do not decide.
    fn answered(&self, response: Response<Incoming>, sent: Sent) -> ControlFlow<Ended, BoxFuture<'_, Ended>> {
        let Sent { state, mut under_way, number, claim, .. } = sent;
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
        let body = Passing::new(body, self.longest, claim.replay().cloned());
        if self.held_back {
            return ControlFlow::Continue(Box::pin(self.hold(parts, body, under_way)));
        }
        ControlFlow::Break(Ended::Answered(Box::new(Answer::begun(parts, body, under_way))))
    }

    /// Looks at a response as far as is needed to know whether it is one to try again after.
    async fn hold(&self, parts: Parts, body: Passing, attempt: UnderWay) -> Ended {
        match Held::read(body, self.inner.settings.retry.response_limit, self.deadline).await {
            Held::Complete(body) => {
                let code = body.code().unwrap_or(Code::Unknown);
                attempt.ended(code);
                Ended::Answered(Box::new(Answer::whole(parts, code, body)))
            }
            Held::TooLarge(body) => Ended::Answered(Box::new(Answer::begun(parts, body, attempt))),
            Held::Broken(broken) => {
                let lost = matches!(broken, Broken::Lost(_));
                let status = broken.end(Some(attempt));
                if lost { Ended::Lost(status) } else { Ended::Over(status) }
            }
            Held::Passed => {
                let status = passed(&attempt.context());
                attempt.ended(status.code());
                Ended::Over(status)
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
        if let Some(failure) = self.claim.replay().and_then(|replay| replay.failure()) {
            return Ended::Over(failure);
        }
        let unsent = self.claim.take();
        let status = status_of(&error, &self.under_way.context());
        // A whole request of which no byte was asked for: the server has at most seen its headers.
        if given_back || refused(&error) || (self.claim.replay().is_none() && unsent.is_some()) {
            self.under_way.not_sent();
            return Ended::NotProcessed(status, unsent);
        }
        self.under_way.lost(status.code());
        Ended::Lost(status)
    }
}
