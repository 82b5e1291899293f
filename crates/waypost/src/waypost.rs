//! One etcd, seen from one process: what is registered there, found there and called there.

use std::sync::Arc;

use tonic::server::NamedService;
use waypost_channel::balance::{ClientNumber, InvalidClientNumber};
use waypost_channel::{Channel, ChannelBuilder};
use waypost_discovery::{Discovery, DiscoveryOptions, Subscription};
use waypost_etcd::Client;
use waypost_model::{Instance, ServiceName};
use waypost_registry::{Registration, Registry, RegistryOptions};

use crate::builder::Builder;
use crate::error::Error;
use crate::serve::{GrpcService, Serve};
use crate::service_config::follow_service_config;

/// Everything about one etcd in one place: registers, discovers, serves and calls. Cheap to clone; clones share their
/// connections, leases and watches.
///
/// ```no_run
/// # async fn example() -> Result<(), waypost::Error> {
/// use waypost::Waypost;
///
/// let waypost = Waypost::builder()
///     .endpoints(["http://10.0.0.1:2379", "http://10.0.0.2:2379", "http://10.0.0.3:2379"])
///     .user("greeter", "secret")
///     .also_read("kratos")
///     .build()?;
/// let channel = waypost.channel("greeter")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Waypost {
    shared: Arc<Shared>,
    follow_configs: bool,
    /// Not empty.
    zone: Option<Arc<str>>,
    /// What is wrong with it is said where it is needed.
    client_number: Option<Result<ClientNumber, InvalidClientNumber>>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    registry: Registry,
    registry_options: RegistryOptions,
    discovery: Discovery,
}

// === impl Waypost ===

impl Waypost {
    /// The etcd at these comma-separated addresses, with the defaults of everything.
    ///
    /// No I/O is done: connections are made when they are needed, and made again when they break, so a process
    /// starts whether or not etcd is there.
    ///
    /// With the feature `embed` the address may be `embedded:DIR`, a store in that folder; it is opened at once, which blocks
    /// for some milliseconds, and stays open as long as anything of this lives. See the module `embed`.
    ///
    /// # Errors
    /// [`Error::Etcd`] when an address is malformed, [`Error::Embedded`] and `Error::Open` when a folder cannot be used.
    pub fn connect(endpoints: &str) -> Result<Self, Error> {
        Self::builder().endpoints(endpoints.split(',')).build()
    }

    /// Begins one with other options.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Made of its parts, which are otherwise made by [`builder`](Self::builder). In the zone that the environment variable
    /// `WAYPOST_ZONE` names, if it does, and with the number of `WAYPOST_CLIENT_NUMBER`, if it says one.
    pub fn new(client: Client, registry: RegistryOptions, discovery: DiscoveryOptions) -> Self {
        Self {
            follow_configs: false,
            zone: zone_of(|name| std::env::var(name).ok()),
            client_number: client_number_of(|name| {
                Some(std::env::var_os(name)?.to_string_lossy().into_owned())
            }),
            shared: Arc::new(Shared {
                registry: Registry::new(client.clone(), registry.clone()),
                registry_options: registry,
                discovery: Discovery::new(client.clone(), discovery),
                client,
            }),
        }
    }

    /// With channels that follow the service configs in etcd, as [`Builder::follow_service_configs`] says.
    pub fn follow_service_configs(mut self) -> Self {
        self.follow_configs = true;
        self
    }

    /// With another zone than that of the environment, as [`Builder::zone`] says.
    pub fn with_zone(mut self, zone: &str) -> Self {
        self.zone = Some(zone).filter(|zone| !zone.is_empty()).map(Arc::from);
        self
    }

    /// The zone that this process is in, if it is known.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// With another number than that of the environment, as [`Builder::client_number`] says.
    pub fn with_client_number(mut self, client: impl Into<ClientNumber>) -> Self {
        self.client_number = Some(Ok(client.into()));
        self
    }

    /// The client to etcd.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The registry behind [`register`](Self::register).
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// The discovery behind [`discover`](Self::discover) and [`channel`](Self::channel).
    pub fn discovery(&self) -> &Discovery {
        &self.shared.discovery
    }

    /// Registers an instance and keeps it registered until the [`Registration`] is ended. Returns at once. Must be
    /// called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Register`]: what can be told without etcd, see [`Registry::register`].
    pub fn register(&self, instance: Instance) -> Result<Registration, Error> {
        Ok(self.shared.registry.register(instance)?)
    }

