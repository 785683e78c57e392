//! A map that three processes keep the same. In three terminals:
//!
//! ```text
//! cargo run -p quorate-gometa --example replicated_map -- 1 map
//! cargo run -p quorate-gometa --example replicated_map -- 2 map
//! cargo run -p quorate-gometa --example replicated_map -- 3 map
//! ```
//! Each takes lines: `set KEY VALUE`, `del KEY`, `get KEY`, `who`. Kill any one of them, and start it
//! again: nothing that was answered with `done` is lost. `-- watch map` follows without a vote.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_gometa::{
    ElectionSite, Kill, Lanes, MemoryActions, NoCustomRequests, NoRequests, Peer, RequestQueue,
    Signals, SiteConfig, SiteHandle, run_server, run_watcher_server_with_election,
};
use quorate_zab::{Command, Op, Outcome};
use tokio::sync::mpsc;

use crate::journal::Journal;

mod journal;

/// Where member 1, 2 or 3 is reached.
fn peer(number: u16) -> Peer {
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    Peer::new(at(19_980 + 2 * number), at(19_981 + 2 * number))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, directory] = &arguments[..] else {
        return Err("usage: replicated_map 1|2|3|watch DIRECTORY".into());
    };
    let members = [peer(1), peer(2), peer(3)];
    let kill = Kill::new();
    match name.as_str() {
        "watch" => watch(&members, &kill).await,
        number => serve(number.parse()?, Path::new(directory), &members, &kill).await,
    }
}

/// One voter, and a prompt for its users.
async fn serve(
    number: u16,
    directory: &Path,
    members: &[Peer],
    kill: &Kill,
) -> Result<(), Box<dyn Error>> {
    let own = peer(number);
    std::fs::create_dir_all(directory)?;
    let path: PathBuf = directory.join(format!("member-{number}"));
    let journal = Arc::new(Journal::open(&path)?);
    let lanes = Lanes::bind(own.election, own.message).await?;
    let config = SiteConfig::voter(own, members);
    let mut site = ElectionSite::create(config, lanes, journal.clone()).await?;
    let requests = Arc::new(RequestQueue::new(100));
    let prompt = tokio::spawn(prompt(journal, Arc::clone(&requests), site.handle(), kill.clone()));
    run_server(&mut site, &*requests, None::<&NoCustomRequests>, kill).await?;
    prompt.abort();
    Ok(())
}

/// Reads lines until there are no more.
async fn prompt(
    journal: Arc<Journal>,
    requests: Arc<RequestQueue>,
    handle: SiteHandle,
    kill: Kill,
) {
    let (typed, mut lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if typed.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = lines.recv().await {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let command = match words[..] {
            ["set", key, value] => Command::set(key, value.to_owned()),
            ["del", key] => Command { op: Op::DELETE, ..Command::set(key, "") },
            ["get", key] => {
                // What this member has applied; another one may be ahead.
                println!("{}", journal.value(key).unwrap_or_else(|| "nothing".to_owned()));
                continue;
            }
            ["who"] => {
                println!("{:?}", *handle.status().borrow());
                continue;
            }
            _ => {
                println!("set KEY VALUE | del KEY | get KEY | who");
                continue;
            }
        };
        match requests.request(command).await {
            Outcome::Committed { zxid, .. } => println!("done: {zxid}"),
            Outcome::Refused { reason } => println!("refused, nothing was done: {reason}"),
            Outcome::Answered { error, .. } => println!("{error}"),
            Outcome::Unknown => println!("unknown: the leader was lost on the way"),
        }
    }
    kill.kill();
}

/// Shows how much has been applied, whenever that changes.
async fn watch(members: &[Peer], kill: &Kill) -> Result<(), Box<dyn Error>> {
    let lanes = Lanes::bind_election("127.0.0.1:0".parse()?).await?;
    let own = lanes.election_address().ok_or("no port")?;
    let actions = Arc::new(MemoryActions::new());
    let shown = Arc::clone(&actions);
    let show = async move {
        let mut before = None;
        loop {
            let last = shown.applied().last().copied();
            if last != before {
                println!("{} keys, up to {}", shown.count(), last.unwrap_or_default());
                before = last;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let config = SiteConfig::watcher(Peer::new(own, own), members);
    let run = run_watcher_server_with_election(
        config,
        lanes,
        actions,
        &NoRequests,
        kill,
        Signals::default(),
    );
    tokio::select! {
        ended = run => Ok(ended?),
        () = show => Ok(()),
    }
}
