//! What happens below gRPC: refused streams, frozen servers, TLS; and what monitoring sees.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{
    Fleet, Server, answers, builder, check, check_idempotent, instance, ready, served_by, within,
};
use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;
use waypost_channel::{ChannelMetrics, Keepalive, TcpConnector};
use waypost_model::Endpoint;
use waypost_testkit::Tls;

/// What an HTTP/2 server does with a request.
#[derive(Debug, Clone, Copy)]
enum Treatment {
    /// Resets the stream with this reason.
    Reset(h2::Reason),
    /// Reads nothing any more, and says nothing, and keeps the connection.
    Freeze,
}

/// A server below the level of gRPC. Tells how many requests it has seen.
async fn raw(treatment: Treatment) -> (Endpoint, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, requests) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    seen.send_modify(|count| *count += 1);
                    match treatment {
                        Treatment::Reset(reason) => respond.send_reset(reason),
                        Treatment::Freeze => pending().await,
                    }
                }
            });
        }
    });
    (address.into(), requests)
}

#[tokio::test]
async fn a_stream_that_the_server_refuses_goes_elsewhere_even_if_it_is_not_idempotent() {
    let (refusing, requests) = raw(Treatment::Reset(h2::Reason::REFUSED_STREAM)).await;
    let good = Server::healthy().await;
    let (fleet, subscription) = Fleet::of(&[&good]);
    fleet.put(instance(1, refusing));
    let channel = builder(subscription).build();
    ready(&channel, 2).await;
    for _ in 0..10 {
        let response = check(&channel).await.unwrap();
        assert_eq!((served_by(&response), crate::support::info(&response).attempts()), (0, 1));
    }
    assert!(*requests.borrow() > 0);
}

#[tokio::test]
async fn a_fleet_that_refuses_everything_is_asked_a_bounded_number_of_times() {
    let (refusing, requests) = raw(Treatment::Reset(h2::Reason::REFUSED_STREAM)).await;
    let (_fleet, subscription) = Fleet::with([instance(0, refusing)]);
    let channel = builder(subscription).build();
    let error = check(&channel).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable);
    assert!(*requests.borrow() <= 16, "{}", *requests.borrow());
}

#[tokio::test]
async fn other_resets_are_told_to_the_caller_as_grpc_has_them() {
    for (reason, code) in [
        (h2::Reason::CANCEL, tonic::Code::Cancelled),
        (h2::Reason::ENHANCE_YOUR_CALM, tonic::Code::ResourceExhausted),
        (h2::Reason::PROTOCOL_ERROR, tonic::Code::Internal),
    ] {
        let (address, requests) = raw(Treatment::Reset(reason)).await;
        let (_fleet, subscription) = Fleet::with([instance(0, address)]);
        let channel = builder(subscription).all_idempotent().build();
        assert_eq!(check(&channel).await.unwrap_err().code(), code);
        assert_eq!(*requests.borrow(), 1);
    }
}

#[tokio::test]
async fn what_http1_says_of_a_connection_is_left_out() {
    let server = Server::start(answers::handler(|request, _| async move {
        let strange =
            ["connection", "transfer-encoding"].iter().any(|name| request.headers().contains_key(*name));
        assert!(!strange && request.headers()["x-own"] == "kept");
        answers::ok()
    }))
    .await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).build();
    let answer = crate::support::check_with(&channel, |request| {
        for (name, value) in [("connection", "close"), ("transfer-encoding", "chunked"), ("x-own", "kept")] {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
    });
    answer.await.unwrap();
}

/// A process that is stopped keeps its connections, and its kernel acknowledges what is sent.
#[tokio::test]
async fn a_server_that_freezes_is_found_by_pings() {
    let (frozen, mut requests) = raw(Treatment::Freeze).await;
    let (fleet, subscription) = Fleet::with([instance(0, frozen)]);
    let keepalive = Keepalive::new(Duration::from_millis(50), Duration::from_millis(50));
    let channel = builder(subscription).keepalive(keepalive).build();
    ready(&channel, 1).await;
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { check_idempotent(&channel).await }
    });
    within(requests.changed()).await.unwrap();
    let good = Server::healthy().await;
    fleet.put(instance(1, good.endpoint()));
    assert_eq!(served_by(&within(call).await.unwrap().unwrap()), 1);
}

