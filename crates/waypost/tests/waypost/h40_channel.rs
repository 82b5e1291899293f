//! What breaks channels in the field, on the whole way: registered in etcd, discovered, connected, called.

use crate::support::{PATIENCE, Running, connect};
use greeter::{GreeterClient, HelloRequest};
use tonic::{Code, Request, Status};
use tower::Service as _;
use waypost::Waypost;
use waypost::channel::{Channel, EndpointInfo, WaitForReady};
use waypost::etcd::Put;
use waypost::model::{Existence, Freshness, Instance};
use waypost::registry::Registration;
use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd, free_port};

/// Registers an address at which nobody listens.
async fn register_dead(waypost: &Waypost) -> Registration {
    register(waypost, &format!("127.0.0.1:{}", free_port())).await
}

async fn register(waypost: &Waypost, address: &str) -> Registration {
    let instance = Instance::new("greeter".parse().unwrap(), address.parse().unwrap());
    let registration = waypost.register(instance).unwrap();
    registration.registered().await.unwrap();
    registration
}

/// One call; answers the address that served it.
async fn call(channel: &Channel) -> Result<String, Status> {
    greet(channel, Request::new(HelloRequest { name: "World".into() })).await
}

async fn greet(channel: &Channel, mut request: Request<HelloRequest>) -> Result<String, Status> {
    request.set_timeout(PATIENCE);
    let reply = GreeterClient::new(channel.clone()).say_hello(request).await?;
    Ok(reply.extensions().get::<EndpointInfo>().unwrap().endpoint().authority())
}

for_each_etcd! {
    async fn h40_one_of_two_is_dead_but_still_registered(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let waypost = connect(&etcd.url()).unwrap();
        let alive = Running::start(&waypost, "127.0.0.1:0").await;
        let _dead = register_dead(&waypost).await;
        let channel = connect(&etcd.url()).unwrap().channel("greeter").unwrap();
        for _ in 0..500 {
            assert_eq!(call(&channel).await.unwrap(), alive.address);
        }
        assert_eq!(channel.stats().registered, 2);
        alive.stop().await;
    }

    async fn h40_one_of_ten_is_dead_but_still_registered(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let waypost = connect(&etcd.url()).unwrap();
        let mut alive = Vec::new();
        for _ in 0..9 {
            alive.push(Running::start(&waypost, "127.0.0.1:0").await);
        }
        let _dead = register_dead(&waypost).await;
        let channel = connect(&etcd.url()).unwrap().channel("greeter").unwrap();
        for _ in 0..500 {
            call(&channel).await.unwrap();
        }
        assert_eq!((channel.stats().registered, channel.stats().ready()), (10, 9));
    }

    async fn h41_an_empty_set_fails_at_once_with_the_reason_or_waits_if_asked_to(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let waypost = connect(&etcd.url()).unwrap();
        let channel = waypost.channel("greeter").unwrap();
        let status = call(&channel).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        for part in ["greeter", "no instance is registered", "layout grpc", "prefix services"] {
            assert!(status.message().contains(part), "{part:?} is not in {status}");
        }
        let mut patient = Request::new(HelloRequest { name: "World".into() });
        patient.extensions_mut().insert(WaitForReady(true));
        let waiting = tokio::spawn({
            let channel = channel.clone();
            async move { greet(&channel, patient).await }
        });
        let server = Running::start(&waypost, "127.0.0.1:0").await;
        assert_eq!(waiting.await.unwrap().unwrap(), server.address);
        server.stop().await;
    }

    async fn h42_an_endpoint_replaced_between_ready_and_call_is_not_called(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let (before, after) = (connect(&etcd.url()).unwrap(), connect(&etcd.url()).unwrap());
        let old = Running::start(&before, "127.0.0.1:0").await;
        let mut channel = connect(&etcd.url()).unwrap().channel("greeter").unwrap();
        assert_eq!(call(&channel).await.unwrap(), old.address);
        tower::ServiceExt::<http::Request<tonic::body::Body>>::ready(&mut channel).await.unwrap();
        // The same instance, by its key, moves to another address.
        let new = Running::start(&after, "127.0.0.1:0").await;
        let key = format!("services/greeter/{}", old.address);
        let moved = format!("{{\"Op\":0,\"Addr\":\"{}\",\"Metadata\":null}}", new.address);
        before.client().put(Put::new(key, moved)).await.unwrap();
        channel
            .wait_for(|stats| stats.endpoints.iter().all(|endpoint| endpoint.endpoint.authority() == new.address))
            .await;
        let request = http::Request::post("/helloworld.Greeter/SayHello").body(tonic::body::Body::empty()).unwrap();
        let response = channel.call(request).await.unwrap();
        assert_eq!(response.extensions().get::<EndpointInfo>().unwrap().endpoint().authority(), new.address);
        assert_eq!(call(&channel).await.unwrap(), new.address);
        new.stop().await;
    }

    async fn h43_endpoints_are_connected_to_while_nobody_calls(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let waypost = connect(&etcd.url()).unwrap();
        let channel = connect(&etcd.url()).unwrap().channel("greeter").unwrap();
        let mut servers = Vec::new();
        for count in 1..=3 {
            servers.push(Running::start(&waypost, "127.0.0.1:0").await);
            channel.wait_for(|stats| stats.ready() == count).await;
        }
        let mut seen: Vec<_> = [call(&channel).await, call(&channel).await, call(&channel).await]
            .into_iter()
            .map(Result::unwrap)
            .collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 3);
    }

    async fn h28_who_leaves_in_good_order_is_believed_to_have_left(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let (waypost, reader) = (connect(&etcd.url()).unwrap(), connect(&etcd.url()).unwrap());
        let registration = register_dead(&waypost).await;
        let mut greeters = reader.discover("greeter").unwrap();
        greeters.wait_for(|snapshot| snapshot.len() == 1).await;
        registration.deregister().await.unwrap();
        // Held for the grace it would be stale first.
        let stale = |freshness: &Freshness| matches!(freshness, Freshness::Stale { .. });
        let snapshot = greeters.wait_for(|snapshot| snapshot.is_empty() || stale(snapshot.freshness())).await;
        assert_eq!((snapshot.len(), snapshot.existence()), (0, Existence::Emptied), "{:?}", snapshot.freshness());
    }
}
