//! One call to one server, and its answer in a form that can be compared.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr as _;

use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};
use tonic_prost::ProstCodec;
use waypost_proto::etcdserverpb::auth_client::AuthClient;
use waypost_proto::etcdserverpb::cluster_client::ClusterClient;
use waypost_proto::etcdserverpb::kv_client::KvClient;
use waypost_proto::etcdserverpb::lease_client::LeaseClient;
use waypost_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use waypost_proto::etcdserverpb::response_op;
use waypost_proto::etcdserverpb::watch_client::WatchClient;
use waypost_proto::etcdserverpb::*;
use waypost_proto::v3electionpb::election_client::ElectionClient;
use waypost_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use waypost_proto::v3lockpb::lock_client::LockClient;
use waypost_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

use crate::identity::{Port, Shown};
use crate::op::{Op, brief};

/// The clients of one server.
pub(crate) struct Clients {
    channel: Channel,
    /// What those who have logged in were given.
    tokens: BTreeMap<&'static str, Shown>,
    keep_alive: Option<KeepAlive>,
    member: u64,
}

struct KeepAlive {
    requests: tokio::sync::mpsc::Sender<LeaseKeepAliveRequest>,
    responses: Streaming<LeaseKeepAliveResponse>,
}

/// What a server answered: equal if the answers are, but for ids of cluster and member, the raft term and the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    /// Revision of the header; 0 if there is none.
    pub(crate) revision: i64,
    /// Whether the server did what it was asked to.
    pub(crate) done: bool,
}

/// Takes out of an answer what may differ. Gives the revision of its header.
trait Normal: fmt::Debug {
    fn normalise(&mut self) -> i64;
}

/// Seconds that a test may take on a slow machine, and so that a long lease may have lost.
const LOST: i64 = 600;

// === impl Clients ===

impl Clients {
    pub(crate) async fn connect(url: &str) -> Self {
        let channel = Endpoint::from_str(url).unwrap().connect().await.unwrap();
        let mut clients = Self { channel, tokens: BTreeMap::new(), keep_alive: None, member: 0 };
        let list =
            ClusterClient::new(clients.channel.clone()).member_list(MemberListRequest::default()).await;
        clients.member = list.unwrap().into_inner().members[0].id;
        clients
    }

    pub(crate) fn watch(&self, who: Option<&str>) -> WatchClient<Port> {
        WatchClient::new(self.port(who)).max_decoding_message_size(usize::MAX)
    }

    /// What someone shows now.
    pub(crate) fn shown(&self, who: Option<&str>) -> Shown {
        match who {
            Some(Shown::STRANGER) => Shown::of_a_stranger(),
            Some(who) => self.tokens.get(who).cloned().unwrap_or_default(),
            None => Shown::default(),
        }
    }

    /// The way of someone to the server.
    fn port(&self, who: Option<&str>) -> Port {
        Port::new(self.channel.clone(), self.shown(who))
    }

    /// Asks as whoever shows this.
    pub(crate) async fn call_showing(&mut self, shown: &Shown, op: &Op) -> Answer {
        self.ask(Port::new(self.channel.clone(), shown.clone()), op).await
    }

    /// Asks what is no watch; `op` is resolved.
    pub(crate) async fn call(&mut self, op: &Op) -> Answer {
        match op {
            Op::As(who, op) => {
                // A stream shows the token that it was opened with.
                self.keep_alive = None;
                let answer = self.ask(self.port(Some(who)), op).await;
                self.keep_alive = None;
                answer
            }
            Op::LogIn(request) => self.log_in(request).await,
            op => self.ask(self.port(None), op).await,
        }
    }

    async fn log_in(&mut self, (name, password): &(&'static str, &'static str)) -> Answer {
        let request = AuthenticateRequest { name: (*name).into(), password: (*password).into() };
        let outcome = AuthClient::new(self.channel.clone()).authenticate(request).await;
        if let Ok(response) = &outcome {
            self.tokens.insert(name, Shown::token(&response.get_ref().token));
        }
        answer(outcome)
    }

