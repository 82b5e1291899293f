//! The task that keeps leases alive over one stream.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{Future, pending};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use super::schedule::{Action, LeaseLoss, LeaseState, Renewed, Schedule};
use super::{Lease, seconds};
use crate::backoff::Backoff;
use crate::call::{Cluster, Session, endpoint_is_bad, with_leader};
use crate::client::Client;
use crate::error::{Error, Operation};
use crate::proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};

/// Waits between attempts to open the stream.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Keeps any number of leases alive with one task and one stream. Cloning it shares them.
///
/// Renewal is at a third of each lease's time to live, with jitter; a stream that does not answer in time is
/// replaced by one to another endpoint. The task ends when the keeper and all its leases are dropped.
///
/// ```no_run
/// # async fn example(client: waypost_etcd::Client) -> Result<(), waypost_etcd::Error> {
/// use waypost_etcd::{LeaseKeeper, LeaseState};
/// let keeper = LeaseKeeper::new(client.clone());
/// let asked = tokio::time::Instant::now();
/// let lease = client.lease_grant(std::time::Duration::from_secs(10), None).await?;
/// let kept = keeper.keep(lease, asked);
/// let mut state = kept.state();
/// // Ends when the lease is lost.
/// state.wait_for(|state| matches!(state, LeaseState::Lost { .. })).await.ok();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LeaseKeeper {
    commands: mpsc::UnboundedSender<Command>,
}

/// A lease that is kept alive. Dropping it ends the renewal; the lease then expires, unless it is revoked.
#[derive(Debug)]
pub struct KeptLease {
    lease: Lease,
    serial: u64,
    state: watch::Receiver<LeaseState>,
    commands: mpsc::UnboundedSender<Command>,
}

#[derive(Debug)]
enum Command {
    Keep {
        lease: Lease,
        serial: u64,
        granted_at: Instant,
        state: watch::Sender<LeaseState>,
    },
    /// A lease of the same id that was kept later is not meant.
    Forget {
        id: i64,
        serial: u64,
    },
}

/// The task's own state.
struct Keeper {
    cluster: Arc<Cluster>,
    schedule: Schedule,
    states: HashMap<i64, Kept>,
    stream: Stream,
    backoff: Backoff,
    /// What went wrong last, for those who are told that their lease is suspect or lost.
    cause: Arc<str>,
}

/// Who is told of a lease.
struct Kept {
    serial: u64,
    state: watch::Sender<LeaseState>,
}

/// Tells one [`KeptLease`] from another with the same id.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Phases of the one stream.
enum Stream {
    Closed,
    Waiting(Instant),
    /// What is due meanwhile goes into `requests`, and out with the opening.
    Opening {
        requests: mpsc::UnboundedSender<LeaseKeepAliveRequest>,
        opening: Pin<Box<dyn Future<Output = Opening> + Send>>,
    },
    Open(Box<Opened>),
}

/// How an opening ended; of one that failed, the session whose endpoint is to blame.
type Opening = Result<Box<Opened>, (Option<Session>, Error)>;

struct Opened {
    session: Session,
    requests: mpsc::UnboundedSender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

// === impl LeaseKeeper ===

impl LeaseKeeper {
    /// A keeper that uses the connections of `client`. Must be called inside a tokio runtime.
    pub fn new(client: Client) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let keeper = Keeper {
            cluster: client.cluster,
            schedule: Schedule::default(),
            states: HashMap::new(),
            stream: Stream::Closed,
            backoff: Backoff::eager(FIRST_WAIT, LONGEST_WAIT),
            cause: "no answer from etcd".into(),
        };
        tokio::spawn(keeper.run(inbox));
        Self { commands }
    }

    /// Keep `lease` alive. `granted_at` is when the request for it was *sent*: the end of the lease counts from
    /// there.
    pub fn keep(&self, lease: Lease, granted_at: Instant) -> KeptLease {
        let (state, receiver) = watch::channel(LeaseState::Alive { until: granted_at + lease.ttl });
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        if let Err(refused) = self.commands.send(Command::Keep { lease, serial, granted_at, state })
            && let Command::Keep { state, .. } = refused.0
        {
            state.send_replace(LeaseState::Lost { cause: LeaseLoss::KeeperGone });
        }
        KeptLease { lease, serial, state: receiver, commands: self.commands.clone() }
    }
}

