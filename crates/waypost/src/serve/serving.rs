//! A server that runs, and how it ends.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use waypost_registry::{Registration, Registry, ShutdownOptions};

use crate::error::ServeError;
use crate::signals::Termination;

/// A server that runs and is registered, or will be. [`run`](Self::run) waits for its end.
///
/// Dropped, the server accepts nothing new and finishes its calls in the background, and the registration is ended there
/// too: best effort, without the order that [`Serve`](crate::Serve) tells.
#[must_use = "dropping it ends the server: run() it"]
pub struct Serving {
    pub(super) service: String,
    pub(super) address: SocketAddr,
    pub(super) registry: Registry,
    pub(super) registration: Registration,
    pub(super) reporter: HealthReporter,
    pub(super) names: Vec<&'static str>,
    pub(super) task: JoinHandle<Result<(), tonic::transport::Error>>,
    /// Breaks every connection.
    pub(super) cut: CancellationToken,
    pub(super) stop: oneshot::Sender<()>,
    pub(super) ends: Termination,
    pub(super) options: ShutdownOptions,
    pub(super) deadline: Duration,
}

/// The registry's time for the server is longer by this than the server's own, which is the one that counts.
pub(super) const STOP_SLACK: Duration = Duration::from_secs(1);

/// How long a deregistration may take that nobody wants to wait for.
const HURRY: Duration = Duration::from_secs(1);

// === impl Serving ===

impl Serving {
    /// Where it listens, with the port that it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its registration: the instance as it is advertised, and where it stands.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Serves until it is asked to end, then ends in the order that [`Serve`](crate::Serve) tells.
    ///
    /// # Errors
    /// [`ServeError::Server`] when the server failed, [`ServeError::Unfinished`] when calls had to be cut off,
    /// [`ServeError::CutShort`] when a second signal came,
    /// [`ServeError::Deregister`] when etcd has not confirmed that the key is gone.
    pub async fn run(self) -> Result<(), ServeError> {
        let Self { service, registry, registration, reporter, names, cut, stop, options, deadline, .. } =
            self;
        let (mut task, Termination { first, second }) = (self.task, self.ends);
        let failed = |source| ServeError::Server { service: service.clone(), source };

        tokio::select! {
            () = first => {}
            ended = &mut task => {
                // Nobody asked it to: its key must not outlive it.
                let gone = registry.shutdown(Duration::from_secs(5)).await;
                flatten(ended).map_err(failed)?;
                return gone.map_err(|source| ServeError::Deregister { service, source });
            }
        }
        tracing::info!(service, id = %registration.id(), "shutting down");
        reporter.set_service_status("", ServingStatus::NotServing).await;
        for name in names {
            reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
        let finish = async {
            // Fails only if the server has ended, which is what it asks for.
            let _ = stop.send(());
            match tokio::time::timeout(deadline, &mut task).await {
                Ok(ended) => Some(flatten(ended)),
                Err(_) => None,
            }
        };
        let report = tokio::select! {
            report = registry.shutdown_gracefully(options, finish) => Some(report),
            () = second => None,
        };
        let Some(report) = report else {
            task.abort();
            cut.cancel();
            // What is left of it is one request.
            let gone = registry.shutdown(HURRY).await;
            tracing::debug!(service, ?gone, "cut short");
            return Err(ServeError::CutShort { service });
        };
        let Some(ended) = report.stopped.flatten() else {
            task.abort();
            cut.cancel();
            return Err(ServeError::Unfinished { service, within: deadline });
        };
        ended.map_err(failed)?;
        report.deregistered.map_err(|source| ServeError::Deregister { service, source })
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("service", &self.service)
            .field("address", &self.address)
            .field("registration", &self.registration)
            .finish_non_exhaustive()
    }
}

/// A task that was aborted or panicked has nothing to say beyond what tokio has told.
fn flatten(
    ended: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>,
) -> Result<(), tonic::transport::Error> {
    ended.unwrap_or(Ok(()))
}
