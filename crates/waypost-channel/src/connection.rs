//! One attempt to connect, and noticing that what came of it has closed.

use crate::dial::{Abort, Dial, Dialed};
use crate::fleet::ConnectionId;
use crate::http2::{Http2, chain};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
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
    Connected(C),
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
        let Dialed { connection, closed } = match made {
            Ok(Ok(dialed)) => dialed,
            Ok(Err(error)) => return tell(What::Failed(chain(&*error).into())),
            Err(_) => return tell(What::Failed(format!("not ready for calls within {limit:?}").into())),
        };
        tracing::debug!(%endpoint, "connected");
        tell(What::Connected(connection));
        let Some(closed) = closed else { return };
        let cause = tokio::select! {
            () = self.abort.cancelled() => "the connection was given up".into(),
            cause = closed => cause,
        };
        // At once, not when the driver gets to it: no later pick is to find this open.
        self.state.close();
        tracing::debug!(%endpoint, %cause, "connection closed");
        tell(What::Closed(cause));
    }
}
