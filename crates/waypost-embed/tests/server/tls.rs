//! TLS: who is let in, what those are told who are not, and which user a certificate is.

use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use waypost_embed::server::{Server, ServerTls, StartError, TlsError};
use waypost_etcd::{Client, ClientOptions, Put, TlsOptions};
use waypost_testkit::{CertificateFiles, Tls};

use crate::support::{Ctl, EVERY_CTL, Fixture, command, run};

fn of(files: &CertificateFiles) -> ServerTls {
    ServerTls::files(&files.certificate, &files.key)
}

async fn start(tls: ServerTls) -> Fixture {
    Fixture::start_with(|builder| builder.listen(["https://127.0.0.1:0"]).tls(tls)).await
}

/// `etcdctl` with an authority, and a certificate perhaps.
async fn ctl(
    ctl: Ctl,
    fixture: &Fixture,
    authority: &Path,
    shown: Option<&CertificateFiles>,
    line: &str,
) -> Result<String, String> {
    let mut command = command(ctl, fixture.url(), line);
    command.arg("--cacert").arg(authority).arg("--command-timeout=3s").arg("--dial-timeout=3s");
    if let Some(files) = shown {
        command.arg("--cert").arg(&files.certificate).arg("--key").arg(&files.key);
    }
    run(command).await
}

fn client(fixture: &Fixture, tls: TlsOptions) -> Client {
    let patience = std::time::Duration::from_secs(3);
    Client::new(ClientOptions::new([fixture.url()]).tls(tls).request_timeout(patience)).unwrap()
}

fn identity(tls: &Tls, shown: Option<&CertificateFiles>) -> TlsOptions {
    let options = TlsOptions::new().ca_pem(tls.ca_pem());
    match shown {
        Some(files) => options.identity_pem(files.certificate_pem(), files.key_pem()),
        None => options,
    }
}

/// What our own client is told when it puts a key.
async fn put(fixture: &Fixture, tls: TlsOptions) -> Result<(), String> {
    client(fixture, tls).put(Put::new("key", "value")).await.map(|_| ()).map_err(|error| {
        let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        std::iter::once(error.to_string())
            .chain(causes.map(ToString::to_string))
            .collect::<Vec<_>>()
            .join(": ")
    })
}

#[tokio::test]
async fn over_tls_everybody_who_knows_the_authority_is_served() {
    let (tls, stranger) = (Tls::new(), Tls::new());
    let fixture = start(of(tls.server())).await;
    for version in EVERY_CTL {
        assert_eq!(ctl(version, &fixture, tls.ca(), None, "put key value").await.unwrap(), "OK\n");
        ctl(version, &fixture, tls.ca(), None, "endpoint status").await.unwrap();
        let refused = ctl(version, &fixture, stranger.ca(), None, "get key").await.unwrap_err();
        // etcdctl 3.4 knows of a deadline only.
        let told = refused.contains("certificate signed by unknown authority");
        assert!(told || matches!(version, Ctl::V3_4), "{refused}");
    }
    put(&fixture, identity(&tls, None)).await.unwrap();
    let refused = put(&fixture, identity(&stranger, None)).await.unwrap_err();
    assert!(refused.contains("UnknownIssuer"), "{refused}");
}

#[tokio::test]
async fn with_client_certificates_only_those_are_served_who_have_one_of_the_authority() {
    let (tls, stranger) = (Tls::new(), Tls::new());
    let (expired, revoked) = (tls.issue_expired("expired", &[]), tls.issue("revoked", &[]));
    let list = tls.revoke(&[&revoked]);
    let fixture = start(of(tls.server()).trusted_ca(tls.ca()).client_crl(list).client_cert_auth(true)).await;
    let refused = [
        (None, "certificate required", "CertificateRequired"),
        (Some(stranger.client()), "unknown certificate authority", "UnknownCA"),
        (Some(&expired), "expired certificate", "CertificateExpired"),
        (Some(&revoked), "revoked certificate", "CertificateRevoked"),
    ];
    for version in EVERY_CTL {
        ctl(version, &fixture, tls.ca(), Some(tls.client()), "put key value").await.unwrap();
    }
    put(&fixture, identity(&tls, Some(tls.client()))).await.unwrap();
    for (shown, by_go, by_rust) in refused {
        let told = ctl(Ctl::V3_5, &fixture, tls.ca(), shown, "get key").await.unwrap_err();
        assert!(told.contains(by_go) || told.contains("bad certificate"), "{by_go}: {told}");
        let told = put(&fixture, identity(&tls, shown)).await.unwrap_err();
        assert!(told.contains(by_rust), "{by_rust}: {told}");
    }
}

