//! An etcd in this process, or in another one of this machine, without installing one. Feature `embed`.
//!
//! # One URL
//!
//! `embedded:DIR` in place of etcd's address is a store in that folder, which every process that names it shares:
//!
//! ```no_run
//! # async fn example() -> Result<(), waypost::Error> {
//! use waypost::Waypost;
//!
//! let waypost = Waypost::connect("embedded:./data")?;
//! let channel = waypost.channel("greeter")?;
//! # Ok(())
//! # }
//! ```
//!
//! The first process serves the store on a socket in the folder, the others connect to it, and when the one that serves
//! ends, or is killed, another goes on within milliseconds: registrations heal, watches resume, and calls wait meanwhile.
//! `waypost ls --endpoints embedded:./data` sees the same store. While nobody uses the folder, leases stand still.
//!
//! To grow into a cluster, change the URL; what is registered registers itself there. Keys of other kinds move with a
//! snapshot: `etcdctl --endpoints unix://data/waypost.sock snapshot save`, then `etcdutl snapshot restore`.
//!
//! # A server of your own
//!
//! [`Server`] is what `waypost serve` runs: an etcd v3 server of one node on addresses of your choice, for every client
//! of etcd.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use waypost::embed::Server;
//! use waypost::{Waypost, prelude::*};
//!
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let server = Server::builder().data_dir(folder).listen(["http://127.0.0.1:0"]).start().await?;
//! let waypost = Waypost::connect(&server.urls()[0])?;
//! let registration = waypost.register(Instance::new("db".parse()?, "10.0.0.7:5432".parse()?))?;
//! registration.registered().await?;
//! assert_eq!(waypost.discover("db")?.ready().await.len(), 1);
//! registration.deregister().await?;
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! [`SharedServer`] is the part of `embedded:DIR` that can be held and [closed](SharedServer::close) by itself:
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use waypost::embed::{self, SharedServer};
//! use waypost::etcd::{Client, Put};
//!
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let shared = SharedServer::open(folder).await?;
//! let client = Client::new(embed::client_options(&shared))?;
//! client.put(Put::new("greeting", "hello")).await?;
//! shared.close().await;
//! # Ok(())
//! # }
//! ```

use std::path::Path;
use std::time::Duration;

use waypost_etcd::ClientOptions;

pub use waypost_embed::server::{
    AutoCompaction, Builder, DEFAULT_MAX_REQUEST_BYTES, DEFAULT_QUOTA, RestoreError, SOCKET, Server,
    ServerTls, StartError, TlsError,
};
pub use waypost_embed::shared::{OpenError, SharedServer};

use crate::place;

/// How long a connection may take to be made: about as long as another process may take to read a large store.
const TAKEOVER: Duration = Duration::from_secs(10);

/// The folder of an address `embedded:DIR`; `None` for any other address.
pub fn folder_of(endpoint: &str) -> Option<&Path> {
    place::embedded_folder(endpoint)
}

/// Options of a client of a shared store: its socket, which is waited for while one process takes over from another, for
/// up to 10 s.
///
/// The client does not keep the store open: hold the [`SharedServer`], or give it to [`ClientOptions::holding`].
pub fn client_options(shared: &SharedServer) -> ClientOptions {
    ClientOptions::new([shared.url()]).wait_for_socket(true).connect_timeout(TAKEOVER)
}
