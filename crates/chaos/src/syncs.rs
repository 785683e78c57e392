//! Syncs that fail or take long: a small library in C that stands between a member and its C library,
//! compiled when it is needed. It reads what to do from a file, anew at each sync, and leaves a byte
//! in another one for each sync that it spoilt.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Names the file for the library; the hits go beside it.
pub(crate) const VARIABLE: &str = "QUORATE_CHAOS_SYNC";

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Whether this sync is to fail; waits if it is to take long. */
static int spoilt(void) {
    const char *path = getenv("QUORATE_CHAOS_SYNC");
    char order[32] = {0}, hits[4096];
    int file, read_bytes;
    if (path == NULL || (file = open(path, O_RDONLY | O_CLOEXEC)) < 0) return 0;
    read_bytes = (int)read(file, order, sizeof order - 1);
    close(file);
    if (read_bytes <= 0 || order[0] == '-') return 0;
    snprintf(hits, sizeof hits, "%s.hits", path);
    if ((file = open(hits, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) >= 0) {
        if (write(file, order, 1) < 0) { /* Only counted. */ }
        close(file);
    }
    if (order[0] == 'f') return 1;
    long millis = strtol(order + 1, NULL, 10);
    struct timespec pause = {millis / 1000, (millis % 1000) * 1000000L};
    nanosleep(&pause, NULL);
    return 0;
}

#define SPOIL(name) \
    int name(int file) { \
        static int (*real)(int); \
        if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, #name); \
        if (spoilt()) { errno = EIO; return -1; } \
        return real(file); \
    }
SPOIL(fsync)
SPOIL(fdatasync)
"#;

/// The compiled library.
#[derive(Clone, Debug)]
pub(crate) struct Library {
    pub(crate) path: PathBuf,
}

impl Library {
    /// Compiles it into that folder; or says why not.
    pub(crate) fn compile(folder: &Path) -> Result<Library, String> {
        let (source, path) = (folder.join("syncs.c"), folder.join("syncs.so"));
        std::fs::write(&source, SOURCE).map_err(|error| error.to_string())?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).arg(&source).arg("-ldl");
        match compiler.output() {
            Ok(done) if done.status.success() => Ok(Library { path }),
            Ok(done) => Err(format!("cc: {}", String::from_utf8_lossy(&done.stderr).trim())),
            Err(error) => Err(format!("cc: {error}")),
        }
    }
}

/// What the syncs of one member are to do.
#[derive(Clone, Debug)]
pub(crate) struct Syncs {
    pub(crate) order: PathBuf,
}

impl Syncs {
    pub(crate) fn fail(&self) -> std::io::Result<()> {
        self.say("f")
    }

    pub(crate) fn take(&self, time: Duration) -> std::io::Result<()> {
        self.say(&format!("s{}", time.as_millis()))
    }

    pub(crate) fn heal(&self) -> std::io::Result<()> {
        self.say("-")
    }

    /// How many were spoilt so far.
    pub(crate) fn hits(&self) -> u64 {
        let mut hits = self.order.clone().into_os_string();
        hits.push(".hits");
        std::fs::metadata(hits).map_or(0, |file| file.len())
    }

    /// Under another name first, so that nobody reads half an order.
    fn say(&self, order: &str) -> std::io::Result<()> {
        let next = self.order.with_extension("next");
        std::fs::write(&next, order)?;
        std::fs::rename(next, &self.order)
    }
}
