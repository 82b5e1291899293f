//! Changes of users and roles. Each is checked first; one that is refused changes nothing and writes nothing.

use std::sync::Arc;

use bytes::Bytes;
use waypost_proto::authpb::{self, Permission};

use super::policy::Policy;
use super::rights::is_grantable;
use super::store::{Auth, Ending};
use super::{ROOT, Secret, record};
use crate::backend::WriteBatch;
use crate::bolt::MAX_KEY;
use crate::error::Refusal;

// === impl Auth ===

impl Auth {
    /// Turns auth on. Needs a user `root` with role `root`; the role itself need not exist. The revision stays. No error
    /// if it is on.
    pub fn enable(&mut self, batch: &mut WriteBatch) -> Result<(), Refusal> {
        if self.pending.enabled {
            return Ok(());
        }
        let Ok(root) = self.pending.user(ROOT) else { return Err(Refusal::RootUserNotExist) };
        if !root.root {
            return Err(Refusal::RootRoleNotExist);
        }
        self.edit().enabled = true;
        record::put_enabled(batch, true);
        Ok(())
    }

    /// Turns auth off, and ends all tokens. No error if it is off.
    pub fn disable(&mut self, batch: &mut WriteBatch) {
        if !self.pending.enabled {
            return;
        }
        self.edit().enabled = false;
        self.endings.push(Ending::Everyone);
        record::put_enabled(batch, false);
        self.bump(batch);
    }

