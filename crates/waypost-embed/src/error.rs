//! What is said to a client that is refused.
//!
//! Clients of etcd tell errors apart by their text, so every text here is etcd's, byte for byte. An error that etcd has
//! no code of its own for goes out as `Unknown` with its text: [`Refusal::Other`].

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Why a request was not done. Nothing of a refused request has been written.
///
/// ```
/// use waypost_embed::error::{Code, Refusal};
///
/// assert_eq!(Refusal::EmptyKey.code(), Code::InvalidArgument);
/// assert_eq!(Refusal::EmptyKey.message(), "etcdserver: key is not provided");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    // --- key space ---
    /// A range, put, delete or compare with an empty key.
    EmptyKey,
    /// `ignore_value` or `ignore_lease` of a key that does not exist; an empty operation in a transaction.
    KeyNotFound,
    /// `ignore_value` along with a value.
    ValueProvided,
    /// `ignore_lease` along with a lease.
    LeaseProvided,
    /// A sort order or target that is not in the enumeration.
    InvalidSortOption,
    /// More operations in a list of a transaction than allowed.
    TooManyOps,
    /// One key is put twice, or put and deleted, by one branch of a transaction.
    DuplicateKey,
    /// The encoded request is above the limit.
    RequestTooLarge,
    /// The gRPC message is above the receive limit; both in bytes.
    MessageTooLarge {
        /// Size of the message in bytes.
        size: usize,
        /// Largest size that is received, in bytes.
        limit: usize,
    },
    /// The revision is below the compact revision (or, to compact, not above it).
    Compacted,
    /// The revision is above the current one.
    FutureRevision,
    /// The NOSPACE alarm is on.
    NoSpace,
    /// The CORRUPT alarm is on.
    Corrupt,
    // --- leases ---
    /// No such lease.
    LeaseNotFound,
    /// The chosen lease id is in use.
    LeaseExists,
    /// A TTL above 9,000,000,000 seconds.
    LeaseTtlTooLarge,
    // --- server ---
    /// The watch stream was cancelled by the server.
    WatchCanceled,
    /// The server is going down.
    Stopped,
    /// The request was not done in time.
    TimedOut,
    /// There is no leader.
    NoLeader,
    /// Too many requests wait to be written.
    TooManyRequests,
    /// The `client-api-version` metadata is not UTF-8.
    InvalidClientApiVersion,
    /// The method does not exist.
    UnknownMethod {
        /// Name of the method.
        method: String,
        /// Name of the service, with its package.
        service: String,
    },
    // --- members ---
    /// No member has this id.
    MemberNotFound,
    /// The member's URLs are not valid.
    MemberBadUrls,
    /// Another member has this peer URL.
    PeerUrlExists,
    /// The member to promote is not a learner.
    MemberNotLearner,
    /// The cluster would be left without a started member.
    MemberNotEnoughStarted,
    /// Leadership cannot go to this member.
    BadLeaderTransferee,
    /// The version to downgrade to is not a version.
    WrongDowngradeVersion,
    // --- auth ---
    /// No token while auth is on, or a user without a name.
    UserEmpty,
    /// A token that is unknown or has expired.
    InvalidAuthToken,
    /// The user lacks the right.
    PermissionDenied,
    /// Wrong password or unknown user.
    AuthFailed,
    /// A password was given for a user without one.
    NoPasswordUser,
    /// Auth is off.
    AuthNotEnabled,
    /// The token is older than the auth store.
    AuthOldRevision,
    /// Auth cannot be enabled without a user `root`.
    RootUserNotExist,
    /// Auth cannot be enabled while user `root` lacks role `root`.
    RootRoleNotExist,
    /// The user exists.
    UserExists,
    /// The user does not exist.
    UserNotFound,
    /// The role exists.
    RoleExists,
    /// The role does not exist.
    RoleNotFound,
    /// A role without a name.
    RoleEmpty,
    /// The role was not granted to the user.
    RoleNotGranted,
    /// The permission was not granted to the role.
    PermissionNotGranted,
    /// The request carries no permission.
    PermissionNotGiven,
    /// A range that ends before it starts, or a change that would lock `root` out.
    InvalidAuthManagement,
    // --- lock and election ---
    /// The election has no leader.
    ElectionNoLeader,
    /// The leader key is not (or no longer) the leader's.
    ElectionNotLeader,
    /// The request carries no leader key.
    ElectionLeaderMissing,
    /// A refusal met by the lock or election service on the caller's behalf: the same text, code `Unknown`.
    Inner(Box<Refusal>),
    // --- everything else ---
    /// An error that etcd has no text for; code `Unknown`.
    Other(Arc<str>),
}

