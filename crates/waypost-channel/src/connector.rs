//! How bytes reach an endpoint: TCP, TLS over TCP, or something of the user's own.

use crate::tls::{InvalidTls, client_config};
use futures::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tower::ServiceExt as _;
use waypost_model::{Endpoint, Scheme};

/// Makes the transport under an HTTP/2 connection.
pub trait Connector: Send + Sync + fmt::Debug + 'static {
    /// Why this connector cannot connect to such an endpoint, whatever the network does; `None` when it can.
    ///
    /// Of an instance with several endpoints the first that is not refused is used; an instance all of whose endpoints are
    /// refused gets no calls, and this reason is in the error of a call that finds nobody else.
    fn refuses(&self, endpoint: &Endpoint) -> Option<String>;

    /// Connects. May be dropped at any time; the channel limits it by its connect timeout.
    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'static, io::Result<Transport>>;

    /// Whether requests to this endpoint say that they came over TLS (the scheme of their URI): by default if the endpoint asks
    /// for it.
    fn is_secure(&self, endpoint: &Endpoint) -> bool {
        endpoint.scheme.is_secure()
    }
}

/// A connected stream of bytes.
pub type Transport = Box<dyn Duplex>;

/// What a [`Transport`] must do. Implemented for all that can.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

/// TCP, and TLS over TCP if it was given a configuration: the default.
///
/// A name with addresses of both families is tried by the other one, too, when the first has not answered within 300 ms ("happy
/// eyeballs", RFC 8305). `TCP_NODELAY` is set. TCP keepalive finds a host that is gone also while no call is under way, without a word to the
/// server: first probe after 20 s, then every 5 s, gone after 3 without an answer.
#[derive(Debug, Clone, Default)]
pub struct TcpConnector {
    tls: Option<Arc<ClientConfig>>,
    /// For all endpoints rather than for those that ask for it.
    always: bool,
    server_name: Option<ServerName<'static>>,
}

// === impl Duplex ===

impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Duplex for T {}

// === impl TcpConnector ===

impl TcpConnector {
    /// Without TLS: endpoints that ask for it (`grpcs`, `https`) are refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// With TLS for the endpoints that ask for it. ALPN `h2` is offered if the configuration offers nothing.
    pub fn with_tls(mut self, config: impl Into<Arc<ClientConfig>>) -> Self {
        let mut config = config.into();
        if config.alpn_protocols.is_empty() {
            Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec()];
        }
        self.tls = Some(config);
        self
    }

    /// As [`with_tls`](Self::with_tls), with certificates in PEM: those of the authorities that servers' certificates are checked
    /// against, and, where servers want one of the client (mutual TLS), its certificate and key. The system's own authorities
    /// are not consulted.
    ///
    /// # Errors
    /// What is wrong with a certificate or the key.
    pub fn with_pem(
        self,
        authorities: impl AsRef<[u8]>,
        identity: Option<(&[u8], &[u8])>,
    ) -> Result<Self, InvalidTls> {
        Ok(self.with_tls(client_config(authorities.as_ref(), identity)?))
    }

    /// TLS for every endpoint, if there is a configuration: for fleets that speak it where the registry does not say so. Layout
    /// `grpc`, that of etcd's Go package, has no place for it.
    pub fn always_tls(mut self) -> Self {
        self.always = true;
        self
    }

    /// The name that certificates must be for, instead of the host of the endpoint: instances are often registered by
    /// their IP addresses, while their certificates name the service.
    pub fn with_server_name(mut self, name: ServerName<'static>) -> Self {
        self.server_name = Some(name);
        self
    }
}

impl Connector for TcpConnector {
    fn refuses(&self, endpoint: &Endpoint) -> Option<String> {
        match &endpoint.scheme {
            Scheme::Grpc | Scheme::Http => None,
            Scheme::Grpcs | Scheme::Https if self.tls.is_some() => None,
            Scheme::Grpcs | Scheme::Https => {
                Some(format!("{endpoint} needs TLS, and the channel was given no TLS configuration"))
            }
            scheme => Some(format!("{endpoint} speaks {scheme}, not gRPC")),
        }
    }

    fn is_secure(&self, endpoint: &Endpoint) -> bool {
        self.tls.is_some() && (self.always || endpoint.scheme.is_secure())
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'static, io::Result<Transport>> {
        let tls = self.tls.clone().filter(|_| self.is_secure(&endpoint));
        let server_name = self.server_name.clone();
        Box::pin(async move {
            let authority = endpoint.authority();
            let uri = Uri::builder().scheme("http").authority(authority).path_and_query("/").build();
            let uri = uri.map_err(io::Error::other)?;
            let tcp = connector().oneshot(uri).await.map_err(io::Error::other)?.into_inner();
            let Some(config) = tls else { return Ok(Box::new(tcp) as Transport) };
            let name = match server_name {
                Some(name) => name,
                None => ServerName::try_from(endpoint.host.as_str().to_owned()).map_err(io::Error::other)?,
            };
            let tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?;
            match tls.get_ref().1.alpn_protocol() {
                Some(b"h2") | None => Ok(Box::new(tls) as Transport),
                Some(other) => Err(io::Error::other(format!(
                    "the server agreed to {} instead of HTTP/2",
                    String::from_utf8_lossy(other)
                ))),
            }
        })
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(20)));
    connector.set_keepalive_interval(Some(Duration::from_secs(5)));
    connector.set_keepalive_retries(Some(3));
    connector
}