#[tokio::test]
async fn a_list_of_revoked_certificates_may_be_der_and_may_change() {
    let tls = Tls::new();
    let (first, second) = (tls.issue("first", &[]), tls.issue("second", &[]));
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.crl");
    let install = |revoked: &[&CertificateFiles]| {
        let pem = tls.revoke(revoked);
        let der = rustls::pki_types::CertificateRevocationListDer::from_pem_file(pem).unwrap();
        // Put in place as a whole: half a list would be passed over.
        let whole = folder.path().join("new.crl");
        std::fs::write(&whole, &der).unwrap();
        std::fs::rename(&whole, &list).unwrap();
    };
    install(&[&first]);
    let fixture = start(of(tls.server()).trusted_ca(tls.ca()).client_crl(&list)).await;
    let refused = put(&fixture, identity(&tls, Some(&first))).await.unwrap_err();
    assert!(refused.contains("CertificateRevoked"), "{refused}");
    put(&fixture, identity(&tls, Some(&second))).await.unwrap();
    install(&[&second]);
    put(&fixture, identity(&tls, Some(&first))).await.unwrap();
    let refused = put(&fixture, identity(&tls, Some(&second))).await.unwrap_err();
    assert!(refused.contains("CertificateRevoked"), "{refused}");
}

#[tokio::test]
async fn a_unix_socket_with_tls_and_certificates_of_clients() {
    let (tls, stranger) = (Tls::new(), Tls::new());
    let sockets = tempfile::tempdir().unwrap();
    let url = format!("unixs://{}", sockets.path().join("etcd.sock").display());
    let options = of(tls.server()).trusted_ca(tls.ca());
    let fixture = Fixture::start_with(|builder| builder.listen([&url]).tls(options)).await;
    assert_eq!(fixture.server.listen_urls(), std::slice::from_ref(&url));
    put(&fixture, identity(&tls, Some(tls.client()))).await.unwrap();
    // Go's client looks for the path of the socket in the server's certificate; 3.4 has no absolute paths for this.
    let line = "get key --print-value-only --insecure-skip-tls-verify";
    let read = ctl(Ctl::V3_5, &fixture, tls.ca(), Some(tls.client()), line).await;
    assert_eq!(read.unwrap(), "value\n");
    ctl(Ctl::V3_5, &fixture, tls.ca(), None, line).await.unwrap_err();
    let refused = put(&fixture, identity(&tls, None)).await.unwrap_err();
    assert!(refused.contains("CertificateRequired"), "{refused}");
    let refused = put(&fixture, identity(&stranger, Some(tls.client()))).await.unwrap_err();
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    // Without TLS nobody is served there.
    let plain =
        ClientOptions::new([url.replace("unixs", "unix")]).request_timeout(std::time::Duration::from_secs(1));
    Client::new(plain).unwrap().put(Put::new("key", "value")).await.unwrap_err();
}

#[tokio::test]
async fn a_server_with_an_expired_certificate_is_not_trusted() {
    let tls = Tls::new();
    let fixture = start(of(&tls.issue_expired("old", &["127.0.0.1"]))).await;
    let told = ctl(Ctl::V3_5, &fixture, tls.ca(), None, "get key").await.unwrap_err();
    assert!(told.contains("certificate has expired"), "{told}");
    let told = put(&fixture, identity(&tls, None)).await.unwrap_err();
    assert!(told.contains("expired"), "{told}");
}

