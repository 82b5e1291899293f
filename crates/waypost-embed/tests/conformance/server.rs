//! The servers that can be compared.

use std::net::Ipv4Addr;

use tempfile::TempDir;
use waypost_embed::server::Server;
use waypost_testkit::{Etcd, EtcdVersion};

/// A server, by what it is expected to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Etcd34,
    Etcd35,
    Embedded,
}

/// A server that runs, with an empty store.
pub(crate) enum Running {
    Etcd(Box<Etcd>),
    // The server is gone before its directory is.
    Embedded(Box<Server>, #[expect(dead_code, reason = "kept for its end")] TempDir),
}

// === impl Running ===

impl Running {
    pub(crate) async fn start(kind: Kind) -> Self {
        match kind {
            Kind::Etcd34 => Self::Etcd(Box::new(Etcd::builder(EtcdVersion::V3_4).start().await)),
            Kind::Etcd35 => {
                // Nothing here asks what a crash leaves.
                let builder =
                    Etcd::builder(EtcdVersion::V3_5).arg("--unsafe-no-fsync").arg("--bcrypt-cost=4");
                Self::Etcd(Box::new(builder.start().await))
            }
            Kind::Embedded => {
                let directory = tempfile::tempdir().unwrap();
                let server = Server::builder()
                    .data_dir(directory.path().join("data"))
                    .listen([format!("http://{}:0", Ipv4Addr::LOCALHOST)])
                    .bcrypt_cost(4)
                    .min_lease_ttl(1)
                    .start()
                    .await
                    .unwrap();
                Self::Embedded(Box::new(server), directory)
            }
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Etcd(etcd) => etcd.url(),
            Self::Embedded(server, _) => server.urls()[0].clone(),
        }
    }
}
