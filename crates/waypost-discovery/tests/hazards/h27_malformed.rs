//! H27: one malformed value fails the list.

use waypost_etcd::{Delete, Put};
use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

use crate::support::{Follower, client, discovery, hosts, put};

for_each_etcd! {
    async fn h27_a_malformed_value_is_skipped_and_counted_and_the_rest_served(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(&etcd.url());
        put(&client, "greeter", 1, 0).await;
        client.put(Put::new("services/greeter/broken", "{\"Op\":")).await.unwrap();
        client.put(Put::new("services/greeter/binary", vec![0xff, 0, 1])).await.unwrap();
        let mut follower = Follower::new(discovery(&client).service("greeter".parse().unwrap()));
        let snapshot = follower.until_hosts(&[1]).await;
        assert_eq!(snapshot.skipped(), 2);

        // An instance that becomes malformed goes; the others stay.
        put(&client, "greeter", 2, 0).await;
        follower.until_hosts(&[1, 2]).await;
        client.put(Put::new("services/greeter/10.0.0.2:80", "garbage")).await.unwrap();
        let snapshot = follower.until_hosts(&[1]).await;
        assert_eq!(snapshot.skipped(), 3);

        put(&client, "greeter", 2, 0).await;
        client.delete(Delete::key("services/greeter/broken")).await.unwrap();
        let snapshot = follower.until("one is left", |snapshot| snapshot.skipped() == 1).await;
        assert_eq!(hosts(&snapshot), [1, 2]);
    }
}
