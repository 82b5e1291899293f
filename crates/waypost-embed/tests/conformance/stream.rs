//! One watch stream of one server, read as far as is asked.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use waypost_proto::etcdserverpb::watch_request::RequestUnion;
use waypost_proto::etcdserverpb::{WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use waypost_proto::mvccpb::Event;

use crate::call::{Clients, header};
use crate::identity::Shown;

/// What an answer may take; only a server that never answers takes as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Why a watch is not permitted.
pub(crate) const FORBIDDEN: [&str; 4] = [
    "etcdserver: permission denied",
    "etcdserver: invalid auth token",
    "etcdserver: user name is empty",
    "etcdserver: revision of auth store is old",
];

/// A stream and what came over it that was not looked at yet.
pub(crate) struct Stream {
    /// What it was opened with.
    pub(crate) shown: Shown,
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    /// Answers without events, in order.
    controls: VecDeque<WatchResponse>,
    /// Events by watch, in order.
    events: BTreeMap<i64, Vec<Event>>,
    /// Newest revision that each watch has seen the end of.
    complete: BTreeMap<i64, i64>,
    /// What is wrong with the stream by itself.
    fault: Option<String>,
}

// === impl Stream ===

impl Stream {
    /// Opens a stream with one watch; its answer is the first of the controls.
    pub(crate) async fn open(
        clients: &Clients,
        who: Option<&str>,
        create: WatchCreateRequest,
    ) -> Result<Self, String> {
        let (requests, receiver) = mpsc::channel(16);
        // The head of the answer comes with the first answer, so the first request must be there.
        requests.send(request(RequestUnion::CreateRequest(create))).await.map_err(|_| "closed")?;
        let opened =
            tokio::time::timeout(PATIENCE, clients.watch(who).watch(ReceiverStream::new(receiver))).await;
        let responses = match opened {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(format!("no stream: {status}")),
            Err(_) => return Err("no stream in time".into()),
        };
        Ok(Self {
            shown: clients.shown(who),
            requests,
            responses,
            controls: VecDeque::new(),
            events: BTreeMap::new(),
            complete: BTreeMap::new(),
            fault: None,
        })
    }

    /// Opens a stream without a watch.
    pub(crate) async fn open_empty(clients: &Clients, who: Option<&str>) -> Result<Self, String> {
        let create = WatchCreateRequest { key: "none".into(), watch_id: 1000, ..Default::default() };
        let mut stream = Self::open(clients, who, create).await?;
        if stream.control().await?.canceled {
            // Not permitted, and so not there.
            return Ok(stream);
        }
        stream.send(Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 1000 }))).await;
        stream.control().await?;
        Ok(stream)
    }

    pub(crate) async fn send(&self, union: Option<RequestUnion>) {
        // A stream that has ended says so when it is read.
        let _ended = self.requests.send(WatchRequest { request_union: union }).await;
    }

    /// The next answer without events, header normalised. Why someone may not watch is told in other words, and under
    /// another id, by each version of etcd.
    pub(crate) async fn control(&mut self) -> Result<WatchResponse, String> {
        loop {
            if let Some(mut response) = self.controls.pop_front() {
                let why = &response.cancel_reason;
                if response.created && FORBIDDEN.iter().any(|reason| why.ends_with(reason)) {
                    response.watch_id = -1;
                    "forbidden".clone_into(&mut response.cancel_reason);
                }
                return Ok(response);
            }
            self.read().await?;
        }
    }

    /// Takes the events of a watch once it has seen this revision.
    pub(crate) async fn events_up_to(&mut self, id: i64, revision: i64) -> Result<Vec<Event>, String> {
        while self.complete.get(&id).copied().unwrap_or_default() < revision {
            if let Err(error) = self.read().await {
                let (events, controls) = (self.events.get(&id), &self.controls);
                return Err(format!("{error}, at revision {revision}, after {events:?} {controls:?}"));
            }
        }
        Ok(self.events.remove(&id).unwrap_or_default())
    }

    /// Begins anew with a watch of this id.
    pub(crate) fn forget(&mut self, id: i64) {
        self.events.remove(&id);
        self.complete.remove(&id);
    }

    async fn read(&mut self) -> Result<(), String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        match tokio::time::timeout(PATIENCE, self.responses.message()).await {
            Ok(Ok(Some(response))) => {
                self.take_in(response);
                Ok(())
            }
            Ok(Ok(None)) => Err("the stream ended".into()),
            Ok(Err(status)) => Err(format!("the stream ended: {status}")),
            Err(_) => Err("nothing came".into()),
        }
    }

    fn take_in(&mut self, mut response: WatchResponse) {
        let revision = header(&mut response.header);
        let id = response.watch_id;
        let (Some(first), Some(last)) = (response.events.first(), response.events.last()) else {
            self.controls.push_back(response);
            return;
        };
        let complete = self.complete.entry(id).or_default();
        if response.created || response.canceled {
            self.fault = Some(format!("events in {response:?}"));
        } else if at(first) <= *complete {
            self.fault = Some(format!("watch {id} had all of revision {complete}: {:?}", response.events));
        } else if response.events.windows(2).any(|pair| at(&pair[0]) > at(&pair[1])) || revision < at(last) {
            self.fault = Some(format!("out of order: {response:?}"));
        }
        *complete = at(last) - i64::from(response.fragment);
        self.events.entry(id).or_default().append(&mut response.events);
    }
}

fn request(union: RequestUnion) -> WatchRequest {
    WatchRequest { request_union: Some(union) }
}

/// The revision of an event.
pub(crate) fn at(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}
