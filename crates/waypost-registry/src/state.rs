//! What a registration says about itself.

use std::{fmt, sync::Arc};

/// Where a registration stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationState {
    /// Not registered yet, and working on it.
    Registering {
        /// Attempts that have failed so far.
        attempt: u32,
        /// Why the last one failed.
        cause: Option<Arc<str>>,
    },
    /// Registered: the keys are in etcd, attached to a lease that is being renewed.
    Registered {
        /// The lease.
        lease: i64,
        /// The revision of the last write of its keys.
        revision: i64,
    },
    /// Was registered, and may not be at the moment: the lease is not being renewed in time or is lost, the keys are
    /// being put again, or another process has taken them over. Heals by itself.
    Suspect {
        /// What happened.
        cause: Arc<str>,
    },
    /// Refused for good: under [`Conflict::Reject`](crate::Conflict::Reject) somebody else has the key.
    Refused {
        /// Who.
        cause: Arc<str>,
    },
    /// Ended by its owner: the keys are gone from etcd, or will be when their lease expires.
    Deregistered,
}

// === impl RegistrationState ===

impl RegistrationState {
    /// Whether it is [`Registered`](Self::Registered).
    pub fn is_registered(&self) -> bool {
        matches!(self, Self::Registered { .. })
    }

    /// Whether it will never change again.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Deregistered)
    }

    /// The name of the state in metrics: one lower-case word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Registering { .. } => "registering",
            Self::Registered { .. } => "registered",
            Self::Suspect { .. } => "suspect",
            Self::Refused { .. } => "refused",
            Self::Deregistered => "deregistered",
        }
    }
}

impl fmt::Display for RegistrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registering { attempt, cause: Some(cause) } => {
                write!(f, "registering, {attempt} attempts failed: {cause}")
            }
            Self::Registering { cause: None, .. } => f.write_str("registering"),
            Self::Registered { lease, revision } => {
                write!(f, "registered at revision {revision} under lease {lease:x}")
            }
            Self::Suspect { cause } => write!(f, "suspect: {cause}"),
            Self::Refused { cause } => write!(f, "refused: {cause}"),
            Self::Deregistered => f.write_str("deregistered"),
        }
    }
}