    async fn ask(&mut self, channel: Port, op: &Op) -> Answer {
        let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        let mut lease = LeaseClient::new(channel.clone());
        let mut cluster = ClusterClient::new(channel.clone());
        let mut maintenance = MaintenanceClient::new(channel.clone());
        let mut auth = AuthClient::new(channel.clone());
        match op.clone() {
            Op::Range(request) => answer(kv.range(request).await),
            Op::Put(request) => answer(kv.put(request).await),
            Op::Delete(request) => answer(kv.delete_range(request).await),
            Op::Txn(request) => answer(kv.txn(request).await),
            Op::Compact(request) => answer(kv.compact(request).await),
            Op::PutLarge(size) => {
                let value = vec![b'v'; size].into();
                answer(kv.put(PutRequest { key: "a".into(), value, ..PutRequest::default() }).await)
            }
            Op::Grant(request) => answer(lease.lease_grant(request).await),
            Op::GrantAny { ttl } => grant_any(channel, ttl).await,
            Op::Revoke(id) => answer(lease.lease_revoke(LeaseRevokeRequest { id }).await),
            Op::KeepAlive(id) => self.keep_alive(channel, id).await,
            Op::TimeToLive(request) => answer(lease.lease_time_to_live(request).await),
            Op::Leases => answer(lease.lease_leases(LeaseLeasesRequest {}).await),
            Op::Alarm(request) => answer(maintenance.alarm(request).await),
            Op::HashKv(revision) => answer(maintenance.hash_kv(HashKvRequest { revision }).await),
            Op::MoveLeader(target_id) => {
                answer(maintenance.move_leader(MoveLeaderRequest { target_id }).await)
            }
            Op::Downgrade(request) => answer(maintenance.downgrade(request).await),
            Op::MemberAdd(request) => answer(cluster.member_add(request).await),
            Op::MemberRemove(id) => answer(cluster.member_remove(MemberRemoveRequest { id }).await),
            Op::MemberUpdate(request) => answer(cluster.member_update(request).await),
            Op::MemberPromote(id) => answer(cluster.member_promote(MemberPromoteRequest { id }).await),
            Op::MemberRemoveSelf => {
                answer(cluster.member_remove(MemberRemoveRequest { id: self.member }).await)
            }
            Op::MemberPromoteSelf => {
                answer(cluster.member_promote(MemberPromoteRequest { id: self.member }).await)
            }
            Op::AuthEnable => answer(auth.auth_enable(AuthEnableRequest {}).await),
            Op::AuthDisable => answer(auth.auth_disable(AuthDisableRequest {}).await),
            Op::AuthStatus => answer(auth.auth_status(AuthStatusRequest {}).await),
            Op::Authenticate(request) => answer(auth.authenticate(request).await),
            Op::ChangePassword(request) => answer(auth.user_change_password(request).await),
            Op::UserAdd(request) => answer(auth.user_add(request).await),
            Op::UserGet(request) => answer(auth.user_get(request).await),
            Op::UserList => answer(auth.user_list(AuthUserListRequest {}).await),
            Op::UserDelete(request) => answer(auth.user_delete(request).await),
            Op::UserGrantRole(request) => answer(auth.user_grant_role(request).await),
            Op::UserRevokeRole(request) => answer(auth.user_revoke_role(request).await),
            Op::RoleAdd(request) => answer(auth.role_add(request).await),
            Op::RoleGet(request) => answer(auth.role_get(request).await),
            Op::RoleList => answer(auth.role_list(AuthRoleListRequest {}).await),
            Op::RoleDelete(request) => answer(auth.role_delete(request).await),
            Op::RoleGrant(request) => answer(auth.role_grant_permission(request).await),
            Op::RoleRevoke(request) => answer(auth.role_revoke_permission(request).await),
            Op::Lock { name, lease } => lock(channel, name, lease).await,
            Op::Campaign { name, lease } => campaign(channel, name, lease).await,
            Op::Leader(name) => {
                answer(ElectionClient::new(channel).leader(LeaderRequest { name: name.into() }).await)
            }
            Op::ProclaimStale(name) => {
                let key = format!("{name}/1").into();
                let leader = Some(LeaderKey { name: name.into(), key, rev: 1, lease: 1 });
                let request = ProclaimRequest { leader, value: "x".into() };
                answer(ElectionClient::new(channel).proclaim(request).await)
            }
            Op::ProclaimNobody => {
                answer(ElectionClient::new(channel).proclaim(ProclaimRequest::default()).await)
            }
            Op::ResignNobody => answer(ElectionClient::new(channel).resign(ResignRequest::default()).await),
            Op::UnknownMethod(path) => {
                let mut grpc = tonic::client::Grpc::new(channel);
                grpc.ready().await.unwrap();
                let path = PathAndQuery::from_static(path);
                let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
                answer(grpc.unary(tonic::Request::new(RangeRequest::default()), path, codec).await)
            }
            Op::As(..) | Op::LogIn(_) => unreachable!("unwrapped before: {op}"),
            Op::Watch { .. } | Op::Cancel { .. } | Op::Progress { .. } | Op::Nothing { .. } => {
                unreachable!("watches have streams of their own: {op}")
            }
        }
    }

