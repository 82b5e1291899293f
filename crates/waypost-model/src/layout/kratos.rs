//! `kratos`: the registry of go-kratos.
//!
//! `/microservices/helloworld/{uuid}` → JSON `id`, `name`, `version`, `metadata` (map or null), `endpoints` (URLs).
//! Kratos itself lists `/microservices/helloworld` without the separator, which also finds `helloworld2`, and then
//! filters by `name`. All that it writes for a service is under `/microservices/helloworld/`, so that is what we
//! read; a value whose `name` is another one is skipped as well.
//!
//! TLS is `grpcs` and `https`, or `?isSecure=true` in older versions, which is read too. Kratos takes the weight from
//! the metadata key `weight`, and so do we.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    endpoint::{Endpoint, Endpoints, InvalidEndpoint},
    instance::{DEFAULT_WEIGHT, Instance},
    layout::{
        Carries, DecodeCause, DecodeError, EncodeError, Encoded, Layout, PartKey, RawKv,
        go_json::{self, Json, Object},
        path::{Path, path_keys},
        single_part, take_parsed,
    },
};

const RESERVED: &[&str] = &["weight"];

#[derive(Debug)]
pub(super) struct Kratos {
    path: Path,
}

/// Field order is that of Go's `registry.ServiceInstance`.
#[derive(Serialize)]
struct ServiceInstance<'a> {
    id: &'a str,
    name: &'a str,
    version: &'a str,
    metadata: Option<BTreeMap<&'a str, String>>,
    endpoints: Vec<String>,
}

// === impl Kratos ===

impl Kratos {
    pub(super) fn new(prefix: Option<&str>) -> Self {
        Self { path: Path::new(prefix.unwrap_or("/microservices")) }
    }
}

impl Layout for Kratos {
    path_keys!();

    fn name(&self) -> &'static str {
        "kratos"
    }

    fn default_ttl(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn carries(&self) -> Carries {
        Carries::ID
            | Carries::SCHEME
            | Carries::WEIGHT
            | Carries::VERSION
            | Carries::METADATA
            | Carries::ENDPOINTS
    }

    fn encode(&self, instance: &Instance, _lease: i64) -> Result<Encoded, EncodeError> {
        EncodeError::check_ports(instance)?;
        let user = instance.metadata.iter().filter(|(key, _)| !RESERVED.contains(&key.as_str()));
        let mut metadata: BTreeMap<_, _> = user.map(|(key, value)| (key.as_str(), value.clone())).collect();
        if instance.weight != DEFAULT_WEIGHT {
            metadata.insert("weight", instance.weight.to_string());
        }
        let value = ServiceInstance {
            id: instance.id.as_str(),
            name: instance.service.as_str(),
            version: instance.version_text().unwrap_or_default(),
            metadata: (!metadata.is_empty()).then_some(metadata),
            endpoints: instance.endpoints.iter().map(Endpoint::to_string).collect(),
        };
        let key = self.path.instance_key(value.name, value.id);
        Ok(Encoded::one(key, go_json::to_vec(self.name(), &value)?, self.carries().lost(instance, RESERVED)))
    }

    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError> {
        let Some((kv, part)) = single_part(self, parts) else { return Ok(None) };
        decode(kv, part).map_err(|cause| DecodeError::new(self.name(), kv, cause))
    }
}

