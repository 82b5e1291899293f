//! `skydns`: what CoreDNS's etcd plugin serves.
//!
//! `/skydns/local/skydns/rails/a` → `{"host":"10.0.0.1","port":8080,"priority":10,"weight":100,"ttl":60}` is the
//! instance `a` of `rails.skydns.local`: the labels of the service, reversed, then the id. Priority 10 and TTL 60 s
//! are written unless the metadata has `priority` or `ttl`. `text`, `mail`, `targetstrip` and `group` go between
//! record and metadata as well; other metadata has no place. Go omits what is 0 or empty, so a weight of 0 is lost. A
//! record without a host is a TXT or MX record and no instance; one without a port cannot be dialed, and is an error.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    endpoint::Endpoint,
    instance::{DEFAULT_WEIGHT, Instance},
    layout::{
        Carries, DecodeCause, DecodeError, EncodeError, Encoded, Field, KeySpan, Layout, PartKey, RawKv,
        go_json::{self, Json, Object},
        path::Path,
        single_part,
    },
    name::{InstanceId, ServiceName},
};

const DEFAULT_PRIORITY: u32 = 10;
const DEFAULT_TTL_SECONDS: u32 = 60;

#[derive(Debug)]
pub(super) struct SkyDns {
    path: Path,
}

/// Field order is that of Go's `msg.Service`.
#[derive(Serialize)]
struct Record<'a> {
    host: &'a str,
    port: u16,
    priority: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mail: Option<bool>,
    ttl: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    targetstrip: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
}

// === impl SkyDns ===

impl SkyDns {
    pub(super) fn new(prefix: Option<&str>) -> Self {
        Self { path: Path::new(prefix.unwrap_or("/skydns")) }
    }
}

impl Layout for SkyDns {
    fn name(&self) -> &'static str {
        "skydns"
    }

    fn prefix(&self) -> &str {
        self.path.prefix()
    }

    fn default_ttl(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn carries(&self) -> Carries {
        Carries::ID | Carries::WEIGHT
    }

    fn encode(&self, instance: &Instance, _lease: i64) -> Result<Encoded, EncodeError> {
        EncodeError::check_ports(instance)?;
        let service = instance.service.as_str();
        let labels = reversed(service).ok_or_else(|| EncodeError::Service {
            layout: self.name(),
            service: service.to_owned(),
            reason: "it is not a DNS name: labels, none of them empty, with a dot between them",
        })?;
        let metadata = &instance.metadata;
        let primary = instance.endpoints.primary();
        let record = Record {
            host: primary.host.as_str(),
            port: primary.port,
            priority: number(metadata, "priority").unwrap_or(DEFAULT_PRIORITY),
            weight: Some(instance.weight).filter(|weight| *weight != 0),
            text: text(metadata, "text"),
            mail: flag(metadata, "mail"),
            ttl: number(metadata, "ttl").unwrap_or(DEFAULT_TTL_SECONDS),
            targetstrip: number(metadata, "targetstrip"),
            group: text(metadata, "group"),
        };
        let mut lost = self.carries().lost(instance, &[]);
        lost.retain(|field| !matches!(field, Field::Metadata(key) if has_place(metadata, key)));
        if instance.weight == 0 {
            lost.push(Field::Weight);
        }
        let key = self.path.instance_key(&labels, instance.id.as_str());
        Ok(Encoded::one(key, go_json::to_vec(self.name(), &record)?, lost))
    }

    fn service_spans(&self, service: &ServiceName) -> Vec<KeySpan> {
        reversed(service.as_str()).map(|labels| self.path.instances(&labels)).into_iter().collect()
    }

    fn catalog_span(&self) -> Option<KeySpan> {
        self.path.everything()
    }

    fn identify(&self, key: &[u8]) -> Option<PartKey> {
        let (labels, id) = self.path.rest(key)?.rsplit_once('/')?;
        if labels.contains('.') {
            return None;
        }
        let labels: Vec<_> = labels.rsplit('/').collect();
        if labels.iter().any(|label| label.is_empty()) {
            return None;
        }
        Some(PartKey {
            service: ServiceName::new(labels.join(".")).ok()?,
            id: InstanceId::new(id).ok()?,
            part: 0,
        })
    }

    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError> {
        let Some((kv, part)) = single_part(self, parts) else { return Ok(None) };
        decode(kv, part).map_err(|cause| DecodeError::new(self.name(), kv, cause))
    }
}

