//! Certificates for one test: an authority, a server's certificate and clients' certificates, as files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

/// A certificate authority of its own with what it has issued, in a directory that goes with the last clone.
///
/// ```
/// let tls = waypost_testkit::Tls::new();
/// assert!(tls.ca_pem().starts_with("-----BEGIN CERTIFICATE-----"));
/// assert!(tls.server().key.is_file());
/// ```
#[derive(Clone, Debug)]
pub struct Tls {
    inner: Arc<Inner>,
}

/// The files of one certificate and its private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key, PKCS #8.
    pub key: PathBuf,
    serial: [u8; 8],
}

#[derive(Debug)]
struct Inner {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    ca: PathBuf,
    server: CertificateFiles,
    client: CertificateFiles,
}

// === impl Tls ===

impl Tls {
    /// A new authority, a server certificate for `localhost`, `127.0.0.1` and `::1`, and a client certificate with
    /// the common name `client`.
    pub fn new() -> Self {
        let directory =
            tempfile::Builder::new().prefix("waypost-tls-").tempdir().expect("a directory for certificates");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters of the authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // No two authorities have the same name.
        let name = format!("waypost test authority {:016x}", fastrand::u64(..));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key for the authority");
        let ca_pem = params.self_signed(&key).expect("the authority signs itself").pem();
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, &ca_pem).expect("the authority's certificate is written");
        let issuer = Issuer::new(params, key);
        let server = issue(&issuer, directory.path(), "server", &["localhost", "127.0.0.1", "::1"]);
        let client = issue(&issuer, directory.path(), "client", &[]);
        Self { inner: Arc::new(Inner { directory, issuer, ca_pem, ca, server, client }) }
    }

    /// The authority's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.inner.ca_pem
    }

    /// File of the authority's certificate.
    pub fn ca(&self) -> &Path {
        &self.inner.ca
    }

    /// The server's certificate.
    pub fn server(&self) -> &CertificateFiles {
        &self.inner.server
    }

    /// The client's certificate, common name `client`.
    pub fn client(&self) -> &CertificateFiles {
        &self.inner.client
    }

    /// Issues one more certificate, for a user or for other host names.
    ///
    /// `common_name` also names its files and must be usable so; etcd takes it as the user's name.
    pub fn issue(&self, common_name: &str, hosts: &[&str]) -> CertificateFiles {
        issue(&self.inner.issuer, self.inner.directory.path(), common_name, hosts)
    }

    /// As [`issue`](Self::issue); the certificate was valid for the year 2000 and no longer.
    pub fn issue_expired(&self, common_name: &str, hosts: &[&str]) -> CertificateFiles {
        issue_for(&self.inner.issuer, self.inner.directory.path(), common_name, hosts, Some([2000, 2001]))
    }

    /// A file with the authority's list of revoked certificates (PEM), which are these.
    pub fn revoke(&self, certificates: &[&CertificateFiles]) -> PathBuf {
        let revoked = certificates.iter().map(|files| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&files.serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.inner.issuer).expect("the authority signs its list");
        let path = self.inner.directory.path().join("revocation-list.pem");
        std::fs::write(&path, list.pem().expect("a list has a PEM form")).expect("the list is written");
        path
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self::new()
    }
}

// === impl CertificateFiles ===

impl CertificateFiles {
    /// The certificate, PEM.
    pub fn certificate_pem(&self) -> String {
        std::fs::read_to_string(&self.certificate).expect("a certificate that was issued")
    }

    /// The private key, PEM.
    pub fn key_pem(&self) -> String {
        std::fs::read_to_string(&self.key).expect("a key that was issued")
    }
}

fn issue(
    issuer: &Issuer<'static, KeyPair>,
    directory: &Path,
    common_name: &str,
    hosts: &[&str],
) -> CertificateFiles {
    issue_for(issuer, directory, common_name, hosts, None)
}

fn issue_for(
    issuer: &Issuer<'static, KeyPair>,
    directory: &Path,
    common_name: &str,
    hosts: &[&str],
    valid: Option<[i32; 2]>,
) -> CertificateFiles {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("parameters of a certificate");
    params.distinguished_name.push(DnType::CommonName, common_name);
    // Positive, and as short as it is written.
    let serial = (fastrand::u64(..) >> 1 | 1 << 62).to_be_bytes();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    if let Some(years) = valid {
        [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Both: etcd's JSON gateway is a client of its own server, with the server's certificate.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("the authority signs");
    let files = CertificateFiles {
        certificate: directory.join(format!("{common_name}.pem")),
        key: directory.join(format!("{common_name}-key.pem")),
        serial,
    };
    std::fs::write(&files.certificate, certificate.pem()).expect("a certificate is written");
    std::fs::write(&files.key, key.serialize_pem()).expect("a key is written");
    files
}
