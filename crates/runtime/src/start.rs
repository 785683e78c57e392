//! From a directory to a running node, and what each state of the directory means.
//!
//! ```text
//! <data-dir>/lock        held while the process lives
//!            kv.redb     the machine's state as of its last flush
//!            wal/        the log; made last, so its presence means "complete"
//!            started     made after the log and before the node says its first word
//!            snap/       snapshots being received
//! ```
//! | log | state | means |
//! | --- | --- | --- |
//! | absent | absent, or never started | a new node: both are made, the log last |
//! | absent | with history, or `started` is there | the log is lost: refuse, since what was acknowledged may be gone |
//! | present | absent or behind the log's mark | a snapshot was being installed: install it, or refuse |
//! | present | at or after the mark | replay the log after the state |

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_kv::Store;
use quorate_net::{Net, NetConfig};
use quorate_raft::{ConfState, SnapshotMetadata};
use quorate_replica::{
    Config, Engine, Found, HardState, Initial, Replica, RequestIds, Start, Writing,
    first_conf_state, first_log, joining_conf_state, joining_log, snapshot_at, start,
};
use quorate_types::{GroupId, Index, Life, Mark, NodeId, Term};
use quorate_wal::{Identity, Options, RealDisk, Recovered, Wal, WalError};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::board::Board;
use crate::drive::Driver;
use crate::machine::{StateFile, told_now_and_then};
use crate::metrics::Metrics;
use crate::node::{Inner, Node, NodeConfig, OTHER_LIFE, REMOVED};
use crate::peers::{Peers, is_other_life, known_lives};
use crate::progress::Progress;
use crate::revisions::Revisions;
use crate::room::Room;
use crate::snapshot::{self, Receiver, Sender};
use crate::waiters::Waiters;
use crate::{apply, disk, force};

/// The only group of a node so far.
pub(crate) const GROUP: GroupId = GroupId(1);

/// What may stand in a message beside its longest entry: the rest of a full one, and envelopes.
const FRAME_OVERHEAD_BYTES: u64 = 2 << 20;

