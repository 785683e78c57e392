//! A member that comes back without the data it took part with, or with someone else's.

use std::process::Command;

use crate::bad_input::assert_refused;
use crate::harness::{Cluster, quorate};

const QUICK: &[&str] = &["--heartbeat-interval", "50", "--election-timeout", "500"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_takes_part_no_more_and_takes_nothing_with_it() {
    let mut cluster = Cluster::start(3, QUICK).await;
    // After it, the third has in its log what the others have published.
    cluster.fill(&[0, 1, 2], "before", 64).await;
    assert!(cluster.read(2, b"before", false).await.is_some());
    cluster.kill(2);
    cluster.fill(&[0, 1], "acknowledged", 1).await;
    cluster.kill(0);
    cluster.kill(1);

    // The first and the third are a majority, and neither has what was acknowledged.
    std::fs::remove_dir_all(cluster.data_dir(0)).unwrap();
    cluster.spawn(2);
    for _ in 0..2 {
        // The second time it has a directory again, but not the one it is known by.
        cluster.spawn(0);
        let status = cluster.ended(0).expect("it was started");
        assert_eq!(status.code(), Some(1), "{}", cluster.log(0));
    }
    let said = "the node has stopped: member has already been bootstrapped";
    assert_eq!(cluster.log(0).matches(said).count(), 2, "{}", cluster.log(0));

    cluster.spawn(1);
    cluster.settle().await;
    for at in [1, 2] {
        let held = cluster.read(at, b"acknowledged/00000000", false).await.unwrap();
        assert_eq!(held.count, 1, "member {at} lost what was acknowledged");
    }
    assert!(cluster.log(2).contains("the node's log is not the one it is known by"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_another_member_is_refused() {
    let mut cluster = Cluster::start(2, QUICK).await;
    assert!(cluster.stop(0));
    assert!(cluster.stop(1));
    let (ours, theirs) = (cluster.data_dir(0), cluster.data_dir(1));
    let kept = cluster.directory.path().join("kept");

    std::fs::rename(ours.join("kv.redb"), &kept).unwrap();
    std::fs::copy(theirs.join("kv.redb"), ours.join("kv.redb")).unwrap();
    assert_refused(cluster.command(0), &["kv.redb", "belongs to member"]);
    std::fs::rename(&kept, ours.join("kv.redb")).unwrap();

    std::fs::rename(&ours, &kept).unwrap();
    let copied = Command::new("cp").arg("-a").arg(&theirs).arg(&ours).status().unwrap();
    assert!(copied.success());
    let command = cluster.command(0);
    let mut existing = quorate();
    existing.args(
        command.get_args().map(
            |argument| {
                if argument == "new" { "existing".as_ref() } else { argument }
            },
        ),
    );
    for command in [command, existing] {
        assert_refused(command, &["belongs to member \"n2\""]);
    }
    std::fs::remove_dir_all(&ours).unwrap();
    std::fs::rename(&kept, &ours).unwrap();

    // Nothing was changed by any of it.
    cluster.spawn(0);
    cluster.spawn(1);
    cluster.settle().await;
}
