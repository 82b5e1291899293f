//! Where an instance listens: an endpoint, its host, and the list of endpoints.

use std::{fmt, net::IpAddr, net::Ipv6Addr, ops::Deref, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{excerpt::Excerpt, scheme::Scheme};

/// One place where an instance listens.
///
/// Text form: `host:port`, `[v6]:port` or `scheme://host:port`; without a scheme it is `grpc`. [`Display`](fmt::Display)
/// writes the scheme, [`authority`](Self::authority) does not.
///
/// ```
/// use waypost_model::{Endpoint, Scheme};
/// let endpoint: Endpoint = "https://[2001:db8::1]:8443".parse()?;
/// assert_eq!((endpoint.host.as_str(), endpoint.port), ("2001:db8::1", 8443));
/// assert_eq!(endpoint.authority(), "[2001:db8::1]:8443");
/// assert_eq!("10.0.0.1:50051".parse::<Endpoint>()?.to_string(), "grpc://10.0.0.1:50051");
/// # Ok::<(), waypost_model::InvalidEndpoint>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// What is spoken there.
    pub scheme: Scheme,
    /// The host, without brackets.
    pub host: Host,
    /// The TCP port. 0 is refused by the constructors, and by layouts when they write.
    pub port: u16,
}

/// A host: an IPv4 address, an IPv6 address without brackets (with or without a zone), or a name of letters, digits,
/// `-`, `_` and `.`. At most 253 bytes, kept as it was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Arc<str>);

/// The endpoints of an instance: at least one, the first is the primary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoints(Vec<Endpoint>);

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {text} {reason}")]
pub struct InvalidEndpoint {
    text: Excerpt,
    reason: &'static str,
}

// === impl Endpoint ===

impl Endpoint {
    /// A `grpc` endpoint. An IPv6 host may be written with or without brackets.
    pub fn new(host: impl AsRef<str>, port: u16) -> Result<Self, InvalidEndpoint> {
        let text = host.as_ref();
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match bare {
            Some(v6) if v6.contains(':') => Host::new(v6)?,
            Some(_) => return Err(invalid(text, "has brackets around a host that is not an IPv6 address")),
            None => Host::new(text)?,
        };
        if port == 0 {
            return Err(invalid(text, "has port 0"));
        }
        Ok(Self { scheme: Scheme::default(), host, port })
    }

    /// The same place with another scheme.
    pub fn with_scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// `host:port`, with brackets around an IPv6 host.
    pub fn authority(&self) -> String {
        let (host, port) = (&self.host, self.port);
        if host.is_ipv6() { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let (scheme, authority) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme.parse().map_err(|_| invalid(text, "has no valid scheme"))?, rest),
            None => (Scheme::default(), text),
        };
        let Some((host, port)) = authority.rsplit_once(':') else {
            return Err(invalid(text, "has no port"));
        };
        if !host.starts_with('[') && host.contains(':') {
            return Err(invalid(text, "has an IPv6 host without brackets"));
        }
        // `u16::from_str` would accept a sign.
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let Some(port) = digits.then(|| port.parse().ok()).flatten() else {
            return Err(invalid(text, "has a port that is not a number from 1 to 65535"));
        };
        match Self::new(host, port) {
            Ok(endpoint) => Ok(endpoint.with_scheme(scheme)),
            Err(error) => Err(invalid(text, error.reason)),
        }
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = InvalidEndpoint;

    fn try_from(text: &str) -> Result<Self, InvalidEndpoint> {
        text.parse()
    }
}

impl From<std::net::SocketAddr> for Endpoint {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { scheme: Scheme::default(), host: address.ip().into(), port: address.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

pub(crate) fn invalid(text: &str, reason: &'static str) -> InvalidEndpoint {
    InvalidEndpoint { text: Excerpt::new(text), reason }
}

// === impl Host ===

impl Host {
    /// The longest host, in bytes: that of DNS.
    pub const MAX_BYTES: usize = 253;

    /// Checks `host`, which has no brackets.
    pub fn new(host: impl AsRef<str>) -> Result<Self, InvalidEndpoint> {
        let host = host.as_ref();
        if host.is_empty() {
            return Err(invalid(host, "has no host"));
        }
        if host.len() > Self::MAX_BYTES {
            return Err(invalid(host, "has a host of more than 253 bytes"));
        }
        let word = |text: &str| text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
        let good = if host.contains(':') {
            let (address, zone) = host.split_once('%').unwrap_or((host, "0"));
            address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty() && word(zone)
        } else {
            word(host)
        };
        if good {
            Ok(Self(host.into()))
        } else {
            Err(invalid(host, "has a host that is neither a name nor an IP address"))
        }
    }

