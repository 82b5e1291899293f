//! H28: all instances vanish at once.

use std::time::Duration;

use waypost_discovery::{Discovery, DiscoveryOptions};
use waypost_etcd::Delete;
use waypost_model::{Existence, Snapshot};
use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

use crate::support::{Follower, cause, client, delete, discovery, grpc, hosts, is_live, name, put};

/// etcd's shortest TTL.
const SHORTEST: Duration = Duration::from_secs(2);

for_each_etcd! {
    async fn h28_a_set_that_expires_at_once_is_held_and_then_let_go(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(&etcd.url());
        let options = DiscoveryOptions::new(grpc()).empty_grace(Some(Duration::from_secs(3)));
        let discovery = Discovery::new(client.clone(), options);
        let shared = client.lease_grant(SHORTEST, None).await.unwrap().id;
        let own = client.lease_grant(SHORTEST, None).await.unwrap().id;
        put(&client, "greeter", 1, shared).await;
        put(&client, "greeter", 2, shared).await;
        put(&client, "greeter", 3, own).await;
        let mut follower = Follower::new(discovery.service(name("greeter")));
        follower.until_hosts(&[1, 2, 3]).await;

        let held = follower.until("stale", |snapshot| !is_live(snapshot)).await;
        assert_eq!(hosts(&held), [1, 2, 3]);
        assert_eq!(held.existence(), Existence::Present);
        assert!(
            cause(&held).contains("all 3 instances of service greeter vanished by lease expiry"),
            "{}",
            cause(&held)
        );

        let emptied = follower.until("the grace is over", Snapshot::is_empty).await;
        assert!(is_live(&emptied));
        assert_eq!(emptied.existence(), Existence::Emptied);
    }

    async fn h28_a_hold_ends_with_the_first_instance_that_is_back(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(&etcd.url());
        let lease = client.lease_grant(SHORTEST, None).await.unwrap().id;
        put(&client, "greeter", 1, lease).await;
        put(&client, "greeter", 2, lease).await;
        let mut follower = Follower::new(discovery(&client).service(name("greeter")));
        follower.until_hosts(&[1, 2]).await;
        client.lease_revoke(lease).await.unwrap();
        follower.until("held", |snapshot| !is_live(snapshot)).await;

        put(&client, "greeter", 2, 0).await;
        follower.until_hosts(&[2]).await;
    }

    async fn h28_explicit_deletes_are_believed_at_once(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(&etcd.url());
        let lease = client.lease_grant(Duration::from_secs(600), None).await.unwrap().id;
        put(&client, "leased", 1, lease).await;
        put(&client, "leased", 2, lease).await;
        put(&client, "bare", 1, 0).await;
        let discovery = discovery(&client);
        let mut leased = Follower::new(discovery.service(name("leased")));
        let mut bare = Follower::new(discovery.service(name("bare")));
        leased.until_hosts(&[1, 2]).await;
        bare.until_hosts(&[1]).await;

        client.delete(Delete::prefix("services/leased/")).await.unwrap();
        delete(&client, "bare", 1).await;
        // The grace is 30 s: neither was held, or the follower would have been told of something stale.
        for follower in [&mut leased, &mut bare] {
            let next = follower.until("a change", |snapshot| snapshot.is_empty() || !is_live(snapshot)).await;
            assert!(is_live(&next), "{}", cause(&next));
            assert_eq!(next.existence(), Existence::Emptied);
        }
    }

    async fn h28_nothing_there_is_absent_and_not_emptied(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(&etcd.url());
        let subscription = discovery(&client).service(name("greeter"));
        assert_eq!(subscription.snapshot().existence(), Existence::Unknown);
        let ready = subscription.ready().await;
        assert_eq!(ready.existence(), Existence::Absent);
        assert!(is_live(&ready));
    }
}
