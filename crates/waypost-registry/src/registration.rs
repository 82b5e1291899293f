//! One registration, in its owner's hands.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};
use waypost_model::{Field, Instance, InstanceId, Status};

use crate::{
    driver::{Command, Published, Replies, Reply, SeatId, Who},
    error::RegisterError,
    machine::edit::Amendment,
    state::RegistrationState,
};

/// An instance that is registered, or is about to be, until its owner ends it.
///
/// [`deregister`](Self::deregister) ends it and waits. Dropping it ends it too, in the background: best effort, since
/// nobody waits for etcd's answer. If the process or its runtime ends before that, the lease is not renewed any more and
/// etcd deletes the keys when it expires.
#[derive(Debug)]
#[must_use = "dropping a registration ends it"]
pub struct Registration {
    seat: SeatId,
    published: Arc<Published>,
    group: mpsc::UnboundedSender<Command>,
    deadline: Duration,
    ttl: Duration,
}

// === impl Registration ===

impl Registration {
    pub(crate) fn new(
        seat: SeatId,
        published: Arc<Published>,
        group: mpsc::UnboundedSender<Command>,
        deadline: Duration,
        ttl: Duration,
    ) -> Self {
        Self { seat, published, group, deadline, ttl }
    }

    /// `service/id`, for messages.
    pub fn name(&self) -> &str {
        &self.published.name
    }

    /// The id of the instance. With a layout that names instances by their lease, the id in etcd is another.
    pub fn id(&self) -> InstanceId {
        self.instance().id.clone()
    }

    /// The instance as it is wanted in etcd: as it was registered, with the address that others can dial, the changes
    /// made here, and those that an operator made by rewriting its value.
    pub fn instance(&self) -> Arc<Instance> {
        Arc::clone(&self.published.instance.borrow())
    }

    /// [`instance`](Self::instance), followed: an operator who drains the instance is seen here.
    pub fn instances(&self) -> watch::Receiver<Arc<Instance>> {
        self.published.instance.subscribe()
    }

    /// What the instance says and the layout has no place for.
    pub fn lost(&self) -> &[Field] {
        &self.published.lost
    }

    /// Where the registration stands, now and from now on.
    pub fn state(&self) -> watch::Receiver<RegistrationState> {
        self.published.state.subscribe()
    }

    /// Waits until it is registered, for as long as that takes. Cancel safe.
    ///
    /// # Errors
    /// [`RegisterError::Conflict`] if it was refused, [`RegisterError::Deregistered`] if it was ended before.
    pub async fn registered(&self) -> Result<(), RegisterError> {
        let mut state = self.state();
        let reached = state.wait_for(|state| state.is_registered() || state.is_final()).await;
        match reached.as_deref() {
            Ok(RegistrationState::Registered { .. }) => Ok(()),
            _ => Err(self.ended()),
        }
    }

    /// Changes the status, and waits until etcd has it, at most the registry's deadline.
    ///
    /// Cancel safe, as are the other changes: once called, the change is kept and will be written, whether it is waited
    /// for or not.
    ///
    /// # Errors
    /// [`RegisterError::NotWritten`] when the deadline passes, [`RegisterError::Superseded`] when another process has
    /// the key, [`RegisterError::Deregistered`] when the registration has ended. A layout without a place for what
    /// changes writes nothing and succeeds, see [`lost`](Self::lost).
    pub async fn set_status(&self, status: Status) -> Result<(), RegisterError> {
        self.amend(Amendment::Status(status)).await
    }

    /// `set_status(Status::Draining)`: nothing new, please.
    pub async fn drain(&self) -> Result<(), RegisterError> {
        self.set_status(Status::Draining).await
    }

    /// Changes the weight; see [`set_status`](Self::set_status).
    pub async fn set_weight(&self, weight: u32) -> Result<(), RegisterError> {
        self.amend(Amendment::Weight(weight)).await
    }

    /// Sets an entry of the metadata, or with `None` removes it; see [`set_status`](Self::set_status).
    pub async fn set_metadata(&self, key: &str, value: Option<&str>) -> Result<(), RegisterError> {
        self.amend(Amendment::Metadata(key.to_owned(), value.map(str::to_owned))).await
    }

    /// Ends the registration and waits until its keys are gone, at most the registry's deadline. A key that another
    /// process has put since stays.
    ///
    /// Cancel safe: once called, the deregistration goes on, whether it is waited for or not.
    ///
    /// # Errors
    /// [`RegisterError::NotRemoved`] when the deadline passes: the key will go when etcd answers, or with its lease.
    pub async fn deregister(self) -> Result<(), RegisterError> {
        let (reply, answer) = one_reply();
        let command = Command::Deregister { who: Who::One(self.seat), reply: Some(reply), hold_lease: false };
        let _ = self.group.send(command);
        match tokio::time::timeout(self.deadline, answer).await {
            // No answer will come where nothing was registered any more.
            Ok(answer) => answer.unwrap_or(Ok(())),
            Err(_) => Err(RegisterError::NotRemoved {
                instance: Arc::clone(&self.published.name),
                within: self.deadline,
                ttl: self.ttl,
                state: self.published.state.borrow().clone(),
            }),
        }
    }

    async fn amend(&self, amendment: Amendment) -> Result<(), RegisterError> {
        let (reply, answer) = one_reply();
        let command = Command::Amend { who: Who::One(self.seat), amendments: vec![amendment], reply };
        let _ = self.group.send(command);
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(self.ended())),
            Err(_) => Err(RegisterError::NotWritten {
                instance: Arc::clone(&self.published.name),
                within: self.deadline,
                state: self.published.state.borrow().clone(),
            }),
        }
    }

    fn ended(&self) -> RegisterError {
        let ended = || RegisterError::Deregistered { instance: Arc::clone(&self.published.name) };
        self.published.refusal.get().cloned().unwrap_or_else(ended)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // After a deregistration there is nothing left to end, and the group takes it as that.
        let _ =
            self.group.send(Command::Deregister { who: Who::One(self.seat), reply: None, hold_lease: false });
    }
}

/// A command's way to answer one caller.
fn one_reply() -> (Replies, oneshot::Receiver<Result<(), RegisterError>>) {
    let (sender, receiver) = oneshot::channel();
    let mut sender = Some(sender);
    let reply = move || -> Reply {
        let sender = sender.take();
        Box::new(move |result| {
            if let Some(sender) = sender {
                // A caller that does not wait any more does not need to know.
                let _ = sender.send(result);
            }
        })
    };
    (Box::new(reply), receiver)
}
