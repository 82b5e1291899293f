//! One unary call to the cluster: which endpoint, which token, and when it is sent again.
//!
//! A call is sent to another endpoint when it surely was not carried out (the connection could not be made, or
//! closed before the request left), or when it may be sent twice (reads, and writes that say so). A write whose
//! connection breaks under way is reported instead, since nobody knows whether it happened.

use std::error::Error as StdError;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Response, Status};

use crate::auth::{Auth, Token};
use crate::error::{Error, ErrorKind, Operation};
use crate::options::{ClientOptions, Held};
use crate::pool::{Link, Pool};
use crate::proto::etcdserverpb as pb;

/// Between attempts at a socket that changes hands.
const AGAIN: Duration = Duration::from_millis(10);

/// What every part of a client shares.
pub(crate) struct Cluster {
    pub(crate) pool: Pool,
    pub(crate) auth: Auth,
    pub(crate) request_timeout: Duration,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_timeout: Duration,
    max_send_bytes: usize,
    max_receive_bytes: usize,
    /// How long calls that may be sent again are, where each endpoint has failed already.
    patience: Duration,
    /// Kept as long as anything uses the cluster.
    _held: Vec<Held>,
}

/// A connection and the token to use on it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) link: Link,
    pub(crate) token: Token,
    max_send_bytes: usize,
    max_receive_bytes: usize,
}

/// What is known of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It never left; the endpoint is bad.
    NotSent,
    /// Nobody knows; the endpoint is bad.
    Unknown,
    /// The server refused it; the endpoint is fine.
    Answered,
}

// === impl Cluster ===

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Cluster {
    pub(crate) fn new(options: ClientOptions) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            pool: Pool::new(&options)?,
            request_timeout: options.request_timeout,
            keepalive_interval: options.keepalive_interval,
            keepalive_timeout: options.keepalive_timeout,
            max_send_bytes: options.max_send_bytes,
            max_receive_bytes: options.max_receive_bytes,
            auth: Auth::new(options.credentials),
            patience: if options.wait_for_socket { options.connect_timeout } else { Duration::ZERO },
            _held: options.held,
        }))
    }

    /// A connection for a stream, with the token to use on it.
    pub(crate) async fn session(&self, operation: &Operation) -> Result<Session, Error> {
        self.session_avoiding(operation, &[]).await
    }

    async fn session_avoiding(&self, operation: &Operation, avoid: &[usize]) -> Result<Session, Error> {
        let mut avoid = avoid.to_vec();
        loop {
            let link = self.pool.link(operation, &avoid).await?;
            let fetched = tokio::time::timeout(self.request_timeout, self.auth.token(&link.channel)).await;
            match fetched.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer to Authenticate"))) {
                Ok(token) => return Ok(self.session_on(link, token)),
                Err(status) => {
                    // Authenticate changes nothing in the store: another endpoint may be asked.
                    let outcome = outcome_of(&status);
                    let error = Error::from_status(operation, link.endpoint(), status);
                    if outcome == Outcome::Answered {
                        return Err(error);
                    }
                    self.pool.failed(&link);
                    avoid.push(link.slot());
                    if avoid.len() >= self.pool.len() {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn session_on(&self, link: Link, token: Token) -> Session {
        Session {
            link,
            token,
            max_send_bytes: self.max_send_bytes,
            max_receive_bytes: self.max_receive_bytes,
        }
    }

    /// Send a call until it is answered, as the module says. Each attempt may take the request timeout.
    pub(crate) async fn call<T, F, Fut>(&self, operation: &Operation, send: F) -> Result<T, Error>
    where
        F: FnMut(Session) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_within(operation, Some(self.request_timeout), send).await
    }

    /// [`call`](Self::call) with a time limit of its own for an attempt; `None` for calls that wait for others.
    pub(crate) async fn call_within<T, F, Fut>(
        &self,
        operation: &Operation,
        limit: Option<Duration>,
        send: F,
    ) -> Result<T, Error>
    where
        F: FnMut(Session) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_linked(operation, limit, send).await.map(|(answer, _)| answer)
    }

    /// [`call_within`](Self::call_within), and the connection that answered: for streams, which may fail later.
    pub(crate) async fn call_linked<T, F, Fut>(
        &self,
        operation: &Operation,
        limit: Option<Duration>,
        mut send: F,
    ) -> Result<(T, Link), Error>
    where
        F: FnMut(Session) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        // Each endpoint once, and one more round trip for the only endpoint's connection that turns out closed.
        let attempts = self.pool.len().max(1) + 1;
        let mut first_failure = None;
        let mut avoid: Vec<usize> = Vec::new();
        let mut renewed = false;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let session = self.session_avoiding(operation, &avoid).await?;
            let answer = bounded(limit, send(session.clone())).await;
            let status = match answer {
                Ok(answer) => {
                    self.pool.worked(&session.link);
                    return Ok((answer.into_inner(), session.link));
                }
                Err(status) => status,
            };
            if self.auth.can_renew(&status) && !renewed {
                match self.renew(operation, &session).await {
                    Ok(()) => {
                        renewed = true;
                        attempt -= 1;
                    }
                    // The refused call was not carried out: another endpoint may renew the token and serve it.
                    Err(error) if error.is_transient() && attempt < attempts => {
                        avoid.push(session.link.slot());
                        if avoid.len() >= self.pool.len() {
                            return Err(error);
                        }
                    }
                    Err(error) => return Err(error),
                }
                continue;
            }
            let outcome = outcome_of(&status);
            let error = Error::from_status(operation, session.link.endpoint(), status);
            if outcome == Outcome::Answered {
                self.pool.worked(&session.link);
                return Err(error);
            }
            self.pool.failed(&session.link);
            let again = outcome == Outcome::NotSent || operation.idempotent;
            if !again {
                return Err(error);
            }
            if attempt >= attempts {
                // A process that is killed may let somebody in while it dies: its socket is worth another attempt.
                let since = *first_failure.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.patience {
                    return Err(error);
                }
                tokio::time::sleep(AGAIN).await;
            }
            tracing::debug!(%error, "sent again to another endpoint");
            avoid.push(session.link.slot());
            if avoid.len() >= self.pool.len() {
                avoid.clear();
            }
        }
    }

    /// A call to one endpoint, wherever else the client is connected.
    pub(crate) async fn call_at<T, F, Fut>(
        &self,
        operation: &Operation,
        endpoint: &str,
        send: F,
    ) -> Result<T, Error>
    where
        F: Fn(Session) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let urls = self.pool.urls();
        let Some(slot) = urls.iter().position(|url| &**url == endpoint) else {
            return Err(Error::config(format!("{endpoint} is not an endpoint of this client")));
        };
        let unreachable = |message| Error::new(ErrorKind::Unavailable, operation, message).at(&urls[slot]);
        let mut renewed = false;
        loop {
            let link = self.pool.link_to(slot).await.map_err(unreachable)?;
            let refused = |status| Error::from_status(operation, &urls[slot], status);
            let token =
                bounded(Some(self.request_timeout), self.auth.token(&link.channel)).await.map_err(refused)?;
            let session = self.session_on(link, token);
            let status = match bounded(Some(self.request_timeout), send(session.clone())).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            if self.auth.can_renew(&status) && !renewed {
                renewed = true;
                self.renew(operation, &session).await?;
                continue;
            }
            if endpoint_is_bad(&status) {
                self.pool.failed(&session.link);
            }
            return Err(refused(status));
        }
    }

    /// Replace the token of `session`, which was refused. An endpoint that cannot is left alone for a while.
    pub(crate) async fn renew(&self, operation: &Operation, session: &Session) -> Result<(), Error> {
        let renewal = self.auth.renew(session.token.generation, &session.link.channel);
        match bounded(Some(self.request_timeout), renewal).await {
            Ok(_) => Ok(()),
            Err(status) => Err(self.stream_failed(operation, &session.link, status)),
        }
    }

    /// The error of something that broke on this connection; the endpoint is left alone for a while if it is to blame.
    pub(crate) fn stream_failed(&self, operation: &Operation, link: &Link, status: Status) -> Error {
        if endpoint_is_bad(&status) {
            self.pool.failed(link);
        }
        Error::from_status(operation, link.endpoint(), status)
    }
}

