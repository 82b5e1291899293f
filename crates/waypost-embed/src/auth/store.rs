//! The owner of users, roles and tokens.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::policy::Policy;
use super::token::Tokens;
use super::{Identity, record};
use crate::backend::{Backend, WriteBatch};
use crate::error::Refusal;
use crate::mvcc::StoreError;

/// Users, roles and tokens. See the [module](super) for the way it is used.
#[derive(Debug)]
pub struct Auth {
    /// What is on disk.
    committed: Arc<Policy>,
    /// What will be once the current batch is committed.
    pub(super) pending: Arc<Policy>,
    tokens: Tokens,
    /// Tokens that end once the current batch is committed.
    pub(super) endings: Vec<Ending>,
}

/// Whose tokens end.
#[derive(Debug)]
pub(super) enum Ending {
    User(String),
    Everyone,
}

/// A password to be compared with a hash, before [`Auth::log_in`].
#[derive(Clone)]
pub struct PasswordCheck {
    user: String,
    hash: Bytes,
}

/// What became of an attempt to log in.
#[derive(Clone)]
pub enum Login {
    /// The token.
    Token(String),
    /// The password was changed in the meantime: compare again.
    CheckAgain(PasswordCheck),
}

// === impl Auth ===

impl Auth {
    /// Reads what is stored. If nothing is, the first revision is added to the batch.
    pub fn load(backend: &dyn Backend, batch: &mut WriteBatch) -> Result<Self, StoreError> {
        let policy = Arc::new(record::load(backend, batch)?);
        Ok(Self {
            committed: Arc::clone(&policy),
            pending: policy,
            tokens: Tokens::default(),
            endings: Vec::new(),
        })
    }

    /// Users and roles as they are on disk.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.committed
    }

    /// Users and roles with the changes of the current batch.
    pub fn pending(&self) -> &Policy {
        &self.pending
    }

    /// Says that the batch with all changes so far is on disk. Ends the tokens of users that are gone, of those whose
    /// password was changed, and all if auth was turned off.
    pub fn committed(&mut self) {
        self.committed = Arc::clone(&self.pending);
        for ending in self.endings.drain(..) {
            match ending {
                Ending::User(user) => self.tokens.end_user(&user),
                Ending::Everyone => self.tokens.end_all(),
            }
        }
    }

    /// Says that the batch was not written: everything is as it was before.
    pub fn roll_back(&mut self) {
        self.pending = Arc::clone(&self.committed);
        self.endings.clear();
    }

    /// Who shows this token; its time starts again. With auth off, tokens are not looked at.
    pub fn identify(&mut self, token: Option<&str>, now_ms: u64) -> Result<Identity, Refusal> {
        let Some(token) = token.filter(|_| self.committed.enabled) else { return Ok(Identity::Anonymous) };
        let name = self.tokens.resolve(token, now_ms).ok_or(Refusal::InvalidAuthToken)?;
        Ok(Identity::User { name, revision: self.committed.revision })
    }

    /// What a user's password must be compared with.
    pub fn password_check(&self, user: &str) -> Result<PasswordCheck, Refusal> {
        if !self.committed.enabled {
            return Err(Refusal::AuthNotEnabled);
        }
        let Ok(found) = self.committed.user(user) else { return Err(Refusal::AuthFailed) };
        if !found.has_password() {
            return Err(Refusal::NoPasswordUser);
        }
        Ok(PasswordCheck { user: user.to_owned(), hash: found.record.password.clone() })
    }

    /// Logs a user in whose password was compared; `matches` is the verdict. `random` must not be guessable; it makes the
    /// token.
    pub fn log_in(
        &mut self,
        check: PasswordCheck,
        matches: bool,
        random: u128,
        now_ms: u64,
    ) -> Result<Login, Refusal> {
        let PasswordCheck { user, hash } = check;
        let current = self.password_check(&user)?;
        if current.hash != hash {
            return Ok(Login::CheckAgain(current));
        }
        if !matches {
            return Err(Refusal::AuthFailed);
        }
        Ok(Login::Token(self.tokens.issue(&user, random, now_ms)))
    }
}

// === impl PasswordCheck ===

impl PasswordCheck {
    /// The bcrypt hash of the password.
    pub fn hash(&self) -> &Bytes {
        &self.hash
    }
}

/// Without the hash.
impl fmt::Debug for PasswordCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordCheck").field("user", &self.user).finish_non_exhaustive()
    }
}

// === impl Login ===

/// Without the token.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token([redacted])"),
            Self::CheckAgain(check) => f.debug_tuple("CheckAgain").field(check).finish(),
        }
    }
}
