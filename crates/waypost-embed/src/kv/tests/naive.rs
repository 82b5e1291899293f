//! The model: every revision as a whole map, every rule as a loop over it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use waypost_proto::etcdserverpb::response_op::Response;
use waypost_proto::etcdserverpb::{LeaseGrantRequest, ResponseOp};
use waypost_proto::mvccpb::Event;

use super::super::space::header;
use super::*;

type Snapshot = BTreeMap<Bytes, KeyValue>;

#[derive(Debug, Clone)]
pub(super) struct Naive {
    /// By revision; 0 and 1 are empty.
    snapshots: Vec<Snapshot>,
    /// By revision.
    pub(super) events: Vec<Vec<Event>>,
    pub(super) compacted: i64,
    pub(super) leases: BTreeSet<i64>,
}

/// A revision in the making.
struct Draft {
    snapshot: Snapshot,
    events: Vec<Event>,
    next: i64,
}

impl Draft {
    fn revision(&self) -> i64 {
        if self.events.is_empty() { self.next - 1 } else { self.next }
    }
}

fn inside(key: &[u8], from: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == from,
        [0] => key >= from,
        end => key >= from && key < end,
    }
}

impl Naive {
    pub(super) fn new() -> Self {
        let (snapshots, events) = (vec![Snapshot::new(); 2], vec![vec![]; 2]);
        Self { snapshots, events, compacted: -1, leases: BTreeSet::new() }
    }

    pub(super) fn revision(&self) -> i64 {
        i64::try_from(self.snapshots.len()).unwrap() - 1
    }

    pub(super) fn before(&self, revision: i64, key: &[u8]) -> Option<KeyValue> {
        self.snapshots[usize::try_from(revision - 1).unwrap()].get(key).cloned()
    }

    pub(super) fn keys_of(&self, lease: i64) -> Vec<Bytes> {
        let newest = self.snapshots.last().unwrap();
        newest.values().filter(|kv| kv.lease == lease).map(|kv| kv.key.clone()).collect()
    }

    fn draft(&self) -> Draft {
        Draft { snapshot: self.snapshots.last().unwrap().clone(), events: vec![], next: self.revision() + 1 }
    }

    fn keep(&mut self, draft: Draft) -> Vec<Event> {
        if !draft.events.is_empty() {
            self.snapshots.push(draft.snapshot);
            self.events.push(draft.events.clone());
        }
        draft.events
    }

    pub(super) fn grant(&mut self, request: &LeaseGrantRequest) -> Result<i64, Refusal> {
        if self.leases.insert(request.id) { Ok(request.ttl) } else { Err(Refusal::LeaseExists) }
    }

    pub(super) fn revoke(&mut self, id: i64) -> Result<Vec<Event>, Refusal> {
        if !self.leases.remove(&id) {
            return Err(Refusal::LeaseNotFound);
        }
        let mut draft = self.draft();
        for key in self.keys_of(id) {
            remove(&mut draft, &key);
        }
        Ok(self.keep(draft))
    }

