//! `/metrics`, and how the server says that it is well.

use std::collections::BTreeMap;

use tokio_stream::StreamExt as _;
use waypost_embed::server::ServerTls;
use waypost_proto::etcdserverpb as pb;
use waypost_proto::etcdserverpb::watch_client::WatchClient;
use waypost_proto::etcdserverpb::watch_request::RequestUnion;
use waypost_testkit::{Etcd, EtcdVersion, Tls};

use crate::support::{Ctl, Fixture, command, get_http, run};

/// The value of a series; panics if there is none.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in:\n{page}")).parse().unwrap()
}

#[tokio::test]
async fn metrics_have_the_names_of_etcd() {
    let fixture = Fixture::start().await;
    for line in ["put a 1", "put b 2", "del a", "get a", "lease grant 1000"] {
        fixture.ctl(Ctl::V3_5, line).await;
    }
    run(command(Ctl::V3_5, fixture.url(), "get a --rev=99")).await.unwrap_err();
    let create = pb::WatchCreateRequest { key: "a".into(), ..pb::WatchCreateRequest::default() };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::iter([create]).chain(tokio_stream::pending());
    let mut watch = WatchClient::new(fixture.channel().await).watch(requests).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().created);
    let page = get_http(fixture.url(), "/metrics").await;
    for (series, expected) in [
        ("etcd_server_has_leader", 1.0),
        ("etcd_mvcc_put_total", 2.0),
        ("etcd_mvcc_delete_total", 1.0),
        ("etcd_debugging_mvcc_current_revision", 4.0),
        ("etcd_debugging_lease_granted_total", 1.0),
        ("etcd_debugging_mvcc_watcher_total", 1.0),
        ("etcd_server_quota_backend_bytes", 2_147_483_648.0),
        (
            r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}"#,
            2.0,
        ),
        (
            r#"grpc_server_handled_total{grpc_code="OutOfRange",grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"}"#,
            1.0,
        ),
        (
            r#"grpc_server_started_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}"#,
            1.0,
        ),
        (r#"etcd_server_version{server_version="3.6.14"}"#, 1.0),
    ] {
        assert!((value(&page, series) - expected).abs() < 0.5, "{series}: {page}");
    }
    for series in [
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_network_client_grpc_sent_bytes_total",
        "process_resident_memory_bytes",
        "waypost_embed_batch_requests_count",
    ] {
        assert!(value(&page, series) > 0.0, "{series}: {page}");
    }
}

/// An answer whose body may have come in chunks, in one.
fn dechunked(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return answer.to_owned();
    }
    let (mut whole, mut rest) = (format!("{head}\r\n\r\n"), body);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    whole
}

/// The families of a page and their types.
fn families(page: &str) -> BTreeMap<&str, &str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

#[tokio::test]
async fn metrics_are_of_the_types_of_etcd_in_its_format() {
    let (fixture, etcd) = tokio::join!(Fixture::start(), Etcd::start(EtcdVersion::V3_5));
    let mut pages = Vec::new();
    for url in [fixture.url(), &etcd.url()] {
        fixture.ctl_at(Ctl::V3_5, url, "put a 1").await;
        let page = dechunked(&get_http(url, "/metrics").await);
        let kind = page.lines().find(|line| line.to_lowercase().starts_with("content-type:"));
        let kind = kind.and_then(|line| line.split_once(": ")).map(|(_, kind)| kind);
        assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"), "{url}");
        pages.push(page);
    }
    let (ours, theirs) = (families(&pages[0]), families(&pages[1]));
    // The library ends the name of each counter with `_total`, which etcd leaves out of these.
    let gauges = ["etcd_server_health_failures", "etcd_server_health_success"];
    for (family, kind) in ours.iter().filter(|(family, _)| !gauges.contains(family)) {
        assert!(pages[0].contains(&format!("\n# HELP {family} ")), "{family} has no help");
        let own = family.starts_with("waypost_embed_");
        assert_eq!(theirs.get(family), if own { None } else { Some(kind) }, "{family}");
    }
    let shared = ours.keys().filter(|family| theirs.contains_key(*family)).count();
    assert!(shared >= 38, "{shared} of {ours:?}");
}

#[tokio::test]
async fn metrics_for_those_who_are_no_clients() {
    let tls = Tls::new();
    let options = ServerTls::files(&tls.server().certificate, &tls.server().key).trusted_ca(tls.ca());
    let fixture = Fixture::start_with(|builder| {
        builder.listen(["https://127.0.0.1:0"]).listen_metrics(["http://127.0.0.1:0"]).tls(options)
    })
    .await;
    let url = fixture.server.metrics_urls()[0].clone();
    assert!(value(&get_http(&url, "/metrics").await, "etcd_server_has_leader") > 0.0);
    assert!(get_http(&url, "/health").await.contains(r#""health":"true""#));
    for path in ["/v3/kv/range", "/version"] {
        assert!(get_http(&url, path).await.contains(" 404 "), "{path}");
    }
}

#[tokio::test]
async fn health_is_asked_as_of_etcd() {
    let fixture = Fixture::start().await;
    let alarm = r#"{"action":"ACTIVATE","memberID":"1","alarm":"CORRUPT"}"#;
    for query in ["", "?serializable=true", "?exclude=NOSPACE"] {
        assert!(get_http(fixture.url(), &format!("/health{query}")).await.contains(" 200 "), "{query}");
    }
    assert!(get_http(fixture.url(), "/readyz?verbose").await.ends_with("[+]linearizable_read ok\nok\n"));
    assert_eq!(crate::gateway::raise(&fixture, alarm).await, 200);
    assert!(get_http(fixture.url(), "/health").await.contains("ALARM CORRUPT"));
    assert!(get_http(fixture.url(), "/health?exclude=CORRUPT&exclude=NOSPACE").await.contains(" 200 "));
    assert!(get_http(fixture.url(), "/readyz").await.contains("[-]data_corruption failed"));
    assert!(get_http(fixture.url(), "/livez").await.ends_with("ok\n"));
}
