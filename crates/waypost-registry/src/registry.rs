//! The registry: where registrations are made.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock, atomic::Ordering},
};

use tokio::sync::{mpsc, watch};
use waypost_etcd::Client;
use waypost_model::{Field, Instance};

use crate::{
    advertise,
    context::Context,
    driver::{Command, Published, Seat, SeatId, Seats},
    error::RegisterError,
    machine::{GroupId, Member},
    options::{LeasePolicy, RegistryOptions},
    registration::Registration,
    state::RegistrationState,
};

/// Registers instances of one layout in one etcd cluster, and keeps them registered. Cheap to clone.
///
/// ```no_run
/// use waypost_etcd::{Client, ClientOptions};
/// use waypost_model::Instance;
/// use waypost_registry::{Registry, RegistryOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new(ClientOptions::new(["http://127.0.0.1:2379"]))?;
/// let registry = Registry::new(client, RegistryOptions::new(waypost_model::layout("grpc", None)?));
/// let instance = Instance::new("greeter".parse()?, "0.0.0.0:50051".parse()?);
/// let registration = registry.register(instance)?;
/// registration.registered().await?;
/// println!("{} is {}", registration.name(), *registration.state().borrow());
/// registration.deregister().await?;
/// # Ok(())
/// # }
/// ```
///
/// Dropping a registry ends nothing: its [`Registration`]s go on until they are ended.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(crate) context: Arc<Context>,
}

/// An instance that can be registered: checked, and written once for a try.
struct Candidate {
    instance: Arc<Instance>,
    name: Arc<str>,
    lost: Vec<Field>,
    /// The key of its first part; `None` where the lease is part of it.
    key: Option<Vec<u8>>,
}

// === impl Registry ===

impl Registry {
    /// A registry that has no registrations. No I/O is done.
    pub fn new(client: Client, options: RegistryOptions) -> Self {
        Self { context: Arc::new(Context::new(client, options)) }
    }

    /// Registers `instance` and keeps it registered until the [`Registration`] is ended.
    ///
    /// Returns at once; [`Registration::registered`] waits for the first success. Whether etcd can be reached does not
    /// matter: the registration is made as soon as it can be.
    ///
    /// # Errors
    /// What can be told without etcd: no address that others could dial, an instance that the layout cannot write, a
    /// key that this registry has registered already, no tokio runtime, a registry that was shut down.
    ///
    /// # Blocking
    /// Only if the host is `0.0.0.0` or the like, `POD_IP` is not set, and the endpoints of etcd are host names: then
    /// the system's resolver is asked for their addresses.
    pub fn register(&self, instance: Instance) -> Result<Registration, RegisterError> {
        let mut registrations = self.register_all(vec![instance])?;
        // One goes in, one comes out.
        registrations.pop().ok_or(RegisterError::ShutDown)
    }

