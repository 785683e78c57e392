use bytes::Bytes;
use quorate_kv::Member;
use quorate_types::EntryId;
use tempfile::TempDir;

use super::*;

fn config(cluster: u64, data_dir: &Path) -> NodeConfig {
    let members = vec![Member { id: 1, ..Member::default() }];
    NodeConfig { members, ..NodeConfig::new(NodeId(1), cluster, data_dir.to_owned()) }
}

fn opened(cluster: u64, data_dir: &Path) -> Result<Index, StartError> {
    let room = Arc::new(Room::new(Arc::default()));
    open(&config(cluster, data_dir), room).map(|opened| opened.initial.applied)
}

#[test]
fn a_new_directory_is_made_and_found_again() {
    let directory = TempDir::new().unwrap();
    assert_eq!(opened(7, directory.path()).unwrap(), Index(1));
    assert_eq!(opened(7, directory.path()).unwrap(), Index(1));
    let other = opened(8, directory.path()).unwrap_err();
    assert!(matches!(other, StartError::OtherMember { .. }), "{other}");
    let other = NodeConfig { node: NodeId(2), ..config(7, directory.path()) };
    let other = open(&other, Arc::new(Room::new(Arc::default()))).map(|_| ()).unwrap_err();
    assert!(matches!(other, StartError::OtherMember { .. }), "{other}");
}

#[test]
fn data_of_the_other_engine_is_refused() {
    for (engine, other) in [(Engine::Raft, Engine::Zab), (Engine::Zab, Engine::Raft)] {
        let directory = TempDir::new().unwrap();
        let open_with = |engine| {
            let config = NodeConfig { engine, ..config(7, directory.path()) };
            open(&config, Arc::new(Room::new(Arc::default()))).map(|opened| opened.initial)
        };
        assert_eq!(open_with(engine).unwrap().hard_state.engine(), engine);
        let refused = open_with(other).unwrap_err();
        assert!(
            matches!(refused, StartError::OtherEngine { found, wanted, .. }
                if (found, wanted) == (engine, other)),
            "{refused}"
        );
        assert_eq!(open_with(engine).unwrap().applied, Index(1), "nothing was lost by it");
    }
}

#[tokio::test]
async fn the_lock_is_held_until_the_last_thread_has_ended() {
    let directory = TempDir::new().unwrap();
    let config = config(7, directory.path());
    let metrics = Arc::new(Metrics::default());
    let opened = open(&config, Arc::new(Room::new(Arc::clone(&metrics)))).unwrap();
    let lock = Arc::downgrade(&opened.lock);
    let node = run(&config, opened, metrics, Vec::new()).unwrap();
    assert_eq!(lock.strong_count(), 3, "disk, machine and loop hold it each");
    let second = open(&config, Arc::new(Room::new(Arc::default()))).map(|_| ());
    assert!(matches!(second, Err(StartError::InUse { .. })), "{second:?}");
    node.shutdown().await;
    // A flush may still be on its way; it holds the lock as well, and tells nobody when it lets go.
    let is_free = async {
        while lock.strong_count() != 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), is_free).await.expect("no thread is left");
    self::opened(7, directory.path()).unwrap();
}

#[test]
fn a_log_that_never_came_to_be_is_made_once_more() {
    let directory = TempDir::new().unwrap();
    opened(7, directory.path()).unwrap();
    fs::remove_dir_all(directory.path().join("wal")).unwrap();
    fs::remove_file(directory.path().join("started")).unwrap();
    assert_eq!(opened(7, directory.path()).unwrap(), Index(1));
}

#[test]
fn a_log_that_is_gone_is_missed_even_before_the_first_flush() {
    let directory = TempDir::new().unwrap();
    opened(7, directory.path()).unwrap();
    // As after a crash just before the mark was made; the next start makes up for it.
    fs::remove_file(directory.path().join("started")).unwrap();
    opened(7, directory.path()).unwrap();
    for gone in ["wal", "kv.redb"] {
        let path = directory.path().join(gone);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        let refused = opened(7, directory.path()).unwrap_err();
        assert!(matches!(refused, StartError::LogMissing { .. }), "{gone}: {refused}");
    }
    assert!(!directory.path().join("kv.redb").exists(), "nothing was made");
}

