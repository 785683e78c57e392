//! wal
mod disk;
mod error;
mod ledger;
mod record;
mod recover;
mod segment;
mod wal;

pub use disk::{Disk, DiskFile, DiskLock, RealDisk};
pub use error::{Damage, Misfit, WalError};
pub use record::WRITE_BYTES_MAX;
pub use wal::{Identity, Options, Recovered, TornTail, Wal, Write};
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