// === impl KeptLease ===

impl KeptLease {
    /// The lease's id.
    pub fn id(&self) -> i64 {
        self.lease.id
    }

    /// Its time to live as granted.
    pub fn ttl(&self) -> Duration {
        self.lease.ttl
    }

    /// How it is, now and from now on. After [`LeaseState::Lost`] nothing more comes.
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }
}

impl Drop for KeptLease {
    fn drop(&mut self) {
        // A keeper that is gone has forgotten it already.
        let _ = self.commands.send(Command::Forget { id: self.lease.id, serial: self.serial });
    }
}

// === impl Keeper ===

impl Keeper {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        loop {
            let wakeup = self.schedule.wakeup();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                () = sleep_until(wakeup) => {}
                event = self.stream.next() => self.on_stream(event),
            }
            self.advance(Instant::now());
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Keep { lease, serial, granted_at, state } => {
                self.schedule.add(lease.id, lease.ttl, granted_at, fastrand::f64());
                self.states.insert(lease.id, Kept { serial, state });
            }
            Command::Forget { id, serial } => {
                if self.states.get(&id).is_none_or(|kept| kept.serial != serial) {
                    return;
                }
                self.schedule.remove(id);
                self.states.remove(&id);
                if self.schedule.is_empty() {
                    self.stream = Stream::Closed;
                    self.backoff.succeed();
                }
            }
        }
    }

    fn advance(&mut self, now: Instant) {
        for action in self.schedule.poll(now) {
            match action {
                Action::Renew(id) => self.renew(id),
                Action::Reopen => {
                    if let Stream::Open(opened) = &self.stream {
                        tracing::debug!(endpoint = %opened.session.link.url, "renewals are not answered");
                        self.cluster.pool.failed(&opened.session.link);
                        self.cause = format!("no answer from {}", opened.session.link.url).into();
                        self.open();
                    }
                }
                Action::Suspect(id) => {
                    if let (Some(kept), Some(until)) = (self.states.get(&id), self.schedule.end(id)) {
                        let cause = self.cause.clone();
                        kept.state.send_replace(LeaseState::Suspect { since: now, until, cause });
                    }
                }
                Action::Lost(id) => self.lose(id, LeaseLoss::Expired { cause: self.cause.clone() }),
            }
        }
    }

    fn renew(&mut self, id: i64) {
        match &self.stream {
            Stream::Open(opened) => {
                // A stream that has ended is told by its answers.
                let _ = opened.requests.send(LeaseKeepAliveRequest { id });
            }
            Stream::Opening { requests, .. } => {
                let _ = requests.send(LeaseKeepAliveRequest { id });
            }
            Stream::Closed => self.open(),
            // Sent with the opening.
            Stream::Waiting(_) => {}
        }
    }

    /// Open a stream, with every renewal that is due already in it: etcd answers the opening only with the first
    /// answer to a renewal.
    fn open(&mut self) {
        let due = self.schedule.reopened(Instant::now());
        if due.is_empty() {
            // An opening without a question would not be answered. The next renewal opens the stream.
            self.stream = Stream::Closed;
            return;
        }
        let (requests, outbox) = mpsc::unbounded_channel();
        for id in due {
            let _ = requests.send(LeaseKeepAliveRequest { id });
        }
        let cluster = self.cluster.clone();
        let patience = self.schedule.patience().min(cluster.request_timeout);
        let sender = requests.clone();
        let opening = Box::pin(async move {
            let operation = operation();
            let session = cluster.session(&operation).await.map_err(|error| (None, error))?;
            let request = with_leader(session.request(UnboundedReceiverStream::new(outbox)));
            let mut service = session.lease();
            let opening = tokio::time::timeout(patience, service.lease_keep_alive(request));
            let answer = opening
                .await
                .unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer to a lease keepalive")));
            match answer {
                Ok(answers) => {
                    Ok(Box::new(Opened { session: session.clone(), requests, answers: answers.into_inner() }))
                }
                Err(status) => Err(refused(&cluster, session, status).await),
            }
        });
        self.stream = Stream::Opening { requests: sender, opening };
    }

    fn on_stream(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Waited => self.open(),
            StreamEvent::Opened(Ok(opened)) => self.stream = Stream::Open(opened),
            StreamEvent::Opened(Err((session, error))) => {
                if let Some(session) = session {
                    self.cluster.pool.failed(&session.link);
                }
                self.failed(&error);
            }
            StreamEvent::Answer(answer) => self.answered(&answer),
            StreamEvent::Ended(status) => {
                let Stream::Open(opened) = std::mem::replace(&mut self.stream, Stream::Closed) else {
                    return;
                };
                let status = status.unwrap_or_else(|| tonic::Status::unavailable("the stream ended"));
                tracing::debug!(endpoint = %opened.session.link.url, %status, "lease keepalive stream ended");
                let endpoint = opened.session.link.endpoint().clone();
                if endpoint_is_bad(&status) {
                    self.cluster.pool.failed(&opened.session.link);
                }
                self.failed(&Error::from_status(&operation(), &endpoint, status));
            }
        }
    }

    fn answered(&mut self, answer: &LeaseKeepAliveResponse) {
        let now = Instant::now();
        self.backoff.succeed();
        if let Stream::Open(opened) = &self.stream {
            self.cluster.pool.worked(&opened.session.link);
        }
        match self.schedule.answered(answer.id, seconds(answer.ttl), now, fastrand::f64()) {
            Some(Renewed::Until(until)) => {
                if let Some(kept) = self.states.get(&answer.id) {
                    kept.state.send_replace(LeaseState::Alive { until });
                }
            }
            Some(Renewed::Lost) => self.lose(answer.id, LeaseLoss::Unknown),
            None => {}
        }
    }

    fn failed(&mut self, error: &Error) {
        self.cause = error.to_string().into();
        if self.schedule.is_empty() {
            self.stream = Stream::Closed;
            return;
        }
        // The first time at once, since another endpoint may serve.
        self.stream = Stream::Waiting(Instant::now() + self.backoff.fail(fastrand::f64()));
    }

    fn lose(&mut self, id: i64, cause: LeaseLoss) {
        tracing::warn!(lease = id, %cause, "lease lost");
        if let Some(kept) = self.states.remove(&id) {
            kept.state.send_replace(LeaseState::Lost { cause });
        }
    }
}

