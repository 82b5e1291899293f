//! Arbitrary requests on a watch stream, between writes.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use waypost_proto::etcdserverpb::watch_request::RequestUnion;
use waypost_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};

use super::bytes::Choices;
use super::requests::with_server;
use crate::server::inside::Inside;

const KEYS: [&[u8]; 4] = [b"a", b"b", b"", b"\0"];
const ENDS: [&[u8]; 5] = [b"", b"\0", b"b", b"a", b"\xff"];
const NUMBERS: [i64; 11] = [0, 1, 2, 3, 4, 5, -1, -2, i64::MAX, i64::MIN, 1 << 32];
/// Requests and writes of one input.
const STEPS: usize = 40;
/// When nothing more is expected.
const QUIET: Duration = Duration::from_millis(5);

/// Requests on a watch stream, good, bad and no messages at all, between writes: no watch is told of a revision twice or in
/// the wrong order, nor before it is created or after it was cancelled.
pub fn watches(data: &[u8]) {
    with_server(async |server| {
        let mut choices = Choices::new(data);
        let (sender, mut reply) = server.stream("/etcdserverpb.Watch/Watch").await;
        let mut told = Told::default();
        for _ in 0..STEPS {
            if choices.is_empty() {
                break;
            }
            match choices.byte() % 8 {
                0 | 1 => write(server, &mut choices).await,
                2 => sender.send(choices.slice()).await,
                _ => sender.send(&request(&mut choices).encode_to_vec()).await,
            }
            while let Ok(Ok(Some(message))) = tokio::time::timeout(QUIET, reply.message()).await {
                told.take(&WatchResponse::decode(message).expect("an answer is a message"));
            }
        }
    });
}

/// The newest revision that each watch was told of.
#[derive(Default)]
struct Told(BTreeMap<i64, i64>);

// === impl Told ===

impl Told {
    fn take(&mut self, response: &WatchResponse) {
        let id = response.watch_id;
        if response.created && !response.canceled {
            assert_eq!(self.0.insert(id, 0), None, "there are two of {id}");
        } else if response.canceled && !response.created && response.compact_revision != 0 {
            // It tells nothing more, and its id is taken until it is cancelled.
            let last = self.0.get_mut(&id).expect("only a watch that is there is cancelled");
            *last = i64::MAX;
        } else if response.canceled && !response.created {
            assert!(self.0.remove(&id).is_some(), "{id} was not there");
        }
        if response.events.is_empty() {
            return;
        }
        let last = self.0.get_mut(&id).expect("only a watch that is there is told");
        for event in &response.events {
            let revision = event.kv.as_ref().expect("an event has a key").mod_revision;
            assert!(revision >= *last, "{revision} after {last}");
            *last = revision;
        }
        if !response.fragment {
            // The next is of another revision.
            *last += 1;
        }
    }
}

async fn write(server: &Inside, choices: &mut Choices<'_>) {
    let key = choices.pick(&KEYS).to_vec().into();
    // What is refused changes nothing.
    match choices.byte() % 4 {
        0 => {
            let request = DeleteRangeRequest { key, range_end: "\0".into(), prev_kv: false };
            let _ = server.unary::<DeleteRangeResponse>("/etcdserverpb.KV/DeleteRange", &request).await;
        }
        1 => {
            let request = CompactionRequest { revision: choices.pick(&NUMBERS), physical: true };
            let _ = server.unary::<CompactionResponse>("/etcdserverpb.KV/Compact", &request).await;
        }
        _ => {
            let request = PutRequest { key, value: "v".into(), ..PutRequest::default() };
            let _ = server.unary::<PutResponse>("/etcdserverpb.KV/Put", &request).await;
        }
    }
}

fn request(choices: &mut Choices<'_>) -> WatchRequest {
    let request_union = match choices.byte() % 8 {
        0 => None,
        1 => Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
        2 | 3 => Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: choices.pick(&NUMBERS) })),
        _ => {
            let flags = choices.byte();
            Some(RequestUnion::CreateRequest(WatchCreateRequest {
                key: choices.pick(&KEYS).to_vec().into(),
                range_end: choices.pick(&ENDS).to_vec().into(),
                start_revision: choices.pick(&NUMBERS),
                progress_notify: flags & 1 != 0,
                filters: (0..flags >> 6).map(|_| i32::from(choices.byte() % 4)).collect(),
                prev_kv: flags & 2 != 0,
                watch_id: if flags & 4 == 0 { 0 } else { choices.pick(&NUMBERS) },
                fragment: flags & 8 != 0,
            }))
        }
    };
    WatchRequest { request_union }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_requests_on_a_watch_stream(data in prop::collection::vec(any::<u8>(), 0..300)) {
            super::watches(&data);
        }
    }
}