/// A gRPC status code; the discriminant is the number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Code {
    /// Cancelled.
    Canceled = 1,
    /// Anything without a code of its own.
    Unknown = 2,
    /// The request can never be right.
    InvalidArgument = 3,
    /// The thing named does not exist.
    NotFound = 5,
    /// The caller lacks the right.
    PermissionDenied = 7,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// The state does not allow it.
    FailedPrecondition = 9,
    /// Outside of what is kept.
    OutOfRange = 11,
    /// No such method.
    Unimplemented = 12,
    /// The server cannot be reached now; the only code that clients retry.
    Unavailable = 14,
    /// Data is damaged.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

// === impl Refusal ===

impl Refusal {
    /// The gRPC status code.
    pub fn code(&self) -> Code {
        match self {
            Self::EmptyKey
            | Self::KeyNotFound
            | Self::ValueProvided
            | Self::LeaseProvided
            | Self::InvalidSortOption
            | Self::TooManyOps
            | Self::DuplicateKey
            | Self::RequestTooLarge
            | Self::InvalidClientApiVersion
            | Self::MemberBadUrls
            | Self::WrongDowngradeVersion
            | Self::UserEmpty
            | Self::AuthFailed
            | Self::AuthOldRevision
            | Self::RoleEmpty
            | Self::PermissionNotGiven
            | Self::InvalidAuthManagement => Code::InvalidArgument,
            Self::MessageTooLarge { .. } | Self::NoSpace | Self::TooManyRequests => Code::ResourceExhausted,
            Self::Compacted | Self::FutureRevision | Self::LeaseTtlTooLarge => Code::OutOfRange,
            Self::Corrupt => Code::DataLoss,
            Self::LeaseNotFound | Self::MemberNotFound => Code::NotFound,
            Self::LeaseExists
            | Self::PeerUrlExists
            | Self::MemberNotLearner
            | Self::BadLeaderTransferee
            | Self::AuthNotEnabled
            | Self::RootUserNotExist
            | Self::RootRoleNotExist
            | Self::UserExists
            | Self::UserNotFound
            | Self::RoleExists
            | Self::RoleNotFound
            | Self::RoleNotGranted
            | Self::PermissionNotGranted => Code::FailedPrecondition,
            Self::WatchCanceled => Code::Canceled,
            Self::Stopped | Self::TimedOut | Self::NoLeader => Code::Unavailable,
            Self::UnknownMethod { .. } => Code::Unimplemented,
            Self::InvalidAuthToken => Code::Unauthenticated,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::MemberNotEnoughStarted
            | Self::NoPasswordUser
            | Self::ElectionNoLeader
            | Self::ElectionNotLeader
            | Self::ElectionLeaderMissing
            | Self::Inner(_)
            | Self::Other(_) => Code::Unknown,
        }
    }

