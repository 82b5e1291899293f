//! Messages between JSON and the wire.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde_json::Value;

/// The first JSON document in a body, and its end. `None`: there is none.
pub(super) fn first(body: &[u8]) -> Result<Option<(Value, usize)>, String> {
    match attempt(body) {
        Ok(found) => Ok(found),
        Err(error) => Err(error.to_string()),
    }
}

/// The same of a body that may go on: `None` if more is to come.
pub(super) fn first_so_far(body: &[u8]) -> Result<Option<(Value, usize)>, String> {
    match attempt(body) {
        Err(error) if error.is_eof() => Ok(None),
        Err(error) => Err(error.to_string()),
        Ok(found) => Ok(found),
    }
}

fn attempt(body: &[u8]) -> Result<Option<(Value, usize)>, serde_json::Error> {
    let mut documents = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    let Some(value) = documents.next().transpose()? else { return Ok(None) };
    Ok(Some((value, documents.byte_offset())))
}

/// A document as it goes over the wire. Unknown fields are passed over, as etcd does; unknown names of an enum are not.
pub(super) fn from_json(message: MessageDescriptor, mut value: Value) -> Result<Bytes, String> {
    if value.is_null() {
        return Ok(Bytes::new());
    }
    prune(&message, &mut value)?;
    let options = DeserializeOptions::new();
    let message = DynamicMessage::deserialize_with_options(message, value, &options);
    message.map(|message| message.encode_to_vec().into()).map_err(|error| error.to_string())
}

/// Takes away fields that a message does not have, and refuses what is not quite base64: a key must not be another one for
/// want of a letter.
fn prune(message: &MessageDescriptor, value: &mut Value) -> Result<(), String> {
    let Value::Object(fields) = value else { return Ok(()) };
    let field = |name: &str| message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name));
    fields.retain(|name, _| field(name).is_some());
    for (name, value) in fields {
        let Some(kind) = field(name).map(|field| field.kind()) else { continue };
        let values = match value {
            Value::Array(values) => &mut values[..],
            value => std::slice::from_mut(value),
        };
        for value in values {
            match (&kind, &value) {
                (Kind::Message(message), _) => prune(message, value)?,
                (Kind::Bytes, Value::String(text)) => {
                    BASE64.decode(text).map_err(|error| format!("{name}: illegal base64 data: {error}"))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// A message from the wire as JSON.
pub(super) fn to_json(message: MessageDescriptor, bytes: Bytes) -> Result<Vec<u8>, String> {
    let message = DynamicMessage::decode(message, bytes).map_err(|error| error.to_string())?;
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(true)
        .use_enum_numbers(false)
        .use_proto_field_name(true)
        .skip_default_fields(true);
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut json);
    message.serialize_with_options(&mut serializer, &options).map_err(|error| error.to_string())?;
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::super::method;
    use super::*;

    fn through(path: &str, json: &str) -> Result<String, String> {
        let message = method(path).unwrap().input();
        let value = first(json.as_bytes())?.map_or(Value::Null, |(value, _)| value);
        let bytes = from_json(message.clone(), value)?;
        Ok(String::from_utf8(to_json(message, bytes)?).unwrap())
    }

    #[test]
    fn requests_are_read_as_grpc_gateway_reads_them() {
        let range = "/v3/kv/range";
        for (json, expected) in [
            ("", "{}"),
            ("null", "{}"),
            (r#"{"key":"YQ=="} and more"#, r#"{"key":"YQ=="}"#),
            (r#"{"rangeEnd":"Yg==","nothing":[1]}"#, r#"{"range_end":"Yg=="}"#),
            (r#"{"limit":"3","revision":4,"min_mod_revision":null}"#, r#"{"limit":"3","revision":"4"}"#),
            (
                r#"{"sort_order":"DESCEND","sort_target":3}"#,
                r#"{"sort_order":"DESCEND","sort_target":"MOD"}"#,
            ),
        ] {
            assert_eq!(through(range, json).as_deref(), Ok(expected), "{json}");
        }
        for json in [
            "[]",
            "x",
            r#"{"key":1}"#,
            r#"{"key":"?"}"#,
            r#"{"limit":3.5}"#,
            r#"{"sort_order":"UP"}"#,
            r#"{"key":"#,
        ] {
            assert!(through(range, json).is_err(), "{json}");
        }
    }

    #[test]
    fn names_are_those_of_the_protocol() {
        let json = r#"{"peerURLs":["http://a:1"]}"#;
        assert_eq!(through("/v3/cluster/member/add", json).as_deref(), Ok(json));
        let json = r#"{"TTL":"9","ID":"7"}"#;
        assert_eq!(through("/v3beta/lease/grant", json).as_deref(), Ok(json));
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = format!("{}{}", r#"{"success":[{"request_txn":"#.repeat(10_000), "}]}".repeat(10_000));
        assert!(through("/v3/kv/txn", &deep).is_err());
    }
}
