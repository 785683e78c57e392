//! Rows in `redb`, over any storage that reads, writes and syncs.
//!
//! Every commit is durable when it returns, and written in two phases with the allocator's state,
//! so that opening after a crash needs no walk over the whole file.
//!
//! `redb` panics at some kinds of damage to its own pages. What it does here is watched, so that such
//! damage is an error like any other.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};

use bytes::Bytes;
use redb::{
    CompactionError, Database, ReadOnlyTable, ReadableDatabase, ReadableTable as _, StorageBackend,
    TableDefinition, WriteTransaction,
};

use super::guarded::Guarded;
use super::{Backend, BackendError, Batch, Table, View, Visit};
use crate::revision::KEY_BYTES;

/// Revisions have keys of one length, which `redb` stores without offsets.
const REVISIONS: TableDefinition<'_, &[u8; KEY_BYTES], &[u8]> = TableDefinition::new("key");
const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");
const MEMBERS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("member");
const LEASES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("lease");
const ALARMS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("alarm");
/// How many tables there are, with the one below.
const TABLES_COUNT: usize = Table::ALL.len() + 1;
/// The backend's own: bytes of all rows of the other tables.
const USE: TableDefinition<'_, (), u64> = TableDefinition::new("use");

thread_local! {
    /// Whether a file is being opened, and damage that makes `redb` panic expected.
    static IS_OPENING: Cell<bool> = const { Cell::new(false) };
}

/// From now on a panic at the opening of a damaged file is told as the error that it becomes, and not
/// on standard error as well, in this whole process. All other panics are told as before.
pub fn hush_panics_of_damage() {
    static HUSHED: Once = Once::new();
    HUSHED.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_OPENING.get() {
                tell(panic);
            }
        }));
    });
}

/// Rows in `redb`.
#[derive(Debug)]
pub struct RedbBackend {
    /// Shared with views: rows of a closed database cannot be read.
    database: Arc<Database>,
    size_bytes: Arc<AtomicU64>,
    in_use_bytes: u64,
}

impl RedbBackend {
    /// Opens what `storage` holds; empty storage becomes an empty database. Up to `cache_bytes` of
    /// pages are kept in memory.
    ///
    /// Everything that is there is read and checked, so that no damaged page is ever followed: `redb`
    /// itself checks pages only after a crash, and may panic on one that is damaged. What is refused
    /// stays as it was.
    ///
    /// # Errors
    ///
    /// When the storage fails, is in use, is damaged, or holds something else.
    pub fn open(storage: impl StorageBackend, cache_bytes: usize) -> Result<Self, BackendError> {
        RedbBackend::open_if(storage, cache_bytes, |_| Ok(()))
    }

    /// As [`RedbBackend::open`], unless `judge` refuses what is there: that stays as it was, too, though it
    /// was not closed well and would be mended.
    ///
    /// # Errors
    ///
    /// As `open`, and what `judge` says.
    pub fn open_if(
        storage: impl StorageBackend,
        cache_bytes: usize,
        judge: impl FnOnce(&dyn View) -> Result<(), BackendError>,
    ) -> Result<Self, BackendError> {
        let outer = IS_OPENING.replace(true);
        let opened = watched(|| Self::open_checked(storage, cache_bytes, judge));
        IS_OPENING.set(outer);
        opened
    }

    fn open_checked(
        storage: impl StorageBackend,
        cache_bytes: usize,
        judge: impl FnOnce(&dyn View) -> Result<(), BackendError>,
    ) -> Result<Self, BackendError> {
        let storage = Guarded::new(storage).map_err(failed)?;
        let (size_bytes, guard) = (storage.size_bytes(), storage.clone());
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes);
        let mut database = builder.create_with_backend(storage).map_err(failed)?;
        if !database.check_integrity().map_err(failed)? {
            return Err(failed("the file is damaged: its pages are not as they were written"));
        }
        // A view opens every table, so they have to be there from the start. A database that an
        // earlier version made lacks some.
        let transaction = begin(&database)?;
        let is_complete = transaction.list_tables().map_err(failed)?.count() == TABLES_COUNT;
        let in_use_bytes = {
            transaction.open_table(REVISIONS).map_err(failed)?;
            transaction.open_table(META).map_err(failed)?;
            transaction.open_table(MEMBERS).map_err(failed)?;
            transaction.open_table(LEASES).map_err(failed)?;
            transaction.open_table(ALARMS).map_err(failed)?;
            let mut used = transaction.open_table(USE).map_err(failed)?;
            let known = used.get(()).map_err(failed)?.map(|bytes| bytes.value());
            if known.is_none() {
                used.insert((), 0).map_err(failed)?;
            }
            known
        };
        if is_complete {
            transaction.abort().map_err(failed)?;
        } else {
            transaction.commit().map_err(failed)?;
        }
        let (database, in_use_bytes) = (Arc::new(database), in_use_bytes.unwrap_or(0));
        let backend = RedbBackend { database, size_bytes, in_use_bytes };
        judge(&*backend.view()?)?;
        guard.lift().map_err(failed)?;
        Ok(backend)
    }
}

