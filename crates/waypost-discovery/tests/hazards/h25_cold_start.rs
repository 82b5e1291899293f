//! H25: a cold start while etcd is away.

use std::path::Path;

use waypost_discovery::{Discovery, DiscoveryOptions};
use waypost_etcd::Client;
use waypost_model::Existence;
use waypost_testkit::{Etcd, EtcdVersion, eventually, for_each_etcd};

use crate::support::{Follower, PATIENCE, cause, client, discovery, grpc, hosts, is_live, name, put};

fn cached(client: &Client, directory: &Path) -> Discovery {
    Discovery::new(client.clone(), DiscoveryOptions::new(grpc()).cache_dir(directory))
}

/// Waits until the only file of the directory has `text`.
async fn file_with(directory: &Path, text: &str) -> String {
    eventually("the disk cache is written", PATIENCE, async || {
        let file = std::fs::read_dir(directory).ok()?.find_map(|entry| {
            let path = entry.ok()?.path();
            (path.extension()? == "json").then_some(path)
        })?;
        std::fs::read_to_string(&file).ok()?.contains(text).then(|| file.display().to_string())
    })
    .await
}

for_each_etcd! {
    async fn h25_served_from_the_disk_cache(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let directory = tempfile::tempdir().unwrap();
        let writer = client(&etcd.url());
        put(&writer, "greeter", 1, 0).await;
        {
            let discovery = cached(&writer, directory.path());
            let mut follower = Follower::new(discovery.service(name("greeter")));
            follower.until_hosts(&[1]).await;
            file_with(directory.path(), "10.0.0.1:80").await;
            // Within the same second as the first write: written when the last subscription goes.
            put(&writer, "greeter", 2, 0).await;
            follower.until_hosts(&[1, 2]).await;
        }
        let file = file_with(directory.path(), "10.0.0.2:80").await;

        etcd.kill().await;
        let mut follower =
            Follower::new(cached(&client(&etcd.url()), directory.path()).service(name("greeter")));
        let ready = follower.subscription.ready().await;
        assert_eq!((hosts(&ready), ready.existence()), (vec![1, 2], Existence::Present));
        assert!(!is_live(&ready));
        assert!(cause(&ready).contains(&file), "{}", cause(&ready));

        etcd.restart().await;
        follower.until_hosts(&[1, 2]).await;
        put(&writer, "greeter", 3, 0).await;
        follower.until_hosts(&[1, 2, 3]).await;
    }

    async fn h25_without_a_cache_it_says_why_and_waits(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let writer = client(&etcd.url());
        put(&writer, "greeter", 1, 0).await;
        etcd.kill().await;
        let mut follower = Follower::new(discovery(&client(&etcd.url())).service(name("greeter")));
        let error = eventually("the error is told", PATIENCE, async || follower.subscription.last_error()).await;
        assert!(error.contains(&etcd.url()), "{error}");
        assert_eq!(follower.subscription.snapshot().existence(), Existence::Unknown);

        etcd.restart().await;
        follower.until_hosts(&[1]).await;
        assert_eq!(follower.subscription.last_error(), None);
    }

    async fn h25_a_damaged_cache_is_ignored(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let directory = tempfile::tempdir().unwrap();
        let writer = client(&etcd.url());
        put(&writer, "greeter", 1, 0).await;
        let mut follower = Follower::new(cached(&writer, directory.path()).service(name("greeter")));
        follower.until_hosts(&[1]).await;
        let file = file_with(directory.path(), "10.0.0.1:80").await;
        drop(follower);

        etcd.kill().await;
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        let mut follower =
            Follower::new(cached(&client(&etcd.url()), directory.path()).service(name("greeter")));
        eventually("the error is told", PATIENCE, async || follower.subscription.last_error()).await;
        assert_eq!(follower.subscription.snapshot().existence(), Existence::Unknown);
        etcd.restart().await;
        follower.until_hosts(&[1]).await;
        file_with(directory.path(), "10.0.0.1:80").await;
    }
}
