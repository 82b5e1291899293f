//! Which keys a request speaks of.

use std::ops::Bound;

/// One key or a range, as `key` and `range_end` of a request say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span<'a> {
    /// This key alone.
    Key(&'a [u8]),
    /// From the first up to and without the second; nothing if they are not in this order.
    Range(&'a [u8], &'a [u8]),
    /// From this key on.
    From(&'a [u8]),
}

/// What [`Span::bounds`] gives.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

// === impl Span ===

impl<'a> Span<'a> {
    /// As etcd reads them: an empty `range_end` means the one key, a single zero byte means from `key` on.
    pub fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        match range_end {
            [] => Self::Key(key),
            [0] => Self::From(key),
            end => Self::Range(key, end),
        }
    }

    /// The bounds to look between; `None` if there is nothing.
    pub(crate) fn bounds(self) -> Option<Bounds<'a>> {
        match self {
            Self::Key(key) => Some((Bound::Included(key), Bound::Included(key))),
            Self::Range(from, to) => (from < to).then_some((Bound::Included(from), Bound::Excluded(to))),
            Self::From(from) => Some((Bound::Included(from), Bound::Unbounded)),
        }
    }

    /// Whether the key is one of these.
    pub fn contains(self, key: &[u8]) -> bool {
        match self {
            Self::Key(one) => one == key,
            Self::Range(from, to) => from <= key && key < to,
            Self::From(from) => from <= key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_ends_mean_what_they_mean_in_etcd() {
        assert_eq!(Span::new(b"a", b""), Span::Key(b"a"));
        assert_eq!(Span::new(b"a", b"\0"), Span::From(b"a"));
        assert_eq!(Span::new(b"\0", b"\0"), Span::From(b"\0"));
        assert!(Span::new(b"a", b"c").contains(b"bb"));
        assert!(!Span::new(b"a", b"c").contains(b"c"));
        assert!(!Span::new(b"a", b"").contains(b"aa"));
    }

    #[test]
    fn a_range_that_ends_before_it_starts_is_empty() {
        assert_eq!(Span::new(b"b", b"a").bounds(), None);
        assert_eq!(Span::new(b"b", b"b").bounds(), None);
        assert!(!Span::new(b"b", b"a").contains(b"b"));
    }
}