    async fn keep_alive(&mut self, channel: Port, id: i64) -> Answer {
        let request = LeaseKeepAliveRequest { id };
        if self.keep_alive.is_none() {
            let (requests, receiver) = tokio::sync::mpsc::channel(4);
            // The server's head of the answer comes with the first answer, so the first request must be there.
            requests.send(request).await.unwrap();
            let opened = LeaseClient::new(channel).lease_keep_alive(ReceiverStream::new(receiver)).await;
            match opened {
                Ok(response) => {
                    self.keep_alive = Some(KeepAlive { requests, responses: response.into_inner() });
                }
                Err(status) => return answer::<LeaseKeepAliveResponse>(Err(status)),
            }
        } else if let Some(stream) = &self.keep_alive
            && stream.requests.send(request).await.is_err()
        {
            self.keep_alive = None;
            return Answer::of("the stream of keepalives has ended");
        }
        let stream = self.keep_alive.as_mut().unwrap();
        match stream.responses.message().await {
            Ok(Some(response)) => answer(Ok(Response::new(response))),
            Ok(None) => {
                self.keep_alive = None;
                Answer::of("the stream of keepalives ended")
            }
            Err(status) => {
                self.keep_alive = None;
                answer::<LeaseKeepAliveResponse>(Err(status))
            }
        }
    }
}

async fn grant_any(channel: Port, ttl: i64) -> Answer {
    let mut lease = LeaseClient::new(channel);
    let granted = match lease.lease_grant(LeaseGrantRequest { id: 0, ttl }).await {
        Ok(response) => response.into_inner(),
        Err(status) => return answer::<LeaseGrantResponse>(Err(status)),
    };
    let id = granted.id;
    let first = answer(Ok(Response::new(LeaseGrantResponse { id: i64::from(id > 0), ..granted })));
    let second = answer(lease.lease_revoke(LeaseRevokeRequest { id }).await);
    first.and(&second)
}

async fn lock(channel: Port, name: &'static str, lease: i64) -> Answer {
    let mut client = LockClient::new(channel);
    let locked = client.lock(LockRequest { name: name.into(), lease }).await;
    let key = locked.as_ref().ok().map(|response| response.get_ref().key.clone());
    let first = answer(locked);
    let Some(key) = key else { return first };
    first.and(&answer(client.unlock(UnlockRequest { key }).await))
}

async fn campaign(channel: Port, name: &'static str, lease: i64) -> Answer {
    let mut client = ElectionClient::new(channel);
    let request = CampaignRequest { name: name.into(), lease, value: "first".into() };
    let won = client.campaign(request).await;
    let leader = won.as_ref().ok().and_then(|response| response.get_ref().leader.clone());
    let mut all = answer(won);
    let Some(leader) = leader else { return all };
    all = all.and(&answer(client.leader(LeaderRequest { name: name.into() }).await));
    let request = ProclaimRequest { leader: Some(leader.clone()), value: "second".into() };
    all = all.and(&answer(client.proclaim(request).await));
    all = all.and(&answer(client.leader(LeaderRequest { name: name.into() }).await));
    let request = ResignRequest { leader: Some(leader.clone()) };
    all = all.and(&answer(client.resign(request).await));
    // The same again, which leads no more.
    let request = ProclaimRequest { leader: Some(leader.clone()), value: "third".into() };
    all = all.and(&answer(client.proclaim(request).await));
    all.and(&answer(client.resign(ResignRequest { leader: Some(leader) }).await))
}

// === impl Answer ===

impl Answer {
    pub(crate) fn of(text: &str) -> Self {
        Self { text: text.to_owned(), revision: 0, done: false }
    }

