//! What is open on a simulated disk: files, directories and locks. Those of an earlier life are dead.

use std::io;

use super::{Fault, Happened, Kind, SimDisk, World, off};
use crate::disk::{DiskDir, DiskFile};

/// Syncs a file or directory as `act` does, or fails in the ways that syncs fail.
fn sync(
    disk: &SimDisk,
    node: u64,
    life: u64,
    act: impl FnOnce(&mut World) -> io::Result<()>,
) -> io::Result<()> {
    let mut world = disk.world();
    if world.is_off || world.life != life {
        return Err(off());
    }
    let begun = world.begin_op(Some(life));
    match begun.and_then(|fault| world.check_next(Kind::Sync).map(|()| fault)) {
        Ok(Some(Fault::PowerLoss)) => {
            world.is_off = true;
            Err(off())
        }
        Ok(_) => act(&mut world),
        Err(error) => {
            if !world.is_off {
                world.platter.drop_unsynced(node);
            }
            Err(error)
        }
    }
}

pub(super) struct SimDir {
    pub(super) disk: SimDisk,
    pub(super) node: u64,
    pub(super) life: u64,
}

impl DiskDir for SimDir {
    fn sync(&self) -> io::Result<()> {
        sync(&self.disk, self.node, self.life, |world| world.platter.sync_names(self.node))
    }
}

pub(super) struct SimLock {
    pub(super) disk: SimDisk,
    pub(super) node: u64,
    pub(super) life: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.disk.world();
        if world.life == self.life {
            world.locked.remove(&self.node);
        }
    }
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) node: u64,
    pub(super) life: u64,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut world = self.disk.world();
        if world.life == self.life {
            world.platter.close_handle(self.node);
        }
    }
}

impl SimFile {
    fn op<T>(&self, act: impl FnOnce(&mut World, Option<Fault>) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.disk.world();
        let fault = world.begin_op(Some(self.life))?;
        let done = act(&mut world, fault);
        if fault == Some(Fault::PowerLoss) {
            world.is_off = true;
            return Err(off());
        }
        done
    }

    fn resize(&self, bytes: u64, shrinks: bool) -> io::Result<()> {
        self.op(|world, _| {
            world.check_space(self.node, bytes as usize)?;
            let contents = world.platter.file(self.node)?;
            if shrinks || contents.cached.len() < bytes as usize {
                contents.resize(bytes as usize);
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        sync(&self.disk, self.node, self.life, |world| {
            let lie = world.lies_next;
            if world.platter.file(self.node)?.sync(lie)
                && let Some(lie) = world.lies_next.take()
            {
                world.happened.push(Happened::Lied(lie));
                world.lies_count += 1;
            }
            Ok(())
        })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.op(|world, fault| {
            world.check_next(Kind::Read)?;
            if fault == Some(Fault::Interrupted) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let cached = &world.platter.file(self.node)?.cached;
            let from = cached.get(offset as usize..).unwrap_or_default();
            let mut bytes = from.len().min(buffer.len());
            if fault == Some(Fault::Short) {
                bytes = bytes.div_ceil(2);
            }
            buffer[..bytes].copy_from_slice(&from[..bytes]);
            Ok(bytes)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.op(|world, fault| {
            world.check_next(Kind::Write)?;
            if fault == Some(Fault::Interrupted) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let bytes = match fault {
                Some(Fault::Short) => &bytes[..bytes.len().div_ceil(2)],
                _ => bytes,
            };
            world.check_space(self.node, offset as usize + bytes.len())?;
            world.platter.file(self.node)?.write(bytes, offset as usize);
            Ok(bytes.len())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.resize(bytes, false)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.resize(bytes, true)
    }

    fn len(&self) -> io::Result<u64> {
        self.op(|world, _| Ok(world.platter.file(self.node)?.cached.len() as u64))
    }
}
