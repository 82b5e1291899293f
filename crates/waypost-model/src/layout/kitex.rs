//! `kitex`: the etcd registry of Kitex.
//!
//! `kitex/registry-etcd/Hello/10.0.0.1:8888` → `{"network":"tcp","address":"10.0.0.1:8888","weight":10,"tags":null}`.
//! The weight is always written; what is not positive, or absent, is read as 10.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    instance::Instance,
    layout::{
        Carries, DecodeCause, DecodeError, EncodeError, Encoded, Field, Layout, PartKey, RawKv,
        go_json::{self, Json, Object},
        path::{Path, path_keys},
        single_part,
    },
};

/// Kitex's own default.
const FOREIGN_WEIGHT: u32 = 10;

#[derive(Debug)]
pub(super) struct Kitex {
    name: &'static str,
    path: Path,
}

/// Field order is that of Go's struct.
#[derive(Serialize)]
struct InstanceInfo<'a> {
    network: &'static str,
    address: String,
    weight: u32,
    tags: Option<&'a BTreeMap<String, String>>,
}

// === impl Kitex ===

impl Kitex {
    pub(super) fn new(prefix: Option<&str>) -> Self {
        Self::named("kitex", prefix.unwrap_or("kitex/registry-etcd"))
    }

    pub(super) fn named(name: &'static str, prefix: &str) -> Self {
        Self { name, path: Path::new(prefix) }
    }
}

impl Layout for Kitex {
    path_keys!();

    fn name(&self) -> &'static str {
        self.name
    }

    fn default_ttl(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn carries(&self) -> Carries {
        Carries::WEIGHT | Carries::METADATA
    }

    fn encode(&self, instance: &Instance, _lease: i64) -> Result<Encoded, EncodeError> {
        EncodeError::check_ports(instance)?;
        let address = instance.address();
        let key = self.path.instance_key(instance.service.as_str(), &address);
        let tags = (!instance.metadata.is_empty()).then_some(&instance.metadata);
        let info = InstanceInfo { network: "tcp", address, weight: instance.weight, tags };
        let mut lost = self.carries().lost(instance, &[]);
        if instance.weight == 0 {
            lost.push(Field::Weight);
        }
        Ok(Encoded::one(key, go_json::to_vec(self.name, &info)?, lost))
    }

    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError> {
        let Some((kv, part)) = single_part(self, parts) else { return Ok(None) };
        decode(kv, part).map(Some).map_err(|cause| DecodeError::new(self.name, kv, cause))
    }
}

fn decode(kv: RawKv<'_>, part: PartKey) -> Result<Instance, DecodeCause> {
    let text = go_json::text_of(kv.value);
    let info = Object::parse(&text)?;
    let address = info.field("address").ok_or(DecodeCause::Missing("address"))?.to_text();
    let weight = info.field("weight").and_then(Json::to_number).filter(|weight| *weight > 0);
    let mut instance = Instance::new(part.service, address.parse()?).with_id(part.id);
    instance.weight = weight.map_or(FOREIGN_WEIGHT, |weight| u32::try_from(weight).unwrap_or(u32::MAX));
    instance.metadata = info.field("tags").and_then(Json::to_object).unwrap_or_default().into_texts();
    Ok(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_that_is_not_positive_is_read_as_10() {
        for (member, weight) in [
            (r#""weight":0"#, 10),
            (r#""weight":-5"#, 10),
            (r#""weight":null"#, 10),
            (r#""x":1"#, 10),
            (r#""weight":7"#, 7),
        ] {
            let value = format!(r#"{{"network":"tcp","address":"a:1",{member},"tags":null}}"#);
            let kv = RawKv { key: b"kitex/registry-etcd/s/a:1", value: value.as_bytes(), lease: 0 };
            assert_eq!(Kitex::new(None).decode(&[Some(kv)]).unwrap().unwrap().weight, weight, "{member}");
        }
    }
}
