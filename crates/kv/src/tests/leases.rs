//! Leases: what they do to keys, and when they end.

use super::*;

const TERM: Term = Term(3); // of entries, unless a test says otherwise

fn renew(node: &Node, id: i64, now_ms: u64) -> Result<Renewal, KvError> {
    node.store.lease_renew(id, now_ms)
}

fn left(node: &Node, id: i64, now_ms: u64) -> i64 {
    node.store.lease_time_to_live(id, false, now_ms).unwrap().ttl_seconds
}

/// The leases that end at this time, and whose end is applied.
fn expire(node: &mut Node, now_ms: u64) -> Vec<i64> {
    let commands = node.store.leases_expired(now_ms, usize::MAX).unwrap();
    let id = |command: &Command| match command {
        Command::LeaseExpire { id, .. } => *id,
        other => panic!("{other:?}"),
    };
    let ids = commands.iter().map(id).collect();
    for command in commands {
        node.run(&command).unwrap();
    }
    ids
}

/// This member leads in a later term, of which the first entry is applied, and ends leases.
fn lead(node: &mut Node, now_ms: u64, extension_ms: u64) {
    node.store.follow_leases().unwrap();
    node.term = node.term.next();
    let (index, term) = (Index(node.log.len() as u64 + 1), node.term);
    node.log.push(Entry { index, term, what: Apply::Empty, answer_wanted: false });
    node.store.apply(&node.log[index.0 as usize - 1..]).unwrap();
    assert!(node.store.lead_leases(term, now_ms, extension_ms).unwrap());
}

/// Leases 7 of 10 s, 8 of 60 s; a leader since 1000 ms.
fn led() -> Node {
    let mut node = Node::new();
    node.grant(7, 10).unwrap();
    node.grant(8, 60).unwrap();
    assert!(node.store.lead_leases(TERM, 1000, 500).unwrap());
    node
}

#[test]
fn a_revoked_lease_takes_its_keys_in_one_revision() {
    let mut node = Node::new();
    assert_eq!(node.grant(7, 10).map(|grant| (grant.id, grant.ttl_seconds)), Ok((7, 10)));
    assert_eq!(node.store.revision(), 1, "a grant makes no revision");
    for key in ["c", "a", "b", "d"] {
        node.put_leased(key, 7);
    }
    node.put("d", ""); // to no lease
    node.delete("b", "");
    let revision = node.store.revision();
    assert_eq!(node.store.lease_keys(7), [bytes("a"), bytes("c")]);
    let gone = node.run(&Command::LeaseRevoke { id: 7 });
    let want = LeaseRevokeResponse { revision: revision + 1 };
    assert_eq!(gone, Ok(Response::LeaseRevoke(want)));
    assert_eq!(node.all_at(0).unwrap(), ["d="]);
    assert_eq!(node.all_at(revision).unwrap(), ["a=", "c=", "d="]);
    assert_eq!(node.run(&Command::LeaseRevoke { id: 7 }), Err(KvError::LeaseNotFound));
    assert_eq!(node.store.revision(), revision + 1);
    node.grant(7, 10).unwrap();
    let gone = node.run(&Command::LeaseRevoke { id: 7 });
    assert_eq!(gone, Ok(Response::LeaseRevoke(want)), "no keys, no revision");
}

#[test]
fn a_put_moves_its_key_between_leases() {
    let mut node = Node::new();
    node.grant(7, 10).unwrap();
    node.grant(-8, 10).unwrap();
    let mut owners = |put: PutRequest| {
        node.run(&Command::Put(put)).unwrap();
        let lease = node.range(range("k", "")).unwrap().kvs[0].lease;
        (lease, node.store.lease_keys(7).len(), node.store.lease_keys(-8).len())
    };
    let keeping = || PutRequest { ignore_lease: true, ..put("k", "x") };
    for (put, want) in [
        (PutRequest { lease: 7, ..put("k", "") }, (7, 1, 0)),
        (PutRequest { lease: 7, ..put("k", "") }, (7, 1, 0)),
        (PutRequest { lease: -8, ..put("k", "") }, (-8, 0, 1)),
        (keeping(), (-8, 0, 1)),
        (PutRequest { ignore_value: true, lease: 7, ..put("k", "") }, (7, 1, 0)),
        (put("k", ""), (0, 0, 0)),
        (keeping(), (0, 0, 0)),
    ] {
        assert_eq!(owners(put.clone()), want, "{put:?}");
    }
}

