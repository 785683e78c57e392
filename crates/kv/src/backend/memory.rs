//! Rows in memory, for tests and simulated nodes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{Backend, BackendError, Batch, Table, View, Visit};

/// Rows in memory. A clone is the same storage seen again, so a test drops a store, opens the
/// clone, and has restarted: commits are there, all else is gone.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    tables: Arc<Mutex<Tables>>,
}

/// Tables in pages, so that a commit copies only the pages it changes when a view holds them.
#[derive(Clone, Debug, Default)]
struct Tables {
    pages: Arc<BTreeMap<(Table, PageId), Arc<Page>>>,
    bytes: u64,
}

/// The first bytes of a key, which for changes of keys makes pages of 256 revisions.
type PageId = [u8; 7];
type Page = BTreeMap<Bytes, Bytes>;

impl MemoryBackend {
    /// Empty storage.
    pub fn new() -> Self {
        MemoryBackend::default()
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for MemoryBackend {
    fn view(&self) -> Result<Arc<dyn View>, BackendError> {
        Ok(Arc::new(self.tables().clone()))
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), BackendError> {
        let mut tables = self.tables();
        let mut changed = tables.clone();
        let pages = Arc::make_mut(&mut changed.pages);
        for (table, key, value) in batch.puts() {
            let page = Arc::make_mut(pages.entry((table, page_id(key))).or_default());
            changed.bytes += (key.len() + value.len()) as u64;
            let old = page.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            changed.bytes -= old.map_or(0, |old| (key.len() + old.len()) as u64);
        }
        for (table, key) in batch.deletes() {
            let id = (table, page_id(key));
            let Some(page) = pages.get_mut(&id).map(Arc::make_mut) else { continue };
            changed.bytes -= page.remove(key).map_or(0, |old| (key.len() + old.len()) as u64);
            if page.is_empty() {
                pages.remove(&id);
            }
        }
        *tables = changed;
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        // Clients divide by it.
        self.tables().bytes.max(1)
    }

    fn in_use_bytes(&self) -> u64 {
        self.tables().bytes
    }

    fn defragment(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

impl View for Tables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let page = self.pages.get(&(table, page_id(key)));
        Ok(page.and_then(|page| page.get(key)).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), BackendError> {
        let pages = self.pages.range((table, page_id(from))..=(table, [0xff; 7]));
        let rows = pages
            .flat_map(|(_, page)| page.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)));
        for (key, value) in rows {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Pages sort as their keys do: a short key counts as if zeros followed.
fn page_id(key: &[u8]) -> PageId {
    let mut id = PageId::default();
    let length = key.len().min(id.len());
    id[..length].copy_from_slice(&key[..length]);
    id
}
