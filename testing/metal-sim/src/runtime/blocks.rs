//! Blocks: closures with a C layout, copied from the stack to the heap and counted there.

use super::lock;
use crate::rules;
use std::alloc::{Layout, alloc, handle_alloc_error};
use std::collections::BTreeSet;
use std::ffi::{c_int, c_ulong, c_void};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

/// A block's isa; only its address matters.
#[repr(transparent)]
struct BlockClass([usize; 4]);

#[unsafe(no_mangle)]
static _NSConcreteStackBlock: BlockClass = BlockClass([0; 4]);
#[unsafe(no_mangle)]
static _NSConcreteGlobalBlock: BlockClass = BlockClass([0; 4]);
static HEAP_BLOCK: BlockClass = BlockClass([0; 4]);

const ON_HEAP: c_int = 1 << 24;
const HAS_HELPERS: c_int = 1 << 25;
const IS_GLOBAL: c_int = 1 << 28;

#[repr(C)]
struct Descriptor {
    _reserved: c_ulong,
    size: c_ulong,
    // Present if HAS_HELPERS is set.
    copy: unsafe extern "C-unwind" fn(*mut c_void, *const c_void),
    dispose: unsafe extern "C-unwind" fn(*mut c_void),
}

#[repr(C)]
struct Block {
    isa: *const BlockClass,
    flags: c_int,
    /// The ABI's reserved word; the count of a heap block.
    count: AtomicI32,
    _invoke: *const c_void,
    descriptor: *const Descriptor,
}

/// Addresses of heap blocks that are alive.
static LIVE: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// Number of live heap blocks.
pub(crate) fn live() -> usize {
    lock(&LIVE).len()
}

fn is_live(block: *const Block) -> bool {
    lock(&LIVE).contains(&block.addr())
}

#[unsafe(no_mangle)]
extern "C-unwind" fn _Block_copy(block: *mut Block) -> *mut Block {
    // SAFETY: null or a block, as the ABI has it; released blocks are never unmapped.
    let Some(source) = (unsafe { block.as_ref() }) else { return block };
    if source.flags & IS_GLOBAL != 0 {
        return block;
    }
    if source.flags & ON_HEAP != 0 {
        if !is_live(block) {
            rules::broken("_Block_copy", "copy of a released block");
        }
        source.count.fetch_add(1, Ordering::Relaxed);
        return block;
    }
    // SAFETY: the descriptor lives as long as the block; `size` bytes of the block are readable; with the flag set the
    // descriptor has helpers, which move what the block captured into the copy.
    unsafe {
        let size = (*source.descriptor).size as usize;
        let layout = Layout::from_size_align(size, 16).expect("a block is small");
        let copy = alloc(layout);
        if copy.is_null() {
            handle_alloc_error(layout);
        }
        ptr::copy_nonoverlapping(block.cast::<u8>(), copy, size);
        let heap = copy.cast::<Block>();
        (*heap).isa = &HEAP_BLOCK;
        (*heap).flags |= ON_HEAP;
        (*heap).count = AtomicI32::new(1);
        if source.flags & HAS_HELPERS != 0 {
            ((*source.descriptor).copy)(heap.cast(), block.cast());
        }
        lock(&LIVE).insert(heap.addr());
        heap
    }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn _Block_release(block: *mut Block) {
    // SAFETY: null or a block; released blocks are never unmapped.
    let Some(this) = (unsafe { block.as_ref() }) else { return };
    if this.flags & IS_GLOBAL != 0 || this.flags & ON_HEAP == 0 {
        return;
    }
    if !is_live(block) {
        return rules::broken("_Block_release", "unbalanced release of a block that is already gone");
    }
    if this.count.fetch_sub(1, Ordering::AcqRel) == 1 {
        lock(&LIVE).remove(&block.addr());
        if this.flags & HAS_HELPERS != 0 {
            // SAFETY: the last reference is going; the helper drops what the block captured. Its memory stays, so that a
            // later use is reported and not undefined.
            unsafe { ((*this.descriptor).dispose)(block.cast()) };
        }
    }
}
