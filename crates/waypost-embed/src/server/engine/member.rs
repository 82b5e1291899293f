//! Who the server is: ids that stay the same, and a term that grows with every start.

use std::ops::ControlFlow;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use waypost_proto::etcdserverpb;

use crate::backend::{Backend, Bucket, WriteBatch};
use crate::server::StartError;

/// The only member.
#[derive(Debug, Clone)]
pub(in crate::server) struct Member {
    pub(in crate::server) id: u64,
    pub(in crate::server) cluster: u64,
    pub(in crate::server) term: u64,
    pub(in crate::server) name: String,
    pub(in crate::server) client_urls: Vec<String>,
}

/// Where etcd would listen for other members; nobody does here.
pub(in crate::server) const PEER_URL: &str = "http://localhost:2380";

const TERM: &[u8] = b"term";
const INDEX: &[u8] = b"consistent_index";

// === impl Member ===

impl Member {
    /// Finds out who the server is, or makes it somebody; a restored store gets a new member. Gives the number of requests
    /// that were ever written, too.
    pub(in crate::server) fn load(
        backend: &dyn Backend,
        name: String,
        client_urls: Vec<String>,
        restored: bool,
    ) -> Result<(Self, u64), StartError> {
        let mut known = None;
        backend.scan(Bucket::Members, &[], &[], &mut |key, _| {
            known = std::str::from_utf8(key).ok().and_then(|key| u64::from_str_radix(key, 16).ok());
            if known.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let mut batch = WriteBatch::new();
        let id = match known {
            Some(id) if !restored => id,
            _ => {
                batch.delete_range(Bucket::Members, Vec::new(), Vec::new());
                batch.delete_range(Bucket::MembersRemoved, Vec::new(), Vec::new());
                random_u64()?.max(1)
            }
        };
        let term = read_u64(backend, TERM)?.map_or(2, |term| term.saturating_add(1)).max(2);
        let index = read_u64(backend, INDEX)?.unwrap_or(0).max(1);
        let member = Self { id, cluster: cluster_of(id), term, name, client_urls };
        batch.put(Bucket::Meta, TERM, term.to_be_bytes().to_vec());
        batch.put(Bucket::Meta, INDEX, index.to_be_bytes().to_vec());
        batch.put(Bucket::Meta, &b"storageVersion"[..], crate::server::STORAGE_VERSION.as_bytes());
        batch.put(Bucket::Cluster, &b"clusterVersion"[..], crate::server::STORAGE_VERSION.as_bytes());
        batch.put(Bucket::Members, format!("{id:x}").into_bytes(), member.record());
        backend.commit(batch)?;
        Ok((member, index))
    }

    /// As the list of members has it.
    pub(in crate::server) fn message(&self) -> etcdserverpb::Member {
        etcdserverpb::Member {
            id: self.id,
            name: self.name.clone(),
            peer_urls: vec![PEER_URL.to_owned()],
            client_urls: self.client_urls.clone(),
            is_learner: false,
        }
    }

    fn record(&self) -> Vec<u8> {
        json!({
            "id": self.id,
            "peerURLs": [PEER_URL],
            "name": self.name,
            "clientURLs": self.client_urls,
        })
        .to_string()
        .into_bytes()
    }
}

/// The id of the cluster that this member alone is.
fn cluster_of(member: u64) -> u64 {
    let hash = Sha256::digest(member.to_be_bytes());
    hash.first_chunk().map_or(1, |start| u64::from_be_bytes(*start)).max(1)
}

fn read_u64(backend: &dyn Backend, key: &[u8]) -> Result<Option<u64>, StartError> {
    let value = backend.get(Bucket::Meta, key)?;
    Ok(value.and_then(|value| Some(u64::from_be_bytes(value.as_ref().try_into().ok()?))))
}

fn random_u64() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::Random(error.to_string()))
}
