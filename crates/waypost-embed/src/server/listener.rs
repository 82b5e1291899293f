//! Connections: accepted, given to a lane, over TLS if so listened, and served as HTTP/2 and HTTP/1 on the same port.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::front::Front;
use super::lanes::{Lanes, Seat};
use super::socket::{Accepted, Listening, Stream};
use super::tls::{Peer, Tls};
use super::wire::Wire;

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

/// How long a client that was refused may take to hear why.
const FAREWELL: Duration = Duration::from_secs(1);

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
    lanes: Arc<Lanes>,
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
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let seat = lanes.seat();
        let lane = seat.runtime.clone();
        connections.spawn_on(server.clone().serve(accepted, tls.clone(), seat, graceful.watcher()), &lane);
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

/// Closes a connection when the other side does: closed at once, what was written last may never be read there, since the
/// client finds out first that it can write no more.
async fn linger(mut stream: Stream) {
    let farewell = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    // Whatever it does, it has been told.
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

// === impl Server ===

impl Server {
    /// A connection from its beginning to its end, in its lane.
    async fn serve(self, accepted: Accepted, tls: Option<Arc<Tls>>, seat: Seat, watcher: Watcher) {
        let stream = match accepted.attach() {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "a connection was not served"),
        };
        match tls {
            None => self.speak(stream, Peer::default(), seat, watcher).await,
            Some(tls) => self.agree(stream, tls, seat, watcher).await,
        }
    }

    /// Agrees on TLS first.
    async fn agree(self, stream: Stream, tls: Arc<Tls>, seat: Seat, watcher: Watcher) {
        let from = match &stream {
            Either::Left(tcp) => tcp.peer_addr().map(|address| address.to_string()).unwrap_or_default(),
            Either::Right(_) => "a unix socket".to_owned(),
        };
        let handshake = TlsAcceptor::from(tls.config()).accept(stream).into_fallible();
        let outcome = tokio::select! {
            () = self.stop.cancelled() => return,
            outcome = tokio::time::timeout(HANDSHAKE, handshake) => outcome,
        };
        match outcome {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let peer = shown.filter(|_| tls.names_users).map(Peer::of).unwrap_or_default();
                self.speak(stream, peer, seat, watcher).await;
            }
            Ok(Err((error, stream))) => {
                tracing::warn!(%error, from, "a client was refused: no TLS with it");
                linger(stream).await;
            }
            Err(_) => tracing::warn!(from, "a client was refused: it did not agree on TLS in time"),
        }
    }

    /// HTTP/2 or HTTP/1, as the client likes.
    async fn speak<S>(self, stream: S, peer: Peer, seat: Seat, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { protocol, front, .. } = self;
        let tallies = Arc::clone(&front.engine.shared.tallies);
        let (wire, work) = Wire::new(stream, tallies, Arc::new(seat));
        let begins = work.clone();
        let service = service_fn(move |request| {
            begins.begin();
            front.clone().answer(peer.clone(), request)
        });
        let connection = protocol.serve_connection_with_upgrades(TokioIo::new(wire), service);
        let mut connection = pin!(watcher.watch(connection.into_owned()));
        let turns = poll_fn(|cx| {
            work.turn();
            connection.as_mut().poll(cx)
        });
        if let Err(error) = turns.await {
            tracing::debug!(error, "a connection ended");
        }
    }
}
