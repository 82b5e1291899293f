//! Makes the connections of a channel: HTTP/2, as gRPC wants it.

use crate::backoff::Backoff;
use crate::connector::{Connector, Transport};
use crate::dial::{Abort, Dial, DialError, Dialed};
use crate::greeting::Greeting;
use crate::health::{self, Asked};
use crate::keepalive;
use crate::line::Http2;
use crate::settings::Keepalive;
use crate::table::Pace;
use crate::traffic::Traffic;
use crate::whole::Chunk;
use crate::wire::Wire;
use futures::future::BoxFuture;
use h2::PingPong;
use h2::client::{Builder, Connection};
use http::uri::{Authority, Scheme};
use std::error::Error as StdError;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use waypost_model::Endpoint;

/// Makes them.
#[derive(Clone)]
pub(crate) struct Http2Dialer {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) asked: Asked,
    pub(crate) backoff: Backoff,
}

/// What looks after a connection, whose driving task does nothing else.
struct Guard {
    driving: AbortOnDropHandle<Result<(), h2::Error>>,
    abort: Abort,
    pings: Option<(PingPong, Keepalive)>,
    traffic: Arc<Traffic>,
    pace: Arc<Pace>,
}

/// Dropped when a connection has ended: also where its runtime has, which drops tasks wherever they stand.
struct End(Arc<Traffic>);

type Driving = Connection<Wire<Transport>, Chunk>;

/// What a server may send of a response that is not read.
const STREAM_WINDOW: u32 = 2 << 20;
/// Of all of them together: no bound, for whoever leaves some unread must not hold up the others. Each has its own.
const CONNECTION_WINDOW: u32 = 1 << 30;
/// Of a response, with 32 bytes for each. One that goes beyond may end the connection, with all its calls: so more than hyper's 16 KiB, which
/// the details of a status can reach.
const MOST_HEADERS: u32 = 1 << 20;
/// What a stream is given room for beyond what it has sent, as hyper has it.
const SEND_BUFFER: usize = 1 << 20;
/// Calls that were given up and may still be answered: h2 knows so many, for so long. It takes no notice of their frames; those of
/// streams that it has forgotten it resets again.
const MOST_GIVEN_UP: usize = 10_000;
const GIVEN_UP_FOR: Duration = Duration::from_secs(10);

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
        let traffic = Arc::new(Traffic::of(&abort));
        let transport = self.connector.connect(endpoint).await?;
        let (io, mut greeting) = Wire::new(transport, Arc::clone(&traffic), Arc::clone(&self.pace));
        let (sender, mut driving): (_, Driving) = builder().handshake(io).await?;
        let pings = driving.ping_pong();
        let (heard, ended) = tokio::select! {
            biased;
            heard = &mut greeting => (heard.ok(), None),
            ended = &mut driving => (greeting.try_recv().ok(), Some(ended)),
        };
        match (heard, ended) {
            // What it said tells more than that it then hung up.
            (Some(Greeting::Foreign), _) => return Err("what answers there does not speak HTTP/2".into()),
            (_, Some(Err(error))) => return Err(error.into()),
            (Some(Greeting::Http2), None) => {}
            (_, Some(Ok(())) | None) => {
                return Err("closed by the server before it had said anything".into());
            }
        }
        let guard = Guard {
            driving: AbortOnDropHandle::new(tokio::spawn(driving)),
            abort,
            pings: pings.zip(self.keepalive),
            traffic: Arc::clone(&traffic),
            pace: self.pace,
        };
        let (told, ended) = oneshot::channel();
        let (left, end) = (traffic.left.clone(), End(Arc::clone(&traffic)));
        tokio::spawn(async move {
            let cause = guard.stand().await;
            drop(end);
            // Nobody asks any more: the connection has taken leave, and its last calls are over.
            let _ = told.send(cause);
        });
        let closed = async move {
            tokio::select! {
                ended = ended => ended.unwrap_or_else(|_| "the runtime has ended".to_owned()),
                // Calls that it has taken go on; the guard stays with them.
                () = left.cancelled() => "the server takes no more calls on this connection".to_owned(),
            }
        };
        let connection = Http2::new(sender, scheme, authority, traffic);
        let fitness = health::follow(connection.clone(), self.asked, self.backoff);
        Ok(Dialed::new(connection, closed).with_fitness(fitness))
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MOST_HEADERS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(MOST_GIVEN_UP)
        .reset_stream_duration(GIVEN_UP_FOR)
        // These two guard servers against clients. They count over the whole life of a connection, and would end one on which
        // calls are given up often, or whose small messages are read late; their bytes flow control bounds in any case.
        .max_local_error_reset_streams(None)
        .data_frame_budget(usize::MAX);
    builder
}

// === impl Guard ===

impl Guard {
    /// Until the connection has ended, or has to: whatever is still under way on it then ends too. Says why.
    async fn stand(self) -> String {
        let Self { driving, abort, pings, traffic, pace } = self;
        let silence = async {
            match pings {
                Some((pings, rule)) => keepalive::watch(pings, rule, &traffic, &pace).await,
                None => pending().await,
            }
        };
        tokio::select! {
            ended = driving => match ended {
                Ok(Ok(())) => "the server closed the connection".to_owned(),
                Ok(Err(error)) => chain(&error),
                Err(error) => chain(&error),
            },
            () = abort.requested() => {
                traffic.close();
                "the connection was given up".to_owned()
            }
            silence = silence => {
                traffic.silent.get_or_init(|| silence);
                traffic.close();
                format!("the server has not answered a ping within {silence:?}")
            }
        }
    }
}

// === impl End ===

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
    }
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
