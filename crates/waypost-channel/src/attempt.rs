//! One attempt: a call is sent to one endpoint, and what comes of that.

use crate::answer::Answer;
use crate::call::Call;
use crate::deadline::Passed;
use crate::extension::EndpointInfo;
use crate::http2::Http2;
use crate::incoming::{Held, passed};
use crate::lease::Lease;
use crate::ledger::UnderWay;
use crate::outgoing::{Outgoing, Payload};
use crate::verdict::{code_of_headers, refused, status_of};
use http::{HeaderName, HeaderValue, Request, Response, Uri, Version};
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Code, Status};

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

/// gRFC A6: the server is told how often the call was tried before.
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

impl Call<'_> {
    /// Sends the call to one endpoint, as the attempt of this number.
    pub(crate) async fn attempt(&self, lease: Lease<Http2>, payload: Payload, number: u32) -> Ended {
        let whole = payload.is_whole();
        let (outgoing, claim) = Outgoing::new(payload);
        let state = Arc::clone(lease.endpoint());
        let (connection, started) = lease.into_parts();
        let request = self.request(&connection, outgoing, number);
        let Http2 { mut sender, .. } = connection;
        let attempt = UnderWay::new(Arc::clone(&self.inner.shared), started, number, self.record.span());
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
                let status = status_of(&error, &attempt.context());
                // A whole request of which no byte was asked for: the server has at most seen its headers.
                if given_back || refused(&error) || (whole && unsent.is_some()) {
                    attempt.not_sent();
                    return Ended::NotProcessed(status, unsent);
                }
                attempt.lost(status.code());
                return Ended::Lost(status);
            }
            Err(Passed) => {
                let status = passed(&attempt.context());
                attempt.ended(status.code());
                return Ended::Passed(status);
            }
        };
        let info = EndpointInfo {
            key: state.key(),
            instance: state.instance(),
            endpoint: state.endpoint().clone(),
            attempts: number,
        };
        self.receive(response, attempt, info).await
    }

    /// Looks at a response as far as is needed to know whether it is one to try again after.
    async fn receive(
        &self,
        response: Response<Incoming>,
        mut attempt: UnderWay,
        info: EndpointInfo,
    ) -> Ended {
        let (mut parts, body) = response.into_parts();
        parts.extensions.insert(info);
        if let Some(code) = code_of_headers(parts.status, &parts.headers) {
            attempt.ended(code);
            return Ended::Answered(Box::new(Answer::in_headers(parts, code, body)));
        }
        attempt.answered();
        if !self.held_back {
            return Ended::Answered(Box::new(Answer::begun(parts, VecDeque::new(), body, attempt)));
        }
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
        self.deadline.write(request.headers_mut(), Instant::now());
        request
    }
}