    /// Registers many instances, as [`register`](Self::register) does one, in as few leases and transactions as they
    /// fit into. All of them or, on an error, none.
    pub fn register_all(&self, instances: Vec<Instance>) -> Result<Vec<Registration>, RegisterError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| RegisterError::NoRuntime)?;
        let candidates: Vec<Candidate> =
            instances.into_iter().map(|instance| self.candidate(instance)).collect::<Result<_, _>>()?;
        warn_of_losses(&candidates, self.context.options.layout.name());

        let mut roster = self.context.roster();
        if roster.closed {
            return Err(RegisterError::ShutDown);
        }
        let mut taken: Vec<&[u8]> = Vec::with_capacity(candidates.len());
        for key in candidates.iter().filter_map(|candidate| candidate.key.as_deref()) {
            if !roster.placement.take(key) {
                for key in taken {
                    roster.placement.give_back(key);
                }
                return Err(RegisterError::AlreadyRegistered { key: String::from_utf8_lossy(key).into() });
            }
            taken.push(key);
        }
        let mut registrations = Vec::with_capacity(candidates.len());
        let mut joining: BTreeMap<GroupId, (mpsc::UnboundedSender<Command>, Seats)> = BTreeMap::new();
        let keys = usize::from(self.context.options.layout.parts());
        for candidate in candidates {
            let shared = self.context.options.leases == LeasePolicy::Shared && candidate.key.is_some();
            let (group, commands) =
                roster.placement.place(keys, shared, |group| self.context.open_group(group, &runtime));
            let (id, seat) = self.seat(candidate);
            let published = Arc::clone(&seat.published);
            registrations.push(Registration::new(
                id,
                published,
                commands.clone(),
                self.context.options.deadline,
                self.context.options.ttl,
            ));
            joining.entry(group).or_insert_with(|| (commands, Vec::new())).1.push((id, seat));
        }
        for (commands, seats) in joining.into_values() {
            // A group does not end while somebody is placed in it, but with its runtime.
            if let Err(mpsc::error::SendError(Command::Join(seats))) = commands.send(Command::Join(seats)) {
                for (_, seat) in seats {
                    seat.published.abandon(&self.context.metrics);
                }
            }
        }
        Ok(registrations)
    }

    /// Adds the metrics of this registry to `registry`: `waypost_registrations{service,state}`,
    /// `waypost_lease_lost_total`, `waypost_registration_puts_total` and `waypost_registration_retries_total`.
    pub fn register_metrics(&self, registry: &mut prometheus_client::registry::Registry) {
        self.context.metrics.register(registry);
    }

    fn candidate(&self, instance: Instance) -> Result<Candidate, RegisterError> {
        let options = &self.context.options;
        let name: Arc<str> = format!("{}/{}", instance.service, instance.id).into();
        let endpoints = self.context.client.endpoints();
        let instance = advertise::dialable(
            instance,
            options.resolve,
            |name| std::env::var(name).ok(),
            || advertise::route_to(endpoints.iter().map(|url| authority(url))),
        )
        .map_err(|source| RegisterError::Address { instance: Arc::clone(&name), source })?;
        let name: Arc<str> = format!("{}/{}", instance.service, instance.id).into();
        let encode = |lease| {
            options.layout.encode(&instance, lease).map_err(|source| RegisterError::Encode {
                instance: Arc::clone(&name),
                layout: options.layout.name(),
                source: Arc::new(source),
            })
        };
        let encoded = encode(1)?;
        let key = encoded.entries.first().map(|entry| entry.key.clone());
        let key = if options.layout.id_is_lease() {
            let other = encode(2)?;
            key.filter(|key| other.entries.first().is_some_and(|entry| entry.key == *key))
        } else {
            key
        };
        Ok(Candidate { instance: Arc::new(instance), name, lost: encoded.lost, key })
    }

    fn seat(&self, candidate: Candidate) -> (SeatId, Seat) {
        let Candidate { instance, name, lost, key: taken } = candidate;
        let options = &self.context.options;
        let state = RegistrationState::Registering { attempt: 0, cause: None };
        self.context.metrics.moved(instance.service.as_str(), None, &state);
        let published = Arc::new(Published {
            name,
            taken,
            lost,
            state: watch::Sender::new(state),
            instance: watch::Sender::new(Arc::clone(&instance)),
            refusal: OnceLock::new(),
        });
        let member = Member::new(Arc::clone(&options.layout), instance, options.conflict);
        let id = SeatId(self.context.next_seat.fetch_add(1, Ordering::Relaxed));
        (id, Seat::new(member, published))
    }
}

/// One warning per service, however many instances it has.
fn warn_of_losses(candidates: &[Candidate], layout: &str) {
    let mut warned = BTreeSet::new();
    for candidate in candidates.iter().filter(|candidate| !candidate.lost.is_empty()) {
        let service = candidate.instance.service.as_str();
        if warned.insert(service) {
            let lost: Vec<String> = candidate.lost.iter().map(ToString::to_string).collect();
            tracing::warn!(
                service,
                id = candidate.instance.id.as_str(),
                layout,
                lost = lost.join(", "),
                "the layout has no place for some of what the instance says"
            );
        }
    }
}

/// `host:port` of an endpoint's URL, with etcd's port where it has none.
fn authority(url: &str) -> std::borrow::Cow<'_, str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { authority.into() } else { format!("{authority}:2379").into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_of_an_endpoint() {
        assert_eq!(authority("http://127.0.0.1:2379"), "127.0.0.1:2379");
        assert_eq!(authority("https://etcd.example/"), "etcd.example:2379");
        assert_eq!(authority("http://[::1]:12379"), "[::1]:12379");
        assert_eq!(authority("http://[::1]"), "[::1]:2379");
    }
}
