//! H22: the connection is half open: packets are dropped, and nobody says so.

use std::time::Duration;

use waypost_etcd::{Client, EndpointOrder};
use waypost_testkit::{Etcd, EtcdVersion, Proxy, for_each_etcd};

use crate::support::{Follower, client, delete, discovery, hosts, is_live, name, options, put};

for_each_etcd! {
    async fn h22_noticed_and_another_endpoint_used(version: EtcdVersion) {
        let etcd = Etcd::builder(version).arg("--grpc-keepalive-min-time=1s").start().await;
        let (first, second) = (Proxy::start(&etcd.url()).await, Proxy::start(&etcd.url()).await);
        let writer = client(&etcd.url());
        put(&writer, "greeter", 1, 0).await;
        put(&writer, "greeter", 2, 0).await;
        let options = options([first.url(), second.url()])
            .endpoint_order(EndpointOrder::Listed)
            .keepalive(Duration::from_secs(1), Duration::from_secs(1));
        let mut follower = Follower::new(discovery(&Client::new(options).unwrap()).service(name("greeter")));
        follower.until_hosts(&[1, 2]).await;
        assert_eq!(second.accepted(), 0);

        first.blackhole();
        delete(&writer, "greeter", 1).await;
        put(&writer, "greeter", 3, 0).await;
        let stale = follower.until("stale", |snapshot| !is_live(snapshot)).await;
        assert_eq!(hosts(&stale), [1, 2], "what is not known is not guessed");
        follower.until_hosts(&[2, 3]).await;
        assert!(second.accepted() > 0);
    }
}
