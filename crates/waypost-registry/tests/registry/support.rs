//! What the tests start from.

use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

use prometheus_client::registry::Registry as MetricsRegistry;
use waypost_etcd::{Client, ClientOptions, KeyValue, Range};
use waypost_model::{Instance, Layout};
use waypost_registry::{Registration, RegistrationState, Registry, RegistryOptions};
use waypost_testkit::Etcd;

/// Generous: it only runs out when a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The least that the test servers grant is 1 s.
pub(crate) const TTL: Duration = Duration::from_secs(2);

pub(crate) const KEY: &str = "services/greeter/10.0.0.1:50051";

pub(crate) fn client(urls: impl IntoIterator<Item = String>) -> Client {
    Client::new(ClientOptions::new(urls).request_timeout(Duration::from_secs(2))).unwrap()
}

pub(crate) fn client_of(etcd: &Etcd) -> Client {
    client([etcd.url()])
}

pub(crate) fn grpc() -> Arc<dyn Layout> {
    waypost_model::layout("grpc", None).unwrap()
}

pub(crate) fn options() -> RegistryOptions {
    RegistryOptions::new(grpc()).ttl(TTL)
}

pub(crate) fn registry_of(etcd: &Etcd) -> Registry {
    Registry::new(client_of(etcd), options())
}

pub(crate) fn greeter() -> Instance {
    Instance::new("greeter".parse().unwrap(), "10.0.0.1:50051".parse().unwrap())
}

/// A registered greeter.
pub(crate) async fn registered(registry: &Registry) -> Registration {
    let registration = registry.register(greeter()).unwrap();
    reaches_registered(&registration).await;
    registration
}

/// Waits for a state, and answers it.
pub(crate) async fn reaches(
    registration: &Registration,
    what: &str,
    fits: impl FnMut(&RegistrationState) -> bool,
) -> RegistrationState {
    let mut state = registration.state();
    let reached =
        tokio::time::timeout(PATIENCE, state.wait_for(fits)).await.map(|state| state.unwrap().clone());
    reached.unwrap_or_else(|_| {
        panic!("{} is not {what} but {}", registration.name(), *registration.state().borrow())
    })
}

/// Waits until it is registered, and answers under which lease.
pub(crate) async fn reaches_registered(registration: &Registration) -> i64 {
    match reaches(registration, "registered", RegistrationState::is_registered).await {
        RegistrationState::Registered { lease, .. } => lease,
        state => panic!("{state}"),
    }
}

/// Waits until it is registered under another lease than `before`.
pub(crate) async fn reaches_new_lease(registration: &Registration, before: i64) -> i64 {
    let another = |state: &RegistrationState| matches!(state, RegistrationState::Registered { lease, .. } if *lease != before);
    match reaches(registration, "registered under a new lease", another).await {
        RegistrationState::Registered { lease, .. } => lease,
        state => panic!("{state}"),
    }
}

pub(crate) async fn reaches_suspect(registration: &Registration) -> String {
    let suspect = |state: &RegistrationState| matches!(state, RegistrationState::Suspect { .. });
    reaches(registration, "suspect", suspect).await.to_string()
}

pub(crate) async fn get(client: &Client, key: &str) -> Option<KeyValue> {
    client.range(Range::key(key.to_owned())).await.unwrap().kvs.into_iter().next()
}

/// The number of keys under a prefix.
pub(crate) async fn count(client: &Client, prefix: &str) -> i64 {
    client.range(Range::prefix(prefix.to_owned()).count_only()).await.unwrap().count
}

/// The value of a counter of the registry.
pub(crate) fn counter(registry: &Registry, name: &str) -> u64 {
    let mut metrics = MetricsRegistry::default();
    registry.register_metrics(&mut metrics);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &metrics).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// The example `registrant`, which cargo builds beside the tests.
pub(crate) fn registrant(etcd: &Etcd, address: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples/registrant");
    assert!(path.exists(), "cargo build -p waypost-registry --example registrant");
    let mut command = Command::new(path);
    command.args([etcd.url().as_str(), "greeter", address, &TTL.as_secs().to_string()]).env_remove("POD_IP");
    command
}
