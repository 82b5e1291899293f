//! Arbitrary bytes as bodies of the JSON gateway.

use std::time::Duration;

use http_body_util::BodyExt as _;

use super::bytes::Choices;
use super::requests::with_server;

const PATHS: [&str; 16] = [
    "/v3/kv/range",
    "/v3/kv/put",
    "/v3/kv/deleterange",
    "/v3/kv/txn",
    "/v3/kv/compaction",
    "/v3/watch",
    "/v3/lease/grant",
    "/v3/lease/revoke",
    "/v3/lease/keepalive",
    "/v3/lease/timetolive",
    "/v3/maintenance/alarm",
    "/v3/maintenance/status",
    "/v3/auth/user/add",
    "/v3/auth/role/grant",
    "/v3/cluster/member/add",
    "/v3/election/leader",
];
/// Pieces of JSON with which an input may be put together beside its own bytes.
const PIECES: [&str; 16] = [
    r#"{"key":"YQ==","value":"Yg=="}"#,
    r#"{"key":"YQ==","range_end":"AA==","limit":"-1"}"#,
    r#"{"success":[{"requestPut":{"key":"YQ=="}}],"failure":[{"request_range":{"key":"YQ=="}}]}"#,
    r#"{"create_request":{"key":"YQ==","start_revision":"1"}}"#,
    r#"{"ID":"7","TTL":1e400}"#,
    r#"{"compare":[{"target":"VALUE","result":9,"value":"!"}]}"#,
    "{",
    "}",
    "[[[[[[[[[[[[[[[[",
    r#"{"key":"#,
    "null",
    r#""AA==""#,
    "-9223372036854775809",
    r#""NONE""#,
    ",",
    r#"{"requestTxn":{"success":["#,
];
/// Requests of one input.
const REQUESTS: usize = 16;
/// Some answers go on for ever.
const WAIT: Duration = Duration::from_millis(20);

/// Arbitrary bytes, and pieces of JSON, as bodies of the JSON gateway: each is answered, with JSON, and the server goes on.
pub fn json(data: &[u8]) {
    with_server(async |server| {
        let mut choices = Choices::new(data);
        for _ in 0..REQUESTS {
            if choices.is_empty() {
                break;
            }
            let path = choices.pick(&PATHS);
            let mut body = Vec::new();
            for _ in 0..choices.byte() % 6 {
                if choices.flag() {
                    body.extend_from_slice(choices.pick(&PIECES).as_bytes());
                } else {
                    body.extend_from_slice(choices.slice());
                }
            }
            let answer = async {
                let answer = server.json(path, &body).await.expect("the path is one of the gateway's");
                let bytes = answer.into_body().collect().await.expect("an answer has an end").to_bytes();
                for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let parsed = serde_json::from_slice::<serde_json::Value>(line);
                    assert!(parsed.is_ok(), "{:?}", String::from_utf8_lossy(line));
                }
            };
            // It may go on for ever, and is dropped then.
            let _ = tokio::time::timeout(WAIT, answer).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_bodies_of_json(data in prop::collection::vec(any::<u8>(), 0..300)) {
            super::json(&data);
        }
    }
}
