//! The hub: streams, watches, publication.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use waypost_proto::etcdserverpb::WatchCreateRequest;
use waypost_proto::mvccpb::Event;

use super::index::{Hit, Index, Member, Wants};
use super::response::{Body, Events, NO_WATCH, Response};
use super::span::Span;
use super::stream::{Notify, State, Stream, Watch};
use super::{History, StreamId, with_previous};
use crate::error::Refusal;

/// Limits of a [`Hub`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// Answers that may wait for a stream before events for it are read from history instead. Default 1024.
    pub queue_responses: usize,
    /// Bytes of answers that may wait for a stream, likewise. Default 4 MiB.
    pub queue_bytes: usize,
    /// Size at which an answer is split for a watch that asked for that, in bytes. Default 2 MiB: the largest request of
    /// 1.5 MiB, and 512 KiB for what is around it.
    pub fragment_bytes: usize,
    /// Revisions with events for a watch that one answer from history may have. Default 1000.
    pub batch_revisions: usize,
    /// Revisions of history that are read in one step. Default 10,000.
    pub scan_revisions: usize,
    /// How long a watch must be idle to be told of progress, in milliseconds; each stream adds a tenth at most. At least
    /// 100. Default 600,000 (10 min).
    pub progress_interval_ms: u64,
}

/// Who watches, who has written what, and what is to be told.
///
/// See the [module](super) for the way it is used.
#[derive(Debug)]
pub struct Hub {
    pub(super) options: HubOptions,
    /// The newest revision that was published.
    pub(super) revision: i64,
    /// History below this revision is gone.
    pub(super) compacted: i64,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    pub(super) index: Index,
    /// Streams by the time of their next tick.
    pub(super) ticks: BTreeSet<(u64, StreamId)>,
    wakeups: Vec<StreamId>,
    next_stream: u64,
    next_serial: u64,
}

/// Sizes of a [`Hub`], for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Streams that are open.
    pub streams: usize,
    /// Watches of all streams.
    pub watches: usize,
    /// Watches that are behind.
    pub behind: usize,
    /// Answers that wait to be taken.
    pub queued: usize,
}

// === impl HubOptions ===

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            queue_responses: 1024,
            queue_bytes: 4 << 20,
            fragment_bytes: 2 << 20,
            batch_revisions: 1000,
            scan_revisions: 10_000,
            progress_interval_ms: 600_000,
        }
    }
}

// === impl Hub ===

impl Hub {
    /// A hub over a store whose newest visible revision is `revision` and whose history starts at `compacted` (anything
    /// below 1 if it was never compacted).
    pub fn new(options: HubOptions, revision: i64, compacted: i64) -> Self {
        Self {
            options,
            revision,
            compacted,
            streams: BTreeMap::new(),
            index: Index::default(),
            ticks: BTreeSet::new(),
            wakeups: Vec::new(),
            next_stream: 0,
            next_serial: 0,
        }
    }

    /// The newest revision that was published.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Opens a stream. `now_ms` starts its progress interval.
    pub fn open(&mut self, now_ms: u64) -> StreamId {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        let tick_at = now_ms.saturating_add(self.progress_interval(id));
        self.streams.insert(id, Stream::new(tick_at));
        self.ticks.insert((tick_at, id));
        id
    }

    /// Ends a stream and all of its watches; what is queued for it is dropped. A stream that is gone is no error, here
    /// and everywhere else: its task may be the last to know.
    pub fn close(&mut self, stream: StreamId) {
        let Some(closed) = self.streams.remove(&stream) else { return };
        self.ticks.remove(&(closed.tick_at, stream));
        for (id, watch) in closed.watches {
            if watch.state == State::InStep {
                self.index.remove(&watch.span, watch.wants, stream, id);
            }
        }
    }

