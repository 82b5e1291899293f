//! What a browser asks of the gateway: other origins and `WebSocket`s, beside etcd 3.5.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use waypost_testkit::{Etcd, EtcdVersion};

use crate::gateway::post;
use crate::support::{Fixture, PATIENCE};

type Socket = WebSocketStream<TcpStream>;

/// The head of an answer: its status, and what it says of other origins, by name.
async fn head(authority: &str, request: &str, headers: &str) -> (String, Vec<String>) {
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let request = format!(
        "{request} HTTP/1.1\r\nHost: {authority}\r\n{headers}Connection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .expect("an end in time")
        .unwrap();
    let mut lines = answer.lines();
    let status = lines.next().unwrap().to_owned();
    let about = |line: &&str| line.to_ascii_lowercase().starts_with("access-control-");
    let mut said: Vec<String> = lines
        .take_while(|line| !line.is_empty())
        .filter(about)
        .map(|line| {
            line.split_once(':').map(|(name, value)| format!("{}:{value}", name.to_lowercase())).unwrap()
        })
        .collect();
    said.sort();
    (status, said)
}

#[tokio::test]
async fn pages_of_other_origins_are_told_what_etcd_tells_them() {
    let own = "http://a.example:8080";
    let limited = Etcd::builder(EtcdVersion::V3_5).arg(format!("--cors={own},http://b.example:8080"));
    let origins = || format!("{own},http://b.example:8080").parse().unwrap();
    let (ours, theirs, ours_limited, theirs_limited) = tokio::join!(
        Fixture::start(),
        Etcd::start(EtcdVersion::V3_5),
        Fixture::start_with(|builder| builder.cors(origins())),
        limited.start(),
    );
    for (ours, theirs) in [(&ours, &theirs), (&ours_limited, &theirs_limited)] {
        let ours = ours.url().trim_start_matches("http://");
        for request in [
            "OPTIONS /v3/kv/range",
            "OPTIONS /nothing",
            "POST /v3/kv/range",
            "GET /version",
            "GET /health",
            "GET /metrics",
        ] {
            for origin in
                ["", "Origin: http://a.example:8080\r\n", "Origin: http://a.example\r\n", "Origin: null\r\n"]
            {
                let said = head(ours, request, origin).await;
                assert_eq!(said, head(&theirs.authority(), request, origin).await, "{request} {origin}");
            }
        }
    }
    let ours = ours_limited.url().trim_start_matches("http://");
    let (_, said) = head(ours, "GET /version", &format!("Origin: {own}\r\n")).await;
    assert!(said.contains(&format!("access-control-allow-origin: {own}")), "{said:?}");
}

/// Opens a WebSocket. `Err`: the status of the refusal.
async fn open(authority: &str, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    let mut request = format!("ws://{authority}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(authority).await.unwrap();
    match client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn say(socket: &mut Socket, document: &Value) {
    socket.send(Message::text(document.to_string())).await.unwrap();
}

/// The next message without what is nobody else's. `None`: there is none.
async fn hear(socket: &mut Socket) -> Option<Value> {
    let next = tokio::time::timeout(PATIENCE, socket.next()).await.expect("a message in time");
    let Some(Ok(Message::Text(text))) = next else { return None };
    let mut said: Value = serde_json::from_str(&text).unwrap_or_else(|_| json!(text.as_str()));
    if let Some(header) = said["result"]["header"].as_object_mut() {
        header.retain(|name, _| name == "revision");
    }
    Some(said)
}

#[tokio::test]
async fn a_watch_goes_on_over_a_websocket() {
    let (fixture, etcd) = tokio::join!(Fixture::start(), Etcd::start(EtcdVersion::V3_5));
    let mut heard = Vec::new();
    for authority in [fixture.url().trim_start_matches("http://").to_owned(), etcd.authority()] {
        let mut socket = open(&authority, "/v3/watch", &[("origin", "http://a.example")]).await.unwrap();
        let mut all = Vec::new();
        say(&mut socket, &json!({ "create_request": { "key": "YQ==" } })).await;
        all.push(hear(&mut socket).await);
        let mut other = open(&authority, "/v3/lease/keepalive", &[]).await.unwrap();
        say(&mut other, &json!({ "ID": "7" })).await;
        all.push(hear(&mut other).await);
        say(&mut other, &json!({ "ID": "8" })).await;
        all.push(hear(&mut other).await);
        let put = post(&authority, "/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#, "").await;
        assert_eq!(put.0, 200);
        all.push(hear(&mut socket).await);
        // Binary, and on the same stream.
        let create = json!({ "create_request": { "key": "Yg==" } }).to_string();
        socket.send(Message::binary(create)).await.unwrap();
        all.push(hear(&mut socket).await);
        say(&mut socket, &json!({ "cancel_request": { "watch_id": "1" } })).await;
        all.push(hear(&mut socket).await);
        socket.close(None).await.unwrap();
        // The end is agreed on.
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
        assert!(socket.next().await.is_none());
        let mut wrong = open(&authority, "/v3/watch", &[]).await.unwrap();
        say(&mut wrong, &json!([])).await;
        all.push(hear(&mut wrong).await.map(|said| said["code"].clone()));
        assert_eq!(hear(&mut wrong).await, None);
        heard.push(all);
    }
    assert!(heard[0].iter().all(Option::is_some), "{heard:?}");
    assert_eq!(heard[0], heard[1]);
}

#[tokio::test]
async fn a_websocket_shows_its_token_as_a_protocol() {
    let fixture = Fixture::start().await;
    let authority = fixture.url().trim_start_matches("http://").to_owned();
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name":"root","password":"secret"}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/enable", "{}"),
    ] {
        assert_eq!(post(&authority, path, body, "").await.0, 200, "{path}");
    }
    let (_, said) =
        post(&authority, "/v3/auth/authenticate", r#"{"name":"root","password":"secret"}"#, "").await;
    let shown = format!("Bearer, {}", said["token"].as_str().unwrap());
    let create = json!({ "create_request": { "key": "YQ==" } });
    for (headers, canceled) in [
        (vec![("sec-websocket-protocol", shown.as_str())], Value::Null),
        (vec![("sec-websocket-protocol", "Bearer, nonsense.1")], json!(true)),
        (Vec::new(), json!(true)),
    ] {
        let mut socket = open(&authority, "/v3/watch", &headers).await.unwrap();
        say(&mut socket, &create).await;
        let said = hear(&mut socket).await.unwrap();
        assert_eq!(said["result"]["canceled"], canceled, "{said}");
    }
}

#[tokio::test]
async fn what_is_no_websocket_is_refused_and_no_websocket_keeps_the_server() {
    let origins = "http://a.example".parse().unwrap();
    let fixture = Fixture::start_with(|builder| builder.cors(origins)).await;
    let authority = fixture.url().trim_start_matches("http://").to_owned();
    assert_eq!(open(&authority, "/v3/nothing", &[]).await.unwrap_err(), 404);
    assert_eq!(open(&authority, "/v3/watch", &[("origin", "http://b.example")]).await.unwrap_err(), 403);
    assert_eq!(open(&authority, "/v3/watch", &[("sec-websocket-version", "8")]).await.unwrap_err(), 400);
    let mut silent = open(&authority, "/v3/watch", &[("origin", "http://a.example")]).await.unwrap();
    let mut asking = open(&authority, "/v3/watch", &[]).await.unwrap();
    say(&mut asking, &json!({ "create_request": { "key": "YQ==" } })).await;
    assert!(hear(&mut asking).await.is_some());
    let ended = tokio::time::timeout(PATIENCE, fixture.server.shutdown());
    let (ended, silent) = tokio::join!(ended, silent.next());
    ended.expect("the server ends");
    assert!(!matches!(silent, Some(Ok(Message::Text(_)))), "{silent:?}");
}

#[tokio::test]
async fn what_is_no_frame_ends_its_websocket_and_nothing_else() {
    let fixture = Fixture::start().await;
    let authority = fixture.url().trim_start_matches("http://").to_owned();
    let hello = format!(
        "GET /v3/watch HTTP/1.1\r\nHost: {authority}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    for frames in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        // Not masked.
        b"\x81\x02{}",
        // Masked: not UTF-8; the middle of a message that has not begun; of a reserved kind.
        b"\x81\x81\0\0\0\0\xff",
        b"\x00\x81\0\0\0\0x",
        b"\x83\x81\0\0\0\0x",
        // Says that 2^62 bytes follow.
        b"\x81\xff\x40\0\0\0\0\0\0\0\0\0\0\0{",
    ] {
        let mut stream = TcpStream::connect(&authority).await.unwrap();
        stream.write_all(&[hello.as_bytes(), frames].concat()).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        // It may be cut off with what it has not read.
        let _cut = ended.expect("the connection ends");
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{frames:?}: {}", String::from_utf8_lossy(&answer));
        assert_eq!(post(&authority, "/v3/kv/put", r#"{"key":"YQ=="}"#, "").await.0, 200);
    }
}
