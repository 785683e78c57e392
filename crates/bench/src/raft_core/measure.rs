//! What work costs: processor time of this thread, and instructions as callgrind counts them.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What something took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Time on the wall.
    pub wall: Duration,
    /// Processor time of this thread.
    pub cpu: Duration,
}

/// Does `work`, and says what it took.
pub fn cost(work: impl FnOnce()) -> Cost {
    let (started, cpu_before) = (Instant::now(), thread_cpu());
    work();
    Cost { cpu: thread_cpu() - cpu_before, wall: started.elapsed() }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The middle one of `numbers`, or the mean of the two in the middle; 0 of none.
pub fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        count if count % 2 == 1 => numbers[count / 2],
        count => (numbers[count / 2 - 1] + numbers[count / 2]) / 2.0,
    }
}

/// Whether instructions can be counted on this machine.
pub fn has_valgrind() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Runs this very program with `arguments` in callgrind, and says how many instructions it took
/// from start to end.
///
/// # Errors
///
/// A text for people, when there is no valgrind, or the program fails in it.
pub fn instructions(arguments: &[String]) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let report = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("valgrind: {}: {report}", output.status));
    }
    collected(&report).ok_or_else(|| format!("valgrind counted nothing: {report}"))
}

/// The number in callgrind's line `==PID== Collected : NUMBER`.
fn collected(report: &str) -> Option<u64> {
    let (_, number) = report.split_once("Collected : ")?;
    number.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        for (numbers, want) in [
            (&[][..], 0.0),
            (&[3.0], 3.0),
            (&[3.0, 1.0], 2.0),
            (&[9.0, 1.0, 2.0], 2.0),
            (&[4.0, 1.0, 9.0, 2.0], 3.0),
        ] {
            assert_eq!(median(numbers.iter().copied()), want, "{numbers:?}");
        }
    }

    #[test]
    fn callgrind_says_what_it_collected() {
        let report = "==7== Events    : Ir\n==7== Collected : 8238232\n==7== \n";
        assert_eq!(collected(report), Some(8_238_232));
        assert_eq!(collected("==7== Command: true"), None);
    }

    #[test]
    fn work_takes_time() {
        let cost = cost(|| {
            std::hint::black_box((0..100_000u64).fold(0, |sum, number| sum ^ (sum << 1) ^ number));
        });
        assert!(Duration::ZERO < cost.cpu && Duration::ZERO < cost.wall, "{cost:?}");
    }
}
