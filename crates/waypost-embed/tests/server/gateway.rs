//! The JSON gateway, beside that of etcd 3.5: the same requests to both.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use waypost_testkit::{Etcd, EtcdVersion};

use crate::support::{Fixture, PATIENCE};

/// Both servers.
struct Pair {
    fixture: Fixture,
    etcd: Etcd,
}

/// An answer that goes on.
type Lines = BufReader<TcpStream>;

/// Values that are nobody else's.
const OWN: [&str; 9] =
    ["cluster_id", "member_id", "raft_term", "leader", "version", "raftIndex", "raftTerm", "hash", "token"];

// === impl Pair ===

impl Pair {
    async fn start() -> Self {
        let (fixture, etcd) = tokio::join!(Fixture::start(), Etcd::start(EtcdVersion::V3_5));
        Self { fixture, etcd }
    }

    fn authorities(&self) -> [String; 2] {
        [self.fixture.url().trim_start_matches("http://").to_owned(), self.etcd.authority()]
    }

    /// Sends the same to both, and compares what they say; gives what etcd said.
    async fn same(&self, path: &str, body: &str) -> Value {
        self.same_as(path, body, [String::new(), String::new()]).await.1
    }

    /// The same with headers of their own; gives what each said.
    async fn same_as(&self, path: &str, body: &str, headers: [String; 2]) -> (Value, Value) {
        let [here, there] = self.authorities();
        let ours = post(&here, path, body, &headers[0]).await;
        let theirs = post(&there, path, body, &headers[1]).await;
        assert_eq!(compared(&ours.1), compared(&theirs.1), "{path} {body}");
        assert_eq!(ours.0, theirs.0, "{path} {body}: {ours:?}, {theirs:?}");
        (ours.1, theirs.1)
    }
}

/// An answer without what may differ.
fn compared(answer: &Value) -> Value {
    let mut answer = answer.clone();
    strip(&mut answer);
    // What is wrong with a document is said in the words of the library that reads it.
    let of_etcd =
        |text: &str| ["etcdserver: ", "auth: ", "election: "].iter().any(|start| text.starts_with(start));
    if answer["error"].as_str().is_some_and(|text| !of_etcd(text)) {
        answer["error"] = Value::Null;
        answer["message"] = Value::Null;
    }
    answer
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| {
                !OWN.contains(&name.as_str()) && !name.starts_with("dbSize") && name != "raftAppliedIndex"
            });
            fields.values_mut().for_each(strip);
        }
        Value::Array(values) => values.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Sends a request; gives the status and what follows the head. HTTP/1.0 knows no chunks.
async fn send(authority: &str, path: &str, body: &str, headers: &str) -> (u16, Lines) {
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {authority}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream);
    let status = line(&mut lines).await.split(' ').nth(1).unwrap().parse().unwrap();
    while !line(&mut lines).await.is_empty() {}
    (status, lines)
}

async fn line(lines: &mut Lines) -> String {
    let mut line = String::new();
    tokio::time::timeout(PATIENCE, lines.read_line(&mut line)).await.expect("a line in time").unwrap();
    line.trim_end().to_owned()
}

async fn document(lines: &mut Lines) -> Value {
    serde_json::from_str(&line(lines).await).unwrap()
}

/// So many events, however they are put together.
async fn events(lines: &mut Lines, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    while events.len() < count {
        let answer = document(lines).await;
        events.extend(answer["result"]["events"].as_array().expect("events").iter().cloned());
    }
    events
}

pub(crate) async fn post(authority: &str, path: &str, body: &str, headers: &str) -> (u16, Value) {
    let (status, mut rest) = send(authority, path, body, headers).await;
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, rest.read_to_string(&mut text)).await.expect("an end in time").unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Sends a request about alarms; gives the status.
pub(crate) async fn raise(fixture: &Fixture, alarm: &str) -> u16 {
    let authority = fixture.url().trim_start_matches("http://");
    post(authority, "/v3/maintenance/alarm", alarm, "").await.0
}