/// Why a node did not start. Nothing was changed unless the text says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another process has it.
    #[error(
        "data directory {} is in use by another process; stop that one, or give this node a \
         directory of its own", path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("{what} {}: {error}; is the directory there and writable by this user?", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        error: io::Error,
    },
    /// It holds the data of someone else.
    #[error(
        "data directory {} belongs to member {found_node:x} of cluster {found_cluster:x}, not to \
         member {node:x} of cluster {cluster:x}; use the directory of this member, or an empty one",
        path.display()
    )]
    OtherMember {
        /// The directory.
        path: PathBuf,
        /// Whose data it holds.
        found_node: NodeId,
        /// Of which cluster.
        found_cluster: u64,
        /// Who was to start.
        node: NodeId,
        /// Of which cluster.
        cluster: u64,
    },
    /// It is of a member that runs the other engine.
    #[error(
        "data directory {} is of a member that runs the engine {found}, and this one was told to \
         run {wanted}: start it with --engine {found}, as all members of its cluster do, or give it \
         a directory of its own", path.display()
    )]
    OtherEngine {
        /// The directory.
        path: PathBuf,
        /// Whose log it holds.
        found: Engine,
        /// What was to run.
        wanted: Engine,
    },
    /// No member can be added to a cluster with this engine.
    #[error(
        "the engine zab has a fixed membership: a member without data cannot join; name all members \
         when the cluster is founded, or use the engine raft"
    )]
    FixedMembership,
    /// Nothing is there and no members were named.
    #[error("data directory {} is empty and no members of a new cluster were named", path.display())]
    NoMembers {
        /// The directory.
        path: PathBuf,
    },
    /// The state is there, but its log is not.
    #[error(
        "{} is of a member that took part up to log index {applied} or further, but its log is \
         missing: what this member acknowledged may be lost. Put the log back as it was when the \
         member last ran; an empty directory will not do. The other members go on while they are a \
         majority", path.display()
    )]
    LogMissing {
        /// The directory.
        path: PathBuf,
        /// What the state covers.
        applied: Index,
    },
    /// The log begins after what the state covers.
    #[error(
        "the log in {} begins after index {mark}, but the state reaches only {applied} and no \
         received snapshot is there: put kv.redb and snap back as they were when the member last \
         ran; an empty directory will not do. The other members go on while they are a majority",
        path.display()
    )]
    StateMissing {
        /// The directory.
        path: PathBuf,
        /// Where the log begins.
        mark: Index,
        /// What the state covers.
        applied: Index,
    },
    /// The cluster knows the member by another log than the one in the directory.
    #[error("data directory {}: {OTHER_LIFE}", path.display())]
    OtherLife {
        /// The directory.
        path: PathBuf,
    },
    /// The cluster has removed the member.
    #[error("data directory {}: {REMOVED}", path.display())]
    Removed {
        /// The directory.
        path: PathBuf,
    },
    /// The member cannot go on alone.
    #[error("cannot go on alone with the member in {}: {why}", path.display())]
    Force {
        /// The directory.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The log cannot be used.
    #[error("the log in {}: {error}", path.display())]
    Log {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: WalError,
    },
    /// The state cannot be used.
    #[error("the state in {}: {why}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Log and state are readable and contradict each other, or the settings do not fit together.
    #[error(transparent)]
    Replica(#[from] quorate_replica::StartError),
    /// The transport's settings or sockets.
    #[error("transport: {0}")]
    Net(String),
}

/// Whose data a directory holds, if anyone's.
///
/// # Errors
///
/// When the directory cannot be read or the newest file of its log is damaged there. The rest of the log
/// is read, and judged, by [`Node::start`].
pub fn inspect(data_dir: &Path) -> Result<Option<Identity>, StartError> {
    let path = Layout::new(data_dir).wal;
    let found = || {
        if !Wal::exists(&RealDisk, &path)? {
            return Ok(None);
        }
        Ok(Some(Wal::identify(&RealDisk, &path)?))
    };
    found().map_err(|error| StartError::Log { path: path.clone(), error })
}

/// What the file of the state is called.
pub(crate) const STATE_FILE: &str = "kv.redb";

pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    pub(crate) wal: PathBuf,
    pub(crate) kv: PathBuf,
    pub(crate) snap: PathBuf,
    started: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Layout {
            root: root.to_owned(),
            wal: root.join("wal"),
            kv: root.join(STATE_FILE),
            snap: root.join("snap"),
            started: root.join("started"),
        }
    }

    fn state_file(&self, cache_bytes: usize, room: Arc<Room>) -> StateFile {
        let (path, snap_dir, building) = (self.kv.clone(), self.snap.clone(), Mutex::default());
        StateFile { path, snap_dir, cache_bytes, room, building }
    }
}

/// What storage gave back.
struct Opened {
    life: Life,
    wal: Wal,
    store: Store,
    initial: Initial,
    state_file: StateFile,
    /// Every thread that may write holds it, so that it ends with the last of them.
    lock: Arc<File>,
}

impl Node {
    /// Starts a node from its directory, or makes a new one there. Must be called on a tokio
    /// runtime, which then carries the transport.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; nothing listens or runs after an error.
    pub async fn start(mut config: NodeConfig) -> Result<Node, StartError> {
        let listeners = std::mem::take(&mut config.peer_listeners);
        let config = Arc::new(config);
        let settings = Arc::clone(&config);
        let metrics = Arc::new(Metrics::default());
        let room = Arc::new(Room::new(Arc::clone(&metrics)));
        let opened = tokio::task::spawn_blocking(move || open(&settings, room))
            .await
            .map_err(net_error)??;
        run(&config, opened, metrics, listeners)
    }
}

