//! Our durable log beside `raft-engine` and a file that is merely appended to and synced.
//!
//! ```text
//! cargo run --release -p quorate-bench --bin log                     all, a minute or two
//! cargo run --release -p quorate-bench --bin log -- --only append
//! cargo run --release -p quorate-bench --bin log -- --dir /mnt/disk  on another volume
//! ```
//! *append*: batches of 1, 16 and 128 entries of 256 bytes that no compression shrinks, a sync after
//! each batch. The stores take turns on one volume; a figure is the median over all turns.
//! *recover*: a log of 1 GiB opened and all of its entries handed over, beside `cat` of the same
//! files, both from warm caches. *allocations*: of one appended entry, counted.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use comfy_table::{Table, presets};
use quorate_types::{Index, LogEntry, Mark};
use quorate_wal::{Identity, Options, RealDisk, Wal, Write};
use raft::eraftpb::Entry;
use raft_engine::{Config, Engine, LogBatch, MessageExt};

const ENTRY_BYTES: usize = 256;
const BATCHES: [usize; 3] = [1, 16, 128];
/// Batches of one turn, for each size.
const TURN_BATCHES: [u64; 3] = [400, 400, 200];
const LOG_BYTES: u64 = 1 << 30;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Measures our log, raft-engine and a plain file under the same work, in turn.
#[derive(Parser, Debug)]
struct Args {
    /// Where the logs are made; removed afterwards [default: the directory for temporary files]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only this part
    #[arg(long)]
    only: Option<Part>,
    /// How many turns each store has
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    turns: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Entries appended and synced, a second
    Append,
    /// How fast a log is opened
    Recover,
    /// Allocations of an appended entry
    Allocations,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("log: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Outcome<()> {
    let parent = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let wants = |part| args.only.is_none_or(|only| only == part);
    if wants(Part::Append) {
        append(parent.path(), args.turns)?;
    }
    if wants(Part::Allocations) {
        allocations(parent.path())?;
    }
    if wants(Part::Recover) {
        recover(parent.path())?;
    }
    Ok(())
}

/// Something that keeps entries.
trait Store {
    /// Appends as many entries and syncs.
    fn append(&mut self, count: usize) -> Outcome<()>;
}

/// The next entries, with contents that differ and that no compression shrinks.
struct Entries {
    next: u64,
    noise: u64,
}

impl Entries {
    fn new() -> Self {
        Entries { next: 1, noise: 0x9e37_79b9_7f4a_7c15 }
    }

    fn next(&mut self) -> (u64, Vec<u8>) {
        let mut data = Vec::with_capacity(ENTRY_BYTES);
        for _ in 0..ENTRY_BYTES / 8 {
            self.noise ^= self.noise << 13;
            self.noise ^= self.noise >> 7;
            self.noise ^= self.noise << 17;
            data.extend_from_slice(&self.noise.to_le_bytes());
        }
        self.next += 1;
        (self.next - 1, data)
    }
}

struct Ours {
    wal: Wal,
    entries: Entries,
}

impl Ours {
    fn new(dir: &Path) -> Outcome<Self> {
        let disk = Arc::new(RealDisk);
        let (owner, options) = (Identity::default(), Options::default());
        Wal::create(disk.clone(), dir, owner, options.clone(), &Mark::default(), None)?;
        let (wal, _) = Wal::open(disk, dir, options, &mut |_, _| {})?;
        Ok(Ours { wal, entries: Entries::new() })
    }

    fn write(&mut self, count: usize) -> Write {
        let entries = (0..count).map(|_| {
            let (index, data) = self.entries.next();
            LogEntry { index: Index(index), stamp: 1, kind: 0, data: Bytes::from(data) }
        });
        Write { entries: entries.collect(), must_sync: true, ..Write::default() }
    }
}

impl Store for Ours {
    fn append(&mut self, count: usize) -> Outcome<()> {
        let write = self.write(count);
        Ok(self.wal.append(std::slice::from_ref(&write))?)
    }
}

struct RaftEngine {
    engine: Engine,
    batch: LogBatch,
    entries: Entries,
}

struct Of;

impl MessageExt for Of {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

impl RaftEngine {
    fn new(dir: &Path) -> Outcome<Self> {
        let config = Config { dir: dir.display().to_string(), ..Config::default() };
        let engine = Engine::open(config)?;
        Ok(RaftEngine { engine, batch: LogBatch::default(), entries: Entries::new() })
    }

    fn entries(&mut self, count: usize) -> Vec<Entry> {
        let entries = (0..count).map(|_| {
            let (index, data) = self.entries.next();
            Entry { index, term: 1, data: Bytes::from(data), ..Entry::default() }
        });
        entries.collect()
    }

