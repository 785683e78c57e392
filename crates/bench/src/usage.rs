//! What processes have used, as Linux counts it in `/proc`.

use std::io;
use std::ops::Sub;

/// What a process, or several together, have used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time in user and system mode, in seconds. Linux counts it in hundredths.
    pub cpu_seconds: f64,
    /// Memory held now.
    pub resident_bytes: u64,
}

impl Usage {
    /// What a process has used since its start.
    ///
    /// # Errors
    ///
    /// There is no such process, or no `/proc`.
    pub fn of(pid: u32) -> io::Result<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (ticks, pages) = parse_stat(&stat)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/pid/stat"))?;
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        let page_bytes = rustix::param::page_size() as u64;
        Ok(Usage {
            cpu_seconds: ticks as f64 / ticks_per_second,
            resident_bytes: pages * page_bytes,
        })
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Usage>>(usages: I) -> Usage {
        usages.fold(Usage::default(), |all, one| Usage {
            cpu_seconds: all.cpu_seconds + one.cpu_seconds,
            resident_bytes: all.resident_bytes + one.resident_bytes,
        })
    }
}

/// What was used between two looks; of memory, what is held at the later one.
impl Sub for Usage {
    type Output = Usage;

    fn sub(self, earlier: Usage) -> Usage {
        Usage { cpu_seconds: self.cpu_seconds - earlier.cpu_seconds, ..self }
    }
}

/// Ticks of processor time (fields 14 and 15) and resident pages (field 24) of `/proc/pid/stat`.
fn parse_stat(stat: &str) -> Option<(u64, u64)> {
    // The second field is the program's name, which may hold spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some((field(14)? + field(15)?, field(24)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_by_field() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 9 0 100 99999 1234 1";
        assert_eq!(parse_stat(stat), Some((300, 1234)));
        assert_eq!(parse_stat("42 (a) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(100_000 < usage.resident_bytes);
        assert!(Usage::of(u32::MAX).is_err());
    }
}
