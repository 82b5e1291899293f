//! One attempt to connect, and noticing that what came of it has closed.

use crate::dial::{Abort, Dial, Dialed, Hold};
use crate::fleet::ConnectionId;
use crate::http2::chain;
use crate::line::Http2;
use futures::future::ready;
use futures::stream::{self, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use waypost_balance::EndpointState;
use waypost_model::Endpoint;

/// What became of an attempt, told to the driver.
pub(crate) struct Event<C = Http2> {
    pub(crate) id: ConnectionId,
    pub(crate) endpoint: Endpoint,
    pub(crate) what: What<C>,
}

pub(crate) enum What<C> {
    /// Connected, and fit for calls, or why it is not.
    Connected(C, Result<(), Arc<str>>),
    /// It has become fit for calls, or is no longer, for this reason.
    Fitness(Result<(), Arc<str>>),
    Failed(Arc<str>),
    /// It takes no more calls; those under way may go on.
    Closed(Arc<str>),
    /// After [`Closed`](Self::Closed): nothing goes on there any more.
    Over,
}

/// One attempt to connect, and the connection that comes of it.
pub(crate) struct Attempt<D: Dial> {
    pub(crate) id: ConnectionId,
    pub(crate) state: Arc<EndpointState>,
    pub(crate) dialer: Arc<D>,
    pub(crate) limit: Duration,
    pub(crate) events: mpsc::UnboundedSender<Event<D::Connection>>,
    /// Ends the attempt, and the connection with all its streams.
    pub(crate) abort: CancellationToken,
    /// It gets no new calls: whether it is fit for them is of no interest.
    pub(crate) retired: CancellationToken,
}

/// Tells the driver of one attempt. However that ends, its end is told: also where its task panics.
struct Reporter<C> {
    id: ConnectionId,
    endpoint: Endpoint,
    events: mpsc::UnboundedSender<Event<C>>,
    hold: Arc<Hold>,
    told: Told,
}

/// What was told so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Connected,
    /// All there is to tell.
    All,
}

// === impl Attempt ===

impl<D: Dial> Attempt<D> {
    /// Runs to the end of the connection.
    pub(crate) async fn run(self) {
        let (hold, over) = Hold::new(Arc::clone(&self.state));
        let mut reporter = Reporter {
            id: self.id,
            endpoint: self.state.endpoint().clone(),
            events: self.events.clone(),
            hold,
            told: Told::Nothing,
        };
        if self.attend(&mut reporter).await {
            let (id, endpoint, events) = reporter.into_parts();
            over.cancelled().await;
            // As in `Reporter::tell`.
            let _ = events.send(Event { id, endpoint, what: What::Over });
        }
    }

    /// Runs until the connection takes no more calls. Says whether some may go on.
    async fn attend(self, reporter: &mut Reporter<D::Connection>) -> bool {
        let Self { dialer, limit, abort, retired, .. } = self;
        let endpoint = reporter.endpoint.clone();
        let given = Abort { request: abort.clone(), hold: Arc::clone(&reporter.hold) };
        let made = tokio::select! {
            () = abort.cancelled() => {
                reporter.told = Told::All;
                return false;
            }
            made = async { timeout(limit, dialer.dial(endpoint.clone(), given)).await } => made,
        };
        let Dialed { connection, closed, fitness } = match made {
            Ok(Ok(dialed)) => dialed,
            Ok(Err(error)) => return reporter.ended(chain(&*error).into()),
            Err(_) => return reporter.ended(format!("not ready for calls within {limit:?}").into()),
        };
        tracing::debug!(%endpoint, "connected");
        let Some(mut closed) = closed else {
            reporter.hold.endless();
            reporter.connected(connection, Ok(()));
            reporter.told = Told::All;
            return false;
        };
        let mut fitness = fitness.unwrap_or_else(|| stream::once(ready(Ok(()))).boxed());
        let (mut untold, mut wanted) = (Some(connection), true);
        let patience = sleep(limit);
        tokio::pin!(patience);
        let cause = loop {
            tokio::select! {
                // In this order: once it is closed, nothing is told but that.
                biased;
                () = abort.cancelled() => break "the connection was given up".into(),
                cause = &mut closed => break cause,
                // What asks keeps the connection open.
                () = retired.cancelled(), if wanted => {
                    wanted = false;
                    fitness = stream::empty().boxed();
                }
                Some(verdict) = fitness.next() => match untold.take() {
                    Some(connection) => reporter.connected(connection, verdict),
                    None => reporter.fitness(verdict),
                },
                () = &mut patience, if untold.is_some() => {
                    break format!("its health service has not answered within {limit:?}").into();
                }
            }
        };
        if untold.is_none() {
            tracing::debug!(%endpoint, %cause, "connection closed");
        }
        reporter.ended(cause)
    }
}

// === impl Reporter ===

impl<C> Reporter<C> {
    fn connected(&mut self, connection: C, fitness: Result<(), Arc<str>>) {
        self.told = Told::Connected;
        self.weigh(&fitness);
        self.tell(What::Connected(connection, fitness));
    }

    fn fitness(&self, fitness: Result<(), Arc<str>>) {
        self.weigh(&fitness);
        self.tell(What::Fitness(fitness));
    }

    /// At once, not when the driver gets to it: no later pick is to find this open.
    fn weigh(&self, fitness: &Result<(), Arc<str>>) {
        if fitness.is_err() {
            self.hold.unfit();
        }
    }

    /// Says whether calls may go on.
    fn ended(&mut self, cause: Arc<str>) -> bool {
        let connected = std::mem::replace(&mut self.told, Told::All) == Told::Connected;
        // As in `weigh`.
        self.hold.lost();
        self.tell(if connected { What::Closed(cause) } else { What::Failed(cause) });
        connected
    }

    fn tell(&self, what: What<C>) {
        // The driver has ended: nobody wants to know.
        let _ = self.events.send(Event { id: self.id, endpoint: self.endpoint.clone(), what });
    }

    /// Without its hold.
    fn into_parts(self) -> (ConnectionId, Endpoint, mpsc::UnboundedSender<Event<C>>) {
        (self.id, self.endpoint.clone(), self.events.clone())
    }
}

impl<C> Drop for Reporter<C> {
    fn drop(&mut self) {
        if self.told != Told::All && self.ended("its task has panicked".into()) {
            self.tell(What::Over);
        }
    }
}
