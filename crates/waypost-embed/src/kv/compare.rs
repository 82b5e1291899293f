//! The conditions of a transaction.

use std::cmp::Ordering;

use waypost_proto::etcdserverpb::Compare;
use waypost_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

use super::space::KeySpace;
use crate::backend::Backend;
use crate::mvcc::{Found, Span, StoreError};

/// Whether a comparison holds for every key that it names, as of revision `at`. Where there is no such key, a comparison
/// of the value fails and any other compares with zero.
pub(super) fn holds(
    space: &KeySpace,
    backend: &dyn Backend,
    compare: &Compare,
    at: i64,
) -> Result<bool, StoreError> {
    let span = Span::new(&compare.key, &compare.range_end);
    let target = CompareTarget::try_from(compare.target);
    let mut any = false;
    for (_, found) in space.store().range(span, at) {
        any = true;
        if !outcome(compare, order(space, backend, compare, target, Some(found))?) {
            return Ok(false);
        }
    }
    if any {
        return Ok(true);
    }
    if target == Ok(CompareTarget::Value) {
        return Ok(false);
    }
    Ok(outcome(compare, order(space, backend, compare, target, None)?))
}

/// How the key's side compares with the operand. A target that is not known compares as equal, an operand of another
/// target as zero: that is what etcd does.
fn order(
    space: &KeySpace,
    backend: &dyn Backend,
    compare: &Compare,
    target: Result<CompareTarget, prost::UnknownEnumValue>,
    found: Option<Found>,
) -> Result<Ordering, StoreError> {
    let Ok(target) = target else { return Ok(Ordering::Equal) };
    let kv = match (target, found) {
        (CompareTarget::Value | CompareTarget::Lease, Some(found)) => {
            Some(space.store().value(backend, found.revision)?)
        }
        _ => None,
    };
    let number = |of: fn(Found) -> i64| found.map_or(0, of);
    Ok(match (target, &compare.target_union) {
        (CompareTarget::Value, operand) => {
            let operand = match operand {
                Some(TargetUnion::Value(value)) => &value[..],
                _ => &[],
            };
            kv.map(|kv| kv.value).unwrap_or_default()[..].cmp(operand)
        }
        (CompareTarget::Version, operand) => {
            let operand = match operand {
                Some(TargetUnion::Version(version)) => *version,
                _ => 0,
            };
            number(|found| found.version).cmp(&operand)
        }
        (CompareTarget::Create, operand) => {
            let operand = match operand {
                Some(TargetUnion::CreateRevision(revision)) => *revision,
                _ => 0,
            };
            number(|found| found.created).cmp(&operand)
        }
        (CompareTarget::Mod, operand) => {
            let operand = match operand {
                Some(TargetUnion::ModRevision(revision)) => *revision,
                _ => 0,
            };
            number(|found| found.revision.main).cmp(&operand)
        }
        (CompareTarget::Lease, operand) => {
            let operand = match operand {
                Some(TargetUnion::Lease(lease)) => *lease,
                _ => 0,
            };
            kv.map_or(0, |kv| kv.lease).cmp(&operand)
        }
    })
}

/// A result that is not known holds always: that is what etcd does.
fn outcome(compare: &Compare, order: Ordering) -> bool {
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}
