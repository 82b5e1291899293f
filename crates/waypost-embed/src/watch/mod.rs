//! Watches: who is told of which change, in which order, and what happens to those who are slow.
//!
//! The [`Hub`] is told of every revision as it becomes visible ([`Hub::publish`]) and queues answers for each stream,
//! which the stream's own task takes ([`Hub::take`]) and sends. It knows no runtime, no clock and no disk:
//!
//! - A watch is *in step* or *behind*. A watch in step gets events as they are published. A watch is behind when it asks
//!   for revisions of the past, or when the queue of its stream was full: a publication never waits, and a slow stream
//!   holds no more than its queue.
//! - A watch that is behind is caught up from [`History`] by its stream's task, in steps that do not hold the hub:
//!   [`Hub::plan`], [`CatchUp::read`], [`Hub::deliver`].
//! - Each stream has one queue for everything, so a progress notification cannot overtake events, nor an event the answer
//!   that its watch was created.
//!
//! Order of calls that the rules rest on: a write is published *before* it is answered, and [`Hub::compact`] is called
//! *before* the first record is removed.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use waypost_embed::watch::{Body, History, Hub, HubOptions};
//! use waypost_proto::etcdserverpb::WatchCreateRequest;
//! use waypost_proto::mvccpb::{Event, KeyValue};
//!
//! /// A store that keeps nothing.
//! struct Forgetful;
//!
//! impl History for Forgetful {
//!     type Error = std::convert::Infallible;
//!
//!     fn changes(
//!         &self,
//!         _from: i64,
//!         _to: i64,
//!         _visit: &mut dyn FnMut(i64, Event) -> ControlFlow<()>,
//!     ) -> Result<(), Self::Error> {
//!         Ok(())
//!     }
//!
//!     fn before(&self, _key: &[u8], _revision: i64) -> Result<Option<KeyValue>, Self::Error> {
//!         Ok(None)
//!     }
//! }
//!
//! let mut hub = Hub::new(HubOptions::default(), 1, 0);
//! let stream = hub.open(0);
//! let request = WatchCreateRequest { key: "a".into(), range_end: "b".into(), ..Default::default() };
//! hub.create(stream, &request, Ok(()));
//!
//! let kv = KeyValue { key: "a1".into(), create_revision: 2, mod_revision: 2, version: 1, ..Default::default() };
//! hub.publish(2, &[Event { kv: Some(kv), ..Default::default() }], &Forgetful);
//!
//! assert_eq!(hub.wakeups(), [stream]);
//! let responses = hub.take(stream);
//! assert!(matches!(responses[0].body, Body::Created));
//! assert!(matches!(&responses[1].body, Body::Events { events, .. } if events.list().len() == 1));
//! ```

mod catch_up;
mod hub;
mod index;
mod intervals;
#[cfg(test)]
mod model;
mod progress;
mod response;
mod span;
mod stream;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use waypost_proto::mvccpb::{Event, KeyValue};

pub use catch_up::CatchUp;
pub use hub::{Counts, Hub, HubOptions};
pub use response::{Body, Events, Head, NO_WATCH, Response};
pub use span::{EmptySpan, Span};

/// A watch stream of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(crate) u64);

/// The changes of the past, as the store remembers them. What it answers must be consistent up to the newest revision
/// that was published.
pub trait History {
    /// Why the past cannot be read.
    type Error: std::error::Error;

    /// Visits the changes of the revisions `from..=to`, ascending by revision and, within one, in the order of its
    /// operations, each with its revision; `Break` ends the visit. A deletion carries only the key and the revision.
    /// `prev_kv` need not be set. Called only with a `from` that is not below the compact revision.
    fn changes(
        &self,
        from: i64,
        to: i64,
        visit: &mut dyn FnMut(i64, Event) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;

    /// What a key held just before a revision; `None` if it did not exist or that is compacted.
    fn before(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, Self::Error>;
}

/// Whether this event brought the key into being: there is nothing before it.
fn creates(event: &Event) -> bool {
    event.kv.as_ref().is_some_and(|kv| kv.version != 0 && kv.create_revision == kv.mod_revision)
}

/// The event with or without what the key held before.
fn with_previous<H: History>(
    event: &Event,
    wanted: bool,
    revision: i64,
    history: &H,
) -> Result<Event, H::Error> {
    let mut event = event.clone();
    if !wanted || creates(&event) {
        event.prev_kv = None;
    } else if event.prev_kv.is_none()
        && let Some(kv) = &event.kv
    {
        event.prev_kv = history.before(&kv.key, revision)?;
    }
    Ok(event)
}
