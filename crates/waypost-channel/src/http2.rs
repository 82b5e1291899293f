//! The connections of a channel: HTTP/2, as gRPC wants it.

use crate::backoff::Backoff;
use crate::connector::{Connector, Transport};
use crate::dial::{Abort, Dial, DialError, Dialed};
use crate::greeting::{Greeted, Greeting};
use crate::health::{self, Asked};
use crate::last_words::LastWords;
use crate::outgoing::Outgoing;
use crate::settings::Keepalive;
use crate::table::Pace;
use futures::future::BoxFuture;
use http::uri::{Authority, Scheme};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::error::Error as StdError;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;
use waypost_model::Endpoint;

/// An HTTP/2 connection, and how requests name its server.
#[derive(Clone)]
pub(crate) struct Http2 {
    pub(crate) sender: SendRequest<Outgoing>,
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
}

/// Makes them.
#[derive(Clone)]
pub(crate) struct Http2Dialer {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) asked: Asked,
    pub(crate) backoff: Backoff,
}

/// Runs what belongs to a connection. To abort the connection ends all of it: streams end with their connection.
#[derive(Clone)]
struct Tasks {
    abort: Abort,
    /// The first task is the connection itself; after it there is one for each call, which ends with the connection and need
    /// not wait for the abort too.
    connected: Arc<AtomicBool>,
}

/// Per stream, and per connection: a slow reader of one stream must not hold up the seven others that fit.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// What calls are sent by, what drives them, and what tells of the greeting and of the leave-taking.
type Handshake = (SendRequest<Outgoing>, Driving, oneshot::Receiver<Greeting>, oneshot::Receiver<()>);
type Driving = http2::Connection<TokioIo<Greeted<LastWords<Transport>>>, Outgoing, Tasks>;

// === impl Http2Dialer ===

impl Dial for Http2Dialer {
    type Connection = Http2;

    fn refuses(&self, endpoint: &Endpoint) -> Option<String> {
        self.connector.refuses(endpoint)
    }

    fn dial(&self, endpoint: Endpoint, abort: Abort) -> BoxFuture<'static, Result<Dialed<Http2>, DialError>> {
        let this = self.clone();
        Box::pin(this.connect(endpoint, abort))
    }
}

impl Http2Dialer {
    /// Connects and waits until the server serves.
    async fn connect(self, endpoint: Endpoint, abort: Abort) -> Result<Dialed<Http2>, DialError> {
        let authority = Authority::try_from(endpoint.authority())
            .map_err(|error| format!("{endpoint} cannot stand in a URI: {error}"))?;
        let scheme = if self.connector.is_secure(&endpoint) { Scheme::HTTPS } else { Scheme::HTTP };
        let transport = self.connector.connect(endpoint).await?;
        let (sender, mut driving, greeting, left) = self.handshake(transport, abort).await?;
        tokio::select! {
            // What it said tells more than that it then hung up.
            biased;
            heard = greeting => match heard {
                Ok(Greeting::Http2) => {}
                Ok(Greeting::Foreign) => return Err("what answers there does not speak HTTP/2".into()),
                Err(_) => return Err("closed by the server before it had said anything".into()),
            },
            ended = &mut driving => return Err(match ended {
                Ok(()) => "closed by the server before it had said anything".into(),
                Err(error) => error.into(),
            }),
        }
        let pace = self.pace;
        let closed = async move {
            let ended = tokio::select! {
                ended = driving => ended,
                // Calls that it has taken go on in tasks of their own; those that it has not are given back.
                Ok(()) = left => return "the server takes no more calls on this connection".to_owned(),
            };
            match ended {
                Ok(()) => "the server closed the connection".to_owned(),
                Err(error) => {
                    if too_many_pings(&error) {
                        pace.slow_down();
                    }
                    chain(&error)
                }
            }
        };
        let connection = Http2 { sender, scheme, authority };
        let fitness = health::follow(connection.clone(), self.asked, self.backoff);
        Ok(Dialed::new(connection, closed).with_fitness(fitness))
    }

    async fn handshake(&self, transport: Transport, abort: Abort) -> Result<Handshake, hyper::Error> {
        let (io, greeting, left) = Greeted::new(LastWords::new(transport));
        let mut builder = http2::Builder::new(Tasks::new(abort));
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        if let Some(keepalive) = self.keepalive {
            builder
                .keep_alive_interval(self.pace.stretch(keepalive.interval))
                .keep_alive_timeout(keepalive.timeout)
                .keep_alive_while_idle(keepalive.while_idle);
        }
        let (sender, driving) = builder.handshake(TokioIo::new(io)).await?;
        Ok((sender, driving, greeting, left))
    }
}

// === impl Tasks ===

impl Tasks {
    fn new(abort: Abort) -> Self {
        Self { abort, connected: Arc::default() }
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        if self.connected.swap(true, Ordering::Relaxed) {
            tokio::spawn(task);
            return;
        }
        let abort = self.abort.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = abort.requested() => {}
                () = task => {}
            }
        });
    }
}

fn too_many_pings(error: &hyper::Error) -> bool {
    h2_error(error).and_then(h2::Error::reason) == Some(h2::Reason::ENHANCE_YOUR_CALM)
}

/// The HTTP/2 error within.
pub(crate) fn h2_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a h2::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref() {
            return Some(h2);
        }
        cause = error.source();
    }
    None
}

/// An error and all its sources in one line; a source that the text before it already says is not repeated.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}