    /// The text as etcd has it.
    pub fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::EmptyKey => "etcdserver: key is not provided",
            Self::KeyNotFound => "etcdserver: key not found",
            Self::ValueProvided => "etcdserver: value is provided",
            Self::LeaseProvided => "etcdserver: lease is provided",
            Self::InvalidSortOption => "etcdserver: invalid sort option",
            Self::TooManyOps => "etcdserver: too many operations in txn request",
            Self::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Self::RequestTooLarge => "etcdserver: request is too large",
            Self::MessageTooLarge { size, limit } => {
                return Cow::Owned(format!("grpc: received message larger than max ({size} vs. {limit})"));
            }
            Self::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Self::FutureRevision => "etcdserver: mvcc: required revision is a future revision",
            Self::NoSpace => "etcdserver: mvcc: database space exceeded",
            Self::Corrupt => "etcdserver: corrupt cluster",
            Self::LeaseNotFound => "etcdserver: requested lease not found",
            Self::LeaseExists => "etcdserver: lease already exists",
            Self::LeaseTtlTooLarge => "etcdserver: too large lease TTL",
            Self::WatchCanceled => "etcdserver: watch canceled",
            Self::Stopped => "etcdserver: server stopped",
            Self::TimedOut => "etcdserver: request timed out",
            Self::NoLeader => "etcdserver: no leader",
            Self::TooManyRequests => "etcdserver: too many requests",
            Self::InvalidClientApiVersion => "etcdserver: invalid client api version",
            Self::UnknownMethod { method, service } => {
                return Cow::Owned(format!("unknown method {method} for service {service}"));
            }
            Self::MemberNotFound => "etcdserver: member not found",
            Self::MemberBadUrls => "etcdserver: given member URLs are invalid",
            Self::PeerUrlExists => "etcdserver: Peer URLs already exists",
            Self::MemberNotLearner => "etcdserver: can only promote a learner member",
            Self::MemberNotEnoughStarted => {
                "etcdserver: re-configuration failed due to not enough started members"
            }
            Self::BadLeaderTransferee => "etcdserver: bad leader transferee",
            Self::WrongDowngradeVersion => "etcdserver: wrong downgrade target version format",
            Self::UserEmpty => "etcdserver: user name is empty",
            Self::InvalidAuthToken => "etcdserver: invalid auth token",
            Self::PermissionDenied => "etcdserver: permission denied",
            Self::AuthFailed => "etcdserver: authentication failed, invalid user ID or password",
            Self::NoPasswordUser => "auth: authentication failed, password was given for no password user",
            Self::AuthNotEnabled => "etcdserver: authentication is not enabled",
            Self::AuthOldRevision => "etcdserver: revision of auth store is old",
            Self::RootUserNotExist => "etcdserver: root user does not exist",
            Self::RootRoleNotExist => "etcdserver: root user does not have root role",
            Self::UserExists => "etcdserver: user name already exists",
            Self::UserNotFound => "etcdserver: user name not found",
            Self::RoleExists => "etcdserver: role name already exists",
            Self::RoleNotFound => "etcdserver: role name not found",
            Self::RoleEmpty => "etcdserver: role name is empty",
            Self::RoleNotGranted => "etcdserver: role is not granted to the user",
            Self::PermissionNotGranted => "etcdserver: permission is not granted to the role",
            Self::PermissionNotGiven => "etcdserver: permission not given",
            Self::InvalidAuthManagement => "etcdserver: invalid auth management",
            Self::ElectionNoLeader => "election: no leader",
            Self::ElectionNotLeader => "election: not leader",
            Self::ElectionLeaderMissing => "\"leader\" field must be provided",
            Self::Inner(inner) => return inner.message(),
            Self::Other(text) => return Cow::Owned(text.to_string()),
        })
    }

    /// The text of this refusal where it travels inside an answer rather than as a status, as in the `cancel_reason` of
    /// a watch: `rpc error: code = PermissionDenied desc = etcdserver: permission denied`.
    pub fn in_band(&self) -> String {
        format!("rpc error: code = {} desc = {}", self.code().name(), self.message())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for Refusal {}

// === impl Code ===

impl Code {
    /// The number on the wire.
    pub fn number(self) -> i32 {
        self as i32
    }

    /// The name that Go's gRPC prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Canceled => "Canceled",
            Self::Unknown => "Unknown",
            Self::InvalidArgument => "InvalidArgument",
            Self::NotFound => "NotFound",
            Self::PermissionDenied => "PermissionDenied",
            Self::ResourceExhausted => "ResourceExhausted",
            Self::FailedPrecondition => "FailedPrecondition",
            Self::OutOfRange => "OutOfRange",
            Self::Unimplemented => "Unimplemented",
            Self::Unavailable => "Unavailable",
            Self::DataLoss => "DataLoss",
            Self::Unauthenticated => "Unauthenticated",
        }
    }
}

/// An error and its causes, in one line: the first alone often says where, and only the last says why.
pub(crate) fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_with_numbers_and_names_are_those_of_grpc() {
        let refusal = Refusal::MessageTooLarge { size: 3_000_000, limit: 2_097_152 };
        assert_eq!(refusal.message(), "grpc: received message larger than max (3000000 vs. 2097152)");
        assert_eq!(refusal.code().number(), 8);
        let refusal = Refusal::UnknownMethod { method: "Rage".into(), service: "etcdserverpb.KV".into() };
        assert_eq!(refusal.message(), "unknown method Rage for service etcdserverpb.KV");
        assert_eq!(refusal.code().number(), 12);
    }

    #[test]
    fn an_inner_refusal_keeps_its_text_and_loses_its_code() {
        let inner = Refusal::Inner(Box::new(Refusal::LeaseNotFound));
        assert_eq!(inner.code(), Code::Unknown);
        assert_eq!(inner.to_string(), "etcdserver: requested lease not found");
    }

    #[test]
    fn in_band_names_the_code() {
        assert_eq!(
            Refusal::PermissionDenied.in_band(),
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        );
    }
}
