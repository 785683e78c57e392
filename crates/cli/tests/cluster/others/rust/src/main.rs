//! The Rust crate `etcd-client` against the member at HOST:PORT. Ends with an error where an answer is
//! wrong.

use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error,
    EventType, GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions, LockOptions,
    MemberAddOptions, ProclaimOptions, PutOptions, ResignOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse, WatchFilterType, WatchOptions, WatchResponse, WatchStream,
};

type Done = Result<(), Error>;

#[tokio::main]
async fn main() -> Done {
    let endpoint = std::env::args().nth(1).expect("HOST:PORT");
    let mut client = Client::connect([endpoint], None).await?;
    tokio::time::timeout(Duration::from_secs(60), async {
        keys(&mut client).await?;
        transactions(&mut client).await?;
        watches(&mut client).await?;
        leases(&mut client).await?;
        locks(&mut client).await?;
        elections(&mut client).await?;
        members(&mut client).await?;
        maintenance(&mut client).await
    })
    .await
    .expect("everything is answered")?;
    println!("ok");
    Ok(())
}

async fn keys(client: &mut Client) -> Done {
    client.put("rust/a", "1", None).await?;
    let before = client.put("rust/a", "2", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(before.prev_key().unwrap().value(), b"1");
    for (key, value) in [("rust/b", "x"), ("rust/c", ""), ("rust/d", "w")] {
        client.put(key, value, None).await?;
    }
    let found = client.get("rust/a", None).await?;
    assert_eq!((found.count(), found.more()), (1, false));
    let pair = &found.kvs()[0];
    assert_eq!((pair.key_str()?, pair.value_str()?, pair.version()), ("rust/a", "2", 2));

    let prefix = || GetOptions::new().with_prefix();
    let names = |found: &etcd_client::GetResponse| -> Vec<String> {
        found.kvs().iter().map(|kv| kv.key_str().unwrap().to_owned()).collect()
    };
    for (options, want, count) in [
        (prefix(), &["rust/a", "rust/b", "rust/c", "rust/d"][..], 4),
        (prefix().with_limit(2), &["rust/a", "rust/b"], 4),
        (
            prefix().with_sort(SortTarget::Key, SortOrder::Descend).with_limit(2),
            &["rust/d", "rust/c"],
            4,
        ),
        (
            prefix().with_sort(SortTarget::Value, SortOrder::Ascend),
            &["rust/c", "rust/a", "rust/d", "rust/b"],
            4,
        ),
        (GetOptions::new().with_range("rust/c"), &["rust/a", "rust/b"], 2),
        (prefix().with_serializable().with_keys_only().with_limit(1), &["rust/a"], 4),
        (prefix().with_count_only(), &[], 4),
    ] {
        let found = client.get("rust/", Some(options.clone())).await?;
        assert_eq!(names(&found), want, "{options:?}");
        assert_eq!(found.count(), count, "{options:?}");
    }
    let old = GetOptions::new().with_revision(before.header().unwrap().revision() - 1);
    assert_eq!(client.get("rust/a", Some(old)).await?.kvs()[0].value(), b"1");

    let options = DeleteOptions::new().with_prefix().with_prev_key();
    let deleted = client.delete("rust/", Some(options)).await?;
    assert_eq!((deleted.deleted(), deleted.prev_kvs().len()), (4, 4));

    let revision = deleted.header().unwrap().revision();
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await?;
    let gone = client.get("rust/a", Some(GetOptions::new().with_revision(revision - 1))).await;
    refused(gone, 11, "etcdserver: mvcc: required revision has been compacted");
    refused(client.put("", "", None).await, 3, "etcdserver: key is not provided");
    Ok(())
}

async fn transactions(client: &mut Client) -> Done {
    client.put("rust/t", "old", None).await?;
    let txn = |want: &str| {
        let inner = Txn::new()
            .when([Compare::version("rust/none", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("rust/inner", "yes", None)]);
        Txn::new()
            .when([
                Compare::value("rust/t", CompareOp::Equal, want),
                Compare::create_revision("rust/t", CompareOp::Greater, 0),
            ])
            .and_then([
                TxnOp::put("rust/t", "new", Some(PutOptions::new().with_prev_key())),
                TxnOp::get("rust/t", None),
                TxnOp::txn(inner),
            ])
            .or_else([TxnOp::delete("rust/t", None)])
    };
    let done = client.txn(txn("old")).await?;
    assert!(done.succeeded());
    match &done.op_responses()[..] {
        [TxnOpResponse::Put(put), TxnOpResponse::Get(get), TxnOpResponse::Txn(inner)] => {
            assert_eq!(put.prev_key().unwrap().value(), b"old");
            assert_eq!(get.kvs()[0].value(), b"new");
            assert!(inner.succeeded());
        }
        other => panic!("{other:?}"),
    }
    let done = client.txn(txn("old")).await?;
    assert!(!done.succeeded());
    assert!(
        matches!(&done.op_responses()[..], [TxnOpResponse::Delete(gone)] if gone.deleted() == 1)
    );
    let twice = Txn::new().and_then([TxnOp::put("k", "", None), TxnOp::put("k", "", None)]);
    refused(client.txn(twice).await, 3, "etcdserver: duplicate key given in txn request");
    Ok(())
}

async fn watches(client: &mut Client) -> Done {
    let first = client.put("rust/w", "0", None).await?.header().unwrap().revision();
    let options = WatchOptions::new().with_watch_id(7).with_prev_key();
    let mut stream = client.watch("rust/w", Some(options)).await?;
    let created = next(&mut stream).await?;
    assert_eq!((created.created(), created.watch_id()), (true, 7));
    client.put("rust/w", "1", None).await?;
    client.delete("rust/w", None).await?;
    for (kind, value, before) in [(EventType::Put, "1", "0"), (EventType::Delete, "", "1")] {
        let told = next(&mut stream).await?;
        let event = &told.events()[0];
        assert_eq!((told.events().len(), event.event_type()), (1, kind));
        assert_eq!(event.kv().unwrap().value_str()?, value);
        assert_eq!(event.prev_kv().unwrap().value_str()?, before);
    }
    // Another one on the same stream, of the past.
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(first)
        .with_filters([WatchFilterType::NoDelete])
        .with_fragment();
    stream.watch("rust/", Some(options)).await?;
    let created = next(&mut stream).await?;
    assert!(created.created());
    let told = next(&mut stream).await?;
    assert_eq!((told.watch_id(), told.events().len()), (created.watch_id(), 2));
    stream.request_progress().await?;
    let told = next(&mut stream).await?;
    assert_eq!((told.events().len(), told.header().unwrap().revision()), (0, first + 2));
    stream.cancel(created.watch_id()).await?;
    assert!(next(&mut stream).await?.canceled());
    // What is compacted is told to nobody.
    client.compact(first + 2, None).await?;
    stream.watch("rust/w", Some(WatchOptions::new().with_start_revision(first))).await?;
    assert!(next(&mut stream).await?.created());
    let ended = next(&mut stream).await?;
    assert_eq!((ended.canceled(), ended.compact_revision()), (true, first + 2));
    Ok(())
}

async fn next(stream: &mut WatchStream) -> Result<WatchResponse, Error> {
    Ok(stream.message().await?.expect("the stream goes on"))
}

async fn leases(client: &mut Client) -> Done {
    let granted = client.lease_grant(60, Some(LeaseGrantOptions::new().with_id(4711))).await?;
    assert_eq!((granted.id(), granted.ttl()), (4711, 60));
    let again = client.lease_grant(60, Some(LeaseGrantOptions::new().with_id(4711))).await;
    refused(again, 9, "etcdserver: lease already exists");
    client.put("rust/l", "v", Some(PutOptions::new().with_lease(4711))).await?;
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let left = client.lease_time_to_live(4711, Some(options)).await?;
    assert_eq!((left.granted_ttl(), left.keys()), (60, &[b"rust/l".to_vec()][..]));
    assert!(client.leases().await?.leases().iter().any(|lease| lease.id() == 4711));
    let (mut keeper, mut renewals) = client.lease_keep_alive(4711).await?;
    for _ in 0..3 {
        keeper.keep_alive().await?;
        let renewed = renewals.message().await?.expect("each is answered");
        assert_eq!((renewed.id(), renewed.ttl()), (4711, 60));
    }
    client.lease_revoke(4711).await?;
    assert_eq!(client.get("rust/l", None).await?.count(), 0);
    refused(client.lease_revoke(4711).await, 5, "etcdserver: requested lease not found");
    assert_eq!(client.lease_time_to_live(4711, None).await?.ttl(), -1);
    Ok(())
}

async fn locks(client: &mut Client) -> Done {
    let (mine, others) = (client.lease_grant(60, None).await?, client.lease_grant(60, None).await?);
    let options = |lease| Some(LockOptions::new().with_lease(lease));
    let key = client.lock("rust-lock", options(mine.id())).await?.key().to_vec();
    assert_eq!(key, format!("rust-lock/{:x}", mine.id()).into_bytes());
    let mut other = client.clone();
    let options = options(others.id());
    let waiting = tokio::spawn(async move { other.lock("rust-lock", options).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "the lock is held");
    client.unlock(key).await?;
    let key = waiting.await.unwrap()?.key().to_vec();
    client.unlock(key).await?;
    Ok(())
}

async fn elections(client: &mut Client) -> Done {
    let lease = client.lease_grant(60, None).await?.id();
    let elected = client.campaign("rust-election", "one", lease).await?;
    let leader = elected.leader().unwrap().clone();
    assert_eq!((leader.name_str()?, leader.lease()), ("rust-election", lease));
    let mut seen = client.observe("rust-election").await?;
    assert_eq!(seen.message().await?.unwrap().kv().unwrap().value(), b"one");
    let options = ProclaimOptions::new().with_leader(leader.clone());
    client.proclaim("two", Some(options)).await?;
    assert_eq!(seen.message().await?.unwrap().kv().unwrap().value(), b"two");
    assert_eq!(client.leader("rust-election").await?.kv().unwrap().value(), b"two");
    client.resign(Some(ResignOptions::new().with_leader(leader))).await?;
    refused(client.leader("rust-election").await, 2, "election: no leader");
    Ok(())
}

async fn members(client: &mut Client) -> Done {
    let own = client.member_list().await?.members()[0].clone();
    assert!(!own.is_learner() && !own.client_urls().is_empty());
    let url = "http://127.0.0.1:9";
    let options = MemberAddOptions::new().with_is_learner();
    let added = client.member_add([url], Some(options)).await?;
    let id = added.member().unwrap().id();
    assert_eq!(added.member_list().len(), 2);
    let found = client.member_list().await?;
    let learner = found.members().iter().find(|member| member.id() == id).unwrap();
    assert!(learner.is_learner() && learner.peer_urls() == [url]);
    refused(
        client.member_promote(id).await,
        9,
        "etcdserver: can only promote a learner member which is in sync with leader",
    );
    client.member_update(id, ["http://127.0.0.1:10".to_owned()]).await?;
    client.member_remove(id).await?;
    refused(client.member_remove(id).await, 5, "etcdserver: member not found");
    assert_eq!(client.member_list().await?.members().len(), 1);
    Ok(())
}

async fn maintenance(client: &mut Client) -> Done {
    let status = client.status().await?;
    assert!(status.version().starts_with("3.") && 0 < status.db_size());
    let own = status.leader();
    let none = client.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    assert!(none.alarms().is_empty());
    client.hash().await?;
    let revision = status.header().unwrap().revision();
    let (one, other) = (client.hash_kv(0).await?, client.hash_kv(revision).await?);
    assert_eq!((one.hash(), one.compact_version()), (other.hash(), other.compact_version()));
    client.defragment().await?;
    let mut snapshot = client.snapshot().await?;
    let (mut bytes, mut left) = (0, u64::MAX);
    while let Some(piece) = snapshot.message().await? {
        assert!(piece.remaining_bytes() <= left);
        (bytes, left) = (bytes + piece.blob().len(), piece.remaining_bytes());
    }
    assert_eq!((bytes % 512, left), (32, 0), "a checksum stands at the end");
    client.move_leader(own).await?;
    refused(client.move_leader(1).await, 9, "etcdserver: bad leader transferee");
    Ok(())
}

#[track_caller]
fn refused<T>(outcome: Result<T, Error>, code: i32, text: &str) {
    match outcome {
        Err(Error::GRpcStatus(status)) => {
            assert_eq!((status.code() as i32, status.message()), (code, text));
        }
        Err(other) => panic!("{other}, not {text}"),
        Ok(_) => panic!("done, and not refused: {text}"),
    }
}
