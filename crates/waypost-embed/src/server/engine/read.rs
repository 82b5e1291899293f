//! Reads of keys, at the visible revision. They go on under every alarm, as in etcd.

use std::sync::Arc;

use waypost_proto::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};

use super::{Engine, Shared, read};
use crate::auth::Identity;
use crate::backend::Bucket;
use crate::error::Refusal;
use crate::mvcc::StoreError;

/// Values that are read by the caller itself; more are read where blocking harms nobody.
const INLINE: usize = 32;
/// How often a read is planned anew when a compaction comes between.
const TRIES: usize = 8;

// === impl Engine ===

impl Engine {
    /// A range that has been checked, by someone who may.
    pub(in crate::server) async fn range(
        &self,
        who: &Identity,
        request: RangeRequest,
    ) -> Result<RangeResponse, Refusal> {
        self.policy().may_range(who, &request)?;
        let mut answer = self.range_unchecked(request).await?;
        self.complete(&mut answer.header);
        Ok(answer)
    }

    async fn range_unchecked(&self, request: RangeRequest) -> Result<RangeResponse, Refusal> {
        let plan = read(&self.shared.space).plan_range(&request)?;
        if plan.len() <= INLINE {
            match plan.fetch(&self.shared.backend) {
                Err(StoreError::Moved { .. }) => {}
                outcome => return outcome.map_err(|error| error.refusal()),
            }
        }
        self.blocking(move |shared| {
            retried(|| {
                let plan = read(&shared.space).plan_range(&request)?;
                // Opened after the plan, it has all that the plan needs, unless that is compacted by now.
                let view = shared.backend.view()?;
                plan.fetch_with(|record| view.get(Bucket::Key, record))
            })
        })
        .await
    }

    /// A transaction without writes that has been checked, by someone who may. `None`: it writes.
    pub(in crate::server) async fn read_txn(&self, request: TxnRequest) -> Result<TxnResponse, Refusal> {
        let mut answer = self
            .blocking(move |shared| {
                retried(|| {
                    let space = read(&shared.space);
                    space.read_txn(&shared.backend, &request)
                })
            })
            .await?
            .unwrap_or_default();
        self.complete(&mut answer.header);
        Ok(answer)
    }

    /// Does something that may wait for the disk.
    pub(in crate::server) async fn blocking<A, F>(&self, act: F) -> Result<A, Refusal>
    where
        A: Send + 'static,
        F: FnOnce(&Shared) -> Result<A, StoreError> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || act(&shared)).await {
            Ok(outcome) => outcome.map_err(|error| error.refusal()),
            Err(_) => Err(Refusal::Stopped),
        }
    }
}

fn retried<A>(mut read: impl FnMut() -> Result<A, StoreError>) -> Result<A, StoreError> {
    let mut outcome = read();
    for _ in 1..TRIES {
        if !matches!(outcome, Err(StoreError::Moved { .. })) {
            break;
        }
        outcome = read();
    }
    outcome
}
