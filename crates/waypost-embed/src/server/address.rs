//! URLs to listen on and to advertise, as etcd spells them.
//!
//! `http://host:port`, `https://host:port`, `unix://path`, `unixs://path` (TLS on a Unix socket). What follows `unix://` is
//! the path as it stands: `unix:///run/etcd.sock` is absolute, `unix://etcd.sock` is in the working directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{SOCKET, StartError};

/// A URL that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// As it was given.
    pub(super) url: String,
    /// Whether it is spoken to over TLS.
    pub(super) secure: bool,
    pub(super) place: Place,
}

/// Where a socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

// === impl Address ===

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, StartError> {
        let wrong = |reason: &str| StartError::Url { url: url.to_owned(), reason: reason.to_owned() };
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(wrong("it has no scheme, as in http://127.0.0.1:2379"));
        };
        let secure = matches!(scheme, "https" | "unixs");
        let place = match scheme {
            "http" | "https" => Place::Tcp(authority(rest).map_err(wrong)?),
            "unix" | "unixs" if rest.is_empty() => return Err(wrong("it has no path")),
            "unix" | "unixs" => Place::Unix(PathBuf::from(rest)),
            _ => return Err(wrong("the scheme must be http, https, unix or unixs")),
        };
        Ok(Self { url: url.to_owned(), secure, place })
    }

    /// The socket in a data directory.
    pub(super) fn of_folder(folder: &Path) -> Self {
        let path = folder.join(SOCKET);
        Self { url: format!("unix://{}", path.display()), secure: false, place: Place::Unix(path) }
    }

    /// The URL at the address that was bound.
    pub(super) fn at(&self, address: SocketAddr) -> String {
        format!("{}://{address}", if self.secure { "https" } else { "http" })
    }
}

/// `host:port`; a slash may follow, but no path.
fn authority(rest: &str) -> Result<String, &'static str> {
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err("it has more than a host and a port");
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(authority.to_owned()),
        Some(("", _)) => Err("it has no host"),
        _ => Err("it has no port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_etcd_reads_them() {
        let tcp = |authority: &str| Place::Tcp(authority.to_owned());
        let unix = |path: &str| Place::Unix(PathBuf::from(path));
        for (url, secure, place) in [
            ("http://127.0.0.1:2379", false, tcp("127.0.0.1:2379")),
            ("https://[::1]:2379/", true, tcp("[::1]:2379")),
            ("unix:///run/etcd.sock", false, unix("/run/etcd.sock")),
            ("unix://localhost:2379", false, unix("localhost:2379")),
            ("unixs://etcd.sock", true, unix("etcd.sock")),
        ] {
            assert_eq!(Address::parse(url).unwrap(), Address { url: url.to_owned(), secure, place });
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        for (url, reason) in [
            ("127.0.0.1:2379", "no scheme"),
            ("ftp://127.0.0.1:2379", "scheme must be"),
            ("http://127.0.0.1", "no port"),
            ("http://:2379", "no host"),
            ("http://127.0.0.1:70000", "no port"),
            ("http://127.0.0.1:2379/v3", "more than a host"),
            ("unix://", "no path"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(url) && error.contains(reason), "{error}");
        }
    }
}