#[test]
fn state_that_cannot_be_read_is_never_replaced() {
    let directory = TempDir::new().unwrap();
    opened(7, directory.path()).unwrap();
    fs::remove_dir_all(directory.path().join("wal")).unwrap();
    let path = directory.path().join("kv.redb");
    let damaged = vec![0x5a; 8192];
    fs::write(&path, &damaged).unwrap();
    let refused = opened(7, directory.path()).unwrap_err();
    assert!(matches!(refused, StartError::State { .. }), "{refused}");
    assert!(refused.to_string().contains("put kv.redb and snap back"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), damaged, "left as it was");
}

#[test]
fn state_of_another_cluster_is_refused() {
    let (ours, theirs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    opened(7, ours.path()).unwrap();
    opened(8, theirs.path()).unwrap();
    fs::copy(theirs.path().join("kv.redb"), ours.path().join("kv.redb")).unwrap();
    let refused = opened(7, ours.path()).unwrap_err();
    assert!(refused.to_string().contains("belongs to member 1 of cluster 8"), "{refused}");
}

#[test]
fn state_of_another_member_is_refused() {
    let (ours, theirs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    opened(7, ours.path()).unwrap();
    let other = NodeConfig { node: NodeId(2), ..config(7, theirs.path()) };
    open(&other, Arc::new(Room::new(Arc::default()))).map(drop).unwrap();
    fs::copy(theirs.path().join("kv.redb"), ours.path().join("kv.redb")).unwrap();
    let refused = opened(7, ours.path()).unwrap_err();
    assert!(refused.to_string().contains("belongs to member 2 of cluster 7"), "{refused}");
}

#[test]
fn state_of_another_that_was_not_closed_well_is_left_as_it_is() {
    let (ours, theirs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    opened(7, ours.path()).unwrap();
    let path = ours.path().join("kv.redb");
    let running = open(&config(8, theirs.path()), Arc::new(Room::new(Arc::default()))).unwrap();
    fs::copy(theirs.path().join("kv.redb"), &path).unwrap();
    drop(running);
    let found = fs::read(&path).unwrap();
    assert_ne!(fs::read(theirs.path().join("kv.redb")).unwrap(), found, "it was not closed");
    let refused = opened(7, ours.path()).unwrap_err();
    assert!(refused.to_string().contains("belongs to member 1 of cluster 8"), "{refused}");
    assert!(fs::read(&path).unwrap() == found, "nothing was changed");
    // Whose it is mends it.
    fs::write(theirs.path().join("kv.redb"), &found).unwrap();
    opened(8, theirs.path()).unwrap();
    assert!(fs::read(theirs.path().join("kv.redb")).unwrap() != found);
}

#[test]
fn each_log_has_a_life_of_its_own_and_keeps_it() {
    let open = |path: &Path| open(&config(7, path), Arc::new(Room::new(Arc::default()))).unwrap();
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let life = open(one.path()).life;
    assert!(life.known().is_some());
    assert_eq!(open(one.path()).life, life);
    assert_ne!(open(two.path()).life, life);

    // The state of a log that published itself does not go with another log of the same member.
    let opened = open(one.path());
    let publish = quorate_kv::Command::PublishMember {
        id: 1,
        name: "one".to_owned(),
        client_urls: Vec::new(),
        life,
        version: String::new(),
        tags: std::collections::BTreeMap::new(),
    };
    let mut command = bytes::BytesMut::new();
    publish.encode(&mut command);
    let what = quorate_kv::Apply::Command(command.freeze());
    let entry = quorate_kv::Entry { index: Index(2), term: Term(1), what, answer_wanted: true };
    assert!(opened.store.apply(&[entry]).unwrap().responses[0].is_ok());
    opened.store.flush().unwrap();
    drop(opened);
    fs::copy(one.path().join("kv.redb"), two.path().join("kv.redb")).unwrap();
    let refused = super::open(&config(7, two.path()), Arc::new(Room::new(Arc::default())));
    let refused = refused.map(drop).unwrap_err();
    assert!(matches!(refused, StartError::OtherLife { .. }), "{refused}");
}

/// What a member of three has in its log: a change of the list and pairs, none known to be committed.
fn with_history(directory: &Path) -> NodeConfig {
    let members = (1..=3).map(|id| Member { id, ..Member::default() }).collect();
    let config = NodeConfig { members, ..config(7, directory) };
    let mut opened = open(&config, Arc::new(Room::new(Arc::default()))).unwrap();
    let entry = |index, kind: quorate_raft::EntryType, data| {
        let (index, term) = (Index(index), Term(2));
        let entry = quorate_raft::Entry { index, term, kind: Some(kind), data: Some(data) };
        quorate_codec::to_log_entry(&entry)
    };
    let put = |index: u64| {
        let value = Bytes::from(index.to_string());
        let put = quorate_kv::PutRequest { key: "k".into(), value, ..Default::default() };
        let mut data = bytes::BytesMut::new();
        quorate_replica::seal(quorate_replica::RequestId(index), &mut data);
        quorate_kv::Command::Put(put).encode(&mut data);
        entry(index, quorate_raft::EntryType::Normal, data.freeze())
    };
    let change = |index: u64, judged| {
        let mut context = bytes::BytesMut::new();
        quorate_replica::seal_change(quorate_replica::RequestId(index), judged, &mut context);
        quorate_kv::MemberChange::Remove(1).encode(&mut context);
        let change = quorate_raft::ConfChange {
            change_type: quorate_raft::ConfChangeType::RemoveNode,
            node_id: NodeId(1),
            context: context.freeze(),
            ..Default::default()
        };
        let (kind, data) = quorate_raft::encode_conf_change(&change.into());
        entry(index, kind, data.unwrap())
    };
    // The change in between was forwarded to a leader that did not judge it.
    let entries = vec![put(2), change(3, Term(1)), put(4)];
    let write = quorate_wal::Write { entries, must_sync: true, ..Default::default() };
    opened.wal.append(&[write]).unwrap();
    config
}

#[test]
fn one_member_goes_on_alone_with_all_that_it_has() {
    let directory = TempDir::new().unwrap();
    let config = with_history(directory.path());
    let open = |config: &NodeConfig| super::open(config, Arc::new(Room::new(Arc::default())));
    let opened = open(&config).unwrap();
    assert_eq!(opened.initial.applied, Index(1), "without the flag nothing happens");
    drop(opened);

    let forced = NodeConfig { force_new_cluster: true, members: Vec::new(), ..config };
    for start in ["with the flag", "with it still", "without it"] {
        let config = match start {
            "without it" => self::config(7, directory.path()),
            _ => NodeConfig { data_dir: directory.path().to_owned(), ..forced_like(&forced) },
        };
        let opened = open(&config).unwrap();
        assert_eq!(opened.initial.applied, Index(4), "{start}");
        assert_eq!(opened.initial.conf_state.voters, [NodeId(1)], "{start}");
        let ids: Vec<u64> = opened.store.members().iter().map(|member| member.id).collect();
        assert_eq!((ids, opened.store.membership().removed()), (vec![1], vec![2, 3]), "{start}");
        let range = quorate_kv::RangeRequest { key: "k".into(), ..Default::default() };
        let held = opened.store.range(&range).unwrap();
        assert_eq!((&held.kvs[0].value[..], held.kvs[0].version), (&b"4"[..], 2), "{start}");
    }
}

fn forced_like(config: &NodeConfig) -> NodeConfig {
    let fresh = NodeConfig::new(config.node, config.cluster, config.data_dir.clone());
    NodeConfig { force_new_cluster: config.force_new_cluster, ..fresh }
}

#[test]
fn who_joins_begins_with_nothing_and_cannot_go_on_alone() {
    let directory = TempDir::new().unwrap();
    let members: Vec<_> = (1..=2).map(|id| Member { id, ..Member::default() }).collect();
    let joining = || NodeConfig {
        members: members.clone(),
        joins: true,
        ..NodeConfig::new(NodeId(2), 7, directory.path().to_owned())
    };
    let open = |config: &NodeConfig| super::open(config, Arc::new(Room::new(Arc::default())));
    for start in ["the first", "the second"] {
        let opened = open(&joining()).unwrap();
        assert_eq!(opened.initial.applied, Index(0), "{start}");
        assert_eq!(opened.initial.conf_state, ConfState::default(), "{start}");
        assert_eq!(opened.store.members(), members, "to know where they are");
    }
    let forced = NodeConfig { force_new_cluster: true, ..joining() };
    let refused = open(&forced).map(drop).unwrap_err();
    assert!(refused.to_string().contains("before it got the state"), "{refused}");
}

#[test]
fn a_member_that_was_removed_does_not_start() {
    let directory = TempDir::new().unwrap();
    let config = with_history(directory.path());
    let opened = open(&config, Arc::new(Room::new(Arc::default()))).unwrap();
    let conf_state = first_conf_state(vec![NodeId(2), NodeId(3)]);
    let change = Some(quorate_kv::MemberChange::Remove(1));
    let what = quorate_kv::Apply::Membership { conf_state, change };
    let entry = quorate_kv::Entry { index: Index(2), term: Term(2), what, answer_wanted: true };
    opened.store.apply(&[entry]).unwrap();
    opened.store.flush().unwrap();
    drop(opened);
    let refused = open(&config, Arc::new(Room::new(Arc::default()))).map(drop).unwrap_err();
    assert!(matches!(refused, StartError::Removed { .. }), "{refused}");
    assert!(refused.to_string().contains("was removed from the cluster"), "{refused}");
}

#[test]
fn lists_of_members_that_differ_are_refused() {
    let directory = TempDir::new().unwrap();
    let config = with_history(directory.path());
    let opened = open(&config, Arc::new(Room::new(Arc::default()))).unwrap();
    let conf_state = first_conf_state(vec![NodeId(1), NodeId(2)]);
    let what = quorate_kv::Apply::Membership { conf_state, change: None };
    let entry = quorate_kv::Entry { index: Index(2), term: Term(2), what, answer_wanted: true };
    opened.store.apply(&[entry]).unwrap();
    opened.store.flush().unwrap();
    drop(opened);
    let refused = open(&config, Arc::new(Room::new(Arc::default()))).map(drop).unwrap_err();
    assert!(refused.to_string().contains("the list of members says"), "{refused}");
}

#[test]
fn the_longest_command_fits_into_a_frame() {
    for request_bytes_max in [0, 1536 << 10, 10 << 20, 100 << 20] {
        let config = NodeConfig { request_bytes_max, ..config(7, Path::new("none")) };
        let net = net_config(&config, 9);
        assert_eq!((net.cluster, net.node, net.incarnation), (7, NodeId(1), 9));
        net.check().unwrap();
        let spare = u64::from(net.frame_bytes_max) - request_bytes_max;
        assert!(1 << 20 < spare, "{request_bytes_max}: {spare} bytes left");
    }
}

/// A state that reaches index 9 of term 2, as another member sends it.
fn received() -> Vec<u8> {
    let other = TempDir::new().unwrap();
    opened(7, other.path()).unwrap();
    let room = Arc::new(Room::new(Arc::default()));
    let store = Layout::new(other.path()).state_file(1 << 20, room).open().unwrap();
    let entries: Vec<_> = (2..=9)
        .map(|index| quorate_kv::Entry {
            index: Index(index),
            term: Term(2),
            what: quorate_kv::Apply::Empty,
            answer_wanted: false,
        })
        .collect();
    store.apply(&entries).unwrap();
    let mut reader = store.snapshot().unwrap().reader();
    reader.read(usize::MAX).unwrap().to_vec()
}

/// Its place in the log.
const RECEIVED: EntryId = EntryId { term: Term(2), index: Index(9) };

fn mark_received(layout: &Layout) {
    let mark = Mark { index: RECEIVED.index, stamp: RECEIVED.term.0, data: Bytes::new() };
    let write = quorate_wal::Write { install: Some(mark), ..quorate_wal::Write::default() };
    let (mut wal, _) =
        Wal::open(Arc::new(RealDisk), &layout.wal, Options::default(), &mut |_, _| {}).unwrap();
    wal.append(&[write]).unwrap();
}

#[test]
fn a_mark_ahead_of_the_state_needs_its_snapshot() {
    let directory = TempDir::new().unwrap();
    opened(7, directory.path()).unwrap();
    let received = received();
    let layout = Layout::new(directory.path());
    mark_received(&layout);
    let file = snapshot::path(&layout.snap, RECEIVED);
    for (contents, what) in [(None, "gone"), (Some(&received[..20]), "half of it")] {
        if let Some(contents) = contents {
            fs::write(&file, contents).unwrap();
        }
        let refused = opened(7, directory.path()).unwrap_err();
        let missing = matches!(refused, StartError::StateMissing { .. });
        assert_eq!(missing, contents.is_none(), "{what}: {refused}");
        assert_eq!(file.exists(), contents.is_some(), "{what}: left for whoever looks into it");
    }
    fs::write(&file, &received).unwrap();
    assert_eq!(opened(7, directory.path()).unwrap(), Index(9));
    assert!(!file.exists(), "of no use any more");
    assert_eq!(opened(7, directory.path()).unwrap(), Index(9));
}

#[test]
fn an_installation_that_stops_anywhere_is_gone_on_with_or_never_began() {
    let received = received();
    let metadata = SnapshotMetadata {
        index: RECEIVED.index,
        term: RECEIVED.term,
        conf_state: ConfState::default(),
    };
    // What there is when the power goes, step by step: `snapshot.rs` and `machine.rs` say why.
    for step in 0..=10 {
        let directory = TempDir::new().unwrap();
        opened(7, directory.path()).unwrap();
        let layout = Layout::new(directory.path());
        let file = snapshot::path(&layout.snap, RECEIVED);
        let temporary = file.with_extension("tmp");
        let fresh = layout.kv.with_extension("new");
        let state_file = layout.state_file(1 << 20, Arc::new(Room::new(Arc::default())));
        if step == 1 {
            fs::write(&temporary, &received[..received.len() / 2]).unwrap();
        }
        if step == 2 {
            fs::write(&temporary, &received).unwrap();
        }
        if 3 <= step {
            fs::write(&file, &received).unwrap();
        }
        if 4 <= step {
            mark_received(&layout);
        }
        match step {
            // Half a new state, in two ways: without a row, and cut off in the middle.
            5 => fs::write(&fresh, b"").unwrap(),
            6 | 7 => {
                state_file.install(NodeId(1), &metadata).map(drop).unwrap();
                let whole = fs::read(&layout.kv).unwrap();
                fs::write(&fresh, if step == 6 { &whole[..whole.len() / 3] } else { &whole })
                    .unwrap();
                // As if it had not been renamed yet.
                let earlier = TempDir::new().unwrap();
                opened(7, earlier.path()).unwrap();
                fs::copy(earlier.path().join("kv.redb"), &layout.kv).unwrap();
            }
            8..=10 => {
                state_file.install(NodeId(1), &metadata).map(drop).unwrap();
                if 9 <= step {
                    fs::remove_file(&file).unwrap();
                }
                if step == 10 {
                    fs::write(&temporary, b"the next one begins").unwrap();
                }
            }
            _ => {}
        }
        let want = if step < 4 { Index(1) } else { RECEIVED.index };
        for start in ["the first", "the second"] {
            assert_eq!(opened(7, directory.path()).unwrap(), want, "step {step}, {start} start");
            assert_eq!(fs::read_dir(&layout.snap).unwrap().count(), 0, "step {step}: nothing left");
        }
    }
}

#[test]
fn a_damaged_snapshot_that_a_mark_rests_on_is_refused_and_kept() {
    let received = received();
    let directory = TempDir::new().unwrap();
    opened(7, directory.path()).unwrap();
    let layout = Layout::new(directory.path());
    mark_received(&layout);
    let file = snapshot::path(&layout.snap, RECEIVED);
    let before = fs::read(&layout.kv).unwrap();
    for at in (0..received.len()).step_by(7) {
        let mut damaged = received.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&file, &damaged).unwrap();
        let refused = opened(7, directory.path()).unwrap_err();
        assert!(matches!(refused, StartError::State { .. }), "byte {at}: {refused}");
        assert_eq!(fs::read(&file).unwrap(), damaged);
    }
    assert_eq!(fs::read(&layout.kv).unwrap().len(), before.len(), "the state is still there");
    fs::write(&file, &received).unwrap();
    assert_eq!(opened(7, directory.path()).unwrap(), RECEIVED.index);
}
