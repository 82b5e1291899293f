//! What can be said about a request without looking at the keys.

use waypost_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

use super::intervals::check_intervals;
use crate::error::Refusal;

/// Operations allowed in each list of a transaction, unless configured otherwise.
pub const DEFAULT_MAX_OPS: usize = 128;

/// Transactions may be nested this deep, whatever number of operations is allowed: what follows the checks may recurse.
pub const MAX_DEPTH: usize = 128;

/// Checks a range request.
pub fn check_range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err() || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

/// Checks a put request.
pub fn check_put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete request.
pub fn check_delete_range(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction. Each of its lists may have `max_ops` entries; a nested transaction may have as many in each list
/// as the longest list of its parent leaves. Does not recurse, however deep the request is.
pub fn check_txn(request: &TxnRequest, max_ops: usize) -> Result<(), Refusal> {
    let mut open = vec![Open::new(request, max_ops)?];
    while let Some(top) = open.last_mut() {
        let Some(operation) = top.operations.next() else {
            open.pop();
            continue;
        };
        match &operation.request {
            Some(Request::RequestRange(request)) => check_range(request)?,
            Some(Request::RequestPut(request)) => check_put(request)?,
            Some(Request::RequestDeleteRange(request)) => check_delete_range(request)?,
            Some(Request::RequestTxn(request)) => {
                let left = top.left;
                if open.len() >= MAX_DEPTH {
                    return Err(Refusal::TooManyOps);
                }
                open.push(Open::new(request, left)?);
            }
            None => return Err(Refusal::KeyNotFound),
        }
    }
    check_intervals(&request.success)?;
    check_intervals(&request.failure)?;
    Ok(())
}

/// Whether a transaction can be answered by a reader: it has nothing but range operations.
pub fn is_read_only(request: &TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|operation| matches!(operation.request, Some(Request::RequestRange(_))))
}

/// Whether either branch of a transaction puts a key: such a one is refused when space has run out. Puts of transactions in
/// it do not count, as in etcd.
pub fn has_put(request: &TxnRequest) -> bool {
    let mut operations = request.success.iter().chain(&request.failure);
    operations.any(|operation| matches!(operation.request, Some(Request::RequestPut(_))))
}

/// A transaction that is being checked.
struct Open<'a> {
    operations: std::iter::Chain<std::slice::Iter<'a, RequestOp>, std::slice::Iter<'a, RequestOp>>,
    /// Operations that a nested transaction may have in each list.
    left: usize,
}

// === impl Open ===

impl<'a> Open<'a> {
    fn new(request: &'a TxnRequest, max_ops: usize) -> Result<Self, Refusal> {
        let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
        let Some(left) = max_ops.checked_sub(longest) else { return Err(Refusal::TooManyOps) };
        if request.compare.iter().any(|compare| compare.key.is_empty()) {
            return Err(Refusal::EmptyKey);
        }
        Ok(Self { operations: request.success.iter().chain(&request.failure), left })
    }
}
