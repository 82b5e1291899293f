//! The task behind a watcher: it holds the stream and carries out what [`core`](super::core) decides.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};

use super::core::{Verdict, Watches};
use super::{WatchEvent, WatchId, WatchSpec};
use crate::backoff::Backoff;
use crate::call::{Cluster, Session, with_leader};
use crate::error::{Error, ErrorKind};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_request::RequestUnion;

/// Waits between attempts to resume; the first is made at once.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// A stream that has answered for this long was worth opening. One that is closed again at once is not tried at full
/// speed.
const PROVEN: Duration = Duration::from_millis(100);

/// What the owner asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    Add(WatchId, WatchSpec),
    Remove(WatchId),
}

struct Driver {
    cluster: Arc<Cluster>,
    watches: Watches,
    inbox: mpsc::UnboundedReceiver<Command>,
    outbox: mpsc::Sender<WatchEvent>,
    backoff: Backoff,
    /// The consumer knows of the outage.
    interrupted: bool,
    /// The token was renewed since the last answer.
    token_renewed: bool,
}

/// A stream that stands.
struct Stream {
    session: Session,
    requests: mpsc::UnboundedSender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

/// Why a stream was left.
enum Left {
    /// The owner is gone.
    Dropped,
    /// There is nothing to watch.
    Idle,
    /// It broke or went silent.
    Broken(Error),
    /// A new token is there: open another stream at once.
    TokenRenewed,
}

/// Serve one watcher until it is dropped.
pub(super) async fn run(
    cluster: Arc<Cluster>,
    inbox: mpsc::UnboundedReceiver<Command>,
    outbox: mpsc::Sender<WatchEvent>,
) {
    let watches = Watches::default();
    let mut driver = Driver {
        cluster,
        watches,
        inbox,
        outbox,
        backoff: Backoff::eager(FIRST_WAIT, LONGEST_WAIT),
        interrupted: false,
        token_renewed: false,
    };
    loop {
        if driver.watches.is_empty() {
            match driver.inbox.recv().await {
                Some(command) => driver.obey(command, None),
                None => return,
            }
            continue;
        }
        match driver.serve_stream().await {
            Left::Dropped => return,
            Left::Idle | Left::TokenRenewed => {}
            Left::Broken(error) => {
                if driver.outage(error).await.is_err() {
                    return;
                }
            }
        }
    }
}

// === impl Driver ===

impl Driver {
    fn obey(&mut self, command: Command, stream: Option<&Stream>) {
        match command {
            Command::Add(id, spec) => {
                self.watches.add(id, spec);
                if let (Some(stream), Some(request)) = (stream, self.watches.request(id)) {
                    let _ = stream.requests.send(request);
                }
            }
            Command::Remove(id) => {
                if let (true, Some(stream)) = (self.watches.remove(id), stream) {
                    let cancel = pb::WatchCancelRequest { watch_id: id.0 };
                    let _ = stream
                        .requests
                        .send(pb::WatchRequest { request_union: Some(RequestUnion::CancelRequest(cancel)) });
                }
            }
        }
    }

    /// Open a stream with all watches, and serve it until it ends.
    async fn serve_stream(&mut self) -> Left {
        while let Ok(command) = self.inbox.try_recv() {
            self.obey(command, None);
        }
        if self.watches.is_empty() {
            return Left::Idle;
        }
        let operation = self.watches.operation();
        let session = tokio::select! {
            session = self.cluster.session(&operation) => match session {
                Ok(session) => session,
                Err(error) => return Left::Broken(error),
            },
            () = self.outbox.closed() => return Left::Dropped,
        };
        let (requests, outbox) = mpsc::unbounded_channel();
        for request in self.watches.requests() {
            // The receiver is held below.
            let _ = requests.send(request);
        }
        let request = with_leader(session.request(UnboundedReceiverStream::new(outbox)));
        let mut service = session.watch();
        let opening = tokio::time::timeout(self.cluster.request_timeout, service.watch(request));
        let opened = tokio::select! {
            opened = opening => opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer to a watch"))),
            () = self.outbox.closed() => return Left::Dropped,
        };
        match opened {
            Ok(answers) => self.serve(Stream { session, requests, answers: answers.into_inner() }).await,
            Err(status) => self.broken(&session, status).await,
        }
    }

