//! Makes a failing run smaller: fewer kinds of faults, fewer clients, less time, for as long as some
//! promise is still broken. A smaller run is another run, so what breaks may differ; the last one
//! that failed is the answer.

use crate::{Fault, Options, faults_of};

/// Reduces a failing seed. `fails` runs it with options and says what broke, if anything.
///
/// Each step keeps what failed last, so the answer fails as well; nothing if the seed does not.
pub fn shrink(
    seed: u64,
    options: &Options,
    fails: &mut dyn FnMut(&Options) -> Option<String>,
) -> Option<(Options, String)> {
    let mut why = fails(options)?;
    let mut best = Options { only: Some(faults_of(seed, options)), ..options.clone() };
    let mut attempt = |options: Options, best: &mut Options, why: &mut String| -> bool {
        let Some(found) = fails(&options) else { return false };
        (*best, *why) = (options, found);
        true
    };
    loop {
        let before = best.clone();
        for fault in best.only.clone().unwrap_or_default() {
            let rest: Vec<Fault> =
                best.only.iter().flatten().copied().filter(|it| *it != fault).collect();
            attempt(Options { only: Some(rest), ..best.clone() }, &mut best, &mut why);
        }
        if best.clients != Some(1) {
            attempt(Options { clients: Some(1), ..best.clone() }, &mut best, &mut why);
        }
        let mut seconds = best.seconds.unwrap_or(600);
        while 2 < seconds {
            let shorter = Options { seconds: Some(seconds / 2), ..best.clone() };
            if !attempt(shorter, &mut best, &mut why) {
                break;
            }
            seconds /= 2;
        }
        if best == before {
            return Some((best, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_run_shrinks_to_what_it_takes() {
        let seed = (1..).find(|seed| 5 < faults_of(*seed, &Options::default()).len()).unwrap();
        let needed = faults_of(seed, &Options::default())[2];
        let mut runs = 0;
        let mut fails = |options: &Options| {
            runs += 1;
            let has = options.only.as_ref().is_none_or(|only| only.contains(&needed));
            (has && 20 <= options.seconds.unwrap_or(600)).then(|| "broken".to_owned())
        };
        let (small, why) = shrink(seed, &Options::default(), &mut fails).unwrap();
        assert_eq!(small.only, Some(vec![needed]));
        assert_eq!((small.clients, why.as_str()), (Some(1), "broken"));
        assert!(small.seconds.unwrap() < 40, "{small:?}");
        assert!(runs < 200, "{runs} runs");
        assert_eq!(shrink(seed, &small, &mut |_| None), None, "what does not fail has no answer");
    }
}