#[tokio::test]
async fn requests_good_and_bad_are_answered_as_by_etcd() {
    let pair = Pair::start().await;
    for (path, body) in [
        ("/v3/kv/put", r#"{"key":"YQ==","value":"YjE="}"#),
        ("/v3/kv/put", r#"{"key":"YQ==","value":"YjI=","prev_kv":true}"#),
        ("/v3/kv/put", r#"{"key":"YQ==","value":"YjI=","ignoreValue":true}"#),
        ("/v3/kv/put", r#"{"key":"YQ==","lease":"77"}"#),
        ("/v3/kv/put", r#"{"key":"AP+//g==","value":""}"#),
        ("/v3/kv/range", r#"{"key":"YQ=="}"#),
        ("/v3beta/kv/range", r#"{"key":"YQ=="}"#),
        ("/v3/kv/range", r#"{"key":"AA==","range_end":"AA=="}"#),
        ("/v3/kv/range", r#"{"key":"AA==","rangeEnd":"AA==","sort_order":"DESCEND","sortTarget":3}"#),
        ("/v3/kv/range", r#"{"key":"AA==","range_end":"AA==","count_only":true}"#),
        ("/v3/kv/range", r#"{"key":"AA==","range_end":"AA==","limit":"1","keys_only":true}"#),
        ("/v3/kv/range", r#"{"key":"YQ==","limit":1,"revision":"2"}"#),
        ("/v3/kv/range", r#"{"key":"YQ==","revision":99}"#),
        ("/v3/kv/range", r#"{"key":"YQ==","limit":null,"nothing":{"x":1}}"#),
        ("/v3/kv/range", r#"{"key":"YQ=="} and more"#),
        ("/v3/kv/range", ""),
        ("/v3/kv/range", "null"),
        ("/v3/kv/range", "{}"),
        ("/v3/kv/range", "[]"),
        ("/v3/kv/range", "garbage"),
        ("/v3/kv/range", r#"{"key":"YQ="#),
        ("/v3/kv/range", r#"{"key":"YQ="}"#),
        ("/v3/kv/range", r#"{"key":7}"#),
        ("/v3/kv/range", r#"{"key":"YQ==","limit":3.5}"#),
        ("/v3/kv/range", r#"{"key":"YQ==","limit":"x"}"#),
        ("/v3/kv/range", r#"{"key":"YQ==","limit":99999999999999999999}"#),
        ("/v3/kv/range", r#"{"key":"YQ==","keys_only":"true"}"#),
        ("/v3/kv/range", r#"{"key":"YQ==","sort_order":"SIDEWAYS"}"#),
        ("/v3/kv/range?key=YQ==", "{}"),
        ("/v3/kv/range/", r#"{"key":"YQ=="}"#),
        ("/v3/kv/nothing", "{}"),
        (
            "/v3/kv/txn",
            r#"{"compare":[{"result":"EQUAL","target":"VALUE","key":"YQ==","value":"YjI="}],"success":[{"requestRange":{"key":"YQ=="}},{"request_put":{"key":"Yw==","value":"Yw=="}}]}"#,
        ),
        (
            "/v3/kv/txn",
            r#"{"compare":[{"target":"VERSION","key":"YQ==","version":"9"}],"failure":[{"request_txn":{"success":[{"request_delete_range":{"key":"Yw==","prev_kv":true}}]}}]}"#,
        ),
        ("/v3/kv/txn", r#"{"success":[{"request_put":{"key":"Yw=="}},{"request_put":{"key":"Yw=="}}]}"#),
        ("/v3/kv/txn", r#"{"success":[{}]}"#),
        ("/v3/kv/txn", "{}"),
        ("/v3/kv/deleterange", r#"{"key":"YQ==","prev_kv":true}"#),
        ("/v3/kv/deleterange", r#"{"key":"YQ=="}"#),
        ("/v3/kv/compaction", r#"{"revision":"2","physical":true}"#),
        ("/v3/kv/compaction", r#"{"revision":"2"}"#),
        ("/v3/kv/range", r#"{"key":"YQ==","revision":1}"#),
        ("/v3/lease/grant", r#"{"TTL":1000,"ID":7}"#),
        ("/v3/lease/grant", r#"{"TTL":1000,"ID":"7"}"#),
        ("/v3/lease/grant", r#"{"TTL":9000000001}"#),
        ("/v3/kv/put", r#"{"key":"bGVhc2Vk","lease":7}"#),
        ("/v3/lease/leases", "{}"),
        ("/v3/kv/lease/leases", ""),
        ("/v3/lease/revoke", r#"{"ID":70}"#),
        ("/v3/lease/timetolive", r#"{"ID":70}"#),
        ("/v3/kv/lease/revoke", r#"{"ID":7}"#),
        ("/v3/maintenance/alarm", r#"{"action":"GET"}"#),
        ("/v3/maintenance/alarm", r#"{"action":"ACTIVATE","memberID":"0","alarm":"CORRUPT"}"#),
        ("/v3/maintenance/alarm", r#"{"action":2,"memberID":"0","alarm":2}"#),
        ("/v3/maintenance/defragment", "{}"),
        ("/v3/maintenance/hash", "{}"),
        ("/v3/cluster/member/remove", r#"{"ID":1}"#),
        ("/v3/cluster/member/add", r#"{"peerURLs":["nonsense"]}"#),
        ("/v3/election/leader", r#"{"name":"ZQ=="}"#),
        ("/v3/election/proclaim", "{}"),
        ("/v3/lock/unlock", r#"{"key":"ZQ=="}"#),
        ("/v3/auth/authenticate", r#"{"name":"root","password":"x"}"#),
        ("/v3/auth/enable", "{}"),
        ("/v3/auth/role/get", r#"{"role":"none"}"#),
    ] {
        pair.same(path, body).await;
    }
    // Ids and sizes are each one's own.
    let [here, _] = pair.authorities();
    let (status, members) = post(&here, "/v3/cluster/member/list", "{}", "").await;
    assert_eq!((status, &members["members"][0]["clientURLs"]), (200, &json!([pair.fixture.url()])));
    let (status, told) = post(&here, "/v3/maintenance/status", "{}", "").await;
    assert!(status == 200 && told["dbSize"].is_string(), "{told}");
    let (status, lock) = post(&here, "/v3/lock/lock", r#"{"name":"bA=="}"#, "").await;
    assert!(status == 200 && lock["key"].is_string(), "{lock}");
}

#[tokio::test]
async fn what_is_not_posted_is_refused() {
    let pair = Pair::start().await;
    for authority in pair.authorities() {
        let mut stream = TcpStream::connect(&authority).await.unwrap();
        let request = format!("GET /v3/kv/range HTTP/1.0\r\nHost: {authority}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(" 405 "), "{answer}");
    }
}

#[tokio::test]
async fn tokens_of_users_go_into_a_header() {
    let pair = Pair::start().await;
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name":"root","password":"secret"}"#),
        ("/v3/auth/user/add", r#"{"name":"root","password":"secret"}"#),
        ("/v3/auth/user/add", r#"{"name":"guest","options":{"no_password":true}}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/role/add", r#"{"name":"reader"}"#),
        (
            "/v3/auth/role/grant",
            r#"{"name":"reader","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}"#,
        ),
        ("/v3/auth/role/get", r#"{"role":"reader"}"#),
        ("/v3/auth/user/grant", r#"{"user":"guest","role":"reader"}"#),
        ("/v3/auth/user/get", r#"{"name":"guest"}"#),
        ("/v3/auth/user/list", "{}"),
        ("/v3/auth/role/list", "{}"),
        ("/v3/auth/enable", "{}"),
        ("/v3/kv/range", r#"{"key":"YQ=="}"#),
        ("/v3/auth/authenticate", r#"{"name":"root","password":"wrong"}"#),
    ] {
        pair.same(path, body).await;
    }
    let none = || [String::new(), String::new()];
    let answers =
        pair.same_as("/v3/auth/authenticate", r#"{"name":"root","password":"secret"}"#, none()).await;
    let bearer = |answer: &Value| format!("Authorization: {}\r\n", answer["token"].as_str().unwrap());
    let tokens = [bearer(&answers.0), bearer(&answers.1)];
    pair.same_as("/v3/kv/put", r#"{"key":"YQ=="}"#, tokens.clone()).await;
    pair.same_as(
        "/v3/auth/disable",
        "{}",
        ["Authorization: x\r\n".to_owned(), "Authorization: x\r\n".to_owned()],
    )
    .await;
    // Nobody becomes a user by saying so.
    let forged = "Grpc-Metadata-Waypost-Common-Name: root\r\n".to_owned();
    pair.same_as("/v3/kv/range", r#"{"key":"YQ=="}"#, [forged.clone(), forged]).await;
    pair.same_as("/v3/auth/disable", "{}", tokens).await;
}

#[tokio::test]
async fn streams_are_lines() {
    let pair = Pair::start().await;
    let create =
        r#"{"create_request":{"key":"YQ==","range_end":"Yg==","start_revision":"1","prev_kv":true}}"#;
    let mut streams = Vec::new();
    for authority in pair.authorities() {
        let (status, lines) = send(&authority, "/v3/watch", create, "").await;
        assert_eq!(status, 200);
        streams.push(lines);
    }
    for (path, body) in [
        ("/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#),
        ("/v3/kv/put", r#"{"key":"YTI=","value":"Mg=="}"#),
        ("/v3/kv/deleterange", r#"{"key":"YQ=="}"#),
    ] {
        pair.same(path, body).await;
    }
    let [here, there] = &mut streams[..] else { panic!("two streams") };
    assert_eq!(compared(&document(here).await), compared(&document(there).await));
    assert_eq!(events(here, 3).await, events(there, 3).await);
    drop(streams);

    pair.same("/v3/lease/grant", r#"{"TTL":1000,"ID":7}"#).await;
    for body in [r#"{"ID":7}"#, "", r#"{"ID":"x"}"#, "nonsense"] {
        pair.same("/v3/lease/keepalive", body).await;
    }
    let renewals = r#"{"ID":"7"} {"ID":8}"#;
    for authority in pair.authorities() {
        let (_, mut lines) = send(&authority, "/v3/lease/keepalive", renewals, "").await;
        for ttl in [json!("1000"), Value::Null] {
            let answer: Value = document(&mut lines).await;
            assert_eq!(answer["result"]["TTL"], ttl, "{authority}: {answer}");
        }
    }
    for authority in pair.authorities() {
        let (status, mut lines) = send(&authority, "/v3/maintenance/snapshot", "{}", "").await;
        let answer: Value = document(&mut lines).await;
        assert!(status == 200 && answer["result"]["blob"].is_string(), "{answer}");
    }
    // Observers of an election that has a leader.
    for authority in pair.authorities() {
        let campaign = r#"{"name":"ZQ==","lease":"7","value":"bWU="}"#;
        assert_eq!(post(&authority, "/v3/election/campaign", campaign, "").await.0, 200);
        let (_, mut lines) = send(&authority, "/v3/election/observe", r#"{"name":"ZQ=="}"#, "").await;
        let answer: Value = document(&mut lines).await;
        assert_eq!(answer["result"]["kv"]["value"], json!("bWU="), "{answer}");
    }
}
