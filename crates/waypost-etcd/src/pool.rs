//! The endpoints of the cluster: which one is used, which are left alone for a while, and what is connected.
//!
//! A client stays with one endpoint while it works. One that fails is put off with exponential backoff and the
//! next one is used, so that an endpoint that is away costs the call that finds out one failed connect, and the
//! calls after it nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Channel;

use crate::error::{Error, ErrorKind, Operation};
use crate::options::{ClientOptions, EndpointOrder, EndpointUrl};
use crate::route::Route;

/// An endpoint is left alone this long after its first failure; doubled for each further one.
const PUT_OFF_FIRST: Duration = Duration::from_millis(100);
/// The longest an endpoint is left alone.
const PUT_OFF_MOST: Duration = Duration::from_secs(5);

/// All endpoints of a client.
#[derive(Debug)]
pub(crate) struct Pool {
    slots: Vec<Slot>,
    urls: Vec<EndpointUrl>,
    /// The slot that worked last.
    preferred: AtomicUsize,
}

#[derive(Debug)]
struct Slot {
    url: EndpointUrl,
    route: Route,
    /// Held while connecting, so that callers who come meanwhile share the attempt.
    channel: tokio::sync::Mutex<Option<Connected>>,
    health: Mutex<Health>,
}

#[derive(Clone, Debug)]
struct Connected {
    channel: Channel,
    serial: u64,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    put_off_until: Option<Instant>,
    /// Counts attempts to connect that failed, and what was wrong with the last one.
    refusals: u64,
    refusal: String,
    /// Counts connections; a failure reported for an earlier one does not close its successor.
    serial: u64,
}

/// A connection to one endpoint, and which it is, so that its failure can be told.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) channel: Channel,
    pub(crate) url: EndpointUrl,
    slot: usize,
    serial: u64,
}

// === impl Pool ===

impl Pool {
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, Error> {
        let urls = options.urls()?;
        let slots = urls.iter().map(|url| Slot::new(url, options)).collect::<Result<Vec<_>, _>>()?;
        let first = match options.order {
            EndpointOrder::Listed => 0,
            EndpointOrder::Random => fastrand::usize(..slots.len()),
        };
        Ok(Self { slots, urls, preferred: AtomicUsize::new(first) })
    }

    pub(crate) fn urls(&self) -> &[EndpointUrl] {
        &self.urls
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// A connection to the best endpoint not in `avoid`: the one that worked last, then those that have not
    /// failed of late, then the rest. Endpoints that refuse the connection are passed over.
    pub(crate) async fn link(&self, operation: &Operation, avoid: &[usize]) -> Result<Link, Error> {
        let mut last = None;
        for slot in self.candidates(Instant::now(), avoid) {
            match self.link_to(slot).await {
                Ok(link) => return Ok(link),
                Err(error) => last = Some((slot, error)),
            }
        }
        Err(match last {
            Some((slot, message)) => {
                let message = match self.slots.len() {
                    1 => message,
                    all => format!("none of {all} endpoints is reachable; the last one: {message}"),
                };
                Error::new(ErrorKind::Unavailable, operation, message).at(&self.slots[slot].url)
            }
            None => Error::new(ErrorKind::Unavailable, operation, "every endpoint was tried"),
        })
    }

    /// A connection to the endpoint of this number in the order given by the options.
    pub(crate) async fn link_to(&self, slot: usize) -> Result<Link, String> {
        let this = &self.slots[slot];
        let refusals = this.health().refusals;
        let mut connected = this.channel.lock().await;
        let serial = {
            let health = this.health();
            // The attempt that was waited for is this caller's too, also when it failed.
            if health.refusals != refusals {
                return Err(health.refusal.clone());
            }
            health.serial
        };
        if let Some(connected) = connected.as_ref().filter(|connected| connected.serial == serial) {
            let Connected { channel, serial } = connected.clone();
            return Ok(Link { channel, url: this.url.clone(), slot, serial });
        }
        *connected = None;
        let error = match this.route.connect().await {
            Ok(channel) => {
                let mut health = this.health();
                health.serial += 1;
                let serial = health.serial;
                *connected = Some(Connected { channel: channel.clone(), serial });
                return Ok(Link { channel, url: this.url.clone(), slot, serial });
            }
            Err(error) => error,
        };
        {
            let mut health = this.health();
            health.refusals += 1;
            health.refusal.clone_from(&error);
        }
        self.put_off(slot);
        tracing::debug!(endpoint = %this.url, error, "etcd endpoint refuses the connection");
        Err(error)
    }

    /// The endpoint answered.
    pub(crate) fn worked(&self, link: &Link) {
        self.preferred.store(link.slot, Ordering::Relaxed);
        let mut health = self.slots[link.slot].health();
        health.failures = 0;
        health.put_off_until = None;
    }

    /// The connection broke or went silent: close it, and leave the endpoint alone for a while.
    pub(crate) fn failed(&self, link: &Link) {
        {
            let mut health = self.slots[link.slot].health();
            if health.serial != link.serial {
                return;
            }
            health.serial += 1;
        }
        self.put_off(link.slot);
        tracing::debug!(endpoint = %link.url, "etcd endpoint is left alone for a while");
    }

    fn put_off(&self, slot: usize) {
        let mut health = self.slots[slot].health();
        let wait = PUT_OFF_FIRST.saturating_mul(1 << health.failures.min(10)).min(PUT_OFF_MOST);
        health.failures = health.failures.saturating_add(1);
        health.put_off_until = Some(Instant::now() + wait);
    }

    fn candidates(&self, now: Instant, avoid: &[usize]) -> Vec<usize> {
        let count = self.slots.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut order: Vec<usize> =
            (0..count).map(|offset| (first + offset) % count).filter(|slot| !avoid.contains(slot)).collect();
        order.sort_by_key(|slot| self.slots[*slot].health().put_off_until.filter(|until| *until > now));
        order
    }
}

// === impl Slot ===

impl Slot {
    fn new(url: &EndpointUrl, options: &ClientOptions) -> Result<Self, Error> {
        Ok(Self {
            url: url.clone(),
            route: Route::new(url, options)?,
            channel: tokio::sync::Mutex::default(),
            health: Mutex::default(),
        })
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Link ===

impl Link {
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// A name for error texts.
    pub(crate) fn endpoint(&self) -> &Arc<str> {
        &self.url
    }
}
