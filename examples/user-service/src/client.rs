//! A client that follows the fleet: the channel's pool, with tarpc's connections in it.

use crate::{LAYOUT, SERVICE, User, UserServiceClient};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tarpc::client::{Config, NewClient, RpcError};
use tarpc::context;
use tarpc::tokio_serde::formats::Json;
use waypost::Waypost;
use waypost::channel::{
    Abort, Dial, DialError, Dialed, EndpointState, NotReady, Outcome, Policy, Pool, Wish,
};
use waypost::model::Endpoint;

/// The users, whoever serves them.
#[derive(Clone, Debug)]
pub struct Users {
    pool: Pool<Tarpc>,
}

/// Why a user could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// No server is ready.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// Every server that was asked has failed.
    #[error("{server}, attempt {attempt}")]
    Failed {
        /// The last.
        server: Endpoint,
        /// How many were asked.
        attempt: usize,
        /// What it met.
        source: RpcError,
    },
}

/// Makes tarpc's connections.
#[derive(Debug)]
struct Tarpc;

/// Servers that are asked at most.
const ATTEMPTS: usize = 3;

// === impl Users ===

impl Users {
    /// Follows the fleet that is registered in the etcd at these addresses. Must be called inside a tokio runtime.
    pub fn connect(etcd: &str) -> Result<Self, waypost::Error> {
        let waypost = Waypost::builder().endpoints(etcd.split(',')).layout(LAYOUT).build()?;
        let pool = waypost.channel_builder(SERVICE)?.policy(Policy::random()).pool(Tarpc);
        Ok(Self { pool })
    }

    /// Asks any server, and another one when that fails.
    pub async fn find(&self, id: u64) -> Result<User, FindError> {
        let mut tried: Vec<Arc<EndpointState>> = Vec::new();
        loop {
            let lease = self.pool.lease(Wish::new().tried(&tried)).await?;
            match lease.connection().find(context::current(), id).await {
                Ok(user) => {
                    lease.finished(Outcome::Ok);
                    return Ok(user);
                }
                Err(source) => {
                    let server = lease.finished(Outcome::Lost);
                    let (endpoint, attempt) = (server.endpoint().clone(), tried.len() + 1);
                    if attempt == ATTEMPTS {
                        return Err(FindError::Failed { server: endpoint, attempt, source });
                    }
                    tried.push(server);
                }
            }
        }
    }

    /// Waits until so many servers are connected, at most this long. Answers whether they are.
    pub async fn connected(&self, servers: usize, within: Duration) -> bool {
        let all = self.pool.wait_for(|stats| stats.ready() >= servers);
        tokio::time::timeout(within, all).await.is_ok()
    }
}

// === impl Tarpc ===

impl Dial for Tarpc {
    type Connection = UserServiceClient;

    fn refuses(&self, _endpoint: &Endpoint) -> Option<String> {
        None
    }

    fn dial(
        &self,
        endpoint: Endpoint,
        _abort: Abort,
    ) -> BoxFuture<'static, Result<Dialed<UserServiceClient>, DialError>> {
        Box::pin(async move {
            let transport = tarpc::serde_transport::tcp::connect(endpoint.authority(), Json::default).await?;
            let NewClient { client, dispatch } = UserServiceClient::new(Config::default(), transport);
            let closed = async {
                match dispatch.await {
                    Ok(()) => "the connection is closed".to_owned(),
                    Err(error) => error.to_string(),
                }
            };
            Ok(Dialed::new(client, closed))
        })
    }
}
