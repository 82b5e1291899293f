//! Calls that fail while one of a few endpoints is dead: registered, with nobody who listens.

use crate::fleet::{Servers, channel, register};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use waypost_bench::{Figure, Goal, Unit};
use waypost_testkit::{Etcd, EtcdVersion, free_port};

const CALLS: usize = 2_000;

/// Every figure of dead endpoints.
pub(crate) async fn run() {
    let etcd = Etcd::start(EtcdVersion::V3_5).await;
    for count in [2, 3, 10] {
        let servers = Servers::start(count - 1).await;
        let mut addresses = servers.addresses.clone();
        addresses.push(format!("127.0.0.1:{}", free_port()));
        let service = format!("dead-{count}");
        let _registrations = register(&etcd, &service, &addresses).await;
        let mut ours = channel(&etcd, &service, count - 1).await;
        let endpoints = addresses
            .iter()
            .map(|address| Endpoint::from_shared(format!("http://{address}")).expect("address"));
        let mut tonics = HealthClient::new(Channel::balance_list(endpoints));
        let (mut failed, mut tonics_failed) = (0, 0);
        for _ in 0..CALLS {
            failed += usize::from(ours.check(HealthCheckRequest::default()).await.is_err());
            tonics_failed += usize::from(tonics.check(HealthCheckRequest::default()).await.is_err());
        }
        let name = format!("failed_calls_with_1_of_{count}_dead");
        Figure { name: &name, unit: Unit::Count, goal: Goal::AtMost(0.0) }.report(&[failed as f64]);
        println!("  of {CALLS} calls; tonic's balance_list: {tonics_failed} failed");
    }
}
