//! One member's disk: the simulated one that the log's own tests run on, so that one loss of power
//! meets log files and the machine's file alike. Here is what the machine's rows need of it.

use std::io;
use std::path::Path;

use quorate_wal::DiskFile;
pub(crate) use quorate_wal::testing::{Fault as DiskFault, Happened, Kind, Lie, SimDisk, SimFile};

/// A file as storage for the machine's rows.
#[derive(Debug)]
pub(crate) struct Rows(SimFile);

impl Rows {
    /// Opens the file, or makes it.
    pub(crate) fn open(disk: &SimDisk, path: &Path, creates: bool) -> io::Result<Rows> {
        let file = match disk.open_file(path) {
            Err(error) if creates && error.kind() == io::ErrorKind::NotFound => {
                disk.create_file(path)
            }
            opened => opened,
        };
        file.map(Rows)
    }
}

impl redb::StorageBackend for Rows {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.0.read_at(out, offset)? {
            read if read == out.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(data, offset).map(drop)
    }
}
