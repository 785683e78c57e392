//! What the system knows of this process. Figures that it does not tell are left out.

use std::fmt;
use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::Page;

pub(super) fn write(page: &mut Page<'_>) -> fmt::Result {
    let limit = getrlimit(Resource::Nofile).current.map(|limit| limit as f64);
    let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    let used = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Used::parse(&text));
    let boot = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_seconds(&text));
    let ticks = clock_ticks_per_second() as f64;
    for (name, help, value) in [
        ("process_open_fds", "Files this process has open", open),
        ("process_max_fds", "Files it may have open", limit),
        ("os_fd_used", "Files this process has open", open),
        ("os_fd_limit", "Files it may have open", limit),
        (
            "process_resident_memory_bytes",
            "Bytes of memory it occupies",
            used.map(|used| used.resident_pages * page_size() as f64),
        ),
        (
            "process_virtual_memory_bytes",
            "Bytes of memory it has mapped",
            used.map(|used| used.virtual_bytes),
        ),
        (
            "process_start_time_seconds",
            "When it started, in seconds since 1970",
            used.zip(boot).map(|(used, boot)| boot + used.start_ticks / ticks),
        ),
    ] {
        if let Some(value) = value {
            page.gauge(name, help, value)?;
        }
    }
    match used {
        Some(used) => page.seconds(
            "process_cpu_seconds",
            "Processor time it has used",
            used.processor_ticks / ticks,
        ),
        None => Ok(()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Used {
    processor_ticks: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Used {
    /// Reads `/proc/<pid>/stat`.
    fn parse(text: &str) -> Option<Used> {
        // The name of the program stands in parentheses and may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The first of them is the third of the line.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Used {
            processor_ticks: field(14)? + field(15)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the system started, by `/proc/stat`.
fn boot_seconds(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_tells_is_read() {
        let line =
            "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 20 30 0 0 20 0 4 0 12345 8192 3 184467";
        let want = Used {
            processor_ticks: 50.0,
            start_ticks: 12345.0,
            virtual_bytes: 8192.0,
            resident_pages: 3.0,
        };
        assert_eq!(Used::parse(line), Some(want));
        for cut in ["", "7 (a", "7 (a) S 1 2 3", "7 (a) S x"] {
            assert_eq!(Used::parse(cut), None, "{cut:?}");
        }
        assert_eq!(boot_seconds("cpu 1 2\nbtime 1700000000\nx 1\n"), Some(1_700_000_000.0));
        assert_eq!(boot_seconds("cpu 1\n"), None);
    }
}
