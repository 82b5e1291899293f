//! Watches that are behind: what they missed is read from history, without holding the hub.

use std::ops::ControlFlow;

use waypost_proto::mvccpb::Event;

use super::hub::Hub;
use super::index::{Member, SpanMap, Wants};
use super::response::encoded_len;
use super::stream::State;
use super::{History, StreamId, with_previous};

/// One step of catching up the watches of a stream, from [`Hub::plan`]. Dropping it loses nothing: the watches stay
/// behind, and the next plan starts over.
#[derive(Debug)]
pub struct CatchUp {
    stream: StreamId,
    /// Last revision to read.
    to: i64,
    limits: Limits,
    watches: Vec<Pending>,
    /// Positions in `watches`.
    spans: SpanMap<Vec<usize>>,
}

#[derive(Debug)]
struct Limits {
    bytes: usize,
    batch_revisions: usize,
    scan_revisions: usize,
}

/// What one watch is to get.
#[derive(Debug)]
struct Pending {
    watch_id: i64,
    serial: u64,
    wants: Wants,
    /// First revision that the watch has not got, when the step was planned.
    from: i64,
    /// The same, once this step is delivered.
    next: i64,
    /// The batch is complete, although there is more.
    full: bool,
    /// Revisions in the batch.
    revisions: usize,
    /// Each with its revision.
    events: Vec<(i64, Event)>,
}

// === impl Hub ===

impl Hub {
    /// The next step for the watches of a stream that are behind. `None` if there are none, or if what waits for the
    /// stream must be taken first.
    pub fn plan(&mut self, stream: StreamId) -> Option<CatchUp> {
        let state = self.streams.get(&stream)?;
        if state.behind.is_empty() || state.is_congested(&self.options) {
            return None;
        }
        let room = self.options.queue_responses.saturating_sub(state.queued()).max(1);
        let mut spans = SpanMap::<Vec<usize>>::default();
        let mut watches = Vec::new();
        for (from, id) in state.behind.iter().take(room) {
            let Some(watch) = state.watches.get(id) else { continue };
            spans.entry(&watch.span).push(watches.len());
            watches.push(Pending {
                watch_id: *id,
                serial: watch.serial,
                wants: watch.wants,
                from: *from,
                next: *from,
                full: false,
                revisions: 0,
                events: Vec::new(),
            });
        }
        let limits = Limits {
            bytes: self.options.queue_bytes,
            batch_revisions: self.options.batch_revisions.max(1),
            scan_revisions: self.options.scan_revisions.max(1),
        };
        Some(CatchUp { stream, to: self.revision, limits, watches, spans })
    }

    /// Queues what a step has read. A watch that has missed nothing since is in step again; another one is planned for
    /// again, so the stream's task takes, sends and plans until there is nothing to plan. Watches that have ended in the
    /// meantime get nothing.
    pub fn deliver(&mut self, step: CatchUp) {
        let CatchUp { stream, watches, .. } = step;
        for pending in watches {
            self.deliver_one(stream, pending);
        }
    }

    fn deliver_one(&mut self, stream: StreamId, pending: Pending) {
        let Pending { watch_id, serial, wants, from, next, events, .. } = pending;
        let revision = self.revision;
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let Some(watch) = state.watches.get_mut(&watch_id) else { return };
        if watch.serial != serial || watch.state != (State::Behind { next: from }) {
            return;
        }
        state.behind.remove(&(from, watch_id));
        if next > revision {
            watch.state = State::InStep;
            self.index.insert(&watch.span, wants, Member { stream, watch_id, from: next });
        } else {
            watch.state = State::Behind { next };
            state.behind.insert((next, watch_id));
        }
        if !events.is_empty() {
            let parts = self.parts(events.into_iter().map(|(_, event)| event).collect(), wants);
            self.push_parts(stream, watch_id, revision, &parts);
        }
    }
}

// === impl CatchUp ===

impl CatchUp {
    /// Reads what the watches are to get. This is the part that takes time; the hub is not needed for it.
    ///
    /// After an error nothing is to be delivered; the step may be dropped and planned again.
    pub fn read<H: History>(&mut self, history: &H) -> Result<(), H::Error> {
        let Self { to, limits, watches, spans, .. } = self;
        let Some(from) = watches.iter().map(|watch| watch.from).min() else { return Ok(()) };
        let (mut bytes, mut scanned, mut current) = (0, 0, 0);
        let mut open = watches.len();
        // The first revision that was not read.
        let mut reached = to.saturating_add(1);
        history.changes(from, *to, &mut |revision, event| {
            if revision != current {
                if bytes >= limits.bytes || scanned >= limits.scan_revisions || open == 0 {
                    reached = revision;
                    return ControlFlow::Break(());
                }
                current = revision;
                scanned += 1;
            }
            let Some(kv) = &event.kv else { return ControlFlow::Continue(()) };
            spans.stab(&kv.key, |positions| {
                for position in positions {
                    let watch = &mut watches[*position];
                    if watch.full || revision < watch.from || !watch.wants.accepts(&event) {
                        continue;
                    }
                    if watch.events.last().is_none_or(|(last, _)| *last != revision) {
                        if watch.revisions == limits.batch_revisions {
                            watch.full = true;
                            watch.next = revision;
                            open -= 1;
                            continue;
                        }
                        watch.revisions += 1;
                    }
                    bytes += encoded_len(&event);
                    watch.events.push((revision, event.clone()));
                }
            });
            ControlFlow::Continue(())
        })?;
        for watch in watches {
            if !watch.full {
                watch.next = watch.from.max(reached);
            }
            for (revision, event) in &mut watch.events {
                *event = with_previous(event, watch.wants.previous(), *revision, history)?;
            }
        }
        Ok(())
    }
}
