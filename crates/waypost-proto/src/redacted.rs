//! `Debug` for the messages that carry a secret: requests and responses end up in logs, passwords and tokens must not.

use std::fmt;

use crate::{authpb, etcdserverpb};

/// Stands for a secret: `[redacted]`, or `[empty]` for one that is not set.
struct Redacted(bool);

// === impl Redacted ===

impl Redacted {
    fn new(secret: impl AsRef<[u8]>) -> Self {
        Self(!secret.as_ref().is_empty())
    }
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "[redacted]" } else { "[empty]" })
    }
}

// === Messages ===

impl fmt::Debug for authpb::User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, password, roles, options } = self;
        f.debug_struct("User")
            .field("name", name)
            .field("password", &Redacted::new(password))
            .field("roles", roles)
            .field("options", options)
            .finish()
    }
}

impl fmt::Debug for etcdserverpb::AuthenticateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, password } = self;
        f.debug_struct("AuthenticateRequest")
            .field("name", name)
            .field("password", &Redacted::new(password))
            .finish()
    }
}

impl fmt::Debug for etcdserverpb::AuthenticateResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { header, token } = self;
        f.debug_struct("AuthenticateResponse")
            .field("header", header)
            .field("token", &Redacted::new(token))
            .finish()
    }
}

impl fmt::Debug for etcdserverpb::AuthUserAddRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, password, options, hashed_password } = self;
        f.debug_struct("AuthUserAddRequest")
            .field("name", name)
            .field("password", &Redacted::new(password))
            .field("options", options)
            .field("hashed_password", &Redacted::new(hashed_password))
            .finish()
    }
}

impl fmt::Debug for etcdserverpb::AuthUserChangePasswordRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, password, hashed_password } = self;
        f.debug_struct("AuthUserChangePasswordRequest")
            .field("name", name)
            .field("password", &Redacted::new(password))
            .field("hashed_password", &Redacted::new(hashed_password))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_reach_debug_output() {
        let secret = "s3cret";
        let shown = [
            format!(
                "{:?}",
                authpb::User { name: "ann".into(), password: secret.into(), ..Default::default() }
            ),
            format!(
                "{:?}",
                etcdserverpb::AuthenticateRequest { name: "ann".into(), password: secret.into() }
            ),
            format!("{:?} ann", etcdserverpb::AuthenticateResponse { header: None, token: secret.into() }),
            format!(
                "{:?}",
                etcdserverpb::AuthUserAddRequest {
                    name: "ann".into(),
                    password: secret.into(),
                    options: None,
                    hashed_password: secret.into(),
                }
            ),
            format!(
                "{:?}",
                etcdserverpb::AuthUserChangePasswordRequest {
                    name: "ann".into(),
                    password: secret.into(),
                    hashed_password: secret.into(),
                }
            ),
        ];
        for text in shown {
            assert!(text.contains("[redacted]") && text.contains("ann") && !text.contains(secret), "{text}");
        }
    }

    #[test]
    fn an_unset_secret_is_told_from_a_set_one() {
        let request = etcdserverpb::AuthenticateRequest { name: "ann".into(), password: String::new() };
        assert_eq!(format!("{request:?}"), r#"AuthenticateRequest { name: "ann", password: [empty] }"#);
    }
}
