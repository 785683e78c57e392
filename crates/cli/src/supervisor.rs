//! Word to whoever started this process as a service, as systemd's `sd_notify` has it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells the supervisor, if there is one that wants to know: `READY=1`, `STOPPING=1`.
pub(crate) fn tell(word: &str) {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty()) else {
        return;
    };
    if let Err(error) = send(&place, word) {
        tracing::warn!(%error, word, "the supervisor was not told");
    }
}

fn send(place: &OsStr, word: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // A supervisor that hears nothing must not hold up a member that serves, or is to stop.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(word.as_bytes(), &address(place)?).map(drop)
}

/// A path, or a name that stands in no directory, with `@` before it.
fn address(place: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = place.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(OsStr::from_bytes(place.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_is_told_wherever_it_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let abstract_name = format!("@quorate-test-{}", std::process::id());
        for place in [path.as_os_str(), OsStr::new(&abstract_name)] {
            let supervisor = UnixDatagram::bind_addr(&address(place).unwrap()).unwrap();
            send(place, "READY=1").unwrap();
            let mut word = [0; 64];
            let length = supervisor.recv(&mut word).unwrap();
            assert_eq!(&word[..length], b"READY=1", "{place:?}");
        }
        assert!(send(OsStr::new("/nowhere/at/all"), "READY=1").is_err());
    }

    #[test]
    fn a_supervisor_that_hears_nothing_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let refused = (0..100_000).find_map(|_| send(path.as_os_str(), "READY=1").err());
        let refused = refused.expect("what waits for it is bounded");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    }
}
