//! A proxy between two nodes that does harm to what it carries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to the first connection of the kind in question; all others are carried as they are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Harm {
    /// One bit of what the dialer sends.
    FlipBit { at_byte: usize, bit: u8 },
    /// Both directions end after this many bytes from the dialer.
    CutAfter(usize),
    /// Nothing is carried any more once it is told, and nothing closed.
    Freeze,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    frozen: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr, purpose: u8, harm: Harm) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let frozen = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(run(
            listener,
            target,
            purpose,
            harm,
            Arc::clone(&frozen),
            Arc::clone(&connections),
        ));
        Proxy { address, frozen, connections, task }
    }

    pub(crate) fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    listener: TcpListener,
    target: SocketAddr,
    purpose: u8,
    harm: Harm,
    frozen: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
) {
    let mut carrying = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let Ok(far) = TcpStream::connect(target).await else { continue };
        let is_first = purpose_of(&near).await == Some(purpose)
            && connections.fetch_add(1, Ordering::SeqCst) == 0;
        carrying.spawn(carry(near, far, is_first.then_some(harm), Arc::clone(&frozen)));
    }
}

/// What the dialer says that the connection is for. It says it at once.
async fn purpose_of(near: &TcpStream) -> Option<u8> {
    let mut opening = [0; 22];
    while near.peek(&mut opening).await.ok()? < opening.len() {
        tokio::task::yield_now().await;
    }
    Some(opening[21])
}

async fn carry(near: TcpStream, far: TcpStream, harm: Option<Harm>, frozen: Arc<AtomicBool>) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let is_frozen = || matches!(harm, Some(Harm::Freeze)) && frozen.load(Ordering::SeqCst);
    let out = async {
        let mut buffer = vec![0; 16 << 10];
        let mut total = 0;
        loop {
            let Ok(count @ 1..) = near_read.read(&mut buffer).await else { return };
            let mut bytes = &mut buffer[..count];
            match harm {
                Some(Harm::FlipBit { at_byte, bit })
                    if (total..total + count).contains(&at_byte) =>
                {
                    bytes[at_byte - total] ^= 1 << bit;
                }
                Some(Harm::CutAfter(after)) if after < total + count => {
                    bytes = &mut bytes[..after.saturating_sub(total)];
                    let _ = far_write.write_all(bytes).await;
                    return;
                }
                _ => {}
            }
            total += count;
            if is_frozen() {
                std::future::pending::<()>().await;
            }
            if far_write.write_all(bytes).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let Ok(count @ 1..) = far_read.read(&mut buffer).await else { return };
            if is_frozen() {
                std::future::pending::<()>().await;
            }
            if near_write.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = out => {}
        () = back => {}
    }
}
