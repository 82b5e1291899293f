//! `dubbo`: the etcd registry of Apache Dubbo.
//!
//! `/dubbo/{interface}/providers/{URL}`, both URL-encoded; the value is the lease id in decimal, or empty, and is not
//! read. All is in the URL in the key: `tri://10.0.0.1:20000/org.apache.demo.Greeter?side=provider`. `weight` (Dubbo's
//! default is 100 too) and `version` are parameters of it; the others are metadata. The folders `consumers`,
//! `routers` and `configurators` are not ours.
//!
//! The id is the address. A provider that registers again with other parameters has another key with the same id:
//! who deletes by key must see that the key that went is the one the instance was last read from.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{
    endpoint::Endpoint,
    instance::{DEFAULT_WEIGHT, Instance},
    layout::{
        Carries, DecodeError, EncodeError, Encoded, KeySpan, Layout, PartKey, RawKv, path::Path, take_parsed,
    },
    name::ServiceName,
};

/// What Go's `url.QueryEscape` escapes. A space never gets there: it is `%20` in the URL before.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The same for a path, whose separators stay.
const ESCAPED_IN_PATH: &AsciiSet = &ESCAPED.remove(b'/');

const RESERVED: &[&str] = &["version", "weight"];

#[derive(Debug)]
pub(super) struct Dubbo {
    path: Path,
}

// === impl Dubbo ===

impl Dubbo {
    pub(super) fn new(prefix: Option<&str>) -> Self {
        Self { path: Path::new(prefix.unwrap_or("/dubbo")) }
    }

    fn read(&self, key: &[u8]) -> Option<Instance> {
        let mut segments = self.path.rest(key)?.split('/');
        let (Some(interface), Some("providers"), Some(url), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return None;
        };
        let service = ServiceName::new(unescaped(interface)).ok()?;
        let url = unescaped(url);
        let (place, query) = url.split_once('?').unwrap_or((&url, ""));
        let (scheme, rest) = place.split_once("://")?;
        let authority = rest.split('/').next()?;
        let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
        let endpoint: Endpoint = format!("{scheme}://{authority}").parse().ok()?;

        let mut instance = Instance::new(service, endpoint);
        instance.metadata = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(key, value)| (unescaped(key).into_owned(), unescaped(value).into_owned()))
            .collect();
        instance.version = instance.metadata.remove("version").filter(|version| !version.is_empty());
        instance.weight = take_parsed(&mut instance.metadata, "weight").unwrap_or(DEFAULT_WEIGHT);
        Some(instance)
    }
}

impl Layout for Dubbo {
    fn name(&self) -> &'static str {
        "dubbo"
    }

    fn prefix(&self) -> &str {
        self.path.prefix()
    }

    fn default_ttl(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn carries(&self) -> Carries {
        Carries::SCHEME | Carries::WEIGHT | Carries::VERSION | Carries::METADATA
    }

    fn encode(&self, instance: &Instance, lease: i64) -> Result<Encoded, EncodeError> {
        EncodeError::check_ports(instance)?;
        let interface = escaped(instance.service.as_str());
        let path = utf8_percent_encode(instance.service.as_str(), ESCAPED_IN_PATH);
        let url = format!("{}/{path}{}", instance.endpoints.primary(), query(instance));
        let key = self.path.key(&format!("{interface}/providers/{}", escaped(&url)));
        let value = if lease == 0 { String::new() } else { lease.to_string() };
        Ok(Encoded::one(key, value, self.carries().lost(instance, RESERVED)))
    }

    fn service_spans(&self, service: &ServiceName) -> Vec<KeySpan> {
        vec![self.path.instances(&format!("{}/providers", escaped(service.as_str())))]
    }

    fn catalog_span(&self) -> Option<KeySpan> {
        self.path.everything()
    }

    fn identify(&self, key: &[u8]) -> Option<PartKey> {
        let Instance { service, id, .. } = self.read(key)?;
        Some(PartKey { service, id, part: 0 })
    }

    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError> {
        Ok(parts.first().copied().flatten().and_then(|kv| self.read(kv.key)))
    }
}

/// The parameters, sorted, with `?` before them; nothing when there are none.
fn query(instance: &Instance) -> String {
    let weight = instance.weight.to_string();
    let user = instance.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let mut parameters: BTreeMap<_, _> = user.filter(|(key, _)| !RESERVED.contains(key)).collect();
    if let Some(version) = instance.version_text() {
        parameters.insert("version", version);
    }
    if instance.weight != DEFAULT_WEIGHT {
        parameters.insert("weight", &weight);
    }
    let mut query = String::new();
    for (key, value) in parameters {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(&escaped(key));
        query.push('=');
        query.push_str(&escaped(value));
    }
    query
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// `%XX` and `+` undone, as Go's `url.QueryUnescape` does; a `%` that begins no escape stays.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_metadata() {
        let dubbo = Dubbo::new(None);
        let instance = Instance::new("a/b.C".parse().unwrap(), "dubbo://[::1]:20880".parse().unwrap())
            .with_weight(7)
            .with_version("1.0")
            .with_metadata("", "empty key")
            .with_metadata("empty", "")
            .with_metadata("q", "a=1&b=%20+ /?<>é");
        let encoded = dubbo.encode(&instance, 12).unwrap();
        let entry = &encoded.entries[0];
        assert_eq!((entry.value.as_slice(), encoded.lost), (&b"12"[..], vec![]));
        assert!(
            entry
                .key
                .starts_with(b"/dubbo/a%2Fb.C/providers/dubbo%3A%2F%2F%5B%3A%3A1%5D%3A20880%2Fa%2Fb.C%3F")
        );
        let kv = RawKv { key: &entry.key, value: &entry.value, lease: 12 };
        assert_eq!(dubbo.decode(&[Some(kv)]).unwrap().unwrap(), instance);
    }

    #[test]
    fn only_providers_are_instances() {
        let dubbo = Dubbo::new(None);
        let url = "tri%3A%2F%2Fa%3A1%2FG";
        assert!(dubbo.identify(format!("/dubbo/G/providers/{url}").as_bytes()).is_some());
        for other in [
            format!("/dubbo/G/consumers/{url}"),
            format!("/dubbo/G/routers/{url}"),
            format!("/dubbo/G/providers/{url}/x"),
            "/dubbo/G/providers".to_owned(),
            "/dubbo/G/providers/".to_owned(),
            "/dubbo/G/providers/tri%3A%2F%2Fa".to_owned(),
        ] {
            assert_eq!(dubbo.identify(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn urls_of_dubbo_itself_are_read() {
        let key = concat!(
            "/dubbo/G/providers/dubbo%3A%2F%2Fuser%3Apw%4010.0.0.1%3A20880%2FG%3Fanyhost%3Dtrue%26weight%3D200",
            "%26version%3D%26note%3D100%25%26flag"
        );
        let instance = Dubbo::new(None).read(key.as_bytes()).unwrap();
        assert_eq!(
            (instance.address().as_str(), instance.weight, &instance.version),
            ("10.0.0.1:20880", 200, &None)
        );
        let metadata: Vec<_> = instance.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(metadata, [("anyhost", "true"), ("flag", ""), ("note", "100%")]);
    }
}
