//! A file system that is full under the running server: no lie, no panic, and it goes on when there is space again.
//!
//! A small tmpfs is mounted where that is allowed. Where it is not, the server's own quota takes its place, and the test
//! says so; a full disk under the whole server is simulated in the tests of the crate itself in any case.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};
use waypost_embed::server::{Builder, Server};
use waypost_proto::etcdserverpb as pb;
use waypost_proto::etcdserverpb::alarm_request::AlarmAction;
use waypost_proto::etcdserverpb::kv_client::KvClient;
use waypost_proto::etcdserverpb::maintenance_client::MaintenanceClient;

/// Bytes that are left when the server has started.
const LEFT: u64 = 6 << 20;
/// Bytes of each value.
const VALUE: usize = 300_000;

/// What runs out of space.
enum Space {
    /// A file system of its own, in this folder.
    Tmpfs(TempDir),
    /// The quota of the server, in this folder.
    Quota(TempDir),
}

// === impl Space ===

impl Space {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        if mount(folder.path(), "size=512m") {
            Self::Tmpfs(folder)
        } else {
            say("a file system cannot be mounted here: the server's quota takes its place");
            Self::Quota(folder)
        }
    }

    fn data(&self) -> PathBuf {
        match self {
            Self::Tmpfs(folder) | Self::Quota(folder) => folder.path().join("data"),
        }
    }

    fn builder(&self) -> Builder {
        let builder = Server::builder().data_dir(self.data()).listen(["http://127.0.0.1:0"]);
        match self {
            Self::Tmpfs(_) => builder,
            Self::Quota(_) => builder.quota_backend_bytes(LEFT),
        }
    }

    /// Leaves little space beyond what is taken.
    fn shrink(&self) {
        if let Self::Tmpfs(folder) = self {
            let size = taken(&folder.path().join("data")) + LEFT;
            assert!(
                mount(folder.path(), &format!("remount,size={size}")),
                "the file system can be made smaller"
            );
        }
    }

    /// Makes space.
    async fn grow(&self, channel: &Channel) {
        match self {
            Self::Tmpfs(folder) => assert!(mount(folder.path(), "remount,size=512m")),
            Self::Quota(_) => {
                let mut kv = KvClient::new(channel.clone());
                let all = pb::DeleteRangeRequest { key: "1".into(), range_end: "2".into(), prev_kv: false };
                let revision = kv.delete_range(all).await.unwrap().into_inner().header.unwrap().revision;
                kv.compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
                let mut maintenance = MaintenanceClient::new(channel.clone());
                maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
            }
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if let Self::Tmpfs(folder) = self {
            // Lazily: the server may not have closed its files yet.
            let _ = Command::new("umount").arg("--lazy").arg(folder.path()).status();
        }
    }
}

#[expect(clippy::print_stderr, reason = "what was not tested has to be said")]
fn say(what: &str) {
    eprintln!("{what}");
}

/// Whether a tmpfs is mounted there now, with these options.
fn mount(folder: &Path, options: &str) -> bool {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).stderr(std::process::Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Bytes on disk of the files in a folder.
fn taken(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;

    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}

async fn channel(server: &Server) -> Channel {
    Channel::from_shared(server.listen_urls()[0].clone()).unwrap().connect().await.unwrap()
}

async fn put(channel: &Channel, key: &str, bytes: usize) -> Result<i64, Status> {
    let put =
        pb::PutRequest { key: key.to_owned().into(), value: vec![7; bytes].into(), ..Default::default() };
    let answer = KvClient::new(channel.clone()).put(put).await?;
    Ok(answer.into_inner().header.unwrap().revision)
}

async fn all(channel: &Channel) -> (i64, Vec<String>) {
    let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    let range = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..pb::RangeRequest::default() };
    let answer = kv.range(range).await.unwrap().into_inner();
    let keys = answer.kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect();
    (answer.header.unwrap().revision, keys)
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_space_and_somebody_says_so() {
    let space = Space::new();
    let server = space.builder().start().await.unwrap();
    let mut client = channel(&server).await;
    space.shrink();
    let mut acknowledged = Vec::new();
    let refused = loop {
        let key = format!("{:03}", 100 + acknowledged.len());
        match put(&client, &key, VALUE).await {
            Ok(_) => acknowledged.push(key),
            Err(status) => break status,
        }
        assert!(acknowledged.len() < 10_000, "the disk is never full");
    };
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
    );
    let before = all(&client).await;
    assert_eq!(before.1, acknowledged);
    // What would fit is refused as well, while the alarm is on; reading goes on.
    assert_eq!(put(&client, "small", 1).await.unwrap_err().code(), Code::ResourceExhausted);
    let mut maintenance = MaintenanceClient::new(client.clone());
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.errors.iter().any(|error| error.contains("NOSPACE")), "{:?}", status.errors);
    assert_eq!(all(&client).await, before);

    space.grow(&client).await;
    if matches!(space, Space::Tmpfs(_)) {
        assert_eq!(put(&client, "small", 1).await.unwrap_err().code(), Code::ResourceExhausted);
    }
    let disarm = pb::AlarmRequest {
        action: AlarmAction::Deactivate.into(),
        member_id: status.leader,
        alarm: pb::AlarmType::Nospace.into(),
    };
    assert_eq!(maintenance.alarm(disarm).await.unwrap().into_inner().alarms.len(), 1);
    put(&client, "small", 1).await.unwrap();
    let after = all(&client).await;
    assert_eq!(after.1.last().map(String::as_str), Some("small"));

    // What is found later is what was acknowledged.
    server.shutdown().await;
    let server = space.builder().start().await.unwrap();
    client = channel(&server).await;
    assert_eq!(all(&client).await, after);
    put(&client, "after", VALUE).await.unwrap();
    server.shutdown().await;
}
