//! H31: a slow subscriber.

use std::time::Duration;

use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

use crate::support::{Follower, client, discovery, hosts, name, put};

for_each_etcd! {
    async fn h31_gets_the_newest_and_holds_nobody_up(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(&etcd.url());
        put(&client, "greeter", 0, 0).await;
        let discovery = discovery(&client);
        let mut fast = Follower::new(discovery.service(name("greeter")));
        fast.until_hosts(&[0]).await;

        let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = alive();
        let mut slow: Vec<_> = (0..1000).map(|_| discovery.service(name("greeter"))).collect();
        assert!(alive() < before + 20, "one watch, however many subscribers");
        for host in 1..=200 {
            put(&client, "greeter", host, 0).await;
        }
        let all: Vec<u32> = (0..=200).collect();
        let newest = fast.until_hosts(&all).await;
        for slow in &mut slow {
            let seen = slow.changed().await;
            assert_eq!((hosts(&seen).len(), seen.revision()), (201, newest.revision()));
            // Nothing was kept for it: its first change was the newest. The zero timeout polls once.
            let next = tokio::time::timeout(Duration::ZERO, slow.changed()).await;
            assert!(next.is_err());
        }
    }
}