#[test]
fn a_transaction_attaches_in_its_order() {
    let mut node = Node::new();
    node.grant(7, 10).unwrap();
    node.grant(8, 10).unwrap();
    node.put_leased("a", 7);
    node.put_leased("b", 7);
    let leased = |key, lease| RequestOp::Put(PutRequest { lease, ..put(key, "") });
    let txn = |success| TxnRequest { success, ..TxnRequest::default() };
    let ops = vec![leased("a", 8), RequestOp::DeleteRange(delete("b", "")), leased("c", 7)];
    node.txn(txn(ops)).unwrap();
    assert_eq!(node.store.lease_keys(7), [bytes("c")]);
    assert_eq!(node.store.lease_keys(8), [bytes("a")]);
    let refused = node.txn(txn(vec![leased("d", 7), leased("e", 9)]));
    assert_eq!(refused, Err(KvError::LeaseNotFound));
    assert_eq!(node.store.lease_keys(7), [bytes("c")], "nothing was changed");
}

#[test]
fn leases_outlive_a_restart_and_travel_in_snapshots() {
    let disk = MemoryBackend::new();
    let mut node = Node::on(disk.clone());
    for id in [7, -8, 9] {
        node.grant(id, 100 + id).unwrap();
    }
    for (key, lease) in [("a", 7), ("b", -8), ("c", 7), ("d", 9), ("e", 9)] {
        node.put_leased(key, lease);
    }
    node.store.flush().unwrap();
    node.run(&Command::LeaseRevoke { id: 9 }).unwrap();
    node.delete("a", "");
    let checkpoint = LeaseCheckpoint { id: 7, granted: Index(1), remaining_seconds: 50 };
    let command = Command::LeaseCheckpoint { term: TERM, order: 1, checkpoints: vec![checkpoint] };
    node.run(&command).unwrap();
    node.compact(node.store.revision()).unwrap();
    while !node.store.compact_step(2).unwrap() {}
    let mut copy = MemoryBackend::new();
    super::snapshots::copy(&node.store.snapshot().unwrap(), &mut copy);
    let hash = node.store.hash();
    for disk in [disk, copy] {
        let store = Store::open(disk).unwrap();
        assert_eq!(store.leases().unwrap().ids, [-8, 7]);
        assert_eq!(
            (store.lease_keys(-8), store.lease_keys(7)),
            (vec![bytes("b")], vec![bytes("c")])
        );
        assert_eq!(store.hash(), hash);
        let restarted = Node { store, log: node.log.clone(), term: TERM };
        assert!(restarted.store.lead_leases(TERM, 0, 0).unwrap());
        assert_eq!((left(&restarted, 7, 0), left(&restarted, -8, 0)), (50, 92));
    }
}

#[test]
fn a_state_of_the_format_before_is_read_and_then_written_anew() {
    let disk = MemoryBackend::new();
    let mut node = Node::on(disk.clone());
    node.put("a", "1");
    node.store.flush().unwrap();
    let format = || {
        let view = disk.view().unwrap();
        view.get(Table::Meta, b"format").unwrap().unwrap()[0]
    };
    assert_eq!(format(), 4);
    let mut batch = Batch::default();
    batch.put_sealed(Table::Meta, b"format", &[2]);
    disk.clone().commit(&batch).unwrap();
    node.store = Store::open(disk.clone()).unwrap();
    assert_eq!(format(), 2);
    node.grant(7, 10).unwrap();
    node.store.flush().unwrap();
    assert_eq!(format(), 4);
    assert_eq!(Store::open(disk.clone()).unwrap().leases_count(), 1);
}

