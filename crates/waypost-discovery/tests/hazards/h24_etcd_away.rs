//! H24: all of etcd is away.

use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

use crate::support::{Follower, cause, client, discovery, hosts, is_live, put};

for_each_etcd! {
    async fn h24_the_last_set_stays_as_stale_and_it_recovers_by_itself(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let client = client(&etcd.url());
        put(&client, "greeter", 1, 0).await;
        put(&client, "greeter", 2, 0).await;
        let mut follower = Follower::new(discovery(&client).service("greeter".parse().unwrap()));
        follower.until_hosts(&[1, 2]).await;

        etcd.kill().await;
        let stale = follower.until("stale", |snapshot| !is_live(snapshot)).await;
        assert_eq!(hosts(&stale), [1, 2]);
        assert!(cause(&stale).contains(&etcd.url()), "{}", cause(&stale));
        assert!(follower.subscription.last_error().is_some());

        etcd.restart().await;
        follower.until_hosts(&[1, 2]).await;
        assert_eq!(follower.subscription.last_error(), None);
        put(&client, "greeter", 3, 0).await;
        follower.until_hosts(&[1, 2, 3]).await;
    }
}
