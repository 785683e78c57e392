//! From `crates/proto/proto/*.proto` to `crates/proto/src/gen/*.rs`, the same text on every machine.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

const HEADER: &str = "// Generated from crates/proto/proto; do not edit.\n\
                      // To write it anew: cargo run -p xtask -- proto\n\n";

/// Names that the generator spells badly and offers no way to set; the wire knows only numbers.
const RESPELLED: &[(&str, &str)] = &[("peer_ur_ls", "peer_urls"), ("client_ur_ls", "client_urls")];

/// Replaces the committed code by a fresh one.
///
/// # Errors
///
/// A definition that does not compile, or a file that cannot be written.
pub(crate) fn write() -> Result<(), Box<dyn Error>> {
    let files = generate()?;
    let folder = proto_crate().join("src/gen");
    fs::create_dir_all(&folder)?;
    for stale in names(&folder, "rs")?.into_iter().filter(|name| !files.contains_key(name)) {
        fs::remove_file(folder.join(stale))?;
    }
    for (name, text) in &files {
        fs::write(folder.join(name), text)?;
    }
    println!("wrote {} files to {}", files.len(), folder.display());
    Ok(())
}

/// The code of every package, by file name.
fn generate() -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let sources = proto_crate().join("proto");
    let descriptors = protox::compile(names(&sources, "proto")?, [&sources])?;
    let out = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .bytes(".")
        .emit_rerun_if_changed(false)
        .out_dir(out.path())
        .compile_fds(descriptors)?;
    let mut files = BTreeMap::new();
    for name in names(out.path(), "rs")? {
        let mut text = fs::read_to_string(out.path().join(&name))?;
        for (bad, good) in RESPELLED {
            text = text.replace(bad, good);
        }
        files.insert(name, format!("{HEADER}{text}"));
    }
    Ok(files)
}

/// File names with this ending, sorted: the order of a folder is no order.
fn names(folder: &Path, extension: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            let name = path.file_name().and_then(|name| name.to_str());
            names.push(name.ok_or("a file name that is not UTF-8")?.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn proto_crate() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_code_is_what_the_definitions_say() {
        let fresh = generate().expect("definitions compile");
        let folder = proto_crate().join("src/gen");
        let committed = names(&folder, "rs").expect("the generated folder is there");
        assert_eq!(committed, fresh.keys().cloned().collect::<Vec<_>>(), "the set of files");
        for (name, want) in &fresh {
            let found = fs::read_to_string(folder.join(name)).expect("just listed");
            // Not assert_eq: nobody wants both texts printed.
            assert!(found == *want, "{name} is stale: cargo run -p xtask -- proto");
        }
    }
}