fn decode(kv: RawKv<'_>, part: PartKey) -> Result<Option<Instance>, DecodeCause> {
    let text = go_json::text_of(kv.value);
    let value = Object::parse(&text)?;
    if value.field("name").is_some_and(|name| part.service != name.to_text().as_str()) {
        return Ok(None);
    }
    let urls = value.field("endpoints").map(Json::elements).unwrap_or_default();
    let (mut good, mut bad) = (Vec::new(), None);
    for url in urls {
        match endpoint(&url.to_text()) {
            Ok(endpoint) => good.push(endpoint),
            Err(error) => bad = Some(error),
        }
    }
    // A URL of some other kind beside a good one is not our concern; without a good one it is the cause.
    let endpoints = Endpoints::from_vec(good).ok_or(match bad {
        Some(error) => DecodeCause::Endpoint(error),
        None => DecodeCause::Missing("endpoints"),
    })?;

    let mut instance = Instance::new(part.service, endpoints.primary().clone()).with_id(part.id);
    instance.endpoints = endpoints;
    instance.version = value.field("version").and_then(Json::to_present_text);
    let metadata = value.field("metadata").and_then(Json::to_object).unwrap_or_default();
    instance.metadata = metadata.into_texts();
    instance.weight = take_parsed(&mut instance.metadata, "weight").unwrap_or(DEFAULT_WEIGHT);
    Ok(Some(instance))
}

/// `grpc://10.0.0.1:9000?isSecure=true`, with or without a path.
fn endpoint(url: &str) -> Result<Endpoint, InvalidEndpoint> {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let end = url[after_scheme..].find(['/', '?', '#']).map_or(url.len(), |at| after_scheme + at);
    let (place, rest) = url.split_at(end);
    let mut endpoint: Endpoint = place.parse()?;
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    if query.split(['&', '#']).any(|pair| pair.eq_ignore_ascii_case("isSecure=true")) {
        endpoint.scheme = endpoint.scheme.secured();
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<Instance>, DecodeError> {
        let kv = RawKv { key: b"/microservices/hello/1", value: value.as_bytes(), lease: 0 };
        Kratos::new(None).decode(&[Some(kv)])
    }

    #[test]
    fn urls_of_all_versions_are_read() {
        for (url, expected) in [
            ("grpc://10.0.0.1:9000", "grpc://10.0.0.1:9000"),
            ("grpc://10.0.0.1:9000?isSecure=false", "grpc://10.0.0.1:9000"),
            ("grpc://10.0.0.1:9000?a=b&isSecure=true", "grpcs://10.0.0.1:9000"),
            ("http://[::1]:80/path?isSecure=true#x", "https://[::1]:80"),
        ] {
            assert_eq!(endpoint(url).unwrap().to_string(), expected);
        }
        assert!(
            endpoint("grpc://10.0.0.1").is_err() && endpoint("").is_err() && endpoint("é://a:1").is_err()
        );
    }

    #[test]
    fn h26_hello_does_not_match_helloworld() {
        let kratos = Kratos::new(None);
        let spans = kratos.service_spans(&"hello".parse().unwrap());
        assert!(spans.iter().all(|span| !span.contains(b"/microservices/helloworld/1")));
        assert_eq!(read(r#"{"id":"1","name":"helloworld","endpoints":["grpc://a:1"]}"#).unwrap(), None);
    }

    #[test]
    fn one_good_endpoint_is_enough() {
        let instance = read(
            r#"{"endpoints":["unix:///tmp/x","http://a:1","grpc://a:2"],"metadata":{"weight":"7","n":5}}"#,
        );
        let instance = instance.unwrap().unwrap();
        let endpoints: Vec<_> = instance.endpoints.iter().map(Endpoint::to_string).collect();
        assert_eq!(endpoints, ["http://a:1", "grpc://a:2"]);
        assert_eq!((instance.weight, instance.metadata["n"].as_str()), (7, "5"));
        for bad in [
            r#"{"endpoints":[]}"#,
            r#"{"endpoints":null}"#,
            r#"{"endpoints":["x"]}"#,
            "[]",
            r#"{"endpoints":{}}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ampersands_are_escaped_as_go_does() {
        let instance =
            Instance::new("s".parse().unwrap(), "a:1".parse().unwrap()).with_metadata("q", "a=1&b=2");
        let encoded = Kratos::new(None).encode(&instance, 0).unwrap();
        let value = String::from_utf8(encoded.entries[0].value.clone()).unwrap();
        assert!(value.contains(r#""metadata":{"q":"a=1\u0026b=2"}"#), "{value}");
    }
}
