//! Our durable log beside `raft-engine` and a file that is merely appended to and synced.
//!
//! ```text
//! cargo run --release -p quorate-bench --bin log                     all, a minute or two
//! cargo run --release -p quorate-bench --bin log -- --only append
//! cargo run --release -p quorate-bench --bin log -- --dir /mnt/disk  on another volume
//! ```
//! *append*: batches of 1, 16 and 128 entries of 256 bytes that no compression shrinks, a sync after
//! each batch. The stores take turns on one volume; a figure is the median over all turns.
//! *recover*: a log of 1 GiB opened and all of its entries handed over, beside what `cat` does with the
//! same files, and beside reading them into memory that is kept: an open log is in memory, and what the
//! system asks for memory that was not there before no reader of ours can save.
//! *allocations*: of one appended entry, counted.

use std::any::Any;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
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
    table.load_style(presets::ASCII_FULL_CONDENSED);
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
    table.load_style(presets::ASCII_FULL_CONDENSED);
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
    println!("\nrecover: {} MiB with {last} entries; medians of {TURNS} turns", bytes >> 20);
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED);
    table.set_header([
        "cache",
        "measured in",
        "opened MB/s",
        "cat MB/s",
        "kept MB/s",
        "opened / cat",
        "opened / kept",
    ]);
    for cache in ["warm", "cold"] {
        let measure = |work: &dyn Fn() -> Outcome<Box<dyn Any>>| {
            let mut rates = [const { Vec::new() }; 2];
            // The first turn warms the cache.
            for turn in 0..=TURNS {
                if cache == "cold" {
                    forget(dir)?;
                }
                let (started, cpu) = (Instant::now(), cpu_seconds());
                let kept = work()?;
                let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
                drop(kept);
                if 0 < turn {
                    let seconds = rates.iter_mut().zip([wall, cpu]);
                    seconds.for_each(|(rates, seconds)| rates.push(bytes as f64 / seconds / 1e6));
                }
            }
            Outcome::Ok(rates.map(median))
        };
        // `cat` comes first: what the others let go of leaves the system memory in small pieces, with
        // which it reads from the disk more slowly for a while.
        let [cat_wall, cat_cpu] = measure(&|| Ok(Box::new(cat(dir)?)))?;
        let [keep_wall, keep_cpu] = measure(&|| Ok(Box::new(keep(dir)?)))?;
        let [open_wall, open_cpu] = measure(&|| {
            let opened = Wal::open(Arc::new(RealDisk), dir, Options::default(), &mut |_, _| {})?;
            if opened.1.entries.len() as u64 != last.0 {
                return Err("entries are missing".into());
            }
            Ok(Box::new(opened))
        })?;
        for (what, open, cat, keep) in [
            ("wall time", open_wall, cat_wall, keep_wall),
            ("processor time", open_cpu, cat_cpu, keep_cpu),
        ] {
            table.add_row([
                cache.to_owned(),
                what.to_owned(),
                format!("{open:.0}"),
                format!("{cat:.0}"),
                format!("{keep:.0}"),
                format!("{:.2}", open / cat),
                format!("{:.2}", open / keep),
            ]);
        }
    }
    println!("{table}");
    Ok(())
}

/// Reads all files of a directory as `cat` does, which is 128 KiB at a time into the same memory. In this
/// process, so that its processor time can be told.
fn cat(dir: &Path) -> Outcome<()> {
    let mut buffer = vec![0; 128 << 10];
    for file in std::fs::read_dir(dir)? {
        let mut file = File::open(file?.path())?;
        while 0 < file.read(&mut buffer)? {}
    }
    Ok(())
}

/// Reads all files of a directory into memory, 1 MiB at a time.
fn keep(dir: &Path) -> Outcome<Vec<Vec<u8>>> {
    let mut blocks = Vec::new();
    for file in std::fs::read_dir(dir)? {
        let mut file = File::open(file?.path())?;
        loop {
            let mut block = vec![0; 1 << 20];
            let read = file.read(&mut block)?;
            if read == 0 {
                break;
            }
            block.truncate(read);
            blocks.push(block);
        }
    }
    Ok(blocks)
}

/// Takes all files of a directory out of the system's cache.
fn forget(dir: &Path) -> Outcome<()> {
    for file in std::fs::read_dir(dir)? {
        let file = File::open(file?.path())?;
        // What is not on the disk cannot be forgotten.
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
