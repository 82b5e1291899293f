//! What a Rust program does with etcd through the crate `etcd-client`: `waypost-interop URL`.
//!
//! Each part says `ok NAME`. For the part that needs the server to go away and come back it says `restart`, and waits.
#![forbid(unsafe_code)]

use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, Compare, CompareOp, ConnectOptions, DeleteOptions,
    Error, EventType, GetOptions, KvClientPrefix, LeaseGrantOptions, LeaseTimeToLiveOptions, LockOptions,
    Permission, ProclaimOptions, PutOptions, ResignOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse,
    WatchFilterType, WatchOptions, WatchStream,
};

type Outcome = Result<(), Error>;

/// No part takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let url = std::env::args().nth(1).expect("usage: waypost-interop URL");
    let client = Client::connect([&url], None).await?;
    // A part that hangs or fails ends the program.
    macro_rules! parts {
        ($($part:ident),*) => {$(
            tokio::time::timeout(PATIENCE, $part(client.clone(), &url)).await.expect(stringify!($part))?;
            println!("ok {}", stringify!($part));
        )*};
    }
    parts!(
        kv,
        transactions,
        watches,
        leases,
        locks,
        elections,
        namespaces,
        maintenance,
        reconnect,
        compaction,
        users
    );
    println!("done");
    Ok(())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// The message of what must have been refused.
fn refused<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("not refused"),
        Err(Error::GRpcStatus(status)) => status.message().to_owned(),
        Err(other) => panic!("{other}"),
    }
}

async fn kv(mut client: Client, _: &str) -> Outcome {
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        client.put(format!("r/kv/{key}"), value, None).await?;
    }
    let put = client.put("r/kv/a", "4", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(put.prev_key().expect("a previous value").value(), b"1");
    let revision = put.header().expect("a header").revision();
    let keys = async |client: &mut Client, options: GetOptions| -> Result<Vec<String>, Error> {
        let got = client.get("r/kv/", Some(options)).await?;
        Ok(got.kvs().iter().map(|kv| format!("{}={}", text(kv.key()), text(kv.value()))).collect())
    };
    let all = || GetOptions::new().with_prefix();
    assert_eq!(keys(&mut client, all()).await?, ["r/kv/a=4", "r/kv/b=2", "r/kv/c=3"]);
    assert_eq!(
        keys(&mut client, all().with_revision(revision - 1)).await?,
        ["r/kv/a=1", "r/kv/b=2", "r/kv/c=3"]
    );
    let newest = all().with_sort(SortTarget::Mod, SortOrder::Descend).with_limit(2);
    assert_eq!(keys(&mut client, newest).await?, ["r/kv/a=4", "r/kv/c=3"]);
    assert_eq!(keys(&mut client, all().with_min_mod_revision(revision).with_keys_only()).await?, ["r/kv/a="]);
    assert_eq!(
        keys(&mut client, GetOptions::new().with_range("r/kv/b").with_serializable()).await?,
        ["r/kv/a=4"]
    );
    let counted = client.get("r/kv/", Some(all().with_count_only())).await?;
    assert_eq!((counted.count(), counted.kvs().len()), (3, 0));
    let kept = client.put("r/kv/a", "", Some(PutOptions::new().with_ignore_value())).await?;
    assert!(kept.prev_key().is_none());
    let deleted = client.delete("r/kv/", Some(DeleteOptions::new().with_prefix().with_prev_key())).await?;
    assert_eq!(deleted.deleted(), 3);
    assert_eq!(deleted.prev_kvs()[0].version(), 3);
    assert_eq!(refused(client.put("", "", None).await), "etcdserver: key is not provided");
    let long = vec![0; 1600 * 1024];
    assert_eq!(refused(client.put("r/long", long, None).await), "etcdserver: request is too large");
    Ok(())
}

