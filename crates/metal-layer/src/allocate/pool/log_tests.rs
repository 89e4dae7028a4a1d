//! Log lines of the pool, and how often they are written.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::test_device::TestDevice;
use super::tests::small;
use super::*;
use std::io;

/// The log's lines.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines written while `f` runs that have all of `parts` in them.
fn logged(parts: &[&str], f: impl FnOnce()) -> usize {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, f);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

fn pool(config: &MemoryPoolConfig) -> MemoryPool {
    MemoryPool::new(&Wiring::new(TestDevice::new(true, 64)), config).unwrap()
}

/// Exhausts the heaps in two episodes with three fallbacks each.
fn run_out_twice(pool: &MemoryPool) {
    let take = |bytes| pool.allocate(bytes, Storage::Shared, "kv cache").unwrap();
    let _whole = [take(64 << 20), take(64 << 20)];
    for _ in 0..2 {
        let _more = [take(1000), take(1000), take(1000)];
    }
}

#[test]
fn exhaustion_is_logged_once_an_episode_with_what_to_change() {
    let parts = ["WARN", "exhausted", "kv cache", "num_heaps", "heap_size_mb", "kv_cache_tokens"];
    assert_eq!(logged(&parts, || run_out_twice(&pool(&small()))), 2);
    let silent = MemoryPoolConfig { log_pool_exhaustion: false, ..small() };
    assert_eq!(logged(&["exhausted"], || run_out_twice(&pool(&silent))), 0);
}

#[test]
fn a_pool_that_ends_tells_what_is_held() {
    let mut held = None;
    let parts = ["WARN", "1 allocations of 1234 bytes", "staging (1234 bytes, "];
    let lines = logged(&parts, || held = Some(pool(&small()).allocate(1234, Storage::Shared, "staging").unwrap()));
    assert_eq!(lines, 1);
    assert_eq!(logged(&["held"], || drop(pool(&small()))), 0);
}
