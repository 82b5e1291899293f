//! Users, roles and whether auth is on, at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use waypost_proto::authpb::{self, Permission, permission::Type};

use super::ROOT;
use super::rights::Rights;
use crate::error::Refusal;

/// Users and roles, and the rights that follow. A clone shares what does not change.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(super) enabled: bool,
    pub(super) revision: u64,
    pub(super) users: BTreeMap<String, Arc<User>>,
    pub(super) roles: BTreeMap<String, Arc<authpb::Role>>,
}

/// A user, and what it may do.
#[derive(Debug)]
pub(super) struct User {
    pub(super) record: authpb::User,
    /// Has role `root`: may do everything.
    pub(super) root: bool,
    pub(super) rights: Rights,
}

// === impl Policy ===

impl Policy {
    /// Auth off, and nobody there.
    pub(super) fn empty() -> Self {
        Self { enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }

    /// Whether auth is on.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The revision of the auth store: 1 at first, one more with each change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Names of all users, sorted.
    pub fn users(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    /// Names of all roles, sorted.
    pub fn roles(&self) -> Vec<String> {
        self.roles.keys().cloned().collect()
    }

    /// The roles of a user, sorted.
    pub fn roles_of(&self, user: &str) -> Result<Vec<String>, Refusal> {
        Ok(self.user(user)?.record.roles.clone())
    }

    /// The permissions of a role, sorted by key; of role `root`, everything.
    pub fn permissions_of(&self, role: &str) -> Result<Vec<Permission>, Refusal> {
        let role = self.role(role)?;
        if role.name == ROOT {
            let range_end = Bytes::from_static(b"\0");
            return Ok(vec![Permission { perm_type: Type::Readwrite.into(), key: Bytes::new(), range_end }]);
        }
        Ok(role.key_permission.clone())
    }

    pub(super) fn user(&self, name: &str) -> Result<&Arc<User>, Refusal> {
        self.users.get(name).ok_or(Refusal::UserNotFound)
    }

    pub(super) fn role(&self, name: &str) -> Result<&Arc<authpb::Role>, Refusal> {
        self.roles.get(name).ok_or(Refusal::RoleNotFound)
    }

    /// Puts a user in its place, with the rights that its roles give now.
    pub(super) fn set_user(&mut self, name: &str, record: authpb::User) {
        let user = self.with_rights(record);
        self.users.insert(name.to_owned(), Arc::new(user));
    }

    /// Puts a role in its place, and renews the rights of all who have it.
    pub(super) fn set_role(&mut self, name: &str, record: authpb::Role) {
        self.roles.insert(name.to_owned(), Arc::new(record));
        for holder in self.holders(name) {
            if let Some(user) = self.users.get(&holder) {
                let record = user.record.clone();
                self.set_user(&holder, record);
            }
        }
    }

    /// Names of the users who have a role.
    pub(super) fn holders(&self, role: &str) -> Vec<String> {
        let holds = |user: &User| user.record.roles.iter().any(|held| held == role);
        self.users.iter().filter(|(_, user)| holds(user)).map(|(name, _)| name.clone()).collect()
    }

    fn with_rights(&self, record: authpb::User) -> User {
        let roles = record.roles.iter().filter_map(|role| self.roles.get(role));
        let rights = Rights::of(roles.flat_map(|role| &role.key_permission));
        let root = record.roles.iter().any(|role| role == ROOT);
        User { record, root, rights }
    }
}

// === impl User ===

impl User {
    pub(super) fn has_password(&self) -> bool {
        !self.record.options.is_some_and(|options| options.no_password)
    }
}
