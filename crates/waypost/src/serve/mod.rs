//! A gRPC server that is registered while it runs.

mod cut;
mod service;
mod serving;

use std::fmt;
use std::future::IntoFuture;
use std::time::Duration;

use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use waypost_model::{Endpoint, Host, Instance};
use waypost_registry::{Registry, ShutdownOptions};

use crate::error::{Error, ServeError};
use crate::signals::Termination;
use crate::waypost::service_name;

use self::cut::Cuttable;
pub use self::service::GrpcService;
pub use self::serving::Serving;

/// A gRPC server that is registered while it runs. Made by [`Waypost::serve`](crate::Waypost::serve); awaiting it runs
/// it to its end.
///
/// 1. It listens. Only then is its port known, and only then is it registered, under a lease of its own.
/// 2. It serves what it was given and gRPC's health service (`grpc.health.v1`), which answers `SERVING`.
/// 3. On SIGTERM or SIGINT, or when [`shutdown`](Self::shutdown) says so: health turns `NOT_SERVING`, the instance is
///    marked `draining`, then deregistered, and while watchers learn of that (the [grace](Self::grace)) it goes on
///    serving. Then it accepts nothing new, finishes the calls it has, up to a [deadline](Self::deadline), and its
///    lease is revoked. A second signal ends it at once.
///
/// etcd being away keeps it neither from serving nor from ending.
///
/// ```no_run
/// # use greeter::{Greeter, GreeterServer};
/// # async fn example<T: Greeter>(waypost: waypost::Waypost, service: T) -> Result<(), waypost::Error> {
/// use std::time::Duration;
///
/// waypost
///     .serve("greeter", "0.0.0.0:0", GreeterServer::new(service))
///     .instance(|instance| instance.with_zone("a").with_version("1.2.0"))
///     .deadline(Duration::from_secs(10))
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a server runs when it is awaited or started"]
pub struct Serve {
    registry: Registry,
    service: String,
    address: String,
    advertised: Option<String>,
    describe: Vec<Box<dyn FnOnce(Instance) -> Instance + Send>>,
    routes: Routes,
    /// The full names of the gRPC services, for the health service.
    names: Vec<&'static str>,
    health: bool,
    server: Server,
    shutdown: Option<BoxFuture<'static, ()>>,
    options: ShutdownOptions,
    deadline: Duration,
}

/// [`Serve::deadline`] unless it is set.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

// === impl Serve ===

impl Serve {
    pub(crate) fn new(registry: Registry, service: &str, address: String) -> Self {
        Self {
            options: registry.shutdown_options(),
            registry,
            service: service.to_owned(),
            address,
            advertised: None,
            describe: Vec::new(),
            routes: Routes::default(),
            names: Vec::new(),
            health: true,
            server: Server::builder(),
            shutdown: None,
            deadline: DEFAULT_DEADLINE,
        }
    }

    /// One more gRPC service at the same address.
    pub fn add_service<S, B>(mut self, grpc: S) -> Self
    where
        S: GrpcService<B> + NamedService,
    {
        self.names.push(S::NAME);
        self.routes = grpc.add_to(self.routes);
        self
    }

    /// What else the instance says: its id, zone, version, weight, metadata.
    pub fn instance(mut self, describe: impl FnOnce(Instance) -> Instance + Send + 'static) -> Self {
        self.describe.push(Box::new(describe));
        self
    }

    /// The host that others reach this server by, where it is not the one that it listens on.
    pub fn advertise(mut self, host: impl Into<String>) -> Self {
        self.advertised = Some(host.into());
        self
    }

    /// Without gRPC's health service, for a server that brings its own.
    pub fn without_health(mut self) -> Self {
        self.health = false;
        self
    }

    /// A server with limits, timeouts or TLS of its own. With TLS, give the instance an endpoint of scheme `grpcs`.
    pub fn server(mut self, server: Server) -> Self {
        self.server = server;
        self
    }

    /// Ends when this does. Default: at SIGTERM or SIGINT, which are then not caught.
    pub fn shutdown(mut self, shutdown: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Some(Box::pin(shutdown));
        self
    }

    /// How long it goes on serving after it was deregistered, for watchers to have seen that. Default: 1 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options = self.options.grace(grace);
        self
    }

    /// How long calls may take to finish once it accepts nothing new; then they are cut off. Default: 30 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Listens, serves and registers, and returns as soon as it does: with etcd away, before it is registered.
    ///
    /// # Errors
    /// The address cannot be listened on or advertised, or the layout cannot write the instance.
    pub async fn start(self) -> Result<Serving, Error> {
        let service = service_name(&self.service)?;
        let bind = |source| ServeError::Bind {
            service: self.service.clone(),
            address: self.address.clone(),
            source,
        };
        let listener = TcpListener::bind(&self.address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;

        let advertised = match &self.advertised {
            Some(host) => host.clone(),
            None => address.ip().to_string(),
        };
        let endpoint = Host::new(advertised).and_then(|host| Endpoint::new(host, address.port()));
        let endpoint =
            endpoint.map_err(|source| ServeError::Advertise { service: self.service.clone(), source })?;
        let instance = self
            .describe
            .into_iter()
            .fold(Instance::new(service, endpoint), |instance, describe| describe(instance));

        let ends = match self.shutdown {
            Some(shutdown) => Termination { first: shutdown, second: Box::pin(std::future::pending()) },
            None => Termination::catch().map_err(ServeError::Signals)?,
        };

        let (reporter, health) = tonic_health::server::health_reporter();
        let mut routes = self.routes;
        if self.health {
            for name in &self.names {
                reporter.set_service_status(*name, ServingStatus::Serving).await;
            }
            routes = routes.add_service(health);
        }
        let (stop, stopped) = oneshot::channel();
        let cut = CancellationToken::new();
        let cuttable = cut.clone();
        let incoming = TcpIncoming::from(listener)
            .with_nodelay(Some(true))
            .map_ok(move |stream| Cuttable::new(stream, cuttable.clone()));
        let mut server = self.server;
        let serving =
            server.add_routes(routes.prepare()).serve_with_incoming_shutdown(incoming, async move {
                // Dropped unsent means that nobody is left to stop it in order.
                let _ = stopped.await;
            });
        let task = tokio::spawn(serving);

        // From here on the port answers.
        let registration = match self.registry.register(instance) {
            Ok(registration) => registration,
            Err(error) => {
                task.abort();
                cut.cancel();
                return Err(error.into());
            }
        };
        Ok(Serving {
            service: self.service,
            address,
            registry: self.registry,
            registration,
            reporter,
            names: self.names,
            task,
            cut,
            stop,
            ends,
            options: self.options.stop(self.deadline.saturating_add(serving::STOP_SLACK)),
            deadline: self.deadline,
        })
    }
}

impl IntoFuture for Serve {
    type Output = Result<(), Error>;
    type IntoFuture = BoxFuture<'static, Result<(), Error>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.start().await?.run().await?) })
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("service", &self.service)
            .field("address", &self.address)
            .field("grpc", &self.names)
            .finish_non_exhaustive()
    }
}
