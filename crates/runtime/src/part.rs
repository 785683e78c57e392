//! Files and directories that get their name when they are whole.
//!
//! ```text
//! <name>.<pid>-<random>.part   locked while somebody makes it ─► <name>
//! ```
//! One that nobody holds the lock of any more was left by a process that was killed: the next that goes for
//! the same name removes it. What is there already is never written to.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::snapshot::sync_directory;
use crate::start::{draw_life, make_directory};

/// So much of a name is in its part's, whose length is bounded, too.
const NAME_BYTES_MAX: usize = 200;
/// Others that take what was just made for abandoned come between so often at most.
const TRIES_MAX: usize = 100;

/// A file or directory that is not whole yet. Removed when this is dropped, unless it was kept.
#[derive(Debug)]
pub struct Part {
    target: PathBuf,
    path: PathBuf,
    /// Open, and with it the lock held, until then. Some file systems let nobody write to a locked file but
    /// through what holds the lock.
    held: File,
    is_kept: bool,
}

impl Part {
    /// An empty file that is to be called `target`, and may be read and written by its owner only.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or `target` is a directory.
    pub fn file(target: &Path) -> io::Result<(Part, File)> {
        if target.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let part = Part::make(target, |path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600).open(path)
        })?;
        let file = part.held.try_clone()?;
        Ok((part, file))
    }

    /// An empty directory that is to be called `target`. Where a directory is already, which must be empty,
    /// it is made in there: that may be a volume of its own, or the one somebody is in.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub(crate) fn directory(target: &Path) -> io::Result<Part> {
        let parent = parent(target);
        if !parent.try_exists()? {
            make_directory(parent).map_err(io::Error::other)?;
        }
        Part::make(target, |path| {
            DirBuilder::new().mode(0o700).create(path)?;
            File::open(path)
        })
    }

    fn make(target: &Path, make: impl Fn(&Path) -> io::Result<File>) -> io::Result<Part> {
        remove_abandoned(target);
        let (directory, name) = place(target);
        let mut outcome = Err(io::Error::other("others remove what is made here"));
        for _ in 0..TRIES_MAX {
            let mut part_name = name.clone();
            part_name.push(format!(".{}-{:016x}.part", std::process::id(), draw_life().0));
            let path = directory.join(part_name);
            let failed = |error: io::Error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            };
            let held = match make(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    outcome = Err(failed(error));
                    continue;
                }
                made => made.map_err(failed)?,
            };
            // Until it was locked somebody may have taken it for abandoned. Where files have no locks, nobody
            // does.
            let is_taken = matches!(held.try_lock(), Err(TryLockError::WouldBlock));
            if !is_taken && is_at(&held, &path) {
                return Ok(Part { target: target.to_owned(), path, held, is_kept: false });
            }
        }
        outcome
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

    /// [`keep`](Self::keep) for a directory. One that was made inside of its target gives that what is in it,
    /// and `last` after all else is durable there: what is without it is not whole.
    ///
    /// # Errors
    ///
    /// As for [`keep`](Self::keep).
    pub(crate) fn keep_directory(self, last: &str) -> io::Result<()> {
        if self.path.parent() != Some(&*self.target) {
            return self.keep();
        }
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name() != last {
                fs::rename(entry.path(), self.target.join(entry.file_name()))?;
            }
        }
        sync_directory(&self.target)?;
        fs::rename(self.path.join(last), self.target.join(last))?;
        sync_directory(&self.target)
        // It is empty now, and goes.
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
pub(crate) fn remove_abandoned(target: &Path) {
    let (directory, name) = place(target);
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if !is_part_of(&name, &entry.file_name()) {
            continue;
        }
        let opened = match entry.file_type() {
            // Some file systems lock only what may be written.
            Ok(kind) if kind.is_file() => OpenOptions::new().read(true).write(true).open(&path),
            Ok(kind) if kind.is_dir() => File::open(&path),
            _ => continue,
        };
        // Whoever makes it holds its lock; whoever has just made it sees that it is locked, or gone.
        if let Ok(held) = opened
            && held.try_lock().is_ok()
        {
            remove(&path);
            drop(held);
        }
    }
}

/// Where the parts of a target are made, and how their names begin.
fn place(target: &Path) -> (&Path, OsString) {
    if target.is_dir() {
        return (target, OsString::from("restored"));
    }
    let name = target.file_name().unwrap_or_default().as_bytes();
    let name = &name[..name.len().min(NAME_BYTES_MAX)];
    (parent(target), OsStr::from_bytes(name).to_owned())
}

