//! How a [`Waypost`] is told where etcd is and how instances are written there.

use waypost_channel::balance::ClientNumber;
use waypost_discovery::DiscoveryOptions;
use waypost_etcd::{Client, ClientOptions, TlsOptions};
use waypost_model::{layout, parse_layouts};
use waypost_registry::RegistryOptions;

use crate::error::Error;
use crate::place::client_options;
use crate::waypost::Waypost;

/// Makes a [`Waypost`]; [`Waypost::builder`] begins one.
#[derive(Default)]
#[must_use = "a builder does nothing until build() is called"]
pub struct Builder {
    endpoints: Vec<String>,
    layout: Option<String>,
    also_read: Option<String>,
    prefix: Option<String>,
    follow_configs: bool,
    zone: Option<String>,
    client_number: Option<ClientNumber>,
    client: Vec<Box<dyn FnOnce(ClientOptions) -> ClientOptions + Send>>,
    registry: Vec<Box<dyn FnOnce(RegistryOptions) -> RegistryOptions + Send>>,
    discovery: Vec<Box<dyn FnOnce(DiscoveryOptions) -> DiscoveryOptions + Send>>,
}

// === impl Builder ===

impl Builder {
    /// Where etcd is: the addresses of its members, or `embedded:DIR` alone. Default: `http://127.0.0.1:2379`.
    pub fn endpoints<I>(mut self, endpoints: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// Who we are to etcd. Default: nobody.
    pub fn user(self, name: impl Into<String>, password: impl Into<String>) -> Self {
        let (name, password) = (name.into(), password.into());
        self.client(move |options| options.user(name, password))
    }

    /// Certificates for `https://` endpoints.
    pub fn tls(self, tls: TlsOptions) -> Self {
        self.client(move |options| options.tls(tls))
    }

    /// The layout to write and read, one of [`LAYOUT_NAMES`](crate::model::LAYOUT_NAMES). Default: `grpc`.
    pub fn layout(mut self, name: impl Into<String>) -> Self {
        self.layout = Some(name.into());
        self
    }

    /// More layouts to read, comma-separated: services are the union of what is found in all of them.
    pub fn also_read(mut self, names: impl Into<String>) -> Self {
        self.also_read = Some(names.into());
        self
    }

    /// What keys begin with, before the service. Default: the layout's own (`grpc`: `services`). Goes to the layouts
    /// of [`also_read`](Self::also_read) too.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Channels take what etcd has under [`SERVICE_CONFIG_PREFIX`](crate::SERVICE_CONFIG_PREFIX) and the name of their service for
    /// the [service config](waypost_channel::ServiceConfig), and follow it as it changes. Default: they do not, which costs no watch
    /// and needs no right to read there.
    ///
    /// Calls do not wait for it, and a value that is no service config changes nothing: see
    /// [`service_config_updates`](waypost_channel::ChannelBuilder::service_config_updates).
    pub fn follow_service_configs(mut self) -> Self {
        self.follow_configs = true;
        self
    }

    /// The zone that this process is in: its channels prefer instances of that zone
    /// ([`ChannelBuilder::zone`](waypost_channel::ChannelBuilder::zone)), and what it [serves](Waypost::serve) is registered there. Empty for
    /// none. Default: what the environment variable `WAYPOST_ZONE` says, if it says anything.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// The number of this process among the clients of its kind, by which its channels choose their subsets
    /// ([`ChannelBuilder::client_number`](waypost_channel::ChannelBuilder::client_number)). Without effect on channels that connect to all
    /// endpoints, as they do unless [`ChannelBuilder::subset`](waypost_channel::ChannelBuilder::subset) is asked for. Default: what the
    /// environment variable `WAYPOST_CLIENT_NUMBER` says, if it says anything: `7`, or with the name of the group `frontend-7`.
    pub fn client_number(mut self, client: impl Into<ClientNumber>) -> Self {
        self.client_number = Some(client.into());
        self
    }

    /// Changes options of the client to etcd: timeouts, keepalive, limits.
    pub fn client(mut self, change: impl FnOnce(ClientOptions) -> ClientOptions + Send + 'static) -> Self {
        self.client.push(Box::new(change));
        self
    }

    /// Changes options of registrations: TTL, what happens when a key is taken, grace.
    pub fn registry(
        mut self,
        change: impl FnOnce(RegistryOptions) -> RegistryOptions + Send + 'static,
    ) -> Self {
        self.registry.push(Box::new(change));
        self
    }

    /// Changes options of discovery: the disk cache, how long a set that vanishes is held.
    pub fn discovery(
        mut self,
        change: impl FnOnce(DiscoveryOptions) -> DiscoveryOptions + Send + 'static,
    ) -> Self {
        self.discovery.push(Box::new(change));
        self
    }

    /// The [`Waypost`]. No I/O is done, but that the store of `embedded:DIR` is opened.
    ///
    /// # Errors
    /// [`Error::Embedded`] and `Error::Open` when a folder cannot be used,
    /// [`Error::Etcd`] when an endpoint or certificate is malformed, [`Error::Layout`] when there is no such layout.
    pub fn build(self) -> Result<Waypost, Error> {
        let endpoints =
            if self.endpoints.is_empty() { vec!["http://127.0.0.1:2379".to_owned()] } else { self.endpoints };

        let prefix = self.prefix.as_deref();
        let name = self.layout.as_deref().unwrap_or("grpc");
        let written = layout(name, prefix)?;
        let read = match &self.also_read {
            Some(more) => parse_layouts(&format!("{name},{more}"), prefix)?,
            None => vec![written.clone()],
        };
        let registry =
            self.registry.into_iter().fold(RegistryOptions::new(written), |options, change| change(options));
        let discovery =
            self.discovery.into_iter().fold(DiscoveryOptions::new(read), |options, change| change(options));
        let client =
            self.client.into_iter().fold(client_options(endpoints)?, |options, change| change(options));
        let mut waypost = Waypost::new(Client::new(client)?, registry, discovery);
        if let Some(zone) = &self.zone {
            waypost = waypost.with_zone(zone);
        }
        if let Some(client) = self.client_number {
            waypost = waypost.with_client_number(client);
        }
        Ok(if self.follow_configs { waypost.follow_service_configs() } else { waypost })
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("endpoints", &self.endpoints)
            .field("layout", &self.layout)
            .field("also_read", &self.also_read)
            .field("prefix", &self.prefix)
            .field("follow_configs", &self.follow_configs)
            .field("zone", &self.zone)
            .field("client_number", &self.client_number)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_refusals() {
        assert_eq!(&*Builder::default().build().unwrap().client().endpoints()[0], "http://127.0.0.1:2379");
        assert!(matches!(Builder::default().layout("nonsense").build(), Err(Error::Layout(_))));
        assert!(matches!(Builder::default().also_read("nonsense").build(), Err(Error::Layout(_))));
        assert!(matches!(Builder::default().endpoints(["http://a b"]).build(), Err(Error::Etcd(_))));
    }
}
