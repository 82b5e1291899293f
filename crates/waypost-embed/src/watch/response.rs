//! What a watch stream is answered.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{encoded_len_varint, key_len};
use waypost_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use waypost_proto::mvccpb::Event;

/// One answer on a watch stream. Cheap to clone: events are shared by all the watches that get the same.
#[derive(Debug, Clone)]
pub struct Response {
    /// The watch; [`NO_WATCH`] where the answer is about the stream as a whole, or about a watch that was refused.
    pub watch_id: i64,
    /// The revision of the header.
    pub revision: i64,
    /// What is said.
    pub body: Body,
}

/// The watch id of answers that are about no watch.
pub const NO_WATCH: i64 = -1;

/// What an answer says.
#[derive(Debug, Clone)]
pub enum Body {
    /// The watch exists from now on.
    Created,
    /// The watch was not created.
    Refused(Cow<'static, str>),
    /// The watch ended on demand.
    Canceled,
    /// The watch ended, since what it had to report next is compacted.
    Compacted {
        /// The revision of the compaction, the first that may be watched from.
        revision: i64,
    },
    /// Everything up to the revision of the header has been reported.
    Progress,
    /// Changes.
    Events {
        /// In order; all of a revision, unless `more`.
        events: Arc<Events>,
        /// The next answer goes on where this one ends.
        more: bool,
    },
}

/// Events as they are sent, encoded at most once however many watches get them. Never empty.
#[derive(Debug)]
pub struct Events {
    list: Vec<Event>,
    encoded_len: usize,
    encoded: OnceLock<Bytes>,
}

/// The header of answers, which is encoded once for those of one revision that follow each other.
#[derive(Debug)]
pub struct Head {
    header: ResponseHeader,
    /// The field, tag and length included.
    encoded: Vec<u8>,
}

/// Flag and length that gRPC puts before each message.
const FRAME_PREFIX: usize = 5;

/// `header` in `WatchResponse`: the lowest number, so it comes first.
const HEADER_FIELD: u32 = 1;

/// `events` in `WatchResponse`: the highest number, so it comes last.
const EVENTS_FIELD: u32 = 11;

/// Upper bound of what a response with events takes besides them, in bytes: header 46, id 11, flags 2.
const OVERHEAD: usize = 64;

// === impl Response ===

impl Response {
    /// The message. The header's revision is set here, the rest of it is taken over.
    pub fn to_proto(&self, header: &ResponseHeader) -> WatchResponse {
        let mut message = self.between();
        message.header = Some(ResponseHeader { revision: self.revision, ..*header });
        if let Body::Events { events, .. } = &self.body {
            message.events.clone_from(&events.list);
        }
        message
    }

    /// The encoded message; what is shared with other watches is copied, not encoded again.
    ///
    /// ```
    /// use prost::Message as _;
    /// use waypost_embed::watch::{Body, Response};
    /// use waypost_proto::etcdserverpb::{ResponseHeader, WatchResponse};
    ///
    /// let response = Response { watch_id: 3, revision: 7, body: Body::Created };
    /// let header = ResponseHeader { cluster_id: 1, member_id: 2, raft_term: 2, ..Default::default() };
    /// let message = WatchResponse::decode(response.encode(&header))?;
    /// assert_eq!((message.watch_id, message.created), (3, true));
    /// assert_eq!(message.header.map(|header| header.revision), Some(7));
    /// # Ok::<(), prost::DecodeError>(())
    /// ```
    pub fn encode(&self, header: &ResponseHeader) -> Bytes {
        let mut buffer = BytesMut::new();
        self.frame(&mut Head::new(*header), &mut buffer);
        buffer.split_off(FRAME_PREFIX).freeze()
    }

    /// Appends the encoded message as gRPC frames it: not compressed, and its length before it.
    pub fn frame(&self, head: &mut Head, buffer: &mut BytesMut) {
        let head = head.at(self.revision);
        let between = self.between();
        let events = match &self.body {
            Body::Events { events, .. } => events.encoded(),
            _ => &Bytes::new(),
        };
        let length = head.len() + between.encoded_len() + events.len();
        buffer.reserve(FRAME_PREFIX + length);
        buffer.put_u8(0);
        // A message of 4 GiB is out of reach: what is queued for a stream is less, and one transaction is, too.
        buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        buffer.put_slice(head);
        between.encode_raw(buffer);
        buffer.put_slice(events);
    }

    /// What the answer takes when it is sent, in bytes, rounded up.
    pub fn size(&self) -> usize {
        OVERHEAD
            + match &self.body {
                Body::Events { events, .. } => events.encoded_len,
                Body::Refused(reason) => reason.len(),
                _ => 0,
            }
    }

