//! `etcdserverpb.KV`.

use prost::Message as _;
use tonic::{Request, async_trait};
use waypost_proto::etcdserverpb::kv_server::Kv;
use waypost_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};

use super::{Answer, Service, answer};
use crate::auth::Identity;
use crate::error::Refusal;
use crate::kv::{check_delete_range, check_put, check_range, check_txn, has_put, is_read_only};
use crate::server::engine::Engine;

/// Operations of a transaction that does not take long.
const FEW: usize = 16;

#[async_trait]
impl Kv for Service {
    async fn range(&self, request: Request<RangeRequest>) -> Answer<RangeResponse> {
        let (metadata, _, request) = request.into_parts();
        answer(
            async {
                check_range(&request)?;
                let who = self.caller(&metadata)?;
                self.engine.range(&who, request).await
            }
            .await,
        )
    }

    async fn put(&self, request: Request<PutRequest>) -> Answer<PutResponse> {
        let (metadata, _, request) = request.into_parts();
        answer(
            async {
                check_put(&request)?;
                let who = self.caller(&metadata)?;
                self.engine.put(who, request).await
            }
            .await,
        )
    }

    async fn delete_range(&self, request: Request<DeleteRangeRequest>) -> Answer<DeleteRangeResponse> {
        let (metadata, _, request) = request.into_parts();
        answer(
            async {
                check_delete_range(&request)?;
                let who = self.caller(&metadata)?;
                self.engine.delete_range(who, request).await
            }
            .await,
        )
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Answer<TxnResponse> {
        let (metadata, _, request) = request.into_parts();
        answer(
            async {
                check_txn(&request, self.engine.shared.options.max_txn_ops)?;
                let who = self.caller(&metadata)?;
                self.engine.txn(who, request).await
            }
            .await,
        )
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Answer<CompactionResponse> {
        let (metadata, _, request) = request.into_parts();
        let outcome = async {
            let who = self.caller(&metadata)?;
            let mut answer = self
                .engine
                .write(request.encoded_len(), move |desk| {
                    desk.policy().may_administer(&who)?;
                    desk.refuse_if_corrupt()?;
                    let applied = desk.space.compact(&request)?;
                    if request.physical {
                        desk.wait_for_compaction();
                    }
                    Ok(desk.applied(applied))
                })
                .await?;
            self.engine.complete(&mut answer.header);
            Ok(answer)
        };
        answer(outcome.await)
    }
}

// === impl Engine ===

impl Engine {
    /// A put that has been checked.
    pub(super) async fn put(&self, who: Identity, request: PutRequest) -> Result<PutResponse, Refusal> {
        let bytes = request.encoded_len();
        let mut answer = self
            .write(bytes, move |desk| {
                desk.policy().may_put(&who, &request, |lease| desk.space.lessor().keys(lease))?;
                desk.refuse_if_corrupt()?;
                desk.claim_space(bytes)?;
                let applied = desk.space.put(desk.backend, request)?;
                Ok(desk.applied(applied))
            })
            .await?;
        self.complete(&mut answer.header);
        Ok(answer)
    }

    /// A deletion that has been checked.
    pub(super) async fn delete_range(
        &self,
        who: Identity,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Refusal> {
        // One key, or any number.
        let engine = if request.range_end.is_empty() { self.clone() } else { self.at_length() };
        let mut answer = engine
            .write(request.encoded_len(), move |desk| {
                desk.policy().may_delete(&who, &request)?;
                desk.refuse_if_corrupt()?;
                let applied = desk.space.delete_range(desk.backend, &request)?;
                Ok(desk.applied(applied))
            })
            .await?;
        self.complete(&mut answer.header);
        Ok(answer)
    }

    /// A transaction that has been checked.
    pub(super) async fn txn(&self, who: Identity, request: TxnRequest) -> Result<TxnResponse, Refusal> {
        if is_read_only(&request) {
            // Nothing is put, so that no lease matters.
            self.policy().may_txn(&who, &request, |_| Vec::<Vec<u8>>::new())?;
            return self.read_txn(request).await;
        }
        let bytes = request.encoded_len();
        let puts = has_put(&request);
        let engine = if request.success.len().max(request.failure.len()) <= FEW {
            self.clone()
        } else {
            self.at_length()
        };
        let mut answer = engine
            .write(bytes, move |desk| {
                desk.policy().may_txn(&who, &request, |lease| desk.space.lessor().keys(lease))?;
                desk.refuse_if_corrupt()?;
                if puts {
                    desk.claim_space(bytes)?;
                }
                let applied = desk.space.txn(desk.backend, request)?;
                Ok(desk.applied(applied))
            })
            .await?;
        self.complete(&mut answer.header);
        Ok(answer)
    }
}
