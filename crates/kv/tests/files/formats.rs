//! Files and snapshots of every released format, kept as they were written: each must still open, or be
//! refused by its number.
//!
//! When a format changes, and only then, new ones are made, under their new number, with
//!
//! ```text
//! QUORATE_WRITE_FIXTURES=1 cargo test -p quorate-kv --test files formats
//! ```
//! The older ones stay as they are, and the tests here say what becomes of them.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_kv::{MemoryBackend, Store, restore};
use quorate_types::NodeId;

use super::{Contents, Held, filled, open};

const ENTRIES: u64 = 40;

/// Every format of the state that was released; a snapshot carries the number of its state.
const FORMATS: [u32; 3] = [2, 3, 4];
/// The one that is written.
const NEWEST: u32 = 4;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Whether fixtures are made anew.
fn is_writing() -> bool {
    std::env::var_os("QUORATE_WRITE_FIXTURES").is_some()
}

fn snapshot(store: &Store) -> Vec<u8> {
    let mut reader = store.snapshot().unwrap().reader();
    let mut stream = Vec::new();
    loop {
        let piece = reader.read(1 << 20).unwrap();
        if piece.is_empty() {
            return stream;
        }
        stream.extend_from_slice(&piece);
    }
}

#[test]
fn states_of_every_released_format_open() {
    let contents = Contents::default();
    let want = Held::of(&filled(&contents, ENTRIES)).unwrap();
    let file = |format| fixture(&format!("state-{format}.redb"));
    if is_writing() {
        fs::write(file(NEWEST), contents.bytes()).unwrap();
    }
    for format in FORMATS {
        let store = open(&Contents::new(fs::read(file(format)).unwrap())).unwrap();
        assert_eq!(Held::of(&store).unwrap(), want, "format {format}");
        assert_eq!((store.node(), store.cluster_id()), (NodeId(7), 9));
        // It goes on as one of today does.
        let today = filled(&Contents::default(), ENTRIES);
        for store in [&store, &today] {
            store.apply(&[super::entry(ENTRIES + 1)]).unwrap();
            store.flush().unwrap();
        }
        assert_eq!(Held::of(&store), Held::of(&today), "format {format}");
    }
}

#[test]
fn snapshots_of_every_released_format_can_be_restored() {
    let store = filled(&Contents::default(), ENTRIES);
    let stream = snapshot(&store);
    let file = |format| fixture(&format!("snapshot-{format}"));
    if is_writing() {
        fs::write(file(NEWEST), &stream).unwrap();
    }
    // What is written today is what was written when the format was new.
    assert!(stream == fs::read(file(NEWEST)).unwrap(), "the bytes differ: is it a new format?");
    for format in FORMATS {
        let kept = fs::read(file(format)).unwrap();
        let mut backend = MemoryBackend::new();
        let mut pieces = kept.chunks(1000);
        let next = || Ok(pieces.next().map(Bytes::copy_from_slice).unwrap_or_default());
        restore(&mut backend, NodeId(8), next).unwrap();
        let restored = Store::open(backend).unwrap();
        assert_eq!(Held::of(&restored), Held::of(&store), "format {format}");
        assert_eq!(restored.node(), NodeId(8));
    }
}
