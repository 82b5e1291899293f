//! A registered fleet moves from the embedded server to three nodes of etcd, by a snapshot: clients that know the URLs of both
//! lose the old one and go on. The steps are those of `docs/operations.md`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{Callers, PATIENCE, Running};
use waypost::Waypost;
use waypost::model::Instance;
use waypost::registry::{Registration, RegistrationState};
use waypost_testkit::{Cluster, Etcd, EtcdVersion, eventually, run};

/// Services that nobody calls, beside the one that is.
const REGISTERED: u16 = 40;

#[test]
fn a_fleet_moves_from_the_embedded_server_to_a_cluster() {
    run(async {
        let mut embedded = Etcd::start(EtcdVersion::Embedded).await;
        let mut cluster = Cluster::builder(EtcdVersion::V3_5).prepare().await;
        let urls: Vec<String> = std::iter::once(embedded.url()).chain(cluster.urls()).collect();
        // Far longer than the move takes on a busy machine: no lease ends meanwhile.
        let connect = || {
            let builder = Waypost::builder().endpoints(urls.clone());
            builder.registry(|options| options.ttl(Duration::from_secs(60))).build().unwrap()
        };

        let hosts = [connect(), connect(), connect()];
        let mut servers = Vec::new();
        for host in &hosts {
            servers.push(Running::start(host, "127.0.0.1:0").await);
        }
        let mut registrations = Vec::new();
        for port in 0..REGISTERED {
            let address = format!("10.0.0.1:{}", 1000 + port).parse().unwrap();
            let registration = hosts[0].register(Instance::new("crowd".parse().unwrap(), address)).unwrap();
            registration.registered().await.unwrap();
            registrations.push(registration);
        }
        let client = connect();
        let channel = client.channel("greeter").unwrap();
        channel.wait_for(|stats| stats.ready() == servers.len()).await;
        let mut callers = Callers::start(&channel, 8);
        let mut crowd = client.discover("crowd").unwrap();
        crowd.wait_for(|snapshot| snapshot.len() == usize::from(REGISTERED)).await;
        // Every set that is told of from now on.
        let mut told = client.discover("crowd").unwrap();
        told.ready().await;
        let sizes = tokio::spawn(async move {
            let mut sizes = BTreeSet::new();
            loop {
                let snapshot = told.changed().await;
                sizes.insert(snapshot.len());
                // One more than there were: the one that comes at the end.
                if snapshot.len() > usize::from(REGISTERED) {
                    return sizes;
                }
            }
        });
        for server in &servers {
            callers.served_by(&server.address, 20).await;
        }

        let keys = written(&embedded).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fleet.db");
        embedded.snapshot_to(&file).await;
        // What the snapshot does not have comes back by itself, with the next renewal.
        let builder = Waypost::builder().endpoints(urls.clone());
        let hasty = builder.registry(|options| options.ttl(Duration::from_secs(6))).build().unwrap();
        let late = Instance::new("late".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
        let late = hasty.register(late).unwrap();
        late.registered().await.unwrap();
        embedded.stop().await;
        crowd.wait_for(|snapshot| !snapshot.freshness().is_live()).await;
        // Nobody needs etcd to make a call.
        for server in &servers {
            callers.served_by(&server.address, 20).await;
        }
        cluster.restore_from(&file).await;
        crowd.wait_for(|snapshot| snapshot.freshness().is_live()).await;
        for registration in &registrations {
            renewed(registration).await;
        }
        for server in &servers {
            callers.served_by(&server.address, 20).await;
        }
        // Nothing was put again: every key is as it was, under its lease.
        let there = written(cluster.node(0)).await;
        assert!(there.starts_with(&keys), "{there}\ninstead of\n{keys}");

        eventually("the late one is there", PATIENCE, async || {
            written(cluster.node(1)).await.contains("services/late/").then_some(())
        })
        .await;
        renewed(&late).await;

        // The fleet lives on there: one comes, one goes.
        let newcomer = Running::start(&connect(), "127.0.0.1:0").await;
        callers.served_by(&newcomer.address, 20).await;
        let gone = servers.remove(0);
        let address = gone.address.clone();
        gone.stop().await;
        callers.served_by(&newcomer.address, 20).await;
        assert!(!written(cluster.node(1)).await.contains(&address));
        let one_more = Instance::new("crowd".parse().unwrap(), "10.0.0.1:999".parse().unwrap());
        let one_more = hosts[1].register(one_more).unwrap();
        one_more.registered().await.unwrap();
        let sizes = tokio::time::timeout(PATIENCE, sizes).await.unwrap().unwrap();
        assert!(sizes.iter().all(|size| *size >= usize::from(REGISTERED)), "instances were lost: {sizes:?}");

        let tally = callers.stop().await;
        assert!(
            tally.failures.is_empty(),
            "{} of {} calls: {:?}",
            tally.failures.len(),
            tally.calls,
            tally.failures
        );
        for server in servers.into_iter().chain([newcomer]) {
            server.stop().await;
        }
        assert!(crowd.snapshot().len() > usize::from(REGISTERED));
    });
}

/// Waits until a registration holds.
async fn renewed(registration: &Registration) {
    let mut state = registration.state();
    tokio::time::timeout(PATIENCE, state.wait_for(RegistrationState::is_registered)).await.unwrap().unwrap();
}

/// Every instance as it is written, with revisions and leases.
async fn written(etcd: &Etcd) -> String {
    let fields = etcd.etcdctl(["get", "services/", "--prefix", "--write-out=fields"]).await;
    let of_keys =
        ["\"Key\"", "\"CreateRevision\"", "\"ModRevision\"", "\"Version\"", "\"Value\"", "\"Lease\""];
    fields
        .lines()
        .filter(|line| of_keys.iter().any(|field| line.starts_with(field)))
        .collect::<Vec<_>>()
        .join("\n")
}
