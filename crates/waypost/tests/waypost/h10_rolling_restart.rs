//! Servers are restarted one after the other under load, and no call fails, although none may be made twice.

use crate::support::{Callers, Running, connect};
use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

/// A rolling restart of three servers, each on a new port or on its own again.
async fn rolling_restart(version: EtcdVersion, same_port: bool) {
    let etcd = Etcd::start(version).await;
    // As three hosts and a fourth for the client have it: each its own leases, watches and connections.
    let server_side =
        [connect(&etcd.url()).unwrap(), connect(&etcd.url()).unwrap(), connect(&etcd.url()).unwrap()];
    let mut servers = Vec::new();
    for waypost in &server_side {
        servers.push(Running::start(waypost, "127.0.0.1:0").await);
    }
    let channel = connect(&etcd.url()).unwrap().channel("greeter").unwrap();
    channel.wait_for(|stats| stats.ready() == 3).await;
    let mut callers = Callers::start(&channel, 8);

    let mut replacements = Vec::new();
    for (waypost, server) in server_side.iter().zip(servers) {
        callers.served_by(&server.address, 20).await;
        let listen = if same_port { server.address.clone() } else { "127.0.0.1:0".to_owned() };
        server.stop().await;
        let replacement = Running::start(waypost, &listen).await;
        callers.served_by(&replacement.address, 20).await;
        replacements.push(replacement);
    }
    let tally = callers.stop().await;
    for server in replacements {
        server.stop().await;
    }
    assert!(
        tally.failures.is_empty(),
        "{} of {} calls: {:?}",
        tally.failures.len(),
        tally.calls,
        tally.failures
    );
    assert_eq!(tally.by_address.len(), if same_port { 3 } else { 6 });
}

for_each_etcd! {
    async fn h10_rolling_restart_on_new_ports_fails_no_call(version: EtcdVersion) {
        rolling_restart(version, false).await;
    }

    async fn h10_rolling_restart_on_the_same_ports_fails_no_call(version: EtcdVersion) {
        rolling_restart(version, true).await;
    }
}
