//! SIGTERM, to this very process: alone in its file, since every server of the process would hear it.
#![forbid(unsafe_code)]
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "what a test asks for must be there")]

#[path = "waypost/support/mod.rs"]
mod support;

use std::time::Duration;

use greeter::{GreeterClient, GreeterServer, HelloRequest};
use nix::sys::signal::{Signal, raise};
use support::{English, PATIENCE, connect};
use waypost::ServeError;
use waypost::registry::RegistrationState;
use waypost_testkit::{Etcd, EtcdVersion};

#[test]
fn h09_sigterm_ends_serve_and_deregisters_and_a_second_one_cuts_it_short() {
    waypost_testkit::run(async {
        for version in EtcdVersion::ALL {
            let etcd = Etcd::start(version).await;
            let waypost = connect(&etcd.url()).unwrap();
            let english = English::default();
            let serve = || {
                waypost
                    .serve("greeter", "127.0.0.1:0", GreeterServer::new(english.clone()))
                    .grace(Duration::ZERO)
            };

            let serving = serve().start().await.unwrap();
            serving.registration().registered().await.unwrap();
            let ended = tokio::spawn(serving.run());
            raise(Signal::SIGTERM).unwrap();
            tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
            assert_eq!(etcd.etcdctl(["get", "", "--prefix"]).await, "");

            let serving = serve().start().await.unwrap();
            serving.registration().registered().await.unwrap();
            let mut state = serving.registration().state();
            let ended = tokio::spawn(serving.run());
            let mut client = GreeterClient::new(waypost.channel("greeter").unwrap());
            let slow =
                tokio::spawn(async move { client.say_hello(HelloRequest { name: "slow".into() }).await });
            english.asked.notified().await;
            raise(Signal::SIGTERM).unwrap();
            state.wait_for(RegistrationState::is_final).await.unwrap();
            assert!(!ended.is_finished());
            raise(Signal::SIGINT).unwrap();
            let error = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap_err();
            assert!(matches!(error, ServeError::CutShort { .. }), "{error}");
            assert!(tokio::time::timeout(PATIENCE, slow).await.unwrap().unwrap().is_err());
            assert_eq!(etcd.etcdctl(["get", "", "--prefix"]).await, "");
        }
    });
}
