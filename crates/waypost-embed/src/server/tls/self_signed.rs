//! A certificate that the server signs itself.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

use super::TlsError;
use crate::server::address::{Address, Place};

/// Where it is kept, in the data directory.
const FOLDER: &str = "fixtures/client";

const VALID: Duration = Duration::from_secs(365 * 24 * 3600);

/// Certificate and key; made if there are none, or if the certificate has expired.
pub(super) fn ensure(data_dir: &Path, addresses: &[Address]) -> Result<(PathBuf, PathBuf), TlsError> {
    let folder = data_dir.join(FOLDER);
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    if is_valid(&certificate) && key.is_file() {
        return Ok((certificate, key));
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    fs::create_dir_all(&folder).map_err(failed(&folder))?;
    let (certificate_pem, key_pem) =
        make(&hosts(addresses)).map_err(|error| TlsError::SelfSigned(Box::new(error)))?;
    let mut file = fs::File::options();
    let file = file.write(true).create(true).truncate(true).mode(0o600).open(&key);
    file.and_then(|mut file| file.write_all(key_pem.as_bytes())).map_err(failed(&key))?;
    fs::write(&certificate, certificate_pem).map_err(failed(&certificate))?;
    Ok((certificate, key))
}

fn is_valid(path: &Path) -> bool {
    let Ok(certificate) = CertificateDer::from_pem_file(path) else { return false };
    X509Certificate::from_der(&certificate).is_ok_and(|(_, certificate)| certificate.validity().is_valid())
}

/// Names and addresses under which clients may connect.
fn hosts(addresses: &[Address]) -> Vec<String> {
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for address in addresses {
        let Place::Tcp(authority) = &address.place else { continue };
        let host = authority.rsplit_once(':').map_or(&authority[..], |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let unspecified = host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
        if !unspecified && !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

fn make(hosts: &[String]) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "waypost");
    params.distinguished_name = name;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let now = ASN1Time::now().to_datetime();
    params.not_before = now;
    params.not_after = now + VALID;
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_for_the_hosts_that_are_listened_on() {
        let folder = tempfile::tempdir().unwrap();
        let addresses = ["https://etcd.example:2379", "https://0.0.0.0:1", "unixs:///s"]
            .map(|url| Address::parse(url).unwrap());
        let (certificate, key) = ensure(folder.path(), &addresses).unwrap();
        let made = fs::read(&certificate).unwrap();
        assert!(key.is_file());
        ensure(folder.path(), &addresses).unwrap();
        assert_eq!(fs::read(&certificate).unwrap(), made);
        assert_eq!(hosts(&addresses), ["localhost", "127.0.0.1", "::1", "etcd.example"]);
    }
}
