//! The gRPC services, one file each.

mod auth;
mod cluster;
mod contest;
mod election;
mod health;
mod kv;
mod lease;
mod locks;
mod maintenance;
mod watch;

use std::num::NonZero;
use std::sync::{Arc, LazyLock};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Response, Status};
use tonic_reflection::pb::v1::server_reflection_server as v1;
use tonic_reflection::pb::v1alpha::server_reflection_server as v1alpha;
use tower::{Service as _, ServiceExt as _};
use waypost_proto::etcdserverpb::kv_server::KvServer;
use waypost_proto::{etcdserverpb as pb, v3electionpb, v3lockpb};

use super::GRPC_OVERHEAD;
use super::engine::Engine;
use super::tls::peer_of;
use crate::auth::Identity;
use crate::error::Refusal;

/// What every service has.
#[derive(Clone)]
pub(super) struct Service {
    engine: Engine,
    /// Ends streams when the server ends.
    stop: CancellationToken,
    /// Passwords that may be hashed at the same time.
    hashing: Arc<Semaphore>,
}

/// Every service, by the path of a request.
#[derive(Clone)]
pub(super) struct Services {
    /// By itself, since most calls are to it: routing costs as much as a read.
    kv: KvServer<Service>,
    others: Routes,
}

type Answer<A> = Result<Response<A>, Status>;

/// Names of the services.
pub(super) const NAMES: [&str; 11] = [
    pb::kv_server::SERVICE_NAME,
    pb::watch_server::SERVICE_NAME,
    pb::lease_server::SERVICE_NAME,
    pb::cluster_server::SERVICE_NAME,
    pb::maintenance_server::SERVICE_NAME,
    pb::auth_server::SERVICE_NAME,
    v3lockpb::lock_server::SERVICE_NAME,
    v3electionpb::election_server::SERVICE_NAME,
    tonic_health::pb::health_server::SERVICE_NAME,
    v1::SERVICE_NAME,
    v1alpha::SERVICE_NAME,
];

/// Adds services, with the limit of what they receive; what they send has none.
macro_rules! add {
    ($routes:ident, $limit:ident, $service:expr, $($server:path),+ $(,)?) => {
        $(
            let server = <$server>::new($service.clone());
            let server = server.max_decoding_message_size($limit).max_encoding_message_size(usize::MAX);
            $routes = $routes.add_service(server);
        )+
    };
}

/// Bytes that a message may have which is received.
pub(super) fn message_limit(engine: &Engine) -> usize {
    engine.shared.options.max_request_bytes.saturating_add(GRPC_OVERHEAD)
}

/// All services.
pub(super) fn all(engine: &Engine, stop: &CancellationToken) -> Services {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let hashing = Arc::new(Semaphore::new(processors));
    let service = Service { engine: engine.clone(), stop: stop.clone(), hashing };
    let limit = message_limit(engine);
    let mut routes = Routes::default();
    add!(
        routes,
        limit,
        service,
        pb::lease_server::LeaseServer<Service>,
        pb::cluster_server::ClusterServer<Service>,
        pb::maintenance_server::MaintenanceServer<Service>,
        pb::auth_server::AuthServer<Service>,
        v3lockpb::lock_server::LockServer<Service>,
        v3electionpb::election_server::ElectionServer<Service>,
        tonic_health::pb::health_server::HealthServer<Service>,
    );
    let kv = KvServer::new(service.clone());
    let kv = kv.max_decoding_message_size(limit).max_encoding_message_size(usize::MAX);
    let others = routes.add_service(watch::WatchServer { service, limit }).prepare();
    Services { kv, others }
}

/// Reflection, made when it is asked for the first time: it takes megabytes.
static REFLECTION: LazyLock<Routes> = LazyLock::new(|| {
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(waypost_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    match (described().build_v1(), described().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => Routes::default().add_service(v1).add_service(v1alpha),
        // A test sees that they are good.
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "the descriptors of the services are no good: there is no reflection");
            Routes::default()
        }
    }
});

// === impl Services ===

impl Services {
    /// Answers a call.
    pub(super) async fn call<B>(mut self, request: http::Request<B>) -> http::Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<tonic::codegen::StdError> + Send,
    {
        let path = request.uri().path();
        let of = |service: &str| {
            path.strip_prefix('/')
                .and_then(|path| path.strip_prefix(service))
                .is_some_and(|rest| rest.starts_with('/'))
        };
        let (kv, reflection) =
            (of(pb::kv_server::SERVICE_NAME), of(v1::SERVICE_NAME) || of(v1alpha::SERVICE_NAME));
        let outcome = if kv {
            self.kv.call(request).await
        } else if reflection {
            REFLECTION.clone().oneshot(request).await
        } else {
            self.others.oneshot(request).await
        };
        match outcome {
            Ok(response) => response,
        }
    }
}

// === impl Service ===

impl Service {
    /// Who calls.
    fn caller(&self, metadata: &MetadataMap) -> Result<Identity, Refusal> {
        let by_token = self.engine.identify(token(metadata));
        // As etcd does: a token goes before a certificate, and one that is no good is as none.
        match (by_token, peer_of(metadata)) {
            (Ok(Identity::Anonymous) | Err(_), Some(name)) => Ok(self.engine.named(name)),
            (by_token, _) => by_token,
        }
    }

    /// Who calls, if it is any user.
    fn user(&self, metadata: &MetadataMap) -> Result<Identity, Refusal> {
        let who = self.caller(metadata)?;
        self.engine.policy().may_ask(&who)?;
        Ok(who)
    }

    /// Who calls, if it is `root`.
    fn root(&self, metadata: &MetadataMap) -> Result<Identity, Refusal> {
        let who = self.caller(metadata)?;
        self.engine.policy().may_administer(&who)?;
        Ok(who)
    }
}

/// The token that a caller shows.
fn token(metadata: &MetadataMap) -> Option<&str> {
    let shown = metadata.get("token").or_else(|| metadata.get("authorization"))?;
    let shown = shown.to_str().ok()?;
    Some(shown.strip_prefix("Bearer ").unwrap_or(shown))
}

/// What the services give, as gRPC has it.
fn answer<A>(outcome: Result<A, Refusal>) -> Answer<A> {
    outcome.map(Response::new).map_err(|refusal| super::status(&refusal))
}

/// A refusal that the lock or election service met on behalf of its caller. That the server ends is for the caller itself.
fn inner(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Stopped => refusal,
        other => Refusal::Inner(Box::new(other)),
    }
}
