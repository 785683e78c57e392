use std::io::Write;

use bytes::Bytes;
use quorate_kv::{Command, CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest};
use tempfile::TempDir;

use super::*;
use crate::{Node, NodeConfig, inspect_saved};

fn members() -> Vec<Member> {
    vec![Member { id: 1, ..Member::default() }]
}

async fn start(directory: &Path, cluster: u64) -> Node {
    start_with(Engine::Raft, directory, cluster).await
}

async fn start_with(engine: Engine, directory: &Path, cluster: u64) -> Node {
    let config = NodeConfig {
        engine,
        members: members(),
        heartbeat_ms: 10,
        election_ms: 50,
        ..NodeConfig::new(NodeId(1), cluster, directory.to_owned())
    };
    Node::start(config).await.unwrap()
}

async fn put(node: &Node, key: &str, bytes: usize) {
    let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(vec![7; bytes]));
    let put = Command::Put(PutRequest { key, value, ..PutRequest::default() });
    node.propose(&put).await.unwrap().unwrap();
}

fn count(node: &Node) -> i64 {
    let all = RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        count_only: true,
        ..RangeRequest::default()
    };
    node.store().range(&all).unwrap().count
}

async fn save(node: &Node, path: &Path) {
    let mut saving = node.save().await.unwrap();
    let mut file = fs::File::create(path).unwrap();
    while let Some(piece) = saving.next_piece().unwrap() {
        file.write_all(&piece.bytes).unwrap();
    }
}

fn config(data_dir: PathBuf) -> RestoreConfig {
    let (bump_revision, mark_compacted) = (0, false);
    RestoreConfig {
        node: NodeId(1),
        cluster: 9,
        engine: Engine::Raft,
        members: members(),
        data_dir,
        bump_revision,
        mark_compacted,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_starts_from_a_saved_snapshot() {
    let directory = TempDir::new().unwrap();
    let (old, file) = (directory.path().join("old"), directory.path().join("saved"));
    let node = start(&old, 7).await;
    for at in 0..20 {
        put(&node, &format!("k{at}"), 100).await;
    }
    save(&node, &file).await;
    put(&node, "later", 1).await;
    let hash = node.store().hash_kv(21).unwrap();
    node.shutdown().await;

    let fresh = directory.path().join("fresh");
    for bump_revision in [0, 500] {
        let config = RestoreConfig { bump_revision, ..config(fresh.clone()) };
        let mut told = 0;
        let status = restore_saved(&file, &config, &mut |done, total| {
            assert!(told <= done && done <= total);
            told = done;
        })
        .unwrap();
        assert_eq!(status.contents.revision, 21);
        let again = restore_saved(&file, &config, &mut |_, _| ());
        assert!(matches!(again, Err(SavedError::NotEmpty { .. })), "{again:?}");

        let node = start(&fresh, 9).await;
        assert_eq!(node.store().revision(), 21 + bump_revision as i64);
        assert_eq!(node.store().hash_kv(21).unwrap().hash, hash.hash);
        put(&node, "new", 1).await;
        assert_eq!(count(&node), 21);
        node.shutdown().await;
        // And it is found again.
        let node = start(&fresh, 9).await;
        node.read_barrier().await.unwrap();
        assert_eq!(count(&node), 21);
        node.shutdown().await;
        fs::remove_dir_all(&fresh).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_snapshot_moves_contents_to_the_other_engine() {
    for (from, to) in [(Engine::Raft, Engine::Zab), (Engine::Zab, Engine::Raft)] {
        let directory = TempDir::new().unwrap();
        let (old, file) = (directory.path().join("old"), directory.path().join("saved"));
        let node = start_with(from, &old, 7).await;
        for at in 0..20 {
            put(&node, &format!("k{at}"), 100).await;
        }
        save(&node, &file).await;
        let hash = node.store().hash_kv(21).unwrap().hash;
        node.shutdown().await;

        let fresh = directory.path().join("fresh");
        let config = RestoreConfig { engine: to, ..config(fresh.clone()) };
        restore_saved(&file, &config, &mut |_, _| ()).unwrap();
        let node = start_with(to, &fresh, 9).await;
        assert_eq!((node.store().revision(), node.store().hash_kv(21).unwrap().hash), (21, hash));
        put(&node, "new", 1).await;
        node.read_barrier().await.unwrap();
        assert_eq!(count(&node), 21);
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_made_of_a_file_that_is_not_whole() {
    let directory = TempDir::new().unwrap();
    let (old, file) = (directory.path().join("old"), directory.path().join("saved"));
    let node = start(&old, 7).await;
    put(&node, "k", 3000).await;
    save(&node, &file).await;
    node.shutdown().await;
    let whole = fs::read(&file).unwrap();
    let fresh = directory.path().join("fresh");
    fs::create_dir(&fresh).unwrap();
    for length in 0..whole.len() {
        fs::write(&file, &whole[..length]).unwrap();
        inspect_saved(&file, &mut |_, _| ()).unwrap_err();
        restore_saved(&file, &config(fresh.clone()), &mut |_, _| ()).unwrap_err();
    }
    let mut names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["fresh", "old", "saved"], "nothing is left of it");
    assert!(is_free(&fresh).unwrap());
    fs::write(&file, &whole).unwrap();
    restore_saved(&file, &config(fresh.clone()), &mut |_, _| ()).unwrap();
    let used = restore_saved(&file, &config(old), &mut |_, _| ());
    assert!(matches!(used, Err(SavedError::NotEmpty { .. })), "{used:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_of_the_state_shrinks_while_the_node_runs() {
    let directory = TempDir::new().unwrap();
    let node = start(directory.path(), 7).await;
    for at in 0..200 {
        put(&node, &format!("k{at}"), 50_000).await;
    }
    save(&node, &directory.path().join("flushes")).await;
    let delete = DeleteRangeRequest {
        key: Bytes::from_static(b"k1"),
        range_end: Bytes::from_static(b"l"),
        prev_kv: false,
    };
    node.propose(&Command::DeleteRange(delete)).await.unwrap().unwrap();
    let compact = CompactionRequest { revision: 202, physical: true };
    node.propose(&Command::Compact(compact)).await.unwrap().unwrap();
    while node.store().removed_revision() < 202 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let length = || fs::metadata(directory.path().join("kv.redb")).unwrap().len();
    let (before, held) = (length(), node.save().await.unwrap());
    node.defragment().await.unwrap();
    assert!(length() < before / 4, "{} of {before}", length());
    assert_eq!(node.status().db_bytes, length());
    drop(held);
    assert!(!directory.path().join("kv.new").exists());
    put(&node, "later", 10).await;
    node.defragment().await.unwrap();
    assert_eq!(count(&node), 2);
    node.shutdown().await;
    let stopped = node.defragment().await.unwrap_err();
    assert_eq!(stopped, crate::MaintenanceError::Stopped);
    let node = start(directory.path(), 7).await;
    node.read_barrier().await.unwrap();
    assert_eq!(count(&node), 2);
    node.shutdown().await;
}
