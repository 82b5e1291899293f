//! `embedded:DIR`, as a program uses it.

use crate::support::Running;
use greeter::{GreeterClient, HelloRequest};
use waypost::Waypost;

#[test]
fn a_server_and_a_client_need_nothing_but_a_folder() {
    waypost_testkit::run(async {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("embedded:{}", folder.path().display());
        let (server, client) = (Waypost::connect(&url).unwrap(), Waypost::connect(&url).unwrap());
        let running = Running::start(&server, "127.0.0.1:0").await;
        let mut greeter =
            GreeterClient::new(client.channel_builder("greeter").unwrap().wait_for_ready(true).build());
        let reply = greeter.say_hello(HelloRequest { name: "Ada".into() }).await.unwrap();
        assert_eq!(reply.into_inner().message, "Hello, Ada!");

        // Whoever serves the store leaves; the other goes on.
        running.stop().await;
        drop(server);
        let _running = Running::start(&client, "127.0.0.1:0").await;
        let reply = greeter.say_hello(HelloRequest { name: "Bob".into() }).await.unwrap();
        assert_eq!(reply.into_inner().message, "Hello, Bob!");
    });
}

#[test]
fn a_folder_that_cannot_be_used_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes"), "mine").unwrap();
    let error = Waypost::connect(&format!("embedded:{}", folder.path().display())).unwrap_err();
    assert!(matches!(error, waypost::Error::Open { .. }), "{error}");
}
