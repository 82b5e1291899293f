//! From files to what a connection is served with.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::{Files, TlsError};

/// What tells a changed file: number, time of change in seconds and nanoseconds, and length. `None`: it is not there.
pub(super) type Stamp = Option<(u64, i64, i64, u64)>;

// === impl Files ===

impl Files {
    pub(super) fn stamps(&self) -> Vec<Stamp> {
        let files = [Some(&self.certificate), Some(&self.key), self.trusted_ca.as_ref(), self.crl.as_ref()];
        files.into_iter().flatten().map(|path| stamp(path)).collect()
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec(), metadata.len()))
}

/// Reads everything anew.
pub(super) fn read_config(files: &Files) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::SelfSigned(error.into()))?;
    let builder = match &files.trusted_ca {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            for certificate in all::<CertificateDer<'static>>(authority, "certificate")? {
                roots.add(certificate).map_err(|error| invalid(authority, error))?;
            }
            let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if let Some(crl) = &files.crl {
                verifier = verifier
                    .with_crls(lists(crl)?)
                    .only_check_end_entity_revocation()
                    .allow_unknown_revocation_status();
            }
            let at_fault = files.crl.as_ref().unwrap_or(authority);
            builder.with_client_cert_verifier(verifier.build().map_err(|error| invalid(at_fault, error))?)
        }
    };
    let chain = all::<CertificateDer<'static>>(&files.certificate, "certificate")?;
    let key = all::<PrivateKeyDer<'static>>(&files.key, "private key")?.swap_remove(0);
    let mut config =
        builder.with_single_cert(chain, key).map_err(|error| invalid(&files.certificate, error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Everything of a kind in a file, at least one.
fn all<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let text = read(path)?;
    let found: Result<Vec<T>, _> = T::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| invalid(path, error))?;
    if found.is_empty() { Err(TlsError::Missing { path: path.to_owned(), what }) } else { Ok(found) }
}

/// Lists of revoked certificates, PEM or DER.
fn lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let bytes = read(path)?;
    // DER begins with a sequence.
    if bytes.first() == Some(&0x30) {
        Ok(vec![bytes.into()])
    } else {
        all(path, "list of revoked certificates")
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

fn invalid(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> TlsError {
    TlsError::Invalid { path: path.to_owned(), source: Box::new(error) }
}
