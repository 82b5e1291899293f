//! gRPC servers in a process of their own, registered in etcd, and our channel to them.

use std::process::Command;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::health_client::HealthClient;
use waypost_channel::Channel;
use waypost_discovery::{Discovery, DiscoveryOptions};
use waypost_etcd::{Client, ClientOptions};
use waypost_model::{Endpoint, Instance, ServiceName, layout};
use waypost_registry::{Registration, Registry, RegistryOptions};
use waypost_testkit::{Etcd, Process};

/// A machine that is busy takes its time to start a hundred servers.
const SOON: Duration = Duration::from_secs(60);

/// Servers, until this is dropped.
pub(crate) struct Servers {
    /// `127.0.0.1:port`.
    pub(crate) addresses: Vec<String>,
    _process: Process,
}

/// What [`Servers`] start: so many servers with the gRPC health service, until the process is killed.
pub(crate) async fn serve(count: usize) {
    let mut addresses = Vec::new();
    for _ in 0..count {
        let (_reporter, health) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        addresses.push(listener.local_addr().expect("an address").to_string());
        let server = Server::builder().add_service(health);
        tokio::spawn(async move {
            // Without it clients that delay their acknowledgements, as Go's do, wait 40 ms for answers.
            let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
            server.serve_with_incoming(connections).await.expect("serve");
        });
    }
    println!("serving {}", addresses.join(" "));
    std::future::pending::<()>().await;
}

/// Registers these addresses.
pub(crate) async fn register(etcd: &Etcd, service: &str, addresses: &[String]) -> Vec<Registration> {
    let options = RegistryOptions::new(layout("grpc", None).expect("layout"));
    let registry = Registry::new(client(etcd), options);
    let name: ServiceName = service.parse().expect("name");
    let instances = addresses
        .iter()
        .map(|address| Instance::new(name.clone(), address.parse::<Endpoint>().expect("address")))
        .collect();
    let registrations = registry.register_all(instances).expect("register");
    for registration in &registrations {
        registration.registered().await.expect("registered");
    }
    registrations
}

/// A channel that is connected to so many servers.
pub(crate) async fn channel(etcd: &Etcd, service: &str, servers: usize) -> HealthClient<Channel> {
    let options = DiscoveryOptions::new([layout("grpc", None).expect("layout")]);
    let subscription = Discovery::new(client(etcd), options).service(service.parse().expect("name"));
    let channel = Channel::new(subscription);
    tokio::time::timeout(SOON, channel.wait_for(|stats| stats.ready() == servers))
        .await
        .expect("all are ready");
    HealthClient::new(channel)
}

fn client(etcd: &Etcd) -> Client {
    Client::new(ClientOptions::new([etcd.url()])).expect("options")
}

// === impl Servers ===

impl Servers {
    pub(crate) async fn start(count: usize) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        let process = Process::spawn(command.args(["--serve", &count.to_string()]));
        let line = process.wait_for_line(|line| line.starts_with("serving "), SOON).await;
        let addresses = line.split(' ').skip(1).map(str::to_owned).collect();
        Self { addresses, _process: process }
    }
}
