//! `MTLHeap` and its descriptor: placement heaps, and automatic ones that place by first fit.

use super::buffer::{BufferState, Bytes, Mode, SimBuffer};
use super::in_use::Uses;
use super::memory::Mapping;
use super::object::{SimObject, make_on};
use crate::runtime::lock;
use crate::{faults, rules};
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{NSObject, NSObjectProtocol};
use objc2::{DefinedClass, Message, define_class, msg_send};
use objc2_metal::{
    MTLAllocation, MTLCPUCacheMode, MTLHazardTrackingMode, MTLHeap, MTLHeapDescriptor, MTLHeapType, MTLPurgeableState,
    MTLResourceOptions, MTLSizeAndAlign, MTLStorageMode,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Alignment of a buffer in a heap, bytes.
const ALIGN: usize = 256;

/// Size and alignment that a buffer of `len` bytes takes in a heap.
pub(crate) fn placement(len: usize) -> MTLSizeAndAlign {
    MTLSizeAndAlign { size: len.next_multiple_of(ALIGN), align: ALIGN }
}

#[derive(Clone, Copy)]
pub(crate) struct HeapSettings {
    size: usize,
    mode: Mode,
    kind: MTLHeapType,
}

const DEFAULT_SETTINGS: HeapSettings = HeapSettings {
    size: 0,
    mode: Mode {
        storage: MTLStorageMode::Private,
        cache: MTLCPUCacheMode::DefaultCache,
        hazards: MTLHazardTrackingMode::Default,
    },
    kind: MTLHeapType::Automatic,
};

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MTLHeapDescriptor"]
    #[ivars = Mutex<HeapSettings>]
    pub(crate) struct SimHeapDescriptor;

    impl SimHeapDescriptor {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Option<Retained<Self>> {
            let this = this.set_ivars(Mutex::new(DEFAULT_SETTINGS));
            // SAFETY: NSObject's init.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method(size))]
        fn size(&self) -> usize {
            lock(self.ivars()).size
        }

        #[unsafe(method(setSize:))]
        fn set_size(&self, size: usize) {
            lock(self.ivars()).size = size;
        }

        #[unsafe(method(storageMode))]
        fn storage_mode(&self) -> MTLStorageMode {
            lock(self.ivars()).mode.storage
        }

        #[unsafe(method(setStorageMode:))]
        fn set_storage_mode(&self, mode: MTLStorageMode) {
            lock(self.ivars()).mode.storage = mode;
        }

        #[unsafe(method(cpuCacheMode))]
        fn cache_mode(&self) -> MTLCPUCacheMode {
            lock(self.ivars()).mode.cache
        }

        #[unsafe(method(setCpuCacheMode:))]
        fn set_cache_mode(&self, mode: MTLCPUCacheMode) {
            lock(self.ivars()).mode.cache = mode;
        }

        #[unsafe(method(hazardTrackingMode))]
        fn hazard_tracking_mode(&self) -> MTLHazardTrackingMode {
            lock(self.ivars()).mode.hazards
        }

        #[unsafe(method(setHazardTrackingMode:))]
        fn set_hazard_tracking_mode(&self, mode: MTLHazardTrackingMode) {
            lock(self.ivars()).mode.hazards = mode;
        }

        #[unsafe(method(resourceOptions))]
        fn resource_options(&self) -> MTLResourceOptions {
            lock(self.ivars()).mode.options()
        }

        #[unsafe(method(setResourceOptions:))]
        fn set_resource_options(&self, options: MTLResourceOptions) {
            lock(self.ivars()).mode = Mode::of(options);
        }

        #[unsafe(method(type))]
        fn kind(&self) -> MTLHeapType {
            lock(self.ivars()).kind
        }

        #[unsafe(method(setType:))]
        fn set_kind(&self, kind: MTLHeapType) {
            lock(self.ivars()).kind = kind;
        }
    }
);

/// A resource on the heap.
struct Placed {
    size: usize,
    may_alias: bool,
}

/// Instance variables of a heap.
pub(crate) struct HeapState {
    settings: HeapSettings,
    mapping: Arc<Mapping>,
    /// Resources by offset, and by the number of their placement: aliasable ones may share an offset.
    placed: Mutex<BTreeMap<(usize, u64), Placed>>,
}

define_class!(
    // SAFETY: SimObject has no requirements for subclasses.
    #[unsafe(super(SimObject, NSObject))]
    #[name = "SimHeap"]
    #[ivars = HeapState]
    pub(crate) struct SimHeap;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimHeap {}

    // SAFETY: the methods have the protocol's signatures, here and below.
    unsafe impl MTLAllocation for SimHeap {
        #[unsafe(method(allocatedSize))]
        fn allocated_size(&self) -> usize {
            self.ivars().settings.size
        }
    }

    // SAFETY: as above.
    unsafe impl MTLHeap for SimHeap {
        #[unsafe(method(size))]
        fn size(&self) -> usize {
            self.ivars().settings.size
        }

        #[unsafe(method(usedSize))]
        fn used_size(&self) -> usize {
            lock(&self.ivars().placed).values().map(|placed| placed.size).sum()
        }

        #[unsafe(method(currentAllocatedSize))]
        fn current_allocated_size(&self) -> usize {
            self.ivars().settings.size
        }

        #[unsafe(method(maxAvailableSizeWithAlignment:))]
        fn max_available(&self, alignment: usize) -> usize {
            self.gaps()
                .map(|(start, end)| end.saturating_sub(start.next_multiple_of(alignment.max(1))))
                .max()
                .unwrap_or(0)
        }

        #[unsafe(method(storageMode))]
        fn storage_mode(&self) -> MTLStorageMode {
            self.ivars().settings.mode.storage
        }

        #[unsafe(method(cpuCacheMode))]
        fn cache_mode(&self) -> MTLCPUCacheMode {
            self.ivars().settings.mode.cache
        }

        #[unsafe(method(hazardTrackingMode))]
        fn hazard_tracking_mode(&self) -> MTLHazardTrackingMode {
            self.ivars().settings.mode.hazards
        }

        #[unsafe(method(resourceOptions))]
        fn resource_options(&self) -> MTLResourceOptions {
            self.ivars().settings.mode.options()
        }

        #[unsafe(method(type))]
        fn kind(&self) -> MTLHeapType {
            self.ivars().settings.kind
        }

        #[unsafe(method(setPurgeableState:))]
        fn set_purgeable_state(&self, _state: MTLPurgeableState) -> MTLPurgeableState {
            MTLPurgeableState::NonVolatile
        }

        #[unsafe(method_id(newBufferWithLength:options:))]
        fn new_buffer(&self, len: usize, options: MTLResourceOptions) -> Option<Retained<SimBuffer>> {
            let call = "-[MTLHeap newBufferWithLength:options:]";
            rules::require(self.ivars().settings.kind == MTLHeapType::Automatic, call, || {
                "a placement heap needs the offset".into()
            });
            let size = placement(len).size;
            let gap = self.gaps().find(|&(start, end)| end - start >= size);
            gap.map(|(start, _)| self.place(len, options, start, call))
        }

        #[unsafe(method_id(newBufferWithLength:options:offset:))]
        fn new_buffer_at(&self, len: usize, options: MTLResourceOptions, offset: usize) -> Option<Retained<SimBuffer>> {
            let call = "-[MTLHeap newBufferWithLength:options:offset:]";
            rules::require(self.ivars().settings.kind == MTLHeapType::Placement, call, || {
                "the heap places its resources itself".into()
            });
            Some(self.place(len, options, offset, call))
        }
    }
);

// SAFETY: the instance variables are synchronized or never change.
unsafe impl Send for SimHeap {}
// SAFETY: as above.
unsafe impl Sync for SimHeap {}

impl SimHeap {
    /// Makes the heap that `descriptor` describes; `None` if there is no memory for it.
    pub(crate) fn new(device: &super::device::SimDevice, descriptor: &MTLHeapDescriptor) -> Option<Retained<Self>> {
        let call = "-[MTLDevice newHeapWithDescriptor:]";
        let mut settings = HeapSettings {
            size: descriptor.size(),
            mode: Mode {
                storage: descriptor.storageMode(),
                cache: descriptor.cpuCacheMode(),
                hazards: descriptor.hazardTrackingMode(),
            },
            kind: descriptor.r#type(),
        };
        settings.mode = settings.mode.with_default_hazards(MTLHazardTrackingMode::Untracked);
        rules::require(settings.size > 0, call, || "the size is 0".into());
        // Shared heaps are for GPUs that share the host's memory.
        let possible = match settings.mode.storage {
            MTLStorageMode::Private => true,
            MTLStorageMode::Shared => faults::unified_memory(),
            _ => false,
        };
        rules::require(possible, call, || format!("a heap of this device cannot have {:?}", settings.mode.storage));
        if !super::device::may_allocate() {
            return None;
        }
        let mapping = Arc::new(Mapping::new(settings.size).ok()?);
        Some(make_on!(device, SimHeap, HeapState { settings, mapping, placed: Mutex::default() }))
    }

    /// Free ranges, by offset.
    fn gaps(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let mut gaps = Vec::new();
        let mut reached = 0;
        for (&(offset, _), placed) in lock(&self.ivars().placed).iter().filter(|(_, placed)| !placed.may_alias) {
            if offset > reached {
                gaps.push((reached, offset));
            }
            reached = reached.max(offset + placed.size);
        }
        gaps.push((reached, self.ivars().settings.size.max(reached)));
        gaps.into_iter()
    }

    fn place(&self, len: usize, options: MTLResourceOptions, offset: usize, call: &str) -> Retained<SimBuffer> {
        let HeapState { settings, mapping, placed } = self.ivars();
        let mode = Mode::of(options).with_default_hazards(settings.mode.hazards);
        let MTLSizeAndAlign { size, align } = placement(len);
        rules::require(len > 0, call, || "the length is 0".into());
        rules::require(mode.storage == settings.mode.storage && mode.cache == settings.mode.cache, call, || {
            format!("{:?} in a heap with {:?}", mode.storage, settings.mode.storage)
        });
        rules::require(mode.hazards == settings.mode.hazards, call, || {
            format!("{:?} in a heap with {:?}", mode.hazards, settings.mode.hazards)
        });
        rules::require(offset.is_multiple_of(align), call, || format!("offset {offset} is not a multiple of {align}"));
        // The last buffer may end with the heap, short of its rounded size.
        let end = offset.checked_add(len).filter(|&end| end <= settings.size);
        rules::require(end.is_some(), call, || format!("{len} bytes at {offset} of a heap of {}", settings.size));
        {
            let mut placed = lock(placed);
            let overlap = placed
                .iter()
                .find(|((start, _), other)| !other.may_alias && *start < offset + size && offset < start + other.size)
                .map(|((start, _), other)| format!("{start}..{}", start + other.size));
            rules::require(overlap.is_none(), call, || {
                format!("{size} bytes at {offset} overlap a live resource at {}", overlap.clone().unwrap_or_default())
            });
            let number = placed.keys().map(|(_, number)| number + 1).max().unwrap_or(0);
            placed.insert((offset, number), Placed { size, may_alias: false });
        }
        mapping.poison(offset, len);
        let bytes = Arc::new(Bytes { mapping: mapping.clone(), offset, len, mode });
        let state = BufferState { bytes, heap: Some(self.retain()), deallocator: None, uses: Uses::default() };
        make_on!(self.owner(), SimBuffer, state)
    }

    /// A resource at `offset` is gone.
    pub(crate) fn forget(&self, offset: usize) {
        let mut placed = lock(&self.ivars().placed);
        let oldest = placed.range((offset, 0)..=(offset, u64::MAX)).next().map(|(key, _)| *key);
        oldest.map(|key| placed.remove(&key));
    }

    /// New resources may overlap the one at `offset`.
    pub(crate) fn let_alias(&self, offset: usize) {
        for (_, placed) in lock(&self.ivars().placed).range_mut((offset, 0)..=(offset, u64::MAX)) {
            placed.may_alias = true;
        }
    }

    pub(crate) fn may_alias(&self, offset: usize) -> bool {
        lock(&self.ivars().placed).range((offset, 0)..=(offset, u64::MAX)).any(|(_, placed)| placed.may_alias)
    }
}
