//! The beginning of a text that came from outside, short enough for an error message.

use std::fmt;

/// At most this many bytes of a foreign text are quoted.
pub(crate) const EXCERPT_BYTES: usize = 200;

/// A text cut at [`EXCERPT_BYTES`]; a cut is marked by `…`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Excerpt(Box<str>);

// === impl Excerpt ===

impl Excerpt {
    pub(crate) fn new(text: &str) -> Self {
        let mut end = text.len().min(EXCERPT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        if end == text.len() { Self(text.into()) } else { Self(format!("{}…", &text[..end]).into()) }
    }

    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        // One byte more than is quoted, so that a cut is seen as one.
        let head = &bytes[..bytes.len().min(EXCERPT_BYTES + 1)];
        Self::new(&String::from_utf8_lossy(head))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Quoted, with control characters escaped.
impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_are_whole_and_long_ones_are_cut_between_characters() {
        assert_eq!(Excerpt::new("abc").as_str(), "abc");
        let long = Excerpt::new(&"é".repeat(1000));
        assert!(long.as_str().len() <= EXCERPT_BYTES + '…'.len_utf8());
        assert!(long.as_str().ends_with('…'));
    }

    #[test]
    fn bytes_that_are_not_text_are_quoted_lossily() {
        assert_eq!(Excerpt::of_bytes(b"a\xffb").as_str(), "a\u{fffd}b");
        assert!(Excerpt::of_bytes(&[0xff; 1000]).as_str().len() < 4 * EXCERPT_BYTES);
    }
}
