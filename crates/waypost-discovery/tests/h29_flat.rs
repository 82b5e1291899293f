//! H29: tasks or memory leak over many watch restarts. In a process of its own, whose memory nobody else grows.
#![allow(clippy::unwrap_used, reason = "a test says so when what it needs is not there")]

use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::runtime::Handle;
use waypost_discovery::{Discovery, DiscoveryOptions};
use waypost_etcd::{Client, ClientOptions, Put};
use waypost_model::parse_layouts;
use waypost_testkit::{Etcd, EtcdVersion, Proxy, eventually, for_each_etcd};

const RESTARTS: usize = 10_000;
const SEVERED: usize = 200;
const AT_ONCE: usize = 32;
const PATIENCE: Duration = Duration::from_secs(60);

/// What may be in use for other reasons than leaks: allocator arenas, buffers of connections.
const SLACK_KIB: usize = 16 * 1024;

/// Resident memory of this process.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Subscribes and unsubscribes: each time a range, a watch, and the end of both.
async fn restart_watches(discovery: &Discovery, times: usize) {
    stream::iter(0..times)
        .for_each_concurrent(AT_ONCE, async |turn| {
            let service = format!("service-{}", turn % 500).parse().unwrap();
            let subscription = discovery.service(service);
            tokio::time::timeout(PATIENCE, subscription.ready()).await.unwrap();
        })
        .await;
}

async fn few_tasks(limit: usize) {
    eventually("the tasks of ended watches end", PATIENCE, async || (tasks() <= limit).then_some(())).await;
}

for_each_etcd! {
    async fn h29_flat_over_ten_thousand_restarts(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.url()).await;
        let client = Client::new(ClientOptions::new([proxy.url()])).unwrap();
        let discovery = Discovery::new(client, DiscoveryOptions::new(parse_layouts("grpc", None).unwrap()));

        // Warm: connections, arenas, and one set that stays.
        let mut steady = discovery.service("steady".parse().unwrap());
        steady.ready().await;
        restart_watches(&discovery, RESTARTS / 10).await;
        few_tasks(20).await;
        let (memory, few) = (resident_kib(), tasks() + 10);

        restart_watches(&discovery, RESTARTS).await;
        few_tasks(few).await;

        let writer = Client::new(ClientOptions::new([etcd.url()])).unwrap();
        for _ in 0..SEVERED {
            proxy.sever();
            let answer = writer.put(Put::new("services/steady/bad", "not an instance")).await.unwrap();
            let revision = answer.header.unwrap().revision;
            let seen = async {
                let mut snapshot = steady.mark_seen();
                while !snapshot.freshness().is_live() || snapshot.revision() < revision {
                    snapshot = steady.changed().await;
                }
            };
            tokio::time::timeout(PATIENCE, seen).await.unwrap();
        }
        few_tasks(few).await;
        let now = resident_kib();
        assert!(now < memory + SLACK_KIB, "{memory} KiB before, {now} KiB after");
    }
}
