//! Real servers for tests: etcd of two versions, clusters of it, and a network that can be cut.
//!
//! Everything here panics when the setup fails: a test whose server does not start has no result to report.
//! Processes are ended by the pid that was started, when their owner is dropped. Traffic stays on loopback.
//!
//! ```no_run
//! use waypost_testkit::{Etcd, EtcdVersion};
//!
//! # async fn demo() {
//! let mut etcd = Etcd::start(EtcdVersion::V3_5).await;
//! etcd.etcdctl(["put", "greeting", "hello"]).await;
//! etcd.kill().await;
//! etcd.restart().await;
//! assert_eq!(etcd.etcdctl(["get", "greeting", "--print-value-only"]).await.trim(), "hello");
//! # }
//! ```
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a test whose setup is broken must fail at once"
)]

mod binaries;
mod child;
mod cluster;
mod etcd;
mod eventually;
mod for_each;
mod go_interop;
mod http;
mod port;
mod process;
mod proxy;
mod tls;

pub use binaries::EtcdVersion;
pub use cluster::{Cluster, ClusterBuilder};
pub use etcd::{Builder, Etcd};
pub use eventually::eventually;
pub use for_each::{BODY_TIMEOUT, run, run_within};
pub use go_interop::{GoCalls, GoInterop, GoServer};
pub use port::free_port;
pub use process::Process;
pub use proxy::{Counts, Proxy};
pub use tls::{CertificateFiles, Tls};
