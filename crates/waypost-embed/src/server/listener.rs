//! Connections: gRPC, and HTTP/1 beside it on the same port.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt as _;

use super::authority::Mended;
use super::engine::Engine;
use super::socket::Listening;
use super::{plain, wording};
use crate::error::Refusal;

/// How long to wait after the system refuses a connection, for want of file descriptors perhaps.
const PAUSE: Duration = Duration::from_millis(50);
/// How long connections may take to end. Less than the server's own patience.
const GRACE: Duration = Duration::from_secs(4);
/// Window of a stream, and of a connection, in bytes.
const WINDOW: u32 = 4 << 20;
/// Headers of one request at most, in bytes.
const MAX_HEADERS: u32 = 64 << 10;

/// Accepts connections until told to stop, then lets those that there are come to an end.
pub(super) async fn accept(listener: Listening, services: Routes, engine: Engine, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::MAX)
        .max_pending_accept_reset_streams(1 << 16)
        .max_local_error_reset_streams(1 << 16)
        .max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(Duration::from_secs(7200))
        .keep_alive_timeout(Duration::from_secs(20));
    let services = services.prepare();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (services, engine) = (services.clone(), engine.clone());
        let service = tower::service_fn(move |request| answer(services.clone(), engine.clone(), request));
        let connection =
            builder.serve_connection(TokioIo::new(Mended::new(stream)), TowerToHyperService::new(service));
        let connection = graceful.watch(connection.into_owned());
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection ended");
            }
        });
    }
    drop(listener);
    let ended = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    if ended.is_err() {
        tracing::info!("connections did not end in time, and are cut");
    }
    connections.shutdown().await;
}

async fn answer(
    services: Routes,
    engine: Engine,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let grpc = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if !grpc {
        return Ok(plain::answer(&engine, &request));
    }
    let version = request.headers().get("client-api-version");
    if version.is_some_and(|version| std::str::from_utf8(version.as_bytes()).is_err()) {
        return Ok(super::status(&Refusal::InvalidClientApiVersion).into_http());
    }
    let path = request.uri().path().to_owned();
    let response = services.oneshot(request).await?;
    Ok(wording::as_etcd_says(response, &path))
}