#[test]
fn a_database_of_a_version_before_gets_the_tables_it_lacks() {
    use redb::TableDefinition;
    let disk = super::crash::Disk::new(1);
    {
        let database = redb::Database::builder().create_with_backend(disk.plug_in()).unwrap();
        let transaction = database.begin_write().unwrap();
        let rows = TableDefinition::<&[u8; 17], &[u8]>::new("key");
        transaction.open_table(rows).unwrap();
        for name in ["meta", "member"] {
            transaction.open_table(TableDefinition::<&[u8], &[u8]>::new(name)).unwrap();
        }
        let used = TableDefinition::<(), u64>::new("use");
        transaction.open_table(used).unwrap().insert((), 0).unwrap();
        transaction.commit().unwrap();
    }
    let open = || RedbBackend::open(disk.plug_in(), 1 << 16).unwrap();
    let mut node = Node::on(open());
    node.grant(7, 10).unwrap();
    node.store.flush().unwrap();
    drop(node);
    assert_eq!(Store::open(open()).unwrap().leases_count(), 1);
}

#[test]
fn keys_of_a_lease_that_is_not_there_are_damage() {
    let disk = MemoryBackend::new();
    let mut node = Node::on(disk.clone());
    node.grant(7, 10).unwrap();
    node.put_leased("a", 7);
    node.store.flush().unwrap();
    let mut batch = Batch::default();
    batch.delete(Table::Lease, &7_i64.to_be_bytes());
    disk.clone().commit(&batch).unwrap();
    let opened = Store::open(disk);
    assert!(matches!(opened, Err(StoreError::Damaged(why)) if why.contains("lease")));
}

#[test]
fn only_a_leader_that_knows_all_grants_knows_when_leases_end() {
    let node = Node::new();
    let unknown = Err(KvError::NotPrimaryLessor);
    assert_eq!(renew(&node, 7, 0), unknown);
    assert!(!node.store.lead_leases(TERM, 0, 0).unwrap(), "nothing of this term is applied");
    let node = led();
    assert_eq!(node.store.leads_leases(), Some(TERM));
    assert_eq!(renew(&node, 7, 1000), Ok(Renewal::Renewed { ttl_seconds: 10 }));
    assert_eq!(renew(&node, 9, 1000), Err(KvError::LeaseNotFound));
    node.store.follow_leases().unwrap();
    assert_eq!(renew(&node, 7, 1000), unknown);
    assert!(node.store.leases_expired(u64::MAX, 9).unwrap().is_empty());
    assert!(node.store.leases_to_checkpoint(u64::MAX).unwrap().is_none());
    let asked = node.store.lease_time_to_live(7, false, 0);
    assert_eq!(asked, Err(KvError::NotPrimaryLessor));
    assert_eq!(node.store.leads_leases(), None);
    assert!(!node.store.lead_leases(TERM, 0, 0).unwrap(), "nobody leads twice in a term");
}

#[test]
fn a_lease_ends_when_its_time_is_up_and_not_before() {
    let mut node = led();
    node.put_leased("a", 7);
    // 10 s and the extension after 1 s.
    assert_eq!(expire(&mut node, 11_499), [0; 0]);
    assert_eq!(expire(&mut node, 11_500), [7]);
    assert_eq!(node.all_at(0).unwrap(), [""; 0]);
    assert_eq!(renew(&node, 7, 11_500), Err(KvError::LeaseNotFound));
    // One granted later begins when time is told next.
    node.grant(7, 5).unwrap();
    assert_eq!(left(&node, 7, 20_000), 5);
    assert_eq!(renew(&node, 8, 20_000), Ok(Renewal::Renewed { ttl_seconds: 60 }));
    for (now_ms, want) in [(24_999, vec![]), (25_000, vec![7]), (79_999, vec![]), (80_000, vec![8])]
    {
        assert_eq!(expire(&mut node, now_ms), want, "{now_ms}");
    }
    assert_eq!(node.store.leases_count(), 0);
}

