//! `snapshot`: the state of a member as a file, and a new cluster from it.
//!
//! A file gets its name when it is whole and durable, and was checked from its first byte to its last.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use quorate_proto::etcdserverpb::SnapshotRequest;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::tonic::Streaming;
use quorate_server::config::Sources;
use quorate_server::snapshot::{self as saved, Anew, Part, SavedError, SavedStatus};
use serde::Serialize;

use super::error::CliError;
use super::flags::{ClientFlags, Form};
use super::table::table;

/// How long a member may take for the next piece: before the first it reads all of its state.
const PIECE_MAX: Duration = Duration::from_secs(120);
/// As `etcdctl` ends when a snapshot was not saved, whatever the reason.
const NOT_SAVED: u8 = 5;
/// Below this nobody waits for long enough to look at a bar.
const BAR_BYTES_MIN: u64 = 32 << 20;

const STYLE: &str = "{msg} {bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

/// What is done with snapshots.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum SnapshotCommand {
    /// Saves the state of one member to a file
    Save(SaveArgs),
    /// Checks a saved file and says what is in it
    Status(StatusArgs),
    /// Makes the data directory of a member of a new cluster out of a saved file
    ///
    /// Every member of the new cluster is restored from the same file with the same --initial-cluster,
    /// and then started with the same flags.
    Restore(RestoreArgs),
}

/// Arguments of `snapshot save`.
#[derive(clap::Args, Debug)]
pub(crate) struct SaveArgs {
    /// The file; one of that name is replaced
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of `snapshot status`.
#[derive(clap::Args, Debug)]
pub(crate) struct StatusArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of `snapshot restore`.
#[derive(clap::Args, Debug)]
pub(crate) struct RestoreArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Name of the member [default: default]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Directory to make; it must be empty or not be there [default: NAME.etcd]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Members of the new cluster: n1=http://h1:2380,n2=http://h2:2380 [default: this member alone]
    #[arg(long, value_name = "LIST")]
    initial_cluster: Option<String>,
    /// Keeps the new cluster apart from others with the same URLs [default: etcd-cluster]
    #[arg(long, value_name = "TEXT")]
    initial_cluster_token: Option<String>,
    /// What other members are told to connect to [default: http://localhost:2380]
    #[arg(long, value_name = "URLS")]
    initial_advertise_peer_urls: Option<String>,
    /// What orders the new cluster's writes, raft or zab; members are started with the same [default: raft]
    #[arg(long, value_name = "ENGINE")]
    engine: Option<String>,
    /// Raises the revision by that much, beyond any that a client of the old cluster may have seen
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    bump_revision: u64,
    /// Has all history count as compacted, so that watchers of the old cluster start anew
    #[arg(long)]
    mark_compacted: bool,
    #[command(flatten)]
    flags: ClientFlags,
}

impl SnapshotCommand {
    /// Runs it; its answer goes to standard output.
    ///
    /// # Errors
    ///
    /// A member that cannot be reached or breaks off, a file that is not whole, a directory that is not
    /// empty, a disk that fails.
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            SnapshotCommand::Save(args) => {
                args.run().await.map_err(|error| error.with_code(NOT_SAVED))
            }
            SnapshotCommand::Status(args) => args.run(),
            SnapshotCommand::Restore(args) => args.run(),
        }
    }
}

impl SaveArgs {
    async fn run(&self) -> Result<(), CliError> {
        let form = form(&self.flags)?;
        let target = self.flags.target()?;
        let count = target.names().count();
        if count != 1 {
            let text = format!("a snapshot is of one member: --endpoints names {count}");
            return Err(CliError::Failed(text));
        }
        // It may take its time, but not be gone.
        let mut pieces = MaintenanceClient::new(target.connect_watched().await?)
            .snapshot(SnapshotRequest::default())
            .await?
            .into_inner();
        let (part, mut file) =
            Part::file(&self.file).map_err(|error| cannot("write", &self.file, &error))?;
        let version = receive(&mut pieces, &mut file, part.path()).await?;
        let bytes = keep(part, file, &self.file)?;
        print(form, &Saved { path: self.file.display().to_string(), bytes, version }, |saved| {
            let version = match saved.version.as_str() {
                "" => String::new(),
                version => format!("\nServer version {version}"),
            };
            format!("Snapshot saved at {}{version}", saved.path)
        })
    }
}

/// Takes a snapshot into a file, durably; answers the version of its storage, if the member says it.
async fn receive(
    pieces: &mut Streaming<quorate_proto::etcdserverpb::SnapshotResponse>,
    file: &mut File,
    path: &Path,
) -> Result<String, CliError> {
    let failed = |error| cannot("write", path, &error);
    let mut bar = Bar::new("receiving");
    let (mut done, mut version) = (0, String::new());
    loop {
        let piece = tokio::time::timeout(PIECE_MAX, pieces.message())
            .await
            .map_err(|_| CliError::Failed(format!("nothing came for {PIECE_MAX:?}")))??;
        let Some(piece) = piece else { break };
        // Small enough not to keep anyone waiting; nothing else runs here.
        file.write_all(&piece.blob).map_err(failed)?;
        done += piece.blob.len() as u64;
        bar.tell(done, done + piece.remaining_bytes);
        version = piece.version;
    }
    file.sync_all().map_err(failed)?;
    Ok(version)
}

