//! What can go wrong between us and etcd, typed, with the endpoint and key that it speaks of.
//!
//! etcd's own clients tell errors apart by the text of the message (`rpctypes/error.go`), since several share a
//! gRPC code; so do we, and the text is kept as it came.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tonic::{Code, Status};

use crate::key_range::ShownKey;

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The options of the client make no sense: a malformed endpoint, an unreadable certificate.
    Config,
    /// A key, user, role or member that does not exist.
    NotFound,
    /// The lease does not exist, or no longer.
    LeaseNotFound,
    /// A lease of that id exists already.
    LeaseExists,
    /// The revision lies below the compaction.
    Compacted,
    /// The revision has not happened yet.
    FutureRevision,
    /// The token, user or password was not accepted.
    Unauthenticated,
    /// The user may not do this.
    PermissionDenied,
    /// No endpoint could serve the call.
    Unavailable,
    /// A request or an answer exceeds a size limit.
    TooLarge,
    /// The store's quota is used up (`NOSPACE`).
    NoSpace,
    /// No answer within the request timeout. A write may or may not have happened.
    TimedOut,
    /// etcd refused the request as malformed.
    InvalidArgument,
    /// The state of the store does not allow this.
    FailedPrecondition,
    /// The server does not know the method.
    Unimplemented,
    /// Anything else; the message tells.
    Other,
}

/// A failed operation on etcd. Cheap to clone.
///
/// Its text names the operation, the key and the endpoint: `put "services/greeter/a" at http://127.0.0.1:2379:
/// permission denied: etcdserver: permission denied`.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    endpoint: Option<Arc<str>>,
    key: Option<Bytes>,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What an operation speaks of; errors carry it.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) key: Option<Bytes>,
    /// Whether it may be sent again when it is not known whether it was carried out.
    pub(crate) idempotent: bool,
}

// === impl ErrorKind ===

impl ErrorKind {
    fn words(self) -> &'static str {
        match self {
            Self::Config => "bad configuration",
            Self::NotFound => "not found",
            Self::LeaseNotFound => "lease not found",
            Self::LeaseExists => "lease already exists",
            Self::Compacted => "revision compacted",
            Self::FutureRevision => "revision is in the future",
            Self::Unauthenticated => "not authenticated",
            Self::PermissionDenied => "permission denied",
            Self::Unavailable => "unavailable",
            Self::TooLarge => "too large",
            Self::NoSpace => "no space left in etcd",
            Self::TimedOut => "timed out",
            Self::InvalidArgument => "invalid argument",
            Self::FailedPrecondition => "failed precondition",
            Self::Unimplemented => "not implemented by the server",
            Self::Other => "failed",
        }
    }

    fn of(code: Code, message: &str) -> Self {
        match message {
            "etcdserver: key not found" => return Self::NotFound,
            "etcdserver: requested lease not found" => return Self::LeaseNotFound,
            "etcdserver: lease already exists" => return Self::LeaseExists,
            "etcdserver: request is too large" => return Self::TooLarge,
            "etcdserver: mvcc: database space exceeded" => return Self::NoSpace,
            "etcdserver: mvcc: required revision has been compacted" => return Self::Compacted,
            "etcdserver: mvcc: required revision is a future revision" => return Self::FutureRevision,
            // Overload passes; the next attempt may be served.
            "etcdserver: too many requests" => return Self::Unavailable,
            "etcdserver: user name is empty"
            | "etcdserver: invalid auth token"
            | "etcdserver: revision of auth store is old"
            | "etcdserver: authentication failed, invalid user ID or password" => {
                return Self::Unauthenticated;
            }
            _ => {}
        }
        if message.contains("message larger than max") || message.contains("message length too large") {
            return Self::TooLarge;
        }
        if message.starts_with("etcdserver: request timed out") {
            return Self::TimedOut;
        }
        match code {
            Code::NotFound => Self::NotFound,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::Unavailable => Self::Unavailable,
            Code::DeadlineExceeded => Self::TimedOut,
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidArgument,
            Code::FailedPrecondition => Self::FailedPrecondition,
            Code::Unimplemented => Self::Unimplemented,
            _ => Self::Other,
        }
    }
}

// === impl Operation ===

impl Operation {
    pub(crate) fn read(name: &'static str) -> Self {
        Self { name, key: None, idempotent: true }
    }

    pub(crate) fn write(name: &'static str) -> Self {
        Self { name, key: None, idempotent: false }
    }

    pub(crate) fn on(mut self, key: &Bytes) -> Self {
        self.key = Some(key.clone());
        self
    }

