//! Two servers driven with the same operations, one after the other, and compared after each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use waypost_proto::etcdserverpb::watch_request::RequestUnion;
use waypost_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest,
    WatchResponse,
};
use waypost_proto::mvccpb::Event;
use waypost_proto::mvccpb::event::EventType;

use crate::call::{Answer, Clients};
use crate::op::{Op, Origin};
use crate::server::{Kind, Running};
use crate::stream::{PATIENCE, Stream, at};
use crate::users::STREAMS;
use crate::versions;

/// Two servers at the same revision.
pub(crate) struct Session {
    pub(crate) sides: [Side; 2],
    pub(crate) current: i64,
    pub(crate) compacted: i64,
    /// Whether everything that the last compaction gave up is known to be gone.
    physical: bool,
    /// Every event since the start, with what was before, as both told it.
    pub(crate) log: Vec<Event>,
    watches: BTreeMap<(usize, i64), Watched>,
    /// Watches that were cancelled for compaction and that nobody has cancelled since.
    ended: BTreeSet<(usize, i64)>,
    /// Operations that were not asked since versions differ there.
    pub(crate) skipped: BTreeMap<&'static str, usize>,
    /// Operations that only the embedded server refuses, and must, by the reason.
    pub(crate) stricter: BTreeMap<&'static str, usize>,
    pub(crate) asked: usize,
    /// Whether auth is on.
    pub(crate) auth: bool,
    /// Who has a token, be it good or not.
    pub(crate) logged_in: BTreeSet<&'static str>,
}

pub(crate) struct Side {
    kind: Kind,
    pub(crate) clients: Clients,
    /// Watches everything.
    all: Stream,
    pub(crate) streams: Vec<Option<Stream>>,
    _server: Running,
}

/// A watch, and what it has to tell.
pub(crate) struct Watched {
    create: WatchCreateRequest,
    /// Below this nothing is told.
    start: i64,
    /// Entries of the log that were looked at.
    seen: usize,
    /// Whether it started in the past and was not yet seen to have read that.
    behind: bool,
    /// The compact revision, if the watch started right there: of that revision only what was not compacted is told.
    edge: Option<i64>,
}

/// Where two servers differ.
#[derive(Debug)]
pub(crate) struct Difference(pub(crate) String);

// === impl Session ===

impl Session {
    pub(crate) async fn start(kinds: [Kind; 2]) -> Self {
        let (left, right) = tokio::join!(Side::start(kinds[0]), Side::start(kinds[1]));
        Self {
            sides: [left, right],
            current: 1,
            // As etcd says where nothing was ever compacted.
            compacted: -1,
            physical: true,
            log: Vec::new(),
            watches: BTreeMap::new(),
            ended: BTreeSet::new(),
            skipped: BTreeMap::new(),
            stricter: BTreeMap::new(),
            asked: 0,
            auth: false,
            logged_in: BTreeSet::new(),
        }
    }

    pub(crate) fn kinds(&self) -> [Kind; 2] {
        [self.sides[0].kind, self.sides[1].kind]
    }

    /// Whether a stream has watches, none from a revision that is still to come, and none that a compaction ended.
    pub(crate) fn may_tell_progress(&self, stream: usize) -> bool {
        let mut watches = self.watches.range((stream, i64::MIN)..=(stream, i64::MAX)).peekable();
        let ended = self.ended.iter().any(|(of, _)| *of == stream);
        !ended
            && watches.peek().is_some()
            && watches.all(|(_, watched)| watched.create.start_revision <= self.current)
    }

    /// Whether a key was deleted in this revision.
    pub(crate) fn deletes_in(&self, revision: i64) -> bool {
        self.log.iter().any(|event| at(event) == revision && event.r#type() == EventType::Delete)
    }

    /// Whether the hash of the keys as of a revision does not depend on how far a compaction has come.
    pub(crate) fn has_one_hash(&self, revision: i64) -> bool {
        let revision = if revision == 0 { self.current } else { revision };
        let mut live = BTreeSet::new();
        for event in self.log.iter().filter(|event| at(event) <= revision) {
            let key = event.kv.as_ref().map(|kv| &kv.key);
            match event.r#type() {
                EventType::Put => live.insert(key),
                EventType::Delete => live.remove(&key),
            };
        }
        self.physical || !live.is_empty()
    }