#[tokio::test]
async fn a_server_that_freezes_while_nobody_calls_is_found_if_idle_connections_are_pinged() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Endpoint::from(listener.local_addr().unwrap());
    let freeze = CancellationToken::new();
    let frozen = freeze.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let frozen = frozen.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                tokio::select! {
                    _ = connection.accept() => {}
                    () = frozen.cancelled() => pending().await,
                }
            });
        }
    });
    let good = Server::healthy().await;
    let (fleet, subscription) = Fleet::of(&[&good]);
    fleet.put(instance(1, address));
    let keepalive = Keepalive::new(Duration::from_millis(50), Duration::from_millis(50)).while_idle(true);
    let channel = builder(subscription).keepalive(keepalive).build();
    ready(&channel, 2).await;
    freeze.cancel();
    ready(&channel, 1).await;
    assert_eq!(channel.stats().endpoints.iter().map(|at| at.picks).sum::<u64>(), 0);
    // The one that answers keeps its connection.
    assert_eq!((good.connections(), served_by(&check(&channel).await.unwrap())), (1, 0));
}

#[tokio::test]
async fn endpoints_that_ask_for_tls_get_it() {
    let tls = Tls::new();
    let (address, _server) = tls_server(&tls).await;
    let (_fleet, subscription) = Fleet::with([instance(0, address.clone())]);
    let connector = TcpConnector::new().with_tls(trusting(&tls));
    let channel = builder(subscription.clone()).connector(connector).build();
    let response = check(&channel).await.unwrap();
    assert_eq!(crate::support::info(&response).endpoint(), &address);

    // A certificate of somebody else's.
    let connector = TcpConnector::new().with_tls(trusting(&Tls::new()));
    let error = check(&builder(subscription.clone()).connector(connector).build()).await.unwrap_err();
    assert!(error.message().contains("certificate"), "{error}");

    // The right one, for another name.
    let name = "greeter.internal".try_into().unwrap();
    let connector = TcpConnector::new().with_tls(trusting(&tls)).with_server_name(name);
    let error = check(&builder(subscription).connector(connector).build()).await.unwrap_err();
    assert!(error.message().contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn tls_can_be_for_all_and_of_pem() {
    let tls = Tls::new();
    let (mut address, _server) = tls_server(&tls).await;
    // As a layout that cannot say more has it.
    address.scheme = waypost_model::Scheme::Grpc;
    let (_fleet, subscription) = Fleet::with([instance(0, address)]);
    let read = |path: &std::path::Path| std::fs::read(path).unwrap();
    let (certificate, key) = (read(&tls.client().certificate), read(&tls.client().key));
    let connector = TcpConnector::new().with_pem(tls.ca_pem(), Some((&certificate, &key))).unwrap();
    let error = check(&builder(subscription.clone()).connector(connector.clone()).build()).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable, "it is spoken to without: {error}");
    check(&builder(subscription).connector(connector.always_tls()).build()).await.unwrap();
}

fn trusting(tls: &Tls) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(tls.ca()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

async fn tls_server(tls: &Tls) -> (Endpoint, tokio_util::task::AbortOnDropHandle<()>) {
    let certificate = CertificateDer::from_pem_file(&tls.server().certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&tls.server().key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("grpcs://{}", listener.local_addr().unwrap()).parse().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Clients that do not trust the certificate end here.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(async |request: http::Request<_>| {
                    assert_eq!(request.uri().scheme_str(), Some("https"));
                    Ok::<_, Infallible>(answers::ok())
                });
                // The end of the connection, in whatever way.
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (address, tokio_util::task::AbortOnDropHandle::new(task))
}

/// As it is where `isSecure` is switched on server by server: each endpoint is spoken to as it says.
#[tokio::test]
async fn in_a_mixed_fleet_each_endpoint_is_spoken_to_as_it_asks() {
    let tls = Tls::new();
    let (secure, _server) = tls_server(&tls).await;
    let plain = Server::healthy().await;
    let (fleet, subscription) = Fleet::of(&[&plain]);
    fleet.put(instance(1, secure));
    let connector = TcpConnector::new().with_tls(trusting(&tls));
    let channel = builder(subscription.clone()).connector(connector).build();
    ready(&channel, 2).await;
    let mut served = [0, 0];
    for _ in 0..20 {
        served[served_by(&check(&channel).await.unwrap())] += 1;
    }
    assert_eq!(served, [10, 10]);

    // Without a configuration the secure one is left out, and told of.
    let channel = builder(subscription).build();
    ready(&channel, 1).await;
    for _ in 0..10 {
        assert_eq!(served_by(&check(&channel).await.unwrap()), 0);
    }
    assert_eq!(channel.stats().unusable.len(), 1);
}

/// What was there when the call was made, and what came later, in order.
#[tokio::test]
async fn a_streamed_request_reaches_the_server_whole() {
    use http_body_util::{BodyExt, StreamBody};

    let (sender, receiver) = std::sync::mpsc::channel();
    let server = Server::start(answers::handler(move |request, _| {
        let sender = sender.clone();
        async move {
            sender.send(request.into_body().collect().await.unwrap().to_bytes()).unwrap();
            answers::ok()
        }
    }))
    .await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let mut channel = builder(subscription).build();
    let (frames, body) = futures::channel::mpsc::unbounded::<Result<_, tonic::Status>>();
    let frame = |text: &'static str| Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes())));
    frames.unbounded_send(frame("one ")).unwrap();
    let request = http::Request::post("/a.B/C").body(tonic::body::Body::new(StreamBody::new(body))).unwrap();
    let call = tokio::spawn(tower::Service::call(&mut channel, request));
    server.called(1).await;
    frames.unbounded_send(frame("two ")).unwrap();
    frames.unbounded_send(frame("three")).unwrap();
    drop(frames);
    within(call).await.unwrap().unwrap();
    assert_eq!(receiver.try_recv().unwrap(), "one two three");
}

#[tokio::test]
async fn metrics_are_those_of_the_endpoints_that_there_are() {
    let (first, second) = (Server::healthy().await, Server::healthy().await);
    let (fleet, subscription) = Fleet::of(&[&first]);
    let metrics = ChannelMetrics::new();
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let channel = builder(subscription).metrics(&metrics).build();
    for _ in 0..3 {
        check(&channel).await.unwrap();
    }
    let scrape = |registry: &_| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    };
    let text = scrape(&registry);
    let at = first.endpoint();
    for line in [
        r#"waypost_channel_calls_total{service="greeter",code="OK"} 3"#.to_owned(),
        r#"waypost_channel_retries_total{service="greeter",kind="retry"} 0"#.to_owned(),
        r#"waypost_channel_instances{service="greeter"} 1"#.to_owned(),
        r#"waypost_channel_endpoints{service="greeter",state="ready"} 1"#.to_owned(),
        format!(r#"waypost_channel_in_flight{{service="greeter",endpoint="{at}"}} 0"#),
        format!(r#"waypost_channel_endpoint_calls_total{{service="greeter",endpoint="{at}"}} 3"#),
        format!(r#"waypost_channel_picks_total{{service="greeter",endpoint="{at}"}} 3"#),
        format!(r#"waypost_channel_endpoint_seconds_count{{service="greeter",endpoint="{at}"}} 3"#),
        r#"waypost_channel_call_seconds_count{service="greeter"} 3"#.to_owned(),
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
    }

    fleet.change([instance(1, second.endpoint())], [0]);
    let moved = |stats: &waypost_channel::ChannelStats| {
        stats.ready() == 1 && stats.endpoints.iter().all(|endpoint| endpoint.endpoint != at)
    };
    within(channel.wait_for(moved)).await;
    let text = scrape(&registry);
    assert!(!text.contains(&at.to_string()), "{text}");
    drop(channel);
    assert!(!scrape(&registry).contains("greeter"));
}
