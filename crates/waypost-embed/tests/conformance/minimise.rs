//! Fewer operations that show the same: whatever can be left out is.

use crate::op::Op;
use crate::server::Kind;
use crate::session::{Difference, Session};

/// Attempts to leave something out; each starts two servers.
const ATTEMPTS: usize = 120;

/// A sequence that makes two servers differ, from their start.
pub(crate) struct Minimal {
    pub(crate) ops: Vec<Op>,
    pub(crate) difference: Difference,
}

/// Leaves out operations as long as servers that have just been started still differ; `None` if they do not with all.
pub(crate) async fn minimise(kinds: [Kind; 2], ops: &[Op]) -> Option<Minimal> {
    let mut best = attempt(kinds, ops).await?;
    let mut chunk = best.ops.len().div_ceil(2);
    let mut attempts = 0;
    loop {
        let mut from = 0;
        while from < best.ops.len() && attempts < ATTEMPTS {
            attempts += 1;
            let to = (from + chunk).min(best.ops.len());
            let fewer = [&best.ops[..from], &best.ops[to..]].concat();
            match attempt(kinds, &fewer).await {
                Some(minimal) => best = minimal,
                None => from = to,
            }
        }
        if chunk <= 1 || attempts >= ATTEMPTS {
            return Some(best);
        }
        chunk = chunk.div_ceil(2);
    }
}

/// Drives two new servers; what led to a difference, if there is one.
pub(crate) async fn attempt(kinds: [Kind; 2], ops: &[Op]) -> Option<Minimal> {
    let mut session = Session::start(kinds).await;
    let (position, difference) = session.run(ops).await.err()?;
    Some(Minimal { ops: ops[..=position].to_vec(), difference })
}
