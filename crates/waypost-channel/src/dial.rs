//! What a [`Pool`](crate::Pool) keeps to each endpoint, and how it comes by it.

use crate::health::Fitness;
use futures::future::BoxFuture;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Once};
use tokio_util::sync::{CancellationToken, DropGuard};
use waypost_balance::EndpointState;
use waypost_model::Endpoint;

/// Makes what calls to an endpoint go over: a connection of whatever protocol, or a client that owns one.
///
/// The [`Channel`](crate::Channel) is a pool whose dialer makes HTTP/2 connections for gRPC.
pub trait Dial: Send + Sync + 'static {
    /// What calls go over. Each call has a clone, so a clone is to be cheap; when the pool lets an endpoint go it drops its own, and
    /// the connection should close when the last clone is gone.
    type Connection: Clone + Send + Sync + 'static;

    /// Why this dialer cannot reach such an endpoint, whatever the network does; `None` when it can.
    ///
    /// Of an instance with several endpoints the first that is not refused is used.
    fn refuses(&self, endpoint: &Endpoint) -> Option<String>;

    /// Connects. May be dropped at any time; the pool limits it by its connect timeout, and tries again after a
    /// [`Backoff`](crate::Backoff) when it fails. What runs in tasks of its own is to end with `abort`.
    fn dial(
        &self,
        endpoint: Endpoint,
        abort: Abort,
    ) -> BoxFuture<'static, Result<Dialed<Self::Connection>, DialError>>;
}

/// Why an attempt to connect has failed. Its text and its sources' are in the error of a call that finds no endpoint.
pub type DialError = Box<dyn StdError + Send + Sync>;

/// A connection that is ready for calls.
pub struct Dialed<C> {
    pub(crate) connection: C,
    pub(crate) closed: Option<BoxFuture<'static, Arc<str>>>,
    /// Whether calls may go over it, where that is known.
    pub(crate) fitness: Option<Fitness>,
}

/// Says when a connection must end at once, with all its calls: the instance has left, and the time that its calls had is over. And
/// the other way round, that it takes no more calls.
///
/// The pool takes the connection to be over when it is closed and the last clone of this is dropped: where calls go on after that, as
/// after a `GOAWAY`, what looks after them keeps one.
#[derive(Debug, Clone)]
pub struct Abort {
    pub(crate) request: CancellationToken,
    pub(crate) hold: Arc<Hold>,
}

/// What one attempt to connect, and the connection that comes of it, have of the endpoint: its gate is open only while nobody who has
/// this has said that the connection is lost.
#[derive(Debug)]
pub(crate) struct Hold {
    state: Arc<EndpointState>,
    lost: Once,
    /// Dropped with the last part of what goes on there.
    _over: DropGuard,
}

/// A [`Dial`] that connects to nothing: every endpoint is ready as soon as it is known.
///
/// For clients that keep connections of their own, as HTTP clients do: they are told the address of each call by
/// [`Lease::endpoint`](crate::Lease::endpoint). An endpoint that cannot be reached is found out by the calls that fail there, so these
/// have to say so by [`Lease::finished`](crate::Lease::finished), and to be tried elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unconnected;

// === impl Dialed ===

impl<C> Dialed<C> {
    /// A connection, and the future that is done, with the cause, when it has closed. The pool polls this future, so it may be what
    /// drives the connection. It is dropped when the connection is aborted.
    pub fn new<E: fmt::Display>(connection: C, closed: impl Future<Output = E> + Send + 'static) -> Self {
        let closed = async move { closed.await.to_string().into() };
        Self { connection, closed: Some(Box::pin(closed)), fitness: None }
    }

    /// Calls go over it only while this says that they may. The connection is ready with its first word.
    pub(crate) fn with_fitness(self, fitness: Fitness) -> Self {
        Self { fitness: Some(fitness), ..self }
    }

    /// Something that does not close, since it is not connected.
    pub fn unconnected(connection: C) -> Self {
        Self { connection, closed: None, fitness: None }
    }
}

impl<C: fmt::Debug> fmt::Debug for Dialed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialed").field("connection", &self.connection).finish_non_exhaustive()
    }
}

// === impl Abort ===

impl Abort {
    /// Waits until the connection must end. Cancel safe.
    pub async fn requested(&self) {
        self.request.cancelled().await;
    }

    /// The connection takes no more calls: no pick is to find it from now on. For whoever learns that first, before anybody is told:
    /// otherwise it is when [`Dialed`]'s future is done. The second time it does nothing. Not for what is
    /// [unconnected](Dialed::unconnected), which has no end.
    pub fn lost(&self) {
        self.hold.lost();
    }
}

// === impl Hold ===

impl Hold {
    /// And what is cancelled when nobody has it any more.
    pub(crate) fn new(state: Arc<EndpointState>) -> (Arc<Self>, CancellationToken) {
        let over = CancellationToken::new();
        let hold = Self { state, lost: Once::new(), _over: over.clone().drop_guard() };
        (Arc::new(hold), over)
    }

    /// The server has said that it does not serve: a loss each time, which is settled when the pool hears of that.
    pub(crate) fn unfit(&self) {
        self.state.lose();
    }

    /// One loss of the endpoint's, however often and by whom it is said: for each of them it is counted when this returns. It is settled
    /// when the end of the attempt is heard of, which comes after this.
    pub(crate) fn lost(&self) {
        self.lost.call_once(|| self.state.lose());
    }

    /// It has no end that would settle a loss.
    pub(crate) fn endless(&self) {
        self.lost.call_once(|| ());
    }
}

// === impl Unconnected ===

impl Dial for Unconnected {
    type Connection = ();

    fn refuses(&self, _endpoint: &Endpoint) -> Option<String> {
        None
    }

    fn dial(&self, _endpoint: Endpoint, _abort: Abort) -> BoxFuture<'static, Result<Dialed<()>, DialError>> {
        Box::pin(async { Ok(Dialed::unconnected(())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use waypost_model::{Instance, InstanceKey};

    #[tokio::test]
    async fn a_connection_is_lost_once_and_over_when_nobody_has_it() {
        let endpoint = Endpoint::new("127.0.0.1", 1).unwrap();
        let instance = Arc::new(Instance::new("s".parse().unwrap(), endpoint.clone()));
        let key = InstanceKey::of(&instance, 0);
        let state = Arc::new(EndpointState::new(key, endpoint, instance, Instant::now()));
        state.open();
        let (hold, over) = Hold::new(Arc::clone(&state));
        let abort = Abort { request: CancellationToken::new(), hold: Arc::clone(&hold) };
        abort.lost();
        abort.clone().lost();
        // The end of its task, of which alone the pool hears.
        hold.lost();
        assert!(!state.admits());
        state.settle_loss();
        state.open();
        assert!(state.admits());
        drop(hold);
        assert!(!over.is_cancelled());
        drop(abort);
        over.cancelled().await;
    }
}