fn open(config: &NodeConfig, room: Arc<Room>) -> Result<Opened, StartError> {
    let layout = Layout::new(&config.data_dir);
    make_directory(&layout.root)?;
    let lock = Arc::new(lock(&layout.root)?);
    make_directory(&layout.snap)?;
    let log_error = |error| StartError::Log { path: layout.wal.clone(), error };
    let disk = Arc::new(RealDisk);
    let state_file = layout.state_file(config.cache_bytes, room);

    if !Wal::exists(&*disk, &layout.wal).map_err(log_error)? {
        if config.joins && config.engine == Engine::Zab {
            return Err(StartError::FixedMembership);
        }
        bootstrap(config, &layout, &state_file)?;
        let (first, hard_state) = match config.joins {
            true => joining_log(),
            false => first_log(config.engine),
        };
        let (cluster, node, life) = (config.cluster, config.node, draw_life());
        let identity = Identity { cluster, node, group: GROUP, life };
        Wal::create(
            disk.clone(),
            &layout.wal,
            identity,
            Options::default(),
            &first,
            Some(hard_state),
        )
        .map_err(log_error)?;
    }

    let mut progress = told_now_and_then("reading the log");
    let (wal, recovered) =
        Wal::open(disk, &layout.wal, Options::default(), &mut progress).map_err(log_error)?;
    let found = &recovered.identity;
    if found.node != config.node || found.cluster != config.cluster {
        return Err(StartError::OtherMember {
            path: layout.root,
            found_node: found.node,
            found_cluster: found.cluster,
            node: config.node,
            cluster: config.cluster,
        });
    }
    if let Some(torn) = &recovered.torn {
        tracing::warn!(?torn, "the log ended in an unfinished write, which was cut off");
    }
    if let Some(record) = &recovered.hard_state
        && let Ok(found) = HardState::decode(record.clone())
        && found.engine() != config.engine
    {
        return Err(StartError::OtherEngine {
            path: layout.root,
            found: found.engine(),
            wanted: config.engine,
        });
    }
    let life = recovered.identity.life;
    let store = open_state(config, &layout, &state_file, &recovered.mark)?;
    if is_other_life(config.node, life, &store.membership()) {
        return Err(StartError::OtherLife { path: layout.root });
    }
    if store.membership().is_removed(config.node.0) {
        return Err(StartError::Removed { path: layout.root });
    }
    // Who is to go on alone gets a new list: an earlier try may have left the two different.
    if !config.force_new_cluster {
        apply::check_members(&store).map_err(|error| StartError::State {
            path: layout.kv.clone(),
            why: error.to_string(),
        })?;
    }
    mark_started(&layout).map_err(io_error("cannot write", &layout.started))?;
    let mut initial = initial(&layout, recovered, &store)?;
    if config.force_new_cluster {
        force::go_on_alone(config.node, &store, &mut initial)
            .map_err(|why| StartError::Force { path: layout.root.clone(), why })?;
    }
    snapshot::remove_all(&layout.snap).map_err(io_error("clean", &layout.snap))?;
    Ok(Opened { life, wal, store, initial, state_file, lock })
}

/// A life for a new log, never 0. The standard library keys its hashers with the operating system's
/// randomness.
pub(crate) fn draw_life() -> Life {
    Life(RandomState::new().build_hasher().finish().max(1))
}

/// From here on a directory without a log is one that lost it.
fn mark_started(layout: &Layout) -> io::Result<()> {
    if !layout.started.try_exists()? {
        snapshot::create(&layout.started)?.sync_all()?;
        snapshot::sync_directory(&layout.root)?;
    }
    Ok(())
}

/// Why a state could not be opened, with what helps.
fn unreadable(why: &str) -> String {
    format!(
        "{why}. Nothing was changed; if the file is damaged, put kv.redb and snap back as they were \
         when the member last ran: an empty directory will not do. The other members go on while \
         they are a majority"
    )
}

