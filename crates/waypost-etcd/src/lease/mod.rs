//! Leases: granted, renewed, looked at, revoked.
//!
//! A lease is a time to live on the server; keys attached to it go when it does. [`Client`] has the single calls;
//! a [`LeaseKeeper`] keeps leases alive and says when one is lost.

mod keeper;
mod schedule;

use std::time::Duration;

use bytes::Bytes;

use crate::client::Client;
use crate::error::{Error, ErrorKind, Operation};
use crate::proto::etcdserverpb as pb;

pub use self::keeper::{KeptLease, LeaseKeeper};
pub use self::schedule::{LeaseLoss, LeaseState};

/// A lease that etcd granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: i64,
    /// Its time to live as granted, which may be more than was asked for: etcd has a minimum (2 s by default).
    pub ttl: Duration,
}

/// What etcd knows of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseTimeToLive {
    /// How much is left, in whole seconds; `None` when there is no such lease.
    pub ttl: Option<Duration>,
    /// How much was granted.
    pub granted: Duration,
    /// The keys attached to it, if they were asked for.
    pub keys: Vec<Bytes>,
}

/// The longest time to live that etcd grants, in seconds (`lease/lessor.go`).
const LONGEST_TTL: u64 = 9_000_000_000;

/// Whole seconds as etcd counts them; a negative number is zero, and none is beyond what etcd grants.
fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0).min(LONGEST_TTL))
}

// === impl Client ===

impl Client {
    /// Grant a lease. `ttl` is rounded up to whole seconds, at least one; `id` `None` lets etcd choose.
    pub async fn lease_grant(&self, ttl: Duration, id: Option<i64>) -> Result<Lease, Error> {
        let whole = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        let request = pb::LeaseGrantRequest {
            ttl: i64::try_from(whole.max(1)).unwrap_or(i64::MAX),
            id: id.unwrap_or(0),
        };
        // A grant that is lost on the way leaves a lease without keys, which expires by itself.
        let operation = Operation::write("lease grant").idempotent(id.is_none());
        let answer = self
            .cluster
            .call(&operation, |session| {
                let request = session.unary(request);
                async move { session.lease().lease_grant(request?).await }
            })
            .await?;
        if !answer.error.is_empty() {
            return Err(Error::new(ErrorKind::Other, &operation, answer.error));
        }
        Ok(Lease { id: answer.id, ttl: seconds(answer.ttl) })
    }

    /// End a lease; the keys attached to it are deleted, all in one revision.
    pub async fn lease_revoke(&self, id: i64) -> Result<(), Error> {
        let operation = Operation::write("lease revoke").idempotent(true);
        self.cluster
            .call(&operation, |session| {
                let request = session.unary(pb::LeaseRevokeRequest { id });
                async move { session.lease().lease_revoke(request?).await }
            })
            .await
            .map(|_| ())
    }

    /// How long a lease has to live, and with `keys` what is attached to it.
    pub async fn lease_time_to_live(&self, id: i64, keys: bool) -> Result<LeaseTimeToLive, Error> {
        let operation = Operation::read("lease time to live");
        let answer = self
            .cluster
            .call(&operation, |session| {
                let request = session.unary(pb::LeaseTimeToLiveRequest { id, keys });
                async move { session.lease().lease_time_to_live(request?).await }
            })
            .await?;
        let ttl = (answer.ttl >= 0).then(|| seconds(answer.ttl));
        Ok(LeaseTimeToLive { ttl, granted: seconds(answer.granted_ttl), keys: answer.keys })
    }

    /// The ids of all leases.
    pub async fn leases(&self) -> Result<Vec<i64>, Error> {
        let operation = Operation::read("leases");
        let answer = self
            .cluster
            .call(&operation, |session| {
                let request = session.unary(pb::LeaseLeasesRequest {});
                async move { session.lease().lease_leases(request?).await }
            })
            .await?;
        Ok(answer.leases.into_iter().map(|lease| lease.id).collect())
    }
}
