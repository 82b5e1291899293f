//! Transactions: all conditions of the whole tree are decided first, then everything that could fail is checked, then the
//! chosen branches run. So conditions of a nested transaction do not see what its parent writes, and a transaction that is
//! refused has written nothing.

use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::response_op::Response;
use waypost_proto::etcdserverpb::{
    PutRequest, RangeRequest, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};

use super::check::{MAX_DEPTH, is_read_only};
use super::compare::holds;
use super::range::{RangePlan, read_revision};
use super::space::{Applied, KeySpace, header};
use crate::backend::Backend;
use crate::error::Refusal;
use crate::mvcc::{StoreError, Write};

/// Which branch each transaction of a tree takes, in the order in which they run.
type Path = Vec<bool>;

// === impl KeySpace ===

impl KeySpace {
    /// Runs a transaction.
    pub fn txn(
        &mut self,
        backend: &dyn Backend,
        request: TxnRequest,
    ) -> Result<Applied<TxnResponse>, StoreError> {
        let mut path = Path::new();
        self.decide(backend, &request, self.store().current(), MAX_DEPTH, &mut path)?;
        // Every put before the first range: a transaction that fails for both is told of the put.
        check_branch(&request, &mut path.iter().copied(), &|operation| match operation {
            Request::RequestPut(put) => self.check_put_in(put),
            _ => Ok(()),
        })?;
        check_branch(&request, &mut path.iter().copied(), &|operation| match operation {
            Request::RequestRange(range) => self.check_range_in(range),
            _ => Ok(()),
        })?;
        self.atomically(|space, write| {
            let mut answer = space.run(backend, write, request, &mut path.into_iter())?;
            answer.header = header(write.revision());
            Ok(answer)
        })
    }

    /// Answers a transaction that [only reads](is_read_only) from what is committed. `None`: it does not only read, and has
    /// to be [run](Self::txn). [`StoreError::Moved`]: a compaction came between; try again.
    pub fn read_txn(
        &self,
        backend: &dyn Backend,
        request: &TxnRequest,
    ) -> Result<Option<TxnResponse>, StoreError> {
        if !is_read_only(request) {
            return Ok(None);
        }
        let (revision, compacted) = (self.store().revision(), self.store().compacted());
        let succeeded = self.all_hold(backend, request, revision)?;
        let operations = branch(request, succeeded);
        let mut ranges = Vec::with_capacity(operations.len());
        for operation in operations {
            if let Some(Request::RequestRange(range)) = &operation.request {
                ranges.push((range, nested_revision(range.revision, revision, compacted)?));
            }
        }
        let mut responses = Vec::with_capacity(ranges.len());
        for (range, at) in ranges {
            let plan = RangePlan::new(self.store(), range, at.unwrap_or(revision), revision);
            responses.push(answer_with(Response::ResponseRange(plan.fetch(backend)?)));
        }
        Ok(Some(TxnResponse { header: header(revision), succeeded, responses }))
    }

    /// Decides the branches of a whole tree as of revision `at`.
    fn decide(
        &self,
        backend: &dyn Backend,
        request: &TxnRequest,
        at: i64,
        depth: usize,
        path: &mut Path,
    ) -> Result<(), StoreError> {
        let Some(depth) = depth.checked_sub(1) else { return Err(Refusal::TooManyOps.into()) };
        let succeeded = self.all_hold(backend, request, at)?;
        path.push(succeeded);
        for operation in branch(request, succeeded) {
            if let Some(Request::RequestTxn(nested)) = &operation.request {
                self.decide(backend, nested, at, depth, path)?;
            }
        }
        Ok(())
    }

    fn all_hold(&self, backend: &dyn Backend, request: &TxnRequest, at: i64) -> Result<bool, StoreError> {
        for compare in &request.compare {
            if !holds(self, backend, compare, at)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn check_range_in(&self, range: &RangeRequest) -> Result<(), Refusal> {
        let store = self.store();
        nested_revision(range.revision, store.current(), store.current_compacted()).map(|_| ())
    }

    fn check_put_in(&self, put: &PutRequest) -> Result<(), Refusal> {
        if (put.ignore_value || put.ignore_lease)
            && self.store().get(&put.key, self.store().current()).is_none()
        {
            return Err(Refusal::KeyNotFound);
        }
        if put.lease != 0 && !self.leases.contains(put.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        Ok(())
    }

    fn run(
        &mut self,
        backend: &dyn Backend,
        write: &mut Write,
        request: TxnRequest,
        path: &mut impl Iterator<Item = bool>,
    ) -> Result<TxnResponse, StoreError> {
        let succeeded = path.next().unwrap_or_default();
        let operations = if succeeded { request.success } else { request.failure };
        let mut responses = Vec::with_capacity(operations.len());
        for operation in operations {
            responses.push(match operation.request {
                Some(Request::RequestRange(range)) => {
                    let newest = write.revision();
                    // The revision was checked against what was there before this transaction.
                    let at = if range.revision > 0 { range.revision } else { newest };
                    let plan = RangePlan::new(self.store(), &range, at, newest);
                    let answer = plan.resolve(|revision| self.store().value(backend, revision))?;
                    answer_with(Response::ResponseRange(answer))
                }
                Some(Request::RequestPut(put)) => {
                    answer_with(Response::ResponsePut(self.put_in(backend, write, put)?))
                }
                Some(Request::RequestDeleteRange(delete)) => {
                    answer_with(Response::ResponseDeleteRange(self.delete_in(backend, write, &delete)?))
                }
                Some(Request::RequestTxn(nested)) => {
                    answer_with(Response::ResponseTxn(self.run(backend, write, nested, path)?))
                }
                None => ResponseOp::default(),
            });
        }
        // Only the outermost header carries a revision.
        Ok(TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses })
    }
}

/// Checks the operations of the chosen branches, one by one.
fn check_branch(
    request: &TxnRequest,
    path: &mut impl Iterator<Item = bool>,
    check: &impl Fn(&Request) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    for operation in branch(request, path.next().unwrap_or_default()) {
        match &operation.request {
            Some(Request::RequestTxn(nested)) => check_branch(nested, path, check)?,
            Some(operation) => check(operation)?,
            None => {}
        }
    }
    Ok(())
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

fn answer_with(response: Response) -> ResponseOp {
    ResponseOp { response: Some(response) }
}

/// The revision that a range within a transaction asks for, `None` for the newest. Unlike a range of its own, one that is
/// negative counts as compacted once anything is.
fn nested_revision(asked: i64, newest: i64, compacted: i64) -> Result<Option<i64>, Refusal> {
    if asked < 0 && asked < compacted {
        return Err(Refusal::Compacted);
    }
    if asked <= 0 {
        return Ok(None);
    }
    read_revision(asked, newest, compacted).map(Some)
}
