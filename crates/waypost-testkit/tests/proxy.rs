//! The proxy fails in the ways that networks fail.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "what a test sets up must be there")]

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use waypost_testkit::{Etcd, EtcdVersion, Proxy, for_each_etcd, run};

const LONG: Duration = Duration::from_secs(30);

/// A server that sends back what it gets, and says nothing else.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                // An error is the test's reset.
                drop(tokio::io::copy(&mut from, &mut to).await);
            });
        }
    });
    address
}

async fn round_trip(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    expect(stream, text).await;
}

async fn expect(stream: &mut TcpStream, text: &[u8]) {
    let mut answer = vec![0; text.len()];
    tokio::time::timeout(LONG, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, text);
}

#[test]
fn blackhole_holds_bytes_and_connections_until_restored() {
    run(async {
        let proxy = Proxy::start(&echo().await).await;
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        round_trip(&mut stream, b"before").await;
        proxy.blackhole();
        stream.write_all(b"during").await.unwrap();
        let mut late = TcpStream::connect(proxy.addr()).await.unwrap();
        late.write_all(b"late").await.unwrap();
        proxy.counts().wait_for(|counts| counts.open == 2).await.unwrap();
        // Neither an answer nor an end: the only way to see silence is to listen for a while.
        let heard = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut [0; 8])).await;
        assert!(heard.is_err(), "the connection is not silent: {heard:?}");
        proxy.restore().await;
        expect(&mut stream, b"during").await;
        expect(&mut late, b"late").await;
        assert_eq!((proxy.connections(), proxy.accepted()), (2, 2));
    });
}

#[test]
fn refuse_resets_connections_and_refuses_new_ones() {
    run(async {
        let proxy = Proxy::start(&echo().await).await;
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        round_trip(&mut stream, b"before").await;
        proxy.refuse().await;
        let end = tokio::time::timeout(LONG, stream.read(&mut [0; 8])).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let refused = TcpStream::connect(proxy.addr()).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        proxy.counts().wait_for(|counts| counts.open == 0).await.unwrap();
        proxy.restore().await;
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        round_trip(&mut stream, b"after").await;
    });
}

#[test]
fn sever_resets_what_is_open_and_takes_new_connections() {
    run(async {
        let proxy = Proxy::start(&echo().await).await;
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        round_trip(&mut stream, b"before").await;
        proxy.sever();
        let end = tokio::time::timeout(LONG, stream.read(&mut [0; 8])).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        round_trip(&mut stream, b"after").await;
    });
}

#[test]
fn an_end_of_one_stream_is_passed_on_alone() {
    run(async {
        let proxy = Proxy::start(&echo().await).await;
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        stream.write_all(b"last words").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, b"last words");
    });
}

#[test]
fn dropped_it_takes_its_connections_along() {
    run(async {
        let proxy = Proxy::start(&echo().await).await;
        proxy.set_latency(Duration::from_millis(1));
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        round_trip(&mut stream, b"before").await;
        drop(proxy);
        let end = tokio::time::timeout(LONG, stream.read(&mut [0; 8])).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

for_each_etcd! {
    async fn etcd_behind_a_proxy_is_away_while_it_is_cut(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.url()).await;
        let url = proxy.url();
        let get = ["--dial-timeout=300ms", "--command-timeout=300ms", "get", "a"];
        etcd.try_etcdctl_at(&url, ["put", "a", "1"]).await.unwrap();
        proxy.blackhole();
        assert!(etcd.try_etcdctl_at(&url, get).await.is_err());
        proxy.refuse().await;
        assert!(etcd.try_etcdctl_at(&url, get).await.is_err());
        proxy.restore().await;
        assert!(etcd.try_etcdctl_at(&url, ["get", "a"]).await.unwrap().contains('1'));
    }
}
