//! A server that is registered while it runs, and leaves in order: delete the key, revoke the lease, stop.

use crate::{LAYOUT, SERVICE, User, UserService};
use futures::StreamExt as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tarpc::context::Context;
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::tokio_serde::formats::Json;
use tokio_util::task::TaskTracker;
use waypost::Waypost;
use waypost::model::Instance;

#[derive(Clone)]
struct Directory {
    address: SocketAddr,
}

/// How long the key's removal may take, and how long the clients may take to finish their calls and hang up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves on `listen` until `stop` is done.
pub async fn serve(
    etcd: &str,
    listen: &str,
    stop: impl Future<Output = io::Result<()>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let waypost = Waypost::builder().endpoints(etcd.split(',')).layout(LAYOUT).build()?;
    let mut listener = tarpc::serde_transport::tcp::listen(listen, Json::default).await?;
    let directory = Directory { address: listener.local_addr() };
    let connections = TaskTracker::new();
    let accepting = tokio::spawn({
        let (directory, connections) = (directory.clone(), connections.clone());
        async move {
            while let Some(accepted) = listener.next().await {
                // A client that hangs up while it is accepted is no reason to stop.
                let Ok(transport) = accepted else { continue };
                let calls = BaseChannel::with_defaults(transport).execute(directory.clone().serve());
                connections.spawn(calls.for_each(async |call| {
                    tokio::spawn(call);
                }));
            }
        }
    });

    let address = directory.address.to_string();
    let registration = waypost.register(Instance::new(SERVICE.parse()?, address.parse()?))?;
    registration.registered().await?;
    stop.await?;

    // Deletes the key and revokes the lease. Clients that have seen it finish their calls and hang up; nobody is cut off before.
    waypost.registry().shutdown(PATIENCE).await?;
    accepting.abort();
    connections.close();
    // Those that do not hang up have had their time.
    let _ = tokio::time::timeout(PATIENCE, connections.wait()).await;
    Ok(())
}

// === impl Directory ===

impl UserService for Directory {
    async fn find(self, _context: Context, id: u64) -> User {
        User { id, name: format!("user {id}"), server: self.address.to_string() }
    }
}
