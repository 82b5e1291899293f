//! One test body, run against every server that it must hold for.

use std::time::Duration;

/// How long one test body may take before it fails as hung.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(180);

/// Runs a test body on a runtime of its own with two worker threads; panics after [`BODY_TIMEOUT`].
///
/// [`for_each_etcd!`](crate::for_each_etcd) uses it, so that a crate under test needs no `tokio` macros.
pub fn run<F: Future<Output = ()>>(body: F) {
    run_within(BODY_TIMEOUT, body);
}

/// [`run`] for a body that has reason to take another time.
pub fn run_within<F: Future<Output = ()>>(limit: Duration, body: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the test");
    let outcome = runtime.block_on(async { tokio::time::timeout(limit, body).await });
    // Tasks that still run must not keep a test that is over.
    runtime.shutdown_background();
    assert!(outcome.is_ok(), "the test did not end within {limit:?}");
}

/// Makes one `#[test]` per server out of an async function of [`EtcdVersion`](crate::EtcdVersion):
/// `name::v3_4`, `name::v3_5` and `name::embedded`.
///
/// Attributes of the function go to every test. What only a cluster of etcd can show is for
/// [`for_each_real_etcd!`](crate::for_each_real_etcd).
///
/// ```no_run
/// use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};
///
/// for_each_etcd! {
///     async fn h07_key_deleted_by_hand_comes_back(version: EtcdVersion) {
///         let etcd = Etcd::start(version).await;
///         etcd.etcdctl(["del", "services/greeter/", "--prefix"]).await;
///     }
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! for_each_etcd {
    ($($function:tt)+) => {
        $crate::for_each_server! { [v3_4 V3_4, v3_5 V3_5, embedded Embedded] $($function)+ }
    };
}

/// [`for_each_etcd!`](crate::for_each_etcd) without the embedded server: `name::v3_4` and `name::v3_5`.
#[macro_export]
macro_rules! for_each_real_etcd {
    ($($function:tt)+) => {
        $crate::for_each_server! { [v3_4 V3_4, v3_5 V3_5] $($function)+ }
    };
}

/// [`for_each_etcd!`](crate::for_each_etcd) for what shall pass at etcd 3.5, whose answers are the embedded server's
/// measure, and then at the embedded server: `name::v3_5` and `name::embedded`.
#[macro_export]
macro_rules! for_peer_etcd {
    ($($function:tt)+) => {
        $crate::for_each_server! { [v3_5 V3_5, embedded Embedded] $($function)+ }
    };
}

/// What the others are made of.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_server {
    ($servers:tt $($(#[$attribute:meta])* async fn $name:ident($version:ident : $kind:ty) $body:block)+) => {$(
        #[cfg(test)]
        mod $name {
            #[allow(unused_imports, reason = "a body may name nothing of its file")]
            use super::*;

            async fn body($version: $kind) $body

            $crate::for_each_server!(@tests [$(#[$attribute])*] $servers);
        }
    )+};
    (@tests $attributes:tt [$($test:ident $version:ident),+]) => {
        $($crate::for_each_server!(@test $attributes $test $version);)+
    };
    (@test [$($attributes:tt)*] $test:ident $version:ident) => {
        #[test]
        $($attributes)*
        fn $test() {
            $crate::run(body($crate::EtcdVersion::$version));
        }
    };
}
