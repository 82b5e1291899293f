//! What a request meets first: gRPC, the JSON gateway, or what is asked without either.

use std::convert::Infallible;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::engine::Engine;
use super::metrics::Call;
use super::service::Services;
use super::tls::Peer;
use super::{plain, service, status, web, wording};
use crate::error::Refusal;

/// Answers the requests of a listener.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) services: Services,
    pub(super) engine: Engine,
    /// Ends what outlives its connection.
    pub(super) stop: CancellationToken,
    /// Whether it tells how the server is, and nothing else.
    pub(super) metrics_only: bool,
}

// === impl Front ===

impl Front {
    pub(super) async fn answer(
        self,
        peer: Peer,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        if self.metrics_only {
            return Ok(plain::answer_metrics(&self.engine, &request.into_parts().0).await);
        }
        peer.mark(request.headers_mut());
        let grpc = request
            .headers()
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if grpc {
            return Ok(self.grpc(request).await);
        }
        Ok(web::answer(self, request).await)
    }

    /// Answers a call, whoever made gRPC of it.
    pub(super) async fn grpc<B>(self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<tonic::codegen::StdError> + Send,
    {
        let version = request.headers().get("client-api-version");
        if version.is_some_and(|version| std::str::from_utf8(version.as_bytes()).is_err()) {
            return status(&Refusal::InvalidClientApiVersion).into_http();
        }
        let uri = request.uri().clone();
        let call = Call::begin(&self.engine.shared.tallies, uri.path());
        let response = self.services.call(request).await;
        call.follow(wording::as_etcd_says(response, uri.path()))
    }

    /// Bytes that a message may have.
    pub(super) fn message_limit(&self) -> usize {
        service::message_limit(&self.engine)
    }
}
