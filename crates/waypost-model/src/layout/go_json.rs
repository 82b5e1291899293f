//! JSON as Go's `encoding/json` writes it, byte for byte, and a reader that forgives what Go forgives.
//!
//! Written: struct fields in their order, map keys sorted, no spaces; `<`, `>`, `&`, U+2028 and U+2029 as `\u` escapes.
//! Read: field names in any case (the exact one wins), duplicates (the last wins), numbers in strings, bytes that are
//! not UTF-8 (as U+FFFD).

use std::{borrow::Cow, collections::BTreeMap, io};

use serde::Serialize;
use serde_json::{Serializer, ser::Formatter, value::RawValue};

use crate::layout::{DecodeCause, EncodeError};

/// The value of a key as text.
pub(crate) fn text_of(value: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(value)
}

/// `value` as `json.Marshal` writes it.
pub(crate) fn to_vec(layout: &'static str, value: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(128);
    match value.serialize(&mut Serializer::with_formatter(&mut out, GoFormatter)) {
        Ok(()) => Ok(out),
        Err(source) => Err(EncodeError::Json { layout, source }),
    }
}

/// The members of a JSON object, values unread.
#[derive(Debug, Default)]
pub(crate) struct Object<'a>(BTreeMap<String, Json<'a>>);

/// A JSON value as it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Json<'a>(&'a str);

struct GoFormatter;

// === impl Object ===

impl<'a> Object<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, DecodeCause> {
        // Checked first because serde's own error would quote a whole string.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(DecodeCause::NotAnObject);
        }
        let members: BTreeMap<String, &'a RawValue> = serde_json::from_str(text)?;
        Ok(Self(members.into_iter().map(|(name, value)| (name, Json(value.get()))).collect()))
    }

    /// The value of the field `name` of a Go struct: the exact name, or else one that differs in case. Null is none.
    pub(crate) fn field(&self, name: &str) -> Option<Json<'a>> {
        let any_case =
            || self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        self.0.get(name).or_else(any_case).copied().filter(|value| !value.is_null())
    }

    /// Removes the member `name`, the exact one. Null is none.
    pub(crate) fn take(&mut self, name: &str) -> Option<Json<'a>> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// All members, as texts: those that are no strings as their JSON.
    pub(crate) fn into_texts(self) -> BTreeMap<String, String> {
        self.0.into_iter().map(|(name, value)| (name, value.to_text())).collect()
    }
}

// === impl Json ===

impl<'a> Json<'a> {
    pub(crate) fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// A string as what it says, anything else as its JSON.
    pub(crate) fn to_text(self) -> String {
        self.to_str().unwrap_or_else(|| self.0.to_owned())
    }

    /// A string that is not empty; anything else but null as its JSON.
    pub(crate) fn to_present_text(self) -> Option<String> {
        Some(self.to_text()).filter(|text| !text.is_empty())
    }

    /// A whole number, or a string that holds one.
    pub(crate) fn to_number(self) -> Option<i64> {
        self.to_text().parse().ok()
    }

    pub(crate) fn to_object(self) -> Option<Object<'a>> {
        Object::parse(self.0).ok()
    }

    /// The elements of an array; none for anything else.
    pub(crate) fn elements(self) -> Vec<Json<'a>> {
        let elements: Vec<&'a RawValue> = serde_json::from_str(self.0).unwrap_or_default();
        elements.into_iter().map(|value| Json(value.get())).collect()
    }

    fn to_str(self) -> Option<String> {
        if self.0.starts_with('"') { serde_json::from_str(self.0).ok() } else { None }
    }
}

// === impl GoFormatter ===

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain = 0;
        for (at, c) in fragment.char_indices() {
            if matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') {
                writer.write_all(&fragment.as_bytes()[plain..at])?;
                write!(writer, "\\u{:04x}", u32::from(c))?;
                plain = at + c.len_utf8();
            }
        }
        writer.write_all(&fragment.as_bytes()[plain..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        String::from_utf8(to_vec("test", &text).unwrap()).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        assert_eq!(written("a<b>&c"), r#""a\u003cb\u003e\u0026c""#);
        assert_eq!(written("\u{2028}\u{2029}"), r#""\u2028\u2029""#);
        assert_eq!(
            written("\"\\/\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}é"),
            "\"\\\"\\\\/\\n\\r\\t\\b\\f\\u0001\\u001f\u{7f}é\""
        );
    }

    #[test]
    fn map_keys_are_escaped_too() {
        let map = BTreeMap::from([("<", "1"), ("&", "2")]);
        assert_eq!(to_vec("test", &map).unwrap(), br#"{"\u0026":"2","\u003c":"1"}"#);
    }

    #[test]
    fn fields_are_found_in_any_case_and_the_exact_one_wins() {
        let object = Object::parse(r#" {"addr":"low","Addr":"exact","OP":1,"n":null,"x":1,"x":2} "#).unwrap();
        assert_eq!(object.field("Addr").unwrap().to_text(), "exact");
        assert_eq!(object.field("Op").unwrap().to_number(), Some(1));
        assert_eq!(object.field("x").unwrap().to_number(), Some(2));
        assert!(object.field("n").is_none() && object.field("absent").is_none());
    }

    #[test]
    fn values_that_are_no_strings_keep_their_json() {
        let texts =
            Object::parse(r#"{"a":1.50,"b":[1, 2],"c":true,"d":null,"e":"s","f":1e999,"g":"\ud800"}"#)
                .unwrap()
                .into_texts();
        let expected = [
            ("a", "1.50"),
            ("b", "[1, 2]"),
            ("c", "true"),
            ("d", "null"),
            ("e", "s"),
            ("f", "1e999"),
            ("g", r#""\ud800""#),
        ];
        assert_eq!(texts, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn errors_do_not_quote_what_was_read() {
        let huge = format!("\"{}\"", "x".repeat(1 << 20));
        assert!(matches!(Object::parse(&huge), Err(DecodeCause::NotAnObject)));
        let unclosed = format!("{{\"a\":{huge}");
        let Err(DecodeCause::Json(error)) = Object::parse(&unclosed) else { panic!("not refused as JSON") };
        assert!(error.to_string().len() < 100, "{error}");
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Object::parse(&deep).is_ok_and(|object| object.field("a").is_some()));
    }
}
