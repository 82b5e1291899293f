//! What a request meets first: gRPC, or what is asked without it.

use std::convert::Infallible;

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt as _;

use super::engine::Engine;
use super::tls::Peer;
use super::{plain, status, wording};
use crate::error::Refusal;

/// Answers the requests of a listener.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) services: Routes,
    pub(super) engine: Engine,
}

// === impl Front ===

impl Front {
    pub(super) async fn answer(
        self,
        peer: Peer,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        peer.mark(request.headers_mut());
        let grpc = request
            .headers()
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if !grpc {
            return Ok(plain::answer(&self.engine, &request));
        }
        let version = request.headers().get("client-api-version");
        if version.is_some_and(|version| std::str::from_utf8(version.as_bytes()).is_err()) {
            return Ok(status(&Refusal::InvalidClientApiVersion).into_http());
        }
        let path = request.uri().path().to_owned();
        let response = self.services.oneshot(request).await?;
        Ok(wording::as_etcd_says(response, &path))
    }
}
