//! Whose key it is.

use std::time::Duration;

use waypost_etcd::Put;
use waypost_model::Instance;
use waypost_registry::{Conflict, LeasePolicy, RegisterError, RegistrationState, Registry, RegistryOptions};
use waypost_testkit::{Etcd, EtcdVersion, eventually, for_each_etcd};

use crate::support::{
    KEY, PATIENCE, client_of, count, get, greeter, options, reaches, reaches_registered, reaches_suspect,
    registered, registry_of,
};

for_each_etcd! {
    async fn h06_a_late_deregistration_leaves_the_successor(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let (old, new) = (registry_of(&etcd), registry_of(&etcd));
        let predecessor = registered(&old).await;
        let successor = registered(&new).await;
        let lease = reaches_registered(&successor).await;
        predecessor.deregister().await.unwrap();
        assert_eq!(get(&client, KEY).await.unwrap().lease, lease);
        old.shutdown(PATIENCE).await.unwrap();
        assert_eq!(get(&client, KEY).await.unwrap().lease, lease);
        assert_eq!(client.leases().await.unwrap(), [lease]);
    }

    async fn h06_a_late_shutdown_of_many_leaves_the_successors(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let (old, new) = (registry_of(&etcd), registry_of(&etcd));
        let instances = |range: std::ops::Range<u16>| {
            let endpoint = |port| format!("10.0.0.1:{port}").parse().unwrap();
            range.map(|port| Instance::new("greeter".parse().unwrap(), endpoint(port))).collect::<Vec<_>>()
        };
        for registration in &old.register_all(instances(1..301)).unwrap() {
            registration.registered().await.unwrap();
        }
        let kept = new.register_all(instances(101..151)).unwrap();
        for registration in &kept {
            registration.registered().await.unwrap();
        }
        let report = old.shutdown_gracefully(old.shutdown_options().grace(Duration::ZERO), async {}).await;
        report.deregistered.unwrap();
        assert_eq!(count(&client, "services/greeter/").await, 50);
        for registration in &kept {
            assert!(registration.state().borrow().is_registered());
        }
    }

    async fn a_registration_yields_to_its_successor_and_follows_it(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let (old, new) = (registry_of(&etcd), registry_of(&etcd));
        let first = registered(&old).await;
        let second = registered(&new).await;
        let theirs = reaches_registered(&second).await;
        let cause = reaches_suspect(&first).await;
        assert!(cause.contains(&format!("replaced by lease {theirs:x}")), "{cause}");
        let refused = first.set_weight(3).await.unwrap_err();
        assert!(matches!(refused, RegisterError::Superseded { .. }), "{refused}");
        second.deregister().await.unwrap();
        let ours = reaches_registered(&first).await;
        let kv = get(&client, KEY).await.unwrap();
        assert_eq!(kv.lease, ours);
        // The change that was kept meanwhile.
        assert!(String::from_utf8_lossy(&kv.value).contains("\"weight\":3"), "{kv:?}");
    }

    async fn a_key_without_a_lease_is_yielded_to(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        etcd.etcdctl(["put", KEY, "by hand"]).await;
        let cause = reaches_suspect(&registration).await;
        assert!(cause.contains("without a lease"), "{cause}");
        etcd.etcdctl(["del", KEY]).await;
        reaches_registered(&registration).await;
    }

    async fn the_lease_is_lost_while_a_successor_has_the_key(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        let lease = reaches_registered(&registration).await;
        // In one revision: the lease goes, and the key is somebody else's.
        client.put(Put::new(KEY, "theirs")).await.unwrap();
        client.lease_revoke(lease).await.unwrap();
        reaches(&registration, "yielding", |state| {
            matches!(state, RegistrationState::Suspect { cause } if cause.contains("without a lease"))
        })
        .await;
        assert_eq!(&get(&client, KEY).await.unwrap().value[..], b"theirs");
    }

    async fn reject_refuses_a_key_that_exists(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let holder = registry_of(&etcd);
        let held = registered(&holder).await;
        let theirs = reaches_registered(&held).await;
        let registry = Registry::new(client_of(&etcd), options().conflict(Conflict::Reject));
        let other = Instance::new("greeter".parse().unwrap(), "10.0.0.2:50051".parse().unwrap());
        let registrations = registry.register_all(vec![greeter(), other]).unwrap();
        match registrations[0].registered().await.unwrap_err() {
            RegisterError::Conflict { key, lease } => assert_eq!((&*key, lease), (KEY, theirs)),
            error => panic!("{error}"),
        }
        assert!(matches!(*registrations[0].state().borrow(), RegistrationState::Refused { .. }));
        // The other one of the same transaction is not held up by it.
        registrations[1].registered().await.unwrap();
        assert_eq!(get(&client, KEY).await.unwrap().lease, theirs);

        // Once it is free it can be had.
        held.deregister().await.unwrap();
        let again = registry.register(greeter()).unwrap();
        again.registered().await.unwrap();
    }

    async fn an_exclusive_name_is_taken_over_by_comparison(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let single = || RegistryOptions::new(waypost_model::layout("single", None).unwrap());
        let (old, new) = (Registry::new(client_of(&etcd), single()), Registry::new(client_of(&etcd), single()));
        let first = old.register(greeter()).unwrap();
        first.registered().await.unwrap();
        let other = Instance::new("greeter".parse().unwrap(), "10.0.0.2:50051".parse().unwrap());
        assert!(matches!(old.register(other.clone()), Err(RegisterError::AlreadyRegistered { .. })));
        let second = new.register(other).unwrap();
        second.registered().await.unwrap();
        reaches_suspect(&first).await;
        assert_eq!(&get(&client, "/services/greeter").await.unwrap().value[..], b"10.0.0.2:50051");
        first.deregister().await.unwrap();
        assert_eq!(&get(&client, "/services/greeter").await.unwrap().value[..], b"10.0.0.2:50051");
    }

    async fn the_same_key_is_registered_once(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        let other = Instance::new("greeter".parse().unwrap(), "10.0.0.2:50051".parse().unwrap());
        let error = registry.register_all(vec![other.clone(), greeter()]).unwrap_err();
        assert!(matches!(error, RegisterError::AlreadyRegistered { .. }), "{error}");
        // All or nothing: the other one is free.
        drop(registry.register(other).unwrap());
        registration.deregister().await.unwrap();
        registered(&registry).await.deregister().await.unwrap();
    }

    async fn a_key_named_by_its_lease_changes_with_it(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let go_zero = waypost_model::layout("go-zero", None).unwrap();
        let registry = Registry::new(client_of(&etcd), RegistryOptions::new(go_zero));
        let endpoint = |port: u16| format!("10.0.0.1:{port}").parse().unwrap();
        let instance = |port| Instance::new("user.rpc".parse().unwrap(), endpoint(port));
        let registrations = registry.register_all(vec![instance(1), instance(2)]).unwrap();
        let first = reaches_registered(&registrations[0]).await;
        let second = reaches_registered(&registrations[1]).await;
        assert_ne!(first, second);
        assert_eq!(&get(&client, &format!("user.rpc/{first}")).await.unwrap().value[..], b"10.0.0.1:1");
        client.lease_revoke(first).await.unwrap();
        let lease = crate::support::reaches_new_lease(&registrations[0], first).await;
        assert_eq!(&get(&client, &format!("user.rpc/{lease}")).await.unwrap().value[..], b"10.0.0.1:1");
        assert_eq!(count(&client, "user.rpc/").await, 2);
        registry.shutdown(PATIENCE).await.unwrap();
        assert_eq!(count(&client, "user.rpc/").await, 0);
    }

    async fn a_lease_each_on_demand(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let registry = Registry::new(client_of(&etcd), options().leases(LeasePolicy::PerInstance));
        let first = registered(&registry).await;
        let other = Instance::new("greeter".parse().unwrap(), "10.0.0.2:50051".parse().unwrap());
        let second = registry.register(other).unwrap();
        assert_ne!(reaches_registered(&first).await, reaches_registered(&second).await);
        first.deregister().await.unwrap();
        let left = [reaches_registered(&second).await];
        eventually("its lease is revoked", PATIENCE, async || (client.leases().await.unwrap() == left).then_some(()))
            .await;
    }
}