    async fn serve(&mut self, mut stream: Stream) -> Left {
        let opened = Instant::now();
        let mut heard = opened;
        let mut asked = false;
        loop {
            let patience =
                if asked { self.cluster.keepalive_timeout } else { self.cluster.keepalive_interval };
            let answer = tokio::select! {
                answer = stream.answers.message() => answer,
                command = self.inbox.recv() => {
                    let Some(command) = command else { return Left::Dropped };
                    self.obey(command, Some(&stream));
                    if self.watches.is_empty() {
                        return Left::Idle;
                    }
                    continue;
                }
                () = tokio::time::sleep_until(heard + patience) => {
                    if asked {
                        let status = Status::deadline_exceeded(format!(
                            "no answer to a progress request within {:?}", self.cluster.keepalive_timeout
                        ));
                        return self.broken(&stream.session, status).await;
                    }
                    asked = true;
                    heard = Instant::now();
                    let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                    let _ = stream.requests.send(pb::WatchRequest { request_union: Some(progress) });
                    continue;
                }
            };
            let answer = match answer {
                Ok(Some(answer)) => answer,
                Ok(None) => {
                    let status = Status::unavailable("etcd ended the stream");
                    return self.broken(&stream.session, status).await;
                }
                Err(status) => {
                    return self.broken(&stream.session, status).await;
                }
            };
            if opened.elapsed() >= PROVEN {
                self.backoff.succeed();
            }
            self.token_renewed = false;
            self.cluster.pool.worked(&stream.session.link);
            let may_renew = self.cluster.auth.has_credentials();
            match self.watches.answered(answer, stream.session.link.endpoint(), may_renew) {
                Verdict::Tell(events) => {
                    for event in events {
                        self.interrupted = false;
                        if self.outbox.send(event).await.is_err() {
                            return Left::Dropped;
                        }
                    }
                }
                Verdict::RenewToken => {
                    return match self.cluster.renew(&self.watches.operation(), &stream.session).await {
                        Ok(()) => Left::TokenRenewed,
                        Err(error) => Left::Broken(error),
                    };
                }
            }
            if self.watches.is_empty() {
                return Left::Idle;
            }
            // Counted after the consumer took the events: its slowness is not the server's silence.
            heard = Instant::now();
            asked = false;
        }
    }

    async fn broken(&mut self, session: &Session, status: Status) -> Left {
        let operation = &self.watches.operation();
        if self.cluster.auth.can_renew(&status) {
            return match self.cluster.renew(operation, session).await {
                // Once at once, then with the waits of an outage: a token that is refused again is no cure.
                Ok(()) if !self.token_renewed => {
                    self.token_renewed = true;
                    Left::TokenRenewed
                }
                Ok(()) => Left::Broken(Error::from_status(operation, session.link.endpoint(), status)),
                Err(error) => Left::Broken(error),
            };
        }
        let error = self.cluster.stream_failed(operation, &session.link, status);
        if error.kind() == ErrorKind::TooLarge {
            // One event above the limit: every resumption would meet it again.
            for event in self.watches.refuse_all(&error) {
                if self.outbox.send(event).await.is_err() {
                    return Left::Dropped;
                }
            }
            return Left::Idle;
        }
        Left::Broken(error)
    }

    /// Tell of the outage once, and wait before the next attempt: not at all at first, then with full jitter.
    async fn outage(&mut self, cause: Error) -> Result<(), Dropped> {
        tracing::debug!(%cause, "watch interrupted");
        if !self.interrupted {
            self.interrupted = true;
            self.outbox.send(WatchEvent::Interrupted { cause }).await.map_err(|_| Dropped)?;
        }
        let until = Instant::now() + self.backoff.fail(fastrand::f64());
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = self.outbox.closed() => return Err(Dropped),
                command = self.inbox.recv() => match command {
                    Some(command) => self.obey(command, None),
                    None => return Err(Dropped),
                },
            }
        }
    }
}

/// The watcher was dropped.
struct Dropped;
