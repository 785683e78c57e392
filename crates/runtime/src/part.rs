//! Files and directories that get their name when they are whole.
//!
//! ```text
//! <name>.<pid>.part   locked while somebody makes it ─► <name>
//! ```
//! One that nobody holds the lock of any more was left by a process that was killed: the next that goes for
//! the same name removes it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::snapshot::sync_directory;
use crate::start::make_directory;

/// A file or directory that is not whole yet. Removed when this is dropped, unless it was kept.
#[derive(Debug)]
pub struct Part {
    target: PathBuf,
    path: PathBuf,
    /// Held until then, by whoever makes it.
    _lock: File,
    is_kept: bool,
}

impl Part {
    /// An empty file that is to be called `target`, and may be read and written by its owner only.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn file(target: &Path) -> io::Result<(Part, File)> {
        let part = Part::make(target, |path| {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(path).map(drop)
        })?;
        let file = OpenOptions::new().write(true).open(&part.path)?;
        Ok((part, file))
    }

    /// An empty directory that is to be called `target`, where nothing is but perhaps another empty one.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub(crate) fn directory(target: &Path) -> io::Result<Part> {
        Part::make(target, |path| make_directory(path).map(drop).map_err(io::Error::other))
    }

    fn make(target: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<Part> {
        remove_abandoned(target);
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = parent(target).join(name);
        make(&path)?;
        let lock = File::open(&path)?;
        // Where files have no locks, nobody removes what others may be at.
        if let Err(error @ TryLockError::WouldBlock) = lock.try_lock() {
            return Err(error.into());
        }
        Ok(Part { target: target.to_owned(), path, _lock: lock, is_kept: false })
    }

    /// Where it is for now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, durably; what is in it must be durable.
    ///
    /// # Errors
    ///
    /// When it cannot be renamed, or the directory cannot be synced.
    pub fn keep(mut self) -> io::Result<()> {
        fs::rename(&self.path, &self.target)?;
        self.is_kept = true;
        sync_directory(parent(&self.target))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept {
            remove(&self.path);
        }
    }
}

/// Removes what processes that are gone have left of the same name.
fn remove_abandoned(target: &Path) {
    let Some(name) = target.file_name().and_then(|name| name.to_str()) else { return };
    let Ok(entries) = fs::read_dir(parent(target)) else { return };
    for entry in entries.flatten() {
        let other = entry.file_name();
        let number = other.to_str().and_then(|other| other.strip_prefix(name)?.strip_prefix('.'));
        let number = number.and_then(|rest| rest.strip_suffix(".part"));
        if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
            let path = entry.path();
            // Whoever makes it holds its lock.
            if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                remove(&path);
            }
        }
    }
}

fn remove(path: &Path) {
    // A file is no directory, and the other way round.
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_not_kept_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("s.db");
        let (part, mut file) = Part::file(&target).unwrap();
        file.write_all(b"half").unwrap();
        drop(part);
        assert_eq!(names(parent.path()), [""; 0]);
        let part = Part::directory(&target).unwrap();
        fs::write(part.path().join("one"), b"half").unwrap();
        drop(part);
        assert_eq!(names(parent.path()), [""; 0]);

        let (part, mut file) = Part::file(&target).unwrap();
        file.write_all(b"whole").unwrap();
        part.keep().unwrap();
        assert_eq!(names(parent.path()), ["s.db"]);
        assert_eq!(fs::read(&target).unwrap(), b"whole");
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let others = ["other.db.7.part", "s.db", "s.db.7.parts", "s.db.x.part", "s.db7.part"];
        for name in others.iter().chain(&["s.db.7.part", "s.db.9.part"]) {
            fs::write(path(name), b"something").unwrap();
        }
        fs::create_dir(path("s.db.8.part")).unwrap();
        fs::write(path("s.db.8.part").join("one"), b"something").unwrap();
        // Somebody is at it.
        let held = File::open(path("s.db.9.part")).unwrap();
        held.try_lock().unwrap();
        let (part, _) = Part::file(&path("s.db")).unwrap();
        drop(part);
        let mut want: Vec<&str> = others.into_iter().chain(["s.db.9.part"]).collect();
        want.sort_unstable();
        assert_eq!(names(parent.path()), want);

        // And so is whoever made one here.
        let (part, _) = Part::file(&path("s.db")).unwrap();
        remove_abandoned(&path("s.db"));
        assert!(part.path().exists());
    }
}
