//! Locks and elections, as etcd serves them (`server/etcdserver/api/{v3lock,v3election}`).
//!
//! Both hang on a lease: when it ends, the lock is free and the leader has resigned. The calls that wait (lock,
//! campaign) have no timeout of their own: bound them with `tokio::time::timeout`, and etcd forgets the waiter.

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use crate::call::with_leader;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Operation};
use crate::proto::mvccpb::KeyValue;
use crate::proto::v3electionpb as election;
use crate::proto::v3lockpb as lock;

/// Proof of leadership in an election: what [`Client::proclaim`] and [`Client::resign`] ask for.
#[derive(Clone, Debug)]
pub struct Leadership(election::LeaderKey);

// === impl Leadership ===

impl Leadership {
    /// The election's name.
    pub fn election(&self) -> &Bytes {
        &self.0.name
    }

    /// The key that the leader holds.
    pub fn key(&self) -> &Bytes {
        &self.0.key
    }

    /// The revision at which the key was created.
    pub fn revision(&self) -> i64 {
        self.0.rev
    }

    /// The lease on which the leadership hangs.
    pub fn lease(&self) -> i64 {
        self.0.lease
    }
}

// === impl Client ===

impl Client {
    /// Wait for the lock `name` and hold it for as long as `lease` lives. Answers the key that is the proof of
    /// holding it, to be used in comparisons and for [`unlock`](Self::unlock).
    pub async fn lock(&self, name: impl Into<Bytes>, lease: i64) -> Result<Bytes, Error> {
        let request = lock::LockRequest { name: name.into(), lease };
        // Never sent twice: etcd deletes the key of a call that breaks, which is the key that a second one would wait on.
        let operation = Operation::write("lock").on(&request.name);
        let answer = self
            .cluster
            .call_within(&operation, None, |session| {
                let request = session.unary(request.clone()).map(with_leader);
                async move { session.lock().lock(request?).await }
            })
            .await?;
        Ok(answer.key)
    }

    /// Give up the lock whose key [`lock`](Self::lock) answered.
    pub async fn unlock(&self, key: impl Into<Bytes>) -> Result<(), Error> {
        let request = lock::UnlockRequest { key: key.into() };
        let operation = Operation::write("unlock").on(&request.key).idempotent(true);
        self.cluster
            .call(&operation, |session| {
                let request = session.unary(request.clone());
                async move { session.lock().unlock(request?).await }
            })
            .await
            .map(|_| ())
    }

    /// Wait to be the leader of the election `name`, and be it with `value` for as long as `lease` lives.
    pub async fn campaign(
        &self,
        name: impl Into<Bytes>,
        lease: i64,
        value: impl Into<Bytes>,
    ) -> Result<Leadership, Error> {
        let request = election::CampaignRequest { name: name.into(), lease, value: value.into() };
        // See `lock`.
        let operation = Operation::write("campaign").on(&request.name);
        let answer = self
            .cluster
            .call_within(&operation, None, |session| {
                let request = session.unary(request.clone()).map(with_leader);
                async move { session.election().campaign(request?).await }
            })
            .await?;
        let leader = answer
            .leader
            .ok_or_else(|| Error::new(ErrorKind::Other, &operation, "etcd answered without a leader key"))?;
        Ok(Leadership(leader))
    }

    /// Change the leader's value.
    pub async fn proclaim(&self, leadership: &Leadership, value: impl Into<Bytes>) -> Result<(), Error> {
        let request = election::ProclaimRequest { leader: Some(leadership.0.clone()), value: value.into() };
        let operation = Operation::write("proclaim").on(&leadership.0.name).idempotent(true);
        self.cluster
            .call(&operation, |session| {
                let request = session.unary(request.clone());
                async move { session.election().proclaim(request?).await }
            })
            .await
            .map(|_| ())
    }

    /// Who leads now, and with which value; `None` when nobody does.
    pub async fn leader(&self, name: impl Into<Bytes>) -> Result<Option<KeyValue>, Error> {
        let request = election::LeaderRequest { name: name.into() };
        let operation = Operation::read("leader").on(&request.name);
        let answer = self
            .cluster
            .call(&operation, |session| {
                let request = session.unary(request.clone());
                async move { session.election().leader(request?).await }
            })
            .await;
        match answer {
            Ok(answer) => Ok(answer.kv),
            Err(error) if error.message() == "election: no leader" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The leader and each later leader or value. The stream ends with an error when the connection does; ask again.
    pub async fn observe(
        &self,
        name: impl Into<Bytes>,
    ) -> Result<BoxStream<'static, Result<KeyValue, Error>>, Error> {
        let request = election::LeaderRequest { name: name.into() };
        let operation = Operation::read("observe").on(&request.name);
        let (stream, link) = self
            .cluster
            .call_linked(&operation, None, |session| {
                let request = session.unary(request.clone()).map(with_leader);
                async move { session.election().observe(request?).await }
            })
            .await?;
        let cluster = self.cluster.clone();
        Ok(stream
            .map_err(move |status| cluster.stream_failed(&operation, &link, status))
            .try_filter_map(|answer| async move { Ok(answer.kv) })
            .boxed())
    }

    /// Step down.
    pub async fn resign(&self, leadership: Leadership) -> Result<(), Error> {
        let operation = Operation::write("resign").on(&leadership.0.name).idempotent(true);
        let request = election::ResignRequest { leader: Some(leadership.0) };
        self.cluster
            .call(&operation, |session| {
                let request = session.unary(request.clone());
                async move { session.election().resign(request?).await }
            })
            .await
            .map(|_| ())
    }
}
