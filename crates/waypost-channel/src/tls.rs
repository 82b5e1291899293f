//! A TLS configuration of PEM texts.

use std::sync::Arc;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Certificates, or a key, that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTls {
    /// Of the authorities, or of the client.
    #[error("the {of} is no certificate in PEM: {source}")]
    Certificate {
        /// Whose: `authority` or `client certificate`.
        of: &'static str,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// Without an authority no server can be trusted.
    #[error("there is no certificate in the {of}: it must be PEM, with `BEGIN CERTIFICATE`")]
    NoCertificate {
        /// Whose: `authority` or `client certificate`.
        of: &'static str,
    },
    /// Of the client.
    #[error("the client key is no key in PEM: {source}")]
    Key {
        /// What is wrong with it.
        source: pem::Error,
    },
    /// They are well-formed, and of no use: a key of another certificate, or an algorithm that is not known.
    #[error("the certificates cannot be used: {source}")]
    Refused {
        /// What is wrong with them.
        #[from]
        source: rustls::Error,
    },
}

const AUTHORITY: &str = "authority";
const CLIENT: &str = "client certificate";

/// Trusts these authorities, and shows this certificate with its key.
pub(crate) fn client_config(
    authorities: &[u8],
    identity: Option<(&[u8], &[u8])>,
) -> Result<ClientConfig, InvalidTls> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities, AUTHORITY)? {
        roots.add(certificate)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some((certificate, key)) = identity else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| InvalidTls::Key { source })?;
    Ok(builder.with_client_auth_cert(certificates(certificate, CLIENT)?, key)?)
}

/// At least one.
fn certificates(pem: &[u8], of: &'static str) -> Result<Vec<CertificateDer<'static>>, InvalidTls> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| InvalidTls::Certificate { of, source })?;
    if certificates.is_empty() { Err(InvalidTls::NoCertificate { of }) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waypost_testkit::Tls;

    #[test]
    fn what_cannot_be_used_is_named() {
        let (tls, other) = (Tls::new(), Tls::new());
        let read = |path: &std::path::Path| std::fs::read(path).unwrap();
        let (authority, client) = (read(tls.ca()), tls.client());
        let (certificate, key) = (read(&client.certificate), read(&client.key));
        assert!(client_config(&authority, Some((&certificate, &key))).is_ok());
        let refused =
            |authority: &[u8], identity| client_config(authority, identity).unwrap_err().to_string();
        assert!(refused(b"", None).contains("no certificate in the authority"));
        assert!(refused(&key, None).contains("no certificate in the authority"));
        assert!(refused(b"-----BEGIN CERTIFICATE-----\n", None).contains("the authority is no certificate"));
        assert!(refused(&authority, Some((&key, &key))).contains("no certificate in the client certificate"));
        assert!(refused(&authority, Some((&certificate, &certificate))).contains("the client key"));
        let foreign = read(&other.client().key);
        assert!(refused(&authority, Some((&certificate, &foreign))).contains("cannot be used"));
    }
}
