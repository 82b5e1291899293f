//! Which watches a change is for.
//!
//! Watches of the same keys that want the same of them are one [`Group`]: a change is matched, and what is sent of it
//! is built, once for the group. A thousand watches of one prefix are one range in the tree; a hundred thousand watches
//! of one key each are a hash map.

use std::collections::HashMap;

use bytes::Bytes;
use waypost_proto::etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType};
use waypost_proto::mvccpb::{Event, event::EventType};

use super::StreamId;
use super::intervals::{End, Interval, IntervalTree};
use super::span::Span;

/// What a watch wants of the changes of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wants(u8);

/// Values by span, with the question which spans contain a key.
#[derive(Debug)]
pub(super) struct SpanMap<T> {
    keys: HashMap<Bytes, T>,
    ranges: IntervalTree<T>,
}

/// The watches that are in step with the store.
#[derive(Debug, Default)]
pub(super) struct Index {
    groups: Vec<Group>,
    /// Groups without members, to be used again.
    free: Vec<usize>,
    /// At most one group for each [`Wants`].
    spans: SpanMap<Vec<usize>>,
}

/// Watches that get the same.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) wants: Wants,
    /// Ordered by stream and id.
    members: Vec<Member>,
    /// Positions of the events that the current revision has for the group.
    hits: Vec<usize>,
}

/// A watch in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) stream: StreamId,
    pub(super) watch_id: i64,
    /// First revision that the watch reports.
    pub(super) from: i64,
}

/// What one revision has for one group.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) wants: Wants,
    pub(super) members: Vec<Member>,
    /// Positions of the events, ascending.
    pub(super) events: Vec<usize>,
}

// === impl Wants ===

impl Wants {
    const NO_PUT: u8 = 1;
    const NO_DELETE: u8 = 2;
    const PREVIOUS: u8 = 4;
    const FRAGMENTS: u8 = 8;

    /// What a request asks for. A filter that is not known filters nothing.
    pub(super) fn of_request(request: &WatchCreateRequest) -> Self {
        let filtered = |filter: FilterType| request.filters.contains(&filter.into());
        let flags = [
            (filtered(FilterType::Noput), Self::NO_PUT),
            (filtered(FilterType::Nodelete), Self::NO_DELETE),
            (request.prev_kv, Self::PREVIOUS),
            (request.fragment, Self::FRAGMENTS),
        ];
        Self(flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum())
    }

    pub(super) fn previous(self) -> bool {
        self.0 & Self::PREVIOUS != 0
    }

    pub(super) fn fragments(self) -> bool {
        self.0 & Self::FRAGMENTS != 0
    }

    /// Whether the event passes the filters.
    pub(super) fn accepts(self, event: &Event) -> bool {
        let filter = if event.r#type == EventType::Delete as i32 { Self::NO_DELETE } else { Self::NO_PUT };
        self.0 & filter == 0
    }
}

// === impl SpanMap ===

impl<T> Default for SpanMap<T> {
    fn default() -> Self {
        Self { keys: HashMap::new(), ranges: IntervalTree::default() }
    }
}

impl<T: Default> SpanMap<T> {
    /// The value of a span, a fresh one if it had none.
    pub(super) fn entry(&mut self, span: &Span) -> &mut T {
        match interval(span) {
            Ok(interval) => self.ranges.entry(interval),
            Err(key) => self.keys.entry(key.clone()).or_default(),
        }
    }

    fn get_mut(&mut self, span: &Span) -> Option<&mut T> {
        match interval(span) {
            Ok(interval) => self.ranges.get_mut(&interval),
            Err(key) => self.keys.get_mut(key),
        }
    }

    fn remove(&mut self, span: &Span) {
        match interval(span) {
            Ok(interval) => drop(self.ranges.remove(&interval)),
            Err(key) => drop(self.keys.remove(key)),
        }
    }

    /// Visits the values of the spans that contain the key.
    pub(super) fn stab(&self, key: &[u8], mut visit: impl FnMut(&T)) {
        if let Some(value) = self.keys.get(key) {
            visit(value);
        }
        self.ranges.stab(key, &mut visit);
    }
}

/// The range of a span, or its only key.
fn interval(span: &Span) -> Result<Interval, &Bytes> {
    match span {
        Span::Key(key) => Err(key),
        Span::Range { start, end } => Ok(Interval { start: start.clone(), end: End::Before(end.clone()) }),
        Span::From(start) => Ok(Interval { start: start.clone(), end: End::Open }),
    }
}

// === impl Index ===