    /// Follows the instances of a service. Returns at once.
    ///
    /// # Errors
    /// [`Error::Name`] when that cannot be the name of a service.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn discover(&self, service: impl AsRef<str>) -> Result<Subscription, Error> {
        Ok(self.shared.discovery.service(service_name(service)?))
    }

    /// A channel to the instances of a service, for any client that tonic generates. Returns at once: a call waits for
    /// the first connection.
    ///
    /// # Errors
    /// [`Error::Name`] when that cannot be the name of a service.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn channel(&self, service: impl AsRef<str>) -> Result<Channel, Error> {
        Ok(self.channel_builder(service)?.build())
    }

    /// A channel with a policy, timeouts, retries or TLS of your own.
    ///
    /// # Errors
    /// [`Error::Name`] when that cannot be the name of a service.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn channel_builder(&self, service: impl AsRef<str>) -> Result<ChannelBuilder, Error> {
        let service = service_name(service)?;
        let mut builder = Channel::builder(self.shared.discovery.service(service.clone()));
        if let Some(zone) = &self.zone {
            builder = builder.zone(Arc::clone(zone));
        }
        if let Some(client) = &self.client_number {
            builder = builder.client_number(client.clone().map_err(Error::ClientNumber)?);
        }
        if !self.follow_configs {
            return Ok(builder);
        }
        Ok(builder.service_config_updates(follow_service_config(self.shared.client.clone(), &service)))
    }

    /// A gRPC server that is registered as an instance of `service` while it runs; awaiting it runs it.
    ///
    /// `address` is where to listen, `host:port`: with host `0.0.0.0` it is advertised at this machine's address, see
    /// [`registry::advertise`](crate::registry::advertise); with port 0 at the port that it got. `grpc` is what tonic
    /// generates, such as `GreeterServer::new(…)`; more can be [added](Serve::add_service).
    ///
    /// The instance is registered in the [zone](Self::zone) of this process, unless [`Serve::instance`] says otherwise. See [`Serve`]
    /// for what happens when.
    pub fn serve<S, B>(&self, service: impl AsRef<str>, address: impl Into<String>, grpc: S) -> Serve
    where
        S: GrpcService<B> + NamedService,
    {
        let registry = Registry::new(self.shared.client.clone(), self.shared.registry_options.clone());
        let serve = Serve::new(registry, service.as_ref(), address.into()).add_service(grpc);
        match self.zone() {
            Some(zone) => {
                let zone = zone.to_owned();
                serve.instance(|instance| instance.with_zone(zone))
            }
            None => serve,
        }
    }
}

/// The environment's zone; a variable that is empty counts as not set.
fn zone_of(lookup: impl Fn(&str) -> Option<String>) -> Option<Arc<str>> {
    lookup("WAYPOST_ZONE").filter(|zone| !zone.is_empty()).map(Arc::from)
}

/// What the environment says of the client's number, or that it is none; a variable that is empty counts as not set.
fn client_number_of(
    lookup: impl Fn(&str) -> Option<String>,
) -> Option<Result<ClientNumber, InvalidClientNumber>> {
    lookup("WAYPOST_CLIENT_NUMBER").filter(|text| !text.is_empty()).map(|text| text.parse())
}

pub(crate) fn service_name(name: impl AsRef<str>) -> Result<ServiceName, Error> {
    let name = name.as_ref();
    ServiceName::new(name).map_err(|source| Error::Name { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_is_the_environments_unless_it_is_empty() {
        let zone = |value: Option<&str>| {
            zone_of(|name| {
                assert_eq!(name, "WAYPOST_ZONE");
                value.map(str::to_owned)
            })
        };
        assert_eq!(zone(Some("eu-1")).as_deref(), Some("eu-1"));
        assert_eq!((zone(Some("")), zone(None)), (None, None));
    }

    #[test]
    fn the_clients_number_is_the_environments_unless_it_is_empty() {
        let number = |value: &str| client_number_of(|_| Some(value.to_owned()));
        assert_eq!(number("web-3"), Some(Ok(ClientNumber::new("web", 3))));
        assert!(number("web").is_some_and(|read| read.is_err()));
        assert_eq!((number(""), client_number_of(|_| None)), (None, None));
    }

    #[test]
    fn a_zone_of_the_programs_counts_more() {
        let waypost = Waypost::builder().zone("a").build().unwrap();
        assert_eq!(waypost.zone(), Some("a"));
        assert_eq!(waypost.with_zone("").zone(), None);
    }
}