    /// Drives a sequence; the position of the operation at which the servers differ.
    pub(crate) async fn run(&mut self, ops: &[Op]) -> Result<(), (usize, Difference)> {
        for (position, op) in ops.iter().enumerate() {
            self.step(op).await.map_err(|difference| (position, difference))?;
        }
        self.settle().await.map_err(|difference| (ops.len().saturating_sub(1), difference))?;
        self.watches.clear();
        self.ended.clear();
        for side in &mut self.sides {
            side.streams.iter_mut().for_each(|stream| *stream = None);
        }
        Ok(())
    }

    async fn step(&mut self, op: &Op) -> Result<(), Difference> {
        let op = op.resolve(Origin { current: self.current, compacted: self.compacted });
        let (who, asked) = op.asked();
        let mut asked = asked.clone();
        if let Op::Watch { create, .. } = &mut asked
            && !self.physical
            && create.start_revision == self.compacted
        {
            // Whether that revision can still be read depends on how far the compaction has come.
            create.start_revision += 1;
        }
        if let Some(reason) = versions::differ(self.kinds(), &op, self) {
            *self.skipped.entry(reason).or_default() += 1;
            return Ok(());
        }
        self.asked += 1;
        match asked {
            Op::Watch { stream, create } => self.create(stream, who, create).await,
            Op::Cancel { stream, id } => self.cancel(stream, who, id).await,
            Op::Progress { stream } => self.progress(stream, who).await,
            Op::Nothing { stream } => {
                self.open(stream, who).await?;
                self.send(stream, None).await;
                Ok(())
            }
            _ if self.is_refused(&op).await? => Ok(()),
            _ => self.call(&op).await,
        }
    }

    async fn call(&mut self, op: &Op) -> Result<(), Difference> {
        if matches!(op.asked().1, Op::Compact(_) | Op::Alarm(_) | Op::AuthDisable) {
            // Afterwards, what a watch still has to read may be gone, or nothing can be written.
            self.settle().await?;
        }
        self.call_now(op).await
    }

    async fn call_now(&mut self, op: &Op) -> Result<(), Difference> {
        let auth = self.auth;
        let [left, right] = &mut self.sides;
        let (a, b) = tokio::join!(
            tokio::time::timeout(PATIENCE, left.call(op, auth)),
            tokio::time::timeout(PATIENCE, right.call(op, auth)),
        );
        let (Ok(a), Ok(b)) = (a, b) else {
            return Err(Difference(format!("no answer in time: {op}")));
        };
        if a != b {
            return Err(self.difference(&format!("answers to {op}"), &a, &b));
        }
        match op.asked().1 {
            Op::Compact(request) if a.done => {
                self.compacted = request.revision;
                self.physical = request.physical;
            }
            Op::AuthEnable if a.done => self.auth = true,
            Op::AuthDisable if a.done => self.auth = false,
            Op::LogIn((name, _)) if a.done => {
                self.logged_in.insert(name);
            }
            _ => {}
        }
        if a.revision > self.current {
            self.current = a.revision;
            self.read_log().await?;
        }
        Ok(())
    }

    /// Reads what both tell of the revisions up to the current one.
    async fn read_log(&mut self) -> Result<(), Difference> {
        let current = self.current;
        let [left, right] = &mut self.sides;
        let (a, b) = tokio::join!(left.all.events_up_to(0, current), right.all.events_up_to(0, current));
        if a != b {
            return Err(self.difference("events", &show(&a), &show(&b)));
        }
        self.log.extend(a.map_err(Difference)?);
        Ok(())
    }

    async fn open(&mut self, stream: usize, who: Option<&str>) -> Result<(), Difference> {
        for side in &mut self.sides {
            if side.streams[stream].is_none() {
                let opened = Stream::open_empty(&side.clients, who).await;
                side.streams[stream] =
                    Some(opened.map_err(|error| Difference(format!("{:?}: {error}", side.kind)))?);
            }
        }
        Ok(())
    }

