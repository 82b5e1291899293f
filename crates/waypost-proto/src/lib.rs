//! The etcd v3 wire protocol, as of etcd 3.6: messages, gRPC clients and gRPC servers.
//!
//! Packages, services, messages, fields and numbers are etcd's; the `.proto` files in `proto/` are this project's.
//! Each module is one package of the protocol. A service `Foo` of a package is `foo_client::FooClient` to those who
//! call it and the trait `foo_server::Foo` to those who answer it. The clients work over any tonic transport.
//!
//! The code below `src/gen` is generated and committed, so that a build needs neither `protoc` nor a build script:
//!
//! ```text
//! cargo run -p waypost-proto-codegen              # after a change of a .proto file
//! cargo run -p waypost-proto-codegen -- --check   # exits 1 if that was forgotten
//! ```
//!
//! - `bytes` fields are [`bytes::Bytes`](prost::bytes::Bytes): keys and values are not copied out of a response.
//! - Enum fields are `i32`, since a newer server may send a value that is not known here; `kind.try_into()` tells.
//! - `peerURLs` and `clientURLs` are called `peer_urls` and `client_urls`.
//! - `Debug` of a message with a password, its hash or a token shows that it is there, not what it is.
//!
//! # Example
//!
//! ```
//! use prost::Message as _;
//! use waypost_proto::etcdserverpb::{RangeRequest, range_request::{SortOrder, SortTarget}};
//!
//! // The ten newest keys below `services/`.
//! let request = RangeRequest {
//!     key: "services/".into(),
//!     range_end: "services0".into(),
//!     limit: 10,
//!     sort_order: SortOrder::Descend.into(),
//!     sort_target: SortTarget::Create.into(),
//!     ..RangeRequest::default()
//! };
//! let wire = request.encode_to_vec();
//! assert_eq!(RangeRequest::decode(wire.as_slice())?, request);
//! # Ok::<(), prost::DecodeError>(())
//! ```

#![forbid(unsafe_code)]

/// Declares the module of one package around its generated code.
macro_rules! package {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[allow(
            missing_docs,
            unreachable_pub,
            clippy::all,
            clippy::pedantic,
            reason = "generated; documented where the .proto file has something to say"
        )]
        pub mod $name {
            include!(concat!("gen/", stringify!($name), ".rs"));
        }
    };
}

package! {
    /// Keys and their history: [`KeyValue`](mvccpb::KeyValue), [`Event`](mvccpb::Event).
    mvccpb
}

package! {
    /// Users, roles and permissions as they are stored.
    authpb
}

package! {
    /// The main API: `KV`, `Watch`, `Lease`, `Cluster`, `Maintenance` and `Auth`.
    etcdserverpb
}

package! {
    /// Locks that the server keeps on behalf of a lease.
    v3lockpb
}

package! {
    /// Leader election that the server keeps on behalf of leases.
    v3electionpb
}

mod redacted;

/// All of the above as an encoded `google.protobuf.FileDescriptorSet`, for gRPC server reflection. Fields have the
/// names of the `.proto` files.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptor.bin");