    pub(crate) fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }
}

// === impl Error ===

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The endpoint that answered, or was asked last.
    pub fn endpoint(&self) -> Option<&str> {
        self.0.endpoint.as_deref()
    }

    /// The key, or the first key of the range.
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key.as_deref()
    }

    /// The text of the server, or of the transport.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the same call may succeed later without anybody changing anything: the cluster is away, slow or
    /// electing a leader.
    pub fn is_transient(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::TimedOut)
    }

    pub(crate) fn new(kind: ErrorKind, operation: &Operation, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            operation: operation.name,
            endpoint: None,
            key: operation.key.clone(),
            message: message.into(),
            source: None,
        }))
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, &Operation::read("configure"), message)
    }

    pub(crate) fn config_from(
        message: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            kind: ErrorKind::Config,
            operation: "configure",
            endpoint: None,
            key: None,
            message: message.into(),
            source: Some(Box::new(source)),
        }))
    }

    pub(crate) fn from_status(operation: &Operation, endpoint: &Arc<str>, status: Status) -> Self {
        // A status that did not come from the server but was made of a transport's error speaks of the
        // connection, whatever its code says.
        let local = status.source().is_some();
        let by_message = ErrorKind::of(status.code(), status.message());
        let kind = match by_message {
            ErrorKind::TooLarge | ErrorKind::TimedOut => by_message,
            _ if local => ErrorKind::Unavailable,
            _ => by_message,
        };
        let message = if local { innermost(&status) } else { status.message().to_owned() };
        Self(Arc::new(Inner {
            kind,
            operation: operation.name,
            endpoint: Some(endpoint.clone()),
            key: operation.key.clone(),
            message,
            source: Some(Box::new(status)),
        }))
    }

    /// Permission, compaction and the like, told in the `cancel_reason` of a watch rather than as a status.
    pub(crate) fn from_cancel_reason(operation: &Operation, endpoint: &Arc<str>, reason: &str) -> Self {
        let text = reason.rsplit_once("desc = ").map_or(reason, |(_, text)| text);
        let kind = match ErrorKind::of(Code::Unknown, text) {
            ErrorKind::Other if text.ends_with("permission denied") => ErrorKind::PermissionDenied,
            ErrorKind::Other if text.starts_with("mvcc:") => ErrorKind::InvalidArgument,
            kind => kind,
        };
        Self(Arc::new(Inner {
            kind,
            operation: operation.name,
            endpoint: Some(endpoint.clone()),
            key: operation.key.clone(),
            message: text.to_owned(),
            source: None,
        }))
    }

    pub(crate) fn at(self, endpoint: &Arc<str>) -> Self {
        if self.0.endpoint.is_some() {
            return self;
        }
        Self(Arc::new(Inner {
            kind: self.0.kind,
            operation: self.0.operation,
            endpoint: Some(endpoint.clone()),
            key: self.0.key.clone(),
            message: self.0.message.clone(),
            source: None,
        }))
    }
}

/// The text at the end of a chain of causes, which is the one that says something.
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.write_str(inner.operation)?;
        if let Some(key) = &inner.key {
            write!(f, " {}", ShownKey(key))?;
        }
        if let Some(endpoint) = &inner.endpoint {
            write!(f, " at {endpoint}")?;
        }
        write!(f, ": {}", inner.kind.words())?;
        if !inner.message.is_empty() {
            write!(f, ": {}", inner.message)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error").field("kind", &self.0.kind).field("text", &self.to_string()).finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_operation_key_and_endpoint() {
        let operation = Operation::write("put").on(&Bytes::from_static(b"a/b"));
        let error = Error::from_status(
            &operation,
            &"http://127.0.0.1:1".into(),
            Status::permission_denied("etcdserver: permission denied"),
        );
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(
            error.to_string(),
            "put \"a/b\" at http://127.0.0.1:1: permission denied: etcdserver: permission denied"
        );
    }

    #[test]
    fn cancel_reasons_of_all_versions() {
        let kind =
            |reason: &str| Error::from_cancel_reason(&Operation::read("watch"), &"e".into(), reason).kind();
        assert_eq!(
            kind("rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
            ErrorKind::PermissionDenied
        );
        assert_eq!(
            kind("rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"),
            ErrorKind::Unauthenticated
        );
        assert_eq!(kind("mvcc: watcher range is empty"), ErrorKind::InvalidArgument);
        assert_eq!(kind("etcdserver: mvcc: required revision has been compacted"), ErrorKind::Compacted);
    }
}
