//! What a watcher knows and decides: where each watch goes on, and when it cannot. No clock, no network.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{Event, ResetReason, WatchEvent, WatchId, WatchSpec};
use crate::error::{Error, ErrorKind, Operation};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_create_request::FilterType;

/// The watch id of an answer that concerns the whole stream.
const WHOLE_STREAM: i64 = -1;

/// The watches of one watcher.
#[derive(Debug, Default)]
pub(super) struct Watches {
    standing: BTreeMap<WatchId, Watch>,
    /// Creations that the stream has not answered yet. etcd answers them in the order in which they were asked, and
    /// refuses them without saying which.
    pending: VecDeque<WatchId>,
    cluster_id: Option<u64>,
}

#[derive(Debug)]
struct Watch {
    spec: WatchSpec,
    /// Where it goes on: the revision after the last one that was delivered, or the asked one. Zero until the
    /// server has said from where "now" is.
    next_revision: i64,
    /// Events of an answer that comes in fragments. They are delivered together, so that a stream that breaks
    /// in between can be resumed without telling anything twice.
    fragments: Vec<Event>,
    /// Its creation was refused for its token since the stream was opened anew for that.
    token_refused: bool,
}

/// What an answer means.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Tell the consumer.
    Tell(Vec<WatchEvent>),
    /// The token was refused for this watch: fetch another and open a new stream.
    RenewToken,
}

// === impl Watches ===

impl Watches {
    pub(super) fn add(&mut self, id: WatchId, spec: WatchSpec) {
        let next_revision = spec.start_revision;
        let watch = Watch { spec, next_revision, fragments: Vec::new(), token_refused: false };
        self.standing.insert(id, watch);
    }

    /// Whether there was such a watch.
    pub(super) fn remove(&mut self, id: WatchId) -> bool {
        self.standing.remove(&id).is_some()
    }