    async fn send(&self, stream: usize, union: Option<RequestUnion>) {
        for side in &self.sides {
            if let Some(stream) = &side.streams[stream] {
                stream.send(union.clone()).await;
            }
        }
    }

    /// The next answer without events, on which both agree.
    async fn control(&mut self, stream: usize) -> Result<WatchResponse, Difference> {
        let [left, right] = &mut self.sides;
        let (Some(l), Some(r)) = (&mut left.streams[stream], &mut right.streams[stream]) else {
            return Err(Difference("a stream is not open".into()));
        };
        let (a, b) = tokio::join!(l.control(), r.control());
        if a != b {
            return Err(self.difference("answers of the watch stream", &format!("{a:?}"), &format!("{b:?}")));
        }
        a.map_err(Difference)
    }

    async fn create(
        &mut self,
        stream: usize,
        who: Option<&str>,
        create: WatchCreateRequest,
    ) -> Result<(), Difference> {
        self.open(stream, who).await?;
        if self.auth {
            // A watch that etcd 3.5.1 does not permit deafens the one of the same id.
            self.settle_one(stream, create.watch_id).await?;
            if self.is_refused_watch(stream, &create).await? {
                return Ok(());
            }
        }
        self.send(stream, Some(RequestUnion::CreateRequest(create.clone()))).await;
        let created = self.control(stream).await?;
        if !created.created {
            return Err(Difference(format!("not the answer to a creation: {created:?}")));
        }
        if created.canceled {
            if self.auth && self.watches.remove(&(stream, create.watch_id)).is_some() {
                self.ended.insert((stream, create.watch_id));
            }
            return Ok(());
        }
        let from = create.start_revision;
        if from != 0 && from < self.compacted {
            let canceled = self.control(stream).await?;
            if canceled.compact_revision != self.compacted {
                return Err(Difference(format!("not cancelled for compaction: {canceled:?}")));
            }
            self.ended.insert((stream, created.watch_id));
            return Ok(());
        }
        let start = if from == 0 { self.current + 1 } else { from };
        let edge = (from != 0 && from == self.compacted).then_some(from);
        let behind = start <= self.current;
        for side in &mut self.sides {
            if let Some(stream) = &mut side.streams[stream] {
                stream.forget(created.watch_id);
            }
        }
        let watched = Watched { create, start, seen: 0, behind, edge };
        self.watches.insert((stream, created.watch_id), watched);
        Ok(())
    }

