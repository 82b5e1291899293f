//! How bytes reach an endpoint: TCP, or a Unix socket; with TLS or without.
//!
//! `http://host:port` and `https://host:port`; `unix://path` and `unixs://path` as etcd spells them, where what follows is
//! the path as it stands: `unix:///run/etcd.sock` is absolute, `unix://etcd.sock` is in the working directory.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::error::{Error, innermost};
use crate::options::{ClientOptions, EndpointUrl};

/// Streams of a whole fleet's snapshot come faster with more in flight than HTTP/2's 64 KiB.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// How often a socket that is waited for is tried.
const WAIT: Duration = Duration::from_millis(10);

/// The way to one endpoint.
#[derive(Debug)]
pub(crate) struct Route {
    endpoint: Endpoint,
    connect_timeout: Duration,
    socket: Option<Socket>,
}

#[derive(Clone, Debug)]
struct Socket {
    path: Arc<PathBuf>,
    /// How long a socket on which nobody listens is waited for.
    wait: Duration,
}

// === impl Route ===

impl Route {
    pub(crate) fn new(url: &EndpointUrl, options: &ClientOptions) -> Result<Self, Error> {
        let (secure, path) = match (socket(url), url.split_once("://")) {
            (Some((secure, path)), _) => (secure, Some(path)),
            (None, Some(("http", _))) => (false, None),
            (None, Some(("https", _))) => (true, None),
            _ => {
                return Err(Error::config(format!(
                    "endpoint {url}: the scheme must be http, https, unix or unixs, as in http://127.0.0.1:2379"
                )));
            }
        };
        if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(Error::config(format!(
                "endpoint {url}: it has no path, as in unix:///run/etcd.sock"
            )));
        }
        // What etcd's own clients send as the authority on a Unix socket.
        let uri = match (&path, secure) {
            (None, _) => url.to_string(),
            (Some(_), false) => "http://localhost".to_owned(),
            (Some(_), true) => "https://localhost".to_owned(),
        };
        let bad = |error: tonic::transport::Error| {
            Error::config_from(format!("endpoint {url}: {}", innermost(&error)), error)
        };
        let mut endpoint = Endpoint::from_shared(uri)
            .map_err(bad)?
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(options.keepalive_interval))
            .http2_keep_alive_interval(options.keepalive_interval)
            .keep_alive_timeout(options.keepalive_timeout)
            .keep_alive_while_idle(false)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        if secure {
            let tls = options.tls.clone().unwrap_or_default();
            endpoint = endpoint.tls_config(tls.to_tonic()).map_err(bad)?;
        }
        // A tenth is left for the handshake, and for the system's own words to win over the timeout's.
        let wait = if options.wait_for_socket { options.connect_timeout * 9 / 10 } else { Duration::ZERO };
        let socket = path.map(|path| Socket { path: Arc::new(path), wait });
        Ok(Self { endpoint, connect_timeout: options.connect_timeout, socket })
    }

    /// One attempt, at most as long as the options say.
    pub(crate) async fn connect(&self) -> Result<Channel, String> {
        let attempt = async {
            match &self.socket {
                None => self.endpoint.connect().await,
                Some(socket) => {
                    let until = Instant::now() + socket.wait;
                    let socket = socket.clone();
                    let connector = service_fn(move |_: Uri| {
                        let socket = socket.clone();
                        async move { socket.connect(until).await.map(TokioIo::new) }
                    });
                    self.endpoint.connect_with_connector(connector).await
                }
            }
        };
        match tokio::time::timeout(self.connect_timeout, attempt).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(innermost(&error)),
            Err(_) => Err(format!("no connection within {:?}", self.connect_timeout)),
        }
    }
}

// === impl Socket ===

impl Socket {
    async fn connect(&self, until: Instant) -> io::Result<UnixStream> {
        loop {
            let error = match UnixStream::connect(&*self.path).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let passing = matches!(
                error.kind(),
                // Not there, there and left over, and there with too many who wait.
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
            );
            if !passing || Instant::now() >= until {
                return Err(error);
            }
            tokio::time::sleep(WAIT).await;
        }
    }
}

/// Whether a URL is that of a Unix socket: whether TLS is spoken on it, and its path.
pub(crate) fn socket(url: &str) -> Option<(bool, PathBuf)> {
    let (scheme, rest) = url.split_once(':')?;
    let secure = match scheme {
        "unix" => false,
        "unixs" => true,
        _ => return None,
    };
    Some((secure, PathBuf::from(rest.strip_prefix("//").unwrap_or(rest))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_behind_the_scheme() {
        for (url, secure, path) in [
            ("unix:///run/etcd.sock", false, "/run/etcd.sock"),
            ("unix://localhost:2379", false, "localhost:2379"),
            ("unix:etcd.sock", false, "etcd.sock"),
            ("unixs://a@b/etcd.sock", true, "a@b/etcd.sock"),
            ("unix://", false, ""),
        ] {
            assert_eq!(socket(url), Some((secure, PathBuf::from(path))), "{url}");
        }
        for url in ["http://unix:1", "unix", "unixes://a"] {
            assert_eq!(socket(url), None, "{url}");
        }
    }
}
