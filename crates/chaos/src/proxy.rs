//! The lines between members: every connection of one member to another goes through here, where it
//! can be cut, cut one way, delayed or throttled.
//!
//! Members are told one address of each peer, so a connection says where it goes; where it comes from
//! is looked up in the kernel's table of connections (`/proc/net/tcp`), by process. Bytes are never
//! lost from the middle of a connection, as TCP would not: a cut line holds them back, and when it is
//! healed they arrive late or the connection ends.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Pieces of at most [`PIECE_BYTES_MAX`] that a delayed line holds, on top of what the kernel does.
const PIECES_MAX: usize = 256;
const PIECE_BYTES_MAX: usize = 16 << 10;

/// One direction between two members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Way {
    /// Nothing gets through.
    pub(crate) is_cut: bool,
    /// No connection can be made, and those there were have ended.
    pub(crate) is_closed: bool,
    pub(crate) delay: Duration,
    /// 0: as many as there are.
    pub(crate) bytes_per_second: u64,
    /// Connections that were made under another number end.
    pub(crate) era: u64,
}

type Ways = BTreeMap<(usize, usize), Way>;

/// All lines of a cluster.
pub(crate) struct Lines {
    ways: watch::Sender<Ways>,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    /// Which process each member is, by its id.
    processes: Mutex<BTreeMap<u32, usize>>,
    /// Pieces and connections that met a fault.
    hits: AtomicU64,
    carried_bytes: AtomicU64,
}

impl Lines {
    /// A listener for each member, in front of the address where it listens itself.
    pub(crate) fn open(doors: Vec<(TcpListener, SocketAddr)>) -> Lines {
        Lines::from(doors, None)
    }

    /// The same in front of where members listen for clients. All clients together count as one more
    /// member, behind the last.
    pub(crate) fn for_clients(doors: Vec<(TcpListener, SocketAddr)>) -> Lines {
        let clients = doors.len();
        Lines::from(doors, Some(clients))
    }

