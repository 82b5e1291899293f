//! One attempt: a call is sent to one endpoint, and what comes of that.

use crate::answer::Answer;
use crate::call::Call;
use crate::deadline::Passed;
use crate::exchange::{Exchange, Incoming, Severed};
use crate::extension::EndpointInfo;
use crate::incoming::{Broken, Held, Passing, passed};
use crate::lease::Lease;
use crate::ledger::UnderWay;
use crate::line::{Http2, Unsent};
use crate::outgoing::Payload;
use crate::replay::Replay;
use crate::resend::NotProcessedBy;
use crate::traffic::InFlight;
use crate::verdict::{code_of_http, code_of_trailers, is_refusal, status_of};
use futures::future::BoxFuture;
use http::response::Parts;
use http::{HeaderName, HeaderValue, Request, Response, Version};
use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Code, Status};

/// How an attempt ended.
pub(crate) enum Ended {
    /// The endpoint has answered, well or not.
    Answered(Box<Answer>),
    /// It has not processed the call, which can go to another; with the payload, if that was not sent.
    NotProcessed(Status, NotProcessedBy, Option<Payload>),
    /// It may have processed it: there is no answer, or one that is no gRPC server's.
    Lost(Status),
    /// The call cannot go on: there is no time for another attempt, or what is wrong is the caller's.
    Over(Status),
    /// Another attempt, beside it, has got a part of the request that could not be kept: the call goes on there.
    Replaced(Status),
}

/// An attempt that is under way.
pub(crate) struct Sent {
    stage: Stage,
    under_way: UnderWay,
}

/// How far it has come.
enum Stage {
    /// The connection has it.
    Going(Exchange),
    /// The server takes no more calls for now.
    Waiting(Box<Waiting>),
    Unsent(Box<Unsent>),
}

/// What is to be sent when it is its turn.
struct Waiting {
    connection: Http2,
    payload: Payload,
    number: u32,
}

/// gRFC A6: the server is told how often the call was tried before.
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

impl Call {
    /// Sends the call to one endpoint, as the attempt of this number; or has it wait there, if the server takes no more calls for now.
    pub(crate) fn send(&self, lease: Lease<Http2>, payload: Payload, number: u32) -> Sent {
        let (connection, started) = lease.into_parts();
        let under_way = UnderWay::new(Arc::clone(&self.inner.shared), started, number, self.record.span());
        let stage = match connection.try_enter() {
            Some(place) => self.hand_over(&connection, place, payload, number),
            None => Stage::Waiting(Box::new(Waiting { connection, payload, number })),
        };
        Sent { stage, under_way }
    }

    fn hand_over(&self, connection: &Http2, place: InFlight, payload: Payload, number: u32) -> Stage {
        match connection.send(place, self.request(connection, number), payload) {
            Ok(exchange) => Stage::Going(exchange),
            Err(unsent) => Stage::Unsent(Box::new(unsent)),
        }
    }