    /// Creates a watch, or says why not; `permission` is the verdict of auth. Answers the id of the watch.
    pub fn create(
        &mut self,
        stream: StreamId,
        request: &WatchCreateRequest,
        permission: Result<(), Refusal>,
    ) -> Option<i64> {
        let (revision, compacted) = (self.revision, self.compacted);
        let start = request.start_revision;
        if start < 0 {
            self.refuse(stream, Refusal::Compacted.message());
            return None;
        }
        if let Err(refusal) = permission {
            self.refuse(stream, Cow::Owned(refusal_reason(&refusal)));
            return None;
        }
        let span = match Span::of_request(&request.key, &request.range_end) {
            Ok(span) => span,
            Err(empty) => {
                self.refuse(stream, Cow::Owned(empty.to_string()));
                return None;
            }
        };
        let Some(id) = self.streams.get_mut(&stream)?.claim_id(request.watch_id) else {
            self.refuse(stream, Cow::Borrowed("mvcc: duplicate watch ID provided on the WatchStream"));
            return None;
        };
        self.push(stream, Response { watch_id: id, revision, body: Body::Created });
        if start != 0 && start < compacted {
            self.end(stream, id, compacted);
            return Some(id);
        }
        let wants = Wants::of_request(request);
        let state = if start == 0 || start > revision {
            let member = Member { stream, watch_id: id, from: start.max(revision.saturating_add(1)) };
            self.index.insert(&span, wants, member);
            State::InStep
        } else {
            State::Behind { next: start }
        };
        let notify = if request.progress_notify { Notify::Idle } else { Notify::Never };
        let serial = self.next_serial;
        self.next_serial += 1;
        let stream = self.streams.get_mut(&stream)?;
        if let State::Behind { next } = state {
            stream.behind.insert((next, id));
        }
        stream.tells_progress |= request.progress_notify;
        stream.watches.insert(id, Watch { span, wants, start, serial, state, notify });
        Some(id)
    }

    /// Ends a watch on demand of the client. An unknown id is passed over in silence.
    pub fn cancel(&mut self, stream: StreamId, id: i64) {
        let revision = self.revision;
        let ended = self.streams.get_mut(&stream).is_some_and(|stream| stream.ended.remove(&id));
        if self.forget(stream, id) || ended {
            self.push(stream, Response { watch_id: id, revision, body: Body::Canceled });
        }
    }

    /// Tells of the changes of one revision, in the order of its operations. `history` is asked for what keys held before
    /// only if a watch wants that and the event does not say. A revision that is not above the newest one is ignored.
    ///
    /// The cost is in the events and in the watches that get them; a stream that is slow costs no more than others.
    pub fn publish<H: History>(&mut self, revision: i64, events: &[Event], history: &H) {
        if revision <= self.revision {
            return;
        }
        self.revision = revision;
        for hit in self.index.hits(revision, events) {
            if hit.members.is_empty() {
                continue;
            }
            let parts = self.build(&hit, revision, events, history);
            for members in hit.members.chunk_by(|one, other| one.stream == other.stream) {
                self.tell(members, revision, &parts);
            }
        }
    }

    /// Says that history below a revision is about to be removed: watches that still need it are cancelled.
    pub fn compact(&mut self, revision: i64) {
        if revision <= self.compacted {
            return;
        }
        self.compacted = revision;
        let lost: Vec<_> = self
            .streams
            .iter()
            .flat_map(|(stream, state)| {
                state.behind.range(..(revision, i64::MIN)).map(|(_, id)| (*stream, *id))
            })
            .collect();
        for (stream, id) in lost {
            self.forget(stream, id);
            self.end(stream, id, revision);
        }
    }

    /// Takes all that waits for a stream, in the order in which it must be sent.
    pub fn take(&mut self, stream: StreamId) -> Vec<Response> {
        self.streams.get_mut(&stream).map(Stream::take).unwrap_or_default()
    }

