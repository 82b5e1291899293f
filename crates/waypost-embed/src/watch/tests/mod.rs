//! One test per rule of a watch.

mod progress;
mod rules;
mod slow;
mod store;

use bytes::Bytes;
use waypost_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use waypost_proto::mvccpb::{KeyValue, event::EventType};

use super::model::Log;
use super::*;
use crate::error::Refusal;

struct Bench {
    hub: Hub,
    log: Log,
}

impl Bench {
    fn new() -> Self {
        Self::with(HubOptions::default())
    }

    fn with(options: HubOptions) -> Self {
        Self { hub: Hub::new(options, 1, 0), log: Log::new() }
    }

    /// One revision of puts, `key=value`, and deletes, `-key`.
    fn write(&mut self, changes: &[&'static str]) -> i64 {
        let changes: Vec<_> = changes
            .iter()
            .map(|change| match (change.strip_prefix('-'), change.split_once('=')) {
                (Some(key), _) => (Bytes::from(key), None),
                (None, Some((key, value))) => (Bytes::from(key), Some(Bytes::from(value))),
                (None, None) => (Bytes::from(*change), Some(Bytes::new())),
            })
            .collect();
        assert!(self.log.write(&changes));
        let revision = self.log.revision();
        self.hub.publish(revision, self.log.events(revision), &self.log);
        revision
    }

    /// Everything that a stream is told until nothing is left, as messages.
    fn drain(&mut self, stream: StreamId) -> Vec<WatchResponse> {
        let mut messages = Vec::new();
        loop {
            messages.extend(
                self.hub.take(stream).iter().map(|response| response.to_proto(&ResponseHeader::default())),
            );
            let Some(mut step) = self.hub.plan(stream) else { return messages };
            step.read(&self.log).unwrap();
            self.hub.deliver(step);
        }
    }

    fn create(&mut self, stream: StreamId, request: &WatchCreateRequest) -> WatchResponse {
        self.hub.create(stream, request, Ok(()));
        self.hub.take(stream).remove(0).to_proto(&ResponseHeader::default())
    }
}

fn key(key: &'static str) -> WatchCreateRequest {
    WatchCreateRequest { key: key.into(), ..WatchCreateRequest::default() }
}

fn prefix(start: &'static str, end: &'static str) -> WatchCreateRequest {
    WatchCreateRequest { range_end: end.into(), ..key(start) }
}

fn revision(response: &WatchResponse) -> i64 {
    response.header.unwrap().revision
}

fn keys(response: &WatchResponse) -> Vec<(i64, &str)> {
    let kvs = response.events.iter().map(|event| event.kv.as_ref().unwrap());
    kvs.map(|kv| (kv.mod_revision, std::str::from_utf8(&kv.key).unwrap())).collect()
}