/// Makes the state of a new member. Doing it twice is harmless: the log, made after it, decides.
fn bootstrap(
    config: &NodeConfig,
    layout: &Layout,
    state_file: &StateFile,
) -> Result<(), StartError> {
    let state_error = |why| StartError::State { path: layout.kv.clone(), why };
    let mut found = Found::default();
    // An error is not an absence: nothing may be made in place of what is there.
    let exists = |path: &Path| path.try_exists().map_err(io_error("cannot look for", path));
    if exists(&layout.kv)? {
        // The file gets its name when it is whole: one that cannot be read has history.
        let store = state_file.open_of(config.node, config.cluster);
        let store = store.map_err(|why| state_error(unreadable(&why)))?;
        found.applied = Some(store.applied().index);
    }
    found.has_started = exists(&layout.started)?;
    if let Start::LogMissing { applied } = start(found) {
        return Err(StartError::LogMissing { path: layout.root.clone(), applied });
    }
    if config.members.is_empty() {
        return Err(StartError::NoMembers { path: layout.root.clone() });
    }
    let ((applied, term), conf_state) = if config.joins {
        ((Index(0), Term(0)), joining_conf_state())
    } else {
        let voters = config.members.iter().map(|member| NodeId(member.id)).collect();
        (quorate_replica::FIRST, first_conf_state(voters))
    };
    let initial = quorate_kv::Initial {
        node: config.node,
        cluster_id: config.cluster,
        applied,
        term,
        conf_state,
        members: config.members.clone(),
    };
    state_file.create(initial).map_err(state_error)
}

/// The state, brought up to the log's mark by a received snapshot if it is behind it.
fn open_state(
    config: &NodeConfig,
    layout: &Layout,
    state_file: &StateFile,
    mark: &Mark,
) -> Result<Store, StartError> {
    let state_error = |why| StartError::State { path: layout.kv.clone(), why };
    let mut found = Found { mark: Some(mark.index), has_started: true, ..Found::default() };
    if layout.kv.exists() {
        let store = state_file.open_of(config.node, config.cluster);
        let store = store.map_err(|why| state_error(unreadable(&why)))?;
        found.applied = Some(store.applied().index);
        if start(found) == Start::Replay {
            return Ok(store);
        }
    }
    let applied = found.applied.unwrap_or_default();
    let id = snapshot_at(mark, config.engine);
    let file = snapshot::path(&layout.snap, id);
    if !file.exists() {
        return Err(StartError::StateMissing {
            path: layout.root.clone(),
            mark: mark.index,
            applied,
        });
    }
    tracing::info!(index = mark.index.0, "installing the snapshot that was received last");
    let metadata =
        SnapshotMetadata { index: id.index, term: id.term, conf_state: ConfState::default() };
    state_file.install(config.node, &metadata).map_err(state_error)
}

fn initial(layout: &Layout, recovered: Recovered, store: &Store) -> Result<Initial, StartError> {
    let applied = store.applied();
    let Recovered { mark, hard_state, entries, .. } = recovered;
    Initial::recover(mark, hard_state, entries, applied.index, applied.conf_state)
        .map_err(|error| StartError::State { path: layout.wal.clone(), why: error.to_string() })
}

