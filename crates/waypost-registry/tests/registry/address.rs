//! H08: an address that nobody can dial is never written.

use waypost_model::Instance;
use waypost_registry::{RegisterError, Registry, advertise::AdvertiseError};
use waypost_testkit::{Etcd, EtcdVersion, Process, for_each_etcd};

use crate::support::{PATIENCE, client_of, count, get, options, registrant, registry_of};

for_each_etcd! {
    async fn h08_the_route_to_etcd_gives_the_address(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let registry = registry_of(&etcd);
        for (bound, written) in [("0.0.0.0:50051", "127.0.0.1:50051"), ("[::]:50052", "127.0.0.1:50052")] {
            let instance = Instance::new("greeter".parse().unwrap(), bound.parse().unwrap());
            let registration = registry.register(instance).unwrap();
            registration.registered().await.unwrap();
            assert_eq!(registration.id().as_str(), written);
            assert_eq!(registration.name(), format!("greeter/{written}"));
            let kv = get(&client, &format!("services/greeter/{written}")).await.unwrap();
            assert!(String::from_utf8_lossy(&kv.value).contains(written), "{kv:?}");
            registration.deregister().await.unwrap();
        }
    }

    async fn h08_the_pods_address_comes_first(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let process = Process::spawn(registrant(&etcd, "0.0.0.0:50051").env("POD_IP", "fd00::7"));
        process.wait_for_line(|line| line.starts_with("registered at"), PATIENCE).await;
        let kv = get(&client, "services/greeter/[fd00::7]:50051").await.unwrap();
        assert!(String::from_utf8_lossy(&kv.value).contains("[fd00::7]:50051"), "{kv:?}");
        assert_eq!(count(&client, "services/").await, 1);
    }

    async fn h08_refused_when_it_is_not_to_be_derived(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let registry = Registry::new(client_of(&etcd), options().resolve_address(false));
        for bound in ["0.0.0.0:50051", "[::]:50051", "255.255.255.255:50051", "[::ffff:0.0.0.0]:50051"] {
            let instance = Instance::new("greeter".parse().unwrap(), bound.parse().unwrap());
            let error = registry.register(instance).unwrap_err();
            let RegisterError::Address { source: AdvertiseError::Undialable { .. }, .. } = &error else {
                panic!("{error}");
            };
        }
        registry.shutdown(PATIENCE).await.unwrap();
        assert_eq!(count(&client_of(&etcd), "").await, 0);
    }
}