async fn transactions(mut client: Client, _: &str) -> Outcome {
    let create = || {
        Txn::new()
            .when([Compare::create_revision("r/txn", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("r/txn", "mine", None)])
            .or_else([TxnOp::get("r/txn", None)])
    };
    assert!(client.txn(create()).await?.succeeded());
    let again = client.txn(create()).await?;
    assert!(!again.succeeded());
    let responses = again.op_responses();
    let [TxnOpResponse::Get(got)] = &responses[..] else { panic!("{again:?}") };
    assert_eq!(got.kvs()[0].value(), b"mine");
    let inner = Txn::new()
        .when([Compare::lease("r/txn", CompareOp::NotEqual, 0)])
        .or_else([TxnOp::delete("r/txn", None), TxnOp::put("r/other", "1", None)]);
    let compares = [
        Compare::value("r/txn", CompareOp::Equal, "mine"),
        Compare::version("r/", CompareOp::Greater, 0).with_prefix(),
    ];
    let outer = client.txn(Txn::new().when(compares).and_then([TxnOp::txn(inner)])).await?;
    let responses = outer.op_responses();
    let [TxnOpResponse::Txn(inner)] = &responses[..] else { panic!("{outer:?}") };
    assert!(!inner.succeeded());
    let twice = Txn::new().and_then([TxnOp::put("r/t", "1", None), TxnOp::put("r/t", "2", None)]);
    assert_eq!(refused(client.txn(twice).await), "etcdserver: duplicate key given in txn request");
    Ok(())
}

/// The next `count` events as `type key=value`.
async fn follow(stream: &mut WatchStream, count: usize) -> Result<Vec<String>, Error> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let answer = stream.message().await?.expect("the watch goes on");
        for event in answer.events() {
            let kv = event.kv().expect("an event has a key");
            let kind = if event.event_type() == EventType::Put { "put" } else { "delete" };
            seen.push(format!("{kind} {}={}", text(kv.key()), text(kv.value())));
        }
    }
    Ok(seen)
}

async fn watches(mut client: Client, _: &str) -> Outcome {
    let put = client.put("r/watch/a", "1", None).await?;
    let revision = put.header().expect("a header").revision();
    let past = WatchOptions::new().with_prefix().with_start_revision(revision).with_watch_id(7);
    let mut stream = client.watch("r/watch/", Some(past)).await?;
    let deletions = WatchOptions::new().with_prefix().with_filters([WatchFilterType::NoPut]).with_prev_key();
    let mut deleted = client.watch("r/watch/", Some(deletions)).await?;
    client.put("r/watch/b", "2", None).await?;
    client.delete("r/watch/a", None).await?;
    let expected = ["put r/watch/a=1", "put r/watch/b=2", "delete r/watch/a="];
    assert_eq!(follow(&mut stream, 3).await?, expected);
    assert_eq!(follow(&mut deleted, 1).await?, ["delete r/watch/a="]);
    stream.request_progress().await?;
    let progress = stream.message().await?.expect("progress");
    assert!(progress.events().is_empty());
    assert_eq!(progress.header().expect("a header").revision(), revision + 2);
    // A second watch on the same stream, and the end of each.
    stream.watch("r/other", Some(WatchOptions::new().with_watch_id(8))).await?;
    let created = stream.message().await?.expect("created");
    assert!(created.created() && created.watch_id() == 8, "{created:?}");
    stream.cancel(7).await?;
    let cancelled = stream.message().await?.expect("cancelled");
    assert!(cancelled.canceled() && cancelled.watch_id() == 7, "{cancelled:?}");
    Ok(())
}

