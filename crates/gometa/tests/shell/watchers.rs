//! Watchers: with the leader known or asked for, authenticated or not, asking and only watching.

use std::sync::Arc;
use std::time::Duration;

use quorate_gometa::{
    Kill, Lanes, MemoryActions, NoRequests, PasswordAuth, Peer, RequestQueue, Signals, SiteConfig,
    run_watcher_server, run_watcher_server_with_auth, run_watcher_server_with_election,
    run_watcher_server_with_request,
};
use quorate_zab::{Command, Op, Outcome};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::harness::*;

fn quick(mut config: SiteConfig) -> SiteConfig {
    config.engine.backoff_ms = 20;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_of_an_ensemble_sees_all_in_order_whoever_leads() {
    let mut nodes = ensemble(3, |_| {}).await;
    let members = members(&nodes);
    for number in 0..50 {
        nodes[0].must_set(&number.to_string(), "early").await;
    }
    let lanes = Lanes::bind_election(any()).await.unwrap();
    let own = Peer::new(lanes.election_address().unwrap(), "127.0.0.1:1".parse().unwrap());
    let config = quick(SiteConfig::watcher(own, &members));
    let actions = Arc::new(MemoryActions::new());
    let requests = Arc::new(RequestQueue::new(10));
    let (kill, (ready, is_ready)) = (Kill::new(), oneshot::channel());
    let watcher = tokio::spawn({
        let (actions, requests, kill) = (actions.clone(), requests.clone(), kill.clone());
        async move {
            let signals = Signals { ready: Some(ready), ..Signals::default() };
            let run = run_watcher_server_with_election(
                config, lanes, actions, &*requests, &kill, signals,
            );
            run.await
        }
    });
    timeout(LONG, is_ready).await.unwrap().unwrap();
    let asked = timeout(LONG, requests.request(Command::set("by the watcher", "x"))).await;
    assert!(matches!(asked, Ok(Outcome::Committed { .. })), "{asked:?}");
    assert!(actions.value("by the watcher").is_some(), "applied where it was asked for");
    let size = || nodes[leader(&nodes)].status().active_ensemble_size;
    until("three, for a watcher has no vote", || size() == 3).await;

    let dies = leader(&nodes);
    nodes.remove(dies).end().await;
    nodes[0].insist("after", "x").await;
    until("it has found the next leader", || actions.value("after").is_some()).await;
    agree(&[&actions, &nodes[0].actions]).await;
    kill.kill();
    timeout(LONG, watcher).await.expect("a killed watcher ends").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_of_a_known_leader_comes_back_and_answers_pings() {
    // gometa's embedded form: a leader of one, and watchers.
    let (lanes, own) = ports().await;
    let node = Node::start(lanes, own, &[own], Arc::default(), |_| {}).await;
    node.must_set("x", "1").await;
    let config = quick(SiteConfig::watcher_of("127.0.0.1:1".parse().unwrap(), own.message));
    let (kill, (ready, is_ready)) = (Kill::new(), oneshot::channel());
    let ((ping, pinged), (alive, mut is_alive)) = (mpsc::channel(1), mpsc::channel(1));
    let actions = Arc::new(MemoryActions::new());
    let watcher = tokio::spawn({
        let (actions, kill) = (actions.clone(), kill.clone());
        async move {
            let signals = Signals { ready: Some(ready), ping: Some(pinged), alive: Some(alive) };
            run_watcher_server_with_request(config, actions, &NoRequests, &kill, signals).await
        }
    });
    timeout(LONG, is_ready).await.unwrap().unwrap();
    for _ in 0..2 {
        ping.send(()).await.unwrap();
        timeout(LONG, is_alive.recv()).await.unwrap().unwrap();
    }
    until("it has what was there", || actions.value("x").is_some()).await;

    let (peer, stored) = node.end().await;
    let lanes = Lanes::bind(peer.election, peer.message).await.unwrap();
    let node = Node::start(lanes, own, &[own], stored, |_| {}).await;
    node.must_set("y", "2").await;
    until("it came back", || actions.value("y").is_some()).await;
    agree(&[&actions, &node.actions]).await;
    kill.kill();
    timeout(LONG, watcher).await.expect("a killed watcher ends").unwrap().unwrap();
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_without_a_leader_can_be_killed() {
    let config =
        SiteConfig::watcher_of("127.0.0.1:1".parse().unwrap(), "127.0.0.1:9".parse().unwrap());
    let kill = Kill::new();
    let run = run_watcher_server(config, Arc::new(MemoryActions::new()), &kill, None);
    let ends = async {
        sleep(Duration::from_millis(50)).await;
        kill.kill();
    };
    let (ended, ()) = timeout(LONG, async { tokio::join!(run, ends) }).await.unwrap();
    ended.unwrap();
}

fn password(password: &str) -> PasswordAuth {
    let (user, password) = ("admin".to_owned(), password.to_owned());
    PasswordAuth { op: Op(60), user, password, admits_others: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_knows_the_password_is_admitted() {
    let guarded: Tune = |config| config.server_auth = Some(Arc::new(password("right")));
    let (lanes, own) = ports().await;
    let node = Node::start(lanes, own, &[own], Arc::default(), guarded).await;
    node.must_set("x", "1").await;
    for (name, auth, is_admitted) in
        [(1, Some(password("right")), true), (2, Some(password("wrong")), false), (3, None, false)]
    {
        let fid = format!("127.0.0.1:{name}").parse().unwrap();
        let config = quick(SiteConfig::watcher_of(fid, own.message));
        let (kill, actions) = (Kill::new(), Arc::new(MemoryActions::new()));
        let watcher = tokio::spawn({
            let (actions, kill) = (actions.clone(), kill.clone());
            async move {
                match auth {
                    Some(auth) => {
                        let (auth, signals) = (Arc::new(auth), Signals::default());
                        run_watcher_server_with_auth(
                            config,
                            actions,
                            &NoRequests,
                            auth,
                            &kill,
                            signals,
                        )
                        .await
                    }
                    None => run_watcher_server(config, actions, &kill, None).await,
                }
            }
        });
        match is_admitted {
            true => until("it is admitted", || actions.value("x").is_some()).await,
            false => {
                sleep(Duration::from_millis(200)).await;
                assert_eq!(actions.count(), 0, "{name}");
            }
        }
        kill.kill();
        timeout(LONG, watcher).await.unwrap().unwrap().unwrap();
    }
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_authenticate_to_each_other() {
    let nodes = ensemble(3, |config| {
        config.server_auth = Some(Arc::new(password("right")));
        config.client_auth = Some(Arc::new(password("right")));
    })
    .await;
    nodes[0].must_set("x", "1").await;
}
