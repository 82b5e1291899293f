//! Connections: accepted, over TLS if so listened, and served as HTTP/2 and HTTP/1 on the same port.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::authority::Mended;
use super::front::Front;
use super::metrics::metered;
use super::socket::{Listening, Stream};
use super::tls::{Peer, Tls};

/// How long to wait after the system refuses a connection, for want of file descriptors perhaps.
const PAUSE: Duration = Duration::from_millis(50);
/// How long connections may take to end. Less than the server's own patience.
const GRACE: Duration = Duration::from_secs(4);
/// How long a client may take to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Window of a stream, and of a connection, in bytes.
const WINDOW: u32 = 4 << 20;
/// Headers of one request at most, in bytes.
const MAX_HEADERS: u32 = 64 << 10;

/// Serves the connections of one listener.
#[derive(Clone)]
struct Server {
    protocol: auto::Builder<TokioExecutor>,
    front: Front,
    stop: CancellationToken,
}

/// Accepts connections until told to stop, then lets those that there are come to an end.
pub(super) async fn accept(
    listener: Listening,
    tls: Option<Arc<Tls>>,
    front: Front,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let server = Server { protocol: protocol(), front, stop: stop.clone() };
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
        let (server, watcher) = (server.clone(), graceful.watcher());
        match &tls {
            None => connections.spawn(server.serve(stream, Peer::default(), watcher)),
            Some(tls) => connections.spawn(server.serve_secure(stream, Arc::clone(tls), watcher)),
        };
    }
    drop(listener);
    let ended = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    if ended.is_err() {
        tracing::info!("connections did not end in time, and are cut");
    }
    connections.shutdown().await;
}

fn protocol() -> auto::Builder<TokioExecutor> {
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
    builder
}

// === impl Server ===

impl Server {
    async fn serve<S>(self, stream: S, peer: Peer, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { protocol, front, .. } = self;
        let stream = metered(stream, &front.engine.shared.tallies);
        let service = tower::service_fn(move |request| front.clone().answer(peer.clone(), request));
        let stream = TokioIo::new(Mended::new(stream));
        let connection = protocol.serve_connection_with_upgrades(stream, TowerToHyperService::new(service));
        if let Err(error) = watcher.watch(connection.into_owned()).await {
            tracing::debug!(error, "a connection ended");
        }
    }

    async fn serve_secure(self, stream: Stream, tls: Arc<Tls>, watcher: Watcher) {
        let from = match &stream {
            Either::Left(tcp) => tcp.peer_addr().map(|address| address.to_string()).unwrap_or_default(),
            Either::Right(_) => "a unix socket".to_owned(),
        };
        let handshake = TlsAcceptor::from(tls.config()).accept(stream);
        let outcome = tokio::select! {
            () = self.stop.cancelled() => return,
            outcome = tokio::time::timeout(HANDSHAKE, handshake) => outcome,
        };
        match outcome {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let peer = shown.filter(|_| tls.names_users).map(Peer::of).unwrap_or_default();
                self.serve(stream, peer, watcher).await;
            }
            Ok(Err(error)) => tracing::warn!(%error, from, "a client was refused: no TLS with it"),
            Err(_) => tracing::warn!(from, "a client was refused: it did not agree on TLS in time"),
        }
    }
}