    pub(super) fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision() {
            return Err(Refusal::FutureRevision);
        }
        self.compacted = revision;
        Ok(())
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        let revision = if request.revision <= 0 { self.revision() } else { request.revision };
        if revision > self.revision() {
            return Err(Refusal::FutureRevision);
        }
        if request.revision > 0 && revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        let snapshot = &self.snapshots[usize::try_from(revision).unwrap()];
        Ok(read(snapshot, request, self.revision()))
    }

    pub(super) fn put(&mut self, request: &PutRequest) -> Result<(PutResponse, Vec<Event>), Refusal> {
        if request.lease != 0 && !self.leases.contains(&request.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        let mut draft = self.draft();
        let answer = write(&mut draft, request)?;
        Ok((answer, self.keep(draft)))
    }

    pub(super) fn delete(&mut self, request: &DeleteRangeRequest) -> (DeleteRangeResponse, Vec<Event>) {
        let mut draft = self.draft();
        let answer = delete(&mut draft, request);
        (answer, self.keep(draft))
    }

    pub(super) fn txn(&mut self, request: &TxnRequest) -> Result<(TxnResponse, Vec<Event>), Refusal> {
        let before = self.snapshots.last().unwrap().clone();
        self.check(&before, request)?;
        let mut draft = self.draft();
        let mut answer = self.run(&before, &mut draft, request)?;
        answer.header = header(draft.revision());
        Ok((answer, self.keep(draft)))
    }

    fn check(&self, before: &Snapshot, request: &TxnRequest) -> Result<(), Refusal> {
        for operation in chosen(before, request) {
            match operation.request.as_ref().unwrap() {
                Request::RequestRange(range) if range.revision > self.revision() => {
                    return Err(Refusal::FutureRevision);
                }
                Request::RequestRange(range) if range.revision != 0 && range.revision < self.compacted => {
                    return Err(Refusal::Compacted);
                }
                Request::RequestPut(put)
                    if (put.ignore_value || put.ignore_lease) && !before.contains_key(&put.key) =>
                {
                    return Err(Refusal::KeyNotFound);
                }
                Request::RequestPut(put) if put.lease != 0 && !self.leases.contains(&put.lease) => {
                    return Err(Refusal::LeaseNotFound);
                }
                Request::RequestTxn(nested) => self.check(before, nested)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn run(
        &self,
        before: &Snapshot,
        draft: &mut Draft,
        request: &TxnRequest,
    ) -> Result<TxnResponse, Refusal> {
        let mut responses = vec![];
        for operation in chosen(before, request) {
            let response = match operation.request.as_ref().unwrap() {
                Request::RequestRange(range) => {
                    let snapshot = match usize::try_from(range.revision) {
                        Ok(revision) if revision > 0 => &self.snapshots[revision],
                        _ => &draft.snapshot,
                    };
                    Response::ResponseRange(read(snapshot, range, draft.revision()))
                }
                Request::RequestPut(put) => Response::ResponsePut(write(draft, put)?),
                Request::RequestDeleteRange(range) => Response::ResponseDeleteRange(delete(draft, range)),
                Request::RequestTxn(nested) => Response::ResponseTxn(self.run(before, draft, nested)?),
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        let succeeded = all_hold(before, request);
        Ok(TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses })
    }
}

fn chosen<'a>(before: &Snapshot, request: &'a TxnRequest) -> &'a [RequestOp] {
    if all_hold(before, request) { &request.success } else { &request.failure }
}

fn all_hold(before: &Snapshot, request: &TxnRequest) -> bool {
    request.compare.iter().all(|compare| {
        let kvs: Vec<_> =
            before.values().filter(|kv| inside(&kv.key, &compare.key, &compare.range_end)).collect();
        let by_value = matches!(compare.target_union, Some(TargetUnion::Value(_)));
        let one = |kv: &KeyValue| {
            let order = match compare.target_union.as_ref().unwrap() {
                TargetUnion::Version(operand) => kv.version.cmp(operand),
                TargetUnion::CreateRevision(operand) => kv.create_revision.cmp(operand),
                TargetUnion::ModRevision(operand) => kv.mod_revision.cmp(operand),
                TargetUnion::Lease(operand) => kv.lease.cmp(operand),
                TargetUnion::Value(operand) => kv.value.cmp(operand),
            };
            match compare.result() {
                CompareResult::Equal => order.is_eq(),
                CompareResult::NotEqual => order.is_ne(),
                CompareResult::Greater => order.is_gt(),
                CompareResult::Less => order.is_lt(),
            }
        };
        if kvs.is_empty() { !by_value && one(&KeyValue::default()) } else { kvs.into_iter().all(one) }
    })
}

fn read(snapshot: &Snapshot, request: &RangeRequest, revision: i64) -> RangeResponse {
    let mut kvs: Vec<_> =
        snapshot.values().filter(|kv| inside(&kv.key, &request.key, &request.range_end)).cloned().collect();
    let count = i64::try_from(kvs.len()).unwrap();
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
    if request.count_only {
        return RangeResponse { header: header(revision), kvs: vec![], more: false, count };
    }
    let filters = [request.min_mod_revision, request.max_mod_revision];
    if let Some(limit) = limit
        && request.sort_order == 0
        && filters == [0, 0]
    {
        kvs.truncate(limit + 1);
    }
    kvs.retain(|kv| {
        (request.min_mod_revision == 0 || kv.mod_revision >= request.min_mod_revision)
            && (request.max_mod_revision == 0 || kv.mod_revision <= request.max_mod_revision)
    });
    let number = |kv: &KeyValue| match request.sort_target {
        1 => kv.version,
        2 => kv.create_revision,
        3 => kv.mod_revision,
        _ => 0,
    };
    let order = |a: &KeyValue, b: &KeyValue| match request.sort_target {
        0 => a.key.cmp(&b.key),
        4 => a.value.cmp(&b.value),
        _ => number(a).cmp(&number(b)),
    };
    if request.sort_order == 2 {
        kvs.sort_by(|a, b| order(b, a));
    } else {
        kvs.sort_by(order);
    }
    let more = limit.is_some_and(|limit| kvs.len() > limit);
    kvs.truncate(limit.unwrap_or(usize::MAX));
    if request.keys_only {
        for kv in &mut kvs {
            kv.value.clear();
        }
    }
    RangeResponse { header: header(revision), kvs, more, count }
}

fn write(draft: &mut Draft, request: &PutRequest) -> Result<PutResponse, Refusal> {
    let old = draft.snapshot.get(&request.key).cloned();
    if (request.ignore_value || request.ignore_lease) && old.is_none() {
        return Err(Refusal::KeyNotFound);
    }
    let before = old.clone().unwrap_or_default();
    let kv = KeyValue {
        key: request.key.clone(),
        create_revision: old.as_ref().map_or(draft.next, |old| old.create_revision),
        mod_revision: draft.next,
        version: before.version + 1,
        value: if request.ignore_value { before.value } else { request.value.clone() },
        lease: if request.ignore_lease { before.lease } else { request.lease },
    };
    draft.events.push(Event { r#type: 0, kv: Some(kv.clone()), prev_kv: None });
    draft.snapshot.insert(request.key.clone(), kv);
    Ok(PutResponse { header: header(draft.next), prev_kv: old.filter(|_| request.prev_kv) })
}

fn remove(draft: &mut Draft, key: &Bytes) -> Option<KeyValue> {
    let old = draft.snapshot.remove(key)?;
    let kv = KeyValue { key: key.clone(), mod_revision: draft.next, ..KeyValue::default() };
    draft.events.push(Event { r#type: 1, kv: Some(kv), prev_kv: None });
    Some(old)
}

fn delete(draft: &mut Draft, request: &DeleteRangeRequest) -> DeleteRangeResponse {
    let keys: Vec<_> =
        draft.snapshot.keys().filter(|key| inside(key, &request.key, &request.range_end)).cloned().collect();
    let mut prev_kvs: Vec<_> = keys.iter().filter_map(|key| remove(draft, key)).collect();
    let deleted = i64::try_from(prev_kvs.len()).unwrap();
    if !request.prev_kv {
        prev_kvs.clear();
    }
    DeleteRangeResponse { header: header(draft.revision()), deleted, prev_kvs }
}
