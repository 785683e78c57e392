use std::fs;

use quorate_kv::{Apply, Command, Entry, Initial, MemoryBackend, PutRequest};
use quorate_types::{Index, NodeId, Term};
use tempfile::TempDir;

use super::*;

fn store(values: &[usize]) -> Store {
    let initial = Initial { node: NodeId(1), cluster_id: 7, ..Initial::default() };
    let store = Store::create(MemoryBackend::new(), initial).unwrap();
    for (at, bytes) in values.iter().enumerate() {
        let (key, value) = (Bytes::from(format!("k{at}")), Bytes::from(vec![b'v'; *bytes]));
        let mut command = BytesMut::new();
        Command::Put(PutRequest { key, value, ..PutRequest::default() }).encode(&mut command);
        let index = Index(at as u64 + 1);
        let what = Apply::Command(command.freeze());
        store.apply(&[Entry { index, term: Term(1), what, answer_wanted: false }]).unwrap();
    }
    store
}

fn saved(store: &Store) -> Vec<u8> {
    let mut saving = Saving::begin(store).unwrap();
    let mut file = Vec::new();
    let mut remaining = saving.body_bytes;
    let mut last = None;
    while let Some(piece) = saving.next_piece().unwrap() {
        assert!(piece.bytes.len() <= PIECE_BYTES);
        file.extend_from_slice(&piece.bytes);
        if last.is_none() && piece.remaining_bytes == 0 {
            last = Some(file.len());
        } else {
            assert!(piece.remaining_bytes < remaining || last.is_some());
        }
        remaining = piece.remaining_bytes;
    }
    assert_eq!(last, Some(file.len() - 32), "the checksum alone follows the body");
    assert_eq!(file.len() % 512, 32, "by which etcd's clients tell a whole file");
    file
}

fn inspected(bytes: &[u8]) -> Result<SavedStatus, SavedError> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("saved");
    fs::write(&path, bytes).unwrap();
    inspect_saved(&path, &mut |done, total| assert!(done <= total))
}

#[test]
fn a_saved_file_says_what_it_holds() {
    for values in [&[][..], &[0], &[100; 9], &[5000, 70_000, 1 << 20, 3], &[300; 200]] {
        let store = store(values);
        let file = saved(&store);
        let status = inspected(&file).unwrap();
        assert_eq!(status.file_bytes, file.len() as u64);
        assert_eq!(status.contents.revision, store.revision());
        assert_eq!(status.contents.applied.index, Index(values.len() as u64));
        assert_eq!((status.contents.cluster_id, status.contents.compact_revision), (7, -1));
        assert_eq!(saved(&store), file, "the same state, the same file");
    }
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let file = saved(&store(&[10, 600, 40]));
    for length in 0..file.len() {
        assert!(inspected(&file[..length]).is_err(), "cut at {length}");
    }
    for more in [1, 32, 512] {
        let longer = [&file[..], &vec![0; more]].concat();
        assert!(inspected(&longer).is_err(), "{more} bytes too many");
    }
    assert!(inspected(&file).is_ok());
}

#[test]
fn a_file_with_any_flipped_bit_is_refused() {
    let mut file = saved(&store(&[10, 40]));
    for bit in 0..file.len() * 8 {
        file[bit / 8] ^= 1 << (bit % 8);
        let error = inspected(&file).unwrap_err();
        assert!(matches!(error, SavedError::Checksum { .. }), "bit {bit}: {error}");
        file[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(inspected(&file).is_ok());
}

#[test]
fn what_is_whole_and_no_snapshot_of_ours_is_told() {
    let with_checksum = |body: Vec<u8>| {
        let checksum = Sha256::digest(&body);
        [body, checksum.to_vec()].concat()
    };
    let mut etcd = vec![0; 4096];
    etcd[16..20].copy_from_slice(&BBOLT_MAGIC);
    let error = inspected(&with_checksum(etcd)).unwrap_err();
    assert!(matches!(error, SavedError::Etcd { .. }), "{error}");
    for body in [vec![0; 512], vec![0xff; 1024], b"text ".repeat(512)] {
        let error = inspected(&with_checksum(body)).unwrap_err();
        assert!(matches!(error, SavedError::Contents { .. }), "{error}");
    }
    let directory = TempDir::new().unwrap();
    for path in [directory.path().to_owned(), directory.path().join("absent")] {
        let error = inspect_saved(&path, &mut |_, _| ()).unwrap_err();
        assert!(matches!(error, SavedError::Io { .. }), "{error}");
    }
}
