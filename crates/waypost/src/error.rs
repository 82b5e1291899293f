//! What can go wrong before there is anything that could heal itself.

use std::io;
use std::time::Duration;

use waypost_channel::balance::InvalidClientNumber;
use waypost_model::{InvalidEndpoint, InvalidName, UnknownLayout};
use waypost_registry::RegisterError;

/// Something that was asked of [`Waypost`](crate::Waypost) makes no sense, or a server did not run to its end.
///
/// etcd being away is none of these: what follows etcd waits for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text is not the name of a service.
    #[error("{name:?} cannot be the name of a service")]
    Name {
        /// The text.
        name: String,
        /// Why.
        source: InvalidName,
    },
    /// The environment variable `WAYPOST_CLIENT_NUMBER` has no client's number.
    #[error("WAYPOST_CLIENT_NUMBER cannot be used")]
    ClientNumber(#[source] InvalidClientNumber),
    /// There is no layout of that name.
    #[error(transparent)]
    Layout(#[from] UnknownLayout),
    /// The options of the client to etcd make no sense: a malformed endpoint, an unreadable certificate.
    #[error(transparent)]
    Etcd(#[from] waypost_etcd::Error),
    /// An address `embedded:DIR` makes no sense, or was not built in.
    #[error("{endpoint} cannot be used: {reason}")]
    Embedded {
        /// The address.
        endpoint: String,
        /// What is wrong, and what to do.
        reason: &'static str,
    },
    /// The store in the folder of an address `embedded:DIR` cannot be opened.
    #[cfg(feature = "embed")]
    #[error("{endpoint} cannot be used")]
    Open {
        /// The address.
        endpoint: String,
        /// Why.
        source: Box<crate::embed::OpenError>,
    },
    /// An instance cannot be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// A server did not start, or did not end well.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// A server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("{service} cannot listen on {address}")]
    Bind {
        /// The service.
        service: String,
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// SIGTERM and SIGINT cannot be caught.
    #[error("signals cannot be caught")]
    Signals(#[source] io::Error),
    /// The address that is to be advertised is none.
    #[error("{service} has no address to advertise")]
    Advertise {
        /// The service.
        service: String,
        /// Why.
        source: InvalidEndpoint,
    },
    /// The server has stopped by itself.
    #[error("the server of {service} failed")]
    Server {
        /// The service.
        service: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// Calls were still under way when the deadline passed; they were cut off.
    #[error("calls to {service} were cut off: they did not finish within {within:?}")]
    Unfinished {
        /// The service.
        service: String,
        /// How long they were given.
        within: Duration,
    },
    /// A second signal came while it was shutting down: calls under way were cut off.
    #[error("the shutdown of {service} was cut short by a second signal")]
    CutShort {
        /// The service.
        service: String,
    },
    /// The server has ended well, but etcd has not confirmed that its key is gone. It will be when its lease expires.
    #[error("{service} has stopped and etcd has not confirmed that it is deregistered")]
    Deregister {
        /// The service.
        service: String,
        /// Why.
        source: RegisterError,
    },
}
