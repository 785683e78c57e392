use std::sync::{Condvar, Mutex};

use quorate_zab::{Address, Command, Epoch};

use super::*;

/// Writes down what it is told; the first call waits until it may go on.
#[derive(Default)]
struct Diary {
    lines: Mutex<Vec<String>>,
    is_open: Mutex<bool>,
    opened: Condvar,
    fails: Option<&'static str>,
}

impl Diary {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn write(&self, line: String) -> Result<(), ActionError> {
        let mut is_open = self.is_open.lock().unwrap();
        while !*is_open {
            is_open = self.opened.wait(is_open).unwrap();
        }
        match self.fails {
            Some("panic") => panic!("as it is meant to"),
            Some(why) => return Err(why.into()),
            None => {}
        }
        self.lines.lock().unwrap().push(line);
        Ok(())
    }
}

fn ids(entries: &[Entry]) -> String {
    let ids: Vec<String> = entries.iter().map(|entry| entry.zxid.to_string()).collect();
    ids.join(" ")
}

impl ActionHandler for Diary {
    fn accepted_epoch(&self) -> Result<(Epoch, Option<Address>), ActionError> {
        Ok((Epoch(0), None))
    }
    fn current_epoch(&self) -> Result<Epoch, ActionError> {
        Ok(Epoch(0))
    }
    fn last_logged_txid(&self) -> Result<Zxid, ActionError> {
        Ok(Zxid::ZERO)
    }
    fn last_committed_txid(&self) -> Result<Zxid, ActionError> {
        Ok(Zxid::ZERO)
    }
    fn committed_entries(
        &self,
        _: Zxid,
        _: Zxid,
        _: u64,
    ) -> Result<Vec<(Zxid, Command)>, ActionError> {
        Ok(Vec::new())
    }
    fn notify_new_accepted_epoch(&self, epoch: Epoch, leader: &Address) -> Result<(), ActionError> {
        self.write(format!("accept {epoch} of {leader}"))
    }
    fn notify_new_current_epoch(&self, epoch: Epoch) -> Result<(), ActionError> {
        self.write(format!("enter {epoch}"))
    }
    fn log_proposal(&self, entries: &[Entry]) -> Result<(), ActionError> {
        self.write(format!("log {}", ids(entries)))
    }
    fn replace_tail(&self, after: Zxid, entries: &[Entry]) -> Result<(), ActionError> {
        self.write(format!("after {after} {}", ids(entries)))
    }
    fn commit(&self, entries: &[Entry]) -> Result<(), ActionError> {
        self.write(format!("commit {}", ids(entries)))
    }
    fn install(&self, state: &Snapshot) -> Result<(), ActionError> {
        self.write(format!("install {}", state.zxid))
    }
}

fn entry(counter: u32) -> Entry {
    let index = Index(u64::from(counter));
    Entry { index, zxid: Zxid::new(Epoch(1), counter), command: Command::set("k", "v") }
}

fn append(id: u64) -> Job {
    let entries = vec![entry(u32::try_from(id).unwrap())];
    Job::Write(Writing { id: WriteId(id), entries, ..Writing::default() })
}

/// Gives all of `jobs` while the thread waits in the first one; what it wrote down, and reported.
async fn run(fails: Option<&'static str>, jobs: Vec<Job>) -> (Vec<String>, Vec<String>) {
    let diary = Arc::new(Diary { fails, ..Diary::default() });
    let (mut worker, mut done) = Worker::start(diary.clone(), HardState::default()).unwrap();
    for job in jobs {
        worker.give(job);
    }
    diary.open();
    worker.end().await;
    let mut reported = Vec::new();
    while let Some(done) = done.recv().await {
        reported.push(format!("{done:?}"));
    }
    let lines = diary.lines.lock().unwrap().clone();
    (lines, reported)
}

#[tokio::test]
async fn a_write_is_stored_in_an_order_that_a_crash_may_cut() {
    let hard_state = HardState {
        accepted_epoch: Epoch(2),
        accepted_leader: Some("10.0.0.1:9999".into()),
        current_epoch: Epoch(2),
        committed: Zxid::ZERO,
    };
    let write = Writing {
        id: WriteId(1),
        install: None,
        replace_after: Some(Zxid::new(Epoch(1), 4)),
        entries: vec![entry(5), entry(6)],
        hard_state: Some(hard_state.clone()),
    };
    // What is stored already is not stored again.
    let same = Writing {
        id: WriteId(2),
        entries: vec![entry(7)],
        hard_state: Some(hard_state.clone()),
        ..Writing::default()
    };
    // A state goes before what follows on it.
    let state = Writing {
        id: WriteId(3),
        install: Some(Snapshot { zxid: Zxid::new(Epoch(2), 8), ..Snapshot::default() }),
        entries: vec![entry(9)],
        hard_state: Some(HardState {
            accepted_epoch: Epoch(3),
            current_epoch: Epoch(3),
            ..hard_state
        }),
        ..Writing::default()
    };
    let jobs = [write, same, state].map(Job::Write);
    let (lines, reported) = run(None, jobs.into()).await;
    let want = ["accept 2 of 10.0.0.1:9999", "after 1.4 1.5 1.6", "enter 2", "log 1.7"];
    assert_eq!(lines[..4], want);
    assert_eq!(lines[4..], ["accept 3 of 10.0.0.1:9999", "install 2.8", "log 1.9", "enter 3"]);
    let written = ["Written(WriteId(1))", "Written(WriteId(2))", "Written(WriteId(3))"];
    assert_eq!(reported, written);
}

#[tokio::test]
async fn writes_that_wait_become_one_call() {
    let (lines, reported) = run(None, (1..=4).map(append).collect()).await;
    // The first may be taken before the others are there.
    let text = lines.join(", ").replace(", log", "");
    assert_eq!(text, "log 1.1 1.2 1.3 1.4");
    assert!(lines.len() <= 4);
    assert_eq!(reported.last().map(String::as_str), Some("Written(WriteId(4))"));
}

#[tokio::test]
async fn what_is_committed_is_applied_in_order() {
    let jobs = vec![Job::Commit(vec![entry(1), entry(2)]), append(4), Job::Commit(vec![entry(3)])];
    let (lines, reported) = run(None, jobs).await;
    let commits: Vec<&String> = lines.iter().filter(|line| line.starts_with("commit")).collect();
    assert_eq!(commits, ["commit 1.1 1.2", "commit 1.3"]);
    assert!(reported.contains(&"Committed(Index(3))".to_owned()));
}

#[tokio::test]
async fn a_call_that_fails_is_the_last_one() {
    for (fails, want) in [
        ("disk full", "Failed(ActionError(\"disk full\"))"),
        ("panic", "Failed(ActionError(\"a call of the application panicked\"))"),
    ] {
        let (lines, reported) = run(Some(fails), (1..=2).map(append).collect()).await;
        assert_eq!(lines, Vec::<String>::new());
        assert_eq!(reported, [want]);
    }
}

#[tokio::test]
async fn logging_and_committing_are_two_steps() {
    let diary = Diary::default();
    diary.open();
    diary.log_and_commit(&entry(1), false).unwrap();
    diary.log_and_commit(&entry(2), true).unwrap();
    assert_eq!(*diary.lines.lock().unwrap(), ["log 1.1", "log 1.2", "commit 1.2"]);
}