    /// Every watch ends for this error.
    pub(super) fn refuse_all(&mut self, error: &Error) -> Vec<WatchEvent> {
        let ended = std::mem::take(&mut self.standing);
        ended.into_keys().map(|watch| WatchEvent::Refused { watch, error: error.clone() }).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    /// What the errors of the stream speak of.
    pub(super) fn operation(&self) -> Operation {
        let operation = Operation::read("watch");
        match self.standing.values().next() {
            Some(watch) => operation.on(&watch.spec.range.start),
            None => operation,
        }
    }

    /// The requests that set up every watch on a new stream.
    pub(super) fn requests(&mut self) -> Vec<pb::WatchRequest> {
        for watch in self.standing.values_mut() {
            watch.fragments.clear();
        }
        self.pending = self.standing.keys().copied().collect();
        self.standing.iter().map(|(id, watch)| watch.request(*id)).collect()
    }

    /// The request that sets up one watch on the stream that is open.
    pub(super) fn request(&mut self, id: WatchId) -> Option<pb::WatchRequest> {
        let request = self.standing.get(&id)?.request(id);
        self.pending.push_back(id);
        Some(request)
    }

    /// An answer of the server. `may_renew`: whether a refused token can be replaced.
    pub(super) fn answered(
        &mut self,
        answer: pb::WatchResponse,
        endpoint: &Arc<str>,
        may_renew: bool,
    ) -> Verdict {
        let header = answer.header.unwrap_or_default();
        if let Some(resets) = self.other_cluster(header.cluster_id) {
            return Verdict::Tell(resets);
        }
        if answer.watch_id == WHOLE_STREAM && !answer.canceled {
            return Verdict::Tell(vec![WatchEvent::Progress { revision: header.revision }]);
        }
        if answer.canceled {
            return self.canceled(&answer, endpoint, may_renew);
        }
        let id = WatchId(answer.watch_id);
        if answer.created {
            self.pending.retain(|pending| *pending != id);
        }
        let Some(watch) = self.standing.get_mut(&id) else { return Verdict::Tell(Vec::new()) };
        if answer.created {
            watch.token_refused = false;
            let seen = watch.next_revision - 1;
            // A watch may be asked for from a future revision; only one that has begun can have been overtaken.
            if watch.next_revision > 0 && header.revision < seen {
                self.standing.remove(&id);
                let reason = ResetReason::RevisionWentBack { seen, now: header.revision };
                return Verdict::Tell(vec![WatchEvent::Reset { watch: id, reason }]);
            }
            if watch.next_revision <= 0 {
                watch.next_revision = header.revision + 1;
            }
            return Verdict::Tell(vec![WatchEvent::Started { watch: id, revision: header.revision }]);
        }
        if answer.events.is_empty() && !answer.fragment && watch.fragments.is_empty() {
            return Verdict::Tell(vec![WatchEvent::Progress { revision: header.revision }]);
        }
        watch.fragments.extend(answer.events.into_iter().filter_map(Event::from_wire));
        if answer.fragment {
            return Verdict::Tell(Vec::new());
        }
        let mut events = std::mem::take(&mut watch.fragments);
        // Nothing twice, whatever the server sends after a resumption.
        let from = watch.next_revision;
        events.retain(|event| event.kv.mod_revision >= from);
        let Some(revision) = events.last().map(|event| event.kv.mod_revision) else {
            return Verdict::Tell(Vec::new());
        };
        watch.next_revision = revision + 1;
        Verdict::Tell(vec![WatchEvent::Events { watch: id, revision, events }])
    }

    fn canceled(&mut self, answer: &pb::WatchResponse, endpoint: &Arc<str>, may_renew: bool) -> Verdict {
        let id = match self.pending.front().copied().filter(|_| answer.created) {
            Some(refused) => {
                self.pending.pop_front();
                refused
            }
            None => WatchId(answer.watch_id),
        };
        let Some(watch) = self.standing.get_mut(&id) else { return Verdict::Tell(Vec::new()) };
        if answer.compact_revision > 0 {
            self.standing.remove(&id);
            let reason = ResetReason::Compacted { compact_revision: answer.compact_revision };
            return Verdict::Tell(vec![WatchEvent::Reset { watch: id, reason }]);
        }
        let operation = Operation::read("watch").on(&watch.spec.range.start);
        let error = if answer.cancel_reason.is_empty() {
            Error::new(ErrorKind::Other, &operation, "etcd ended the watch without a reason").at(endpoint)
        } else {
            Error::from_cancel_reason(&operation, endpoint, &answer.cancel_reason)
        };
        let about_the_user = matches!(error.kind(), ErrorKind::Unauthenticated | ErrorKind::PermissionDenied);
        // 3.5.1 says "permission denied" of a token that it does not know; so ask with a new one before believing it.
        if about_the_user && may_renew && !watch.token_refused {
            // One token for all of them; those that it lets in forget this when they start.
            self.standing.values_mut().for_each(|watch| watch.token_refused = true);
            return Verdict::RenewToken;
        }
        if error.kind() == ErrorKind::Compacted {
            self.standing.remove(&id);
            let reason = ResetReason::Compacted { compact_revision: 0 };
            return Verdict::Tell(vec![WatchEvent::Reset { watch: id, reason }]);
        }
        self.standing.remove(&id);
        Verdict::Tell(vec![WatchEvent::Refused { watch: id, error }])
    }

    /// Whether another cluster answers; then no watch can go on.
    fn other_cluster(&mut self, now: u64) -> Option<Vec<WatchEvent>> {
        if now == 0 {
            return None;
        }
        let before = *self.cluster_id.get_or_insert(now);
        if before == now {
            return None;
        }
        self.cluster_id = Some(now);
        let reason = ResetReason::ClusterChanged { before, now };
        let ended = std::mem::take(&mut self.standing);
        Some(ended.into_keys().map(|watch| WatchEvent::Reset { watch, reason }).collect())
    }
}

// === impl Watch ===

impl Watch {
    /// One revision before the one that is wanted. Servers since 3.5.21 answer no progress request as long as a watch
    /// begins in the future, and the revision after the last one is in the future until somebody writes. What comes
    /// twice for it is dropped.
    fn asked_revision(&self) -> i64 {
        if self.next_revision > 1 { self.next_revision - 1 } else { self.next_revision }
    }

    fn request(&self, id: WatchId) -> pb::WatchRequest {
        let mut filters = Vec::new();
        if self.spec.no_put {
            filters.push(FilterType::Noput.into());
        }
        if self.spec.no_delete {
            filters.push(FilterType::Nodelete.into());
        }
        pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key: self.spec.range.start.clone(),
                range_end: self.spec.range.end.clone(),
                start_revision: self.asked_revision(),
                progress_notify: false,
                filters,
                prev_kv: self.spec.prev_kv,
                watch_id: id.0,
                fragment: true,
            })),
        }
    }
}
