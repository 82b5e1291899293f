//! The whole way on real etcd: servers register, a channel finds them, a fleet is rolled, etcd goes away.

use crate::support::{Server, builder, check, instance, ready, within};
use tokio_util::sync::CancellationToken;
use waypost_channel::Channel;
use waypost_discovery::{Discovery, DiscoveryOptions};
use waypost_etcd::{Client, ClientOptions};
use waypost_model::{Instance, layout};
use waypost_registry::{Registration, Registry, RegistryOptions};
use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

/// One server after the other is replaced by a new one while calls never stop.
async fn rolled(registry: &Registry, channel: &Channel, mut fleet: Vec<(Server, Registration)>) {
    let stop = CancellationToken::new();
    let calls = tokio::spawn({
        let (channel, stop) = (channel.clone(), stop.clone());
        async move {
            let mut count = 0;
            while !stop.is_cancelled() {
                check(&channel).await?;
                count += 1;
            }
            Ok::<_, tonic::Status>(count)
        }
    });
    for id in 10..13 {
        let server = Server::healthy().await;
        let registration = registered(registry, instance(id, server.endpoint())).await;
        ready(channel, 4).await;
        let (old, old_registration) = fleet.remove(0);
        within(old_registration.deregister()).await.unwrap();
        ready(channel, 3).await;
        old.leave();
        within(old.left()).await;
        fleet.push((server, registration));
    }
    stop.cancel();
    assert!(within(calls).await.unwrap().unwrap() > 0);
}

async fn registered(registry: &Registry, instance: Instance) -> Registration {
    let registration = registry.register(instance).unwrap();
    within(registration.registered()).await.unwrap();
    registration
}

for_each_etcd! {
    async fn a_fleet_is_found_and_rolled_without_a_failed_call(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = Client::new(ClientOptions::new([etcd.url()])).unwrap();
        let layout = layout("grpc", None).unwrap();
        let registry = Registry::new(client.clone(), RegistryOptions::new(layout.clone()));
        let discovery = Discovery::new(client, DiscoveryOptions::new([layout]));
        let channel = builder(discovery.service(crate::support::service())).build();

        let error = check(&channel).await.unwrap_err();
        for part in ["greeter", "no instance is registered", "grpc", "services"] {
            assert!(error.message().contains(part), "{part:?} is not in {error}");
        }

        let mut fleet = Vec::new();
        for id in 0..3 {
            let server = Server::healthy().await;
            let registration = registered(&registry, instance(id, server.endpoint())).await;
            fleet.push((server, registration));
        }
        ready(&channel, 3).await;
        rolled(&registry, &channel, fleet).await;
    }

    async fn a_channel_goes_on_while_etcd_is_away(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let client = Client::new(ClientOptions::new([etcd.url()])).unwrap();
        let layout = layout("grpc", None).unwrap();
        let registry = Registry::new(client.clone(), RegistryOptions::new(layout.clone()));
        let discovery = Discovery::new(client, DiscoveryOptions::new([layout]));
        let mut subscription = discovery.service(crate::support::service());
        let channel = builder(subscription.clone()).build();
        let server = Server::healthy().await;
        let _registration = registered(&registry, instance(0, server.endpoint())).await;
        ready(&channel, 1).await;

        etcd.kill().await;
        while subscription.snapshot().freshness().is_live() {
            within(subscription.changed()).await;
        }
        for _ in 0..20 {
            check(&channel).await.unwrap();
        }
    }
}
