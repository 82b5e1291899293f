//! `etcdserverpb.Auth`. Passwords are hashed and compared on threads that may be busy for long, a few at a time.

use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::{Request, async_trait};
use waypost_proto::etcdserverpb::auth_server::Auth;
use waypost_proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
    AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest,
    AuthRoleGetResponse, AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse,
    AuthRoleListRequest, AuthRoleListResponse, AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse, AuthUserAddRequest,
    AuthUserAddResponse, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse,
    AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse,
    AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
    AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
};

use super::{Answer, Service, answer};
use crate::auth::{self, Login, Secret};
use crate::backend::WriteBatch;
use crate::error::Refusal;
use crate::server::engine::lock;

/// bcrypt takes no more bytes of a password.
const LONGEST_PASSWORD: usize = 72;

/// A request of `root` that changes users or roles: the change, then the answer.
macro_rules! change {
    ($service:ident, $request:ident, $answer:ident, |$auth:ident, $batch:ident, $message:ident| $change:expr) => {{
        let (metadata, _, $message) = $request.into_parts();
        let bytes = $message.encoded_len();
        let outcome = $service.change(&metadata, bytes, move |$auth, $batch| $change).await;
        answer(outcome.map(|()| $answer { header: Some($service.engine.header()) }))
    }};
}

#[async_trait]
impl Auth for Service {
    async fn auth_enable(&self, request: Request<AuthEnableRequest>) -> Answer<AuthEnableResponse> {
        change!(self, request, AuthEnableResponse, |auth, batch, _message| auth.enable(batch))
    }

    async fn auth_disable(&self, request: Request<AuthDisableRequest>) -> Answer<AuthDisableResponse> {
        change!(self, request, AuthDisableResponse, |auth, batch, _message| {
            auth.disable(batch);
            Ok(())
        })
    }

    async fn auth_status(&self, request: Request<AuthStatusRequest>) -> Answer<AuthStatusResponse> {
        let outcome = || {
            self.root(request.metadata())?;
            let policy = self.engine.policy();
            let header = Some(self.engine.header());
            Ok(AuthStatusResponse { header, enabled: policy.is_enabled(), auth_revision: policy.revision() })
        };
        answer(outcome())
    }

    async fn authenticate(&self, request: Request<AuthenticateRequest>) -> Answer<AuthenticateResponse> {
        let AuthenticateRequest { name, password } = request.into_inner();
        let outcome = async {
            let token = self.log_in(&name, &password).await?;
            Ok(AuthenticateResponse { header: Some(self.engine.header()), token })
        };
        answer(outcome.await)
    }

    async fn user_add(&self, request: Request<AuthUserAddRequest>) -> Answer<AuthUserAddResponse> {
        let (metadata, _, request) = request.into_parts();
        let outcome = async {
            self.root(&metadata)?;
            let bytes = request.encoded_len();
            let no_password = request.options.is_some_and(|options| options.no_password);
            let secret = if no_password {
                Secret::NoPassword
            } else {
                Secret::Hash(self.hash(request.password.clone()).await?.into())
            };
            let add = move |auth: &mut auth::Auth, batch: &mut WriteBatch| {
                auth.user_add(batch, &request.name, secret)
            };
            self.change(&metadata, bytes, add).await?;
            Ok(AuthUserAddResponse { header: Some(self.engine.header()) })
        };
        answer(outcome.await)
    }

    async fn user_get(&self, request: Request<AuthUserGetRequest>) -> Answer<AuthUserGetResponse> {
        let outcome = || {
            let who = self.caller(request.metadata())?;
            let policy = self.engine.policy();
            let name = &request.get_ref().name;
            policy.may_get_user(&who, name)?;
            let roles = policy.roles_of(name)?;
            Ok(AuthUserGetResponse { header: Some(self.engine.header()), roles })
        };
        answer(outcome())
    }

    async fn user_list(&self, request: Request<AuthUserListRequest>) -> Answer<AuthUserListResponse> {
        let outcome = || {
            self.root(request.metadata())?;
            let users = self.engine.policy().users();
            Ok(AuthUserListResponse { header: Some(self.engine.header()), users })
        };
        answer(outcome())
    }

