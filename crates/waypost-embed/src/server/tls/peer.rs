//! Who a client is by its certificate.
//!
//! The name travels from the connection to the services as metadata that no client can set: what comes from outside under
//! that name is taken away from every request before anything else looks at it.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;
use tonic::metadata::MetadataMap;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Name of the metadata.
const HEADER: HeaderName = HeaderName::from_static("waypost-common-name");

/// The user that a connection's certificate names, if it names one.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Peer(Option<HeaderValue>);

// === impl Peer ===

impl Peer {
    /// The common name of a certificate that has been verified; the last one, if there are several.
    pub(in crate::server) fn of(certificate: &CertificateDer<'_>) -> Self {
        let name = X509Certificate::from_der(certificate).ok().and_then(|(_, certificate)| {
            let name = certificate.subject().iter_common_name().last()?.as_str().ok()?.to_owned();
            HeaderValue::from_bytes(name.as_bytes()).ok()
        });
        Self(name.filter(|name| !name.is_empty()))
    }

    /// Says in a request who sent it, and nothing else than this.
    pub(in crate::server) fn mark(&self, headers: &mut HeaderMap) {
        headers.remove(HEADER);
        if let Some(name) = &self.0 {
            headers.insert(HEADER, name.clone());
        }
    }
}

/// The user that the certificate names, of whoever sent the request.
pub(in crate::server) fn peer_of(metadata: &MetadataMap) -> Option<&str> {
    std::str::from_utf8(metadata.get(HEADER.as_str())?.as_encoded_bytes()).ok()
}
