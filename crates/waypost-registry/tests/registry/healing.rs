//! What is lost comes back.

use std::time::Duration;

use waypost_etcd::{Client, ClientOptions, EndpointOrder};
use waypost_registry::{RegistrationState, Registry};
use waypost_testkit::{Etcd, EtcdVersion, Process, Proxy, eventually, for_each_etcd};

use crate::support::{
    KEY, PATIENCE, client, client_of, counter, get, options, reaches, reaches_new_lease, reaches_registered,
    reaches_suspect, registered, registrant, registry_of,
};

const LOST: &str = "waypost_lease_lost_total";

for_each_etcd! {
    async fn h01_etcd_away_for_longer_than_the_ttl(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        let before = reaches_registered(&registration).await;
        etcd.kill().await;
        eventually("the lease is lost", PATIENCE, async || (counter(&registry, LOST) > 0).then_some(())).await;
        reaches_suspect(&registration).await;
        etcd.restart().await;
        let lease = reaches_new_lease(&registration, before).await;
        assert_eq!(get(&client_of(&etcd), KEY).await.unwrap().lease, lease);
    }

    async fn h01_etcd_restarted_at_once(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let registry = Registry::new(client_of(&etcd), options().ttl(Duration::from_secs(30)));
        let registration = registered(&registry).await;
        let lease = reaches_registered(&registration).await;
        etcd.restart().await;
        // The lease has survived, and so has the registration: a change is written under it.
        eventually("a change is written", PATIENCE, async || registration.set_weight(7).await.ok()).await;
        assert_eq!(get(&client_of(&etcd), KEY).await.unwrap().lease, lease);
        assert_eq!(counter(&registry, LOST), 0);
    }

    async fn h01_etcd_wiped(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        // Revisions that the new store will not reach soon.
        for weight in 1..20 {
            registration.set_weight(weight).await.unwrap();
        }
        let before = reaches_registered(&registration).await;
        etcd.wipe_and_restart().await;
        let lease = reaches_new_lease(&registration, before).await;
        let client = client_of(&etcd);
        let kv = get(&client, KEY).await.unwrap();
        assert_eq!(kv.lease, lease);
        // Its watch follows the new history too.
        etcd.etcdctl(["del", KEY]).await;
        eventually("the key is back", PATIENCE, async || get(&client, KEY).await).await;
    }

    async fn h01_etcd_restored_from_before_the_registration(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("snapshot");
        etcd.snapshot_to(&file).await;
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        let before = reaches_registered(&registration).await;
        etcd.restore_from(&file).await;
        let lease = reaches_new_lease(&registration, before).await;
        assert_eq!(get(&client_of(&etcd), KEY).await.unwrap().lease, lease);
    }

    async fn h03_keepalive_stream_goes_silent(version: EtcdVersion) {
        survives_on_the_other_endpoint(version, async |proxy| proxy.blackhole()).await;
    }

    async fn h03_keepalive_stream_is_reset(version: EtcdVersion) {
        survives_on_the_other_endpoint(version, async |proxy| proxy.refuse().await).await;
    }

    async fn h04_a_new_lease_each_time(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        let client = client_of(&etcd);
        let mut seen = vec![reaches_registered(&registration).await];
        for round in 1..=5 {
            let before = seen[seen.len() - 1];
            client.lease_revoke(before).await.unwrap();
            let lease = reaches_new_lease(&registration, before).await;
            assert!(!seen.contains(&lease));
            seen.push(lease);
            assert_eq!(counter(&registry, LOST), round);
        }
        assert_eq!(get(&client, KEY).await.unwrap().lease, seen[5]);
        registration.deregister().await.unwrap();
        eventually("the lease is revoked", PATIENCE, async || client.leases().await.unwrap().is_empty().then_some(()))
            .await;
    }

    async fn h05_paused_past_the_ttl(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client_of(&etcd);
        let process = Process::spawn(&mut registrant(&etcd, "10.0.0.1:50051"));
        let is_registered = |line: &str| line.starts_with("registered at");
        let before = process.wait_for_line(is_registered, PATIENCE).await;
        process.pause().await;
        let gone = async || get(&client, KEY).await.is_none().then_some(());
        eventually("the lease has expired", PATIENCE, gone).await;
        let seen = process.lines().len();
        process.resume();
        process.wait_for_line_after(seen, |line| line.starts_with("suspect"), PATIENCE).await;
        let after = process.wait_for_line_after(seen, is_registered, PATIENCE).await;
        let lease = |line: &str| line.rsplit_once(' ').unwrap().1.to_owned();
        assert_ne!(lease(&before), lease(&after));
        assert_eq!(format!("{:x}", get(&client, KEY).await.unwrap().lease), lease(&after));
    }

    async fn h07_key_deleted_by_hand_comes_back(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        let client = client_of(&etcd);
        let before = get(&client, KEY).await.unwrap();
        let deleted = client.delete(waypost_etcd::Delete::key(KEY)).await.unwrap().header.unwrap().revision;
        let kv = eventually("the key is back", PATIENCE, async || get(&client, KEY).await).await;
        // The very next write of the store is ours: nothing was waited for.
        assert_eq!(kv.mod_revision, deleted + 1);
        assert_eq!((kv.lease, kv.value), (before.lease, before.value));
        let state = reaches(&registration, "registered again", |state| {
            matches!(state, RegistrationState::Registered { revision, .. } if *revision > deleted)
        });
        state.await;
        assert_eq!(counter(&registry, LOST), 0);
    }

    async fn h07_one_of_four_keys_deleted_by_hand(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let fields = waypost_model::layout("fields", None).unwrap();
        let registry = Registry::new(client_of(&etcd), waypost_registry::RegistryOptions::new(fields));
        let registration = registered(&registry).await;
        let client = client_of(&etcd);
        for key in ["greeter", "greeter.ip", "greeter.port", "greeter.protocol"] {
            let before = get(&client, key).await.unwrap();
            etcd.etcdctl(["del", key]).await;
            let after = eventually("the key is back", PATIENCE, async || get(&client, key).await).await;
            assert_eq!((after.lease, after.value), (before.lease, before.value));
        }
        registration.deregister().await.unwrap();
        assert_eq!(get(&client, "greeter.ip").await, None);
    }

    async fn h11_the_granted_ttl_is_used(version: EtcdVersion) {
        // With this election timeout the smallest lease is 15 s.
        let etcd = Etcd::builder(version)
            .arg("--heartbeat-interval=100")
            .arg("--election-timeout=10000")
            .start()
            .await;
        let registry = Registry::new(client_of(&etcd), options().ttl(Duration::from_secs(1)));
        let registration = registered(&registry).await;
        let lease = reaches_registered(&registration).await;
        let client = client_of(&etcd);
        assert_eq!(client.lease_time_to_live(lease, false).await.unwrap().granted, Duration::from_secs(15));
        // Nobody answers for longer than what was asked for, and by far not as long as was granted.
        etcd.pause().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        etcd.resume();
        eventually("a change is written", PATIENCE, async || registration.set_weight(7).await.ok()).await;
        assert_eq!(get(&client, KEY).await.unwrap().lease, lease);
        assert_eq!(counter(&registry, LOST), 0);
    }

    async fn h12_keepalive_answered_with_ttl_0(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let registry = registry_of(&etcd);
        let registration = registered(&registry).await;
        let lease = reaches_registered(&registration).await;
        let client = client_of(&etcd);
        // Another one has the key, so that the end of our lease deletes nothing and only the renewals can tell.
        client.put(waypost_etcd::Put::new(KEY, "theirs")).await.unwrap();
        reaches_suspect(&registration).await;
        client.lease_revoke(lease).await.unwrap();
        eventually("the lease is lost", PATIENCE, async || (counter(&registry, LOST) > 0).then_some(())).await;
        client.delete(waypost_etcd::Delete::key(KEY)).await.unwrap();
        reaches_new_lease(&registration, lease).await;
    }

    async fn a_lack_of_rights_is_no_end(version: EtcdVersion) {
        let etcd = Etcd::builder(version).auth("secret").start().await;
        etcd.etcdctl(["role", "add", "registrant"]).await;
        etcd.etcdctl(["user", "add", "registrant:pw"]).await;
        etcd.etcdctl(["user", "grant-role", "registrant", "registrant"]).await;
        let client = Client::new(ClientOptions::new([etcd.url()]).user("registrant", "pw")).unwrap();
        let registry = Registry::new(client, options());
        let registration = registry.register(crate::support::greeter()).unwrap();
        let refused = reaches(&registration, "refused for lack of rights", |state| {
            matches!(state, RegistrationState::Registering { cause: Some(_), .. })
        });
        let refused = refused.await.to_string();
        assert!(refused.contains("permission denied"), "{refused}");
        let grant = ["role", "grant-permission", "registrant", "readwrite", "services/", "--prefix"];
        etcd.etcdctl(grant).await;
        reaches_registered(&registration).await;
        registration.deregister().await.unwrap();
    }
}