#[test]
fn time_that_goes_back_stands_still() {
    let mut node = led();
    assert_eq!(left(&node, 7, 9_000), 2);
    assert_eq!(left(&node, 7, 0), 2);
    assert_eq!(renew(&node, 7, 0), Ok(Renewal::Renewed { ttl_seconds: 10 }));
    assert_eq!(expire(&mut node, 18_999), [0; 0]);
    assert_eq!(expire(&mut node, 19_000), [7]);
    // A jump forward ends everything, and time goes on from there.
    assert_eq!(expire(&mut node, u64::MAX), [8]);
    node.grant(7, 10).unwrap();
    assert_eq!(left(&node, 7, 5), 0, "the clock is at its end");
}

#[test]
fn an_end_is_asked_for_until_it_comes_and_nothing_is_renewed_meanwhile() {
    let mut node = led();
    let asked = |node: &Node, now_ms| node.store.leases_expired(now_ms, 1).unwrap();
    let first = asked(&node, 11_500);
    assert_eq!(first, [Command::LeaseExpire { id: 7, granted: Index(1), term: TERM }]);
    assert_eq!(renew(&node, 7, 11_501), Ok(Renewal::Expiring));
    assert_eq!(asked(&node, 14_499), []);
    assert_eq!(asked(&node, 14_500), first, "the first was lost");
    assert_eq!(left(&node, 7, 14_600), 0);
    node.run(&first[0]).unwrap();
    assert_eq!(asked(&node, 17_500), []);
    assert_eq!(node.run(&first[0]), Err(KvError::LeaseNotFound), "the second came, too");
    // A lease whose time is up is not renewed even before anybody asked for its end.
    assert_eq!(renew(&node, 8, 61_500), Ok(Renewal::Expiring));
}

#[test]
fn a_deposed_leader_ends_nothing() {
    let mut node = led();
    node.put_leased("a", 7);
    let stale = Command::LeaseExpire { id: 7, granted: Index(1), term: Term(2) };
    assert_eq!(node.run(&stale), Err(KvError::LeaseNotFound));
    // Nor does a leader end a later lease of the same id.
    let late = node.store.leases_expired(11_500, 9).unwrap();
    node.run(&Command::LeaseRevoke { id: 7 }).unwrap();
    node.grant(7, 10).unwrap();
    assert_eq!(late.len(), 1);
    assert_eq!(node.run(&late[0]), Err(KvError::LeaseNotFound));
    assert_eq!(left(&node, 7, 11_500), 10);
    // Nor does a deposed one note anything.
    let checkpoint = LeaseCheckpoint { id: 8, granted: Index(2), remaining_seconds: 1 };
    let command =
        Command::LeaseCheckpoint { term: Term(2), order: 1, checkpoints: vec![checkpoint] };
    node.run(&command).unwrap();
    lead(&mut node, 12_000, 0);
    assert_eq!(left(&node, 8, 12_000), 60);
}

