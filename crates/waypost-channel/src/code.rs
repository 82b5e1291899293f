//! gRPC's status codes: by name, by number, and sets of them.

use std::fmt;
use tonic::Code;

/// Codes 0 (`OK`) to 16 (`UNAUTHENTICATED`).
pub(crate) const CODES: usize = 17;

/// As gRPC writes them, in the order of their numbers.
pub(crate) const CODE_NAMES: [&str; CODES] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A set of status codes.
///
/// ```
/// use tonic::Code;
/// use waypost_channel::CodeSet;
///
/// let codes: CodeSet = [Code::Unavailable, Code::Aborted].into_iter().collect();
/// assert!(codes.contains(Code::Aborted) && !codes.contains(Code::Internal));
/// assert_eq!(codes.to_string(), "ABORTED, UNAVAILABLE");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CodeSet(u32);

/// The position of a code in tables of [`CODES`] entries.
pub(crate) fn index(code: Code) -> usize {
    usize::try_from(i32::from(code)).unwrap_or_default().min(CODES - 1)
}

/// `UNAVAILABLE`.
pub(crate) fn name(code: Code) -> &'static str {
    CODE_NAMES[index(code)]
}

/// The code of that name, in whatever case.
pub(crate) fn by_name(name: &str) -> Option<Code> {
    let index = CODE_NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
    by_number(u64::try_from(index).ok()?)
}

pub(crate) fn by_number(number: u64) -> Option<Code> {
    let known = usize::try_from(number).is_ok_and(|number| number < CODES);
    known.then(|| i32::try_from(number).map(Code::from_i32).ok()).flatten()
}

// === impl CodeSet ===

impl CodeSet {
    /// Whether `code` is one of them.
    pub fn contains(self, code: Code) -> bool {
        self.0 & 1 << index(code) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Code> for CodeSet {
    fn from_iter<I: IntoIterator<Item = Code>>(codes: I) -> Self {
        Self(codes.into_iter().fold(0, |set, code| set | 1 << index(code)))
    }
}

impl From<Code> for CodeSet {
    fn from(code: Code) -> Self {
        Self::from_iter([code])
    }
}

impl fmt::Display for CodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = CODE_NAMES.iter().enumerate().filter(|(index, _)| self.0 & 1 << index != 0);
        if let Some((_, first)) = names.next() {
            f.write_str(first)?;
        }
        names.try_for_each(|(_, name)| write!(f, ", {name}"))
    }
}

impl fmt::Debug for CodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeSet({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_grpcs() {
        for number in 0..17 {
            let code = by_number(number).unwrap();
            assert_eq!(u64::try_from(i32::from(code)).unwrap(), number);
            assert_eq!(by_name(&name(code).to_lowercase()), Some(code));
        }
        assert_eq!((by_number(17), by_number(u64::MAX), by_name("NOT")), (None, None, None));
    }
}
