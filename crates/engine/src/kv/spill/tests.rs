use super::*;
use crate::kv::prefix::Chain;
use mlx_serving_model::BLOCK_TOKENS;

const BYTES: usize = 64;

fn content(number: u32) -> Content {
    Chain::new(0).next(&[number; BLOCK_TOKENS])
}

fn store(memory: usize, file: Option<(PathBuf, usize)>) -> (Arc<SpillStore>, SpillMetrics) {
    let metrics = SpillMetrics::default();
    let (file, blocks) = file.map_or((None, 0), |(path, blocks)| (Some(path), blocks));
    let options = SpillOptions { memory_bytes: (memory * BYTES) as u64, file, file_bytes: (blocks * BYTES) as u64 };
    (SpillStore::open(&options, BYTES as u64, metrics.clone()).unwrap().unwrap(), metrics)
}

fn put(store: &SpillStore, numbers: std::ops::Range<u32>) {
    let bytes: Vec<u8> = numbers.clone().flat_map(|s| [s as u8; BYTES]).collect();
    store.insert(numbers.map(content).collect(), &bytes);
}

fn get(store: &SpillStore, number: u32) -> Option<u8> {
    let mut out = [0; BYTES];
    store.fetch(&content(number))?.read(&mut out).unwrap();
    assert!(out.iter().all(|&b| b == out[0]));
    Some(out[0])
}

#[test]
fn nothing_is_kept_without_room() {
    let open = |options| SpillStore::open(&options, 64, SpillMetrics::default()).unwrap();
    assert!(open(SpillOptions::default()).is_none());
    assert!(open(SpillOptions { memory_bytes: 63, ..SpillOptions::default() }).is_none());
}

#[test]
fn the_least_recently_used_goes_to_the_file_and_then_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (store, metrics) = store(2, Some((dir.path().join("kv"), 2)));
    put(&store, 0..2);
    assert_eq!(get(&store, 0), Some(0));
    put(&store, 2..5);
    // 1 was used least recently, then 0, then 2.
    assert_eq!((0..5).map(|s| get(&store, s)).collect::<Vec<_>>(), [Some(0), None, Some(2), Some(3), Some(4)]);
    assert_eq!((metrics.stored.get(), metrics.dropped.get()), (5, 1));
}

#[test]
fn a_block_with_the_same_prefix_but_other_tokens_or_salt_is_no_match() {
    let (store, _) = store(2, None);
    put(&store, 7..8);
    for forged in [content(7).forged(), content(7).salted(1)] {
        assert!(store.fetch(&forged).is_none() && !store.contains(&forged) && store.contains(&content(7)));
    }
}

#[test]
fn a_damaged_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv");
    let (store, metrics) = store(0, Some((path.clone(), 2)));
    put(&store, 1..2);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = store.fetch(&content(1)).unwrap().read(&mut [0; BYTES]).unwrap_err();
    assert!(error.contains("different"), "{error}");
    store.discard(&content(1));
    assert!(!store.contains(&content(1)));
    assert_eq!(metrics.damaged.get(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_drops_what_it_cannot_take_and_keeps_the_rest() {
    // A device is given no magic, so the first block is what it refuses.
    let (store, metrics) = store(1, Some((PathBuf::from("/dev/full"), 8)));
    put(&store, 0..4);
    assert_eq!(metrics.dropped.get(), 3);
    assert_eq!((get(&store, 2), get(&store, 3)), (None, Some(3)));
    assert!(store.failing.load(Ordering::Relaxed));
    drop(store);
    assert!(std::path::Path::new("/dev/full").exists());
}