async fn survives_on_the_other_endpoint(version: EtcdVersion, cut: impl AsyncFnOnce(&Proxy)) {
    let etcd = Etcd::start(version).await;
    let (first, second) = (Proxy::start(&etcd.url()).await, Proxy::start(&etcd.url()).await);
    let endpoints = ClientOptions::new([first.url(), second.url()])
        .endpoint_order(EndpointOrder::Listed)
        .request_timeout(Duration::from_secs(1));
    let ttl = Duration::from_secs(6);
    let registry = Registry::new(Client::new(endpoints).unwrap(), options().ttl(ttl));
    let registration = registered(&registry).await;
    let lease = reaches_registered(&registration).await;
    assert_eq!(second.accepted(), 0);
    cut(&first).await;
    let mut counts = second.counts();
    tokio::time::timeout(PATIENCE, counts.wait_for(|counts| counts.open > 0)).await.unwrap().unwrap();
    // Renewed there: what is left of the lease goes down to less than two thirds, and up again.
    let direct = client([etcd.url()]);
    let left = async || direct.lease_time_to_live(lease, false).await.unwrap().ttl.expect("the lease lives");
    eventually("time goes by", PATIENCE, async || (left().await < ttl * 5 / 6).then_some(())).await;
    eventually("it is renewed", PATIENCE, async || (left().await >= ttl * 5 / 6).then_some(())).await;
    assert_eq!(reaches_registered(&registration).await, lease);
    assert_eq!(counter(&registry, LOST), 0);
    // And the watch of its own key goes on as well.
    etcd.etcdctl(["del", KEY]).await;
    eventually("the key is back", PATIENCE, async || get(&direct, KEY).await).await;
}
