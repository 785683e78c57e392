//! The protocol written down a second time, by hand, for peers that do not behave.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::node::{CLUSTER, DEADLINE};

pub(crate) const MAGIC: &[u8] = b"\xd1quorate";
pub(crate) const HELLO: u8 = 1;
pub(crate) const REFUSED: u8 = 2;
pub(crate) const MESSAGE: u8 = 3;
pub(crate) const PING: u8 = 4;
pub(crate) const PONG: u8 = 5;
pub(crate) const SNAPSHOT_BEGIN: u8 = 6;
pub(crate) const SNAPSHOT_CHUNK: u8 = 7;
pub(crate) const SNAPSHOT_END: u8 = 8;
pub(crate) const SNAPSHOT_REPLY: u8 = 9;

/// What a connection is for, as the hello says.
pub(crate) const FOR_MESSAGES: u8 = 1;
pub(crate) const FOR_A_SNAPSHOT: u8 = 2;

pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_le_bytes();
    let rest = [&length[..], &[kind], payload].concat();
    [&crc32c::crc32c(&rest).to_le_bytes()[..], &rest].concat()
}

#[derive(Clone, Copy)]
pub(crate) struct Hello {
    pub(crate) versions: (u16, u16),
    pub(crate) purpose: u8,
    pub(crate) cluster: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) incarnation: u64,
}

impl Hello {
    pub(crate) fn new(from: u64, to: u64) -> Hello {
        Hello {
            versions: (2, 2),
            purpose: FOR_MESSAGES,
            cluster: CLUSTER,
            from,
            to,
            incarnation: 0,
        }
    }

    pub(crate) fn payload(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.versions.0.to_le_bytes());
        bytes.extend_from_slice(&self.versions.1.to_le_bytes());
        bytes.extend_from_slice(&[self.purpose, 0, 0, 0]);
        for number in [self.cluster, self.from, self.to, self.incarnation] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(1u32 << 20).to_le_bytes());
        bytes.extend_from_slice(&(1u64 << 30).to_le_bytes());
        bytes
    }

    pub(crate) fn opening(self) -> Vec<u8> {
        [MAGIC, &frame(HELLO, &self.payload())].concat()
    }
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    timeout(DEADLINE, TcpStream::connect(address)).await.expect("in time").expect("it listens")
}

/// Connects and says hello; the other side must have said it too.
pub(crate) async fn greeted(address: SocketAddr, hello: Hello) -> TcpStream {
    let mut stream = connect(address).await;
    stream.write_all(&hello.opening()).await.expect("it reads");
    assert_eq!(opening(&mut stream).await.0, HELLO);
    stream
}

/// Kind and payload of the opening frame.
pub(crate) async fn opening(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut magic = [0; 8];
    exact(stream, &mut magic).await;
    assert_eq!(magic, MAGIC);
    next(stream).await
}

/// Kind and payload of the next frame.
pub(crate) async fn next(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 9];
    exact(stream, &mut head).await;
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let mut payload = vec![0; length as usize];
    exact(stream, &mut payload).await;
    assert_eq!(frame(head[8], &payload)[..4], head[..4], "the checksum");
    (head[8], payload)
}

async fn exact(stream: &mut TcpStream, bytes: &mut [u8]) {
    let reading = timeout(DEADLINE, stream.read_exact(bytes));
    reading.await.expect("in time").expect("the connection stands");
}

/// Reads until the other side has closed.
pub(crate) async fn closed(stream: &mut TcpStream) {
    let mut sink = [0; 1024];
    let reading = async { while matches!(stream.read(&mut sink).await, Ok(1..)) {} };
    timeout(DEADLINE, reading).await.expect("it was never closed");
}

/// A port on which a peer written by hand can be dialed.
pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// The next connection, its hello read.
pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    accept_any(listener).await.0
}

/// The next connection, whatever it is for, and what that is.
pub(crate) async fn accept_any(listener: &TcpListener) -> (TcpStream, u8) {
    let accepted = timeout(DEADLINE, listener.accept()).await.expect("nobody dialed");
    let (mut stream, _) = accepted.expect("loopback");
    let (kind, hello) = opening(&mut stream).await;
    assert_eq!(kind, HELLO);
    (stream, hello[4])
}

pub(crate) const SOON: Duration = Duration::from_millis(300);
