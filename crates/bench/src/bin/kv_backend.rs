//! What keeps the key-value machine's rows best: `redb`, `fjall`, or memory with a file written
//! whole.
//!
//! Each candidate takes the machine's own layout (17-byte revision keys in order, rows with 256
//! random bytes) in durable batches, is read at random places, closed, opened again and read from
//! end to end, as the machine does at its start. The last lines measure the machine itself.
//!
//! ```text
//! cargo run --release -p quorate-bench --bin kv_backend            all, a few minutes
//! cargo run --release -p quorate-bench --bin kv_backend -- redb 10000
//! ```
//! Each measurement runs in a process of its own, so that memory is its own too.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use quorate_kv::{Apply, Command, Entry, Initial, PutRequest, RangeRequest, RedbBackend, Store};
use quorate_types::{Index, Term};
use redb::{ReadableDatabase as _, ReadableTable as _};

const ROWS: u64 = 1_000_000;
const GETS: u64 = 200_000;
const VALUE_BYTES: usize = 256;
const CACHE_BYTES: usize = 64 << 20;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [candidate, batch] = &arguments[..] {
        return measure(candidate, batch.parse()?);
    }
    println!(
        "{ROWS} rows of {VALUE_BYTES} random bytes, {GETS} random gets, {} MiB of cache",
        CACHE_BYTES >> 20
    );
    println!("{HEADINGS}");
    for candidate in ["redb", "redb-one-phase", "fjall", "memory", "machine"] {
        for batch in ["1000", "10000"] {
            // Writing everything again for every batch would take hours.
            if candidate == "memory" && batch == "1000" {
                continue;
            }
            let status =
                Process::new(std::env::current_exe()?).args([candidate, batch]).status()?;
            if !status.success() {
                return Err(format!("{candidate} {batch}: {status}").into());
            }
        }
    }
    Ok(())
}

const HEADINGS: &str = "candidate        batch   puts/s  us cpu/put  worst batch    gets/s  \
                        file MiB  open+scan s  memory MiB";

fn measure(candidate: &str, batch: u64) -> Outcome<()> {
    let directory = tempfile::tempdir_in(".")?;
    let path = directory.path();
    let figures = match candidate {
        "redb" => redb_alone(path, batch, true)?,
        "redb-one-phase" => redb_alone(path, batch, false)?,
        "fjall" => fjall_alone(path, batch)?,
        "memory" => memory_with_file(path, batch)?,
        "machine" => machine(path, batch)?,
        unknown => return Err(format!("no candidate {unknown}").into()),
    };
    println!(
        "{candidate:15} {batch:6} {:8.0} {:11.2} {:9.1} ms {:9.0} {:9.0} {:12.2} {:11.0}",
        ROWS as f64 / figures.write.as_secs_f64(),
        figures.write_cpu.as_secs_f64() * 1e6 / ROWS as f64,
        figures.worst_batch.as_secs_f64() * 1e3,
        GETS as f64 / figures.read.as_secs_f64(),
        figures.file_bytes as f64 / f64::from(1 << 20),
        figures.reopen.as_secs_f64(),
        figures.memory_bytes as f64 / f64::from(1 << 20),
    );
    Ok(())
}

#[derive(Default)]
struct Figures {
    write: Duration,
    write_cpu: Duration,
    worst_batch: Duration,
    read: Duration,
    reopen: Duration,
    file_bytes: u64,
    memory_bytes: u64,
}

/// Writes all rows by `commit`, one batch of rows at a time.
fn write_all(
    figures: &mut Figures,
    batch: u64,
    mut commit: impl FnMut(&[([u8; 17], Vec<u8>)]) -> Outcome<()>,
) -> Outcome<()> {
    let mut dice = Dice(1);
    for first in (0..ROWS).step_by(batch as usize) {
        let rows: Vec<_> =
            (first..(first + batch).min(ROWS)).map(|row| (key(row), dice.bytes())).collect();
        let (started, cpu) = (Instant::now(), cpu_time()?);
        commit(&rows)?;
        let took = started.elapsed();
        figures.write += took;
        figures.write_cpu += cpu_time()? - cpu;
        figures.worst_batch = figures.worst_batch.max(took);
    }
    Ok(())
}

