//! Where a JSON document ends in a body that comes in pieces. Each byte is looked at once: to try the parser on each piece would
//! cost the square of the document's length.

/// What has been seen of a document.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Bytes that were looked at.
    seen: usize,
    state: State,
    /// Objects and arrays that are open.
    depth: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space.
    #[default]
    Before,
    Inside,
    String,
    /// In a string, after a backslash.
    Escape,
    /// At the end, or in something that is no object, array or string and too short to be spared.
    Ready,
}

// === impl Scan ===

impl Scan {
    /// Whether the parser has something to say of the document that the buffer begins with: it is there as a whole, as far as
    /// brackets tell. The buffer has grown at its end since the last time, and changed nowhere else.
    pub(super) fn is_ready(&mut self, buffer: &[u8]) -> bool {
        while self.state != State::Ready
            && let Some(byte) = buffer.get(self.seen)
        {
            self.seen += 1;
            self.step(*byte);
        }
        self.state == State::Ready
    }

    fn step(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (State::Before, b' ' | b'\t' | b'\r' | b'\n') => State::Before,
            (State::Before | State::Inside, b'{' | b'[') => {
                self.depth += 1;
                State::Inside
            }
            (State::Before | State::Inside, b'"') => State::String,
            (State::Inside, b'}' | b']') => {
                self.depth -= 1;
                self.after_value()
            }
            (State::Inside, _) => State::Inside,
            (State::String, b'\\') => State::Escape,
            (State::String, b'"') => self.after_value(),
            (State::String | State::Escape, _) => State::String,
            (State::Before | State::Ready, _) => State::Ready,
        };
    }

    fn after_value(&self) -> State {
        if self.depth == 0 { State::Ready } else { State::Inside }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes after which a document is ready.
    fn ready_after(document: &str) -> Option<usize> {
        let mut scan = Scan::default();
        (1..=document.len()).find(|length| scan.is_ready(&document.as_bytes()[..*length]))
    }

    #[test]
    fn a_document_ends_with_its_last_bracket() {
        for document in [r"{}", r#" {"a":[{"b":"}]\"\\"}]}"#, r#"["]"]"#, r#"  "a\"b""#] {
            assert_eq!(ready_after(document), Some(document.len()), "{document}");
            assert_eq!(ready_after(&format!("{document}{{}}")), Some(document.len()), "{document}");
            assert_eq!(ready_after(&document[..document.len() - 1]), None, "{document}");
        }
        assert_eq!(ready_after(" \n\t"), None);
        // What is no document is the parser's to refuse.
        for nonsense in ["null", "x", "}", "1", "]{"] {
            assert_eq!(ready_after(nonsense), Some(1), "{nonsense}");
        }
    }
}
