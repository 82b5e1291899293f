//! H30: auth is turned on while running, a token is no longer known, rights come late.

use waypost_etcd::Client;
use waypost_model::Existence;
use waypost_testkit::{Etcd, EtcdVersion, Proxy, eventually, for_each_etcd};

use crate::support::{Follower, PATIENCE, discovery, name, options, put};

const PASSWORD: &str = "open sesame";

for_each_etcd! {
    async fn h30_auth_turned_on_while_running(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.url()).await;
        let writer = Client::new(options([etcd.url()]).user("root", PASSWORD)).unwrap();
        let reader = Client::new(options([proxy.url()]).user("root", PASSWORD)).unwrap();
        put(&writer, "greeter", 1, 0).await;
        let mut follower = Follower::new(discovery(&reader).service(name("greeter")));
        follower.until_hosts(&[1]).await;

        etcd.enable_auth(PASSWORD).await;
        proxy.sever();
        put(&writer, "greeter", 2, 0).await;
        follower.until_hosts(&[1, 2]).await;
    }

    /// Tokens are in memory: a restart forgets them.
    async fn h30_token_no_longer_known(version: EtcdVersion) {
        let mut etcd = Etcd::builder(version).auth(PASSWORD).start().await;
        let client = Client::new(options([etcd.url()]).user("root", PASSWORD)).unwrap();
        put(&client, "greeter", 1, 0).await;
        let mut follower = Follower::new(discovery(&client).service(name("greeter")));
        follower.until_hosts(&[1]).await;

        etcd.restart().await;
        put(&client, "greeter", 2, 0).await;
        follower.until_hosts(&[1, 2]).await;
    }

    async fn h30_rights_that_come_late(version: EtcdVersion) {
        let etcd = Etcd::builder(version).auth(PASSWORD).start().await;
        let writer = Client::new(options([etcd.url()]).user("root", PASSWORD)).unwrap();
        put(&writer, "greeter", 1, 0).await;
        etcd.etcdctl(["user", "add", "reader:secret"]).await;
        let reader = Client::new(options([etcd.url()]).user("reader", "secret")).unwrap();
        let mut follower = Follower::new(discovery(&reader).service(name("greeter")));
        let error = eventually("the refusal is told", PATIENCE, async || follower.subscription.last_error()).await;
        assert!(error.contains("permission denied"), "{error}");
        assert_eq!(follower.subscription.snapshot().existence(), Existence::Unknown);

        etcd.etcdctl(["role", "add", "discovery"]).await;
        etcd.etcdctl(["role", "grant-permission", "discovery", "--prefix=true", "read", "services/"]).await;
        etcd.etcdctl(["user", "grant-role", "reader", "discovery"]).await;
        follower.until_hosts(&[1]).await;
        put(&writer, "greeter", 2, 0).await;
        follower.until_hosts(&[1, 2]).await;
    }
}
