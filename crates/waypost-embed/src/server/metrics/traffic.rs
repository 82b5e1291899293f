//! Bytes of connections.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{InspectReader, InspectWriter};

use super::Tallies;

/// Counts the bytes of a connection.
pub(in crate::server) fn metered<S>(
    connection: S,
    tallies: &Arc<Tallies>,
) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (received, sent) = (Arc::clone(tallies), Arc::clone(tallies));
    let connection = InspectReader::new(connection, move |bytes: &[u8]| {
        received.received.inc_by(bytes.len() as u64);
    });
    InspectWriter::new(connection, move |bytes: &[u8]| {
        sent.sent.inc_by(bytes.len() as u64);
    })
}
