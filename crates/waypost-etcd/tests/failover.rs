//! Several endpoints, TLS, users: how a client reaches the cluster when parts of it are away.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail at once")]

use std::time::Duration;

use waypost_etcd::{Client, ClientOptions, EndpointOrder, ErrorKind, Put, Range, TlsOptions};
use waypost_testkit::{Cluster, Etcd, EtcdVersion, Proxy, Tls, for_each_etcd, for_each_real_etcd, free_port};

for_each_etcd! {
    async fn an_endpoint_that_is_away_costs_no_call(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let dead = format!("http://127.0.0.1:{}", free_port());
        let options = ClientOptions::new([dead, etcd.url()]).endpoint_order(EndpointOrder::Listed);
        let client = Client::new(options).expect("options");
        for index in 0..20 {
            client.put(Put::new("k", format!("{index}"))).await.expect("put");
        }
        let nobody = Client::new(ClientOptions::new([format!("http://127.0.0.1:{}", free_port())])).expect("options");
        let error = nobody.range(Range::key("k")).await.expect_err("nobody there");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("refused"), "{error}");
    }

    async fn callers_who_wait_for_a_connection_share_its_failure(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let options = ClientOptions::new([format!("http://127.0.0.1:{}", free_port()), etcd.url()])
            .endpoint_order(EndpointOrder::Listed);
        let client = Client::new(options).expect("options");
        let calls = (0..50).map(|_| client.range(Range::key("k")));
        for answer in futures::future::join_all(calls).await {
            answer.expect("served by the other endpoint");
        }
    }

    async fn a_unix_socket_is_an_endpoint_and_is_waited_for_on_demand(version: EtcdVersion) {
        let mut etcd = Etcd::builder(version).unix_socket().start().await;
        let url = etcd.socket_url();
        let client = Client::new(ClientOptions::new([url.clone()])).expect("options");
        client.put(Put::new("k", "v")).await.expect("put");
        etcd.kill().await;
        let error = client.range(Range::key("k")).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&url) && error.to_string().contains("refused"), "{error}");

        let patient = ClientOptions::new([url]).wait_for_socket(true).connect_timeout(Duration::from_secs(60));
        let patient = Client::new(patient).expect("options");
        let (answer, ()) = tokio::join!(patient.range(Range::key("k")), etcd.restart());
        assert_eq!(&answer.expect("range").kvs[0].value[..], b"v");
    }

    async fn a_half_open_connection_is_left(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let (first, second) = (Proxy::start(&etcd.authority()).await, Proxy::start(&etcd.authority()).await);
        let options = ClientOptions::new([first.url(), second.url()])
            .endpoint_order(EndpointOrder::Listed)
            .request_timeout(Duration::from_millis(500));
        let client = Client::new(options).expect("options");
        client.put(Put::new("k", "v")).await.expect("put");
        assert_eq!((first.accepted(), second.accepted()), (1, 0));
        first.blackhole();
        client.range(Range::key("k")).await.expect("a read goes on to the other endpoint");
        assert_eq!(second.accepted(), 1);
        client.put(Put::new("k", "w")).await.expect("a write goes there at once");
    }

    async fn a_write_of_unknown_outcome_is_not_sent_twice(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let (first, second) = (Proxy::start(&etcd.authority()).await, Proxy::start(&etcd.authority()).await);
        let options = ClientOptions::new([first.url(), second.url()])
            .endpoint_order(EndpointOrder::Listed)
            .request_timeout(Duration::from_millis(300));
        let client = Client::new(options).expect("options");
        client.put(Put::new("k", "v")).await.expect("put");
        first.blackhole();
        let error = client.put(Put::new("k", "w")).await.expect_err("nobody knows");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(client.range(Range::key("k")).await.expect("range").kvs[0].version, 1);
        client.put(Put::new("k", "w")).await.expect("the next one goes elsewhere");
        assert_eq!(client.range(Range::key("k")).await.expect("range").kvs[0].version, 2);
    }

    async fn a_connection_that_was_closed_while_idle_costs_no_call(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.authority()).await;
        let client = Client::new(ClientOptions::new([proxy.url()])).expect("options");
        for round in 0..5 {
            client.put(Put::new("k", "v").idempotent()).await.expect("put");
            let mut counts = proxy.counts();
            proxy.sever();
            counts.wait_for(|counts| counts.open == 0).await.expect("severed");
            assert_eq!(proxy.accepted(), round + 1);
        }
    }

    async fn users_and_wrong_passwords(version: EtcdVersion) {
        let etcd = Etcd::builder(version).auth("secret-of-root").start().await;
        let client = Client::new(ClientOptions::new([etcd.url()]).user("root", "secret-of-root")).expect("options");
        client.put(Put::new("k", "v")).await.expect("put as root");
        let wrong = Client::new(ClientOptions::new([etcd.url()]).user("root", "wrong-secret")).expect("options");
        let error = wrong.range(Range::key("k")).await.expect_err("wrong password");
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert!(!format!("{error} {error:?}").contains("wrong-secret"), "{error:?}");
        let anonymous = Client::new(ClientOptions::new([etcd.url()])).expect("options");
        let error = anonymous.range(Range::key("k")).await.expect_err("no user");
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    }

    async fn tls_and_client_certificates(version: EtcdVersion) {
        let tls = Tls::new();
        let etcd = Etcd::builder(version).mutual_tls(&tls).start().await;
        let (cert, key) = (tls.client().certificate_pem(), tls.client().key_pem());
        let options = ClientOptions::new([etcd.authority()])
            .tls(TlsOptions::new().ca_pem(tls.ca_pem()).identity_pem(cert, key));
        let client = Client::new(options).expect("options");
        client.put(Put::new("k", "v")).await.expect("put over mutual TLS");
        let without = ClientOptions::new([etcd.authority()]).tls(TlsOptions::new().ca_pem(tls.ca_pem()));
        let error = Client::new(without).expect("options").range(Range::key("k")).await.expect_err("no certificate");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let stranger = Tls::new();
        let options = ClientOptions::new([etcd.authority()]).tls(TlsOptions::new().ca_pem(stranger.ca_pem()));
        let error = Client::new(options).expect("options").range(Range::key("k")).await.expect_err("unknown authority");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }

    async fn a_token_that_dies_is_renewed_once_for_all_callers(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let client = Client::new(ClientOptions::new([etcd.url()]).user("root", "pw")).expect("options");
        client.put(Put::new("k", "v")).await.expect("put while authentication is off");
        etcd.enable_auth("pw").await;
        let calls = (0..100).map(|_| client.range(Range::key("k")));
        for answer in futures::future::join_all(calls).await {
            answer.expect("range after authentication was turned on");
        }
        // Turning authentication off forgets every token.
        etcd.disable_auth().await;
        etcd.etcdctl(["auth", "enable"]).await;
        let before = authentications(&etcd).await;
        let calls = (0..100).map(|_| client.range(Range::key("k")));
        for answer in futures::future::join_all(calls).await {
            answer.expect("range with a renewed token");
        }
        assert_eq!(authentications(&etcd).await, before + 1, "one Authenticate for a hundred callers");
    }
}

for_each_real_etcd! {
    async fn members_die_one_after_the_other(version: EtcdVersion) {
        let mut cluster = Cluster::start(version, 3).await;
        let client = Client::new(ClientOptions::new(cluster.urls())).expect("options");
        client.put(Put::new("k", "0")).await.expect("put");
        for node in 0..3 {
            cluster.kill(node).await;
            // Reads are sent again wherever it takes; while a leader is elected, etcd itself asks for patience.
            let mut tries = 0;
            while let Err(error) = client.range(Range::key("k")).await {
                assert!(error.is_transient(), "{error}");
                tries += 1;
                assert!(tries < 50, "{error}");
            }
            client.put(Put::new("k", format!("{node}")).idempotent()).await.expect("put");
            cluster.restart(node).await;
        }
    }
}

/// How many `Authenticate` calls this etcd process has answered with success.
async fn authentications(etcd: &Etcd) -> u64 {
    let text = etcd.metrics().await;
    text.lines()
        .filter(|line| {
            line.starts_with("grpc_server_handled_total")
                && line.contains("\"Authenticate\"")
                && line.contains("\"OK\"")
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}
