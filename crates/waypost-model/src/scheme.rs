//! What is spoken at an endpoint.

use std::{fmt, str::FromStr, sync::Arc};

use crate::endpoint::{InvalidEndpoint, invalid};

/// What is spoken at an endpoint. The default is [`Grpc`](Self::Grpc).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// gRPC without TLS.
    #[default]
    Grpc,
    /// gRPC over TLS.
    Grpcs,
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS.
    Https,
    /// Bytes.
    Tcp,
    /// Another one, such as Dubbo's `tri`: obtained by parsing.
    Other(OtherScheme),
}

/// The name of a scheme that has no variant of its own: lower-case, a letter followed by letters, digits, `+`, `-`, `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OtherScheme(Arc<str>);

// === impl Scheme ===

impl Scheme {
    /// The scheme as it is written before `://`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Other(OtherScheme(name)) => name,
        }
    }

    /// Whether it is spoken over TLS: `grpcs` and `https`.
    pub fn is_secure(&self) -> bool {
        matches!(self, Self::Grpcs | Self::Https)
    }

    /// The same with TLS, where there is such a one.
    pub(crate) fn secured(self) -> Self {
        match self {
            Self::Grpc => Self::Grpcs,
            Self::Http => Self::Https,
            other => other,
        }
    }
}

impl FromStr for Scheme {
    type Err = InvalidEndpoint;

    /// Upper case is read as lower case.
    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let rest_ok = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        if !text.starts_with(|c: char| c.is_ascii_alphabetic()) || !rest_ok || text.len() > 32 {
            return Err(invalid(text, "has no valid scheme"));
        }
        let lower = text.to_ascii_lowercase();
        Ok(match lower.as_str() {
            "grpc" => Self::Grpc,
            "grpcs" => Self::Grpcs,
            "http" => Self::Http,
            "https" => Self::Https,
            "tcp" => Self::Tcp,
            _ => Self::Other(OtherScheme(lower.into())),
        })
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

// === impl OtherScheme ===

impl OtherScheme {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