/// `local/skydns/rails` of `rails.skydns.local`.
fn reversed(service: &str) -> Option<String> {
    if service.contains('/') || service.split('.').any(str::is_empty) {
        return None;
    }
    Some(service.rsplit('.').collect::<Vec<_>>().join("/"))
}

fn number(metadata: &BTreeMap<String, String>, key: &str) -> Option<u32> {
    let text = metadata.get(key)?;
    text.parse().ok().filter(|number: &u32| *number != 0 && number.to_string() == *text)
}

fn text<'a>(metadata: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    metadata.get(key).map(String::as_str).filter(|text| !text.is_empty())
}

fn flag(metadata: &BTreeMap<String, String>, key: &str) -> Option<bool> {
    metadata.get(key).filter(|text| *text == "true").map(|_| true)
}

fn has_place(metadata: &BTreeMap<String, String>, key: &str) -> bool {
    match key {
        // The default is left out when read, so it does not come back as metadata.
        "priority" => number(metadata, key).is_some_and(|number| number != DEFAULT_PRIORITY),
        "ttl" => number(metadata, key).is_some_and(|number| number != DEFAULT_TTL_SECONDS),
        "targetstrip" => number(metadata, key).is_some(),
        "text" | "group" => text(metadata, key).is_some(),
        "mail" => flag(metadata, key).is_some(),
        _ => false,
    }
}

fn decode(kv: RawKv<'_>, whose: PartKey) -> Result<Option<Instance>, DecodeCause> {
    let json = go_json::text_of(kv.value);
    let record = Object::parse(&json)?;
    let Some(host) = record.field("host").and_then(Json::to_present_text) else { return Ok(None) };
    let port = record.field("port").and_then(Json::to_number).and_then(|port| u16::try_from(port).ok());
    let port = port.filter(|port| *port != 0).ok_or(DecodeCause::Missing("port"))?;
    let mut instance = Instance::new(whose.service, Endpoint::new(host, port)?).with_id(whose.id);

    let weight = record.field("weight").and_then(Json::to_number).filter(|weight| *weight > 0);
    instance.weight = weight.map_or(DEFAULT_WEIGHT, |weight| u32::try_from(weight).unwrap_or(u32::MAX));
    for (key, default) in [
        ("priority", DEFAULT_PRIORITY.to_string()),
        ("text", String::new()),
        ("mail", "false".to_owned()),
        ("ttl", DEFAULT_TTL_SECONDS.to_string()),
        ("targetstrip", "0".to_owned()),
        ("group", String::new()),
    ] {
        if let Some(text) = record.field(key).map(Json::to_text).filter(|text| *text != default) {
            instance.metadata.insert(key.to_owned(), text);
        }
    }
    Ok(Some(instance))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<Instance>, DecodeError> {
        let kv = RawKv { key: b"/skydns/local/skydns/rails/a", value: value.as_bytes(), lease: 0 };
        SkyDns::new(None).decode(&[Some(kv)])
    }

    #[test]
    fn every_field_of_a_record_goes_both_ways() {
        let json = concat!(
            r#"{"host":"2001:db8::1","port":80,"priority":5,"weight":7,"text":"a\u0026b","mail":true,"ttl":30,"#,
            r#""targetstrip":1,"group":"g1"}"#
        );
        let instance = read(json).unwrap().unwrap();
        assert_eq!((instance.address().as_str(), instance.weight), ("[2001:db8::1]:80", 7));
        let encoded = SkyDns::new(None).encode(&instance, 0).unwrap();
        assert_eq!(String::from_utf8(encoded.entries[0].value.clone()).unwrap(), json);
        assert_eq!(encoded.lost, []);
    }

    #[test]
    fn records_without_host_are_no_instances_and_without_port_are_errors() {
        assert_eq!(read(r#"{"text":"hello"}"#).unwrap(), None);
        assert!(
            read(r#"{"host":"10.0.0.1"}"#).is_err() && read(r#"{"host":"10.0.0.1","port":70000}"#).is_err()
        );
        let instance = read(r#"{"host":"10.0.0.1","port":80}"#).unwrap().unwrap();
        assert_eq!((instance.weight, instance.metadata.len()), (DEFAULT_WEIGHT, 0));
    }

    #[test]
    fn names_that_are_no_dns_names_are_refused() {
        for bad in ["svc/echo", "a..b", ".a", "a."] {
            let instance = Instance::new(bad.parse().unwrap(), "a:1".parse().unwrap());
            assert!(
                matches!(SkyDns::new(None).encode(&instance, 0), Err(EncodeError::Service { .. })),
                "{bad}"
            );
            assert_eq!(SkyDns::new(None).service_spans(&instance.service), []);
        }
    }
}
