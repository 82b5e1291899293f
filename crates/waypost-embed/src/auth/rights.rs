//! The keys that a user may read and write: the permissions of all its roles, merged.

use bytes::{BufMut as _, Bytes, BytesMut};
use waypost_proto::authpb::{Permission, permission::Type};

/// What the permissions of a user amount to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) read: Intervals,
    pub(super) write: Intervals,
}

/// A set of keys as intervals that are ascending and do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Intervals(Vec<Interval>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Interval {
    start: Bytes,
    /// The first key after it; `None`: it has no end.
    end: Option<Bytes>,
}

/// The end of a range that has none.
const OPEN: &[u8] = b"\0";

/// Whether a permission for these keys can be granted: there is a first key, and the range is not empty.
pub(super) fn is_grantable(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == OPEN || key < range_end)
}

// === impl Rights ===

impl Rights {
    pub(super) fn of<'a>(permissions: impl IntoIterator<Item = &'a Permission>) -> Self {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in permissions {
            let Some(interval) = Interval::of(permission) else { continue };
            match Type::try_from(permission.perm_type) {
                Ok(Type::Read) => read.push(interval),
                Ok(Type::Write) => write.push(interval),
                Ok(Type::Readwrite) => {
                    read.push(interval.clone());
                    write.push(interval);
                }
                Err(_) => {}
            }
        }
        Self { read: Intervals::merged(read), write: Intervals::merged(write) }
    }
}

// === impl Intervals ===

impl Intervals {
    fn merged(mut intervals: Vec<Interval>) -> Self {
        intervals.sort_by(|left, right| left.start.cmp(&right.start));
        let mut merged: Vec<Interval> = Vec::new();
        for next in intervals {
            match merged.last_mut() {
                Some(last) if last.end.as_ref().is_none_or(|end| next.start <= *end) => {
                    last.end = match (last.end.take(), next.end) {
                        (Some(left), Some(right)) => Some(left.max(right)),
                        _ => None,
                    };
                }
                _ => merged.push(next),
            }
        }
        Self(merged)
    }

    /// Whether all keys of a request are in the set: a single key if `range_end` is empty, everything from `key` on if it
    /// is one zero byte. A range that ends before it starts counts as its first key.
    pub(super) fn cover(&self, key: &[u8], range_end: &[u8]) -> bool {
        let after = self.0.partition_point(|interval| interval.start <= key);
        let Some(interval) = after.checked_sub(1).and_then(|at| self.0.get(at)) else { return false };
        let Some(end) = &interval.end else { return true };
        key < &end[..] && range_end != OPEN && range_end <= &end[..]
    }
}

// === impl Interval ===

impl Interval {
    /// `None` where the permission is for no key; such a one is no longer granted, but an old store may have it.
    fn of(permission: &Permission) -> Option<Self> {
        let Permission { key, range_end, .. } = permission;
        if !is_grantable(key, range_end) {
            return None;
        }
        let end = match &range_end[..] {
            b"" => Some(successor(key)),
            OPEN => None,
            _ => Some(range_end.clone()),
        };
        Some(Self { start: key.clone(), end })
    }
}

/// The first key after this one.
fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permission(key: &'static str, range_end: &'static str) -> Permission {
        Permission { perm_type: Type::Read.into(), key: key.into(), range_end: range_end.into() }
    }

    fn readable(permissions: &[Permission]) -> Intervals {
        Rights::of(permissions).read
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let keys = readable(&[permission("c", "e"), permission("a", "c"), permission("x", "")]);
        assert!(keys.cover(b"a", b"e"));
        assert!(keys.cover(b"b", b"d"));
        assert!(!keys.cover(b"a", b"e\0"));
        assert!(keys.cover(b"x", b"x\0"));
        assert!(keys.cover(b"x", b""));
        assert!(!keys.cover(b"x\0", b""));
        assert!(!keys.cover(b"c", b"x"));
    }

    #[test]
    fn an_open_end_is_covered_by_an_open_end_only() {
        let keys = readable(&[permission("a", "\u{10ffff}"), permission("m", "\0")]);
        assert!(keys.cover(b"a", b"\0"));
        assert!(keys.cover(b"z", b"\0"));
        assert!(!readable(&[permission("a", "\u{10ffff}")]).cover(b"a", b"\0"));
        assert!(!keys.cover(b"", b"\0"));
    }

    #[test]
    fn a_permission_for_no_key_permits_nothing() {
        assert_eq!(
            readable(&[permission("b", "a"), permission("", "z"), permission("", "\0")]),
            Intervals::default()
        );
        assert!(!is_grantable(b"", b""));
        assert!(!is_grantable(b"a", b"a"));
        assert!(is_grantable(b"a", b"\0"));
    }

    #[test]
    fn the_kind_of_a_permission_is_what_it_permits() {
        let of = |kind: i32| {
            Rights::of(&[Permission { perm_type: kind, key: "a".into(), range_end: Bytes::new() }])
        };
        let permits = |rights: Rights| (rights.read.cover(b"a", b""), rights.write.cover(b"a", b""));
        assert_eq!(
            [0, 1, 2, 3].map(|kind| permits(of(kind))),
            [(true, false), (false, true), (true, true), (false, false)]
        );
    }

    /// Keys of up to two letters out of `\0`, `a`, `b`: few enough to go through all of them.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0u8, b'a', b'b']), 1..=2)
    }

    fn range_end() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![2 => Just(Vec::new()), 1 => Just(OPEN.to_vec()), 4 => key()]
    }

    fn contains(key: &[u8], range_end: &[u8], candidate: &[u8]) -> bool {
        match range_end {
            b"" => candidate == key,
            OPEN => candidate >= key,
            end => candidate >= key && candidate < end,
        }
    }

    /// Every key of one to three letters out of `\0`, `a`, `b`, `c`, and one beyond all ends: at least one key lies
    /// between any two neighbouring ends of intervals.
    fn candidates() -> Vec<Vec<u8>> {
        let letters = [0u8, b'a', b'b', b'c'];
        let mut all = vec![vec![0xff; 4]];
        let mut longest: Vec<Vec<u8>> = vec![Vec::new()];
        for _ in 0..3 {
            longest =
                longest.iter().flat_map(|key| letters.map(|letter| [&key[..], &[letter]].concat())).collect();
            all.extend(longest.iter().cloned());
        }
        all
    }

    proptest! {
        #[test]
        fn a_range_is_covered_if_every_key_of_it_is(
            permissions in prop::collection::vec((key(), range_end()), 0..6),
            key in key(),
            range_end in range_end(),
        ) {
            let granted: Vec<_> = permissions
                .iter()
                .filter(|(key, range_end)| is_grantable(key, range_end))
                .map(|(key, range_end)| Permission {
                    perm_type: Type::Read.into(),
                    key: key.clone().into(),
                    range_end: range_end.clone().into(),
                })
                .collect();
            let permitted = |candidate: &[u8]| {
                granted.iter().any(|permission| contains(&permission.key, &permission.range_end, candidate))
            };
            let expected = permitted(&key)
                && candidates()
                    .iter()
                    .filter(|candidate| contains(&key, &range_end, candidate))
                    .all(|candidate| permitted(candidate));
            prop_assert_eq!(readable(&granted).cover(&key, &range_end), expected);
        }
    }
}
