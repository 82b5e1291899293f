//! `grpc`: etcd's own `client/v3/naming/endpoints`, which Go's gRPC resolver for etcd reads.
//!
//! `services/greeter/10.0.0.1:50051` → `{"Op":0,"Addr":"10.0.0.1:50051","Metadata":null}`. Go lists these by dialing
//! `etcd:///services/greeter`. To Go, `Metadata` is any JSON; ours is an object with `status`, `version`, `weight` (a
//! number), `zone` and the user's own keys, each only where it differs from the default. A foreign `Metadata` that is
//! no object is read as metadata under the key [`FOREIGN`].

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

/// The metadata key under which a `Metadata` that is no object is kept.
const FOREIGN: &str = "metadata";

const RESERVED: &[&str] = &["status", "version", "weight", "zone"];

#[derive(Debug)]
pub(super) struct Grpc {
    path: Path,
}

/// Field order is that of Go's struct.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Update<'a> {
    op: u8,
    addr: String,
    metadata: Option<BTreeMap<&'a str, Member<'a>>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Member<'a> {
    Text(&'a str),
    Number(u32),
}

// === impl Grpc ===

impl Grpc {
    pub(super) fn new(prefix: Option<&str>) -> Self {
        Self { path: Path::new(prefix.unwrap_or("services")) }
    }
}

impl Layout for Grpc {
    fn name(&self) -> &'static str {
        "grpc"
    }

    path_keys!();

    fn default_ttl(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn carries(&self) -> Carries {
        Carries::ID | Carries::WEIGHT | Carries::ZONE | Carries::VERSION | Carries::STATUS | Carries::METADATA
    }

    fn encode(&self, instance: &Instance, _lease: i64) -> Result<Encoded, EncodeError> {
        EncodeError::check_ports(instance)?;
        let update = Update { op: 0, addr: instance.address(), metadata: metadata(instance) };
        let key = self.path.instance_key(instance.service.as_str(), instance.id.as_str());
        Ok(Encoded::one(key, go_json::to_vec(self.name(), &update)?, self.carries().lost(instance, RESERVED)))
    }

    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError> {
        let Some((kv, part)) = single_part(self, parts) else { return Ok(None) };
        decode(kv, part).map_err(|cause| DecodeError::new(self.name(), kv, cause))
    }
}

fn metadata(instance: &Instance) -> Option<BTreeMap<&str, Member<'_>>> {
    let user = instance.metadata.iter().map(|(key, value)| (key.as_str(), Member::Text(value)));
    let mut members: BTreeMap<_, _> = user.filter(|(key, _)| !RESERVED.contains(key)).collect();
    if instance.status != Status::Up {
        members.insert("status", Member::Text(instance.status.as_str()));
    }
    if let Some(version) = instance.version_text() {
        members.insert("version", Member::Text(version));
    }
    if instance.weight != DEFAULT_WEIGHT {
        members.insert("weight", Member::Number(instance.weight));
    }
    if let Some(zone) = instance.zone_text() {
        members.insert("zone", Member::Text(zone));
    }
    (!members.is_empty()).then_some(members)
}

fn decode(kv: RawKv<'_>, part: PartKey) -> Result<Option<Instance>, DecodeCause> {
    let text = go_json::text_of(kv.value);
    let update = Object::parse(&text)?;
    if update.field("Op").and_then(Json::to_number) == Some(1) {
        return Ok(None);
    }
    let address = update.field("Addr").ok_or(DecodeCause::Missing("Addr"))?.to_text();
    let mut instance = Instance::new(part.service, address.parse()?).with_id(part.id);
    match update.field("Metadata") {
        None => {}
        Some(value) => match value.to_object() {
            Some(members) => read_metadata(&mut instance, members),
            None => instance = instance.with_metadata(FOREIGN, value.to_text()),
        },
    }
    Ok(Some(instance))
}

/// A `weight` or `status` that makes no sense to us stays in the metadata as it is.
fn read_metadata(instance: &mut Instance, mut members: Object<'_>) {
    instance.zone = members.take("zone").and_then(Json::to_present_text);
    instance.version = members.take("version").and_then(Json::to_present_text);
    instance.metadata = members.into_texts();
    instance.weight = take_parsed(&mut instance.metadata, "weight").unwrap_or(DEFAULT_WEIGHT);
    instance.status = take_parsed(&mut instance.metadata, "status").unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<Instance>, DecodeError> {
        let kv = RawKv { key: b"services/s/1", value: value.as_bytes(), lease: 0 };
        Grpc::new(None).decode(&[Some(kv)])
    }

    fn read_one(value: &str) -> Instance {
        read(value).unwrap().unwrap()
    }

    fn plain() -> Instance {
        Instance::new("s".parse().unwrap(), "a:1".parse().unwrap()).with_id("1".parse().unwrap())
    }

    #[test]
    fn only_what_differs_from_the_default_is_written() {
        let instance = plain()
            .with_weight(7)
            .with_zone("z")
            .with_version("v")
            .with_status(Status::Draining)
            .with_metadata("a&b", "<x>");
        let encoded = Grpc::new(None).encode(&instance, 0).unwrap();
        let expected = concat!(
            r#"{"Op":0,"Addr":"a:1","Metadata":{"a\u0026b":"\u003cx\u003e","status":"draining","version":"v","#,
            r#""weight":7,"zone":"z"}}"#
        );
        assert_eq!(String::from_utf8(encoded.entries[0].value.clone()).unwrap(), expected);
        assert_eq!(read_one(expected), instance);
    }

    #[test]
    fn a_delete_is_no_instance() {
        assert_eq!(read(r#"{"Op":1,"Addr":"a:1","Metadata":null}"#).unwrap(), None);
    }

    #[test]
    fn foreign_metadata_of_any_type_is_kept() {
        for (json, kept) in [(r#""text""#, "text"), ("[1,2]", "[1,2]"), ("5", "5"), ("true", "true")] {
            let instance = read_one(&format!(r#"{{"Op":0,"Addr":"a:1","Metadata":{json}}}"#));
            assert_eq!(instance, plain().with_metadata(FOREIGN, kept), "{json}");
        }
        let instance =
            read_one(r#"{"Addr":"a:1","Metadata":{"n":5,"o":{"x":[1]},"weight":"7","status":"odd"}}"#);
        let expected =
            plain().with_metadata("n", "5").with_metadata("o", r#"{"x":[1]}"#).with_metadata("status", "odd");
        assert_eq!(instance, expected.with_weight(7));
    }

    #[test]
    fn what_is_missing_is_the_default_and_what_is_unknown_is_ignored() {
        for json in [r#"{"Addr":"a:1"}"#, r#"{"addr":"a:1","Op":null,"Metadata":{},"More":[1]}"#] {
            assert_eq!(read_one(json), plain(), "{json}");
        }
    }

    #[test]
    fn h27_the_error_names_layout_key_and_cause() {
        let error = read(r#"{"Op":0}"#).unwrap_err();
        assert_eq!(error.to_string(), r#"layout grpc: the value of key "services/s/1" is not an instance"#);
        assert_eq!(error.cause().to_string(), "it has no Addr");
        for bad in ["", "null", "[]", "{", r#"{"Addr":"nowhere"}"#, r#"{"Addr":5}"#, "\u{feff}{}"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reserved_metadata_is_reported_as_lost() {
        let encoded = Grpc::new(None).encode(&plain().with_metadata("zone", "z"), 0).unwrap();
        assert_eq!(encoded.lost, [crate::layout::Field::Metadata("zone".to_owned())]);
    }
}
