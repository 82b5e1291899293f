//! `json`: the address with health information, one flat object per instance.
//!
//! `/services/notification-server/pod-7` → `{"addr":"10.0.0.5:8080","status":"healthy","version":"1.0.0"}`. Status is
//! `healthy`, `draining` or `unhealthy`. `weight` and `zone` follow where they differ from the default, then the
//! metadata, one member each, sorted. When read, unknown members are metadata.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    instance::{DEFAULT_WEIGHT, Instance, Status},
    layout::{
        Carries, DecodeCause, DecodeError, EncodeError, Encoded, Layout, PartKey, RawKv,
        go_json::{self, Json, Object},
        path::{Path, path_keys},
        single_part, take_parsed,
    },
};

const RESERVED: &[&str] = &["addr", "status", "version", "weight", "zone"];

#[derive(Debug)]
pub(super) struct JsonAddr {
    path: Path,
}

#[derive(Serialize)]
struct Value<'a> {
    addr: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
    #[serde(flatten)]
    metadata: BTreeMap<&'a str, &'a str>,
}

// === impl JsonAddr ===

impl JsonAddr {
    pub(super) fn new(prefix: Option<&str>) -> Self {
        Self { path: Path::new(prefix.unwrap_or("/services")) }
    }
}

impl Layout for JsonAddr {
    path_keys!();

    fn name(&self) -> &'static str {
        "json"
    }

    fn default_ttl(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn carries(&self) -> Carries {
        Carries::ID | Carries::WEIGHT | Carries::ZONE | Carries::VERSION | Carries::STATUS | Carries::METADATA
    }

    fn encode(&self, instance: &Instance, _lease: i64) -> Result<Encoded, EncodeError> {
        EncodeError::check_ports(instance)?;
        let metadata = instance.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let value = Value {
            addr: instance.address(),
            status: word(instance.status),
            version: instance.version_text(),
            weight: Some(instance.weight).filter(|weight| *weight != DEFAULT_WEIGHT),
            zone: instance.zone_text(),
            metadata: metadata.filter(|(key, _)| !RESERVED.contains(key)).collect(),
        };
        let key = self.path.instance_key(instance.service.as_str(), instance.id.as_str());
        Ok(Encoded::one(key, go_json::to_vec(self.name(), &value)?, self.carries().lost(instance, RESERVED)))
    }

    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError> {
        let Some((kv, part)) = single_part(self, parts) else { return Ok(None) };
        decode(kv, part).map(Some).map_err(|cause| DecodeError::new(self.name(), kv, cause))
    }
}

fn decode(kv: RawKv<'_>, part: PartKey) -> Result<Instance, DecodeCause> {
    let text = go_json::text_of(kv.value);
    let mut value = Object::parse(&text)?;
    let address = value.take("addr").ok_or(DecodeCause::Missing("addr"))?.to_text();
    let mut instance = Instance::new(part.service, address.parse()?).with_id(part.id);
    instance.zone = value.take("zone").and_then(Json::to_present_text);
    instance.version = value.take("version").and_then(Json::to_present_text);
    let health = value.take("status").map(Json::to_text);
    instance.metadata = value.into_texts();
    instance.weight = take_parsed(&mut instance.metadata, "weight").unwrap_or(DEFAULT_WEIGHT);
    if let Some(health) = health {
        match status(&health) {
            Some(status) => instance.status = status,
            // A word that is not known is no reason to withhold the instance, and is there to be seen.
            None => _ = instance.metadata.insert("status".to_owned(), health),
        }
    }
    Ok(instance)
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Up => "healthy",
        Status::Draining => "draining",
        Status::Down => "unhealthy",
    }
}

fn status(word: &str) -> Option<Status> {
    match word {
        "healthy" => Some(Status::Up),
        "unhealthy" => Some(Status::Down),
        other => other.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<Instance>, DecodeError> {
        let kv = RawKv { key: b"/services/s/1", value: value.as_bytes(), lease: 0 };
        JsonAddr::new(None).decode(&[Some(kv)])
    }

    #[test]
    fn unknown_members_are_metadata() {
        let instance = read(r#"{"addr":"a:1","status":"unhealthy","region":"eu","n":{"x":1},"weight":"7"}"#)
            .unwrap()
            .unwrap();
        let expected = Instance::new("s".parse().unwrap(), "a:1".parse().unwrap())
            .with_id("1".parse().unwrap())
            .with_status(Status::Down)
            .with_weight(7)
            .with_metadata("region", "eu")
            .with_metadata("n", r#"{"x":1}"#);
        assert_eq!(instance, expected);
    }

    #[test]
    fn nulls_and_unknown_states_are_no_errors() {
        let json = r#"{"addr":"a:1","status":"odd","version":null,"zone":"","weight":null}"#;
        let instance = read(json).unwrap().unwrap();
        assert_eq!(
            (instance.status, instance.weight, instance.zone, instance.version),
            (Status::Up, 100, None, None)
        );
        assert_eq!(instance.metadata, BTreeMap::from([("status".to_owned(), "odd".to_owned())]));
        assert!(read(r#"{"status":"healthy"}"#).is_err());
    }
}
