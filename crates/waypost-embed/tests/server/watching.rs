//! Progress and fragments of watches, over gRPC.

use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use waypost_proto::etcdserverpb as pb;
use waypost_proto::etcdserverpb::kv_client::KvClient;
use waypost_proto::etcdserverpb::watch_client::WatchClient;
use waypost_proto::etcdserverpb::watch_request::RequestUnion;
use waypost_testkit::{Etcd, EtcdVersion};

use crate::support::{Fixture, PATIENCE, get_http};

struct Watching {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

fn everything() -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: "\0".into(), range_end: "\0".into(), ..pb::WatchCreateRequest::default() }
}

// === impl Watching ===

impl Watching {
    /// Opens a stream with one watch, which has been created when this returns.
    async fn start(fixture: &Fixture, create: pb::WatchCreateRequest) -> Self {
        Self::at(fixture.channel().await, create).await
    }

    async fn at(channel: Channel, create: pb::WatchCreateRequest) -> Self {
        let (requests, receiver) = mpsc::channel(4);
        let first = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.send(first).await.unwrap();
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let responses = client.watch(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let mut watching = Self { requests, responses };
        assert!(watching.next().await.created);
        watching
    }

    async fn create(&mut self, create: pb::WatchCreateRequest) -> i64 {
        self.send(RequestUnion::CreateRequest(create)).await;
        let created = self.next().await;
        assert!(created.created, "{created:?}");
        created.watch_id
    }

    async fn send(&self, union: RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(union) }).await.unwrap();
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        next.expect("an answer in time").unwrap().expect("the stream goes on")
    }
}

async fn put(fixture: &Fixture, key: &str, bytes: usize) -> i64 {
    put_at(fixture.channel().await, key, bytes).await
}

async fn put_at(channel: Channel, key: &str, bytes: usize) -> i64 {
    let put =
        pb::PutRequest { key: key.to_owned().into(), value: vec![7; bytes].into(), ..Default::default() };
    let answer = KvClient::new(channel).put(put).await.unwrap();
    answer.into_inner().header.unwrap().revision
}

#[tokio::test]
async fn an_idle_watch_that_asked_for_it_is_told_of_progress() {
    let fixture =
        Fixture::start_with(|builder| builder.progress_interval(std::time::Duration::from_millis(100))).await;
    let mut watching = Watching::start(&fixture, everything()).await;
    let id = watching.create(pb::WatchCreateRequest { progress_notify: true, ..everything() }).await;
    for _ in 0..3 {
        let progress = watching.next().await;
        assert_eq!((progress.watch_id, progress.events.len()), (id, 0), "{progress:?}");
        assert!(!progress.created && !progress.canceled);
        assert_eq!(progress.header.unwrap().revision, 1);
    }
    let revision = put(&fixture, "a", 1).await;
    // Both watches are told of the put; what comes then says that there was nothing else.
    let mut told = 0;
    loop {
        let response = watching.next().await;
        if response.events.is_empty() && response.header.unwrap().revision == revision {
            break;
        }
        told += response.events.len();
    }
    assert_eq!(told, 2);
}

#[tokio::test]
async fn progress_on_request_comes_after_the_events_and_for_the_whole_stream() {
    let fixture = Fixture::start().await;
    let mut watching = Watching::start(&fixture, everything()).await;
    watching.create(pb::WatchCreateRequest { key: "other".into(), ..Default::default() }).await;
    let mut revision = 0;
    for _ in 0..20 {
        revision = put(&fixture, "a", 10).await;
    }
    watching.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let mut told = 0;
    let progress = loop {
        let response = watching.next().await;
        if response.events.is_empty() {
            break response;
        }
        told += response.events.len();
    };
    assert_eq!((progress.watch_id, progress.header.unwrap().revision, told), (-1, revision, 20));
}

#[tokio::test]
async fn no_progress_is_told_while_a_watch_begins_in_the_future() {
    let fixture = Fixture::start().await;
    let future = pb::WatchCreateRequest { start_revision: 3, ..everything() };
    let mut watching = Watching::start(&fixture, future).await;
    let ask = || RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
    watching.send(ask()).await;
    // The next answer is that of the next request: there was none to the one before.
    let id = watching.create(pb::WatchCreateRequest { key: "other".into(), ..Default::default() }).await;
    assert_eq!(id, 1);
    put(&fixture, "a", 1).await;
    let revision = put(&fixture, "a", 1).await;
    assert_eq!(watching.next().await.events[0].kv.as_ref().unwrap().mod_revision, revision);
    watching.send(ask()).await;
    let progress = watching.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, revision));
}

async fn a_client_that_has_nothing_more_to_ask_is_told_of_events(url: &str) {
    let channel = Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
    let mut watching = Watching::at(channel.clone(), everything()).await;
    let (nobody, _) = mpsc::channel(1);
    watching.requests = nobody;
    for key in ["a", "b"] {
        let revision = put_at(channel.clone(), key, 1).await;
        let told = watching.next().await;
        assert_eq!(told.events[0].kv.as_ref().unwrap().mod_revision, revision, "{url}");
    }
}

#[tokio::test]
async fn a_stream_of_which_the_client_has_closed_its_half_goes_on_at_etcd() {
    let etcd = Etcd::start(EtcdVersion::V3_5).await;
    a_client_that_has_nothing_more_to_ask_is_told_of_events(&etcd.url()).await;
}

#[tokio::test]
async fn a_stream_of_which_the_client_has_closed_its_half_goes_on_and_ends_with_the_client() {
    let fixture = Fixture::start().await;
    a_client_that_has_nothing_more_to_ask_is_told_of_events(fixture.url()).await;
    // The client is gone, and with it the stream.
    let gone = async {
        while !get_http(fixture.url(), "/metrics")
            .await
            .contains("\netcd_debugging_mvcc_watch_stream_total 0.0\n")
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the stream ends");
}

/// Responses of a watch on the history, until all events are there.
async fn history(fixture: &Fixture, fragment: bool, events: usize) -> Vec<pb::WatchResponse> {
    let create = pb::WatchCreateRequest { start_revision: 2, fragment, ..everything() };
    let mut watching = Watching::start(fixture, create).await;
    let mut responses = Vec::new();
    let mut told = 0;
    while told < events {
        let response = watching.next().await;
        told += response.events.len();
        responses.push(response);
    }
    responses
}

#[tokio::test]
async fn what_is_long_comes_in_fragments_if_that_was_asked_for() {
    const EVENTS: usize = 24;
    /// Of a message without fragments, in bytes: the largest request and what gRPC adds.
    const LIMIT: usize = 1_572_864 + (512 << 10);
    let fixture = Fixture::start().await;
    for number in 0..EVENTS {
        put(&fixture, &format!("{number:02}"), 400_000).await;
    }
    let whole = history(&fixture, false, EVENTS).await;
    assert!(whole.iter().all(|response| !response.fragment));
    assert!(whole.iter().any(|response| response.encoded_len() > LIMIT), "nothing is long enough");
    let pieces = history(&fixture, true, EVENTS).await;
    assert!(pieces.iter().any(|response| response.fragment));
    assert!(!pieces.last().unwrap().fragment, "the last piece is no fragment");
    assert!(pieces.iter().all(|response| response.encoded_len() <= LIMIT));
    let events = |responses: Vec<pb::WatchResponse>| -> Vec<_> {
        responses.into_iter().flat_map(|response| response.events).collect()
    };
    assert!(events(pieces) == events(whole));
}
