//! Making a connection to a peer: names are resolved anew each time, and both hellos are said.

use std::io::ErrorKind;
use std::net::SocketAddr;

use quorate_types::NodeId;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::event::{Refusal, RefusedBy};
use crate::hello::{Hello, Opening, OpeningError, Purpose, read_opening, write_hello};
use crate::link::{Link, plain};
use crate::net::Shared;

/// Socket addresses tried for one name.
const RESOLVED_COUNT_MAX: usize = 8;

/// A connection on which both sides have said hello.
pub(crate) struct Dialed {
    pub(crate) link: Link,
    pub(crate) hello: Hello,
}

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DialError {
    #[error("{0}")]
    Failed(String),
    /// Nobody listens there.
    #[error("{0}")]
    Absent(String),
    #[error("refused: {0}")]
    Refused(Refusal),
}

/// Tries the addresses in order; the first connection whose hello is right is the one. The error is
/// that of the last attempt; that nobody listens is said only if that is so at each of them.
pub(crate) async fn dial(
    shared: &Shared,
    to: NodeId,
    addresses: &[String],
    purpose: Purpose,
) -> Result<Dialed, DialError> {
    let mut last = DialError::Failed("no address".into());
    let mut is_absent = true;
    for name in addresses {
        let resolving = timeout(shared.config.connect_timeout(), lookup_host(name.as_str()));
        let resolved: Vec<SocketAddr> = match resolving.await {
            Ok(Ok(resolved)) => resolved.take(RESOLVED_COUNT_MAX).collect(),
            Ok(Err(error)) => {
                last = DialError::Failed(format!("cannot resolve {name}: {error}"));
                is_absent = false;
                continue;
            }
            Err(_) => {
                last = DialError::Failed(format!("cannot resolve {name} in time"));
                is_absent = false;
                continue;
            }
        };
        for address in resolved {
            match dial_one(shared, to, address, purpose).await {
                Ok(dialed) => return Ok(dialed),
                Err(error) => {
                    is_absent &= matches!(error, DialError::Absent(_));
                    last = error;
                }
            }
        }
    }
    Err(match last {
        DialError::Absent(why) if !is_absent => DialError::Failed(why),
        last => last,
    })
}

async fn dial_one(
    shared: &Shared,
    to: NodeId,
    address: SocketAddr,
    purpose: Purpose,
) -> Result<Dialed, DialError> {
    let config = &shared.config;
    let stream = match timeout(config.connect_timeout(), TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            return Err(DialError::Absent(format!("{address}: {error}")));
        }
        Ok(Err(error)) => return Err(DialError::Failed(format!("{address}: {error}"))),
        Err(_) => return Err(DialError::Failed(format!("{address} does not answer"))),
    };
    let mut link = plain(stream);
    let greeting = async {
        let ours = Hello::new(config, to, purpose);
        if let Err(error) = write_hello(&mut link, &ours, config.write_max()).await {
            return Err(DialError::Failed(format!("{address}: {error}")));
        }
        let (by, reason) = match read_opening(&mut link).await {
            Ok(Opening::Hello(hello)) => {
                match hello.judge(config).and_then(|()| shared.lives.judge(&hello)) {
                    // The address is that of another member of the cluster.
                    Ok(()) if hello.from != to => (RefusedBy::Us, Refusal::WrongReceiver),
                    Ok(()) => return Ok(hello),
                    Err(reason) => (RefusedBy::Us, reason),
                }
            }
            Ok(Opening::Refused(reason)) => (RefusedBy::Peer, reason),
            Err(OpeningError::Bad(reason)) => (RefusedBy::Us, reason),
            Err(OpeningError::Http(_)) => (RefusedBy::Us, Refusal::Http),
            Err(OpeningError::Lost(error)) => {
                return Err(DialError::Failed(format!("{address}: no hello: {error}")));
            }
        };
        shared.notes.refusal(by, reason, Some(to), Some(address));
        Err(DialError::Refused(reason))
    };
    let hello = timeout(config.hello_timeout(), greeting)
        .await
        .unwrap_or_else(|_| Err(DialError::Failed(format!("{address}: no hello in time"))))?;
    Ok(Dialed { link, hello })
}
