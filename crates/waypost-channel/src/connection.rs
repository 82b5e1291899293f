//! One attempt to connect, and noticing that what came of it has closed.

use crate::dial::{Abort, Dial, Dialed};
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
    Closed(Arc<str>),
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

// === impl Attempt ===

impl<D: Dial> Attempt<D> {
    /// Runs to the end of the connection.
    pub(crate) async fn run(self) {
        let endpoint = self.state.endpoint().clone();
        let tell = |what| {
            // The driver has ended: nobody wants to know.
            let _ = self.events.send(Event { id: self.id, endpoint: endpoint.clone(), what });
        };
        let limit = self.limit;
        let made = tokio::select! {
            () = self.abort.cancelled() => return,
            made = timeout(limit, self.dialer.dial(endpoint.clone(), Abort(self.abort.clone()))) => made,
        };
        let Dialed { connection, closed, fitness } = match made {
            Ok(Ok(dialed)) => dialed,
            Ok(Err(error)) => return tell(What::Failed(chain(&*error).into())),
            Err(_) => return tell(What::Failed(format!("not ready for calls within {limit:?}").into())),
        };
        tracing::debug!(%endpoint, "connected");
        let Some(mut closed) = closed else { return tell(What::Connected(connection, Ok(()))) };
        let mut fitness = fitness.unwrap_or_else(|| stream::once(ready(Ok(()))).boxed());
        let (mut untold, mut wanted) = (Some(connection), true);
        let patience = sleep(limit);
        tokio::pin!(patience);
        let cause = loop {
            tokio::select! {
                () = self.abort.cancelled() => break "the connection was given up".into(),
                cause = &mut closed => break cause,
                // What asks keeps the connection open.
                () = self.retired.cancelled(), if wanted => {
                    wanted = false;
                    fitness = stream::empty().boxed();
                }
                Some(verdict) = fitness.next() => {
                    if verdict.is_err() {
                        // As below: at once.
                        self.state.close();
                    }
                    tell(match untold.take() {
                        Some(connection) => What::Connected(connection, verdict),
                        None => What::Fitness(verdict),
                    });
                }
                () = &mut patience, if untold.is_some() => {
                    let cause = format!("its health service has not answered within {limit:?}");
                    return tell(What::Failed(cause.into()));
                }
            }
        };
        if untold.is_some() {
            return tell(What::Failed(cause));
        }
        // At once, not when the driver gets to it: no later pick is to find this open.
        self.state.close();
        tracing::debug!(%endpoint, %cause, "connection closed");
        tell(What::Closed(cause));
    }
}