#[test]
fn a_new_leader_extends_and_checkpoints_bound_by_how_much() {
    let mut node = Node::new();
    node.grant(7, 3600).unwrap();
    node.grant(8, 60).unwrap();
    let mut now_ms = 0;
    // Ten leaders, each for 400 s.
    for reign in 1..=9_i64 {
        lead(&mut node, now_ms, 1000);
        assert_eq!(renew(&node, 8, now_ms), Ok(Renewal::Renewed { ttl_seconds: 60 }));
        assert_eq!(node.store.leases_to_checkpoint(now_ms + 299_999).unwrap(), None);
        let noted = node.store.leases_to_checkpoint(now_ms + 300_000).unwrap().unwrap();
        let Command::LeaseCheckpoint { checkpoints, .. } = &noted else { panic!("{noted:?}") };
        // Only the long one; 300 s of it are gone, and 1 s was added by this leader.
        let remaining_seconds = 3600 - reign * 299;
        let want = LeaseCheckpoint { id: 7, granted: Index(1), remaining_seconds };
        assert_eq!(checkpoints, &[want]);
        node.run(&noted).unwrap();
        now_ms += 400_000;
    }
    // Before it is renewed the promise has to be whole again.
    lead(&mut node, now_ms, 1000);
    let Ok(Renewal::After(whole)) = renew(&node, 7, now_ms) else { panic!() };
    node.run(&whole).unwrap();
    assert_eq!(renew(&node, 7, now_ms), Ok(Renewal::Renewed { ttl_seconds: 3600 }));
    lead(&mut node, 0, 0);
    assert_eq!(left(&node, 7, 0), 3600);
}

#[test]
fn a_checkpoint_that_comes_after_a_renewal_shortens_nothing() {
    let mut node = Node::new();
    node.grant(7, 3600).unwrap();
    lead(&mut node, 0, 0);
    let late = node.store.leases_to_checkpoint(300_000).unwrap().unwrap();
    // The renewal does not know whether the checkpoint is on its way.
    let Ok(Renewal::After(whole)) = renew(&node, 7, 300_001) else { panic!() };
    node.run(&whole).unwrap();
    assert_eq!(renew(&node, 7, 300_002), Ok(Renewal::Renewed { ttl_seconds: 3600 }));
    node.run(&late).unwrap();
    lead(&mut node, 300_003, 0);
    assert_eq!(left(&node, 7, 300_003), 3600);
}

#[test]
fn a_checkpoint_made_while_another_is_taken_back_counts() {
    let mut node = Node::new();
    node.grant(7, 3600).unwrap();
    lead(&mut node, 0, 0);
    let first = node.store.leases_to_checkpoint(300_000).unwrap().unwrap();
    node.run(&first).unwrap();
    let Ok(Renewal::After(whole)) = renew(&node, 7, 599_999) else { panic!() };
    let second = node.store.leases_to_checkpoint(600_000).unwrap().unwrap();
    node.run(&whole).unwrap();
    let Ok(Renewal::After(whole)) = renew(&node, 7, 600_001) else { panic!() };
    node.run(&second).unwrap();
    node.run(&whole).unwrap();
    assert_eq!(renew(&node, 7, 600_001), Ok(Renewal::Renewed { ttl_seconds: 3600 }));
    lead(&mut node, 600_002, 0);
    assert_eq!(left(&node, 7, 600_002), 3600);
}

#[test]
fn leases_are_listed_with_what_is_left() {
    let mut node = led();
    node.put_leased("b", 7);
    node.put_leased("a", 7);
    let revision = node.store.revision();
    let asked = node.store.lease_time_to_live(7, true, 2_001).unwrap();
    let keys = vec![bytes("a"), bytes("b")];
    let want =
        LeaseTimeToLiveResponse { revision, id: 7, ttl_seconds: 9, granted_seconds: 10, keys };
    assert_eq!(asked, want);
    for id in [0, 99] {
        let asked = node.store.lease_time_to_live(id, true, 2_001).unwrap();
        let want = (id, -1, 0, vec![]);
        assert_eq!((asked.id, asked.ttl_seconds, asked.granted_seconds, asked.keys), want);
    }
    node.grant(1, 30).unwrap();
    let ids = |node: &Node| node.store.leases().unwrap().ids;
    assert_eq!(ids(&node), [7, 1, 8], "what ends first");
    node.store.lease_renew(7, 60_000).unwrap();
    node.store.follow_leases().unwrap();
    assert_eq!(ids(&node), [1, 7, 8], "by id");
}

