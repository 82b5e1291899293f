//! Tokens: what a user shows instead of its password. They are not stored: a restart ends them all.

use std::collections::HashMap;
use std::sync::Arc;

/// A token that is not used for so long is no longer good, in milliseconds.
pub(super) const IDLE_MS: u64 = 300_000;

/// How often tokens that are no longer good are looked for, in milliseconds.
const SWEEP_MS: u64 = 1_000;

/// Letters of a token.
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Letters in a token: 91 bits of randomness.
const LENGTH: usize = 16;

#[derive(Default)]
pub(super) struct Tokens {
    live: HashMap<String, Token>,
    /// Number of tokens that were ever given; the last part of each, so that no two are the same.
    issued: u64,
    sweep_at: u64,
}

struct Token {
    user: Arc<str>,
    /// Last moment at which it is good, in milliseconds.
    until: u64,
}

// === impl Tokens ===

impl Tokens {
    /// A new token: 16 letters, a dot and a number.
    pub(super) fn issue(&mut self, user: &str, random: u128, now_ms: u64) -> String {
        if now_ms >= self.sweep_at {
            self.live.retain(|_, token| now_ms <= token.until);
            self.sweep_at = now_ms.saturating_add(SWEEP_MS);
        }
        self.issued += 1;
        let letters = LETTERS.len() as u128;
        let mut name = String::with_capacity(LENGTH + 12);
        let mut rest = random;
        for _ in 0..LENGTH {
            name.push(char::from(LETTERS[usize::try_from(rest % letters).unwrap_or_default()]));
            rest /= letters;
        }
        name.push('.');
        name.push_str(&self.issued.to_string());
        self.live
            .insert(name.clone(), Token { user: Arc::from(user), until: now_ms.saturating_add(IDLE_MS) });
        name
    }

    /// The user of a token, whose time starts again.
    pub(super) fn resolve(&mut self, name: &str, now_ms: u64) -> Option<Arc<str>> {
        let token = self.live.get_mut(name)?;
        if now_ms > token.until {
            self.live.remove(name);
            return None;
        }
        token.until = token.until.max(now_ms.saturating_add(IDLE_MS));
        Some(Arc::clone(&token.user))
    }

    /// Ends the tokens of a user.
    pub(super) fn end_user(&mut self, user: &str) {
        self.live.retain(|_, token| &*token.user != user);
    }

    /// Ends all tokens.
    pub(super) fn end_all(&mut self) {
        self.live.clear();
    }
}

/// Without the tokens.
impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("live", &self.live.len())
            .field("issued", &self.issued)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sixteen_letters_and_a_number() {
        let mut tokens = Tokens::default();
        let first = tokens.issue("u", u128::MAX, 0);
        let (letters, number) = first.split_once('.').unwrap();
        assert_eq!((letters.len(), number), (16, "1"));
        assert!(letters.bytes().all(|letter| letter.is_ascii_alphabetic()));
        assert_eq!(tokens.issue("u", 0, 0), "aaaaaaaaaaaaaaaa.2");
    }

    #[test]
    fn use_prolongs_a_token_and_idleness_ends_it() {
        let mut tokens = Tokens::default();
        let token = tokens.issue("u", 7, 1000);
        assert_eq!(tokens.resolve(&token, 301_000).as_deref(), Some("u"));
        assert_eq!(tokens.resolve(&token, 601_000).as_deref(), Some("u"));
        assert_eq!(tokens.resolve(&token, 901_001), None);
        assert_eq!(tokens.resolve(&token, 901_000), None, "it stays ended");
    }

    #[test]
    fn tokens_that_are_never_used_are_not_kept() {
        let mut tokens = Tokens::default();
        for second in 0..1000 {
            tokens.issue("u", second, u64::try_from(second).unwrap() * 1000);
            assert!(tokens.live.len() <= 302);
        }
    }

    #[test]
    fn the_debug_output_shows_no_token() {
        let mut tokens = Tokens::default();
        let token = tokens.issue("u", 7, 0);
        assert!(!format!("{tokens:?}").contains(&token));
    }
}
