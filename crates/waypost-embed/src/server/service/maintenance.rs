//! `etcdserverpb.Maintenance`.

use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, async_trait};
use waypost_proto::etcdserverpb::alarm_request::AlarmAction;
use waypost_proto::etcdserverpb::downgrade_request::DowngradeAction;
use waypost_proto::etcdserverpb::maintenance_server::Maintenance;
use waypost_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse,
};

use super::{Answer, Service, answer};
use crate::backend::Backend as _;
use crate::error::{Refusal, described};
use crate::server::engine::lock;
use crate::server::{STATUS_VERSION, STORAGE_VERSION, hash, snapshot, status};

/// Pieces of a snapshot that may wait for the connection.
const AHEAD: usize = 4;

#[async_trait]
impl Maintenance for Service {
    type SnapshotStream = ReceiverStream<Result<SnapshotResponse, Status>>;

    async fn alarm(&self, request: Request<AlarmRequest>) -> Answer<AlarmResponse> {
        let (metadata, _, request) = request.into_parts();
        let outcome = async {
            let alarms = match request.action() {
                AlarmAction::Get => {
                    self.user(&metadata)?;
                    lock(&self.engine.shared.alarms).list(request.alarm)
                }
                action => {
                    self.root(&metadata)?;
                    self.set_alarm(action, request).await?
                }
            };
            Ok(AlarmResponse { header: Some(self.engine.header()), alarms })
        };
        answer(outcome.await)
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        let outcome = async {
            self.user(request.metadata())?;
            let size = self.engine.blocking(|shared| Ok(shared.backend.size()?)).await?;
            let shared = &self.engine.shared;
            Ok(StatusResponse {
                header: Some(self.engine.header()),
                version: STATUS_VERSION.to_owned(),
                db_size: count(size.allocated),
                leader: shared.member.id,
                raft_index: shared.index(),
                raft_term: shared.member.term,
                raft_applied_index: shared.index(),
                errors: lock(&shared.alarms).list(0).iter().map(describe).collect(),
                db_size_in_use: count(size.in_use),
                is_learner: false,
                storage_version: STORAGE_VERSION.to_owned(),
                db_size_quota: shared.options.quota.map_or(0, count),
                downgrade_info: Some(DowngradeInfo::default()),
            })
        };
        answer(outcome.await)
    }

    async fn defragment(&self, request: Request<DefragmentRequest>) -> Answer<DefragmentResponse> {
        let outcome = async {
            self.root(request.metadata())?;
            self.engine.blocking(|shared| Ok(shared.backend.defragment()?)).await?;
            Ok(DefragmentResponse { header: None })
        };
        answer(outcome.await)
    }

    async fn hash(&self, request: Request<HashRequest>) -> Answer<HashResponse> {
        let outcome = async {
            self.root(request.metadata())?;
            let header = Some(self.engine.header());
            let hash = self.engine.blocking(hash::of_everything).await?;
            Ok(HashResponse { header, hash })
        };
        answer(outcome.await)
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Answer<HashKvResponse> {
        let (metadata, _, request) = request.into_parts();
        let outcome = async {
            self.root(&metadata)?;
            let keys = self.engine.blocking(move |shared| hash::of_keys(shared, request.revision)).await?;
            Ok(HashKvResponse {
                header: Some(self.engine.header()),
                hash: keys.hash,
                compact_revision: keys.compacted,
                hash_revision: keys.revision,
            })
        };
        answer(outcome.await)
    }

    async fn snapshot(&self, request: Request<SnapshotRequest>) -> Answer<Self::SnapshotStream> {
        self.root(request.metadata()).map_err(|refusal| status(&refusal))?;
        let header = self.engine.header();
        let (sender, receiver) = mpsc::channel(AHEAD);
        let engine = self.engine.clone();
        tokio::task::spawn_blocking(move || {
            let send = |remaining_bytes, blob| {
                let version = STORAGE_VERSION.to_owned();
                let piece = SnapshotResponse { header: Some(header), remaining_bytes, blob, version };
                sender.blocking_send(Ok(piece)).is_ok()
            };
            if let Err(error) = snapshot::write(&engine.shared.backend, send) {
                let error = described(&error);
                tracing::warn!(error, "a snapshot was not finished");
                // The client may have gone.
                let _ = sender.blocking_send(Err(status(&Refusal::Other(error.into()))));
            }
        });
        Ok(tonic::Response::new(ReceiverStream::new(receiver)))
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Answer<MoveLeaderResponse> {
        let outcome = || {
            self.root(request.metadata())?;
            if request.get_ref().target_id == self.engine.shared.member.id {
                Ok(MoveLeaderResponse { header: None })
            } else {
                Err(Refusal::BadLeaderTransferee)
            }
        };
        answer(outcome())
    }

    /// Nothing can be downgraded, and no downgrade is ever under way.
    async fn downgrade(&self, request: Request<DowngradeRequest>) -> Answer<DowngradeResponse> {
        let (metadata, _, request) = request.into_parts();
        self.root(&metadata).map_err(|refusal| status(&refusal))?;
        if request.action() == DowngradeAction::Cancel {
            return Err(Status::failed_precondition("etcdserver: no inflight downgrade job"));
        }
        if is_version(&request.version) {
            Err(Status::invalid_argument("etcdserver: invalid downgrade target version"))
        } else {
            Err(status(&Refusal::WrongDowngradeVersion))
        }
    }
}

// === impl Service ===

impl Service {
    async fn set_alarm(
        &self,
        action: AlarmAction,
        request: AlarmRequest,
    ) -> Result<Vec<AlarmMember>, Refusal> {
        self.engine
            .write(request.encoded_len(), move |desk| {
                let (kind, member) = (request.alarm, request.member_id);
                if kind == AlarmType::None as i32 {
                    return Ok(Vec::new());
                }
                let batch = desk.space.batch();
                Ok(match action {
                    AlarmAction::Activate => vec![desk.alarms.raise(batch, kind, member)],
                    AlarmAction::Deactivate => desk.alarms.disarm(batch, kind, member).into_iter().collect(),
                    AlarmAction::Get => Vec::new(),
                })
            })
            .await
    }
}

/// An alarm as the status names it.
fn describe(alarm: &AlarmMember) -> String {
    format!("memberID:{} alarm:{} ", alarm.member_id, alarm.alarm().as_str_name())
}

/// Whether this is `major.minor` or `major.minor.patch`.
fn is_version(text: &str) -> bool {
    let parts: Vec<_> = text.split('.').collect();
    (2..=3).contains(&parts.len()) && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

fn count(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
