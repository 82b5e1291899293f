//! The bare protocol: tonic's own channel and etcd's calls, nothing else.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use waypost_proto::etcdserverpb as pb;
use waypost_proto::etcdserverpb::watch_request::RequestUnion;

/// The most that an answer may be; tonic's 4 MiB is less than a page of 10,000 instances.
const LARGEST: usize = 64 << 20;

/// A connection to etcd.
pub(crate) struct Bare {
    channel: Channel,
}

/// A watch of a prefix.
pub(crate) struct BareWatch {
    answers: Streaming<pb::WatchResponse>,
    _requests: mpsc::UnboundedSender<pb::WatchRequest>,
}

/// The value that the default layout writes for this address.
pub(crate) fn value(address: &str) -> String {
    format!("{{\"Op\":0,\"Addr\":\"{address}\",\"Metadata\":null}}")
}

/// An address that is different for each number.
pub(crate) fn address(index: usize) -> String {
    format!("10.{}.{}.{}:50051", index / 65536 % 256, index / 256 % 256, index % 256)
}

/// Put this many instances under a prefix, in transactions of 128.
pub(crate) async fn fill(url: &str, prefix: &str, instances: usize) {
    let bare = Bare::connect(url).await;
    let indexes: Vec<usize> = (0..instances).collect();
    for chunk in indexes.chunks(128) {
        let success = chunk
            .iter()
            .map(|index| {
                let address = address(*index);
                let put = pb::PutRequest {
                    key: format!("{prefix}{address}").into(),
                    value: value(&address).into(),
                    ..Default::default()
                };
                pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
            })
            .collect();
        let txn = pb::TxnRequest { success, ..Default::default() };
        bare.kv().txn(txn).await.expect("fill");
    }
}

// === impl Bare ===

impl Bare {
    pub(crate) async fn connect(url: &str) -> Self {
        let endpoint = Channel::from_shared(url.to_owned()).expect("url").tcp_nodelay(true);
        Self { channel: endpoint.connect().await.expect("etcd") }
    }

    pub(crate) fn kv(&self) -> pb::kv_client::KvClient<Channel> {
        pb::kv_client::KvClient::new(self.channel.clone()).max_decoding_message_size(LARGEST)
    }

    pub(crate) fn lease(&self) -> pb::lease_client::LeaseClient<Channel> {
        pb::lease_client::LeaseClient::new(self.channel.clone())
    }

    pub(crate) async fn put(&self, key: &str, value: &str, lease: i64) {
        let put = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            lease,
            ..Default::default()
        };
        self.kv().put(put).await.expect("put");
    }

    pub(crate) async fn grant(&self, ttl: i64) -> i64 {
        self.lease().lease_grant(pb::LeaseGrantRequest { ttl, id: 0 }).await.expect("grant").into_inner().id
    }

    pub(crate) async fn watch(&self, prefix: &str) -> BareWatch {
        let (requests, outbox) = mpsc::unbounded_channel();
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix") += 1;
        let create = pb::WatchCreateRequest {
            key: prefix.to_owned().into(),
            range_end: end.into(),
            ..Default::default()
        };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.send(request).expect("open");
        let mut client = pb::watch_client::WatchClient::new(self.channel.clone());
        let answers = client.watch(UnboundedReceiverStream::new(outbox)).await.expect("watch").into_inner();
        let mut watch = BareWatch { answers, _requests: requests };
        watch.answers.message().await.expect("created").expect("created");
        watch
    }

    /// Read a prefix in pages at one revision; answers how many keys there are and how long it took.
    pub(crate) async fn pages(&self, prefix: &str, size: i64) -> (usize, Duration) {
        let started = Instant::now();
        let mut client = self.kv();
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix") += 1;
        let (mut key, mut revision, mut count) = (prefix.as_bytes().to_vec(), 0, 0);
        loop {
            let request = pb::RangeRequest {
                key: key.clone().into(),
                range_end: end.clone().into(),
                limit: size,
                revision,
                ..Default::default()
            };
            let answer = client.range(request).await.expect("range").into_inner();
            revision = answer.header.expect("header").revision.max(revision);
            count += answer.kvs.len();
            match answer.kvs.last() {
                Some(last) if answer.more => {
                    key = last.key.to_vec();
                    key.push(0);
                }
                _ => return (count, started.elapsed()),
            }
        }
    }
}

// === impl BareWatch ===

impl BareWatch {
    /// The next events; answers how many.
    pub(crate) async fn next(&mut self) -> usize {
        self.answers.message().await.expect("watch").expect("open").events.len()
    }
}