/// Reads random rows by `get`, which says how long the row is.
fn read_some(
    figures: &mut Figures,
    mut get: impl FnMut(&[u8; 17]) -> Outcome<usize>,
) -> Outcome<()> {
    let mut dice = Dice(2);
    let started = Instant::now();
    for _ in 0..GETS {
        assert_eq!(get(&key(dice.next() % ROWS))?, VALUE_BYTES);
    }
    figures.read = started.elapsed();
    figures.memory_bytes = resident_bytes()?;
    Ok(())
}

fn redb_alone(path: &Path, batch: u64, quick_repair: bool) -> Outcome<Figures> {
    const TABLE: redb::TableDefinition<'_, &[u8; 17], &[u8]> = redb::TableDefinition::new("key");
    let file = path.join("redb");
    let open = || redb::Database::builder().set_cache_size(CACHE_BYTES).create(&file);
    let mut figures = Figures::default();
    let database = open()?;
    write_all(&mut figures, batch, |rows| {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(quick_repair);
        let mut table = transaction.open_table(TABLE)?;
        for (key, row) in rows {
            table.insert(key, row.as_slice())?;
        }
        drop(table);
        Ok(transaction.commit()?)
    })?;
    let table = database.begin_read()?.open_table(TABLE)?;
    read_some(&mut figures, |key| {
        Ok(table.get(key)?.map_or(0, |row| Bytes::copy_from_slice(row.value()).len()))
    })?;
    drop(table);
    drop(database);
    figures.file_bytes = fs::metadata(&file)?.len();
    let started = Instant::now();
    let database = open()?;
    let table = database.begin_read()?.open_table(TABLE)?;
    let mut bytes = 0;
    for row in table.iter()? {
        bytes += row?.1.value().len() as u64;
    }
    assert_eq!(bytes, ROWS * VALUE_BYTES as u64);
    figures.reopen = started.elapsed();
    Ok(figures)
}

fn fjall_alone(path: &Path, batch: u64) -> Outcome<Figures> {
    let directory = path.join("fjall");
    let open = || -> Outcome<_> {
        let database =
            fjall::Database::builder(&directory).cache_size(CACHE_BYTES as u64).open()?;
        let keyspace = database.keyspace("key", fjall::KeyspaceCreateOptions::default)?;
        Ok((database, keyspace))
    };
    let mut figures = Figures::default();
    let (database, keyspace) = open()?;
    write_all(&mut figures, batch, |rows| {
        let mut batch = database.batch().durability(Some(fjall::PersistMode::SyncAll));
        for (key, row) in rows {
            batch.insert(&keyspace, key, row.as_slice());
        }
        Ok(batch.commit()?)
    })?;
    read_some(&mut figures, |key| {
        Ok(keyspace.get(key)?.map_or(0, |row| Bytes::copy_from_slice(&row).len()))
    })?;
    drop(keyspace);
    drop(database);
    figures.file_bytes = bytes_below(&directory)?;
    let started = Instant::now();
    let (_database, keyspace) = open()?;
    let mut bytes = 0;
    for row in keyspace.iter() {
        bytes += row.value()?.len() as u64;
    }
    assert_eq!(bytes, ROWS * VALUE_BYTES as u64);
    figures.reopen = started.elapsed();
    Ok(figures)
}