#[tokio::test]
async fn the_common_name_of_a_certificate_is_the_user() {
    let tls = Tls::new();
    let (root, reader) = (tls.issue("root", &[]), tls.issue("reader", &[]));
    let fixture = start(of(tls.server()).trusted_ca(tls.ca()).client_cert_auth(true)).await;
    for line in [
        "role add read",
        "role grant-permission read read a",
        "user add reader --no-password",
        "user grant-role reader read",
        "user add root:secret",
        "user grant-role root root",
        "auth enable",
    ] {
        ctl(Ctl::V3_5, &fixture, tls.ca(), Some(&root), line).await.unwrap();
    }
    for version in EVERY_CTL {
        ctl(version, &fixture, tls.ca(), Some(&root), "put a one").await.unwrap();
        let read = ctl(version, &fixture, tls.ca(), Some(&reader), "get a --print-value-only").await;
        assert_eq!(read.unwrap(), "one\n");
        for line in ["put a two", "get b"] {
            let refused = ctl(version, &fixture, tls.ca(), Some(&reader), line).await.unwrap_err();
            assert!(refused.contains("permission denied"), "{line}: {refused}");
        }
        let nobody = ctl(version, &fixture, tls.ca(), Some(tls.client()), "get a").await.unwrap_err();
        assert!(nobody.contains("permission denied"), "{nobody}");
        // A token goes first.
        ctl(version, &fixture, tls.ca(), Some(&reader), "put a two --user root:secret").await.unwrap();
    }
    // Nobody is who he says he is.
    let mut forged = tonic::Request::new(waypost_proto::etcdserverpb::RangeRequest {
        key: "a".into(),
        ..waypost_proto::etcdserverpb::RangeRequest::default()
    });
    forged.metadata_mut().insert("waypost-common-name", "root".parse().unwrap());
    let endpoint = tonic::transport::Channel::from_shared(fixture.url().to_owned()).unwrap();
    let config = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(tls.ca_pem()))
        .identity(tonic::transport::Identity::from_pem(
            tls.client().certificate_pem(),
            tls.client().key_pem(),
        ));
    let channel = endpoint.tls_config(config).unwrap().connect().await.unwrap();
    let mut kv = waypost_proto::etcdserverpb::kv_client::KvClient::new(channel);
    assert_eq!(kv.range(forged).await.unwrap_err().code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn certificates_that_change_are_read_again() {
    let (tls, next) = (Tls::new(), Tls::new());
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let install = |files: &CertificateFiles| {
        std::fs::copy(&files.certificate, &certificate).unwrap();
        std::fs::copy(&files.key, &key).unwrap();
    };
    install(tls.server());
    let fixture = start(ServerTls::files(&certificate, &key)).await;
    put(&fixture, identity(&tls, None)).await.unwrap();
    // Half a change is passed over.
    std::fs::write(&certificate, "-----BEGIN CERTIFICATE-----").unwrap();
    put(&fixture, identity(&tls, None)).await.unwrap();
    install(next.server());
    put(&fixture, identity(&next, None)).await.unwrap();
    put(&fixture, identity(&tls, None)).await.unwrap_err();
}

#[tokio::test]
async fn a_certificate_of_its_own() {
    let fixture = start(ServerTls::self_signed()).await;
    let certificate = fixture.folder.path().join("data/fixtures/client/cert.pem");
    let pem = std::fs::read(&certificate).unwrap();
    for version in EVERY_CTL {
        ctl(version, &fixture, &certificate, None, "put key value").await.unwrap();
    }
    put(&fixture, TlsOptions::new().ca_pem(pem)).await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_certificates_is_said_at_the_start() {
    let tls = Tls::new();
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let (absent, server) = (folder.path().join("absent.pem"), tls.server());
    for (options, named) in [
        (ServerTls::files(&absent, &server.key), "absent.pem"),
        (ServerTls::files(&server.certificate, &empty), "empty.pem"),
        (ServerTls::files(&server.certificate, &tls.client().key), "server.pem"),
        (of(server).trusted_ca(&empty), "empty.pem"),
        (of(server).client_cert_auth(true), "--trusted-ca-file"),
    ] {
        let builder = Server::builder().data_dir(folder.path().join("data")).listen(["https://127.0.0.1:0"]);
        let refused = builder.tls(options).start().await.unwrap_err();
        let StartError::Tls(
            refused @ (TlsError::File { .. }
            | TlsError::Missing { .. }
            | TlsError::Invalid { .. }
            | TlsError::NoAuthority(_)),
        ) = refused
        else {
            panic!("{refused:?}")
        };
        assert!(refused.to_string().contains(named), "{named}: {refused}");
    }
}
