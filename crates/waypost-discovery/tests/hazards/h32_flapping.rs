//! H32: one instance registers and goes a thousand times a second.

use waypost_testkit::{Etcd, EtcdVersion, Proxy, for_each_etcd};

use crate::support::{Follower, client, delete, discovery, is_live, name, put};

const TIMES: u32 = 1000;

for_each_etcd! {
    /// The follower fails when a revision goes back, or a difference does not fit.
    async fn h32_readers_see_monotonic_revisions(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let writer = client(&etcd.url());
        put(&writer, "greeter", 1, 0).await;
        let mut follower = Follower::new(discovery(&writer).service(name("greeter")));
        follower.until_hosts(&[1]).await;
        let flapping = async {
            for _ in 0..TIMES {
                put(&writer, "greeter", 2, 0).await;
                delete(&writer, "greeter", 2).await;
            }
            put(&writer, "greeter", 3, 0).await
        };
        let (last, seen) = tokio::join!(flapping, follower.until_hosts(&[1, 3]));
        assert!(seen.revision() >= last);
    }

    async fn h32_what_comes_together_is_published_once(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.url()).await;
        let writer = client(&etcd.url());
        put(&writer, "greeter", 1, 0).await;
        let mut follower = Follower::new(discovery(&client(&proxy.url())).service(name("greeter")));
        follower.until_hosts(&[1]).await;
        proxy.refuse().await;
        follower.until("stale", |snapshot| !is_live(snapshot)).await;
        for _ in 0..TIMES {
            put(&writer, "greeter", 2, 0).await;
            delete(&writer, "greeter", 2).await;
        }
        let last = put(&writer, "greeter", 3, 0).await;
        let before = follower.told;
        proxy.restore().await;
        let seen = follower.until_hosts(&[1, 3]).await;
        assert!(seen.revision() >= last);
        let told = follower.told - before;
        assert!(told < TIMES / 10, "{told} snapshots of {} events", 2 * TIMES + 1);
    }
}
