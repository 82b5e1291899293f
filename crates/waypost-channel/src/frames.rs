//! HTTP/2 frames in a stream of bytes, however that is cut: where each begins, what it carries, where it ends.

/// Follows them.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Three bytes of length, the type, the flags, four bytes of stream.
    header: [u8; HEADER],
    /// How much of the header is there.
    known: usize,
    /// Of the payload, what is still to come.
    left: usize,
}

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

/// What comes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Begins(Head),
    /// A part of what it carries.
    Carries(Head, &'a [u8]),
    Ends(Head),
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
/// Flags.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

const HEADER: usize = 9;

// === impl Frames ===

impl Frames {
    /// The next bytes.
    pub(crate) fn read(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            if self.known < HEADER {
                let (more, rest) = bytes.split_at(bytes.len().min(HEADER - self.known));
                self.header[self.known..self.known + more.len()].copy_from_slice(more);
                self.known += more.len();
                bytes = rest;
                if self.known < HEADER {
                    return;
                }
                let head = Head::of(self.header);
                self.left = head.length;
                tell(Piece::Begins(head));
            }
            let head = Head::of(self.header);
            let (carried, rest) = bytes.split_at(bytes.len().min(self.left));
            if !carried.is_empty() {
                tell(Piece::Carries(head, carried));
            }
            self.left -= carried.len();
            bytes = rest;
            if self.left == 0 {
                self.known = 0;
                tell(Piece::Ends(head));
            }
        }
    }
}

// === impl Head ===

impl Head {
    fn of([high, mid, low, kind, flags, stream @ ..]: [u8; HEADER]) -> Self {
        let length = usize::from(high) << 16 | usize::from(mid) << 8 | usize::from(low);
        // The first bit is reserved.
        Self { length, kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) }
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether what opens or answers a stream is complete with this frame.
    pub(crate) fn completes_headers(self) -> bool {
        matches!(self.kind, HEADERS | CONTINUATION) && self.has(END_HEADERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame((kind, flags, stream, payload): &(u8, u8, u32, Vec<u8>)) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[*kind, *flags], &stream.to_be_bytes(), payload].concat()
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_they_are_cut(
            sent in prop::collection::vec(any::<(u8, u8, u32, Vec<u8>)>(), 0..6), portion in 1_usize..40,
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(frame).collect();
            let (mut frames, mut seen, mut carried) = (Frames::default(), Vec::new(), Vec::new());
            let mut begun = 0;
            for bytes in bytes.chunks(portion) {
                frames.read(bytes, |piece| match piece {
                    Piece::Begins(_) => begun += 1,
                    Piece::Carries(_, bytes) => carried.extend_from_slice(bytes),
                    Piece::Ends(head) => {
                        let payload = std::mem::take(&mut carried);
                        assert_eq!(payload.len(), head.length);
                        seen.push((head.kind, head.flags, head.stream, payload));
                    }
                });
            }
            let reserved = |(kind, flags, stream, payload)| (kind, flags, stream & 0x7fff_ffff, payload);
            prop_assert_eq!(begun, sent.len());
            prop_assert_eq!(seen, sent.into_iter().map(reserved).collect::<Vec<_>>());
        }
    }
}