    fn and(self, next: &Self) -> Self {
        let text = format!("{}; {}", self.text, next.text);
        Self { text, revision: self.revision.max(next.revision), done: self.done || next.done }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&brief(&self.text))
    }
}

fn answer<M: Normal>(result: Result<Response<M>, Status>) -> Answer {
    match result {
        Ok(response) => {
            let mut message = response.into_inner();
            let revision = message.normalise();
            Answer { text: format!("{message:?}"), revision, done: true }
        }
        Err(status) => Answer::of(&format!("{:?} {:?}", status.code(), status.message())),
    }
}

/// Ids and the term only tell whether they are there.
pub(crate) fn header(header: &mut Option<ResponseHeader>) -> i64 {
    let Some(header) = header else { return 0 };
    header.cluster_id = u64::from(header.cluster_id != 0);
    header.member_id = u64::from(header.member_id != 0);
    header.raft_term = u64::from(header.raft_term != 0);
    header.revision
}

// === impl Normal ===

macro_rules! with_header {
    ($($message:ty)*) => {$(
        impl Normal for $message {
            fn normalise(&mut self) -> i64 {
                header(&mut self.header)
            }
        }
    )*};
}

with_header! {
    RangeResponse PutResponse DeleteRangeResponse CompactionResponse LeaseGrantResponse LeaseRevokeResponse
    LeaseKeepAliveResponse MoveLeaderResponse DowngradeResponse MemberAddResponse MemberRemoveResponse
    MemberUpdateResponse MemberPromoteResponse AuthEnableResponse AuthDisableResponse AuthStatusResponse
    AuthUserAddResponse AuthUserChangePasswordResponse AuthUserGetResponse AuthUserListResponse AuthUserDeleteResponse
    AuthUserGrantRoleResponse AuthUserRevokeRoleResponse AuthRoleAddResponse AuthRoleGetResponse
    AuthRoleListResponse AuthRoleDeleteResponse AuthRoleGrantPermissionResponse
    AuthRoleRevokePermissionResponse LockResponse UnlockResponse CampaignResponse LeaderResponse
    ProclaimResponse ResignResponse
}

impl Normal for TxnResponse {
    fn normalise(&mut self) -> i64 {
        for response in &mut self.responses {
            match &mut response.response {
                Some(response_op::Response::ResponseRange(response)) => response.normalise(),
                Some(response_op::Response::ResponsePut(response)) => response.normalise(),
                Some(response_op::Response::ResponseDeleteRange(response)) => response.normalise(),
                Some(response_op::Response::ResponseTxn(response)) => response.normalise(),
                None => 0,
            };
        }
        header(&mut self.header)
    }
}

impl Normal for AuthenticateResponse {
    /// Of a token, only what it looks like is compared: letters, a dot, a number.
    fn normalise(&mut self) -> i64 {
        let form = match self.token.split_once('.') {
            Some((letters, number)) if number.parse::<u64>().is_ok() => {
                format!(
                    "{} letters, {}",
                    letters.len(),
                    letters.bytes().all(|byte| byte.is_ascii_alphabetic())
                )
            }
            _ => "no token".to_owned(),
        };
        self.token = form;
        header(&mut self.header)
    }
}

impl Normal for LeaseTimeToLiveResponse {
    /// What is left depends on the clock; only that it is nearly all is compared. etcd gives the keys in the random order
    /// of a Go map.
    fn normalise(&mut self) -> i64 {
        self.keys.sort();
        if (self.granted_ttl - LOST..=self.granted_ttl).contains(&self.ttl) && self.ttl > 0 {
            self.ttl = self.granted_ttl;
        }
        header(&mut self.header)
    }
}

impl Normal for LeaseLeasesResponse {
    /// The order is that of expiry, and so the clock's.
    fn normalise(&mut self) -> i64 {
        self.leases.sort_by_key(|lease| lease.id);
        header(&mut self.header)
    }
}

impl Normal for AlarmResponse {
    /// etcd gives them in the random order of a Go map.
    fn normalise(&mut self) -> i64 {
        self.alarms.sort_by_key(|alarm| (alarm.alarm, alarm.member_id));
        header(&mut self.header)
    }
}

impl Normal for HashKvResponse {
    /// The revision of the hash is new in 3.6.
    fn normalise(&mut self) -> i64 {
        self.hash_revision = 0;
        header(&mut self.header)
    }
}
