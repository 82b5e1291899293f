//! Who may do what: users, roles, tokens.
//!
//! - [`Policy`] is an immutable picture of users and roles, and answers whether something is permitted. Requests that
//!   read ask the committed one ([`Auth::policy`]), requests that write are checked by the writer against what the
//!   requests before them in the batch have made of it ([`Auth::pending`]).
//! - [`Auth`] owns the two, applies changes to the pending one and records them in a
//!   [`WriteBatch`](crate::backend::WriteBatch), in etcd's own encodings, and owns the tokens. [`Auth::committed`] or
//!   [`Auth::roll_back`] says what became of the batch.
//!
//! Passwords are checked outside, since that takes a tenth of a second: [`Auth::password_check`] gives the bcrypt hash,
//! [`Auth::log_in`] takes the verdict. Randomness and time are given, in milliseconds.
//!
//! ```
//! use waypost_embed::auth::{Auth, Login, Secret};
//! use waypost_embed::backend::{MemoryBackend, WriteBatch};
//! use waypost_embed::error::Refusal;
//!
//! let mut batch = WriteBatch::new();
//! let mut auth = Auth::load(&MemoryBackend::new(), &mut batch)?;
//! auth.user_add(&mut batch, "root", Secret::Hash("$2a$10$...".into()))?;
//! auth.user_grant_role(&mut batch, "root", "root")?;
//! auth.enable(&mut batch)?;
//! auth.committed(); // once the batch is on disk
//!
//! let anyone = auth.identify(None, 0)?;
//! assert_eq!(auth.policy().may_administer(&anyone), Err(Refusal::UserEmpty));
//!
//! let check = auth.password_check("root")?;
//! assert_eq!(check.hash(), "$2a$10$...");
//! let Login::Token(token) = auth.log_in(check, true, 0x1234_5678_9abc_def0, 0)? else { panic!("the hash is of this password") };
//! let root = auth.identify(Some(&token), 1000)?;
//! assert_eq!(auth.policy().may_administer(&root), Ok(()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod change;
mod check;
mod policy;
mod record;
mod rights;
mod store;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use bytes::Bytes;

pub use policy::Policy;
pub use store::{Auth, Login, PasswordCheck};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Identity {
    /// Someone without a token.
    #[default]
    Anonymous,
    /// A user.
    User {
        /// The name.
        name: Arc<str>,
        /// Revision of the auth store at which the user was known to be this one. Once the store is newer, the user must
        /// ask again.
        revision: u64,
    },
}

/// How a user proves to be one.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// By the password with this bcrypt hash.
    Hash(Bytes),
    /// Not at all: nobody can log in as this user.
    NoPassword,
}

/// User `root` cannot be deleted, and role `root` cannot be taken from it, while auth is on.
const ROOT: &str = "root";

// === impl Secret ===

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hash(_) => "Hash([redacted])",
            Self::NoPassword => "NoPassword",
        })
    }
}
