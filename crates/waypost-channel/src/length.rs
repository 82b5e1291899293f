//! How long a message may be. gRPC writes the length before each message, so it is read as frames pass, and nothing is copied.

use std::fmt;

/// The longest message that is let through, in bytes as it travels: compressed, if it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(u32);

/// Looks at the messages in a body, frame by frame.
#[derive(Debug)]
pub(crate) struct Lengths {
    limit: Limit,
    /// Of the message that passes.
    left: u32,
    /// What has come of the prefix of the next one.
    prefix: [u8; PREFIX],
    seen: usize,
}

/// A message is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong {
    length: u32,
    limit: Limit,
    /// How much of the frame is of messages before it.
    pub(crate) before: usize,
}

/// A byte that says whether the message is compressed, and four with its length.
const PREFIX: usize = 5;

// === impl Limit ===

impl Limit {
    /// A prefix can say no more.
    pub(crate) const NONE: Self = Self(u32::MAX);

    /// The lower of those that are set.
    pub(crate) fn lower(one: Option<u32>, other: Option<u32>) -> Self {
        one.into_iter().chain(other).min().map_or(Self::NONE, Self)
    }
}

// === impl Lengths ===

impl Lengths {
    pub(crate) fn new(limit: Limit) -> Self {
        Self { limit, left: 0, prefix: [0; PREFIX], seen: 0 }
    }

    /// The next frame of the body.
    pub(crate) fn pass(&mut self, frame: &[u8]) -> Result<(), TooLong> {
        if self.limit == Limit::NONE {
            return Ok(());
        }
        let mut rest = frame;
        loop {
            let of_message = rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            // No more than `left`, which is a u32.
            self.left -= u32::try_from(of_message).unwrap_or(self.left);
            rest = &rest[of_message..];
            let of_prefix = rest.len().min(PREFIX - self.seen);
            self.prefix[self.seen..self.seen + of_prefix].copy_from_slice(&rest[..of_prefix]);
            self.seen += of_prefix;
            rest = &rest[of_prefix..];
            if self.seen < PREFIX {
                return Ok(());
            }
            let [_, length @ ..] = self.prefix;
            let length = u32::from_be_bytes(length);
            if length > self.limit.0 {
                let before = (frame.len() - rest.len()).saturating_sub(PREFIX);
                return Err(TooLong { length, limit: self.limit, before });
            }
            (self.left, self.seen) = (length, 0);
        }
    }
}

// === impl TooLong ===

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a message of {} bytes, where the channel or the service config allows {}",
            self.length, self.limit.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(messages: &[usize]) -> Vec<u8> {
        let message = |length: &usize| {
            let prefix = u32::try_from(*length).unwrap().to_be_bytes();
            [&[0][..], &prefix, &vec![0xff; *length]].concat()
        };
        messages.iter().flat_map(message).collect()
    }

    #[test]
    fn the_lower_limit_holds() {
        assert_eq!(Limit::lower(Some(3), Some(2)), Limit(2));
        assert_eq!(Limit::lower(None, Some(0)), Limit(0));
        assert_eq!(Limit::lower(None, None), Limit::NONE);
    }

    #[test]
    fn a_message_without_content_passes_whatever_the_limit() {
        assert_eq!(Lengths::new(Limit(0)).pass(&body(&[0, 0])), Ok(()));
        assert_eq!(Lengths::new(Limit::NONE).pass(&[0xff; 100]), Ok(()));
    }

    proptest! {
        #[test]
        fn frames_may_be_cut_anywhere(
            messages in prop::collection::vec(0_usize..40, 0..12), limit in 0_u32..40, size in 1_usize..30,
        ) {
            let body = body(&messages);
            let mut lengths = Lengths::new(Limit(limit));
            let mut passed = 0;
            let found = body.chunks(size).find_map(|frame| match lengths.pass(frame) {
                Ok(()) => { passed += frame.len(); None }
                Err(long) => { passed += long.before; Some(long) }
            });
            let long = messages.iter().position(|length| *length > usize::try_from(limit).unwrap());
            prop_assert_eq!(found.map(|long| usize::try_from(long.length).unwrap()), long.map(|at| messages[at]));
            // What passed ends with the message before, or within the prefix of the long one.
            let whole: usize = messages[..long.unwrap_or(messages.len())].iter().map(|length| length + PREFIX).sum();
            prop_assert!((whole..whole + PREFIX).contains(&passed), "{passed} of {whole}");
        }

        #[test]
        fn no_bytes_make_it_panic(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..9), limit in any::<u32>()) {
            let mut lengths = Lengths::new(Limit(limit));
            for frame in &frames {
                let _ = lengths.pass(frame);
            }
        }
    }
}