    async fn cancel(&mut self, stream: usize, who: Option<&str>, id: i64) -> Result<(), Difference> {
        self.open(stream, who).await?;
        // A watch that is behind would never tell the rest.
        self.settle_one(stream, id).await?;
        self.send(stream, Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: id }))).await;
        if self.watches.remove(&(stream, id)).is_none() && !self.ended.remove(&(stream, id)) {
            return Ok(());
        }
        let canceled = self.control(stream).await?;
        if !canceled.canceled || canceled.watch_id != id {
            return Err(Difference(format!("watch {id} is not cancelled: {canceled:?}")));
        }
        Ok(())
    }

    async fn progress(&mut self, stream: usize, who: Option<&str>) -> Result<(), Difference> {
        self.open(stream, who).await?;
        self.settle().await?;
        self.send(stream, Some(RequestUnion::ProgressRequest(WatchProgressRequest {}))).await;
        let progress = self.control(stream).await?;
        if progress.created || progress.canceled || progress.watch_id != -1 {
            return Err(Difference(format!("no notification of progress: {progress:?}")));
        }
        Ok(())
    }

    /// Waits until every watch has told all it has to, and compares.
    async fn settle(&mut self) -> Result<(), Difference> {
        let watches: BTreeSet<_> = self.watches.keys().copied().collect();
        for (stream, id) in watches {
            self.settle_one(stream, id).await?;
        }
        Ok(())
    }

    async fn settle_one(&mut self, stream: usize, id: i64) -> Result<(), Difference> {
        self.catch_up(stream, id).await?;
        let Some(watched) = self.watches.get_mut(&(stream, id)) else { return Ok(()) };
        let edge = watched.edge.take();
        let expected = watched.expected(&self.log, edge);
        let last = expected.last().map_or(0, at);
        let [left, right] = &mut self.sides;
        let (Some(l), Some(r)) = (&mut left.streams[stream], &mut right.streams[stream]) else {
            return Err(Difference("a stream is not open".into()));
        };
        let (a, b) = tokio::join!(l.events_up_to(id, last), r.events_up_to(id, last));
        if a != b {
            return Err(self.difference(
                &format!("events of watch {id} of stream {stream}"),
                &show(&a),
                &show(&b),
            ));
        }
        let mut told = a.map_err(|error| Difference(format!("watch {id} of stream {stream}: {error}")))?;
        if let Some(edge) = edge {
            told.retain(|event| at(event) > edge);
        }
        if told != expected {
            return Err(Difference(format!(
                "both agree, but watch {id} told{}\n  of the events{}",
                show(&Ok(told)),
                show(&Ok(expected))
            )));
        }
        Ok(())
    }

    /// Makes a watch that started in the past tell something new: only then is it known to have read the past. If it
    /// had nothing to read, a compaction could cancel it or not.
    async fn catch_up(&mut self, stream: usize, id: i64) -> Result<(), Difference> {
        let Some(watched) = self.watches.get_mut(&(stream, id)) else { return Ok(()) };
        if !std::mem::take(&mut watched.behind) {
            return Ok(());
        }
        let key = watched.first_key();
        let put = PutRequest { key: key.clone(), value: "caught up".into(), ..PutRequest::default() };
        let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        for op in [Op::Put(put), Op::Delete(delete)] {
            let op = if self.auth { Op::As("root", Box::new(op)) } else { op };
            self.call_now(&op).await?;
        }
        Ok(())
    }

    pub(crate) fn difference(&self, what: &str, a: &dyn fmt::Display, b: &dyn fmt::Display) -> Difference {
        let [left, right] = self.kinds();
        Difference(format!("{what} differ\n  {left:?}: {a}\n  {right:?}: {b}"))
    }
}

fn show(events: &Result<Vec<Event>, String>) -> String {
    match events {
        Ok(events) => {
            let lines: Vec<_> = events.iter().map(|event| format!("\n    {event:?}")).collect();
            lines.concat()
        }
        Err(error) => error.clone(),
    }
}

// === impl Watched ===

impl Watched {
    /// The events of the log that were not looked at and that this watch is to tell.
    fn expected(&mut self, log: &[Event], edge: Option<i64>) -> Vec<Event> {
        let new = &log[self.seen..];
        self.seen = log.len();
        new.iter()
            .filter(|event| edge != Some(at(event)) && self.tells(event))
            .map(|event| self.cut(event))
            .collect()
    }

    fn first_key(&self) -> Bytes {
        if self.create.key.is_empty() { Bytes::from_static(b"\0") } else { self.create.key.clone() }
    }

    fn tells(&self, event: &Event) -> bool {
        let key = event.kv.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
        let from = self.first_key();
        versions::is_inside(&key, &from, &self.create.range_end)
            && at(event) >= self.start
            && !self.create.filters.contains(&event.r#type)
    }

    fn cut(&self, event: &Event) -> Event {
        let mut event = event.clone();
        if !self.create.prev_kv {
            event.prev_kv = None;
        }
        event
    }
}

// === impl Side ===

impl Side {
    async fn start(kind: Kind) -> Self {
        let server = Running::start(kind).await;
        let clients = Clients::connect(&server.url()).await;
        let create = WatchCreateRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        let mut all = Stream::open(&clients, None, create).await.unwrap();
        let created = all.control().await.unwrap();
        assert!(created.created && !created.canceled && created.watch_id == 0, "{created:?}");
        Self { kind, clients, all, streams: (0..STREAMS).map(|_| None).collect(), _server: server }
    }

    /// Asks what is no watch. With auth off, 3.6 does not look at a token, while 3.5.1 refuses one that it does not know: it
    /// is shown to the embedded server only.
    async fn call(&mut self, op: &Op, auth: bool) -> Answer {
        match op {
            Op::As(_, op) if !auth && self.kind != Kind::Embedded => self.clients.call(op).await,
            op => self.clients.call(op).await,
        }
    }
}

// === impl Difference ===

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
