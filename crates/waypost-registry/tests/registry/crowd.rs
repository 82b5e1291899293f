//! Many at once.

use std::time::Duration;

use waypost_etcd::{Client, ClientOptions};
use waypost_model::Instance;
use waypost_registry::{Registration, RegistrationState, Registry, RegistryOptions};
use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

use crate::support::{PATIENCE, client_of, count, options, reaches_new_lease, reaches_registered};

fn instance(number: u32) -> Instance {
    let [_, high, middle, low] = number.to_be_bytes();
    let endpoint = format!("10.{high}.{middle}.{low}:50051").parse().unwrap();
    Instance::new("crowd".parse().unwrap(), endpoint)
}

/// Times that a machine which is busy with other tests does not exceed.
fn patient_options() -> RegistryOptions {
    options().ttl(Duration::from_secs(60))
}

fn patient_client_of(etcd: &Etcd) -> Client {
    Client::new(ClientOptions::new([etcd.url()]).request_timeout(PATIENCE)).unwrap()
}

for_each_etcd! {
    async fn h02_a_thousand_registrants_come_back(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let client = patient_client_of(&etcd);
        let registries: Vec<Registry> =
            (0..1000).map(|_| Registry::new(client.clone(), patient_options())).collect();
        let registrations: Vec<Registration> = (0..)
            .zip(&registries)
            .map(|(number, registry)| registry.register(instance(number)).unwrap())
            .collect();
        let mut leases = Vec::new();
        for registration in &registrations {
            leases.push(reaches_registered(registration).await);
        }
        // All find at the same moment that their leases are gone.
        etcd.wipe_and_restart().await;
        for (registration, lease) in registrations.iter().zip(leases) {
            reaches_new_lease(registration, lease).await;
        }
        assert_eq!(count(&client, "services/crowd/").await, 1000);
        let refusals: Vec<String> = etcd
            .metrics()
            .await
            .lines()
            .filter(|line| line.starts_with("grpc_server_handled_total") && line.contains("ResourceExhausted"))
            .filter(|line| !line.ends_with(" 0"))
            .map(str::to_owned)
            .collect();
        assert_eq!(refusals, Vec::<String>::new());
    }

    async fn ten_thousand_instances_take_ten_leases_and_eighty_transactions(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let registry = Registry::new(patient_client_of(&etcd), patient_options());
        let before = revision(&client).await;
        let registrations = registry.register_all((0..10_000).map(instance).collect()).unwrap();
        for registration in &registrations {
            registration.registered().await.unwrap();
        }
        assert_eq!(count(&client, "services/crowd/").await, 10_000);
        assert_eq!(client.leases().await.unwrap().len(), 10);
        // Each group of 1,000 keys takes 8 transactions.
        assert_eq!(revision(&client).await - before, 80);

        // The keys of a group go in 16 transactions, 64 in each; the lease has none left when it is revoked.
        registry.shutdown(PATIENCE).await.unwrap();
        assert_eq!(count(&client, "services/crowd/").await, 0);
        assert_eq!(client.leases().await.unwrap(), Vec::<i64>::new());
        assert_eq!(revision(&client).await - before, 80 + 160);
        assert!(registrations.iter().all(|one| *one.state().borrow() == RegistrationState::Deregistered));
    }

    async fn values_near_the_limit_are_spread_over_transactions(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let registry = Registry::new(patient_client_of(&etcd), patient_options());
        // 64 values of 100 kB are four times of what etcd takes in one request.
        let large = |number| instance(number).with_metadata("note", "x".repeat(100_000));
        let registrations = registry.register_all((0..64).map(large).collect()).unwrap();
        for registration in &registrations {
            registration.registered().await.unwrap();
        }
        assert_eq!(crate::support::counter(&registry, "waypost_registration_retries_total"), 0);
    }

    async fn one_that_etcd_refuses_does_not_hold_up_the_others(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let registry = Registry::new(patient_client_of(&etcd), patient_options());
        let mut instances: Vec<Instance> = (0..100).map(instance).collect();
        instances[50] = instance(50).with_metadata("note", "x".repeat(1_800_000));
        let registrations = registry.register_all(instances).unwrap();
        for (number, registration) in registrations.iter().enumerate() {
            if number != 50 {
                registration.registered().await.unwrap();
            }
        }
        let state = crate::support::reaches(&registrations[50], "failing with a cause", |state| {
            matches!(state, RegistrationState::Registering { cause: Some(_), .. })
        });
        let state = state.await.to_string();
        assert!(state.contains("too large"), "{state}");
    }
}

async fn revision(client: &waypost_etcd::Client) -> i64 {
    let answer = client.range(waypost_etcd::Range::key("nothing")).await.unwrap();
    answer.header.unwrap().revision
}
