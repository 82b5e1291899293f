//! Which keys a watch is about.

use bytes::Bytes;

/// The keys of a watch. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    /// One key.
    Key(Bytes),
    /// The keys in `start..end`; `start < end`.
    Range {
        /// First key.
        start: Bytes,
        /// First key that is not in the span.
        end: Bytes,
    },
    /// This key and every one after it.
    From(Bytes),
}

/// A range that ends before or where it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("mvcc: watcher range is empty")]
pub struct EmptySpan;

// === impl Span ===

impl Span {
    /// The span of a request: an empty key stands for the first of all (one zero byte), an empty `range_end` for the
    /// single key, and a `range_end` of one zero byte for everything from the key on.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use waypost_embed::watch::Span;
    ///
    /// let span = Span::of_request(&Bytes::from("services/"), &Bytes::from("services0"))?;
    /// assert!(span.contains(b"services/greeter"));
    /// assert!(!span.contains(b"services0"));
    /// # Ok::<(), waypost_embed::watch::EmptySpan>(())
    /// ```
    pub fn of_request(key: &Bytes, range_end: &Bytes) -> Result<Self, EmptySpan> {
        let key = if key.is_empty() { Bytes::from_static(b"\0") } else { key.clone() };
        match &range_end[..] {
            b"" => Ok(Self::Key(key)),
            b"\0" => Ok(Self::From(key)),
            end if end <= &key[..] => Err(EmptySpan),
            _ => Ok(Self::Range { start: key, end: range_end.clone() }),
        }
    }

    /// Whether the key is one of these.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(only) => only == key,
            Self::Range { start, end } => start <= key && key < &end[..],
            Self::From(start) => start <= key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(key: &'static str, range_end: &'static str) -> Result<Span, EmptySpan> {
        Span::of_request(&Bytes::from(key), &Bytes::from(range_end))
    }

    #[test]
    fn a_request_names_a_key_a_range_or_everything_after() {
        assert_eq!(span("a", ""), Ok(Span::Key("a".into())));
        assert_eq!(span("a", "c"), Ok(Span::Range { start: "a".into(), end: "c".into() }));
        assert_eq!(span("a", "\0"), Ok(Span::From("a".into())));
        assert_eq!(span("", ""), Ok(Span::Key("\0".into())));
        assert_eq!(span("", "\0"), Ok(Span::From("\0".into())));
    }

    #[test]
    fn a_range_that_ends_before_it_starts_is_empty() {
        assert_eq!(span("b", "a"), Err(EmptySpan));
        assert_eq!(span("b", "b"), Err(EmptySpan));
        assert_eq!(EmptySpan.to_string(), "mvcc: watcher range is empty");
    }
}
