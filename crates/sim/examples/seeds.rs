//! Runs seeds one after the other: `cargo run --release -p quorate-sim --example seeds -- 1 20 [trace]`.

use quorate_sim::{Ledger, Options, run};

#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an example tells how fast it ran"
)]
fn main() {
    let mut words = std::env::args().skip(1);
    let mut number = |or: u64| words.next().and_then(|word| word.parse().ok()).unwrap_or(or);
    let (first, last) = (number(1), number(20));
    let traces = std::env::args().nth(3).is_some();
    let mut total = Ledger::default();
    let began = std::time::Instant::now();
    for seed in first..=last {
        let mut print = |line: String| println!("{line}");
        let trace: Option<&mut dyn FnMut(String)> = if traces { Some(&mut print) } else { None };
        let started = std::time::Instant::now();
        let outcome = run(seed, &Options::default(), trace);
        let speed = outcome.ledger.simulated_ms as f64 / 1000.0 / started.elapsed().as_secs_f64();
        match &outcome.violation {
            Some(why) => println!("seed {seed}: {why}"),
            None => println!("seed {seed}: {speed:.0}x {}", outcome.ledger),
        }
        total += &outcome.ledger;
    }
    let speed = total.simulated_ms as f64 / 1000.0 / began.elapsed().as_secs_f64();
    println!("{total}\n{:?}\n{:?}\n{speed:.0} times real time", total.faults, total.notable);
}
