//! `v3lockpb.Lock`.

use bytes::Bytes;
use tonic::{Request, async_trait};
use waypost_proto::etcdserverpb::{DeleteRangeRequest, RangeRequest};
use waypost_proto::v3lockpb::lock_server::Lock;
use waypost_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

use super::contest::prefix;
use super::{Answer, Service, answer, inner};
use crate::error::Refusal;
use crate::kv::check_delete_range;

#[async_trait]
impl Lock for Service {
    async fn lock(&self, request: Request<LockRequest>) -> Answer<LockResponse> {
        let (metadata, _, LockRequest { name, lease }) = request.into_parts();
        let outcome = async {
            let prefix = prefix(&name);
            let claim = self.claim(&metadata, &prefix, lease, Bytes::new()).await?;
            let (first, holder) = self.holder(&metadata, &prefix).await?;
            let mut header = claim.header;
            if holder.is_none_or(|holder| holder.create_revision != claim.revision) {
                self.wait_for_turn(&metadata, &prefix, claim.revision).await?;
                let get = RangeRequest { key: claim.key.clone(), ..RangeRequest::default() };
                let own = self.engine.range(&self.caller(&metadata)?, get).await?;
                if own.kvs.is_empty() {
                    return Err(Refusal::Other("mutex: session is expired".into()));
                }
                header = own.header.unwrap_or(first);
            }
            let (key, ..) = claim.keep();
            Ok(LockResponse { header: Some(header), key })
        };
        answer(outcome.await.map_err(inner))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Answer<UnlockResponse> {
        let (metadata, _, UnlockRequest { key }) = request.into_parts();
        let outcome = async {
            let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
            check_delete_range(&delete)?;
            let who = self.caller(&metadata)?;
            let answer = self.engine.delete_range(who, delete).await?;
            Ok(UnlockResponse { header: answer.header })
        };
        answer(outcome.await.map_err(inner))
    }
}
