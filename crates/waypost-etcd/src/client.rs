//! The client: keys, transactions and compaction. Leases, watches, maintenance and coordination add to it in
//! their own files.

use std::sync::Arc;

use bytes::Bytes;

use crate::call::Cluster;
use crate::error::{Error, Operation};
use crate::key_range::KeyRange;
use crate::options::{ClientOptions, EndpointUrl};
use crate::pages::Pages;
use crate::proto::etcdserverpb as pb;
use crate::request::{Delete, Put, Range, Txn};

/// A client to an etcd cluster. Cloning it is cheap and shares its connections.
///
/// Creating one does no I/O; the first call connects. Calls need a tokio runtime. Dropping the future of a call
/// abandons it: a write may or may not have happened.
///
/// ```no_run
/// use waypost_etcd::{Client, ClientOptions, Put, Range};
/// # async fn example() -> Result<(), waypost_etcd::Error> {
/// let client = Client::new(ClientOptions::new(["http://127.0.0.1:2379"]))?;
/// client.put(Put::new("greeting", "hello")).await?;
/// let answer = client.range(Range::key("greeting")).await?;
/// assert_eq!(&answer.kvs[0].value[..], b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) cluster: Arc<Cluster>,
}

// === impl Client ===

impl Client {
    /// A client with these options. No I/O is done.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when an endpoint or certificate is malformed.
    pub fn new(options: ClientOptions) -> Result<Self, Error> {
        Ok(Self { cluster: Cluster::new(options)? })
    }

    /// The endpoints of the options, each with its scheme.
    pub fn endpoints(&self) -> &[EndpointUrl] {
        self.cluster.pool.urls()
    }

    /// Read keys.
    pub async fn range(&self, range: Range) -> Result<pb::RangeResponse, Error> {
        let operation = Operation::read("range").on(&range.0.key);
        self.cluster
            .call(&operation, |session| {
                let request = session.unary(range.0.clone());
                async move { session.kv().range(request?).await }
            })
            .await
    }

    /// Read the keys of a range in pages of `size` keys, in order, all as of one revision. `size` is at least 1.
    pub fn pages(&self, range: KeyRange, size: i64) -> Pages {
        Pages::new(self.clone(), range, size)
    }

    /// Set a key.
    pub async fn put(&self, put: Put) -> Result<pb::PutResponse, Error> {
        let operation = Operation::write("put").on(&put.request.key).idempotent(put.idempotent);
        self.cluster
            .call(&operation, |session| {
                let request = session.unary(put.request.clone());
                async move { session.kv().put(request?).await }
            })
            .await
    }

    /// Delete keys.
    pub async fn delete(&self, delete: Delete) -> Result<pb::DeleteRangeResponse, Error> {
        let operation = Operation::write("delete").on(&delete.request.key).idempotent(delete.idempotent);
        self.cluster
            .call(&operation, |session| {
                let request = session.unary(delete.request.clone());
                async move { session.kv().delete_range(request?).await }
            })
            .await
    }

    /// Compare and act, as one revision.
    pub async fn txn(&self, txn: Txn) -> Result<pb::TxnResponse, Error> {
        let mut operation = Operation::write("transaction").idempotent(txn.idempotent);
        operation.key = first_key(&txn.request);
        self.cluster
            .call(&operation, |session| {
                let request = session.unary(txn.request.clone());
                async move { session.kv().txn(request?).await }
            })
            .await
    }

    /// Forget what happened before `revision`. With `physical`, answer when the space is free, however long that takes.
    pub async fn compact(&self, revision: i64, physical: bool) -> Result<(), Error> {
        let operation = Operation::write("compact");
        let limit = (!physical).then_some(self.cluster.request_timeout);
        self.cluster
            .call_within(&operation, limit, |session| {
                let request = session.unary(pb::CompactionRequest { revision, physical });
                async move { session.kv().compact(request?).await }
            })
            .await
            .map(|_| ())
    }
}

/// The key that an error about a transaction names: that of its first comparison or operation.
fn first_key(txn: &pb::TxnRequest) -> Option<Bytes> {
    use pb::request_op::Request;
    if let Some(compare) = txn.compare.first() {
        return Some(compare.key.clone());
    }
    match txn.success.first()?.request.as_ref()? {
        Request::RequestRange(range) => Some(range.key.clone()),
        Request::RequestPut(put) => Some(put.key.clone()),
        Request::RequestDeleteRange(delete) => Some(delete.key.clone()),
        Request::RequestTxn(inner) => first_key(inner),
    }
}
