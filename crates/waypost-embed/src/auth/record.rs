//! What is stored of users and roles: etcd's buckets, keys and messages.

use std::ops::ControlFlow;
use std::sync::Arc;

use prost::Message;
use waypost_proto::authpb;

use super::policy::Policy;
use crate::backend::{Backend, Bucket, WriteBatch};
use crate::mvcc::{Malformed, StoreError};

/// In bucket `auth`: one byte, 1 if auth is on.
const ENABLED: &[u8] = b"authEnabled";

/// In bucket `auth`: the revision, 8 bytes, big endian.
const REVISION: &[u8] = b"authRevision";

pub(super) fn put_enabled(batch: &mut WriteBatch, enabled: bool) {
    batch.put(Bucket::Auth, ENABLED, vec![u8::from(enabled)]);
}

pub(super) fn put_revision(batch: &mut WriteBatch, revision: u64) {
    batch.put(Bucket::Auth, REVISION, revision.to_be_bytes().to_vec());
}

pub(super) fn put_user(batch: &mut WriteBatch, user: &authpb::User) {
    batch.put(Bucket::AuthUsers, user.name.clone(), user.encode_to_vec());
}

pub(super) fn delete_user(batch: &mut WriteBatch, name: &str) {
    batch.delete(Bucket::AuthUsers, name.to_owned());
}

pub(super) fn put_role(batch: &mut WriteBatch, role: &authpb::Role) {
    batch.put(Bucket::AuthRoles, role.name.clone(), role.encode_to_vec());
}

pub(super) fn delete_role(batch: &mut WriteBatch, name: &str) {
    batch.delete(Bucket::AuthRoles, name.to_owned());
}

/// Reads everything. Into a store without a revision, the first one is written.
pub(super) fn load(backend: &dyn Backend, batch: &mut WriteBatch) -> Result<Policy, StoreError> {
    let mut policy = Policy::empty();
    policy.enabled = match backend.get(Bucket::Auth, ENABLED)?.as_deref() {
        None | Some([0]) => false,
        Some([1]) => true,
        Some(_) => return Err(Malformed::new(Bucket::Auth, ENABLED, "neither 0 nor 1").into()),
    };
    let revision = backend.get(Bucket::Auth, REVISION)?;
    match revision.as_deref().map(<[u8; 8]>::try_from) {
        Some(Ok(bytes)) if bytes != [0; 8] => policy.revision = u64::from_be_bytes(bytes),
        Some(Err(_)) => return Err(Malformed::new(Bucket::Auth, REVISION, "not 8 bytes").into()),
        _ => put_revision(batch, policy.revision),
    }
    for (name, role) in records::<authpb::Role>(backend, Bucket::AuthRoles, |role| &role.name)? {
        policy.roles.insert(name, Arc::new(role));
    }
    for (name, user) in records::<authpb::User>(backend, Bucket::AuthUsers, |user| &user.name)? {
        policy.set_user(&name, user);
    }
    Ok(policy)
}

/// All messages of a bucket, by name.
fn records<M: Message + Default>(
    backend: &dyn Backend,
    bucket: Bucket,
    name_of: impl Fn(&M) -> &[u8],
) -> Result<Vec<(String, M)>, StoreError> {
    let mut read = Ok(Vec::new());
    backend.scan(bucket, b"", b"", &mut |key, value| {
        let record = record(bucket, key, value, &name_of);
        match (&mut read, record) {
            (Ok(records), Ok(record)) => {
                records.push(record);
                ControlFlow::Continue(())
            }
            (read, Err(malformed)) => {
                *read = Err(malformed);
                ControlFlow::Break(())
            }
            (Err(_), Ok(_)) => ControlFlow::Break(()),
        }
    })?;
    Ok(read?)
}

fn record<M: Message + Default>(
    bucket: Bucket,
    key: &[u8],
    value: &[u8],
    name_of: impl Fn(&M) -> &[u8],
) -> Result<(String, M), Malformed> {
    let malformed = |reason: &str| Malformed::new(bucket, key, reason);
    let message = M::decode(value).map_err(|error| malformed(&error.to_string()))?;
    if name_of(&message) != key {
        return Err(malformed("the record has another name than its key"));
    }
    let name = std::str::from_utf8(key).map_err(|_| malformed("the name is not UTF-8"))?;
    Ok((name.to_owned(), message))
}
