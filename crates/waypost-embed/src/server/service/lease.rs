//! `etcdserverpb.Lease`.

use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status, Streaming, async_trait};
use waypost_proto::etcdserverpb::lease_server::Lease;
use waypost_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};

use super::{Answer, Service, answer};
use crate::auth::Identity;
use crate::error::Refusal;
use crate::server::engine::{Engine, read, write};
use crate::server::status;

/// Answers to renewals that may wait for the connection.
const AHEAD: usize = 16;

#[async_trait]
impl Lease for Service {
    type LeaseKeepAliveStream = ReceiverStream<Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Answer<LeaseGrantResponse> {
        let (metadata, _, request) = request.into_parts();
        let outcome = async {
            let who = self.caller(&metadata)?;
            self.engine.grant(who, request).await
        };
        answer(outcome.await)
    }

    async fn lease_revoke(&self, request: Request<LeaseRevokeRequest>) -> Answer<LeaseRevokeResponse> {
        let (metadata, _, request) = request.into_parts();
        let outcome = async {
            let who = self.caller(&metadata)?;
            let mut answer = self
                .engine
                .write(request.encoded_len(), move |desk| {
                    desk.policy().may_use_lease(&who, desk.space.lessor().keys(request.id))?;
                    desk.refuse_if_corrupt()?;
                    let applied = desk.space.lease_revoke(&request)?;
                    Ok(desk.applied(applied))
                })
                .await?;
            self.engine.shared.tallies.leases_revoked.inc();
            self.engine.complete(&mut answer.header);
            Ok(answer)
        };
        answer(outcome.await)
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Answer<Self::LeaseKeepAliveStream> {
        let (metadata, _, mut requests) = request.into_parts();
        let (sender, receiver) = mpsc::channel(AHEAD);
        let service = self.clone();
        tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    () = service.stop.cancelled() => {
                        // The client may have gone, or not read what was sent before.
                        let _ = sender.try_send(Err(status(&Refusal::Stopped)));
                        return;
                    }
                    request = requests.message() => request,
                };
                let Ok(Some(LeaseKeepAliveRequest { id })) = request else { return };
                let renewed = service.keep_alive(&metadata, id).await.map_err(|refusal| status(&refusal));
                let failed = renewed.is_err();
                if sender.send(renewed).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(tonic::Response::new(ReceiverStream::new(receiver)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Answer<LeaseTimeToLiveResponse> {
        let (metadata, _, request) = request.into_parts();
        let outcome = || {
            let who = self.user(&metadata)?;
            let policy = self.engine.policy();
            let space = read(&self.engine.shared.space);
            let mut answer = space.lease_time_to_live(&request, self.engine.shared.now());
            drop(space);
            if request.keys {
                policy.may_see_leases(&who, &answer.keys)?;
            }
            self.engine.complete(&mut answer.header);
            Ok(answer)
        };
        answer(outcome())
    }

    async fn lease_leases(&self, request: Request<LeaseLeasesRequest>) -> Answer<LeaseLeasesResponse> {
        let outcome = || {
            let who = self.user(request.metadata())?;
            let policy = self.engine.policy();
            let space = read(&self.engine.shared.space);
            let mut answer = space.lease_leases();
            if policy.is_enabled() {
                let lessor = space.lessor();
                policy.may_see_leases(&who, answer.leases.iter().flat_map(|lease| lessor.keys(lease.id)))?;
            }
            drop(space);
            self.engine.complete(&mut answer.header);
            Ok(answer)
        };
        answer(outcome())
    }
}

// === impl Service ===

impl Service {
    async fn keep_alive(&self, metadata: &MetadataMap, id: i64) -> Result<LeaseKeepAliveResponse, Refusal> {
        let who = self.caller(metadata)?;
        let policy = self.engine.policy();
        if policy.is_enabled() {
            let keys = read(&self.engine.shared.space).lessor().keys(id);
            policy.may_use_lease(&who, keys)?;
        }
        self.engine.renew(id).await
    }
}

// === impl Engine ===

impl Engine {
    /// Makes a lease.
    pub(super) async fn grant(
        &self,
        who: Identity,
        request: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, Refusal> {
        let seed = getrandom::u64().map_err(|error| Refusal::Other(error.to_string().into()))?;
        let bytes = request.encoded_len();
        let mut answer = self
            .write(bytes, move |desk| {
                desk.policy().may_ask(&who)?;
                desk.refuse_if_corrupt()?;
                desk.claim_space(bytes)?;
                let applied = desk.space.lease_grant(&request, seed, desk.now)?;
                Ok(desk.applied(applied))
            })
            .await?;
        self.shared.tallies.leases_granted.inc();
        self.complete(&mut answer.header);
        Ok(answer)
    }

    /// Gives a lease its full time again; TTL 0: there is none.
    pub(super) async fn renew(&self, id: i64) -> Result<LeaseKeepAliveResponse, Refusal> {
        let now = self.shared.now();
        let renewed = write(&self.shared.space).lease_keep_alive(id, now);
        let mut answer = match renewed {
            Some(answer) => answer,
            None => {
                self.write(0, move |desk| {
                    let applied = desk.space.lease_renew(id, desk.now)?;
                    Ok(desk.applied(applied))
                })
                .await?
            }
        };
        if answer.ttl > 0 {
            self.shared.tallies.leases_renewed.inc();
        }
        self.complete(&mut answer.header);
        Ok(answer)
    }
}
