//! Instances, services, snapshots, and the layouts in which etcd holds them. No I/O.
//!
//! An [`Instance`] is one running copy of a service. A [`Layout`] says how it is written as etcd keys
//! and values and read back. A [`Snapshot`] is the set that a reader sees at one revision.
//!
//! ```
//! use waypost_model::{Instance, layout::layout};
//!
//! let grpc = layout("grpc", None)?;
//! let instance = Instance::new("greeter".parse()?, "10.0.0.1:50051".parse()?).with_zone("a");
//! let encoded = grpc.encode(&instance, 0)?;
//! assert_eq!(encoded.entries[0].key, b"services/greeter/10.0.0.1:50051");
//! assert!(encoded.lost.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod endpoint;
mod excerpt;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod instance;
pub mod layout;
mod name;
mod scheme;
mod snapshot;

pub use crate::endpoint::{Endpoint, Endpoints, Host, InvalidEndpoint};
pub use crate::instance::{DEFAULT_WEIGHT, Instance, InvalidStatus, Status};
pub use crate::layout::{
    Carries, DecodeCause, DecodeError, EncodeError, Encoded, Entry, Field, KeySpan, LAYOUT_NAMES, Layout,
    PartKey, RawKv, UnknownLayout, layout, parse_layouts,
};
pub use crate::name::{InstanceId, InvalidName, ServiceName};
pub use crate::scheme::{OtherScheme, Scheme};
pub use crate::snapshot::{Change, Existence, Freshness, InstanceKey, Scope, Snapshot, SnapshotParts};