    /// The message without header and events.
    fn between(&self) -> WatchResponse {
        let mut message = WatchResponse { watch_id: self.watch_id, ..WatchResponse::default() };
        match &self.body {
            Body::Created => message.created = true,
            Body::Refused(reason) => {
                message.created = true;
                message.canceled = true;
                message.cancel_reason = reason.clone().into_owned();
            }
            Body::Canceled => message.canceled = true,
            Body::Compacted { revision } => {
                message.canceled = true;
                message.compact_revision = *revision;
            }
            Body::Progress => {}
            Body::Events { more, .. } => message.fragment = *more,
        }
        message
    }
}

// === impl Head ===

impl Head {
    /// Of a server that answers so. The revision is that of each answer.
    pub fn new(header: ResponseHeader) -> Self {
        Self { header, encoded: Vec::new() }
    }

    fn at(&mut self, revision: i64) -> &[u8] {
        if self.encoded.is_empty() || self.header.revision != revision {
            self.header.revision = revision;
            self.encoded.clear();
            prost::encoding::message::encode(HEADER_FIELD, &self.header, &mut self.encoded);
        }
        &self.encoded
    }
}

// === impl Events ===

impl Events {
    pub(super) fn new(list: Vec<Event>) -> Self {
        let encoded_len = list.iter().map(encoded_len).sum();
        Self { list, encoded_len, encoded: OnceLock::new() }
    }

    /// Splits what takes `limit` bytes or more, so that every part of more than one event takes less.
    pub(super) fn fragments(list: Vec<Event>, limit: usize) -> Vec<Arc<Self>> {
        let room = limit.saturating_sub(OVERHEAD);
        let mut parts = Vec::with_capacity(1);
        let (mut part, mut size) = (Vec::new(), 0);
        for event in list {
            let more = encoded_len(&event);
            if !part.is_empty() && size + more >= room {
                parts.push(Arc::new(Self::new(std::mem::take(&mut part))));
                size = 0;
            }
            size += more;
            part.push(event);
        }
        if !part.is_empty() {
            parts.push(Arc::new(Self::new(part)));
        }
        parts
    }

    /// Bytes that the events take in a response.
    pub(super) fn encoded_len(&self) -> usize {
        self.encoded_len
    }

    /// The events in order.
    pub fn list(&self) -> &[Event] {
        &self.list
    }

    /// The bytes of the field `events` of the message, tags and lengths included.
    fn encoded(&self) -> &Bytes {
        self.encoded.get_or_init(|| {
            let mut buffer = BytesMut::with_capacity(self.encoded_len);
            for event in &self.list {
                prost::encoding::message::encode(EVENTS_FIELD, event, &mut buffer);
            }
            buffer.freeze()
        })
    }
}

/// Bytes of one event in a response, tag and length included.
pub(super) fn encoded_len(event: &Event) -> usize {
    let len = event.encoded_len();
    key_len(EVENTS_FIELD) + encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use waypost_proto::mvccpb::KeyValue;

    use super::*;

    fn event(key: &'static str, value: usize) -> Event {
        let kv = KeyValue {
            key: key.into(),
            mod_revision: 9,
            value: vec![7; value].into(),
            ..KeyValue::default()
        };
        Event { r#type: 0, kv: Some(kv), prev_kv: None }
    }

    fn header() -> ResponseHeader {
        ResponseHeader { cluster_id: u64::MAX, member_id: u64::MAX, raft_term: u64::MAX, revision: 0 }
    }

    #[test]
    fn what_is_encoded_by_parts_is_what_is_encoded_at_once() {
        let events = Arc::new(Events::new(vec![event("a", 0), event("b", 300), event("c", 1)]));
        for body in [
            Body::Created,
            Body::Refused("because".into()),
            Body::Canceled,
            Body::Compacted { revision: 4 },
            Body::Progress,
            Body::Events { events: Arc::clone(&events), more: true },
            Body::Events { events, more: false },
        ] {
            let response = Response { watch_id: -1, revision: i64::MAX, body };
            let encoded = response.encode(&header());
            assert_eq!(encoded, response.to_proto(&header()).encode_to_vec());
            assert!(encoded.len() <= response.size(), "{response:?}");
        }
    }

    #[test]
    fn a_response_that_is_too_large_is_split_between_events() {
        let list = vec![event("a", 100), event("b", 100), event("c", 1000), event("d", 100)];
        let parts = Events::fragments(list.clone(), 400);
        let sizes: Vec<_> = parts.iter().map(|part| part.list().len()).collect();
        assert_eq!(sizes, [2, 1, 1]);
        let whole: Vec<_> = parts.iter().flat_map(|part| part.list().to_vec()).collect();
        assert_eq!(whole, list);
        assert_eq!(Events::fragments(list, 4000).len(), 1);
        assert_eq!(Events::fragments(vec![event("a", 5000)], 400).len(), 1);
    }
}
