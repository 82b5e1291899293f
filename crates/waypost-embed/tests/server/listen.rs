//! Where the server listens: several addresses, Unix sockets, what is advertised.

use std::os::unix::fs::PermissionsExt as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use waypost_embed::server::{Server, StartError};
use waypost_proto::etcdserverpb as pb;
use waypost_proto::etcdserverpb::cluster_client::ClusterClient;

use crate::support::{EVERY_CTL, Fixture};

#[tokio::test]
async fn a_unix_socket_beside_a_port() {
    let sockets = tempfile::tempdir().unwrap();
    let path = sockets.path().join("etcd.sock");
    let url = format!("unix://{}", path.display());
    let listen = ["http://127.0.0.1:0".to_owned(), url.clone()];
    let fixture = Fixture::start_with(|builder| builder.listen(listen)).await;
    assert_eq!(fixture.server.listen_urls()[1], url);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    for ctl in EVERY_CTL {
        fixture.ctl(ctl, "put key port").await;
        assert_eq!(fixture.ctl_at(ctl, &url, "get key --print-value-only").await, "port\n");
        fixture.ctl_at(ctl, &url, "put key socket").await;
        assert_eq!(fixture.ctl(ctl, "get key --print-value-only").await, "socket\n");
    }
    // HTTP/1 shares the socket.
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with(r#"{"health":"true","reason":""}"#), "{answer}");

    // In use, it is refused; and the file goes with the server.
    let other = Server::builder().data_dir(sockets.path().join("data")).listen([&url]);
    let refused = other.clone().start().await;
    assert!(matches!(refused, Err(StartError::Listen { .. })), "{refused:?}");
    fixture.server.shutdown().await;
    assert!(!path.exists());
    // What a killed process leaves is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    other.socket_mode(0o666).start().await.unwrap().shutdown().await;
}

#[tokio::test]
async fn members_tell_what_is_advertised() {
    let advertised = ["http://etcd.example:2379", "https://10.0.0.1:2379"];
    let fixture = Fixture::start_with(|builder| {
        builder.listen(["http://0.0.0.0:0", "http://127.0.0.1:0"]).advertise(advertised)
    })
    .await;
    assert_eq!(fixture.server.urls(), advertised);
    let url = fixture.server.listen_urls()[1].clone();
    let channel = tonic::transport::Channel::from_shared(url).unwrap().connect().await.unwrap();
    let mut cluster = ClusterClient::new(channel);
    let request = pb::MemberListRequest { linearizable: true };
    let members = cluster.member_list(request).await.unwrap().into_inner().members;
    assert_eq!(members[0].client_urls, advertised);
}