/// Starts the transport, the three threads, and the loop.
fn run(
    config: &NodeConfig,
    opened: Opened,
    metrics: Arc<Metrics>,
    listeners: Vec<std::net::TcpListener>,
) -> Result<Node, StartError> {
    let Opened { life, wal, store, initial, state_file, lock } = opened;
    let state_file = Arc::new(state_file);
    let room = Arc::clone(&state_file.room);
    let started_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let store = Arc::new(store);
    let waiters = Arc::new(Waiters::new(config.requests_max));
    let revisions = Arc::new(Revisions::new(store.applied().index, store.revision()));

    // The loop and the connections to peers share one thread: a message costs no change of threads.
    let spawner = Handle::current();
    let loop_runtime = LoopRuntime::new().map_err(net_error)?;
    let entered = loop_runtime.0.as_ref().map(Runtime::enter);
    let listeners = listen(listeners).map_err(net_error)?;
    let mut net_config = net_config(config, started_ms);
    net_config.life = life;
    // Before the first connection: who is not the known one must not be heard even once.
    let members = store.membership();
    net_config.lives = known_lives(config.node, &members);
    net_config.removed = members.removed().into_iter().map(NodeId).collect();
    net_config.check().map_err(net_error)?;

    let replica = Replica::new(replica_config(config, started_ms), initial)?;

    let (net_sender, net_events) = mpsc::channel(4096);
    let net = Net::start_with_http(net_config, listeners, net_sender, config.peer_http.clone());
    drop(entered);
    let election_ticks = config.election_ms.div_ceil(config.heartbeat_ms.max(1));
    let mut peers = Peers::new(net.clone(), config.node, life, 2 * election_ticks);
    peers.on_members_changed(&members).map_err(net_error)?;

    let (calls_sender, calls) = mpsc::channel(4096);
    let (written_sender, written) = mpsc::unbounded_channel();
    let (done_sender, done) = mpsc::unbounded_channel();
    let progress = Arc::new(Progress::new(done_sender.clone()));
    let board = Arc::new(Board::new(
        config.node,
        config.cluster,
        Arc::clone(&store),
        metrics.clone(),
        Arc::clone(&progress),
    ));
    let (disk_sender, disk_inbox) = blocking::channel();
    let (apply_sender, apply_inbox) = blocking::channel();
    let (stopped_sender, stopped) = watch::channel(None);
    let layout = Layout::new(&config.data_dir);

    let driver = Driver {
        node: config.node,
        engine: config.engine,
        peers,
        members,
        members_index: replica.membership_index(),
        replica,
        tick: Duration::from_millis(config.heartbeat_ms),
        ticked: Instant::now(),
        net: net.clone(),
        board: Arc::clone(&board),
        waiters: Arc::clone(&waiters),
        calls,
        net_events,
        written,
        done,
        disk: disk_sender,
        apply: apply_sender,
        sender: Sender::default(),
        receiver: Receiver::new(config.cluster, layout.snap, done_sender.clone(), spawner),
        writing: Writing::default(),
        reads: HashMap::new(),
        next_read: 0,
        heard: BTreeMap::new(),
        flushed: None,
    };
    let applier = apply::Applier {
        store: Arc::clone(&store),
        waiters: Arc::clone(&waiters),
        metrics: Arc::clone(&metrics),
        state_file: Arc::clone(&state_file),
        lock: Arc::clone(&lock),
        done: done_sender,
        progress,
        revisions: Arc::clone(&revisions),
    };

    let weak_lock = Arc::downgrade(&lock);
    room.wait_for_space(true);
    let threads = vec![
        spawn("quorate-disk", {
            let lock = Arc::clone(&lock);
            move || {
                disk::run(wal, disk_inbox, written_sender, metrics);
                drop(lock);
            }
        })?,
        spawn("quorate-apply", move || applier.run(apply_inbox))?,
        spawn("quorate-loop", {
            let (waiters, net) = (Arc::clone(&waiters), net.clone());
            move || {
                let Some(loop_runtime) = loop_runtime.take() else { return };
                let reason = loop_runtime.block_on(driver.run()).err().map(|e| e.to_string());
                if let Some(reason) = &reason {
                    tracing::error!("this node has stopped: {reason}");
                }
                // Whoever waits for an answer or for space would wait for ever.
                waiters.close();
                room.wait_for_space(false);
                let _ = stopped_sender.send(reason);
                drop(lock);
                // What was sent last still goes out.
                loop_runtime.block_on(net.shutdown());
            }
        })?,
    ];
    Ok(Node {
        inner: Arc::new(Inner {
            life,
            calls: calls_sender,
            board,
            store,
            state_file,
            lock: weak_lock,
            engine: config.engine,
            revisions,
            followers: Arc::new(Semaphore::new(config.followers_max)),
            waiters,
            ids: Mutex::new(RequestIds::new(config.node, started_ms)),
            net,
            stopped,
            threads: Mutex::new(threads),
            request_bytes_max: config.request_bytes_max,
            request_timeout: Duration::from_millis(5000 + 2 * config.election_ms),
            election_timeout: Duration::from_millis(config.election_ms),
        }),
    })
}

