//! The metrics of a discovery, as they are scraped.

use prometheus_client::{encoding::text::encode, registry::Registry};
use waypost_etcd::Put;
use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

use crate::support::{Follower, client, delete, discovery, is_live, name, put};

fn scrape(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

for_each_etcd! {
    async fn metrics_tell_of_every_watched_set(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let client = client(&etcd.url());
        let discovery = discovery(&client);
        let mut registry = Registry::default();
        discovery.register_metrics(&mut registry);
        let text = scrape(&registry);
        assert!(text.contains("waypost_discovery_resets_total 0"), "{text}");
        assert!(!text.contains("service="), "{text}");

        put(&client, "greeter", 1, 0).await;
        put(&client, "greeter", 2, 0).await;
        client.put(Put::new("services/greeter/bad", "{")).await.unwrap();
        let mut follower = Follower::new(discovery.service(name("greeter")));
        let mut catalog = Follower::new(discovery.catalog().unwrap());
        follower.until_hosts(&[1, 2]).await;
        catalog.until_hosts(&[1, 2]).await;
        delete(&client, "greeter", 2).await;
        follower.until_hosts(&[1]).await;
        catalog.until_hosts(&[1]).await;
        let text = scrape(&registry);
        for line in [
            "waypost_discovery_instances{service=\"greeter\"} 1",
            "waypost_discovery_instances{service=\"*\"} 1",
            "waypost_discovery_skipped{service=\"greeter\"} 1",
            "waypost_discovery_staleness_seconds{service=\"greeter\"} 0",
            "waypost_discovery_changes_total 6",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }

        etcd.kill().await;
        follower.until("stale", |snapshot| !is_live(snapshot)).await;
        let text = scrape(&registry);
        assert!(!text.contains("waypost_discovery_staleness_seconds{service=\"greeter\"} 0\n"), "{text}");
    }
}
