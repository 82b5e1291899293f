//! The engine: what the services ask, and the one writer.
//!
//! Every request that changes something is a [`Job`] in the queue of the writer, which applies all that wait,
//! commits them with one sync, makes them visible, publishes them to those who watch, and only then answers. Readers share
//! the key space under a lock that the writer does not hold while it waits for the disk.
//!
//! Locks are taken in this order: writer, key space, auth, alarms; the hub's by itself. None is held across an await.

mod alarms;
mod desk;
mod door;
mod follow;
mod mail;
mod member;
mod read;
mod shared;

mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use waypost_proto::etcdserverpb::ResponseHeader;

pub(super) use self::alarms::Alarms;
pub(super) use self::desk::Desk;
use self::door::{Door, Unannounced};
pub(super) use self::follow::Follow;
pub(super) use self::mail::Mail;
use self::mail::Tell;
pub(super) use self::member::{Member, PEER_URL};
pub(super) use self::shared::{Shared, lock, read, write};
use crate::auth::{Identity, Policy};
use crate::error::Refusal;
use crate::mvcc::StoreError;

/// A request that writes.
pub(super) struct Job {
    pub(super) apply: Box<dyn FnOnce(&mut Desk<'_>) -> Tell + Send>,
    pub(super) bytes: usize,
    /// How it is answered.
    mail: Option<Arc<Mail>>,
}

/// What may wait to be written; more is refused.
const MAX_WAITING: usize = 50_000;
/// The same in bytes.
const MAX_WAITING_BYTES: usize = 512 << 20;

/// The way to the engine; cheap to clone. When the last one is gone the writer ends.
#[derive(Clone)]
pub(super) struct Engine {
    pub(super) shared: Arc<Shared>,
    door: Arc<Door>,
    /// Whether it is asked by threads that serve connections and nothing else, and so may wait for a quick disk.
    in_lane: bool,
}

// === impl Engine ===

impl Engine {
    /// Starts the thread that writes; it ends when the last clone of the engine is gone.
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<(Self, JoinHandle<()>)> {
        let (door, thread) = Door::open(&shared)?;
        Ok((Self { shared, door: Arc::new(door), in_lane: false }, thread))
    }

    /// The way for requests that may take long, whoever makes them.
    pub(super) fn at_length(&self) -> Self {
        Self { in_lane: false, ..self.clone() }
    }

    /// The way for those who run in a [lane](super::lanes).
    pub(super) fn in_lane(&self) -> Self {
        Self { in_lane: true, ..self.clone() }
    }

    /// Has the writer do something, and waits until it is on disk. When the caller goes away, it is done nevertheless.
    pub(super) async fn write<A, F>(&self, bytes: usize, request: F) -> Result<A, Refusal>
    where
        A: Send + 'static,
        F: FnOnce(&mut Desk<'_>) -> Result<A, StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let request = self.queue(bytes, move |desk| {
            let outcome = request(desk).map_err(|error| error.refusal());
            Box::new(move |verdict| {
                // The caller may have gone.
                let _ = sender.send(verdict.and(outcome));
            })
        })?;
        // Whoever can run by now puts a request into the queue first, and is written with this one.
        tokio::task::yield_now().await;
        if self.in_lane {
            request.write_here(&self.shared);
        } else {
            drop(request);
        }
        receiver.await.unwrap_or(Err(Refusal::Stopped))
    }

    /// Has the writer do something, without waiting.
    pub(super) fn submit<F>(&self, bytes: usize, apply: F) -> Result<(), Refusal>
    where
        F: FnOnce(&mut Desk<'_>) -> Tell + Send + 'static,
    {
        self.queue(bytes, apply).map(drop)
    }

    fn queue<F>(&self, bytes: usize, apply: F) -> Result<Unannounced<'_>, Refusal>
    where
        F: FnOnce(&mut Desk<'_>) -> Tell + Send + 'static,
    {
        if bytes > self.shared.options.max_request_bytes {
            return Err(Refusal::RequestTooLarge);
        }
        let waiting = self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting_bytes = self.shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting >= MAX_WAITING || waiting_bytes >= MAX_WAITING_BYTES {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refusal::TooManyRequests);
        }
        self.door.put(Job { apply: Box::new(apply), bytes, mail: Mail::here() }).ok_or(Refusal::Stopped)
    }

    /// Users and roles as they are on disk.
    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&read(&self.shared.policy))
    }

    /// Who shows this token.
    pub(super) fn identify(&self, token: Option<&str>) -> Result<Identity, Refusal> {
        if !read(&self.shared.policy).is_enabled() {
            return Ok(Identity::Anonymous);
        }
        lock(&self.shared.auth).identify(token, self.shared.now())
    }

    /// The user of this name, whoever vouches for it. With auth off, nobody.
    pub(super) fn named(&self, name: &str) -> Identity {
        let policy = self.policy();
        if policy.is_enabled() {
            Identity::User { name: name.into(), revision: policy.revision() }
        } else {
            Identity::Anonymous
        }
    }

    /// The header of an answer, at the visible revision.
    pub(super) fn header(&self) -> ResponseHeader {
        let revision = read(&self.shared.space).store().revision();
        self.header_at(revision)
    }

    /// The header of an answer at a revision.
    pub(super) fn header_at(&self, revision: i64) -> ResponseHeader {
        let Member { id, cluster, term, .. } = self.shared.member;
        ResponseHeader { cluster_id: cluster, member_id: id, revision, raft_term: term }
    }

    /// Completes the header of an answer of the core.
    pub(super) fn complete(&self, header: &mut Option<ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        *header = Some(self.header_at(revision));
    }
}
