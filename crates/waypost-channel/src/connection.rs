//! One HTTP/2 connection: making it, and noticing that it has closed.

use crate::connector::{Connector, Transport};
use crate::fleet::ConnectionId;
use crate::greeting::{Greeted, Greeting};
use crate::last_words::LastWords;
use crate::outgoing::Outgoing;
use crate::settings::Settings;
use crate::table::Pace;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::error::Error as StdError;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use waypost_balance::EndpointState;
use waypost_model::Endpoint;

/// What became of an attempt, told to the driver.
pub(crate) struct Event {
    pub(crate) id: ConnectionId,
    pub(crate) endpoint: Endpoint,
    pub(crate) what: What,
}

pub(crate) enum What {
    Connected(SendRequest<Outgoing>),
    Failed(Arc<str>),
    Closed(Arc<str>),
}

/// One attempt to connect, and the connection that comes of it.
pub(crate) struct Attempt {
    pub(crate) id: ConnectionId,
    pub(crate) state: Arc<EndpointState>,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    /// Ends the attempt, and the connection with all its streams.
    pub(crate) abort: CancellationToken,
}

/// Runs what belongs to a connection for as long as it is not aborted.
#[derive(Clone)]
struct Tasks {
    abort: CancellationToken,
}

type Driving = http2::Connection<TokioIo<Greeted<LastWords<Transport>>>, Outgoing, Tasks>;

/// Per stream, and per connection: a slow reader of one stream must not hold up the seven others that fit.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

// === impl Attempt ===

impl Attempt {
    /// Runs to the end of the connection.
    pub(crate) async fn run(self) {
        let endpoint = self.state.endpoint().clone();
        let tell = |what| {
            // The driver has ended: nobody wants to know.
            let _ = self.events.send(Event { id: self.id, endpoint: endpoint.clone(), what });
        };
        let limit = self.settings.connect_timeout;
        let made = tokio::select! {
            () = self.abort.cancelled() => return,
            made = timeout(limit, self.establish(&endpoint)) => made,
        };
        let (sender, driving) = match made {
            Ok(Ok(made)) => made,
            Ok(Err(cause)) => return tell(What::Failed(cause)),
            Err(_) => return tell(What::Failed(format!("no HTTP/2 connection within {limit:?}").into())),
        };
        tracing::debug!(%endpoint, "connected");
        tell(What::Connected(sender));
        let ended = tokio::select! {
            () = self.abort.cancelled() => Ok(()),
            ended = driving => ended,
        };
        // At once, not when the driver gets to it: no later pick is to find this open.
        self.state.close();
        let cause: Arc<str> = match ended {
            Ok(()) => "the server closed the connection".into(),
            Err(error) => {
                if too_many_pings(&error) {
                    self.pace.slow_down();
                }
                chain(&error).into()
            }
        };
        tracing::debug!(%endpoint, %cause, "connection closed");
        tell(What::Closed(cause));
    }

    /// Connects and waits until the server serves.
    async fn establish(&self, endpoint: &Endpoint) -> Result<(SendRequest<Outgoing>, Driving), Arc<str>> {
        let transport = self.connector.connect(endpoint.clone()).await.map_err(|error| chain(&error))?;
        let (io, greeting) = Greeted::new(LastWords::new(transport));
        let mut builder = http2::Builder::new(Tasks { abort: self.abort.clone() });
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        if let Some(keepalive) = self.settings.keepalive {
            builder
                .keep_alive_interval(self.pace.stretch(keepalive.interval))
                .keep_alive_timeout(keepalive.timeout)
                .keep_alive_while_idle(keepalive.while_idle);
        }
        let (sender, mut driving) =
            builder.handshake(TokioIo::new(io)).await.map_err(|error| chain(&error))?;
        tokio::select! {
            // What it said tells more than that it then hung up.
            biased;
            heard = greeting => match heard {
                Ok(Greeting::Http2) => Ok((sender, driving)),
                Ok(Greeting::Foreign) => Err("what answers there does not speak HTTP/2".into()),
                Err(_) => Err("closed by the server before it had said anything".into()),
            },
            ended = &mut driving => Err(match ended {
                Ok(()) => "closed by the server before it had said anything".into(),
                Err(error) => chain(&error).into(),
            }),
        }
    }
}

// === impl Tasks ===

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let abort = self.abort.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = abort.cancelled() => {}
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