/// Gives a file its name, if it is whole; answers how long it is.
fn keep(part: Part, file: File, path: &Path) -> Result<u64, CliError> {
    let mut bar = Bar::new("checking");
    match saved::inspect_open(file, part.path(), &mut |done, total| bar.tell(done, total)) {
        // A whole one of etcd's can be kept, though it is of no use here.
        Ok(_) | Err(SavedError::Etcd { .. }) => {}
        Err(error) => return Err(CliError::Failed(format!("not saved: {error}"))),
    }
    let kept = part.keep().and_then(|()| Ok(fs::metadata(path)?.len()));
    kept.map_err(|error| cannot("write", path, &error))
}

impl StatusArgs {
    fn run(&self) -> Result<(), CliError> {
        let form = form(&self.flags)?;
        let mut bar = Bar::new("checking");
        let status = saved::inspect_saved(&self.file, &mut |done, total| bar.tell(done, total))
            .map_err(|error| CliError::Failed(error.to_string()))?;
        drop(bar);
        let status = Status::from(&status);
        let row = [
            format!("{:x}", status.hash),
            status.revision.to_string(),
            status.total_key.to_string(),
            super::status::size(i64::try_from(status.total_size).unwrap_or(i64::MAX)),
        ];
        print(form, &status, |_| match form {
            Some(Form::Simple) => row.join(", "),
            Some(Form::Fields) => [
                ("Hash", i128::from(status.hash)),
                ("Revision", status.revision.into()),
                ("Keys", status.total_key.into()),
                ("Size", status.total_size.into()),
            ]
            .map(|(name, value)| format!("\"{name}\" : {value}"))
            .join("\n"),
            _ => table(["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"], [row.clone()]),
        })
    }
}

impl RestoreArgs {
    fn run(&self) -> Result<(), CliError> {
        let form = form(&self.flags)?;
        let mut sources = Sources::default();
        for (flag, value) in [
            ("name", &self.name),
            ("data-dir", &self.data_dir),
            ("initial-cluster", &self.initial_cluster),
            ("initial-cluster-token", &self.initial_cluster_token),
            ("initial-advertise-peer-urls", &self.initial_advertise_peer_urls),
            ("engine", &self.engine),
        ] {
            if let Some(value) = value {
                let taken = sources.flag(flag, value);
                taken.map_err(|error| CliError::Arguments(error.to_string()))?;
            }
        }
        let config =
            sources.config().map_err(|problems| CliError::Arguments(problems.to_string()))?;
        let anew = Anew { bump_revision: self.bump_revision, mark_compacted: self.mark_compacted };
        let mut bar = Bar::new("restoring");
        let restored =
            saved::restore(&self.file, &config, anew, &mut |done, total| bar.tell(done, total));
        drop(bar);
        let status = restored.map_err(|error| CliError::Failed(error.to_string()))?;
        let restored = Restored {
            data_dir: config.data_dir.display().to_string(),
            name: config.name,
            revision: status.contents.revision.saturating_add_unsigned(self.bump_revision),
        };
        print(form, &restored, |restored| {
            format!(
                "Restored revision {} into {}; start every member of the new cluster with the flags \
                 that it was restored with",
                restored.revision, restored.data_dir
            )
        })
    }
}

/// What came of `snapshot save`.
#[derive(Serialize)]
struct Saved {
    path: String,
    bytes: u64,
    version: String,
}

/// A saved file, with `etcdctl`'s names.
#[derive(Serialize)]
struct Status {
    hash: u32,
    revision: i64,
    #[serde(rename = "totalKey")]
    total_key: u64,
    #[serde(rename = "totalSize")]
    total_size: u64,
}

impl From<&SavedStatus> for Status {
    fn from(status: &SavedStatus) -> Self {
        Status {
            hash: status.hash,
            revision: status.contents.revision,
            total_key: status.contents.rows_count,
            total_size: status.file_bytes,
        }
    }
}

/// What came of `snapshot restore`.
#[derive(Serialize)]
struct Restored {
    name: String,
    #[serde(rename = "dataDir")]
    data_dir: String,
    revision: i64,
}

fn form(flags: &ClientFlags) -> Result<Option<Form>, CliError> {
    Ok(flags.output()?.form)
}

/// Prints an answer as JSON, or for people.
fn print<T: Serialize>(
    form: Option<Form>,
    answer: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), CliError> {
    let line = match form {
        Some(Form::Json) => serde_json::to_string(answer)
            .map_err(|error| CliError::Failed(format!("cannot write the answer: {error}")))?,
        _ => text(answer),
    };
    writeln!(io::stdout(), "{line}").map_err(CliError::Output)
}

/// How far long work is, on standard error if that is a terminal; gone when the work is over.
struct Bar {
    what: &'static str,
    bar: Option<ProgressBar>,
}

impl Bar {
    fn new(what: &'static str) -> Self {
        Bar { what, bar: None }
    }

    fn tell(&mut self, done: u64, total: u64) {
        if total < BAR_BYTES_MIN {
            return;
        }
        let what = self.what;
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(STYLE).expect("the words above are known");
            ProgressBar::new(total).with_style(style).with_message(what)
        });
        bar.set_length(total);
        bar.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> CliError {
    CliError::Failed(format!("cannot {what} {}: {error}", path.display()))
}
