//! The greeting service: the code generated from `proto/greeter.proto`.
//!
//! `src/bin/server.rs` and `src/bin/client.rs` are the example; `waypost demo` runs the same service. After a change of
//! the `.proto` file run `cargo run -p waypost-proto-codegen`.

#![forbid(unsafe_code)]

pub use self::generated::greeter_client::GreeterClient;
pub use self::generated::greeter_server::{Greeter, GreeterServer};
pub use self::generated::{HelloReply, HelloRequest};

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]
mod generated {
    include!("gen/helloworld.rs");
}