    async fn user_delete(&self, request: Request<AuthUserDeleteRequest>) -> Answer<AuthUserDeleteResponse> {
        change!(self, request, AuthUserDeleteResponse, |auth, batch, message| {
            auth.user_delete(batch, &message.name)
        })
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Answer<AuthUserChangePasswordResponse> {
        let (metadata, _, request) = request.into_parts();
        let outcome = async {
            self.root(&metadata)?;
            let bytes = request.encoded_len();
            let hash = self.hash(request.password.clone()).await?;
            let change = move |auth: &mut auth::Auth, batch: &mut WriteBatch| {
                auth.user_change_password(batch, &request.name, hash.into())
            };
            self.change(&metadata, bytes, change).await?;
            Ok(AuthUserChangePasswordResponse { header: Some(self.engine.header()) })
        };
        answer(outcome.await)
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Answer<AuthUserGrantRoleResponse> {
        change!(self, request, AuthUserGrantRoleResponse, |auth, batch, message| {
            auth.user_grant_role(batch, &message.user, &message.role)
        })
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Answer<AuthUserRevokeRoleResponse> {
        change!(self, request, AuthUserRevokeRoleResponse, |auth, batch, message| {
            auth.user_revoke_role(batch, &message.name, &message.role)
        })
    }

    async fn role_add(&self, request: Request<AuthRoleAddRequest>) -> Answer<AuthRoleAddResponse> {
        change!(self, request, AuthRoleAddResponse, |auth, batch, message| auth
            .role_add(batch, &message.name))
    }

    async fn role_get(&self, request: Request<AuthRoleGetRequest>) -> Answer<AuthRoleGetResponse> {
        let outcome = || {
            let who = self.caller(request.metadata())?;
            let policy = self.engine.policy();
            let role = &request.get_ref().role;
            policy.may_get_role(&who, role)?;
            let perm = policy.permissions_of(role)?;
            Ok(AuthRoleGetResponse { header: Some(self.engine.header()), perm })
        };
        answer(outcome())
    }

    async fn role_list(&self, request: Request<AuthRoleListRequest>) -> Answer<AuthRoleListResponse> {
        let outcome = || {
            self.root(request.metadata())?;
            let roles = self.engine.policy().roles();
            Ok(AuthRoleListResponse { header: Some(self.engine.header()), roles })
        };
        answer(outcome())
    }

    async fn role_delete(&self, request: Request<AuthRoleDeleteRequest>) -> Answer<AuthRoleDeleteResponse> {
        change!(self, request, AuthRoleDeleteResponse, |auth, batch, message| {
            auth.role_delete(batch, &message.role)
        })
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Answer<AuthRoleGrantPermissionResponse> {
        change!(self, request, AuthRoleGrantPermissionResponse, |auth, batch, message| {
            auth.role_grant_permission(batch, &message.name, message.perm)
        })
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Answer<AuthRoleRevokePermissionResponse> {
        change!(self, request, AuthRoleRevokePermissionResponse, |auth, batch, message| {
            auth.role_revoke_permission(batch, &message.role, &message.key, &message.range_end)
        })
    }
}

// === impl Service ===

impl Service {
    /// A change by `root`.
    async fn change<F>(&self, metadata: &MetadataMap, bytes: usize, change: F) -> Result<(), Refusal>
    where
        F: FnOnce(&mut auth::Auth, &mut WriteBatch) -> Result<(), Refusal> + Send + 'static,
    {
        let who = self.caller(metadata)?;
        self.engine
            .write(bytes, move |desk| {
                desk.policy().may_administer(&who)?;
                Ok(change(desk.auth, desk.space.batch())?)
            })
            .await
    }

    /// A token for whoever knows the password.
    async fn log_in(&self, name: &str, password: &str) -> Result<String, Refusal> {
        let mut check = lock(&self.engine.shared.auth).password_check(name)?;
        loop {
            let (hash, password) = (check.hash().clone(), password.to_owned());
            let matches = self
                .hashing(move || {
                    let hash = std::str::from_utf8(&hash).unwrap_or_default();
                    // What is no hash matches nothing.
                    Ok(bcrypt::verify(password, hash).unwrap_or(false))
                })
                .await?;
            let mut random = [0; 16];
            getrandom::fill(&mut random).map_err(|error| Refusal::Other(error.to_string().into()))?;
            let (random, now) = (u128::from_ne_bytes(random), self.engine.shared.now());
            let outcome = lock(&self.engine.shared.auth).log_in(check, matches, random, now)?;
            match outcome {
                Login::Token(token) => return Ok(token),
                Login::CheckAgain(newer) => check = newer,
            }
        }
    }

    /// The hash of a new password, as Go's bcrypt writes it.
    async fn hash(&self, password: String) -> Result<String, Refusal> {
        if password.len() > LONGEST_PASSWORD {
            return Err(Refusal::Other("bcrypt: password length exceeds 72 bytes".into()));
        }
        let cost = self.engine.shared.options.bcrypt_cost;
        self.hashing(move || {
            let parts = bcrypt::hash_with_result(password, cost)
                .map_err(|error| Refusal::Other(error.to_string().into()))?;
            Ok(parts.format_for_version(bcrypt::Version::TwoA))
        })
        .await
    }

    async fn hashing<A: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<A, Refusal> + Send + 'static,
    ) -> Result<A, Refusal> {
        let permit = self.hashing.acquire().await;
        let outcome = self.engine.blocking(move |_| Ok(work()?)).await;
        drop(permit);
        outcome
    }
}