    /// Adds a user without roles.
    pub fn user_add(&mut self, batch: &mut WriteBatch, name: &str, secret: Secret) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        check_length(name)?;
        if self.pending.users.contains_key(name) {
            return Err(Refusal::UserExists);
        }
        let no_password = secret == Secret::NoPassword;
        let password = match secret {
            Secret::Hash(hash) => hash,
            Secret::NoPassword => Bytes::new(),
        };
        let user = authpb::User {
            name: Bytes::copy_from_slice(name.as_bytes()),
            password,
            roles: Vec::new(),
            options: Some(authpb::UserAddOptions { no_password }),
        };
        self.put_user(batch, name, user);
        self.bump(batch);
        Ok(())
    }

    /// Deletes a user, and ends its tokens. While auth is on, `root` stays.
    pub fn user_delete(&mut self, batch: &mut WriteBatch, name: &str) -> Result<(), Refusal> {
        if self.pending.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.pending.user(name)?;
        self.edit().users.remove(name);
        self.endings.push(Ending::User(name.to_owned()));
        record::delete_user(batch, name);
        self.bump(batch);
        Ok(())
    }

    /// Changes a user's password to the one with this bcrypt hash, and ends the user's tokens. A user without a password
    /// stays one.
    pub fn user_change_password(
        &mut self,
        batch: &mut WriteBatch,
        name: &str,
        hash: Bytes,
    ) -> Result<(), Refusal> {
        let user = self.pending.user(name)?;
        let password = if user.has_password() { hash } else { Bytes::new() };
        let user = authpb::User { password, ..user.record.clone() };
        self.put_user(batch, name, user);
        self.endings.push(Ending::User(name.to_owned()));
        self.bump(batch);
        Ok(())
    }

    /// Gives a role to a user. The role must exist, except `root`. No error if the user has it; the revision stays then.
    pub fn user_grant_role(&mut self, batch: &mut WriteBatch, name: &str, role: &str) -> Result<(), Refusal> {
        let user = self.pending.user(name)?;
        if role != ROOT {
            self.pending.role(role)?;
        }
        if user.record.roles.iter().any(|held| held == role) {
            return Ok(());
        }
        let mut user = user.record.clone();
        user.roles.push(role.to_owned());
        user.roles.sort();
        self.put_user(batch, name, user);
        self.bump(batch);
        Ok(())
    }

    /// Takes a role from a user. While auth is on, `root` keeps role `root`.
    pub fn user_revoke_role(
        &mut self,
        batch: &mut WriteBatch,
        name: &str,
        role: &str,
    ) -> Result<(), Refusal> {
        if self.pending.enabled && name == ROOT && role == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        let mut user = self.pending.user(name)?.record.clone();
        let before = user.roles.len();
        user.roles.retain(|held| held != role);
        if user.roles.len() == before {
            return Err(Refusal::RoleNotGranted);
        }
        self.put_user(batch, name, user);
        self.bump(batch);
        Ok(())
    }

    /// Adds a role without permissions.
    pub fn role_add(&mut self, batch: &mut WriteBatch, name: &str) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::RoleEmpty);
        }
        check_length(name)?;
        if self.pending.roles.contains_key(name) {
            return Err(Refusal::RoleExists);
        }
        let role = authpb::Role { name: Bytes::copy_from_slice(name.as_bytes()), key_permission: Vec::new() };
        self.put_role(batch, name, role);
        self.bump(batch);
        Ok(())
    }

    /// Deletes a role, and takes it from everyone. While auth is on, `root` stays.
    pub fn role_delete(&mut self, batch: &mut WriteBatch, name: &str) -> Result<(), Refusal> {
        if self.pending.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.pending.role(name)?;
        self.edit().roles.remove(name);
        record::delete_role(batch, name);
        for holder in self.pending.holders(name) {
            let mut user = self.pending.user(&holder)?.record.clone();
            user.roles.retain(|held| held != name);
            self.put_user(batch, &holder, user);
        }
        self.bump(batch);
        Ok(())
    }

    /// Gives a permission to a role. One for the same key and end is replaced.
    pub fn role_grant_permission(
        &mut self,
        batch: &mut WriteBatch,
        name: &str,
        permission: Option<Permission>,
    ) -> Result<(), Refusal> {
        let permission = permission.ok_or(Refusal::PermissionNotGiven)?;
        if !is_grantable(&permission.key, &permission.range_end) {
            return Err(Refusal::InvalidAuthManagement);
        }
        let mut role = authpb::Role::clone(self.pending.role(name)?);
        let same =
            |held: &&mut Permission| held.key == permission.key && held.range_end == permission.range_end;
        if let Some(held) = role.key_permission.iter_mut().find(same) {
            held.perm_type = permission.perm_type;
        } else {
            let place = role.key_permission.partition_point(|held| held.key <= permission.key);
            role.key_permission.insert(place, permission);
        }
        self.put_role(batch, name, role);
        self.bump(batch);
        Ok(())
    }

    /// Takes a permission from a role; key and end must be those that it was granted with.
    pub fn role_revoke_permission(
        &mut self,
        batch: &mut WriteBatch,
        name: &str,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), Refusal> {
        let mut role = authpb::Role::clone(self.pending.role(name)?);
        let before = role.key_permission.len();
        role.key_permission.retain(|held| held.key != key || held.range_end != range_end);
        if role.key_permission.len() == before {
            return Err(Refusal::PermissionNotGranted);
        }
        self.put_role(batch, name, role);
        self.bump(batch);
        Ok(())
    }

    /// The pending policy, cloned if it is still the committed one.
    fn edit(&mut self) -> &mut Policy {
        Arc::make_mut(&mut self.pending)
    }

    fn put_user(&mut self, batch: &mut WriteBatch, name: &str, user: authpb::User) {
        record::put_user(batch, &user);
        self.edit().set_user(name, user);
    }

    fn put_role(&mut self, batch: &mut WriteBatch, name: &str, role: authpb::Role) {
        record::put_role(batch, &role);
        self.edit().set_role(name, role);
    }

    fn bump(&mut self, batch: &mut WriteBatch) {
        let policy = self.edit();
        policy.revision += 1;
        record::put_revision(batch, policy.revision);
    }
}

/// Refuses a name that a snapshot could not carry: names are keys there. etcd does not look, and stops for good.
fn check_length(name: &str) -> Result<(), Refusal> {
    if name.len() > MAX_KEY { Err(Refusal::RequestTooLarge) } else { Ok(()) }
}
