//! `go-micro`: the etcd registry of go-micro.
//!
//! `/micro/registry/helloworld/helloworld-7f3a` → a service with exactly one node: `name`, `version`, `metadata`,
//! `endpoints`, `nodes:[{metadata,id,address}]`. A `/` in a name is `-` in its key: `a/b` is found as `a-b`, which
//! `lost` reports; the `name` in the value is read where its key fits. Our metadata is that of the node; that of the
//! service is read as well, where the node has none of that name.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    instance::Instance,
    layout::{
        Carries, DecodeCause, DecodeError, EncodeError, Encoded, Field, KeySpan, Layout, PartKey, RawKv,
        go_json::{self, Json, Object},
        path::Path,
        single_part,
    },
    name::ServiceName,
};

#[derive(Debug)]
pub(super) struct GoMicro {
    path: Path,
}

/// Field order is that of Go's `registry.Service`.
#[derive(Serialize)]
struct Service<'a> {
    name: &'a str,
    version: &'a str,
    metadata: (),
    endpoints: (),
    nodes: [Node<'a>; 1],
}

#[derive(Serialize)]
struct Node<'a> {
    metadata: Option<&'a BTreeMap<String, String>>,
    id: &'a str,
    address: String,
}

// === impl GoMicro ===

impl GoMicro {
    pub(super) fn new(prefix: Option<&str>) -> Self {
        Self { path: Path::new(prefix.unwrap_or("/micro/registry")) }
    }
}

impl Layout for GoMicro {
    fn name(&self) -> &'static str {
        "go-micro"
    }

    fn prefix(&self) -> &str {
        self.path.prefix()
    }

    fn default_ttl(&self) -> Duration {
        Duration::from_secs(90)
    }

    fn carries(&self) -> Carries {
        Carries::ID | Carries::VERSION | Carries::METADATA
    }

    fn service_in_key(&self, service: &ServiceName) -> ServiceName {
        // Without a slash it is valid whenever the name is.
        ServiceName::new(flat(service.as_str())).unwrap_or_else(|_| service.clone())
    }

    fn encode(&self, instance: &Instance, _lease: i64) -> Result<Encoded, EncodeError> {
        EncodeError::check_ports(instance)?;
        let name = instance.service.as_str();
        let metadata = (!instance.metadata.is_empty()).then_some(&instance.metadata);
        let value = Service {
            name,
            version: instance.version_text().unwrap_or_default(),
            metadata: (),
            endpoints: (),
            nodes: [Node { metadata, id: instance.id.as_str(), address: instance.address() }],
        };
        let mut lost = self.carries().lost(instance, &[]);
        if name.contains('/') {
            lost.push(Field::Service);
        }
        let key = self.path.instance_key(&flat(name), instance.id.as_str());
        Ok(Encoded::one(key, go_json::to_vec(self.name(), &value)?, lost))
    }

    fn service_spans(&self, service: &ServiceName) -> Vec<KeySpan> {
        vec![self.path.instances(&flat(service.as_str()))]
    }

    fn catalog_span(&self) -> Option<KeySpan> {
        self.path.everything()
    }

    fn identify(&self, key: &[u8]) -> Option<PartKey> {
        self.path.identify(key).filter(|part| !part.service.as_str().contains('/'))
    }

    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError> {
        let Some((kv, part)) = single_part(self, parts) else { return Ok(None) };
        decode(kv, part).map_err(|cause| DecodeError::new(self.name(), kv, cause))
    }
}

fn flat(name: &str) -> String {
    name.replace('/', "-")
}

fn decode(kv: RawKv<'_>, part: PartKey) -> Result<Option<Instance>, DecodeCause> {
    let text = go_json::text_of(kv.value);
    let value = Object::parse(&text)?;
    let service = match value.field("name").map(|name| ServiceName::new(name.to_text())) {
        None => part.service,
        Some(Ok(name)) if part.service == flat(name.as_str()).as_str() => name,
        Some(_) => return Ok(None),
    };
    let nodes = value.field("nodes").map(Json::elements).unwrap_or_default();
    let node = nodes.into_iter().find_map(Json::to_object).ok_or(DecodeCause::Missing("node"))?;
    let address = node.field("address").ok_or(DecodeCause::Missing("address"))?.to_text();
    let mut instance = Instance::new(service, address.parse()?).with_id(part.id);
    instance.version = value.field("version").and_then(Json::to_present_text);
    for owner in [&value, &node] {
        let metadata = owner.field("metadata").and_then(Json::to_object).unwrap_or_default();
        instance.metadata.extend(metadata.into_texts());
    }
    Ok(Some(instance))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<Instance>, DecodeError> {
        let kv = RawKv { key: b"/micro/registry/a-b/1", value: value.as_bytes(), lease: 0 };
        GoMicro::new(None).decode(&[Some(kv)])
    }

    #[test]
    fn a_slash_is_a_dash_in_the_key() {
        let (layout, service) = (GoMicro::new(None), "a/b".parse::<ServiceName>().unwrap());
        let instance = Instance::new(service.clone(), "a:1".parse().unwrap()).with_id("1".parse().unwrap());
        let encoded = layout.encode(&instance, 0).unwrap();
        assert_eq!(
            (encoded.entries[0].key.as_slice(), encoded.lost),
            (&b"/micro/registry/a-b/1"[..], vec![Field::Service])
        );
        assert_eq!(layout.service_in_key(&service), "a-b");
        let value = String::from_utf8(encoded.entries[0].value.clone()).unwrap();
        assert_eq!(read(&value).unwrap().unwrap(), instance);
    }

    #[test]
    fn a_value_of_another_service_is_no_instance_of_this_one() {
        assert_eq!(read(r#"{"name":"a-c","nodes":[{"address":"a:1"}]}"#).unwrap(), None);
        assert!(read(r#"{"name":"a-b","nodes":[]}"#).is_err());
        assert!(read(r#"{"name":"a-b","nodes":[{"id":"1"}]}"#).is_err());
    }

    #[test]
    fn metadata_of_the_node_goes_before_that_of_the_service() {
        let json = r#"{"metadata":{"a":"1","b":"1"},"nodes":[{"address":"a:1","metadata":{"b":"2"}}]}"#;
        let instance = read(json).unwrap().unwrap();
        assert_eq!((instance.metadata["a"].as_str(), instance.metadata["b"].as_str()), ("1", "2"));
    }
}
