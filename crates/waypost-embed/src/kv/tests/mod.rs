//! Rules of the key space, one test each; and all of them together against a model that keeps every revision whole.

mod compact;
mod delete;
mod leases;
mod model;
mod naive;
mod put;
mod range;
mod txn;

use waypost_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use waypost_proto::mvccpb::KeyValue;

use super::*;
use crate::backend::{Backend, MemoryBackend};
use crate::error::Refusal;
use crate::mvcc::StoreError;

/// A key space over memory; every request is a batch of its own.
struct Server {
    backend: MemoryBackend,
    space: KeySpace,
    now: u64,
}

impl Server {
    fn new() -> Self {
        let backend = MemoryBackend::new();
        let space = KeySpace::load(&backend, 2, 0).unwrap();
        Self { backend, space, now: 0 }
    }

    fn restart(&mut self) {
        self.space = KeySpace::load(&self.backend, 2, self.now).unwrap();
    }

    fn commit(&mut self) {
        self.backend.commit(self.space.take_batch()).unwrap();
        self.space.committed();
    }

    fn finish<A>(&mut self, applied: Result<Applied<A>, StoreError>) -> Result<Applied<A>, Refusal> {
        self.commit();
        applied.map_err(|error| error.refusal())
    }

    fn put(&mut self, request: PutRequest) -> Result<PutResponse, Refusal> {
        check_put(&request)?;
        let applied = self.space.put(&self.backend, request);
        Ok(self.finish(applied)?.answer)
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Refusal> {
        check_delete_range(request)?;
        let applied = self.space.delete_range(&self.backend, request);
        Ok(self.finish(applied)?.answer)
    }

    fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, Refusal> {
        check_txn(&request, DEFAULT_MAX_OPS)?;
        let applied = self.space.txn(&self.backend, request);
        Ok(self.finish(applied)?.answer)
    }

    fn compact(&mut self, revision: i64) -> Result<i64, Refusal> {
        let applied = self.space.compact(&CompactionRequest { revision, physical: false });
        let answer = self.finish(applied)?.answer;
        Ok(answer.header.unwrap().revision)
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        check_range(request)?;
        self.space.plan_range(request)?.fetch(&self.backend).map_err(|error| error.refusal())
    }

    fn get(&self, key: &str) -> Option<KeyValue> {
        self.range(&range(key, "")).unwrap().kvs.pop()
    }

    /// Puts `key` with a value of its own.
    fn set(&mut self, key: &str, value: &str) -> i64 {
        revision(self.put(put(key, value)).unwrap().header)
    }
}

fn revision(header: Option<ResponseHeader>) -> i64 {
    header.unwrap().revision
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() }
}

fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), range_end: end.to_owned().into(), ..RangeRequest::default() }
}

fn delete(key: &str, end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..DeleteRangeRequest::default()
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn op_put(key: &str, value: &str) -> RequestOp {
    op(Request::RequestPut(put(key, value)))
}

fn op_range(key: &str, end: &str) -> RequestOp {
    op(Request::RequestRange(range(key, end)))
}

fn op_delete(key: &str, end: &str) -> RequestOp {
    op(Request::RequestDeleteRange(delete(key, end)))
}

fn op_txn(request: TxnRequest) -> RequestOp {
    op(Request::RequestTxn(request))
}

fn txn(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

fn branches(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, failure, ..TxnRequest::default() }
}

fn compare(
    key: &str,
    end: &str,
    target: CompareTarget,
    result: CompareResult,
    operand: TargetUnion,
) -> Compare {
    Compare {
        result: result.into(),
        target: target.into(),
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        target_union: Some(operand),
    }
}

fn keys(response: &RangeResponse) -> Vec<&str> {
    response.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap()).collect()
}
