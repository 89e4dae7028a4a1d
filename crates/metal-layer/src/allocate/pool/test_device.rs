//! A device of memory without bytes: counts what it gives, and refuses what a test wants refused.

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use mlx_serving_device::{
    Arithmetic, Buffer, Counters, Device, DeviceError, DeviceInfo, Heap, KvSpec, Memory, Placement, Queue, Result,
    Storage, Timeline, WeightLayout, WeightSource, WeightSpec,
};
use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct TestDevice {
    info: DeviceInfo,
    pub(super) align: u64,
    /// Heaps and buffers that it still gives before it refuses.
    pub(super) heaps_left: AtomicI64,
    pub(super) buffers_left: AtomicI64,
    pub(super) tally: Arc<Tally>,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    allocations: std::sync::atomic::AtomicU64,
    bytes: std::sync::atomic::AtomicU64,
    pub(super) touched: std::sync::Mutex<Vec<(u64, Range<u64>)>>,
}

#[derive(Debug)]
struct TestMemory {
    len: u64,
    storage: Storage,
    tally: Arc<Tally>,
}

#[derive(Debug)]
struct TestHeap(Arc<TestMemory>);

impl TestDevice {
    pub(super) fn new(unified: bool, align: u64) -> Arc<Self> {
        let info = DeviceInfo {
            backend: "fake",
            name: "memory without bytes".into(),
            instructions: None,
            features: Vec::new(),
            unified_memory: unified,
            memory_budget: u64::MAX,
            max_buffer_len: u64::MAX,
            arithmetic: Arithmetic::Fast,
            units: 1,
        };
        let left = || AtomicI64::new(i64::MAX);
        Arc::new(Self { info, align, heaps_left: left(), buffers_left: left(), tally: Arc::default() })
    }

    fn memory(&self, left: &AtomicI64, len: u64, storage: Storage, what: &'static str) -> Result<Arc<TestMemory>> {
        if left.fetch_sub(1, SeqCst) <= 0 {
            return Err(DeviceError::OutOfMemory { requested: len, what, detail: "as the test wants".into() });
        }
        self.tally.allocations.fetch_add(1, SeqCst);
        self.tally.bytes.fetch_add(len, SeqCst);
        Ok(Arc::new(TestMemory { len, storage, tally: self.tally.clone() }))
    }
}

impl Device for TestDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }
    fn counters(&self) -> Counters {
        Counters {
            allocations: self.tally.allocations.load(SeqCst),
            bytes_allocated: self.tally.bytes.load(SeqCst),
            ..Counters::default()
        }
    }
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn new_heap(&self, len: u64, storage: Storage) -> Result<Arc<dyn Heap>> {
        Ok(Arc::new(TestHeap(self.memory(&self.heaps_left, len, storage, "a heap")?)))
    }
    fn new_buffer(&self, len: u64, storage: Storage) -> Result<Buffer> {
        Ok(Buffer::whole(self.memory(&self.buffers_left, len, storage, "a buffer")?))
    }
    fn placement(&self, len: u64) -> Placement {
        Placement { size: len.next_multiple_of(self.align), align: self.align }
    }
    fn compute_queue(&self) -> Arc<dyn Queue> {
        panic!("allocation needs no queue")
    }
    fn transfer_queue(&self) -> Arc<dyn Queue> {
        panic!("allocation needs no queue")
    }
    fn new_timeline(&self) -> Result<Arc<dyn Timeline>> {
        Ok(Arc::new(TestTimeline::default()))
    }
    fn weight_layout(&self, _: &WeightSpec) -> Result<WeightLayout> {
        Err(DeviceError::Unsupported("weights".into()))
    }
    fn pack_weight(&self, _: &WeightSpec, _: &WeightSource<'_>, _: Range<usize>, _: &mut [u8]) -> Result<()> {
        Err(DeviceError::Unsupported("weights".into()))
    }
    fn kv_block_bytes(&self, _: &KvSpec) -> usize {
        0
    }
}

impl Heap for TestHeap {
    fn len(&self) -> u64 {
        self.0.len
    }
    fn place(&self, offset: u64, len: u64) -> Result<Buffer> {
        Buffer::whole(self.0.clone()).slice(offset..offset + len)
    }
    fn touch(&self, range: Range<u64>) -> Result<()> {
        assert!(range.end <= self.0.len);
        self.0.tally.touched.lock().unwrap().push((self.0.len, range));
        Ok(())
    }
}

impl Memory for TestMemory {
    fn len(&self) -> u64 {
        self.len
    }
    fn storage(&self) -> Storage {
        self.storage
    }
    fn write(&self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn read(&self, _: u64, _: &mut [u8]) -> Result<()> {
        Ok(())
    }
    fn lend(&self, _: Range<u64>, _: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for TestMemory {
    fn drop(&mut self) {
        self.tally.bytes.fetch_sub(self.len, SeqCst);
    }
}

/// A timeline that only tests raise.
#[derive(Debug, Default)]
pub(super) struct TestTimeline(AtomicU64, Mutex<()>);

impl Timeline for TestTimeline {
    fn value(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
    fn wait(&self, value: u64, limit: Duration) -> Result<()> {
        match self.value() {
            reached if reached >= value => Ok(()),
            reached => Err(DeviceError::Timeout { value, reached, waited: limit }),
        }
    }
    fn signal(&self, value: u64) {
        let _one_at_a_time = self.1.lock();
        let value = value.max(self.value());
        self.0.store(value, Ordering::Release);
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