impl Index {
    /// Adds a watch.
    pub(super) fn insert(&mut self, span: &Span, wants: Wants, member: Member) {
        let found = self.spans.entry(span);
        let at = if let Some(at) = found.iter().copied().find(|at| self.groups[*at].wants == wants) {
            at
        } else {
            let group = Group { wants, ..Group::default() };
            let at = self.free.pop().unwrap_or(self.groups.len());
            if at == self.groups.len() {
                self.groups.push(group);
            } else {
                self.groups[at] = group;
            }
            found.push(at);
            at
        };
        let members = &mut self.groups[at].members;
        if let Err(place) = members.binary_search_by_key(&member.key(), Member::key) {
            members.insert(place, member);
        }
    }

    /// Removes a watch.
    pub(super) fn remove(&mut self, span: &Span, wants: Wants, stream: StreamId, watch_id: i64) {
        let Some(found) = self.spans.get_mut(span) else { return };
        let Some(place) = found.iter().position(|at| self.groups[*at].wants == wants) else { return };
        let at = found[place];
        let members = &mut self.groups[at].members;
        if let Ok(member) = members.binary_search_by_key(&(stream, watch_id), Member::key) {
            members.remove(member);
        }
        if members.is_empty() {
            self.groups[at] = Group::default();
            self.free.push(at);
            found.swap_remove(place);
            if found.is_empty() {
                self.spans.remove(span);
            }
        }
    }

    /// What the events of one revision are for whom, in the order in which the groups are first hit.
    pub(super) fn hits(&mut self, revision: i64, events: &[Event]) -> Vec<Hit> {
        let mut order = Vec::new();
        let groups = &mut self.groups;
        for (position, event) in events.iter().enumerate() {
            let Some(kv) = &event.kv else { continue };
            self.spans.stab(&kv.key, |found| {
                for at in found {
                    let group = &mut groups[*at];
                    if group.wants.accepts(event) {
                        if group.hits.is_empty() {
                            order.push(*at);
                        }
                        group.hits.push(position);
                    }
                }
            });
        }
        order
            .into_iter()
            .map(|at| {
                let group = &mut groups[at];
                let members =
                    group.members.iter().filter(|member| member.from <= revision).copied().collect();
                Hit { wants: group.wants, members, events: std::mem::take(&mut group.hits) }
            })
            .collect()
    }
}

#[cfg(test)]
impl Index {
    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.groups.len() && self.spans.keys.is_empty() && self.spans.ranges.is_empty()
    }
}

// === impl Member ===

impl Member {
    fn key(&self) -> (StreamId, i64) {
        (self.stream, self.watch_id)
    }
}

#[cfg(test)]
mod tests {
    use waypost_proto::mvccpb::KeyValue;

    use super::*;

    fn event(kind: EventType, key: &'static str) -> Event {
        Event {
            r#type: kind.into(),
            kv: Some(KeyValue { key: key.into(), ..KeyValue::default() }),
            prev_kv: None,
        }
    }

    fn member(stream: u64, watch_id: i64) -> Member {
        Member { stream: StreamId(stream), watch_id, from: 0 }
    }

    #[test]
    fn watches_of_one_prefix_are_hit_once_and_together() {
        let mut index = Index::default();
        let span = Span::Range { start: "a".into(), end: "b".into() };
        for stream in (0..1000).rev() {
            index.insert(&span, Wants::default(), member(stream, 0));
        }
        let hits = index.hits(
            5,
            &[event(EventType::Put, "a1"), event(EventType::Put, "c"), event(EventType::Delete, "a2")],
        );
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].events, [0, 2]);
        assert!(hits[0].members.is_sorted_by_key(|member| member.stream));
        assert_eq!(hits[0].members.len(), 1000);
    }

    #[test]
    fn what_is_filtered_hits_nobody() {
        let mut index = Index::default();
        let span = Span::Key("a".into());
        index.insert(&span, Wants(Wants::NO_PUT), member(1, 0));
        index.insert(&span, Wants(Wants::NO_DELETE), member(1, 1));
        let hits = index.hits(5, &[event(EventType::Put, "a")]);
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].members, [member(1, 1)]);
        index.remove(&span, Wants(Wants::NO_DELETE), StreamId(1), 1);
        assert!(index.hits(6, &[event(EventType::Put, "a")]).is_empty());
        assert_eq!(index.hits(7, &[event(EventType::Delete, "a")]).len(), 1);
    }

    #[test]
    fn nothing_is_kept_of_watches_that_are_gone() {
        let mut index = Index::default();
        for round in 0..3 {
            for id in 0..100 {
                let span = if id % 2 == 0 { Span::Key(vec![id].into()) } else { Span::From(vec![id].into()) };
                index.insert(&span, Wants::default(), member(round, id.into()));
            }
            for id in 0..100 {
                let span = if id % 2 == 0 { Span::Key(vec![id].into()) } else { Span::From(vec![id].into()) };
                index.remove(&span, Wants::default(), StreamId(round), id.into());
            }
            assert_eq!((index.groups.len(), index.free.len()), (100, 100));
            assert!(index.spans.keys.is_empty());
        }
    }
}