/// Whether this is what parts of `name` are called.
fn is_part_of(name: &OsStr, other: &OsStr) -> bool {
    let rest = other.as_bytes().strip_prefix(name.as_bytes());
    let rest = rest.and_then(|rest| rest.strip_prefix(b".")?.strip_suffix(b".part"));
    let Some((pid, random)) = rest.and_then(|rest| str::from_utf8(rest).ok()?.split_once('-'))
    else {
        return false;
    };
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    !pid.is_empty()
        && pid.bytes().all(|byte| byte.is_ascii_digit())
        && random.len() == 16
        && random.bytes().all(is_hex)
}

/// Whether what is open is what the path leads to.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => id(open) == id(there),
        _ => false,
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
        let [left, left_too, at_work] =
            ["a", "b", "c"].map(|digit| format!("s.db.7-{}.part", digit.repeat(16)));
        let others = [
            "s.db".to_owned(),
            "s.db.7.part".to_owned(),
            "s.db.00.part".to_owned(),
            "s.db.7-aaaa.part".to_owned(),
            format!("other.{left}"),
            format!("{left}s"),
            left.replacen("s.db.7", "s.db7", 1),
            left.replacen("s.db.7", "s.db.+7", 1),
            left.replacen('a', "A", 1),
        ];
        for name in others.iter().chain(&[left, at_work.clone()]) {
            fs::write(path(name), b"something").unwrap();
        }
        fs::create_dir(path(&left_too)).unwrap();
        fs::write(path(&left_too).join("one"), b"something").unwrap();
        // Somebody is at it.
        let held = File::open(path(&at_work)).unwrap();
        held.try_lock().unwrap();
        let (part, _) = Part::file(&path("s.db")).unwrap();
        drop(part);
        let mut want: Vec<String> = others.into_iter().chain([at_work]).collect();
        want.sort_unstable();
        assert_eq!(names(parent.path()), want);

        // And so is whoever made one here.
        let (part, _) = Part::file(&path("s.db")).unwrap();
        remove_abandoned(&path("s.db"));
        assert!(part.path().exists());
    }

    #[test]
    fn who_goes_for_the_same_name_at_once_is_not_in_the_way() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("s.db");
        let save = |number: u8| {
            for _ in 0..200 {
                let (part, mut file) = Part::file(&target).unwrap();
                file.write_all(&[number; 64]).unwrap();
                assert!(is_at(&file, part.path()), "nobody takes it away");
                part.keep().unwrap();
            }
        };
        std::thread::scope(|scope| {
            for number in 0..4 {
                scope.spawn(move || save(number));
            }
        });
        assert_eq!(names(parent.path()), ["s.db"]);
        let kept = fs::read(&target).unwrap();
        assert!(kept.len() == 64 && kept.iter().all(|byte| *byte == kept[0]));
    }

    #[test]
    fn any_name_has_parts_and_a_directory_is_not_replaced_by_a_file() {
        let parent = tempfile::tempdir().unwrap();
        for name in [&[b'n'; 255][..], b"s\xff.db"] {
            let target = parent.path().join(OsStr::from_bytes(name));
            // As a process that was killed leaves it.
            let (part, _) = Part::file(&target).unwrap();
            let left = part.path().to_owned();
            let copy = left.with_file_name("copy");
            fs::copy(&left, &copy).unwrap();
            drop(part);
            fs::rename(&copy, &left).unwrap();
            let (part, _) = Part::file(&target).unwrap();
            part.keep().unwrap();
            assert!(target.is_file() && !left.exists());
            fs::remove_file(target).unwrap();
        }
        let error = Part::file(parent.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        assert_eq!(names(parent.path()), [""; 0]);
    }

    #[test]
    fn a_directory_that_is_there_gets_what_was_made_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let (target, link) = (parent.path().join("data"), parent.path().join("link"));
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let inode = fs::metadata(&target).unwrap().ino();
        let part = Part::directory(&link).unwrap();
        fs::create_dir(part.path().join("wal")).unwrap();
        fs::write(part.path().join("kv"), b"state").unwrap();
        assert_eq!(names(&target).len(), 1);
        part.keep_directory("kv").unwrap();
        assert_eq!(names(&target), ["kv", "wal"]);
        assert_eq!(fs::metadata(&target).unwrap().ino(), inode, "it is the same directory");

        let part = Part::directory(&parent.path().join("new/data")).unwrap();
        fs::write(part.path().join("kv"), b"state").unwrap();
        part.keep_directory("kv").unwrap();
        assert_eq!(names(&parent.path().join("new/data")), ["kv"]);
        assert_eq!(names(&parent.path().join("new")), ["data"]);
    }
}
