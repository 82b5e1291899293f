//! Why an instance cannot be written, or a value not read.

use crate::{endpoint::InvalidEndpoint, excerpt::Excerpt, instance::Instance, layout::RawKv};

/// Why an instance cannot be written in a layout.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The layout names instances by their lease, and none was given.
    #[error("layout {layout} needs a lease to write {service}: the lease id is part of the key")]
    LeaseNeeded {
        /// The layout.
        layout: &'static str,
        /// The service.
        service: String,
    },
    /// The layout cannot hold a service of that name.
    #[error("layout {layout} cannot hold a service called {service:?}: {reason}")]
    Service {
        /// The layout.
        layout: &'static str,
        /// The service.
        service: String,
        /// What is wrong with the name.
        reason: &'static str,
    },
    /// Nothing can be dialed at port 0.
    #[error("instance {id} of {service} has an endpoint with port 0")]
    Port {
        /// The service.
        service: String,
        /// The instance.
        id: String,
    },
    /// The value could not be written as JSON.
    #[error("layout {layout} could not write its value as JSON")]
    Json {
        /// The layout.
        layout: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}

/// A value that does not decode. The text names layout, key and cause, and never quotes a whole foreign value.
#[derive(Debug, thiserror::Error)]
#[error("layout {layout}: the value of key {key} is not an instance")]
pub struct DecodeError {
    layout: &'static str,
    key: Excerpt,
    #[source]
    cause: DecodeCause,
}

/// What is wrong with a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeCause {
    /// It is not JSON.
    #[error("it is not JSON")]
    Json(#[from] serde_json::Error),
    /// It is JSON, or begins like it, but not an object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// It lacks something without which there is no instance.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// Its address is none.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
}

// === impl EncodeError ===

impl EncodeError {
    /// Port 0 is the one thing about an endpoint that its type lets through.
    pub(crate) fn check_ports(instance: &Instance) -> Result<(), Self> {
        if instance.endpoints.iter().all(|endpoint| endpoint.port != 0) {
            return Ok(());
        }
        Err(Self::Port { service: instance.service.to_string(), id: instance.id.to_string() })
    }
}

// === impl DecodeError ===

impl DecodeError {
    pub(crate) fn new(layout: &'static str, kv: RawKv<'_>, cause: impl Into<DecodeCause>) -> Self {
        Self { layout, key: Excerpt::of_bytes(kv.key), cause: cause.into() }
    }

    /// The layout in which it was read.
    pub fn layout(&self) -> &'static str {
        self.layout
    }

    /// The key, as text, at most its first 200 bytes.
    pub fn key(&self) -> &str {
        self.key.as_str()
    }

    /// What is wrong.
    pub fn cause(&self) -> &DecodeCause {
        &self.cause
    }
}
