//! What is left of a process that has gone: nothing.

use std::time::Duration;

use waypost_etcd::{EventKind, KeyRange, WatchEvent, WatchSpec};
use waypost_model::{Instance, Status};
use waypost_registry::{RegisterError, RegistrationState, Registry};
use waypost_testkit::{Etcd, EtcdVersion, Process, eventually, for_each_etcd};

use crate::support::{
    KEY, PATIENCE, client_of, count, get, greeter, options, reaches_registered, registered, registrant,
    registry_of,
};

for_each_etcd! {
    async fn h09_sigterm_leaves_nothing(version: EtcdVersion) {
        leaves_nothing(version, Process::terminate).await;
    }

    async fn h09_sigint_leaves_nothing(version: EtcdVersion) {
        leaves_nothing(version, Process::interrupt).await;
    }

    async fn a_dropped_registration_goes(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let registry = registry_of(&etcd);
        drop(registered(&registry).await);
        eventually("the lease is revoked", PATIENCE, async || client.leases().await.unwrap().is_empty().then_some(()))
            .await;
        assert_eq!(get(&client, KEY).await, None);
    }

    async fn the_lease_outlives_its_keys_so_that_readers_can_ask_for_it(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        let lease = reaches_registered(&registration).await;
        registration.deregister().await.unwrap();
        assert_eq!(get(&client, KEY).await, None);
        assert!(client.lease_time_to_live(lease, false).await.unwrap().ttl.is_some());
        registry.shutdown(PATIENCE).await.unwrap();
        assert_eq!(client.lease_time_to_live(lease, false).await.unwrap().ttl, None);
    }

    async fn one_of_many_goes_and_the_others_stay(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let registry = registry_of(&etcd);
        let first = registered(&registry).await;
        let other = Instance::new("greeter".parse().unwrap(), "10.0.0.2:50051".parse().unwrap());
        let second = registry.register(other).unwrap();
        second.registered().await.unwrap();
        first.deregister().await.unwrap();
        assert_eq!(get(&client, KEY).await, None);
        assert_eq!(count(&client, "services/").await, 1);
        assert_eq!(client.leases().await.unwrap(), [reaches_registered(&second).await]);
    }

    async fn shutdown_ends_everything(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        registry.shutdown(PATIENCE).await.unwrap();
        assert_eq!(*registration.state().borrow(), RegistrationState::Deregistered);
        assert_eq!(get(&client, KEY).await, None);
        assert_eq!(client.leases().await.unwrap(), Vec::<i64>::new());
        assert!(matches!(registry.register(greeter()), Err(RegisterError::ShutDown)));
        assert!(matches!(registration.drain().await, Err(RegisterError::Deregistered { .. })));
        registration.deregister().await.unwrap();
        registry.shutdown(PATIENCE).await.unwrap();
    }

    async fn a_graceful_shutdown_keeps_its_order(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let mut watcher = client.watch();
        watcher.add(WatchSpec::new(KeyRange::key(KEY)).from(1));
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        let lease = reaches_registered(&registration).await;
        let stop = Box::pin(async {
            assert_eq!(get(&client, KEY).await, None);
            assert_eq!(client.leases().await.unwrap(), [lease]);
            "stopped"
        });
        let report = registry.shutdown_gracefully(registry.shutdown_options().grace(Duration::ZERO), stop).await;
        assert_eq!(report.stopped, Some("stopped"));
        report.deregistered.unwrap();
        assert_eq!(client.leases().await.unwrap(), Vec::<i64>::new());

        let mut seen = Vec::new();
        while seen.len() < 3 {
            if let WatchEvent::Events { events, .. } = watcher.next().await {
                seen.extend(events.into_iter().map(|event| (event.kind, event.kv.value)));
            }
        }
        let draining = waypost_model::layout("grpc", None).unwrap();
        let draining = draining.encode(&greeter().with_status(Status::Draining), 0).unwrap();
        assert_eq!(seen[0].0, EventKind::Put);
        assert_eq!(seen[1], (EventKind::Put, draining.entries[0].value.clone().into()));
        assert_eq!(seen[2].0, EventKind::Delete);
    }

    async fn a_server_that_does_not_stop_is_left_behind(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let registry = registry_of(&etcd);
        let _registration = registered(&registry).await;
        let options = registry.shutdown_options().grace(Duration::ZERO).stop(Duration::from_millis(10));
        let report = registry.shutdown_gracefully(options, std::future::pending::<()>()).await;
        assert_eq!(report.stopped, None);
        report.deregistered.unwrap();
    }

    async fn leaving_is_bounded_while_etcd_is_away(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let deadline = Duration::from_millis(200);
        let registry = Registry::new(client_of(&etcd), options().deadline(deadline));
        let first = registered(&registry).await;
        let other = Instance::new("greeter".parse().unwrap(), "10.0.0.2:50051".parse().unwrap());
        let second = registry.register(other).unwrap();
        second.registered().await.unwrap();
        etcd.kill().await;
        let unwritten = second.drain().await.unwrap_err();
        assert!(matches!(unwritten, RegisterError::NotWritten { .. }), "{unwritten}");
        let left = first.deregister().await.unwrap_err();
        assert!(matches!(left, RegisterError::NotRemoved { .. }), "{left}");
        assert!(left.to_string().contains("expires"), "{left}");

        // It goes on in the background.
        etcd.restart().await;
        let client = client_of(&etcd);
        let gone = async || get(&client, KEY).await.is_none().then_some(());
        eventually("the key is gone", PATIENCE, gone).await;
        let state = second.state();
        eventually("the other one is drained", PATIENCE, async || {
            let value = get(&client, "services/greeter/10.0.0.2:50051").await?.value;
            String::from_utf8_lossy(&value).contains("draining").then_some(())
        })
        .await;

        etcd.kill().await;
        let left = registry.shutdown(deadline).await.unwrap_err();
        assert!(matches!(left, RegisterError::NotShutDown { .. }), "{left}");
        assert_eq!(*state.borrow(), RegistrationState::Deregistered);
    }
}

async fn leaves_nothing(version: EtcdVersion, signal: impl FnOnce(&Process)) {
    let etcd = Etcd::start(version).await;
    let client = client_of(&etcd);
    let process = Process::spawn(&mut registrant(&etcd, "10.0.0.1:50051"));
    process.wait_for_line(|line| line.starts_with("registered at"), PATIENCE).await;
    assert!(get(&client, KEY).await.is_some());
    signal(&process);
    assert!(process.exited(PATIENCE).await.success(), "{:?}", process.error_lines());
    assert_eq!(get(&client, KEY).await, None);
    assert_eq!(client.leases().await.unwrap(), Vec::<i64>::new());
    assert_eq!(process.lines().last().map(String::as_str), Some("deregistered"));
}