async fn leases(mut client: Client, _: &str) -> Outcome {
    let lease = client.lease_grant(3, Some(LeaseGrantOptions::new().with_id(4712))).await?;
    assert_eq!((lease.id(), lease.ttl()), (4712, 3));
    client.put("r/leased", "x", Some(PutOptions::new().with_lease(4712))).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(4712).await?;
    for _ in 0..3 {
        keeper.keep_alive().await?;
        assert_eq!(answers.message().await?.expect("kept").ttl(), 3);
    }
    let left = client.lease_time_to_live(4712, Some(LeaseTimeToLiveOptions::new().with_keys())).await?;
    assert_eq!((left.granted_ttl(), left.keys()), (3, &[b"r/leased".to_vec()][..]));
    assert!(client.leases().await?.leases().iter().any(|lease| lease.id() == 4712));
    client.lease_revoke(4712).await?;
    assert_eq!(client.get("r/leased", None).await?.count(), 0);
    keeper.keep_alive().await?;
    assert_eq!(answers.message().await?.expect("an answer").ttl(), 0);
    assert_eq!(client.lease_time_to_live(4712, None).await?.ttl(), -1);
    assert_eq!(refused(client.lease_revoke(4712).await), "etcdserver: requested lease not found");
    // One that nobody keeps alive.
    let lease = client.lease_grant(1, None).await?.id();
    client.put("r/short", "x", Some(PutOptions::new().with_lease(lease))).await?;
    let mut gone =
        client.watch("r/short", Some(WatchOptions::new().with_filters([WatchFilterType::NoPut]))).await?;
    if client.get("r/short", None).await?.count() > 0 {
        assert_eq!(follow(&mut gone, 1).await?, ["delete r/short="]);
    }
    Ok(())
}

async fn locks(mut client: Client, _: &str) -> Outcome {
    let lease = client.lease_grant(60, None).await?.id();
    let held = client.lock("r/lock", Some(LockOptions::new().with_lease(lease))).await?;
    assert!(text(held.key()).starts_with("r/lock/"));
    let mut waiting = client.clone();
    let mut waiter = tokio::spawn(async move { waiting.lock("r/lock", None).await });
    assert!(
        tokio::time::timeout(Duration::from_millis(200), &mut waiter).await.is_err(),
        "a lock that two have"
    );
    client.unlock(held.key()).await?;
    let second = waiter.await.expect("no panic")?;
    client.unlock(second.key()).await?;
    client.lease_revoke(lease).await?;
    Ok(())
}

async fn elections(mut client: Client, _: &str) -> Outcome {
    let lease = client.lease_grant(60, None).await?.id();
    let campaign = client.campaign("r/chief", "one", lease).await?;
    let leader = campaign.leader().expect("a leader").clone();
    // etcd sends the answer's headers, for which this client waits, when there is a leader.
    let mut observed = client.observe("r/chief").await?;
    let first = observed.message().await?.expect("a leader");
    assert_eq!(first.kv().expect("a key").value(), b"one");
    client.proclaim("uno", Some(ProclaimOptions::new().with_leader(leader.clone()))).await?;
    assert_eq!(observed.message().await?.expect("a leader").kv().expect("a key").value(), b"uno");
    assert_eq!(client.leader("r/chief").await?.kv().expect("a key").value(), b"uno");
    client.resign(Some(ResignOptions::new().with_leader(leader))).await?;
    assert_eq!(refused(client.leader("r/chief").await), "election: no leader");
    client.lease_revoke(lease).await?;
    Ok(())
}

async fn namespaces(mut client: Client, _: &str) -> Outcome {
    let mut inside = KvClientPrefix::new(client.kv_client(), "r/space/".into());
    inside.put("key", "inside", None).await?;
    assert_eq!(client.get("r/space/key", None).await?.kvs()[0].value(), b"inside");
    assert_eq!(inside.get("key", None).await?.kvs()[0].key(), b"key");
    Ok(())
}

async fn maintenance(mut client: Client, url: &str) -> Outcome {
    let members = client.member_list().await?;
    assert_eq!(members.members().len(), 1);
    assert_eq!(members.members()[0].client_urls(), [url]);
    let status = client.status().await?;
    assert!(status.version().starts_with("3."), "{status:?}");
    assert!(status.db_size() > 0 && status.leader() == members.members()[0].id() && status.raft_term() > 0);
    assert!(client.alarm(AlarmAction::Get, AlarmType::None, None).await?.alarms().is_empty());
    let before = client.hash_kv(0).await?.hash();
    client.defragment().await?;
    assert_eq!(client.hash_kv(0).await?.hash(), before);
    client.hash().await?;
    let mut snapshot = client.snapshot().await?;
    let mut bytes = 0;
    while let Some(part) = snapshot.message().await? {
        bytes += part.blob().len();
    }
    // Whole pages, and a checksum.
    assert_eq!(bytes % 512, 32);
    assert_eq!(refused(client.member_remove(7).await), "etcdserver: member not found");
    Ok(())
}