// === impl Session ===

/// A client of one of etcd's services on this session's connection, with the limits of the options.
macro_rules! service {
    ($name:ident, $client:ty) => {
        pub(crate) fn $name(&self) -> $client {
            <$client>::new(self.link.channel.clone())
                .max_encoding_message_size(self.max_send_bytes)
                .max_decoding_message_size(self.max_receive_bytes)
        }
    };
}

type Transport = tonic::transport::Channel;

impl Session {
    service!(kv, pb::kv_client::KvClient<Transport>);
    service!(lease, pb::lease_client::LeaseClient<Transport>);
    service!(watch, pb::watch_client::WatchClient<Transport>);
    service!(cluster, pb::cluster_client::ClusterClient<Transport>);
    service!(maintenance, pb::maintenance_client::MaintenanceClient<Transport>);
    service!(lock, crate::proto::v3lockpb::lock_client::LockClient<Transport>);
    service!(election, crate::proto::v3electionpb::election_client::ElectionClient<Transport>);

    /// The message with this session's token.
    pub(crate) fn request<M>(&self, message: M) -> tonic::Request<M> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token.value {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    /// The same for a message that goes as one, refused here if it is too large: the transport would report that
    /// as a broken stream.
    pub(crate) fn unary<M: prost::Message>(&self, message: M) -> Result<tonic::Request<M>, Status> {
        let (size, most) = (message.encoded_len(), self.max_send_bytes);
        if size > most {
            return Err(Status::resource_exhausted(format!(
                "trying to send message larger than max ({size} vs. {most})"
            )));
        }
        Ok(self.request(message))
    }
}

/// Marks a stream or a waiting call that a member cut off from the others must end, rather than keep open in
/// silence.
pub(crate) fn with_leader<M>(mut request: tonic::Request<M>) -> tonic::Request<M> {
    request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
    request
}

async fn bounded<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match limit {
        None => work.await,
        Some(limit) => tokio::time::timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {limit:?}")))),
    }
}

/// Whether a stream's or a call's failure says that the endpoint should be left.
pub(crate) fn endpoint_is_bad(status: &Status) -> bool {
    outcome_of(status) != Outcome::Answered
}

fn outcome_of(status: &Status) -> Outcome {
    let mut cause: Option<&(dyn StdError + 'static)> = status.source();
    let local = cause.is_some();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return Outcome::NotSent;
        }
        // hyper: the request was still queued when the connection closed.
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return Outcome::NotSent;
        }
        cause = error.source();
    }
    if local {
        return match status.code() {
            // An answer that exceeds our own limit: no endpoint would do better.
            Code::OutOfRange | Code::ResourceExhausted => Outcome::Answered,
            _ => Outcome::Unknown,
        };
    }
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => Outcome::Unknown,
        _ => Outcome::Answered,
    }
}
