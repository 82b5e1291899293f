//! One watch stream: its watches, and the queue of what it has not been sent yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::hub::HubOptions;
use super::index::Wants;
use super::response::{Body, Events, Response};
use super::span::Span;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) watches: BTreeMap<i64, Watch>,
    /// Whether any of its watches, of now or before, is to be told of progress.
    pub(super) tells_progress: bool,
    /// Watches that are behind: the first revision that each has not got, and its id.
    pub(super) behind: BTreeSet<(i64, i64)>,
    /// Ids of watches that a compaction ended. As in etcd an id stays taken until the client cancels the watch too.
    pub(super) ended: BTreeSet<i64>,
    /// When progress is next looked at, in milliseconds.
    pub(super) tick_at: u64,
    /// The id that the next watch gets, if free.
    next_id: i64,
    queue: VecDeque<Response>,
    queued_bytes: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Watch {
    pub(super) span: Span,
    pub(super) wants: Wants,
    /// The start revision that was asked for.
    pub(super) start: i64,
    /// Unique among all watches there have been: an id may be used again within a stream.
    pub(super) serial: u64,
    pub(super) state: State,
    pub(super) notify: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// In the index; has got all that was published.
    InStep,
    /// Has got all before this revision.
    Behind { next: i64 },
}

/// Progress notifications of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notify {
    /// Not asked for.
    Never,
    /// Nothing was sent since the last tick.
    Idle,
    /// Events were sent since the last tick.
    Busy,
}

/// Answers at most for which a queue keeps room when it has been taken.
const KEPT: usize = 128;

// === impl Stream ===

impl Stream {
    pub(super) fn new(tick_at: u64) -> Self {
        Self {
            watches: BTreeMap::new(),
            tells_progress: false,
            behind: BTreeSet::new(),
            ended: BTreeSet::new(),
            tick_at,
            next_id: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
        }
    }

    /// The id for a new watch; `None` if the one that is asked for is taken. Zero asks for any.
    pub(super) fn claim_id(&mut self, wanted: i64) -> Option<i64> {
        if wanted != 0 {
            return (!self.is_taken(wanted)).then_some(wanted);
        }
        while self.is_taken(self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        Some(id)
    }

    fn is_taken(&self, id: i64) -> bool {
        self.watches.contains_key(&id) || self.ended.contains(&id)
    }

    /// Whether events of this size may be queued. An empty queue takes events of any size.
    pub(super) fn has_room(&self, responses: usize, bytes: usize, options: &HubOptions) -> bool {
        self.queue.is_empty()
            || (self.queue.len() + responses <= options.queue_responses
                && self.queued_bytes + bytes <= options.queue_bytes)
    }

    /// Whether the queue is full, so that nothing should be asked of the stream before it is taken.
    pub(super) fn is_congested(&self, options: &HubOptions) -> bool {
        self.queue.len() >= options.queue_responses || self.queued_bytes >= options.queue_bytes
    }

    /// Queues an answer; `true` if it is the first, so that the stream must be woken.
    pub(super) fn push(&mut self, response: Response) -> bool {
        if self.tells_progress
            && let Body::Events { .. } = response.body
            && let Some(watch) = self.watches.get_mut(&response.watch_id)
            && watch.notify == Notify::Idle
        {
            watch.notify = Notify::Busy;
        }
        self.queued_bytes += response.size();
        self.queue.push_back(response);
        self.queue.len() == 1
    }

    /// Queues events for a watch; `true` likewise.
    pub(super) fn push_parts(&mut self, watch_id: i64, revision: i64, parts: &[Arc<Events>]) -> bool {
        (0..parts.len()).rev().zip(parts).fold(false, |first, (rest, part)| {
            let body = Body::Events { events: Arc::clone(part), more: rest != 0 };
            self.push(Response { watch_id, revision, body }) || first
        })
    }

    pub(super) fn take(&mut self) -> Vec<Response> {
        if self.queue.is_empty() {
            return Vec::new();
        }
        self.queued_bytes = 0;
        // What comes next is probably as much.
        let next = VecDeque::with_capacity(self.queue.len().min(KEPT));
        std::mem::replace(&mut self.queue, next).into()
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }
}