impl Backend for RedbBackend {
    fn view(&self) -> Result<Arc<dyn View>, BackendError> {
        watched(|| {
            let transaction = self.database.begin_read().map_err(failed)?;
            let view: Arc<dyn View> = Arc::new(RedbView {
                revisions: transaction.open_table(REVISIONS).map_err(failed)?,
                meta: transaction.open_table(META).map_err(failed)?,
                members: transaction.open_table(MEMBERS).map_err(failed)?,
                leases: transaction.open_table(LEASES).map_err(failed)?,
                alarms: transaction.open_table(ALARMS).map_err(failed)?,
                _database: Arc::clone(&self.database),
            });
            Ok(view)
        })
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), BackendError> {
        self.in_use_bytes = watched(|| {
            let transaction = begin(&self.database)?;
            let in_use_bytes = write(&transaction, batch, self.in_use_bytes)?;
            transaction.commit().map_err(failed)?;
            Ok(in_use_bytes)
        })?;
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Relaxed)
    }

    fn in_use_bytes(&self) -> u64 {
        self.in_use_bytes
    }

    fn views_count(&self) -> usize {
        // Each holds the database, as this does.
        Arc::strong_count(&self.database) - 1
    }

    fn defragment(&mut self) -> Result<(), BackendError> {
        let Some(database) = Arc::get_mut(&mut self.database) else {
            return Err(BackendError::Busy);
        };
        watched(|| match database.compact() {
            Ok(_) => Ok(()),
            Err(CompactionError::TransactionInProgress) => Err(BackendError::Busy),
            Err(error) => Err(failed(error)),
        })
    }
}

fn begin(database: &Database) -> Result<WriteTransaction, BackendError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Writes the batch, and returns how many bytes of rows there are after it.
fn write(
    transaction: &WriteTransaction,
    batch: &Batch,
    mut in_use_bytes: u64,
) -> Result<u64, BackendError> {
    let mut revisions = transaction.open_table(REVISIONS).map_err(failed)?;
    let mut meta = transaction.open_table(META).map_err(failed)?;
    let mut members = transaction.open_table(MEMBERS).map_err(failed)?;
    let mut leases = transaction.open_table(LEASES).map_err(failed)?;
    let mut alarms = transaction.open_table(ALARMS).map_err(failed)?;
    for (table, key, value) in batch.puts() {
        let old = match table {
            Table::Key => revisions.insert(revision_key(key)?, value),
            Table::Meta => meta.insert(key, value),
            Table::Member => members.insert(key, value),
            Table::Lease => leases.insert(key, value),
            Table::Alarm => alarms.insert(key, value),
        };
        let old = old.map_err(failed)?.map_or(0, |old| key.len() + old.value().len());
        in_use_bytes = in_use_bytes + (key.len() + value.len()) as u64 - old as u64;
    }
    for (table, key) in batch.deletes() {
        let old = match table {
            Table::Key => revisions.remove(revision_key(key)?),
            Table::Meta => meta.remove(key),
            Table::Member => members.remove(key),
            Table::Lease => leases.remove(key),
            Table::Alarm => alarms.remove(key),
        };
        let old = old.map_err(failed)?.map_or(0, |old| key.len() + old.value().len());
        in_use_bytes -= old as u64;
    }
    let mut used = transaction.open_table(USE).map_err(failed)?;
    used.insert((), in_use_bytes).map_err(failed)?;
    Ok(in_use_bytes)
}

struct RedbView {
    revisions: ReadOnlyTable<&'static [u8; KEY_BYTES], &'static [u8]>,
    meta: ReadOnlyTable<&'static [u8], &'static [u8]>,
    members: ReadOnlyTable<&'static [u8], &'static [u8]>,
    leases: ReadOnlyTable<&'static [u8], &'static [u8]>,
    alarms: ReadOnlyTable<&'static [u8], &'static [u8]>,
    /// Open as long as it is read, also after its backend has been replaced. Closed last.
    _database: Arc<Database>,
}

impl View for RedbView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        watched(|| {
            let row = match table {
                Table::Key => self.revisions.get(revision_key(key)?),
                Table::Meta => self.meta.get(key),
                Table::Member => self.members.get(key),
                Table::Lease => self.leases.get(key),
                Table::Alarm => self.alarms.get(key),
            };
            Ok(row.map_err(failed)?.map(|row| Bytes::copy_from_slice(row.value())))
        })
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), BackendError> {
        watched(|| self.scan_unwatched(table, from, visit))
    }
}

impl RedbView {
    fn scan_unwatched(
        &self,
        table: Table,
        from: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), BackendError> {
        let table = match table {
            Table::Key => {
                // The shortest key at or after `from`: a longer one is after its own beginning.
                let mut first = [0; KEY_BYTES];
                let length = from.len().min(KEY_BYTES);
                first[..length].copy_from_slice(&from[..length]);
                for row in self.revisions.range::<&[u8; KEY_BYTES]>(&first..).map_err(failed)? {
                    let (key, value) = row.map_err(failed)?;
                    if visit(key.value(), value.value()).is_break() {
                        break;
                    }
                }
                return Ok(());
            }
            Table::Meta => &self.meta,
            Table::Member => &self.members,
            Table::Lease => &self.leases,
            Table::Alarm => &self.alarms,
        };
        for row in table.range::<&[u8]>(from..).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            if visit(key.value(), value.value()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn revision_key(key: &[u8]) -> Result<&[u8; KEY_BYTES], BackendError> {
    key.try_into().map_err(|_| failed("a revision's key of another length"))
}

fn failed(error: impl std::fmt::Display) -> BackendError {
    BackendError::Failed(error.to_string())
}

/// Does it, and takes a panic for what it is here: damage that nobody has checked for.
fn watched<T>(act: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
    // After a failure the store does nothing more, so nobody sees what the panic left behind.
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        Err(BackendError::Failed(format!("the storage is damaged ({text})")))
    })
}
