//! Defragmentation: the rows move to storage of the size they need, while the machine goes on.
//!
//! ```text
//! rows as of the last flush ─► fresh storage, whole and durable ─► in place of the old ─► next flush
//! ```
//! Entries go on being applied and readers go on reading meanwhile. Only flushes wait, so what is
//! applied gathers in memory, up to its limit. Who holds a view of the old storage finishes on it.

use std::io;
use std::ops::ControlFlow;

use crate::backend::{Backend, BackendError, Batch, Table, View};
use crate::error::StoreError;
use crate::meta;
use crate::sealed;
use crate::store::Store;

/// Rows are committed in parts of about this size.
const COMMIT_BYTES: usize = 16 << 20;

impl Store {
    /// Moves the rows to `fresh`, which is empty, and goes on there. `go_on` hears every so often how
    /// many bytes of how many are moved, and may break it off. Once all of them are durable there,
    /// `put_in_place` gives the fresh storage the name under which it is found at the next start.
    ///
    /// # Errors
    ///
    /// `NotEmpty`, `Interrupted` and `Backend` leave everything as it was: the fresh storage failed,
    /// or was not wanted. `Damaged` and `Broken`, also when `put_in_place` failed, are final: the
    /// member has to stop.
    pub fn defragment(
        &self,
        mut fresh: impl Backend + 'static,
        go_on: &mut dyn FnMut(u64, u64) -> bool,
        put_in_place: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), StoreError> {
        self.check()?;
        // Held to the end: a flush meanwhile would be missing from the copy.
        let mut backend = self.backend()?;
        if !meta::is_empty(&*fresh.view()?)? {
            return Err(StoreError::NotEmpty);
        }
        let total_bytes = backend.in_use_bytes();
        let view = backend.view().map_err(|error| self.fail(damaged(error)))?;
        self.copy(&*view, &mut fresh, total_bytes, go_on)?;
        drop(view);
        if fresh.in_use_bytes() != total_bytes {
            let found = fresh.in_use_bytes();
            return Err(self.fail(StoreError::Damaged(format!(
                "there are {found} bytes of rows, and there should be {total_bytes}"
            ))));
        }
        // It grew by leaps, of which the last may be larger than what it holds.
        fresh.defragment()?;
        let view = fresh.view()?;
        // Afterwards nobody knows which of the two a crash would leave under the name.
        put_in_place()
            .map_err(|error| self.fail(StoreError::Broken(format!("not put in place: {error}"))))?;
        let mut state = self.state_mut()?;
        state.look_at(view);
        let old = std::mem::replace(&mut *backend, Box::new(fresh));
        drop(state);
        self.measure(&**backend);
        drop(backend);
        // Closed outside every lock.
        drop(old);
        Ok(())
    }

    fn copy(
        &self,
        view: &dyn View,
        fresh: &mut dyn Backend,
        total_bytes: u64,
        go_on: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let mut done_bytes = 0;
        for table in Table::ALL {
            let mut from = Some(Vec::new());
            while let Some(first) = from.take() {
                let read = sealed::scan(view, table, &first, |key, row| {
                    if COMMIT_BYTES <= batch.bytes() {
                        from = Some(key.to_vec());
                        return ControlFlow::Break(());
                    }
                    batch.put_sealed(table, key, row);
                    ControlFlow::Continue(())
                });
                read.map_err(|error| self.fail(error))?;
                if from.is_some() {
                    done_bytes += batch.bytes() as u64;
                    fresh.commit(&std::mem::take(&mut batch))?;
                    if !go_on(done_bytes, total_bytes) {
                        return Err(StoreError::Interrupted);
                    }
                }
            }
        }
        Ok(fresh.commit(&batch)?)
    }
}

fn damaged(error: BackendError) -> StoreError {
    StoreError::Damaged(error.to_string())
}
