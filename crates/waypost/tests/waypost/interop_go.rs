//! Go's own packages for etcd and gRPC agree with us: each finds and calls what the other registered.

use std::time::Duration;

use tonic::transport::server::TcpIncoming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use waypost::Waypost;
use waypost::model::Instance;
use waypost_testkit::{Etcd, EtcdVersion, GoInterop, for_each_etcd};

const SOON: Duration = Duration::from_secs(30);

/// A gRPC server that answers health checks; answers its address.
async fn health_server(service: &str) -> String {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("address")).expect("bind");
    let address = incoming.local_addr().expect("address").to_string();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    tokio::spawn(tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming));
    address
}

fn instance(service: &str, address: &str) -> Instance {
    Instance::new(service.parse().expect("name"), address.parse().expect("address"))
}

for_each_etcd! {
    async fn go_resolves_and_calls_what_waypost_registered(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let go = GoInterop::build().await;
        let waypost = Waypost::connect(&etcd.url()).expect("options");
        let mut addresses = vec![health_server("greeter").await, health_server("greeter").await];
        let mut registrations = Vec::new();
        for address in &addresses {
            let registration = waypost.register(instance("greeter", address)).expect("register");
            registration.registered().await.expect("registered");
            registrations.push(registration);
        }
        let seen = go.resolve(&etcd.url(), "greeter", 20, 2).await;
        addresses.sort();
        assert_eq!(seen.addresses, addresses, "{:?}", seen.failures);
        assert_eq!(seen.failures, Vec::<String>::new());
        assert!(seen.calls.values().all(|calls| *calls == 10), "{:?}", seen.calls);
    }

    async fn go_sees_waypost_come_change_and_go(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let go = GoInterop::build().await;
        let waypost = Waypost::connect(&etcd.url()).expect("options");
        let watch = go.watch(&etcd.url(), "svc/echo").await;
        let registered = instance("svc/echo", "10.0.0.1:80").with_zone("a");
        let registration = waypost.register(registered).expect("register");
        let line = watch.wait_for_line(|line| line.contains(r#""op":"add""#), SOON).await;
        assert!(line.contains(r#""key":"services/svc/echo/10.0.0.1:80""#), "{line}");
        assert!(line.contains(r#""metadata":{"zone":"a"}"#), "{line}");
        registration.set_weight(7).await.expect("weight");
        watch.wait_for_line(|line| line.contains(r#""weight":7"#), SOON).await;
        registration.deregister().await.expect("deregister");
        watch.wait_for_line(|line| line.contains(r#""op":"delete""#), SOON).await;
    }

    async fn waypost_discovers_and_calls_what_go_registered(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let go = GoInterop::build().await;
        // Go's program deletes its key and revokes its lease at once. When the revocation overtakes our question, that
        // cannot be told from an expiry, and the set would be held for the grace.
        let builder = Waypost::builder().endpoints([etcd.url()]);
        let waypost = builder.discovery(|options| options.empty_grace(None)).build().expect("options");
        let channel = waypost.channel("greeter").expect("channel");
        let mut discovered = waypost.discover("greeter").expect("discover");
        let mut client = HealthClient::new(channel.clone());
        let server = go.serve("greeter").await;
        let registration = go.register(&etcd.url(), "greeter", &server.address, None, 10).await;
        let snapshot = discovered.wait_for(|snapshot| snapshot.len() == 1).await;
        let found: Vec<_> = snapshot.instances().map(|instance| instance.address()).collect();
        assert_eq!(found, [server.address.as_str()]);
        for _ in 0..20 {
            client.check(HealthCheckRequest { service: "greeter".into() }).await.expect("call");
        }
        // Go's manager removes the key when it is told to end; the set is believed empty at once.
        registration.terminate();
        assert!(registration.exited(SOON).await.success());
        discovered.wait_for(waypost::model::Snapshot::is_empty).await;
        channel.wait_for(|stats| stats.registered == 0).await;
        let status = client.check(HealthCheckRequest::default()).await.expect_err("nobody is registered");
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(status.message().contains("greeter"), "{status}");
    }
}
