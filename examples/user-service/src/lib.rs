//! The user service: what it offers, how a client finds it, and how a server leaves. By tarpc, which knows nothing of Waypost.
//!
//! The servers are registered in the layout `addr-key`: `/myrpc/services/UserService/127.0.0.1:8080` → `127.0.0.1:8080`.
#![forbid(unsafe_code)]

mod client;
mod server;

pub use client::{FindError, Users};
pub use server::serve;

/// The name that the servers are registered under.
pub const SERVICE: &str = "UserService";
/// How they are written in etcd.
pub const LAYOUT: &str = "addr-key";

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct User {
    /// Who it is.
    pub id: u64,
    /// What they are called.
    pub name: String,
    /// The address of the server that has answered.
    pub server: String,
}

/// What a server can be asked.
#[tarpc::service]
pub trait UserService {
    /// The user with this id. May be asked twice.
    async fn find(id: u64) -> User;
}
