//! The end of a registry, in an order that loses no call.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use waypost_model::Status;

use crate::{
    driver::{Command, Replies, Reply, Who},
    error::RegisterError,
    machine::edit::Amendment,
    options::RegistryOptions,
    registry::Registry,
};

/// How long each part of a graceful shutdown may take.
#[derive(Debug, Clone)]
pub struct ShutdownOptions {
    drain: bool,
    grace: Duration,
    stop: Duration,
    deadline: Duration,
}

/// What came of a graceful shutdown.
#[derive(Debug)]
pub struct ShutdownReport<T> {
    /// What the server's own end gave; `None` if it did not come within its time.
    pub stopped: Option<T>,
    /// Whether etcd has confirmed that every key and lease is gone.
    pub deregistered: Result<(), RegisterError>,
}

// === impl ShutdownOptions ===

impl ShutdownOptions {
    /// The grace and deadline of the registry's options, and 30 s for the server to finish its calls.
    pub fn new(options: &RegistryOptions) -> Self {
        Self { drain: true, grace: options.grace, stop: Duration::from_secs(30), deadline: options.deadline }
    }

    /// Whether instances are marked `draining` before they are deregistered: by default they are.
    pub fn drain(mut self, drain: bool) -> Self {
        self.drain = drain;
        self
    }

    /// How long the server goes on as before, after its keys are gone, for watchers to have seen it.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long the server may take to finish what it has: 30 s by default.
    pub fn stop(mut self, stop: Duration) -> Self {
        self.stop = stop;
        self
    }

    /// How long etcd may take to answer, over all steps together.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

// === impl Registry ===

impl Registry {
    /// The times of this registry for [`shutdown_gracefully`](Self::shutdown_gracefully).
    pub fn shutdown_options(&self) -> ShutdownOptions {
        ShutdownOptions::new(&self.context.options)
    }

    /// Deregisters everything, revokes every lease, and ends every task of this registry, within `deadline`.
    ///
    /// If etcd does not confirm that in time the tasks are ended all the same: nothing is renewed any more, and etcd
    /// deletes the keys by itself when their leases expire. Nothing can be registered afterwards. Not cancel safe: once
    /// dropped, what is left of the registry goes on until it is shut down again.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), RegisterError> {
        for group in self.close() {
            let _ = group.send(Command::Close);
        }
        let tasks = &self.context.tasks;
        tasks.close();
        let Err(_) = tokio::time::timeout(deadline, tasks.wait()).await else { return Ok(()) };
        self.context.kill.cancel();
        tasks.wait().await;
        Err(RegisterError::NotShutDown { within: deadline, ttl: self.context.options.ttl })
    }

    /// Shuts down so that no call is lost: marks every instance `draining`, deregisters it, waits until watchers can
    /// have seen that (the grace), then runs `stop`, and revokes the leases.
    ///
    /// `stop` is the server's part: stop accepting, finish the calls in flight. It is not polled before the grace is
    /// over, so that the server goes on serving until then, and is dropped when its time is over. Not cancel safe, as
    /// [`shutdown`](Self::shutdown).
    ///
    /// ```no_run
    /// # async fn example(registry: waypost_registry::Registry, stop_the_server: impl Future<Output = ()>) {
    /// use std::time::Duration;
    /// let options = registry.shutdown_options().stop(Duration::from_secs(10));
    /// let report = registry.shutdown_gracefully(options, stop_the_server).await;
    /// if let Err(error) = report.deregistered {
    ///     eprintln!("{error}");
    /// }
    /// # }
    /// ```
    pub async fn shutdown_gracefully<F: Future>(
        &self,
        options: ShutdownOptions,
        stop: F,
    ) -> ShutdownReport<F::Output> {
        let mut budget = options.deadline;
        let groups = self.close();
        if options.drain {
            let amendments = vec![Amendment::Status(Status::Draining)];
            let amend = |reply| Command::Amend { who: Who::All, amendments: amendments.clone(), reply };
            self.tell_groups(&groups, amend, &mut budget).await;
        }
        let leave = |reply| Command::Deregister { who: Who::All, reply: Some(reply), hold_lease: true };
        self.tell_groups(&groups, leave, &mut budget).await;
        tokio::time::sleep(options.grace).await;
        let stopped = tokio::time::timeout(options.stop, stop).await.ok();
        let deregistered = self.shutdown(budget).await;
        ShutdownReport { stopped, deregistered }
    }

    /// Lets nobody join any more; answers the groups there are.
    fn close(&self) -> Vec<mpsc::UnboundedSender<Command>> {
        let mut roster = self.context.roster();
        roster.closed = true;
        roster.placement.handles().cloned().collect()
    }

    /// Gives every group a command and waits until everybody in it has answered, as long as the budget lasts.
    async fn tell_groups(
        &self,
        groups: &[mpsc::UnboundedSender<Command>],
        command: impl Fn(Replies) -> Command,
        budget: &mut Duration,
    ) {
        let started = Instant::now();
        // Everybody who has to answer holds the channel open; nothing is ever sent through it.
        let (open, mut answered) = mpsc::channel::<()>(1);
        let open = Arc::new(open);
        for group in groups {
            let open = Arc::clone(&open);
            let reply = move || -> Reply {
                let open = Arc::clone(&open);
                Box::new(move |_| drop(open))
            };
            let _ = group.send(command(Box::new(reply)));
        }
        drop(open);
        // Running out of time is reported by the shutdown that follows.
        let _ = tokio::time::timeout(*budget, answered.recv()).await;
        *budget = budget.saturating_sub(started.elapsed());
    }
}