#[test]
fn many_leases_are_cheap() {
    const COUNT: i64 = 100_000;
    let mut node = Node::new();
    let entries: Vec<Entry> = (1..=COUNT)
        .map(|id| entry(id as u64, &Command::LeaseGrant { id, ttl_seconds: 10 + id % 1000 }))
        .collect();
    let mut done = 0;
    while done < entries.len() {
        done += node.store.apply(&entries[done..]).unwrap().responses.len();
    }
    node.log = entries;
    assert!(node.store.lead_leases(TERM, 0, 0).unwrap());
    for id in 1..=COUNT {
        assert!(matches!(renew(&node, id, 1000), Ok(Renewal::Renewed { .. })));
    }
    // Ends come in their order, a bounded number at a time.
    let mut last = 0;
    let mut ended = 0;
    while let commands = node.store.leases_expired(200_000, 1000).unwrap()
        && !commands.is_empty()
    {
        assert!(commands.len() <= 1000);
        for command in &commands {
            let Command::LeaseExpire { id, .. } = command else { panic!("{command:?}") };
            assert!(last <= id % 1000, "the oldest first");
            last = id % 1000;
            ended += 1;
        }
    }
    assert_eq!((ended, last), (190 * 100, 189));
}

/// A leader that comes and goes, a clock that jumps: no lease ends before its time, and every lease
/// ends that nobody renews.
#[test]
fn no_lease_ends_early_and_none_is_immortal() {
    for seed in 1..=20 {
        let mut dice = Dice(seed);
        let mut node = Node::new();
        let mut now_ms = 1_000_000;
        // What leaders have said and what has not come yet; any of it may be lost.
        let mut late = Vec::new();
        // Until when each lease was promised to live.
        let mut promised = std::collections::BTreeMap::new();
        let mut next = 1;
        for _ in 0..400 {
            now_ms += *dice.pick(&[0, 1, 10, 500, 900, 5_000, 400_000]);
            match dice.roll(10) {
                0 => {
                    let ttl_seconds = *dice.pick(&[1, 2, 10, 600, 5000]);
                    node.grant(next, ttl_seconds).unwrap();
                    promised.insert(next, now_ms + ttl_seconds as u64 * 1000);
                    next += 1;
                }
                1 => node.store.follow_leases().unwrap(),
                2 => lead(&mut node, now_ms, dice.roll(2000)),
                3 => {
                    late.extend(node.store.leases_to_checkpoint(now_ms).unwrap());
                    late.extend(node.store.leases_expired(now_ms, 2).unwrap());
                }
                4 | 5 => {
                    let id = 1 + dice.roll(next as u64) as i64;
                    match renew(&node, id, now_ms) {
                        Ok(Renewal::Renewed { ttl_seconds }) => {
                            promised.insert(id, now_ms + ttl_seconds as u64 * 1000);
                        }
                        // It is on its way like all the others.
                        Ok(Renewal::After(command)) if dice.roll(2) == 0 => late.push(command),
                        Ok(Renewal::After(command)) => {
                            node.run(&command).unwrap();
                        }
                        Ok(Renewal::Expiring) => assert!(promised[&id] <= now_ms),
                        Err(_) => {}
                    }
                }
                6 | 7 if !late.is_empty() => {
                    let _ = node.run(&late.swap_remove(dice.roll(late.len() as u64) as usize));
                }
                _ => {
                    expire(&mut node, now_ms);
                }
            }
            let alive = node.store.leases().unwrap().ids;
            for (id, until_ms) in &promised {
                let lives = alive.contains(id);
                assert!(lives || *until_ms <= now_ms, "seed {seed}: {id} ended too early");
            }
            promised.retain(|id, _| alive.contains(id));
        }
        lead(&mut node, now_ms, 1000);
        expire(&mut node, now_ms + 5_001_000);
        assert_eq!(node.store.leases_count(), 0, "seed {seed}");
    }
}
