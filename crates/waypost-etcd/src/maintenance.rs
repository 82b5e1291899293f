//! What an operator asks of the cluster: the state of a member, who the members are, a snapshot of the store.

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use crate::client::Client;
use crate::error::{Error, Operation};
use crate::proto::etcdserverpb as pb;

/// A part of a snapshot of the store.
#[derive(Clone, Debug)]
pub struct SnapshotPart {
    /// The bytes of this part.
    pub blob: Bytes,
    /// How many bytes are still to come.
    pub remaining_bytes: u64,
}

// === impl Client ===

impl Client {
    /// The state of whichever member answers.
    pub async fn status(&self) -> Result<pb::StatusResponse, Error> {
        self.cluster
            .call(&Operation::read("status"), |session| {
                let request = session.unary(pb::StatusRequest {});
                async move { session.maintenance().status(request?).await }
            })
            .await
    }

    /// The state of the member at one of [`endpoints`](Self::endpoints).
    pub async fn status_of(&self, endpoint: &str) -> Result<pb::StatusResponse, Error> {
        self.cluster
            .call_at(&Operation::read("status"), endpoint, |session| {
                let request = session.unary(pb::StatusRequest {});
                async move { session.maintenance().status(request?).await }
            })
            .await
    }

    /// The members of the cluster.
    pub async fn member_list(&self) -> Result<Vec<pb::Member>, Error> {
        let answer = self
            .cluster
            .call(&Operation::read("member list"), |session| {
                let request = session.unary(pb::MemberListRequest::default());
                async move { session.cluster().member_list(request?).await }
            })
            .await?;
        Ok(answer.members)
    }

    /// The whole store as a stream of parts, which together are a file that `etcdutl snapshot restore` reads.
    /// A stream that breaks is not resumed: the file would not be of one revision.
    pub async fn snapshot(&self) -> Result<BoxStream<'static, Result<SnapshotPart, Error>>, Error> {
        let operation = Operation::read("snapshot");
        let (answer, link) = self
            .cluster
            .call_linked(&operation, Some(self.cluster.request_timeout), |session| {
                let request = session.unary(pb::SnapshotRequest {});
                async move { session.maintenance().snapshot(request?).await }
            })
            .await?;
        let cluster = self.cluster.clone();
        Ok(answer
            .map_ok(|part| SnapshotPart { blob: part.blob, remaining_bytes: part.remaining_bytes })
            .map_err(move |status| cluster.stream_failed(&operation, &link, status))
            .boxed())
    }
}
