//! `fields`: one instance per service, in four keys of one transaction.
//!
//! `greeter` → `greeter`, `greeter.ip` → `localhost`, `greeter.port` → `8080`, `greeter.protocol` → `grpc`. Part 0 is
//! the name; a set of fewer than four keys is no instance. There is no prefix unless one is given. A name that ends in
//! `.ip`, `.port` or `.protocol` would be taken for a part of another service, and is refused.

use std::time::Duration;

use crate::{
    endpoint::Endpoint,
    instance::Instance,
    layout::{
        Carries, DecodeCause, DecodeError, EncodeError, Encoded, Entry, KeySpan, Layout, PartKey, RawKv,
        go_json::text_of,
        path::Path,
        single::{lost, only_id},
    },
    name::ServiceName,
    scheme::Scheme,
};

/// What follows the name of the service in the key of each part.
const SUFFIXES: [&str; 4] = ["", ".ip", ".port", ".protocol"];

#[derive(Debug)]
pub(super) struct Fields {
    path: Path,
}

// === impl Fields ===

impl Fields {
    pub(super) fn new(prefix: Option<&str>) -> Self {
        Self { path: Path::new(prefix.unwrap_or_default()) }
    }
}

impl Layout for Fields {
    fn name(&self) -> &'static str {
        "fields"
    }

    fn prefix(&self) -> &str {
        self.path.prefix()
    }

    fn default_ttl(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn carries(&self) -> Carries {
        Carries::SCHEME
    }

    fn parts(&self) -> u8 {
        4
    }

    fn exclusive(&self) -> bool {
        true
    }

    fn encode(&self, instance: &Instance, _lease: i64) -> Result<Encoded, EncodeError> {
        EncodeError::check_ports(instance)?;
        let service = instance.service.as_str();
        if split(service).1 != 0 {
            let reason = "its end would be taken for a field of another service";
            return Err(EncodeError::Service { layout: self.name(), service: service.to_owned(), reason });
        }
        let Endpoint { scheme, host, port } = instance.endpoints.primary();
        let values = [service.to_owned(), host.to_string(), port.to_string(), scheme.to_string()];
        let entry = |(suffix, value): (&str, String)| Entry {
            key: self.path.key(&format!("{service}{suffix}")),
            value: value.into_bytes(),
        };
        let entries = SUFFIXES.into_iter().zip(values).map(entry).collect();
        Ok(Encoded { entries, lost: lost(self.carries(), instance) })
    }

    fn service_spans(&self, service: &ServiceName) -> Vec<KeySpan> {
        SUFFIXES.map(|suffix| KeySpan::Key(self.path.key(&format!("{service}{suffix}")))).into()
    }

    fn catalog_span(&self) -> Option<KeySpan> {
        self.path.everything()
    }

    fn identify(&self, key: &[u8]) -> Option<PartKey> {
        let (service, part) = split(self.path.rest(key)?);
        let service = ServiceName::new(service).ok()?;
        Some(PartKey { id: only_id(&service), service, part })
    }

    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError> {
        let [Some(name), Some(host), Some(port), Some(scheme)] = parts else { return Ok(None) };
        let Some(whose) = self.identify(name.key) else { return Ok(None) };
        if whose.service != text_of(name.value).trim() {
            return Ok(None);
        }
        let scheme: Scheme = self.field(*scheme, |text| text.parse().map_err(DecodeCause::from))?;
        let port = self.field(*port, |text| text.parse().map_err(|_| DecodeCause::Missing("port number")))?;
        let endpoint = self.field(*host, |text| Endpoint::new(text, port).map_err(DecodeCause::from))?;
        Ok(Some(Instance::new(whose.service, endpoint.with_scheme(scheme)).with_id(whose.id)))
    }
}

impl Fields {
    fn field<T>(
        &self,
        kv: RawKv<'_>,
        read: impl FnOnce(&str) -> Result<T, DecodeCause>,
    ) -> Result<T, DecodeError> {
        read(text_of(kv.value).trim()).map_err(|cause| DecodeError::new(self.name(), kv, cause))
    }
}

/// The name of the service and the part of `{service}{suffix}`.
fn split(text: &str) -> (&str, u8) {
    for (part, suffix) in (1..).zip(&SUFFIXES[1..]) {
        if let Some(service) = text.strip_suffix(suffix) {
            return (service, part);
        }
    }
    (text, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_set_is_no_instance() {
        let fields = Fields::new(None);
        let instance = Instance::new("greeter".parse().unwrap(), "http://[::1]:80".parse().unwrap());
        let encoded = fields.encode(&instance, 0).unwrap();
        let parts: Vec<_> =
            encoded.entries.iter().map(|e| Some(RawKv { key: &e.key, value: &e.value, lease: 1 })).collect();
        assert_eq!(fields.decode(&parts).unwrap().unwrap().endpoints, instance.endpoints);
        for missing in 0..4 {
            let mut partial = parts.clone();
            partial[missing] = None;
            assert_eq!(fields.decode(&partial).unwrap(), None, "{missing}");
        }
        assert_eq!(fields.decode(&[]).unwrap(), None);
    }

    #[test]
    fn the_error_names_the_key_of_the_field() {
        let kv = |key: &'static str, value: &'static str| {
            Some(RawKv { key: key.as_bytes(), value: value.as_bytes(), lease: 0 })
        };
        let parts = [kv("s", "s"), kv("s.ip", "a"), kv("s.port", "http"), kv("s.protocol", "grpc")];
        let error = Fields::new(None).decode(&parts).unwrap_err();
        assert_eq!((error.key(), error.cause().to_string().as_str()), ("s.port", "it has no port number"));
    }

    #[test]
    fn a_name_that_looks_like_a_field_is_refused() {
        let instance = Instance::new("greeter.ip".parse().unwrap(), "a:1".parse().unwrap());
        assert!(matches!(Fields::new(None).encode(&instance, 0), Err(EncodeError::Service { .. })));
    }
}
