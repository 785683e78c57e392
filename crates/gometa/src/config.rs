//! The settings of one node.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;

use quorate_types::NodeId;
use quorate_zab::{Address, Config, Member};

use crate::{ClientAuth, ServerAuth, Wrap};

/// Where one member of an ensemble is reached. Its two addresses, as text, are its names: that of
/// its election port in votes, that of its message port (gometa's `fid`) everywhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Its UDP port. gometa's default is 9998.
    pub election: SocketAddr,
    /// Its TCP port. gometa's default is 9999.
    pub message: SocketAddr,
}

impl Peer {
    /// A member at these two addresses.
    pub fn new(election: SocketAddr, message: SocketAddr) -> Self {
        Peer { election, message }
    }

    fn as_member(self, id: u64) -> Member {
        Member { id: NodeId(id), election: address(self.election), message: address(self.message) }
    }
}

/// An address as nodes are named by it.
pub fn address(of: SocketAddr) -> Address {
    Address::from(of.to_string().as_str())
}

/// All settings of one node. Start from one of the constructors and set what differs.
#[derive(Clone)]
pub struct SiteConfig {
    /// The protocol's own settings: members, times, bounds. Voters that are gometa processes are
    /// refused unless [`allow_gometa_voters`](Config::allow_gometa_voters) is set.
    pub engine: Config,
    /// Puts something around each connection, TLS say; nothing leaves it as it is.
    pub wrap: Option<Arc<dyn Wrap>>,
    /// Admits those who connect; nothing admits everybody.
    pub server_auth: Option<Arc<dyn ServerAuth>>,
    /// Introduces this node to a leader; nothing says nothing.
    pub client_auth: Option<Arc<dyn ClientAuth>>,
    /// Votes are sealed with this key, and votes without it are dropped: nobody else can make one up,
    /// or is answered. Votes are not hidden: whoever overhears one sees who leads, and can send it
    /// again, as if from any member. All nodes of an ensemble need the same, from one moment on: a
    /// restart of one member after the other does not introduce it, since those who have it do not
    /// hear those who have not. gometa's know none. Nothing means that a vote is believed by the
    /// address that it comes from.
    pub vote_key: Option<[u8; 32]>,
    /// A connection to a leader must stand within so long.
    pub connect_timeout_ms: u64,
    /// Wrapping, and then authentication, must be over within so long.
    pub auth_timeout_ms: u64,
    /// What waits to be sent on a connection that is closed is given so long.
    pub flush_ms: u64,
    /// A call of the application's that is under way when the node is closed is waited for so long.
    pub shutdown_ms: u64,
    /// Most messages that have come and that the node has not looked at.
    pub inbox_count_max: usize,
    /// Most bytes of them.
    pub inbox_bytes_max: usize,
    /// While more bytes than this wait to be stored, nothing that members send is looked at.
    pub writing_bytes_max: u64,
    /// So many bytes of the end of the log are kept in memory.
    pub cache_bytes_max: u64,
}

impl SiteConfig {
    /// A voter of an ensemble; `members` names all of them, this one included.
    pub fn voter(own: Peer, members: &[Peer]) -> Self {
        let numbered = numbered(members);
        let found = numbered.iter().find(|member| member.message == address(own.message));
        // One that is not among them is found out by the engine's check: it is no voter.
        let own = found.cloned().unwrap_or_else(|| own.as_member(numbered.len() as u64 + 1));
        Self::with(Config::new(own, numbered))
    }

    /// A leader of one, for watchers: gometa's "embedded" form.
    pub fn embedded(own: Peer) -> Self {
        Self::voter(own, &[own])
    }

    /// A watcher that asks the members' election ports who leads. `own.message` is only its name
    /// and must differ from everybody else's; nobody connects to it.
    pub fn watcher(own: Peer, members: &[Peer]) -> Self {
        let numbered = numbered(members);
        let own = own.as_member(numbered.len() as u64 + 1);
        Self::with(Config::new(own, numbered))
    }

    /// A watcher of a leader that is known. `fid` is its name, in the form of an address, and must
    /// differ from everybody else's.
    pub fn watcher_of(fid: SocketAddr, leader: SocketAddr) -> Self {
        let leader = Peer::new(leader, leader).as_member(1);
        let mut engine = Config::new(Peer::new(fid, fid).as_member(2), vec![leader]);
        engine.is_leader_known = true;
        Self::with(engine)
    }

    fn with(mut engine: Config) -> Self {
        // Request ids are drawn from it: it must not be that of an earlier run.
        engine.seed = RandomState::new().hash_one(0);
        SiteConfig {
            engine,
            wrap: None,
            server_auth: None,
            client_auth: None,
            vote_key: None,
            connect_timeout_ms: 2_000,
            auth_timeout_ms: 10_000,
            flush_ms: 1_000,
            shutdown_ms: 5_000,
            inbox_count_max: 4096,
            inbox_bytes_max: 64 << 20,
            writing_bytes_max: 128 << 20,
            cache_bytes_max: 16 << 20,
        }
    }
}

impl fmt::Debug for SiteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SiteConfig");
        shown.field("engine", &self.engine);
        shown.field("has_wrap", &self.wrap.is_some());
        shown.field("has_server_auth", &self.server_auth.is_some());
        shown.field("has_client_auth", &self.client_auth.is_some());
        shown.field("has_vote_key", &self.vote_key.is_some()).finish_non_exhaustive()
    }
}

/// Members by number: the same on every node, whatever order it lists them in.
fn numbered(members: &[Peer]) -> Vec<Member> {
    let mut members: Vec<Peer> = members.to_vec();
    members.sort_unstable();
    (1..).zip(members).map(|(id, peer)| peer.as_member(id)).collect()
}
