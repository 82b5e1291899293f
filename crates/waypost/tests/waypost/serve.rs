//! What `serve` does: listens, registers, answers health checks, and ends in order.

use std::time::Duration;

use crate::support::{English, PATIENCE, Running, connect};
use greeter::{GreeterClient, GreeterServer, HelloRequest};
use tokio::sync::oneshot;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use waypost::model::Status;
use waypost::registry::RegistrationState;
use waypost::{Error, ServeError, Waypost};
use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

for_each_etcd! {
    async fn it_is_registered_healthy_and_gone_afterwards(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let waypost = connect(&etcd.url()).unwrap();
        let server = Running::start(&waypost, "127.0.0.1:0").await;
        let found = waypost.discover("greeter").unwrap().ready().await;
        let addresses: Vec<String> = found.instances().map(|instance| instance.address()).collect();
        assert_eq!(addresses, std::slice::from_ref(&server.address));

        let mut health = HealthClient::new(waypost.channel("greeter").unwrap());
        for service in ["", "helloworld.Greeter"] {
            let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap();
            assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{service:?}");
        }
        let unknown = health.check(HealthCheckRequest { service: "nobody".into() }).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);

        server.stop().await;
        assert_eq!(etcd.etcdctl(["get", "", "--prefix"]).await, "");
        assert!(etcd.etcdctl(["lease", "list"]).await.contains("found 0 leases"));
    }

    async fn a_host_that_nobody_can_dial_is_never_advertised(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let waypost = connect(&etcd.url()).unwrap();
        let serving = waypost
            .serve("greeter", "0.0.0.0:0", GreeterServer::new(English::default()))
            .instance(|instance| instance.with_zone("a").with_weight(7))
            .shutdown(std::future::pending())
            .start()
            .await
            .unwrap();
        serving.registration().registered().await.unwrap();
        let instance = serving.registration().instance();
        // The local address of the route to etcd.
        assert_eq!(instance.address(), format!("127.0.0.1:{}", serving.local_addr().port()));
        assert_eq!((instance.zone.as_deref(), instance.weight), (Some("a"), 7));

        let named = waypost
            .serve("greeter", "127.0.0.1:0", GreeterServer::new(English::default()))
            .advertise("greeter-7.example")
            .shutdown(std::future::pending())
            .start()
            .await
            .unwrap();
        assert_eq!(
            named.registration().instance().address(),
            format!("greeter-7.example:{}", named.local_addr().port())
        );
    }

    async fn calls_under_way_are_finished_and_the_instance_is_drained_meanwhile(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let waypost = connect(&etcd.url()).unwrap();
        let english = English::default();
        let (shutdown, asked) = oneshot::channel::<()>();
        let serving = waypost
            .serve("greeter", "127.0.0.1:0", GreeterServer::new(english.clone()))
            .shutdown(async move {
                let _ = asked.await;
            })
            .start()
            .await
            .unwrap();
        serving.registration().registered().await.unwrap();
        let mut state = serving.registration().state();
        let mut instances = serving.registration().instances();
        let ended = tokio::spawn(serving.run());

        let mut client = GreeterClient::new(waypost.channel("greeter").unwrap());
        let slow = tokio::spawn(async move { client.say_hello(HelloRequest { name: "slow".into() }).await });
        english.asked.notified().await;
        shutdown.send(()).unwrap();
        instances.wait_for(|instance| instance.status == Status::Draining).await.unwrap();
        state.wait_for(RegistrationState::is_final).await.unwrap();
        assert!(!slow.is_finished());
        english.release.notify_one();
        assert_eq!(slow.await.unwrap().unwrap().into_inner().message, "Hello, slow!");
        tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
    }

    async fn a_call_that_does_not_end_is_cut_off_at_the_deadline(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let waypost = connect(&etcd.url()).unwrap();
        let english = English::default();
        let (shutdown, asked) = oneshot::channel::<()>();
        let serving = waypost
            .serve("greeter", "127.0.0.1:0", GreeterServer::new(english.clone()))
            .shutdown(async move {
                let _ = asked.await;
            })
            .grace(Duration::ZERO)
            .deadline(Duration::from_millis(100))
            .start()
            .await
            .unwrap();
        serving.registration().registered().await.unwrap();
        let ended = tokio::spawn(serving.run());
        let mut client = GreeterClient::new(waypost.channel("greeter").unwrap());
        let slow = tokio::spawn(async move { client.say_hello(HelloRequest { name: "slow".into() }).await });
        english.asked.notified().await;
        shutdown.send(()).unwrap();
        let error = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap_err();
        assert!(matches!(error, ServeError::Unfinished { .. }), "{error}");
        let status = tokio::time::timeout(PATIENCE, slow).await.unwrap().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }

    async fn etcd_may_come_later_and_may_be_gone_at_the_end(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        etcd.kill().await;
        let waypost = Waypost::builder()
            .endpoints([etcd.url()])
            .registry(|options| options.deadline(Duration::from_millis(500)))
            .build()
            .unwrap();
        let (shutdown, asked) = oneshot::channel::<()>();
        let serving = waypost
            .serve("greeter", "127.0.0.1:0", GreeterServer::new(English::default()))
            .shutdown(async move {
                let _ = asked.await;
            })
            .grace(Duration::ZERO)
            .start()
            .await
            .unwrap();
        let mut state = serving.registration().state();
        state
            .wait_for(|state| matches!(state, RegistrationState::Registering { cause: Some(_), .. }))
            .await
            .unwrap();
        // It answers all the same.
        tokio::net::TcpStream::connect(serving.local_addr()).await.unwrap();
        etcd.restart().await;
        tokio::time::timeout(PATIENCE, serving.registration().registered()).await.unwrap().unwrap();

        etcd.kill().await;
        let ended = tokio::spawn(serving.run());
        shutdown.send(()).unwrap();
        let error = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap_err();
        assert!(matches!(error, ServeError::Deregister { .. }), "{error}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_the_name_of_it() {
    waypost_testkit::run(async {
        let waypost = connect("http://127.0.0.1:1").unwrap();
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let serve = |service: &str, address: &str| {
            waypost.serve(service, address, GreeterServer::new(English::default())).shutdown(async {})
        };
        let error = serve("greeter", &address).await.unwrap_err();
        assert!(matches!(error, Error::Serve(ServeError::Bind { .. })));
        assert_eq!(error.to_string(), format!("greeter cannot listen on {address}"));
        assert!(matches!(serve("a b", "127.0.0.1:0").await.unwrap_err(), Error::Name { .. }));
        let error = serve("greeter", "127.0.0.1:0").advertise("a b").await.unwrap_err();
        assert!(matches!(error, Error::Serve(ServeError::Advertise { .. })), "{error}");
        let error = waypost.channel("a b").unwrap_err();
        assert!(error.to_string().contains("\"a b\""), "{error}");
        assert!(matches!(waypost.discover("/"), Err(Error::Name { .. })));
    });
}
