//! How keys and values are shown: as they are, line by line, or in JSON.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use waypost::etcd::KeyValue;

use crate::output::Output;

/// A key and what is known of it, for JSON.
#[derive(Debug, Serialize)]
pub(super) struct ShownKeyValue {
    #[serde(flatten)]
    key: KeyText,
    #[serde(flatten)]
    value: ValueText,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    /// In hexadecimal; absent without a lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
}

/// A text where the bytes are one, else their base64 under another name: exactly one of the two is there.
#[derive(Debug, Serialize)]
enum KeyText {
    #[serde(rename = "key")]
    Text(String),
    #[serde(rename = "key_base64")]
    Base64(String),
}

/// See [`KeyText`].
#[derive(Debug, Serialize)]
enum ValueText {
    #[serde(rename = "value")]
    Text(String),
    #[serde(rename = "value_base64")]
    Base64(String),
}

// === impl ShownKeyValue ===

impl From<&KeyValue> for ShownKeyValue {
    fn from(kv: &KeyValue) -> Self {
        Self {
            key: text(&kv.key).map_or_else(|| KeyText::Base64(STANDARD.encode(&kv.key)), KeyText::Text),
            value: text(&kv.value)
                .map_or_else(|| ValueText::Base64(STANDARD.encode(&kv.value)), ValueText::Text),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: (kv.lease != 0).then(|| format!("{:016x}", kv.lease)),
        }
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// The key and the value, a line each, as etcdctl prints them.
pub(super) fn print(out: &mut Output, kv: &KeyValue, value_only: bool) -> io::Result<()> {
    if !value_only {
        out.bytes(&kv.key)?;
        out.bytes(b"\n")?;
    }
    out.bytes(&kv.value)?;
    out.bytes(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_in_base64_under_another_name() {
        let kv = KeyValue {
            key: "a".into(),
            value: vec![0xff, 0].into(),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            lease: 0x694d,
        };
        assert_eq!(
            serde_json::to_string(&ShownKeyValue::from(&kv)).unwrap(),
            r#"{"key":"a","value_base64":"/wA=","create_revision":2,"mod_revision":3,"version":2,"lease":"000000000000694d"}"#
        );
    }
}
