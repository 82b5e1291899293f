//! Snapshots: of etcd into this server, and of this server into etcd.

use std::path::Path;

use waypost_embed::server::{RestoreError, Server, StartError};
use waypost_etcd::{Client, ClientOptions, Put, Range};
use waypost_testkit::{Etcd, EtcdVersion, for_each_real_etcd};

use crate::support::Fixture;

for_each_real_etcd! {
    async fn a_snapshot_of_etcd_is_restored(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
            etcdctl_put(&etcd, key, value).await;
        }
        etcd.etcdctl(["user", "add", "ann:pass"]).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("snapshot.db");
        etcd.snapshot_to(&file).await;

        let server = restored(folder.path(), &file).await.unwrap();
        let client = Client::new(ClientOptions::new([server.urls()[0].clone()])).unwrap();
        let read = client.range(Range::prefix("")).await.unwrap();
        let values: Vec<_> = read.kvs.iter().map(|kv| (&kv.key[..], &kv.value[..], kv.version)).collect();
        assert_eq!(values, [(&b"a"[..], &b"3"[..], 2), (&b"b"[..], &b"2"[..], 1)]);
        assert_eq!(read.header.unwrap().revision, 4);
        assert_eq!(client.range(Range::key("a").revision(2)).await.unwrap().kvs[0].value, "1");
        let put = client.put(Put::new("c", "4")).await.unwrap();
        assert_eq!(put.header.unwrap().revision, 5);
        drop(client);
        server.shutdown().await;

        let again = restored(folder.path(), &file).await;
        assert!(
            matches!(again, Err(StartError::Restore { source: RestoreError::NotEmpty(_), .. })),
            "{again:?}"
        );
    }

    async fn etcd_restores_a_snapshot_of_this_server(version: EtcdVersion) {
        let fixture = Fixture::start().await;
        let client = fixture.client();
        client.put(Put::new("a", "1")).await.unwrap();
        client.put(Put::new("a", "2")).await.unwrap();
        let mut etcd = Etcd::start(version).await;
        let file = fixture.folder.path().join("snapshot.db");
        let saved = etcd.try_etcdctl_at(fixture.url(), ["snapshot", "save", &file.display().to_string()]).await;
        saved.unwrap();
        etcd.restore_from(&file).await;
        assert_eq!(etcd.etcdctl(["get", "a", "--print-value-only"]).await.trim(), "2");
        assert_eq!(etcd.etcdctl(["get", "a", "--rev=2", "--print-value-only"]).await.trim(), "1");
    }
}

async fn etcdctl_put(etcd: &Etcd, key: &str, value: &str) {
    etcd.etcdctl(["put", key, value]).await;
}

async fn restored(folder: &Path, snapshot: &Path) -> Result<Server, StartError> {
    let builder = Server::builder().data_dir(folder.join("data")).listen(["http://127.0.0.1:0"]);
    builder.restore(snapshot).start().await
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot.db");
    for (content, damaged) in [(vec![0; 4096], false), (vec![1; 4096 + 32], true), (Vec::new(), false)] {
        std::fs::write(&file, content).unwrap();
        let refused = restored(folder.path(), &file).await;
        let Err(StartError::Restore { source, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(matches!(source, RestoreError::Damaged), damaged, "{source:?}");
        assert!(!folder.path().join("data").exists(), "nothing half restored");
    }
}