    /// The host as text, without brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The IP address, if it is one. The zone of an IPv6 address is not part of it.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.split('%').next()?.parse().ok()
    }

    /// Whether it is `0.0.0.0` or `::`: good to listen on, never to be dialed.
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }

    fn is_ipv6(&self) -> bool {
        self.0.contains(':')
    }
}

impl Deref for Host {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Host {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self(ip.to_string().into())
    }
}

impl FromStr for Host {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        Self::new(text)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

// === impl Endpoints ===

impl Endpoints {
    /// A list of one.
    pub fn new(primary: Endpoint) -> Self {
        Self(vec![primary])
    }

    /// The list of `endpoints`; `None` when there is none.
    pub fn from_vec(endpoints: Vec<Endpoint>) -> Option<Self> {
        (!endpoints.is_empty()).then_some(Self(endpoints))
    }

    /// Adds one at the end.
    pub fn push(&mut self, endpoint: Endpoint) {
        self.0.push(endpoint);
    }

    /// The first.
    pub fn primary(&self) -> &Endpoint {
        &self.0[0]
    }

    /// All of them, the primary first.
    pub fn iter(&self) -> std::slice::Iter<'_, Endpoint> {
        self.0.iter()
    }

    /// How many; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<Endpoint> for Endpoints {
    fn from(primary: Endpoint) -> Self {
        Self::new(primary)
    }
}

impl<'a> IntoIterator for &'a Endpoints {
    type Item = &'a Endpoint;
    type IntoIter = std::slice::Iter<'a, Endpoint>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Serialize for Endpoints {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Endpoints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::deserialize(deserializer)?;
        Self::from_vec(list).ok_or_else(|| D::Error::custom("an instance needs at least one endpoint"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    #[test]
    fn names_ipv4_and_ipv6_are_read() {
        for (text, host, port) in [
            ("localhost:8080", "localhost", 8080),
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("[::1]:65535", "::1", 65535),
            ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
            ("pod_7.svc.local:80", "pod_7.svc.local", 80),
        ] {
            let endpoint = parsed(text);
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port));
            assert_eq!((endpoint.scheme.clone(), endpoint.authority()), (Scheme::Grpc, text.to_owned()));
            assert_eq!(parsed(&endpoint.to_string()), endpoint);
        }
    }

    #[test]
    fn schemes_are_read_in_any_case_and_written_in_lower_case() {
        assert_eq!(parsed("HTTPS://a:1").to_string(), "https://a:1");
        assert!(parsed("grpcs://a:1").scheme.is_secure());
        assert!(!parsed("tri://a:1").scheme.is_secure());
        assert_eq!(parsed("tri://a:1").scheme.as_str(), "tri");
    }

    #[test]
    fn what_is_not_an_endpoint_is_refused() {
        for bad in [
            "",
            ":",
            "a",
            "a:",
            ":80",
            "a:0",
            "a:65536",
            "a:-1",
            "a:+1",
            "a:8o",
            "a: 80",
            "::1:80",
            "[::1]",
            "[::1]80",
            "[]:80",
            "[a]:80",
            "[::1:80",
            "::1]:80",
            "[::1%]:80",
            "[::1%a/b]:80",
            "a b:80",
            "a/b:80",
            "u@a:80",
            "://a:80",
            "1x://a:80",
            "grpc://a:80/",
            "grpc://a:80?x",
            "a:99999999999999999999",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(254).parse::<Host>().is_err());
        assert!(Endpoint::new("", 80).is_err() && Endpoint::new("a", 0).is_err());
    }

    #[test]
    fn the_error_names_the_text_but_not_all_of_a_huge_one() {
        let text = "10.0.0.1:http".parse::<Endpoint>().unwrap_err().to_string();
        assert_eq!(text, "endpoint \"10.0.0.1:http\" has a port that is not a number from 1 to 65535");
        assert!("x".repeat(1 << 20).parse::<Endpoint>().unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn unspecified_hosts_are_known() {
        for (host, unspecified) in [("0.0.0.0", true), ("::", true), ("::1", false), ("localhost", false)] {
            assert_eq!(Host::new(host).unwrap().is_unspecified(), unspecified, "{host}");
        }
    }
}