    fn write(&mut self, entries: &[Entry]) -> Outcome<()> {
        self.batch.add_entries::<Of>(1, entries)?;
        self.engine.write(&mut self.batch, true)?;
        Ok(())
    }
}

impl Store for RaftEngine {
    fn append(&mut self, count: usize) -> Outcome<()> {
        let entries = self.entries(count);
        self.write(&entries)
    }
}

/// What one would write without much thought: no checksum, no space reserved, one write, one sync.
struct Naive {
    file: File,
    buffer: Vec<u8>,
    entries: Entries,
}

impl Naive {
    fn new(dir: &Path) -> Outcome<Self> {
        std::fs::create_dir(dir)?;
        let file = OpenOptions::new().append(true).create(true).open(dir.join("log"))?;
        Ok(Naive { file, buffer: Vec::new(), entries: Entries::new() })
    }
}

impl Store for Naive {
    fn append(&mut self, count: usize) -> Outcome<()> {
        self.buffer.clear();
        for _ in 0..count {
            let (index, data) = self.entries.next();
            self.buffer.extend_from_slice(&index.to_le_bytes());
            self.buffer.extend_from_slice(&1_u64.to_le_bytes());
            self.buffer.extend_from_slice(&(data.len() as u32).to_le_bytes());
            self.buffer.extend_from_slice(&data);
        }
        self.file.write_all(&self.buffer)?;
        Ok(self.file.sync_data()?)
    }
}

fn append(parent: &Path, turns: u16) -> Outcome<()> {
    println!(
        "append: entries of {ENTRY_BYTES} bytes a second, a sync after each batch; medians of \
         {turns} turns"
    );
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "entries a batch",
        "quorate-wal",
        "raft-engine",
        "plain file",
        "wal / raft-engine",
        "wal / plain file",
    ]);
    for (batch, batches) in BATCHES.into_iter().zip(TURN_BATCHES) {
        let dir = parent.join(format!("append-{batch}"));
        std::fs::create_dir(&dir)?;
        let mut stores: [Box<dyn Store>; 3] = [
            Box::new(Ours::new(&dir.join("wal"))?),
            Box::new(RaftEngine::new(&dir.join("raft-engine"))?),
            Box::new(Naive::new(&dir.join("naive"))?),
        ];
        let mut rates = [const { Vec::new() }; 3];
        // The first turn of each warms up: files grow, memory is taken.
        for turn in 0..=turns {
            for place in 0..stores.len() {
                // Nobody always comes first.
                let place = (place + usize::from(turn)) % stores.len();
                let started = Instant::now();
                for _ in 0..batches {
                    stores[place].append(batch)?;
                }
                if 0 < turn {
                    let entries = batches as f64 * batch as f64;
                    rates[place].push(entries / started.elapsed().as_secs_f64());
                }
            }
        }
        let [ours, theirs, naive] = rates.map(median);
        table.add_row([
            batch.to_string(),
            format!("{ours:.0}"),
            format!("{theirs:.0}"),
            format!("{naive:.0}"),
            format!("{:.2}", ours / theirs),
            format!("{:.2}", ours / naive),
        ]);
        drop(stores);
        std::fs::remove_dir_all(&dir)?;
    }
    println!("{table}");
    Ok(())
}

fn allocations(parent: &Path) -> Outcome<()> {
    println!("\nallocations of an appended entry, its own contents not counted");
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["entries a batch", "quorate-wal", "raft-engine"]);
    const ROUNDS: u64 = 200;
    for batch in BATCHES {
        let dir = parent.join(format!("allocations-{batch}"));
        std::fs::create_dir(&dir)?;
        let mut ours = Ours::new(&dir.join("wal"))?;
        let mut theirs = RaftEngine::new(&dir.join("raft-engine"))?;
        let (mut counts, mut failure) = ([0, 0], None);
        for round in 0..=ROUNDS {
            let write = ours.write(batch);
            let entries = theirs.entries(batch);
            let by_us = allocation_counter::measure(|| {
                failure = ours.wal.append(std::slice::from_ref(&write)).err().map(Into::into);
            });
            let by_them = allocation_counter::measure(|| {
                failure = failure.take().or_else(|| theirs.write(&entries).err());
            });
            if let Some(failure) = failure {
                return Err(failure);
            }
            // The first one makes buffers that are kept.
            if 0 < round {
                counts[0] += by_us.count_total;
                counts[1] += by_them.count_total;
            }
        }
        let each = |count: u64| format!("{:.3}", count as f64 / (ROUNDS * batch as u64) as f64);
        table.add_row([batch.to_string(), each(counts[0]), each(counts[1])]);
        drop((ours, theirs));
        std::fs::remove_dir_all(&dir)?;
    }
    println!("{table}");
    Ok(())
}

fn recover(parent: &Path) -> Outcome<()> {
    const TURNS: usize = 7;
    let dir = &parent.join("recover");
    let mut ours = Ours::new(dir)?;
    while ours.wal.size_bytes() < LOG_BYTES {
        let mut write = ours.write(128);
        write.must_sync = false;
        ours.wal.append(&[write])?;
    }
    ours.wal.append(&[Write { must_sync: true, ..Write::default() }])?;
    let (bytes, last) = (ours.wal.size_bytes(), ours.wal.last());
    drop(ours);
    let (mut opened, mut copied) = (Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        let started = Instant::now();
        let cat = Command::new("sh")
            .args(["-c", "exec cat -- \"$0\"/*.wal"])
            .arg(dir)
            .stdout(Stdio::null())
            .status()?;
        if !cat.success() {
            return Err(format!("cat: {cat}").into());
        }
        let cat_seconds = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let (wal, recovered) =
            Wal::open(Arc::new(RealDisk), dir, Options::default(), &mut |_, _| {})?;
        let seconds = started.elapsed().as_secs_f64();
        if (wal.last(), recovered.entries.len() as u64) != (last, last.0) {
            return Err("entries are missing".into());
        }
        // The first turn warms the cache.
        if 0 < turn {
            opened.push(bytes as f64 / seconds / 1e6);
            copied.push(bytes as f64 / cat_seconds / 1e6);
        }
    }
    let (opened, copied) = (median(opened), median(copied));
    println!(
        "\nrecover: {} MiB with {} entries, warm; medians of {TURNS} turns\n\
         opened at {opened:.0} MB/s, cat > /dev/null at {copied:.0} MB/s: {:.2}",
        bytes >> 20,
        last,
        opened / copied
    );
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
