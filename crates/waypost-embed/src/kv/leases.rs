//! The requests about leases.

use waypost_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

use super::space::{Applied, KeySpace, header, to_bytes};
use crate::error::Refusal;
use crate::lease::{Due, Renewal};
use crate::mvcc::StoreError;

// === impl KeySpace ===

impl KeySpace {
    /// Makes a lease. Where the request leaves the id open it is made from `seed`, which should be random.
    pub fn lease_grant(
        &mut self,
        request: &LeaseGrantRequest,
        seed: u64,
        now: u64,
    ) -> Result<Applied<LeaseGrantResponse>, StoreError> {
        let id = if request.id == 0 { self.free_lease_id(seed) } else { request.id };
        self.atomically(|space, write| {
            let ttl = {
                let (batch, leases) = space.batch_and_leases();
                leases.grant(batch, id, request.ttl, now)?
            };
            let header = header(write.revision());
            Ok(LeaseGrantResponse { header, id, ttl, error: String::new() })
        })
    }

    /// Ends a lease and deletes its keys, in ascending order, in one revision.
    pub fn lease_revoke(
        &mut self,
        request: &LeaseRevokeRequest,
    ) -> Result<Applied<LeaseRevokeResponse>, StoreError> {
        if !self.leases.contains(request.id) {
            return Err(Refusal::LeaseNotFound.into());
        }
        let names = self.leases.keys(request.id);
        self.atomically(|space, write| {
            space.delete_keys(write, &names)?;
            let (batch, leases) = space.batch_and_leases();
            leases.revoke(batch, request.id)?;
            Ok(LeaseRevokeResponse { header: header(write.revision()) })
        })
    }

    /// Renews a lease, without a write. `None`: its record has to be written first, by
    /// [`lease_renew`](Self::lease_renew) in a batch.
    pub fn lease_keep_alive(&mut self, id: i64, now: u64) -> Option<LeaseKeepAliveResponse> {
        let ttl = match self.leases.renew(id, now) {
            Renewal::Gone => 0,
            Renewal::Renewed { ttl } => ttl,
            Renewal::NeedsRecord => return None,
        };
        Some(LeaseKeepAliveResponse { header: header(self.store().revision()), id, ttl })
    }

    /// Gives every lease so many milliseconds more, for time in which no renewal could be heard. Only between two batches.
    pub fn postpone_leases(&mut self, by: u64) {
        self.leases.postpone(by);
    }

    /// Renews a lease whose record promises less than the full time.
    pub fn lease_renew(&mut self, id: i64, now: u64) -> Result<Applied<LeaseKeepAliveResponse>, StoreError> {
        self.atomically(|space, write| {
            let (batch, leases) = space.batch_and_leases();
            let ttl = match leases.renew_with_record(batch, id, now) {
                Ok(ttl) => ttl,
                Err(Refusal::LeaseNotFound) => 0,
                Err(refusal) => return Err(refusal.into()),
            };
            Ok(LeaseKeepAliveResponse { header: header(write.revision()), id, ttl })
        })
    }

    /// What a committed lease has left.
    pub fn lease_time_to_live(&self, request: &LeaseTimeToLiveRequest, now: u64) -> LeaseTimeToLiveResponse {
        let header = header(self.store().revision());
        let id = request.id;
        match self.leases.time_to_live(id, request.keys, now) {
            Some(left) => LeaseTimeToLiveResponse {
                header,
                id,
                ttl: left.ttl,
                granted_ttl: left.granted,
                keys: to_bytes(left.keys),
            },
            None => LeaseTimeToLiveResponse { header, id, ttl: -1, ..LeaseTimeToLiveResponse::default() },
        }
    }

    /// All committed leases, the one that ends first first.
    pub fn lease_leases(&self) -> LeaseLeasesResponse {
        let leases = self.leases.list().into_iter().map(|id| LeaseStatus { id }).collect();
        LeaseLeasesResponse { header: header(self.store().revision()), leases }
    }

    /// When [`lease_tick`](Self::lease_tick) has something to do, if ever.
    pub fn next_lease_due(&self) -> Option<u64> {
        self.leases.next_due()
    }

    /// Revokes up to `limit` leases that have ended, and writes records anew that have become old. Gives the revocations,
    /// in order of expiry.
    pub fn lease_tick(&mut self, now: u64, limit: usize) -> Vec<Applied<LeaseRevokeResponse>> {
        let mut revoked = Vec::new();
        for due in self.leases.due(now, limit) {
            match due {
                // Refused only to a lease of 2^32 keys, which is told again next time.
                Due::Expired(id) => revoked.extend(self.lease_revoke(&LeaseRevokeRequest { id })),
                Due::Checkpoint(id) => {
                    let (batch, leases) = self.batch_and_leases();
                    leases.checkpoint(batch, id, now);
                }
            }
        }
        revoked
    }

    /// Writes down what every lease has left, for an orderly end; commit the batch afterwards.
    pub fn save_leases(&mut self, now: u64) {
        let (batch, leases) = self.batch_and_leases();
        leases.save_all(batch, now);
    }

    /// A positive id that is not in use.
    fn free_lease_id(&self, seed: u64) -> i64 {
        let mut id = i64::try_from(seed >> 1).unwrap_or(1).max(1);
        while self.leases.contains(id) {
            id = id.checked_add(1).unwrap_or(1);
        }
        id
    }
}
