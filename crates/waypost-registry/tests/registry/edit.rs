//! Changes, by the program and by operators.

use waypost_etcd::Put;
use waypost_model::Status;
use waypost_registry::RegistrationState;
use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

use crate::support::{
    KEY, PATIENCE, client_of, get, greeter, grpc, reaches, reaches_new_lease, reaches_registered, registered,
    registry_of,
};

for_each_etcd! {
    async fn a_change_is_written_under_the_same_lease(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        let before = get(&client, KEY).await.unwrap();
        registration.drain().await.unwrap();
        registration.set_weight(7).await.unwrap();
        registration.set_metadata("rack", Some("b2")).await.unwrap();
        let after = get(&client, KEY).await.unwrap();
        assert_eq!(after.create_revision, before.create_revision);
        assert_eq!(after.lease, before.lease);
        let wanted = greeter().with_status(Status::Draining).with_weight(7).with_metadata("rack", "b2");
        assert_eq!(after.value, grpc().encode(&wanted, 0).unwrap().entries[0].value);
        assert_eq!(*registration.instance(), wanted);
    }

    async fn changes_at_once_are_all_written(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        let names: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
        let changes = names.iter().map(|name| registration.set_metadata(name, Some("x")));
        for result in futures::future::join_all(changes).await {
            result.unwrap();
        }
        let value = get(&client_of(&etcd), KEY).await.unwrap().value;
        let value = String::from_utf8_lossy(&value);
        assert!(names.iter().all(|name| value.contains(name)), "{value}");
    }

    async fn an_operators_edit_is_kept_through_healing(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        let lease = reaches_registered(&registration).await;
        let drained = greeter().with_status(Status::Draining).with_metadata("by", "operator");
        let value = grpc().encode(&drained, 0).unwrap().entries.remove(0).value;
        let edited = client.put(Put::new(KEY, value.clone()).ignore_lease()).await.unwrap();
        let mut instances = registration.instances();
        let adopted = instances.wait_for(|instance| instance.status == Status::Draining);
        assert_eq!(**tokio::time::timeout(PATIENCE, adopted).await.unwrap().unwrap(), drained);
        // It is accepted as it is: not written again.
        assert_eq!(get(&client, KEY).await.unwrap().mod_revision, edited.header.unwrap().revision);
        assert!(registration.state().borrow().is_registered());

        // The program's own change goes on top of it.
        registration.set_weight(9).await.unwrap();
        client.lease_revoke(lease).await.unwrap();
        let lease = reaches_new_lease(&registration, lease).await;
        let kv = get(&client, KEY).await.unwrap();
        assert_eq!(kv.lease, lease);
        assert_eq!(kv.value, grpc().encode(&drained.with_weight(9), 0).unwrap().entries[0].value);
    }

    async fn an_edit_that_is_no_instance_is_written_over(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        let good = get(&client, KEY).await.unwrap();
        let broken = client.put(Put::new(KEY, "{").ignore_lease()).await.unwrap().header.unwrap().revision;
        reaches(&registration, "restored", |state| {
            matches!(state, RegistrationState::Registered { revision, .. } if *revision > broken)
        })
        .await;
        let kv = get(&client, KEY).await.unwrap();
        assert_eq!((kv.value, kv.lease), (good.value, good.lease));
        assert_eq!(*registration.instance(), greeter());
    }

    async fn what_the_layout_has_no_place_for_is_reported(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let plain = waypost_model::layout("plain", None).unwrap();
        let registry =
            waypost_registry::Registry::new(client_of(&etcd), waypost_registry::RegistryOptions::new(plain));
        let registration = registry.register(greeter().with_weight(7).with_zone("a")).unwrap();
        let lost: Vec<String> = registration.lost().iter().map(ToString::to_string).collect();
        assert_eq!(lost, ["weight", "zone"]);
        registration.registered().await.unwrap();
        // Nothing to write, and nothing wrong.
        registration.drain().await.unwrap();
    }
}
