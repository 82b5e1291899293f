//! H26: `hello` matches `helloworld`.

use waypost_discovery::{Discovery, DiscoveryOptions};
use waypost_etcd::Put;
use waypost_model::{Instance, LAYOUT_NAMES, layout};
use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

use crate::support::{Follower, client, discovery, name, put};

for_each_etcd! {
    async fn h26_a_name_never_matches_another_that_begins_with_it(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(&etcd.url());
        put(&client, "helloworld", 9, 0).await;
        put(&client, "hello/world", 8, 0).await;
        put(&client, "hello", 1, 0).await;
        client.put(Put::new("services/hello/world/broken", "no JSON")).await.unwrap();
        let mut follower = Follower::new(discovery(&client).service(name("hello")));
        let snapshot = follower.until_hosts(&[1]).await;
        assert_eq!(snapshot.skipped(), 0, "a value of another service is not ours to skip");

        put(&client, "helloworld", 7, 0).await;
        put(&client, "hello/world", 6, 0).await;
        put(&client, "hello", 2, 0).await;
        follower.until_hosts(&[1, 2]).await;
    }

    async fn h26_in_every_layout(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(&etcd.url());
        for layout_name in LAYOUT_NAMES {
            let layout = layout(layout_name, None).unwrap();
            for (service, address) in [("hello", "10.0.0.1:80"), ("helloworld", "10.0.0.9:80")] {
                let instance = Instance::new(name(service), address.parse().unwrap());
                for entry in layout.encode(&instance, 77).unwrap().entries {
                    client.put(Put::new(entry.key, entry.value)).await.unwrap();
                }
            }
            let discovery = Discovery::new(client.clone(), DiscoveryOptions::new([layout]));
            let mut follower = Follower::new(discovery.service(name("hello")));
            let snapshot = follower.until(layout_name, |snapshot| !snapshot.is_empty()).await;
            assert_eq!(crate::support::hosts(&snapshot), [1], "{layout_name}");
        }
    }
}
