//! The corpus, and changed copies of what is in it, through every target.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_fuzz::{TARGETS, Target};
use quorate_wal::testing::Chance;

/// Changed inputs of each target, unless QUORATE_FUZZ_COUNT says otherwise.
const COUNT: u64 = 5000;

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name)
}

/// The inputs of a target, with their names, in order.
fn inputs(name: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs: Vec<_> = fs::read_dir(corpus(name))
        .unwrap_or_else(|error| panic!("{}: {error}", corpus(name).display()))
        .map(|file| file.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{name} has no corpus");
    inputs
}

/// An input with a few changes, or two inputs in one.
fn changed(inputs: &[(String, Vec<u8>)], chance: &mut Chance) -> Vec<u8> {
    let pick = |chance: &mut Chance| inputs[chance.below(inputs.len() as u64) as usize].1.clone();
    let mut bytes = pick(chance);
    for _ in 0..=chance.below(6) {
        let place = chance.below(bytes.len() as u64 + 1) as usize;
        match chance.below(7) {
            0 => bytes.truncate(place),
            1 => bytes.insert(place, chance.number() as u8),
            2 if place < bytes.len() => drop(bytes.remove(place)),
            3 => {
                let other = pick(chance);
                bytes.truncate(place);
                bytes.extend_from_slice(&other[chance.below(other.len() as u64 + 1) as usize..]);
            }
            4 if place < bytes.len() => {
                bytes[place] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][chance.below(6) as usize];
            }
            _ if place < bytes.len() => bytes[place] ^= 1 << chance.below(8),
            _ => bytes.push(chance.number() as u8),
        }
    }
    bytes
}

/// Gives a target an input, and says which one it was if that panics.
fn give(name: &str, target: Target, input: &[u8], what: &str) {
    struct Says<'a>(&'a str, &'a [u8], &'a str);

    impl Drop for Says<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let file = std::env::temp_dir().join(format!("quorate-fuzz-{}", self.0));
                let kept = fs::write(&file, self.1);
                eprintln!("{}: {} broke it, kept in {} ({kept:?})", self.0, self.2, file.display());
            }
        }
    }

    let _says = Says(name, input, what);
    target(input);
}

#[test]
fn no_input_breaks_a_target() {
    let count = std::env::var("QUORATE_FUZZ_COUNT").map_or(COUNT, |count| count.parse().unwrap());
    std::thread::scope(|scope| {
        for (name, target) in TARGETS {
            scope.spawn(move || {
                let inputs = inputs(name);
                for (file, input) in &inputs {
                    give(name, target, input, file);
                }
                for seed in 0..count {
                    let mut chance = Chance::new(seed);
                    let input = changed(&inputs, &mut chance);
                    give(name, target, &input, &format!("change {seed}"));
                }
                println!("{name}: {} of the corpus, {count} changed", inputs.len());
            });
        }
    });
}

/// Programs are built only by who fuzzes: all that is in them is the name of a target.
#[test]
fn every_target_has_a_program_and_a_corpus() {
    let fuzz = corpus("").join("..");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no program");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        let program = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        let call = format!("quorate_fuzz::run(\"{name}\", bytes)");
        let want = format!("#![no_main]\n\nlibfuzzer_sys::fuzz_target!(|bytes: &[u8]| {call});\n");
        assert_eq!(program, want);
        inputs(name);
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    for folder in ["corpus", "fuzz_targets"] {
        let count = fs::read_dir(fuzz.join(folder)).unwrap().count();
        assert_eq!(count, TARGETS.len(), "{folder} has something that is no target");
    }
}