fn operation() -> Operation {
    Operation::read("lease keepalive")
}

/// Why the opening failed; a token that was refused is renewed, so that the next opening finds another.
async fn refused(cluster: &Cluster, session: Session, status: tonic::Status) -> (Option<Session>, Error) {
    let operation = operation();
    let renewable = cluster.auth.can_renew(&status);
    let bad = endpoint_is_bad(&status);
    let error = Error::from_status(&operation, session.link.endpoint(), status);
    if renewable && let Err(error) = cluster.renew(&operation, &session).await {
        return (None, error);
    }
    (bad.then_some(session), error)
}

enum StreamEvent {
    Waited,
    Opened(Opening),
    Answer(LeaseKeepAliveResponse),
    Ended(Option<tonic::Status>),
}

// === impl Stream ===

impl Stream {
    /// What happens next. Cancel safe: the phase is kept in `self`.
    async fn next(&mut self) -> StreamEvent {
        match self {
            Self::Closed => pending().await,
            Self::Waiting(until) => {
                tokio::time::sleep_until(*until).await;
                StreamEvent::Waited
            }
            Self::Opening { opening, .. } => StreamEvent::Opened(opening.as_mut().await),
            Self::Open(opened) => match opened.answers.message().await {
                Ok(Some(answer)) => StreamEvent::Answer(answer),
                Ok(None) => StreamEvent::Ended(None),
                Err(status) => StreamEvent::Ended(Some(status)),
            },
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}
