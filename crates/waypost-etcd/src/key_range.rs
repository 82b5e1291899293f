//! Ranges of keys, in etcd's own terms: a half-open interval `[start, end)` of byte strings.
//!
//! Two spellings are special on the wire: an empty `end` means the single key `start`, and an `end` of one
//! zero byte means "to the end of the key space".

use std::fmt;

use bytes::Bytes;

/// The `range_end` that means "every key from `start` on".
const OPEN_END: &[u8] = b"\0";

/// A set of keys that are neighbours: one key, a prefix, an interval, or everything.
///
/// ```
/// use waypost_etcd::KeyRange;
/// let greeters = KeyRange::prefix("services/greeter/");
/// assert!(greeters.contains(b"services/greeter/10.0.0.1:50051"));
/// assert!(!greeters.contains(b"services/greeterworld/10.0.0.1:50051"));
/// assert!(KeyRange::key("a").contains(b"a"));
/// assert!(!KeyRange::key("a").contains(b"ab"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key of the range.
    pub start: Bytes,
    /// The key after the last one; empty for a single key, one zero byte for an open end.
    pub end: Bytes,
}

// === impl KeyRange ===

impl KeyRange {
    /// The interval `[start, end)`, as etcd reads the two fields.
    pub fn new(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: end.into() }
    }

    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: Bytes::new() }
    }

    /// Every key that begins with `prefix`. An empty prefix is every key.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        if start.is_empty() {
            return Self::all();
        }
        let end = prefix_end(&start);
        Self { start, end }
    }

    /// Every key from `key` on.
    pub fn from(key: impl Into<Bytes>) -> Self {
        let key: Bytes = key.into();
        let start = if key.is_empty() { Bytes::from_static(OPEN_END) } else { key };
        Self { start, end: Bytes::from_static(OPEN_END) }
    }

    /// Every key of the store.
    pub fn all() -> Self {
        Self { start: Bytes::from_static(OPEN_END), end: Bytes::from_static(OPEN_END) }
    }

    /// Whether the range is one key.
    pub fn is_single(&self) -> bool {
        self.end.is_empty()
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        if self.is_single() {
            return key == &self.start[..];
        }
        key >= &self.start[..] && (self.end == OPEN_END || key < &self.end[..])
    }

    /// The rest of the range after `key`: where the next page begins.
    pub(crate) fn after(&self, key: &[u8]) -> Self {
        let mut next = Vec::with_capacity(key.len() + 1);
        next.extend_from_slice(key);
        next.push(0);
        Self { start: next.into(), end: self.end.clone() }
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = ShownKey(&self.start);
        if self.is_single() {
            write!(f, "{start}")
        } else if self.end == OPEN_END {
            write!(f, "[{start}, ∞)")
        } else if self.end == prefix_end(&self.start) {
            write!(f, "{start}*")
        } else {
            write!(f, "[{start}, {})", ShownKey(&self.end))
        }
    }
}

/// The smallest key that is greater than every key with this prefix: the last byte below 0xff is raised by one
/// and what follows it is cut. All 0xff has no such key, so the range is open.
fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(OPEN_END),
    }
}

/// A key as it is written in messages: escaped, quoted, cut at 256 characters.
pub(crate) struct ShownKey<'a>(pub(crate) &'a [u8]);

impl fmt::Display for ShownKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 256;
        f.write_str("\"")?;
        for (count, char) in String::from_utf8_lossy(self.0).chars().enumerate() {
            if count == SHOWN {
                f.write_str("…")?;
                break;
            }
            write!(f, "{}", char.escape_debug())?;
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefix_of_all_0xff_is_open() {
        assert_eq!(KeyRange::prefix(vec![0xff, 0xff]).end, OPEN_END);
        assert_eq!(KeyRange::prefix(vec![b'a', 0xff]).end, vec![b'b']);
    }

    #[test]
    fn messages_name_the_keys() {
        assert_eq!(KeyRange::prefix("a/").to_string(), "\"a/\"*");
        assert_eq!(KeyRange::key("a\n").to_string(), "\"a\\n\"");
    }

    proptest! {
        #[test]
        fn prefix_contains_exactly_what_starts_with_it(prefix in proptest::collection::vec(any::<u8>(), 0..4),
                                                       key in proptest::collection::vec(any::<u8>(), 1..6)) {
            prop_assert_eq!(KeyRange::prefix(prefix.clone()).contains(&key), key.starts_with(&prefix));
        }
    }
}
