//! `etcdserverpb.Cluster`: there is one member, and it stays alone.

use http::Uri;
use tonic::{Request, async_trait};
use waypost_proto::etcdserverpb::cluster_server::Cluster;
use waypost_proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse,
};

use super::{Answer, Service, answer};
use crate::error::Refusal;
use crate::server::engine::PEER_URL;

#[async_trait]
impl Cluster for Service {
    /// A second member would have to be one of a cluster, which this server is not.
    async fn member_add(&self, request: Request<MemberAddRequest>) -> Answer<MemberAddResponse> {
        let outcome = || {
            check_urls(&request.get_ref().peer_urls)?;
            self.root(request.metadata())?;
            if request.get_ref().peer_urls.iter().any(|url| url == PEER_URL) {
                return Err(Refusal::PeerUrlExists);
            }
            Err(Refusal::MemberNotEnoughStarted)
        };
        answer(outcome())
    }

    async fn member_remove(&self, request: Request<MemberRemoveRequest>) -> Answer<MemberRemoveResponse> {
        let outcome = || {
            self.root(request.metadata())?;
            self.known(request.get_ref().id)?;
            Err(Refusal::MemberNotEnoughStarted)
        };
        answer(outcome())
    }

    /// The peer URL is nowhere used, and stays what it is. etcd does not look at what it is given here either, as long as
    /// no other member has it.
    async fn member_update(&self, request: Request<MemberUpdateRequest>) -> Answer<MemberUpdateResponse> {
        let outcome = || {
            self.root(request.metadata())?;
            self.known(request.get_ref().id)?;
            let members = vec![self.engine.shared.member.message()];
            Ok(MemberUpdateResponse { header: Some(self.engine.header_at(0)), members })
        };
        answer(outcome())
    }

    async fn member_list(&self, request: Request<MemberListRequest>) -> Answer<MemberListResponse> {
        let outcome = || {
            self.user(request.metadata())?;
            let members = vec![self.engine.shared.member.message()];
            Ok(MemberListResponse { header: Some(self.engine.header_at(0)), members })
        };
        answer(outcome())
    }

    async fn member_promote(&self, request: Request<MemberPromoteRequest>) -> Answer<MemberPromoteResponse> {
        let outcome = || {
            self.root(request.metadata())?;
            self.known(request.get_ref().id)?;
            Err(Refusal::MemberNotLearner)
        };
        answer(outcome())
    }
}

// === impl Service ===

impl Service {
    fn known(&self, id: u64) -> Result<(), Refusal> {
        if id == self.engine.shared.member.id { Ok(()) } else { Err(Refusal::MemberNotFound) }
    }
}

/// Peer URLs as etcd wants them: at least one, `http` or `https`, a host with a port, and no path.
fn check_urls(urls: &[String]) -> Result<(), Refusal> {
    let good = |url: &String| {
        url.parse::<Uri>().is_ok_and(|url| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.port_u16().is_some()
                && matches!(url.path(), "" | "/")
                && url.query().is_none()
        })
    };
    if !urls.is_empty() && urls.iter().all(good) { Ok(()) } else { Err(Refusal::MemberBadUrls) }
}
