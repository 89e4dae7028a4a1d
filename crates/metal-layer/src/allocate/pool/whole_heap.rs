use crate::allocate::Reclaim;
use mlx_serving_device::Heap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A heap taken as a whole with [`super::MemoryPool::acquire_heap`]. Dropping it returns it.
pub struct WholeHeap {
    heap: Arc<dyn Heap>,
    temporary: bool,
    id: u64,
    owner: Arc<dyn Reclaim>,
}

impl WholeHeap {
    pub(super) fn new(heap: Arc<dyn Heap>, temporary: bool, id: u64, owner: Arc<dyn Reclaim>) -> Self {
        Self { heap, temporary, id, owner }
    }

    /// True if the pool had no heap left and this one is not one of its own.
    pub fn is_temporary(&self) -> bool {
        self.temporary
    }

    pub(super) fn is_of(&self, owner: &dyn Reclaim) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.owner), owner)
    }
}

impl Deref for WholeHeap {
    type Target = dyn Heap;
    fn deref(&self) -> &Self::Target {
        self.heap.as_ref()
    }
}

impl Drop for WholeHeap {
    fn drop(&mut self) {
        self.owner.reclaim(self.id);
    }
}

impl fmt::Debug for WholeHeap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WholeHeap({} bytes)", self.heap.len())
    }
}