/// All rows in memory. A file with all of them is written ten times on the way, since a flush means
/// writing all of it.
fn memory_with_file(path: &Path, batch: u64) -> Outcome<Figures> {
    let file = path.join("memory");
    let mut figures = Figures::default();
    let mut rows: BTreeMap<[u8; 17], Box<[u8]>> = BTreeMap::new();
    let mut unflushed = 0;
    write_all(&mut figures, batch, |batch| {
        rows.extend(batch.iter().map(|(key, row)| (*key, row.as_slice().into())));
        unflushed += batch.len() as u64;
        if unflushed < ROWS / 10 {
            return Ok(());
        }
        unflushed = 0;
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&file)?);
        for (key, row) in &rows {
            out.write_all(key)?;
            out.write_all(row)?;
        }
        Ok(out.into_inner()?.sync_all()?)
    })?;
    read_some(&mut figures, |key| {
        Ok(rows.get(key).map_or(0, |row| Bytes::copy_from_slice(row).len()))
    })?;
    drop(rows);
    figures.file_bytes = fs::metadata(&file)?.len();
    let started = Instant::now();
    let mut bytes = Vec::new();
    File::open(&file)?.read_to_end(&mut bytes)?;
    let rows: BTreeMap<[u8; 17], Box<[u8]>> = bytes
        .chunks_exact(17 + VALUE_BYTES)
        .filter_map(|row| Some((row[..17].try_into().ok()?, row[17..].into())))
        .collect();
    assert_eq!(rows.len() as u64, ROWS);
    figures.reopen = started.elapsed();
    Ok(figures)
}

/// The machine over `redb`: entries of the log applied and flushed in turn, keys read at random.
fn machine(path: &Path, batch: u64) -> Outcome<Figures> {
    let file = path.join("machine");
    let backend = || -> Outcome<_> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(&file)?;
        Ok(RedbBackend::open(redb::backends::FileBackend::new(file)?, CACHE_BYTES)?)
    };
    let mut figures = Figures::default();
    let store = Store::create(backend()?, Initial::default())?;
    let mut index = 0;
    let mut apply = Duration::ZERO;
    write_all(&mut figures, batch, |rows| {
        let entries: Vec<Entry> = rows
            .iter()
            .map(|(_, row)| {
                index += 1;
                let key = name(index - 1);
                let value = Bytes::copy_from_slice(row);
                let mut command = BytesMut::new();
                Command::Put(PutRequest { key, value, ..PutRequest::default() })
                    .encode(&mut command);
                let what = Apply::Command(command.freeze());
                Entry { index: Index(index), term: Term(1), what, answer_wanted: true }
            })
            .collect();
        let started = Instant::now();
        for entries in entries.chunks(100) {
            store.apply(entries)?;
        }
        apply += started.elapsed();
        store.flush()?;
        Ok(())
    })?;
    let mut dice = Dice(2);
    let started = Instant::now();
    for _ in 0..GETS {
        let key = name(dice.next() % ROWS);
        let answer = store.range(&RangeRequest { key, ..RangeRequest::default() })?;
        assert_eq!(answer.kvs[0].value.len(), VALUE_BYTES);
    }
    figures.read = started.elapsed();
    figures.memory_bytes = resident_bytes()?;
    drop(store);
    figures.file_bytes = fs::metadata(&file)?.len();
    let started = Instant::now();
    let store = Store::open(backend()?)?;
    assert_eq!(store.keys_count() as u64, ROWS);
    figures.reopen = started.elapsed();
    println!(
        "  machine: applying alone takes {:.2} us of each put",
        apply.as_secs_f64() * 1e6 / ROWS as f64
    );
    Ok(figures)
}

/// A key as Kubernetes has them, at a random place in key order.
fn name(number: u64) -> Bytes {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Bytes::from(format!("/registry/pods/{scattered:016x}"))
}

/// A row's key in the machine's layout.
fn key(row: u64) -> [u8; 17] {
    let mut key = [b'_'; 17];
    key[..8].copy_from_slice(&(row + 2).to_be_bytes());
    key[9..].copy_from_slice(&0_u64.to_be_bytes());
    key
}

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(VALUE_BYTES);
        while bytes.len() < VALUE_BYTES {
            bytes.put_u64(self.next());
        }
        bytes
    }
}

/// Processor time of all threads of this process so far.
fn cpu_time() -> Outcome<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    // utime and stime are the 14th and 15th field, in hundredths of a second.
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn resident_bytes() -> Outcome<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split_whitespace().nth(1).unwrap_or_default().parse()?;
    Ok(pages * 4096)
}

fn bytes_below(directory: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
