//! A service config in etcd reaches the channels that follow it, and a bad one hurts no call.

use std::time::Duration;

use crate::support::{Callers, PATIENCE, Running, connect};
use waypost::channel::Channel;
use waypost::etcd::{Delete, KeyRange, Put};
use waypost::{SERVICE_CONFIG_PREFIX, Waypost};
use waypost_testkit::{Etcd, EtcdVersion, eventually, for_each_etcd};

async fn put(waypost: &Waypost, config: &str) {
    let key = format!("{SERVICE_CONFIG_PREFIX}greeter");
    waypost.client().put(Put::new(key, config.to_owned())).await.unwrap();
}

async fn policy_is(channel: &Channel, name: &str) {
    let is = async || (channel.policy().name() == name).then_some(());
    eventually(&format!("the policy is {name}"), PATIENCE, is).await;
}

for_each_etcd! {
    async fn a_config_in_etcd_is_followed_and_a_bad_one_changes_nothing(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let waypost = connect(&etcd.url()).unwrap();
        let servers = [Running::start(&waypost, "127.0.0.1:0").await, Running::start(&waypost, "127.0.0.1:0").await];
        put(&waypost, r#"{"loadBalancingConfig": [{"least_request_experimental": {}}]}"#).await;
        let client = connect(&etcd.url()).unwrap().follow_service_configs();
        let channel = client.channel("greeter").unwrap();
        channel.wait_for(|stats| stats.ready() == 2).await;
        policy_is(&channel, "least_request").await;
        let mut callers = Callers::start(&channel, 2);

        put(&waypost, r#"{"loadBalancingConfig": [{"peak_ewma": {}}],
            "methodConfig": [{"name": [{"service": "helloworld.Greeter"}], "timeout": "60s"}]}"#).await;
        policy_is(&channel, "peak_ewma").await;
        put(&waypost, "nonsense").await;
        let refused = async || channel.service_config_error();
        let error = eventually("the nonsense is refused", PATIENCE, refused).await;
        assert_eq!(error.path, "");
        assert_eq!(channel.policy().name(), "peak_ewma");
        let timeout = channel.service_config().method("/helloworld.Greeter/SayHello").unwrap().timeout;
        assert_eq!(timeout, Some(Duration::from_secs(60)));
        let other = connect(&etcd.url()).unwrap().channel("greeter").unwrap();
        assert_eq!(other.policy().name(), "round_robin", "whoever does not follow is not concerned");

        let key = KeyRange::key(format!("{SERVICE_CONFIG_PREFIX}greeter"));
        waypost.client().delete(Delete::new(key)).await.unwrap();
        policy_is(&channel, "round_robin").await;
        assert_eq!(channel.service_config_error(), None);
        for server in &servers {
            callers.served_by(&server.address, 20).await;
        }
        let tally = callers.stop().await;
        assert!(tally.failures.is_empty(), "{:?}", tally.failures);
        for server in servers {
            server.stop().await;
        }
    }
}