/// The runtime of the loop, as long as that does not run. What is in it is given up where a start fails: to
/// wait for it, as a runtime does when it goes, is not for who is on a runtime itself.
struct LoopRuntime(Option<Runtime>);

impl LoopRuntime {
    fn new() -> io::Result<Self> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map(Some)
            .map(LoopRuntime)
    }

    fn take(mut self) -> Option<Runtime> {
        self.0.take()
    }
}

impl Drop for LoopRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The sockets as the transport takes them.
fn listen(listeners: Vec<std::net::TcpListener>) -> io::Result<Vec<tokio::net::TcpListener>> {
    let listen = |listener: std::net::TcpListener| {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    listeners.into_iter().map(listen).collect()
}

fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| StartError::Net(format!("cannot start a thread: {error}")))
}

/// Makes room in a frame for the longest command and what travels with it: what a leader accepts
/// must reach its peers.
fn net_config(config: &NodeConfig, started_ms: u64) -> NetConfig {
    let mut net = NetConfig::new(config.cluster, config.node);
    net.incarnation = started_ms;
    net.dialect = match config.engine {
        Engine::Raft => 0,
        Engine::Zab => 1,
    };
    net.inbound_connections_max = config.peer_connections_max;
    net.pending_hellos_max = config.peer_strangers_max;
    let longest = config.request_bytes_max.saturating_add(FRAME_OVERHEAD_BYTES);
    let longest = u32::try_from(longest).unwrap_or(u32::MAX);
    net.frame_bytes_max = net.frame_bytes_max.max(longest);
    net.queue_bytes_max = net.queue_bytes_max.max(4 * u64::from(net.frame_bytes_max));
    net
}

fn replica_config(config: &NodeConfig, seed: u64) -> Config {
    let election_ticks = config.election_ms.div_ceil(config.heartbeat_ms.max(1));
    let request_ticks = (5000 + 2 * config.election_ms).div_ceil(config.heartbeat_ms.max(1));
    let second = 1000_u64.div_ceil(config.heartbeat_ms.max(1));
    Config {
        engine: config.engine,
        tick_ms: config.heartbeat_ms.max(1),
        election_ticks: u32::try_from(election_ticks).unwrap_or(u32::MAX),
        command_bytes_max: config.request_bytes_max,
        write_ticks_max: 5 * second,
        parked_count_max: config.requests_max,
        parked_ticks_max: request_ticks,
        read_retry_ticks: (second / 2).max(1),
        flush_entries: config.snapshot_count.max(1),
        flush_ticks: 30 * second,
        ..Config::new(config.node, seed ^ config.node.0.rotate_left(32))
    }
}

/// Makes a directory for its owner only, whose name is durable when this returns; narrows one that
/// others may enter, and says so.
pub(crate) fn make_directory(path: &Path) -> Result<(), StartError> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Err(StartError::Io {
            what: "cannot use",
            path: path.to_owned(),
            error: io::Error::from(io::ErrorKind::NotADirectory),
        }),
        Ok(metadata) => {
            if metadata.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(path, fs::Permissions::from_mode(0o700))
                    .map_err(io_error("cannot narrow the permissions of", path))?;
                tracing::warn!(
                    path = %path.display(),
                    "the data directory was open to others; it is its owner's alone now"
                );
            }
            Ok(())
        }
        Err(_) => {
            let missing = path.ancestors().take_while(|path| !path.exists()).count();
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(io_error("cannot create", path))?;
            for parent in path.ancestors().skip(1).take(missing) {
                let parent = if parent == Path::new("") { Path::new(".") } else { parent };
                File::open(parent)
                    .and_then(|parent| parent.sync_all())
                    .map_err(io_error("cannot sync", parent))?;
            }
            Ok(())
        }
    }
}

fn lock(root: &Path) -> Result<File, StartError> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("cannot open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse { path: root.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io_error("cannot lock", &path)(error)),
    }
}

fn net_error(error: impl std::fmt::Display) -> StartError {
    StartError::Net(error.to_string())
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |error| StartError::Io { what, path, error }
}

#[cfg(test)]
mod tests;
