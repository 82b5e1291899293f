//! The greeting service: the code generated from `proto/greeter.proto`.
//!
//! `src/bin/server.rs` and `src/bin/client.rs` are the example; `waypost demo` runs the same service. After a change of
//! the `.proto` file run `cargo run -p waypost-proto-codegen`.

#![forbid(unsafe_code)]

use tonic_reflection::server::{Builder, v1, v1alpha};

pub use self::generated::greeter_client::GreeterClient;
pub use self::generated::greeter_server::{Greeter, GreeterServer};
pub use self::generated::{HelloReply, HelloRequest};

/// What describes the service to clients that do not know it, as `waypost call --method` and grpcurl: both versions of gRPC's
/// reflection.
///
/// # Errors
/// When the committed description is damaged.
pub fn reflection() -> Result<
    (
        v1::ServerReflectionServer<impl v1::ServerReflection>,
        v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>,
    ),
    tonic_reflection::server::Error,
> {
    let service =
        || Builder::configure().register_encoded_file_descriptor_set(include_bytes!("gen/descriptor.bin"));
    Ok((service().build_v1()?, service().build_v1alpha()?))
}

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]
mod generated {
    include!("gen/helloworld.rs");
}