async fn reconnect(mut client: Client, _: &str) -> Outcome {
    let put = client.put("r/reconnect", "before", None).await?;
    let revision = put.header().expect("a header").revision();
    let mut watch = client.watch("r/reconnect", None).await?;
    println!("restart r/reconnect");
    // This client does not resume: the stream ends with an error, and the program watches again.
    while let Ok(Some(_)) = watch.message().await {}
    let options = || WatchOptions::new().with_start_revision(revision + 1);
    let mut watch = loop {
        match client.watch("r/reconnect", Some(options())).await {
            Ok(watch) => break watch,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(follow(&mut watch, 1).await?, ["put r/reconnect=back"]);
    Ok(())
}

async fn compaction(mut client: Client, _: &str) -> Outcome {
    let old = client.put("r/old", "1", None).await?.header().expect("a header").revision();
    let now = client.put("r/old", "2", None).await?.header().expect("a header").revision();
    client.compact(now, Some(CompactionOptions::new().with_physical())).await?;
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(refused(client.get("r/old", Some(GetOptions::new().with_revision(old))).await), compacted);
    assert_eq!(refused(client.compact(now, None).await), compacted);
    let mut watch = client.watch("r/old", Some(WatchOptions::new().with_start_revision(old))).await?;
    let cancelled = loop {
        let answer = watch.message().await?.expect("an answer");
        if answer.canceled() {
            break answer;
        }
    };
    assert_eq!(cancelled.compact_revision(), now, "{cancelled:?}");
    Ok(())
}

async fn users(mut client: Client, url: &str) -> Outcome {
    client.role_add("reader").await?;
    client.role_grant_permission("reader", Permission::read("r/open/").with_prefix()).await?;
    client.role_grant_permission("reader", Permission::write("r/one")).await?;
    assert_eq!(client.role_get("reader").await?.permissions().len(), 2);
    client.role_revoke_permission("reader", "r/one", None).await?;
    client.user_add("root", "secret", None).await?;
    client.user_grant_role("root", "root").await?;
    client.user_add("ann", "pass", None).await?;
    client.user_grant_role("ann", "reader").await?;
    client.put("r/open/a", "1", None).await?;
    client.auth_enable().await?;
    assert_eq!(refused(client.get("r/open/a", None).await), "etcdserver: user name is empty");
    let login = async |name: &str, password: &str| {
        Client::connect([url], Some(ConnectOptions::new().with_user(name, password))).await
    };
    let mut ann = login("ann", "pass").await?;
    assert_eq!(ann.get("r/open/", Some(GetOptions::new().with_prefix())).await?.kvs()[0].value(), b"1");
    for result in [ann.put("r/open/a", "2", None).await.map(drop), ann.get("r/shut", None).await.map(drop)] {
        assert_eq!(refused(result), "etcdserver: permission denied");
    }
    let wrong = login("ann", "wrong").await;
    assert_eq!(refused(wrong), "etcdserver: authentication failed, invalid user ID or password");
    let mut root = login("root", "secret").await?;
    assert_eq!(root.user_list().await?.users(), ["ann", "root"]);
    assert_eq!(root.user_get("ann").await?.roles(), ["reader"]);
    root.user_change_password("ann", "other").await?;
    root.user_revoke_role("ann", "reader").await?;
    root.role_delete("reader").await?;
    root.user_delete("ann").await?;
    assert!(root.role_list().await?.roles().is_empty());
    root.auth_disable().await?;
    client.get("r/open/a", None).await?;
    Ok(())
}