    /// What comes of it.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` keeps a second `Sent` beside its argument; see `call::run`"
    )]
    pub(crate) fn outcome(&self, mut sent: Sent) -> impl Future<Output = Ended> + Send {
        async move {
            if let Stage::Waiting(waiting) = sent.stage {
                sent.stage = Box::pin(self.turn(waiting)).await;
            }
            let ended = match &mut sent.stage {
                Stage::Going(exchange) => Some(self.deadline.limit(exchange).await),
                _ => None,
            };
            match self.heard(sent, ended) {
                ControlFlow::Break(ended) => ended,
                ControlFlow::Continue(holding) => holding.await,
            }
        }
    }

    /// Sends it when it is its turn. If the deadline comes first it still waits.
    async fn turn(&self, waiting: Box<Waiting>) -> Stage {
        let entered = self.deadline.limit(waiting.connection.enter()).await;
        let Ok(entered) = entered else { return Stage::Waiting(waiting) };
        let Waiting { connection, payload, number } = *waiting;
        match entered {
            Ok(place) => self.hand_over(&connection, place, payload, number),
            Err(error) => Stage::Unsent(Box::new(Unsent { error, payload, wrong: false })),
        }
    }

    /// The response has begun, or will not come.
    fn heard(
        &self,
        sent: Sent,
        ended: Option<Result<Result<Response<Incoming>, Severed>, Passed>>,
    ) -> ControlFlow<Ended, BoxFuture<'_, Ended>> {
        let Sent { stage, under_way } = sent;
        match (stage, ended) {
            (Stage::Going(exchange), Some(Ok(Ok(response)))) => {
                self.answered(response, under_way, exchange.replay())
            }
            (Stage::Going(exchange), Some(Ok(Err(error)))) => {
                ControlFlow::Break(failed(under_way, &error, &exchange))
            }
            (Stage::Unsent(unsent), _) => ControlFlow::Break(refused(under_way, *unsent)),
            (Stage::Waiting(waiting), _) => {
                let status = out_of_turn(&under_way.context(), waiting.connection.limit());
                // The endpoint has not seen it, so it is not its failure.
                under_way.not_sent();
                ControlFlow::Break(Ended::Over(status))
            }
            (Stage::Going(_), _) => {
                let status = passed(&under_way.context());
                under_way.ended(status.code());
                ControlFlow::Break(Ended::Over(status))
            }
        }
    }

    /// Looks at the headers of a response; goes on if they do not decide.
    fn answered(
        &self,
        response: Response<Incoming>,
        mut under_way: UnderWay,
        replay: Option<&Arc<Replay>>,
    ) -> ControlFlow<Ended, BoxFuture<'_, Ended>> {
        let (mut parts, body) = response.into_parts();
        if let Some(state) = under_way.endpoint() {
            parts.extensions.insert(EndpointInfo::new(Arc::clone(state), under_way.attempt()));
        }
        if let Some(code) = code_of_trailers(&parts.headers) {
            under_way.ended(code);
            return ControlFlow::Break(Ended::Answered(Box::new(Answer::in_headers(parts, code, body))));
        }
        if let Some(code) = code_of_http(parts.status) {
            let (status, context) = (parts.status, under_way.context());
            under_way.ended(code);
            let text = format!("{context}: HTTP status {status} without a gRPC status");
            return ControlFlow::Break(Ended::Lost(Status::new(code, text)));
        }
        under_way.answered();
        let body = Passing::new(body, self.longest, replay.cloned());
        if self.held_back {
            return ControlFlow::Continue(Box::pin(self.hold(parts, body, under_way)));
        }
        ControlFlow::Break(Ended::Answered(Box::new(Answer::begun(parts, body, under_way))))
    }

    /// Looks at a response as far as is needed to know whether it is one to try again after.
    async fn hold(&self, parts: Parts, body: Passing, attempt: UnderWay) -> Ended {
        match Held::read(body, self.inner.settings.retry.response_limit, self.deadline).await {
            Held::Complete(body) => {
                let code = body.code();
                match code {
                    Some(code) => attempt.ended(code),
                    // A response that ends without a status is one that was cut short.
                    None => attempt.lost(Code::Unknown),
                }
                Ended::Answered(Box::new(Answer::whole(parts, code.unwrap_or(Code::Unknown), body)))
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

    fn request(&self, connection: &Http2, number: u32) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = connection.uri(self.path.clone());
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        if number > 1 {
            request.headers_mut().insert(PREVIOUS_ATTEMPTS, HeaderValue::from(number - 1));
        }
        self.deadline.write(request.headers_mut(), Instant::now);
        request
    }
}

/// The deadline passed before it was its turn.
fn out_of_turn(context: &str, limit: usize) -> Status {
    Status::deadline_exceeded(format!(
        "{context}: not sent before the deadline: the server takes no more than {limit} calls at a time"
    ))
}

/// There will be no response.
fn failed(under_way: UnderWay, error: &Severed, exchange: &Exchange) -> Ended {
    if let Some(failure) = exchange.replay().and_then(|replay| replay.failure()) {
        return Ended::Over(failure.told(&under_way.context()));
    }
    let status = status_of(error, &under_way.context());
    if exchange.is_replaced() {
        return Ended::Replaced(status);
    }
    let (untouched, unsent) = exchange.unsent();
    // A server can reset what it has begun to work on when only the headers are there.
    let reset = matches!(error, Severed::Http2(error) if error.is_reset());
    // A connection that the library gives up by itself is flushed to its end: what has not left may yet.
    let flushed = matches!(error, Severed::Http2(error) if error.is_library());
    if is_refusal(error) || (untouched && !reset && !flushed) {
        under_way.not_sent();
        let by = if reset { NotProcessedBy::Server } else { NotProcessedBy::Connection };
        return Ended::NotProcessed(status, by, unsent);
    }
    under_way.lost(status.code());
    Ended::Lost(status)
}

/// The connection has not taken it.
fn refused(under_way: UnderWay, unsent: Unsent) -> Ended {
    let Unsent { error, payload, wrong } = unsent;
    let status = status_of(&error, &under_way.context());
    under_way.not_sent();
    if wrong {
        Ended::Over(status)
    } else {
        Ended::NotProcessed(status, NotProcessedBy::Connection, Some(payload))
    }
}
