//! Every layout against the examples of the software whose format it is, byte for byte, both ways.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use waypost_model::{Instance, LAYOUT_NAMES, RawKv, layout};

#[derive(Deserialize)]
struct Example {
    layout: String,
    prefix: Option<String>,
    #[serde(default)]
    lease: i64,
    instance: Said,
    kvs: Vec<Kv>,
}

/// An instance as the examples put it: what is not there is the default.
#[derive(Deserialize)]
struct Said {
    service: String,
    id: Option<String>,
    address: String,
    #[serde(alias = "protocol")]
    scheme: Option<String>,
    weight: Option<u32>,
    zone: Option<String>,
    version: Option<String>,
    status: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Kv {
    key: String,
    value: String,
}

// === impl Example ===

fn examples() -> Vec<Example> {
    serde_json::from_str(include_str!("data/layouts.json")).unwrap()
}

// === impl Said ===

impl Said {
    fn instance(&self) -> Instance {
        let scheme = self.scheme.as_deref().unwrap_or("grpc");
        let endpoint = format!("{scheme}://{}", self.address).parse().unwrap();
        let mut instance = Instance::new(self.service.parse().unwrap(), endpoint);
        if let Some(id) = &self.id {
            instance.id = id.parse().unwrap();
        }
        assert!(self.status.as_deref().is_none_or(|status| status == "healthy"));
        instance.weight = self.weight.unwrap_or(instance.weight);
        instance.zone.clone_from(&self.zone);
        instance.version.clone_from(&self.version);
        instance.metadata.clone_from(&self.metadata);
        instance
    }
}

#[test]
fn instances_are_written_as_in_the_examples() {
    for example in examples() {
        let layout = layout(&example.layout, example.prefix.as_deref()).unwrap();
        let encoded = layout.encode(&example.instance.instance(), example.lease).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let kvs: Vec<_> =
            encoded.entries.iter().map(|e| Kv { key: text(&e.key), value: text(&e.value) }).collect();
        assert_eq!(kvs, example.kvs, "{}", example.layout);
        assert_eq!(encoded.lost, [], "{}", example.layout);
    }
}

#[test]
fn the_examples_are_read_as_their_instances() {
    for example in examples() {
        let layout = layout(&example.layout, example.prefix.as_deref()).unwrap();
        let expected = example.instance.instance();
        let mut parts = Vec::new();
        for Kv { key, value } in &example.kvs {
            parts.push(Some(RawKv { key: key.as_bytes(), value: value.as_bytes(), lease: example.lease }));
        }
        assert_eq!(layout.decode(&parts).unwrap().unwrap(), expected, "{}", example.layout);

        for (number, kv) in (0..).zip(&example.kvs) {
            let part = layout.identify(kv.key.as_bytes()).unwrap();
            assert_eq!(
                (part.service, part.id, part.part),
                (expected.service.clone(), expected.id.clone(), number)
            );
        }
    }
}

#[test]
fn there_is_an_example_of_every_layout() {
    let examples: BTreeSet<_> = examples().into_iter().map(|example| example.layout).collect();
    assert_eq!(examples, LAYOUT_NAMES.iter().map(|name| (*name).to_owned()).collect());
}
