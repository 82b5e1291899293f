//! `v3electionpb.Election`.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status, async_trait};
use waypost_proto::etcdserverpb::{PutRequest, WatchCreateRequest, request_op};
use waypost_proto::mvccpb::KeyValue;
use waypost_proto::mvccpb::event::EventType;
use waypost_proto::v3electionpb::election_server::Election;
use waypost_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};

use super::contest::{after, deletion, prefix};
use super::{Answer, Service, answer, inner};
use crate::error::Refusal;
use crate::server::engine::Follow;
use crate::server::status;
use crate::watch::Body;

/// Leaders that may wait for the connection.
const AHEAD: usize = 4;

type Told = mpsc::Sender<Result<LeaderResponse, Status>>;

#[async_trait]
impl Election for Service {
    type ObserveStream = ReceiverStream<Result<LeaderResponse, Status>>;

    async fn campaign(&self, request: Request<CampaignRequest>) -> Answer<CampaignResponse> {
        let (metadata, _, CampaignRequest { name, lease, value }) = request.into_parts();
        let outcome = async {
            let prefix = prefix(&name);
            let claim = self.claim(&metadata, &prefix, lease, value.clone()).await?;
            if claim.found.as_ref().is_some_and(|found| found.value != value) {
                self.proclaim_as(&metadata, &claim.key, claim.revision, claim.lease, value).await?;
            }
            self.wait_for_turn(&metadata, &prefix, claim.revision).await?;
            let header = Some(claim.header);
            let (key, rev, lease) = claim.keep();
            Ok(CampaignResponse { header, leader: Some(LeaderKey { name, key, rev, lease }) })
        };
        answer(outcome.await.map_err(inner))
    }

    async fn proclaim(&self, request: Request<ProclaimRequest>) -> Answer<ProclaimResponse> {
        let (metadata, _, ProclaimRequest { leader, value }) = request.into_parts();
        let outcome = async {
            let LeaderKey { key, rev, lease, .. } = leader.ok_or(Refusal::ElectionLeaderMissing)?;
            let header = self.proclaim_as(&metadata, &key, rev, lease, value).await?;
            Ok(ProclaimResponse { header: Some(header) })
        };
        answer(outcome.await.map_err(inner))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Answer<LeaderResponse> {
        let outcome = async {
            match self.holder(request.metadata(), &prefix(&request.get_ref().name)).await? {
                (header, Some(kv)) => Ok(LeaderResponse { header: Some(header), kv: Some(kv) }),
                (_, None) => Err(Refusal::ElectionNoLeader),
            }
        };
        answer(outcome.await.map_err(inner))
    }

    async fn observe(&self, request: Request<LeaderRequest>) -> Answer<Self::ObserveStream> {
        let (metadata, _, LeaderRequest { name }) = request.into_parts();
        self.caller(&metadata).map_err(|refusal| status(&inner(refusal)))?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let service = self.clone();
        tokio::spawn(async move {
            let prefix = prefix(&name);
            let observed = tokio::select! {
                () = sender.closed() => return,
                () = service.stop.cancelled() => Err(Refusal::Stopped),
                observed = service.tell_leaders(&metadata, &prefix, &sender) => observed,
            };
            if let Err(refusal) = observed {
                // The client may have gone.
                let _ = sender.try_send(Err(status(&inner(refusal))));
            }
        });
        Ok(tonic::Response::new(ReceiverStream::new(receiver)))
    }

    /// No error for who is no longer the leader.
    async fn resign(&self, request: Request<ResignRequest>) -> Answer<ResignResponse> {
        let (metadata, _, ResignRequest { leader }) = request.into_parts();
        let outcome = async {
            let LeaderKey { key, rev, .. } = leader.ok_or(Refusal::ElectionLeaderMissing)?;
            let (header, _) = self.if_made_at(&metadata, &key, rev, deletion(&key)).await?;
            Ok(ResignResponse { header: Some(header) })
        };
        answer(outcome.await.map_err(inner))
    }
}

// === impl Service ===

impl Service {
    async fn proclaim_as(
        &self,
        metadata: &MetadataMap,
        key: &Bytes,
        revision: i64,
        lease: i64,
        value: Bytes,
    ) -> Result<waypost_proto::etcdserverpb::ResponseHeader, Refusal> {
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        match self.if_made_at(metadata, key, revision, request_op::Request::RequestPut(put)).await? {
            (header, true) => Ok(header),
            (_, false) => Err(Refusal::ElectionNotLeader),
        }
    }

    /// Tells of the leader, of what it proclaims, and of the next one, until the client goes.
    async fn tell_leaders(&self, metadata: &MetadataMap, prefix: &[u8], told: &Told) -> Result<(), Refusal> {
        loop {
            let (header, leader) = self.holder(metadata, prefix).await?;
            let (revision, leader) = match leader {
                Some(leader) => (header.revision, leader),
                None => match self.first_put(prefix, header.revision + 1).await? {
                    Some(leader) => (leader.mod_revision, leader),
                    // Looked for in what is compacted by now.
                    None => continue,
                },
            };
            let key = leader.key.clone();
            if !self.tell(told, revision, leader).await {
                return Ok(());
            }
            let mut follow = self.follow(&key, &Bytes::new(), revision + 1);
            'leader: loop {
                match follow.next().await?.body {
                    Body::Events { events, .. } => {
                        for event in events.list() {
                            let Some(kv) = &event.kv else { continue };
                            if event.r#type() == EventType::Delete {
                                break 'leader;
                            }
                            if !self.tell(told, kv.mod_revision, kv.clone()).await {
                                return Ok(());
                            }
                        }
                    }
                    Body::Compacted { .. } | Body::Refused(_) => break,
                    _ => {}
                }
            }
        }
    }

    /// The first key that is put under the prefix.
    async fn first_put(&self, prefix: &[u8], from: i64) -> Result<Option<KeyValue>, Refusal> {
        let mut follow = self.follow(&Bytes::copy_from_slice(prefix), &after(prefix), from);
        loop {
            match follow.next().await?.body {
                Body::Events { events, .. } => {
                    let mut puts = events.list().iter().filter(|event| event.r#type() == EventType::Put);
                    if let Some(put) = puts.find_map(|event| event.kv.clone()) {
                        return Ok(Some(put));
                    }
                }
                Body::Compacted { .. } | Body::Refused(_) => return Ok(None),
                _ => {}
            }
        }
    }

    fn follow(&self, key: &Bytes, range_end: &Bytes, from: i64) -> Follow {
        let follow = Follow::open(&self.engine);
        let request = WatchCreateRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            start_revision: from,
            ..WatchCreateRequest::default()
        };
        follow.create(&request, Ok(()));
        follow
    }

    /// `false`: the client has gone.
    async fn tell(&self, told: &Told, revision: i64, kv: KeyValue) -> bool {
        let header = Some(self.engine.header_at(revision));
        told.send(Ok(LeaderResponse { header, kv: Some(kv) })).await.is_ok()
    }
}
