//! The token that etcd asks for when authentication is on.
//!
//! One token serves every call of a client. When etcd refuses it, the first caller to notice fetches a new one
//! and all others wait for that one: a thousand calls that fail together cost one `Authenticate`.

use std::sync::{PoisonError, RwLock};

use secrecy::ExposeSecret;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::options::Credentials;
use crate::proto::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient};

/// The token in use and how it is renewed.
#[derive(Debug)]
pub(crate) struct Auth {
    credentials: Option<Credentials>,
    current: RwLock<Token>,
    renewal: tokio::sync::Mutex<()>,
}

/// A token and the number of its renewal. Generation 0 is "never asked"; a value of `None` in a later generation
/// means that etcd said that authentication is off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Token {
    pub(crate) generation: u64,
    pub(crate) value: Option<AsciiMetadataValue>,
}

// === impl Auth ===

impl Auth {
    pub(crate) fn new(credentials: Option<Credentials>) -> Self {
        Self { credentials, current: RwLock::default(), renewal: tokio::sync::Mutex::default() }
    }

    /// The token to send now; fetched if there are credentials and none was fetched yet.
    pub(crate) async fn token(&self, channel: &Channel) -> Result<Token, Status> {
        let token = self.current();
        if token.generation == 0 && self.credentials.is_some() {
            return self.renew(0, channel).await;
        }
        Ok(token)
    }

    /// Whether a refusal of this kind can be mended by another token.
    pub(crate) fn can_renew(&self, status: &Status) -> bool {
        self.credentials.is_some() && token_is_refused(status.message())
    }

    /// Whether there is a user at all.
    pub(crate) fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// A token newer than `refused`. Callers that come while another renews get what that one fetched.
    pub(crate) async fn renew(&self, refused: u64, channel: &Channel) -> Result<Token, Status> {
        let _turn = self.renewal.lock().await;
        let token = self.current();
        if token.generation > refused {
            return Ok(token);
        }
        let value = self.authenticate(channel).await?;
        let token = Token { generation: refused + 1, value };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = token.clone();
        Ok(token)
    }

    async fn authenticate(&self, channel: &Channel) -> Result<Option<AsciiMetadataValue>, Status> {
        let Some(credentials) = &self.credentials else { return Ok(None) };
        let request = AuthenticateRequest {
            name: credentials.name.clone(),
            password: credentials.password.expose_secret().to_owned(),
        };
        match AuthClient::new(channel.clone()).authenticate(request).await {
            Ok(answer) => {
                let mut value = AsciiMetadataValue::try_from(answer.into_inner().token)
                    .map_err(|_| Status::internal("etcd answered Authenticate with a malformed token"))?;
                value.set_sensitive(true);
                tracing::debug!(user = credentials.name, "authenticated with etcd");
                Ok(Some(value))
            }
            Err(status) if authentication_is_off(&status) => Ok(None),
            Err(status) => Err(status),
        }
    }

    fn current(&self) -> Token {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn authentication_is_off(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition && status.message().contains("authentication is not enabled")
}

/// The three refusals on which etcd's own client fetches a new token (`client/v3/retry_interceptor.go`).
pub(crate) fn token_is_refused(message: &str) -> bool {
    [
        "etcdserver: invalid auth token",
        "etcdserver: revision of auth store is old",
        "etcdserver: user name is empty",
    ]
    .iter()
    .any(|refusal| message.ends_with(refusal))
}
