//! The zone of a process: where it serves, and whom it calls.

use crate::support::{Running, connect};
use greeter::{GreeterClient, HelloRequest};
use waypost::channel::EndpointInfo;
use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

for_each_etcd! {
    async fn servers_are_registered_in_the_zone_and_channels_prefer_it(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let of = |zone: &str| connect(&etcd.url()).unwrap().with_zone(zone);
        let mut servers = Vec::new();
        for zone in ["a", "b"] {
            servers.push(Running::start(&of(zone), "127.0.0.1:0").await);
        }
        for (zone, server) in ["a", "b"].iter().zip(&servers) {
            let channel = of(zone).channel("greeter").unwrap();
            channel.wait_for(|stats| stats.ready() == 2).await;
            let mut client = GreeterClient::new(channel);
            for _ in 0..20 {
                let reply = client.say_hello(HelloRequest { name: "World".into() }).await.unwrap();
                let info = reply.extensions().get::<EndpointInfo>().unwrap();
                assert_eq!(info.instance().zone.as_deref(), Some(*zone));
                assert_eq!(info.endpoint().authority(), server.address);
            }
        }
        for server in servers {
            server.stop().await;
        }
    }
}
