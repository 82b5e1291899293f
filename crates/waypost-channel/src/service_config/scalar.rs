//! Values as proto3's JSON writes them: durations as `"1.5s"`, whole numbers as numbers or as text, codes by name or number.

use crate::code::{self, CodeSet};
use serde::Deserialize;
use serde::de::{self, Deserializer, Error as _, SeqAccess, Visitor};
use std::fmt;
use std::time::Duration;
use tonic::Code;

/// A duration that is not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// A whole number that is not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole(pub(super) u32);

/// A number above zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Positive(pub(super) f64);

/// A list of status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Codes(pub(super) CodeSet);

struct StatusCode(Code);

/// What proto3's JSON allows: ten thousand years.
const LONGEST: u64 = 315_576_000_000;

// === impl Span ===

/// Digits, a point and up to nine digits, or both, and `s`: gRFC A6 writes `".1s"`, which gRPC's clients take, though proto3's JSON does
/// not have it.
fn parse_span(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds)
        || !digits(fraction)
        || fraction.len() > 9
        || (seconds.is_empty() && fraction.is_empty())
    {
        return None;
    }
    let seconds: u64 = format!("0{seconds}").parse().ok().filter(|seconds| *seconds <= LONGEST)?;
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(seconds, nanos))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let problem =
            || D::Error::custom(format_args!("{text:?} is no duration: write seconds, as \"1.5s\""));
        parse_span(&text).map(Self).ok_or_else(problem)
    }
}

// === impl Whole ===

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {}", u32::MAX)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Whole, E> {
        let wrong = |_| E::invalid_value(de::Unexpected::Unsigned(number), &self);
        u32::try_from(number).map(Whole).map_err(wrong)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Whole, E> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a whole number in range"
        )]
        if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
            return Ok(Whole(number as u32));
        }
        Err(E::invalid_value(de::Unexpected::Float(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Whole, E> {
        text.parse().map(Whole).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor)
    }
}

// === impl Positive ===

impl<'de> Deserialize<'de> for Positive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        let problem = || D::Error::custom(format_args!("must be more than 0, is {number}"));
        Some(number).filter(|number| *number > 0.0 && number.is_finite()).map(Self).ok_or_else(problem)
    }
}

// === impl Codes ===

struct CodeVisitor;

impl Visitor<'_> for CodeVisitor {
    type Value = StatusCode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a gRPC status code, as \"UNAVAILABLE\" or 14")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<StatusCode, E> {
        let wrong = || E::invalid_value(de::Unexpected::Unsigned(number), &self);
        code::by_number(number).map(StatusCode).ok_or_else(wrong)
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<StatusCode, E> {
        let wrong = || E::invalid_value(de::Unexpected::Str(name), &self);
        code::by_name(name).map(StatusCode).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for StatusCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CodeVisitor)
    }
}

struct CodesVisitor;

impl<'de> Visitor<'de> for CodesVisitor {
    type Value = Codes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of gRPC status codes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Codes, A::Error> {
        let mut codes = Vec::new();
        while let Some(StatusCode(code)) = list.next_element()? {
            codes.push(code);
        }
        Ok(Codes(codes.into_iter().collect()))
    }
}

impl<'de> Deserialize<'de> for Codes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(CodesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_protos() {
        let nanos = |text| parse_span(text).map(|span| span.as_nanos());
        assert_eq!(nanos("1s"), Some(1_000_000_000));
        assert_eq!(nanos("0.05s"), Some(50_000_000));
        assert_eq!(nanos("1.000000001s"), Some(1_000_000_001));
        assert_eq!((nanos(".5s"), nanos("1.s")), (Some(500_000_000), Some(1_000_000_000)));
        for bad in [
            "",
            "s",
            ".s",
            "1",
            "1 s",
            "-1s",
            "-.1s",
            "+1s",
            "1.0000000001s",
            "1e3s",
            "1m",
            "315576000001s",
            "٣s",
        ] {
            assert_eq!(parse_span(bad), None, "{bad}");
        }
    }
}
