//! What is refused, and what is asked without gRPC.

use tonic::Code;
use waypost_embed::server::{Server, StartError};
use waypost_proto::etcdserverpb as pb;
use waypost_proto::etcdserverpb::alarm_request::AlarmAction;
use waypost_proto::etcdserverpb::kv_client::KvClient;
use waypost_proto::etcdserverpb::maintenance_client::MaintenanceClient;

use crate::support::{Fixture, get_http};

fn put(key: &str, bytes: usize) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: vec![7; bytes].into(), ..pb::PutRequest::default() }
}

#[tokio::test]
async fn what_is_too_large_is_refused_in_the_words_of_etcd() {
    let fixture = Fixture::start().await;
    let mut kv = KvClient::new(fixture.channel().await);
    let refused = kv.put(put("a", 1_572_864)).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "etcdserver: request is too large")
    );
    let refused = kv.put(put("a", 3_000_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused.message().starts_with("grpc: received message larger than max (30000")
            && refused.message().ends_with(" vs. 2097152)"),
        "{refused}"
    );
    kv.put(put("a", 1_500_000)).await.unwrap();
}

#[tokio::test]
async fn when_space_runs_out_there_is_an_alarm_until_it_is_disarmed() {
    let fixture = Fixture::start_with(|builder| builder.quota_backend_bytes(8 << 20)).await;
    let channel = fixture.channel().await;
    let (mut kv, mut maintenance) = (KvClient::new(channel.clone()), MaintenanceClient::new(channel));
    let mut refused = None;
    for _ in 0..20 {
        if let Err(status) = kv.put(put("a", 1 << 20)).await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.expect("the quota is reached");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
    );
    // Even what would fit is refused now; reading and deleting goes on.
    assert_eq!(kv.put(put("b", 1)).await.unwrap_err().code(), Code::ResourceExhausted);
    let get = pb::RangeRequest { key: "a".into(), ..pb::RangeRequest::default() };
    assert_eq!(kv.range(get).await.unwrap().into_inner().count, 1);
    let delete = pb::DeleteRangeRequest { key: "a".into(), ..pb::DeleteRangeRequest::default() };
    let revision = kv.delete_range(delete).await.unwrap().into_inner().header.unwrap().revision;
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors.len(), 1, "{:?}", status.errors);
    assert!(
        get_http(fixture.url(), "/health").await.contains(r#"{"health":"false","reason":"ALARM NOSPACE"}"#)
    );

    kv.compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
    maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
    let disarm = pb::AlarmRequest {
        action: AlarmAction::Deactivate.into(),
        member_id: status.leader,
        alarm: pb::AlarmType::Nospace.into(),
    };
    assert_eq!(maintenance.alarm(disarm).await.unwrap().into_inner().alarms.len(), 1);
    kv.put(put("b", 1)).await.unwrap();
}

#[tokio::test]
async fn health_and_version_without_grpc() {
    let fixture = Fixture::start().await;
    assert!(get_http(fixture.url(), "/health").await.ends_with(r#"{"health":"true","reason":""}"#));
    assert!(get_http(fixture.url(), "/version").await.contains(r#""etcdserver":"3.6.14""#));
    assert!(get_http(fixture.url(), "/readyz").await.ends_with("ok\n"));
    assert!(get_http(fixture.url(), "/v2/keys").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn the_health_of_the_server_as_a_whole() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    let fixture = Fixture::start().await;
    let mut health = HealthClient::new(fixture.channel().await);
    let answer = health.check(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
    let refused = health.check(HealthCheckRequest { service: "other".to_owned() }).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "unknown service"));
}

/// Calls a method by its path.
async fn call(fixture: &Fixture, path: &'static str, version: &[u8]) -> tonic::Status {
    let mut grpc = tonic::client::Grpc::new(fixture.channel().await);
    grpc.ready().await.unwrap();
    let mut request = tonic::Request::new(pb::StatusRequest {});
    let mut headers = http::HeaderMap::new();
    headers.insert("client-api-version", http::HeaderValue::from_bytes(version).unwrap());
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    let codec = tonic_prost::ProstCodec::<pb::StatusRequest, pb::StatusResponse>::default();
    grpc.unary(request, http::uri::PathAndQuery::from_static(path), codec).await.unwrap_err()
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let fixture = Fixture::start().await;
    for (path, message) in [
        ("/etcdserverpb.KV/Rage", "unknown method Rage for service etcdserverpb.KV"),
        ("/etcdserverpb.Queue/Push", "unknown service etcdserverpb.Queue"),
    ] {
        let status = call(&fixture, path, b"3.6").await;
        assert_eq!((status.code(), status.message()), (Code::Unimplemented, message));
    }
    let status = call(&fixture, "/etcdserverpb.Maintenance/Status", b"3.\xff").await;
    let expected = (Code::InvalidArgument, "etcdserver: invalid client api version");
    assert_eq!((status.code(), status.message()), expected);
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let fixture = Fixture::start().await;
    let data = fixture.folder.path().join("data");
    let second = Server::builder().data_dir(&data).listen(["http://127.0.0.1:0"]).start().await;
    assert!(matches!(second, Err(StartError::Backend(_))), "{second:?}");
    let taken =
        Server::builder().data_dir(fixture.folder.path().join("2")).listen([fixture.url()]).start().await;
    assert!(matches!(taken, Err(StartError::Listen { .. })), "{taken:?}");
    let other = || Server::builder().data_dir(fixture.folder.path().join("3"));
    for url in ["127.0.0.1:1", "https://127.0.0.1:1", "http://127.0.0.1", "http://127.0.0.1:1/path"] {
        let wrong = other().listen([url]).start().await;
        assert!(matches!(wrong, Err(StartError::Url { .. })), "{url}: {wrong:?}");
        let wrong = other().listen(["http://127.0.0.1:0"]).advertise(["etcd:2379"]).start().await;
        assert!(matches!(wrong, Err(StartError::Url { .. })), "{wrong:?}");
    }
    let nowhere = other().listen(["http://0.0.0.0:0"]).start().await;
    assert!(matches!(nowhere, Err(StartError::Advertise { .. })), "{nowhere:?}");
}
