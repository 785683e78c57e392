//! Snapshots on their way out and in.
//!
//! Out: the apply thread keeps one view of the machine ready; each lagging peer gets a stream read
//! from it. In: the stream goes to a file under a temporary name, which is synced, read back as an
//! installation would read it, and renamed before the engine hears of it. So the engine's promise to
//! a leader, and the mark in the log, always rest on a file that is whole, durable, and of use here:
//!
//! ```text
//! receive ─► snap/<index>-<term>.tmp ─► sync, verify, rename, sync directory ─► engine ─► mark in the log
//!         ─► machine installs it ─► the write counts as durable ─► the file is removed ─► the next
//! ```
//! After a crash anywhere in between, start-up installs what the mark names, or removes what no mark
//! names.
//!
//! Who sent it is told that it is delivered only at the end of that: from then on it goes by its log, of
//! which it keeps what follows the snapshot until then.
//!
//! A stream that came whole and cannot be used here (a newer version made it, say) would be as useless
//! a second time, and its sender sends it again. So after one no other is taken in for a while, which
//! doubles each time, and an operator is told.

mod saved;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_codec as codec;
use quorate_net::{IncomingSnapshot, Net, SnapshotSource};
use quorate_raft::{Snapshot, SnapshotMetadata};
use quorate_replica::{Engine, Event, Message};
use quorate_types::{EntryId, NodeId};
use tokio::sync::{Semaphore, mpsc};

use crate::apply::{Done, Made};

pub(crate) use saved::SavedFile;
pub use saved::{SavedError, SavedPiece, SavedStatus, Saving, inspect_open, inspect_saved};

const SUFFIX: &str = "snap";
const TEMPORARY: &str = "tmp";

/// How long no snapshot is taken in after one that cannot be used; then twice as long, up to the other.
const UNUSABLE_WAIT_MIN: Duration = Duration::from_secs(10);
const UNUSABLE_WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// Sends snapshots from the view that is kept ready.
#[derive(Default)]
pub(crate) struct Sender {
    kept: Option<Made>,
}

impl Sender {
    /// A view to send from.
    pub(crate) fn keep(&mut self, made: Made) {
        self.kept = Some(made);
    }

    /// Nobody needs it any more.
    pub(crate) fn drop_kept(&mut self) {
        self.kept = None;
    }

    /// Starts sending. Returns the failure to report if that is not possible; otherwise the
    /// transport reports the outcome.
    pub(crate) fn send(&mut self, net: &Net, message: Message) -> Option<Event> {
        match self.begin(net, &message) {
            true => None,
            false => Some(Event::SnapshotSent { message, ok: false }),
        }
    }

    fn begin(&self, net: &Net, message: &Message) -> bool {
        let to = message.to();
        let Some(metadata) = message.snapshot() else { return false };
        let kept = self.kept.as_ref().filter(|kept| kept.snapshot.metadata == metadata);
        let Some(kept) = kept else { return false };
        let source = match (kept.open)() {
            Ok(source) => source,
            Err(error) => {
                tracing::warn!(%error, "cannot read the machine's state for a snapshot");
                return false;
            }
        };
        let header: Vec<u8> = message.encode().concat();
        tracing::info!(
            peer = %format_args!("{to:x}"),
            index = metadata.index.0,
            "sending a snapshot"
        );
        let sent = net.send_snapshot(to, Bytes::from(header), source);
        if let Err(error) = &sent {
            tracing::warn!(peer = %format_args!("{to:x}"), %error, "cannot send a snapshot");
        }
        sent.is_ok()
    }
}

/// Tells who sent a snapshot that it is of use here. Dropped, it says that it is not.
pub(crate) type Word = Box<dyn FnOnce() + Send>;

/// A reader of the machine's state as the transport takes it.
pub(crate) type Source = Box<dyn SnapshotSource>;

/// Receives snapshots into files, one at a time: from its first byte until it is installed or of no
/// use, no other is taken in. So the file that a mark in the log rests on is never in another's way.
pub(crate) struct Receiver {
    cluster: u64,
    directory: PathBuf,
    done: mpsc::UnboundedSender<Done>,
    /// One permit: taken from the first byte of a snapshot until it is of no use any more.
    place: Arc<Semaphore>,
    /// One that is whole, and of which the engine has heard; its sender waits for our word.
    announced: Option<Word>,
    unusable: Arc<Mutex<Unusable>>,
    spawner: tokio::runtime::Handle,
}