    fn from(doors: Vec<(TcpListener, SocketAddr)>, caller: Option<usize>) -> Lines {
        let ends = doors.len() + usize::from(caller.is_some());
        let pairs = (0..ends).flat_map(|from| (0..ends).map(move |to| (from, to)));
        let ways: Ways = pairs.map(|pair| (pair, Way::default())).collect();
        let (ways, watched) = watch::channel(ways);
        let shared = Arc::new(Shared {
            processes: Mutex::default(),
            hits: AtomicU64::new(0),
            carried_bytes: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for (to, (listener, behind)) in doors.into_iter().enumerate() {
            let (watched, shared) = (watched.clone(), Arc::clone(&shared));
            let door = Door { caller, to, behind, watched, shared };
            tasks.spawn(door.serve(listener));
        }
        Lines { ways, shared, tasks }
    }

    pub(crate) fn set_process(&self, member: usize, process: u32) {
        let mut processes = self.shared.processes.lock().expect("nobody panics with it");
        processes.retain(|_, other| *other != member);
        processes.insert(process, member);
    }

    /// Changes the ways for which `change` says so.
    pub(crate) fn change(&self, change: impl Fn(usize, usize, &mut Way)) {
        self.ways.send_modify(|ways| {
            for ((from, to), way) in ways.iter_mut() {
                change(*from, *to, way);
            }
        });
    }

    /// What has met a fault so far.
    pub(crate) fn hits(&self) -> u64 {
        self.shared.hits.load(Ordering::Relaxed)
    }

    /// What has been carried so far.
    pub(crate) fn carried_bytes(&self) -> u64 {
        self.shared.carried_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

struct Door {
    /// Who calls; found out by process, if it is not always the same.
    caller: Option<usize>,
    to: usize,
    behind: SocketAddr,
    watched: watch::Receiver<Ways>,
    shared: Arc<Shared>,
}

impl Door {
    async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((near, peer)) => {
                        let shared = Arc::clone(&self.shared);
                        let (to, behind, watched) = (self.to, self.behind, self.watched.clone());
                        let caller = self.caller;
                        let door = listener.local_addr();
                        connections.spawn(async move {
                            let Ok(door) = door else { return };
                            let from = caller.or_else(|| member_behind(peer, door, &shared));
                            if let Some(from) = from {
                                carry(near, behind, from, to, watched, shared).await;
                            }
                        });
                    }
                    // Out of files, or the other side was gone again.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn carry(
    near: TcpStream,
    behind: SocketAddr,
    from: usize,
    to: usize,
    watched: watch::Receiver<Ways>,
    shared: Arc<Shared>,
) {
    let way = |one: usize, other: usize| watched.borrow().get(&(one, other)).copied();
    let (Some(there), Some(back)) = (way(from, to), way(to, from)) else { return };
    if there.is_closed || back.is_closed {
        shared.hits.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let Ok(far) = TcpStream::connect(behind).await else { return };
    // What is small has to go at once, as it would without us.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let pipe = |one, other, era| Pipe {
        from: one,
        to: other,
        era,
        watched: watched.clone(),
        shared: Arc::clone(&shared),
    };
    // Either one ends both: a connection that is half open is another fault than those meant here.
    tokio::select! {
        () = pipe(from, to, there.era).run(near_in, far_out) => {}
        () = pipe(to, from, back.era).run(far_in, near_out) => {}
    }
}

/// One direction of one connection.
struct Pipe {
    from: usize,
    to: usize,
    era: u64,
    watched: watch::Receiver<Ways>,
    shared: Arc<Shared>,
}

impl Pipe {
    async fn run(mut self, mut input: OwnedReadHalf, mut output: OwnedWriteHalf) {
        let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
        let reading = async move {
            loop {
                let mut piece = vec![0; PIECE_BYTES_MAX];
                match input.read(&mut piece).await {
                    Ok(0) | Err(_) => break,
                    Ok(length) => piece.truncate(length),
                }
                if sender.send((Instant::now(), piece)).await.is_err() {
                    break;
                }
            }
        };
        let writing = async move {
            loop {
                let (came, piece) = tokio::select! {
                    piece = pieces.recv() => match piece {
                        Some(piece) => piece,
                        None => break,
                    },
                    // An idle connection ends too when its line is closed.
                    changed = self.watched.changed() => {
                        if changed.is_err() || self.has_ended() {
                            break;
                        }
                        continue;
                    }
                };
                let Some(way) = self.open_way().await else { break };
                if !way.delay.is_zero() || way.bytes_per_second != 0 {
                    self.hit();
                    tokio::time::sleep_until(came + way.delay).await;
                    let millis = (piece.len() as u64 * 1000).checked_div(way.bytes_per_second);
                    tokio::time::sleep(Duration::from_millis(millis.unwrap_or(0))).await;
                    // It may have been cut meanwhile.
                    if self.open_way().await.is_none() {
                        break;
                    }
                }
                if output.write_all(&piece).await.is_err() {
                    break;
                }
                self.shared.carried_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        };
        // What was read is written before the end is passed on.
        tokio::select! {
            () = writing => {}
            () = async { reading.await; std::future::pending().await } => {}
        }
    }

    /// Waits until something can pass; nothing when the connection has to end.
    async fn open_way(&mut self) -> Option<Way> {
        let mut was_hit = false;
        loop {
            let way = self.way();
            if self.has_ended() {
                self.hit();
                return None;
            }
            if !way.is_cut {
                return Some(way);
            }
            if !was_hit {
                self.hit();
                was_hit = true;
            }
            self.watched.changed().await.ok()?;
        }
    }

    fn way(&mut self) -> Way {
        let ways = self.watched.borrow_and_update();
        ways.get(&(self.from, self.to)).copied().unwrap_or_default()
    }

    fn has_ended(&mut self) -> bool {
        let way = self.way();
        way.era != self.era || way.is_closed
    }

    fn hit(&self) {
        self.shared.hits.fetch_add(1, Ordering::Relaxed);
    }
}

/// The member whose process made the connection that reached `door` from `peer`.
fn member_behind(peer: SocketAddr, door: SocketAddr, shared: &Shared) -> Option<usize> {
    let inode = inode_of(&std::fs::read_to_string("/proc/net/tcp").ok()?, peer, door)?;
    let socket = format!("socket:[{inode}]");
    let processes = shared.processes.lock().expect("nobody panics with it").clone();
    let has_it = |process: u32| {
        let files = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?;
        let mut targets = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
        targets.any(|target| target.as_os_str() == socket.as_str()).then_some(())
    };
    processes.into_iter().find(|(process, _)| has_it(*process).is_some()).map(|(_, member)| member)
}

/// The inode in the kernel's table of the connection from `local` to `remote`.
fn inode_of(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let hex = |address: SocketAddr| {
        let SocketAddr::V4(address) = address else { return None };
        // The address as the processor holds it, the port as a person reads it.
        let number = u32::from_ne_bytes(address.ip().octets());
        Some(format!("{number:08X}:{:04X}", address.port()))
    };
    let (local, remote) = (hex(local)?, hex(remote)?);
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1) == Some(&&*local) && fields.get(2) == Some(&&*remote);
        if is_it { fields.get(9)?.parse().ok() } else { None }
    })
}

/// A listener on a port of the system's choice.
pub(crate) async fn listener() -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two members, both this process; bytes go from 0 to 1 and back.
    async fn line() -> (Lines, TcpStream, TcpStream) {
        let behind = listener().await.unwrap();
        let (first, door) = (listener().await.unwrap(), listener().await.unwrap());
        let front = door.local_addr().unwrap();
        let address = behind.local_addr().unwrap();
        let lines = Lines::open(vec![(first, address), (door, address)]);
        lines.set_process(0, std::process::id());
        let near = TcpStream::connect(front).await.unwrap();
        let (far, _) = behind.accept().await.unwrap();
        (lines, near, far)
    }

    async fn passes(from: &mut TcpStream, to: &mut TcpStream) -> bool {
        if from.write_all(b"x").await.is_err() {
            return false;
        }
        let read = tokio::time::timeout(Duration::from_millis(200), to.read_u8());
        matches!(read.await, Ok(Ok(b'x')))
    }

    #[tokio::test]
    async fn a_line_is_cut_one_way_and_what_was_held_back_comes_late() {
        let (lines, mut near, mut far) = line().await;
        assert!(passes(&mut near, &mut far).await && passes(&mut far, &mut near).await);
        lines.change(|from, _, way| way.is_cut = from == 0);
        assert!(!passes(&mut near, &mut far).await, "0 is not heard");
        assert!(passes(&mut far, &mut near).await, "and yet hears");
        assert_eq!(lines.hits(), 1);
        lines.change(|_, _, way| *way = Way::default());
        assert_eq!(far.read_u8().await.unwrap(), b'x');
        assert_eq!(lines.carried_bytes(), 4);
    }

    #[tokio::test]
    async fn answers_to_clients_are_lost_though_requests_get_through() {
        let behind = listener().await.unwrap();
        let door = listener().await.unwrap();
        let (front, address) = (door.local_addr().unwrap(), behind.local_addr().unwrap());
        let lines = Lines::for_clients(vec![(door, address)]);
        let mut near = TcpStream::connect(front).await.unwrap();
        let (mut far, _) = behind.accept().await.unwrap();
        lines.change(|from, _, way| way.is_cut = from == 0);
        assert!(passes(&mut near, &mut far).await, "the request");
        assert!(!passes(&mut far, &mut near).await, "the answer");
    }

    #[tokio::test]
    async fn a_closed_line_ends_its_connections_and_takes_no_new_ones() {
        let (lines, mut near, _far) = line().await;
        let front = near.peer_addr().unwrap();
        lines.change(|_, _, way| way.is_closed = true);
        assert_eq!(near.read(&mut [0; 8]).await.unwrap_or(0), 0);
        let mut again = TcpStream::connect(front).await.unwrap();
        assert_eq!(again.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn a_healed_line_of_another_era_ends() {
        let (lines, mut near, mut far) = line().await;
        lines.change(|_, _, way| way.is_cut = true);
        assert!(!passes(&mut near, &mut far).await);
        lines.change(|_, _, way| *way = Way { era: 1, ..Way::default() });
        assert_eq!(far.read(&mut [0; 8]).await.unwrap_or(0), 0, "what was held back is gone");
    }

    #[test]
    fn a_connection_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st\n   \
            0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  0  0 4711 1\n";
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert_eq!(inode_of(table, at(8080), at(50_000)), Some(4711));
        assert_eq!(inode_of(table, at(50_000), at(8080)), None);
    }
}