    /// Whether so much waits for a stream that no further request of it should be read before it is taken.
    pub fn is_congested(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|stream| stream.is_congested(&self.options))
    }

    /// The streams for which something has begun to wait since the last call; one may be named twice.
    pub fn wakeups(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.wakeups)
    }

    /// Sizes, for metrics. The cost is in the number of streams.
    pub fn counts(&self) -> Counts {
        let start = Counts { streams: self.streams.len(), ..Counts::default() };
        self.streams.values().fold(start, |sum, stream| Counts {
            watches: sum.watches + stream.watches.len(),
            behind: sum.behind + stream.behind.len(),
            queued: sum.queued + stream.queued(),
            ..sum
        })
    }

    pub(super) fn push(&mut self, stream: StreamId, response: Response) {
        if let Some(state) = self.streams.get_mut(&stream)
            && state.push(response)
        {
            self.wakeups.push(stream);
        }
    }

    /// Removes a watch; `false` if there is none.
    fn forget(&mut self, stream: StreamId, id: i64) -> bool {
        let Some(state) = self.streams.get_mut(&stream) else { return false };
        let Some(watch) = state.watches.remove(&id) else { return false };
        match watch.state {
            State::InStep => self.index.remove(&watch.span, watch.wants, stream, id),
            State::Behind { next } => {
                state.behind.remove(&(next, id));
            }
        }
        true
    }

    /// Tells that a watch, which is not or no longer kept, ended since `compacted` is the first revision there is.
    fn end(&mut self, stream: StreamId, id: i64, compacted: i64) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.ended.insert(id);
        }
        let body = Body::Compacted { revision: compacted };
        self.push(stream, Response { watch_id: id, revision: 0, body });
    }

    fn refuse(&mut self, stream: StreamId, reason: Cow<'static, str>) {
        let response = Response { watch_id: NO_WATCH, revision: self.revision, body: Body::Refused(reason) };
        self.push(stream, response);
    }

    /// What a group is sent; empty if what keys held before cannot be read, so that history must be asked later.
    fn build<H: History>(&self, hit: &Hit, revision: i64, events: &[Event], history: &H) -> Vec<Arc<Events>> {
        let list: Result<Vec<_>, _> = hit
            .events
            .iter()
            .filter_map(|position| events.get(*position))
            .map(|event| with_previous(event, hit.wants.previous(), revision, history))
            .collect();
        match list {
            Ok(list) => self.parts(list, hit.wants),
            Err(_) => Vec::new(),
        }
    }

    /// Events as answers: one, or several where the watch asked for that.
    pub(super) fn parts(&self, list: Vec<Event>, wants: Wants) -> Vec<Arc<Events>> {
        if wants.fragments() {
            Events::fragments(list, self.options.fragment_bytes)
        } else {
            vec![Arc::new(Events::new(list))]
        }
    }

    /// Queues what watches in step, all of one stream, are to be told of a revision; leaves those behind for which the queue has no room.
    fn tell(&mut self, members: &[Member], revision: i64, parts: &[Arc<Events>]) {
        let Some(&Member { stream, .. }) = members.first() else { return };
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let bytes = parts.iter().map(|part| part.encoded_len()).sum();
        for &Member { watch_id, .. } in members {
            let wake = if !parts.is_empty() && state.has_room(parts.len(), bytes, &self.options) {
                state.push_parts(watch_id, revision, parts)
            } else if let Some(watch) = state.watches.get_mut(&watch_id) {
                watch.state = State::Behind { next: revision };
                self.index.remove(&watch.span, watch.wants, stream, watch_id);
                state.behind.insert((revision, watch_id));
                // A full queue wakes by itself.
                parts.is_empty()
            } else {
                false
            };
            if wake {
                self.wakeups.push(stream);
            }
        }
    }

    pub(super) fn push_parts(
        &mut self,
        stream: StreamId,
        watch_id: i64,
        revision: i64,
        parts: &[Arc<Events>],
    ) {
        if let Some(state) = self.streams.get_mut(&stream)
            && state.push_parts(watch_id, revision, parts)
        {
            self.wakeups.push(stream);
        }
    }
}

/// The reason that a client is given where auth refuses a watch: one of four texts.
fn refusal_reason(refusal: &Refusal) -> String {
    match refusal {
        Refusal::InvalidAuthToken | Refusal::UserEmpty | Refusal::AuthOldRevision => refusal.in_band(),
        _ => Refusal::PermissionDenied.in_band(),
    }
}