/// How many snapshots in a row came whole and could not be used, and until when no other is taken in.
#[derive(Debug, Default)]
struct Unusable {
    count: u32,
    until: Option<Instant>,
}

impl Unusable {
    /// One more; says for how long no other is taken in.
    fn note(&mut self, now: Instant) -> Duration {
        let wait = UNUSABLE_WAIT_MIN.saturating_mul(1 << self.count.min(10));
        let wait = wait.min(UNUSABLE_WAIT_MAX);
        self.count += 1;
        self.until = Some(now + wait);
        wait
    }

    fn declines(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

impl Receiver {
    pub(crate) fn new(
        cluster: u64,
        directory: PathBuf,
        done: mpsc::UnboundedSender<Done>,
        spawner: tokio::runtime::Handle,
    ) -> Self {
        let (place, unusable) = (Arc::new(Semaphore::new(1)), Arc::default());
        Receiver { cluster, directory, done, place, announced: None, unusable, spawner }
    }

    /// Begins to receive one; declines it (by dropping the stream) while another is under way.
    pub(crate) fn begin(
        &self,
        node: NodeId,
        engine: Engine,
        from: NodeId,
        header: Bytes,
        stream: IncomingSnapshot,
    ) {
        let message = match Message::decode(engine, header) {
            Ok(message) if message.to() == node && message.from() == from => message,
            _ => {
                tracing::warn!(peer = %format_args!("{from:x}"), "snapshot with a nonsense header");
                return;
            }
        };
        let Some(metadata) = message.snapshot() else { return };
        let id = EntryId { term: metadata.term, index: metadata.index };
        if self.unusable().declines(Instant::now()) {
            return;
        }
        let Ok(place) = Arc::clone(&self.place).try_acquire_owned() else { return };
        tracing::info!(peer = %format_args!("{from:x}"), index = id.index.0, "receiving a snapshot");
        let cluster = self.cluster;
        let (directory, done, unusable) =
            (self.directory.clone(), self.done.clone(), Arc::clone(&self.unusable));
        self.spawner.spawn(async move {
            let mut stream = stream;
            let received = receive(cluster, &directory, metadata, &mut stream).await;
            let mut unusable = unusable.lock().unwrap_or_else(PoisonError::into_inner);
            match received {
                Ok(bytes) => {
                    tracing::info!(index = id.index.0, bytes, "snapshot received");
                    // Given back when the snapshot has been let go.
                    place.forget();
                    *unusable = Unusable::default();
                    // Who has not waited for so long sends another if there is need of it.
                    let word = Box::new(move || drop(stream.accept()));
                    let _ = done.send(Done::SnapshotReceived(message, word));
                }
                Err(error) => match error {
                    ReceiveError::Unusable(why) => {
                        let wait_seconds = unusable.note(Instant::now()).as_secs();
                        tracing::error!(
                            peer = %format_args!("{from:x}"),
                            index = id.index.0,
                            count = unusable.count,
                            "a snapshot came whole and cannot be installed here: {why}; this \
                             member stays behind until it can (does it run the version that the \
                             others run?); no other is taken in for {wait_seconds} s"
                        );
                    }
                    ReceiveError::Other(error) => tracing::warn!(%error, "snapshot not received"),
                },
            }
        });
    }

    fn unusable(&self) -> std::sync::MutexGuard<'_, Unusable> {
        self.unusable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine was given the snapshot that is whole.
    pub(crate) fn announced(&mut self, word: Word) {
        self.announced = Some(word);
    }

    /// Lets the snapshot go that the engine was given, unless it is still to be installed.
    pub(crate) fn settle(&mut self, is_installing: bool) {
        if is_installing {
            return;
        }
        let Some(word) = self.announced.take() else { return };
        word();
        let (directory, place) = (self.directory.clone(), Arc::clone(&self.place));
        self.spawner.spawn_blocking(move || {
            if let Err(error) = remove_all(&directory) {
                tracing::warn!(%error, "a snapshot that is of no use any more was not removed");
            }
            place.add_permits(1);
        });
    }
}

/// Why a snapshot was not taken in.
enum ReceiveError {
    /// It came whole, and is of no use here.
    Unusable(String),
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for ReceiveError {
    fn from(error: E) -> Self {
        ReceiveError::Other(error.into())
    }
}

/// Takes the stream into its file. Whatever goes wrong, no file under the final name is left.
async fn receive(
    cluster: u64,
    directory: &Path,
    metadata: SnapshotMetadata,
    stream: &mut IncomingSnapshot,
) -> Result<u64, ReceiveError> {
    let id = EntryId { term: metadata.term, index: metadata.index };
    let temporary = path(directory, id).with_extension(TEMPORARY);
    let last = path(directory, id);
    let (chunks, mut inbox) = mpsc::channel::<Bytes>(4);
    let file = temporary.clone();
    let writer = tokio::task::spawn_blocking(move || -> io::Result<File> {
        let mut file = create(&file)?;
        while let Some(chunk) = inbox.blocking_recv() {
            file.write_all(&chunk)?;
        }
        Ok(file)
    });
    let mut bytes = 0;
    let mut failure = None;
    loop {
        match stream.next_chunk().await {
            Ok(Some(chunk)) => {
                bytes += chunk.len() as u64;
                if chunks.send(chunk).await.is_err() {
                    break; // the writer has failed and says why below
                }
            }
            Ok(None) => break,
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    drop(chunks);
    let written = writer.await?;
    if let Some(error) = failure {
        let _ = fs::remove_file(&temporary);
        return Err(ReceiveError::Other(error.into()));
    }
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || {
        let finish = || -> Result<(), ReceiveError> {
            let file = written?;
            file.sync_all()?;
            drop(file);
            verify(cluster, &temporary, &metadata).map_err(ReceiveError::Unusable)?;
            fs::rename(&temporary, &last)?;
            Ok(sync_directory(&directory)?)
        };
        let finished = finish();
        if finished.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        finished
    })
    .await??;
    Ok(bytes)
}

/// Whether the file can be installed here as what its message says it is. After the mark is in the
/// log it would be too late to find out.
fn verify(cluster: u64, file: &Path, metadata: &SnapshotMetadata) -> Result<(), String> {
    let mut chunks = Chunks { file: File::open(file).map_err(|error| error.to_string())? };
    let (found, applied) =
        quorate_kv::verify(|| chunks.next()).map_err(|error| error.to_string())?;
    let conf_state = codec::decode_conf_state_record(applied.conf_state)
        .map_err(|error| format!("its membership: {error}"))?;
    let held = SnapshotMetadata { conf_state, index: applied.index, term: applied.term };
    if (found, &held) != (cluster, metadata) {
        return Err(format!(
            "it holds {held:?} of cluster {found:x}, its message said {metadata:?} of {cluster:x}"
        ));
    }
    Ok(())
}

/// The file of the snapshot that ends with `id`.
pub(crate) fn path(directory: &Path, id: EntryId) -> PathBuf {
    directory.join(format!("{:016x}-{:016x}.{SUFFIX}", id.index.0, id.term.0))
}

/// Removes every snapshot, temporary files included.
pub(crate) fn remove_all(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let ours =
            path.extension().is_some_and(|extension| extension == SUFFIX || extension == TEMPORARY);
        if ours {
            fs::remove_file(path)?;
        }
    }
    sync_directory(directory)
}

/// Reads a received file in pieces.
pub(crate) struct Chunks {
    file: File,
}

impl Chunks {
    pub(crate) fn open(directory: &Path, metadata: &SnapshotMetadata) -> io::Result<Self> {
        let id = EntryId { term: metadata.term, index: metadata.index };
        Ok(Chunks { file: File::open(path(directory, id))? })
    }

    /// How many bytes the file has.
    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The next piece; empty at the end.
    pub(crate) fn next(&mut self) -> io::Result<Bytes> {
        let mut buffer = vec![0; 256 * 1024];
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        Ok(Bytes::from(buffer))
    }
}

/// A new file for its owner only.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).read(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// An empty snapshot message's metadata as the engine wants it.
pub(crate) fn described(metadata: SnapshotMetadata) -> Snapshot {
    Snapshot { data: Bytes::new(), metadata }
}

#[cfg(test)]
mod tests;
