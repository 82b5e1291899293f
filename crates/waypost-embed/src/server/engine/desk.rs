//! What the writer gives to each request that it applies.

use super::mail::Settle;
use super::{Alarms, Member};
use crate::auth::{Auth, Policy};
use crate::backend::Backend;
use crate::error::Refusal;
use crate::kv::{Applied, KeySpace};
use crate::mvcc::Change;

/// The state with everything that was applied before in the same batch, for one request to be checked and applied.
pub(in crate::server) struct Desk<'a> {
    pub(in crate::server) space: &'a mut KeySpace,
    pub(in crate::server) auth: &'a mut Auth,
    pub(in crate::server) alarms: &'a mut Alarms,
    pub(in crate::server) backend: &'a dyn Backend,
    pub(in crate::server) member: &'a Member,
    /// Milliseconds.
    pub(in crate::server) now: u64,
    pub(super) quota: Option<u64>,
    /// Bytes on disk when the batch began.
    pub(super) size: u64,
    /// What is to be published, by revision.
    pub(super) published: Vec<(i64, Vec<Change>)>,
    /// Whether the request is answered only when obsolete versions are gone.
    pub(super) physical: bool,
}

/// Requests of a batch, before and after it is committed.
#[derive(Default)]
pub(super) struct Settles {
    pub(super) now: Vec<Settle>,
    /// Those that wait for a compaction.
    pub(super) later: Vec<Settle>,
}

// === impl Desk ===

impl Desk<'_> {
    /// Users and roles with the changes of this batch.
    pub(in crate::server) fn policy(&self) -> &Policy {
        self.auth.pending()
    }

    /// Notes what a request changed; gives its answer.
    pub(in crate::server) fn applied<A>(&mut self, applied: Applied<A>) -> A {
        if !applied.changes.is_empty() {
            self.published.push((applied.revision, applied.changes));
        }
        applied.answer
    }

    /// Refuses a request while the store is known to be corrupt.
    pub(in crate::server) fn refuse_if_corrupt(&self) -> Result<(), Refusal> {
        if self.alarms.corrupt() { Err(Refusal::Corrupt) } else { Ok(()) }
    }

    /// Refuses a request that needs space if there is none; `cost` in bytes. Raises the alarm when the quota is reached.
    pub(in crate::server) fn claim_space(&mut self, cost: usize) -> Result<(), Refusal> {
        if self.alarms.no_space() {
            return Err(Refusal::NoSpace);
        }
        let Some(quota) = self.quota else { return Ok(()) };
        let waiting = self.space.batch().bytes();
        let wanted = self.size.saturating_add(waiting as u64).saturating_add(cost as u64);
        if wanted <= quota {
            return Ok(());
        }
        let member = self.member.id;
        self.alarms.raise_no_space(self.space.batch(), member);
        Err(Refusal::NoSpace)
    }

    /// Has the request answered only when obsolete versions are gone.
    pub(in crate::server) fn wait_for_compaction(&mut self) {
        self.physical = true;
    }
}
