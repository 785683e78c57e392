//! A small volume in memory that can be filled up, where this machine lets us mount one.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file that takes the space.
pub(crate) const BALLAST: &str = "ballast";

/// A volume that goes with this value. Its ballast is a file of its own.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
}

impl Volume {
    /// Mounts one of so many MiB at that path, which is made.
    ///
    /// # Errors
    ///
    /// Why this machine does not let us.
    pub fn mount(path: &Path, mib: u32) -> Result<Volume, String> {
        std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
        let options = format!("size={mib}m,mode=700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "quorate-chaos"]).arg(path);
        match mount.output() {
            Ok(done) if done.status.success() => Ok(Volume { path: path.to_owned() }),
            Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes all of the space there is. What is freed later is taken by the next call.
    ///
    /// # Errors
    ///
    /// There was not even room for the file, or the volume is gone.
    pub fn fill(&self) -> std::io::Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.ballast())?;
        for bytes in [1 << 20, 4096, 1] {
            let piece = vec![1; bytes];
            while ballast.write_all(&piece).is_ok() {}
        }
        Ok(())
    }

    /// Gives it back.
    pub fn free(&self) {
        // It is not there when it was never filled.
        let _ = std::fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> PathBuf {
        self.path.join(BALLAST)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.free();
        // Lazily: a member may still have files open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).output();
    }
}
