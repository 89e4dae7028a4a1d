//! `MTLBuffer`: a range of a heap or of memory of its own.

use super::heap::SimHeap;
use super::in_use::Uses;
use super::memory::Mapping;
use super::object::{SimObject, cast};
use crate::rules;
use block2::RcBlock;
use objc2::rc::Retained;
use objc2::runtime::{NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{DefinedClass, define_class};
use objc2_foundation::NSRange;
use objc2_metal::{
    MTLAllocation, MTLBuffer, MTLCPUCacheMode, MTLHazardTrackingMode, MTLHeap, MTLPurgeableState, MTLResource,
    MTLResourceOptions, MTLStorageMode,
};
use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// Modes that the bits of `MTLResourceOptions` encode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) storage: MTLStorageMode,
    pub(crate) cache: MTLCPUCacheMode,
    pub(crate) hazards: MTLHazardTrackingMode,
}

impl Mode {
    pub(crate) fn of(options: MTLResourceOptions) -> Self {
        Self {
            cache: MTLCPUCacheMode(options.0 & 0xf),
            storage: MTLStorageMode(options.0 >> 4 & 0xf),
            hazards: MTLHazardTrackingMode(options.0 >> 8 & 0x3),
        }
    }

    pub(crate) fn options(self) -> MTLResourceOptions {
        MTLResourceOptions(self.cache.0 | self.storage.0 << 4 | self.hazards.0 << 8)
    }

    /// Makes the default tracking mode explicit.
    pub(crate) fn with_default_hazards(self, default: MTLHazardTrackingMode) -> Self {
        match self.hazards {
            MTLHazardTrackingMode::Default => Self { hazards: default, ..self },
            _ => self,
        }
    }
}

/// The bytes of a buffer, shared with the commands that use it.
pub(crate) struct Bytes {
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) offset: usize,
    pub(crate) len: usize,
    pub(crate) mode: Mode,
}

impl Bytes {
    /// A range of the buffer as a range of its mapping.
    pub(crate) fn within_mapping(&self, range: &Range<usize>) -> Range<usize> {
        self.offset + range.start..self.offset + range.end
    }

    /// The address of a range of the buffer.
    pub(crate) fn at(&self, range: &Range<usize>) -> *mut u8 {
        self.mapping.at(self.offset + range.start, range.len())
    }

    pub(crate) fn is_tracked(&self) -> bool {
        self.mode.hazards == MTLHazardTrackingMode::Tracked
    }
}

/// Block called with the address and bytes of the caller's memory when the buffer over it is deallocated.
pub(crate) type Deallocator = RcBlock<dyn Fn(NonNull<c_void>, usize)>;

/// Instance variables of a buffer.
pub(crate) struct BufferState {
    pub(crate) bytes: Arc<Bytes>,
    pub(crate) heap: Option<Retained<SimHeap>>,
    pub(crate) deallocator: Option<Deallocator>,
    pub(crate) uses: Uses,
}

impl Drop for BufferState {
    fn drop(&mut self) {
        // First: if it breaks the rule, commands still use the memory.
        self.uses.must_be_over(&format!("a buffer of {} bytes", self.bytes.len));
        if let Some(heap) = &self.heap {
            heap.forget(self.bytes.offset);
        }
        if let (Some(deallocator), Some(start)) =
            (&self.deallocator, NonNull::new(self.bytes.at(&(0..self.bytes.len)).cast()))
        {
            deallocator.call((start, self.bytes.len));
        }
    }
}

define_class!(
    // SAFETY: SimObject has no requirements for subclasses.
    #[unsafe(super(SimObject, NSObject))]
    #[name = "SimBuffer"]
    #[ivars = BufferState]
    pub(crate) struct SimBuffer;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimBuffer {}

    // SAFETY: the methods have the protocol's signatures, here and below.
    unsafe impl MTLAllocation for SimBuffer {
        #[unsafe(method(allocatedSize))]
        fn allocated_size(&self) -> usize {
            self.ivars().bytes.len
        }
    }

    // SAFETY: as above.
    unsafe impl MTLResource for SimBuffer {
        #[unsafe(method(storageMode))]
        fn storage_mode(&self) -> MTLStorageMode {
            self.ivars().bytes.mode.storage
        }

        #[unsafe(method(cpuCacheMode))]
        fn cache_mode(&self) -> MTLCPUCacheMode {
            self.ivars().bytes.mode.cache
        }

        #[unsafe(method(hazardTrackingMode))]
        fn hazard_tracking_mode(&self) -> MTLHazardTrackingMode {
            self.ivars().bytes.mode.hazards
        }

        #[unsafe(method(resourceOptions))]
        fn resource_options(&self) -> MTLResourceOptions {
            self.ivars().bytes.mode.options()
        }

        #[unsafe(method_id(heap))]
        fn heap(&self) -> Option<Retained<ProtocolObject<dyn MTLHeap>>> {
            self.ivars().heap.clone().map(ProtocolObject::from_retained)
        }

        #[unsafe(method(heapOffset))]
        fn heap_offset(&self) -> usize {
            if self.ivars().heap.is_some() { self.ivars().bytes.offset } else { 0 }
        }

        #[unsafe(method(makeAliasable))]
        fn make_aliasable(&self) {
            let heap = self.ivars().heap.as_ref();
            rules::require(heap.is_some(), "-[MTLBuffer makeAliasable]", || "the buffer is not on a heap".into());
            if let Some(heap) = heap {
                heap.let_alias(self.ivars().bytes.offset);
            }
        }

        #[unsafe(method(isAliasable))]
        fn is_aliasable(&self) -> bool {
            self.ivars().heap.as_ref().is_some_and(|heap| heap.may_alias(self.ivars().bytes.offset))
        }

        #[unsafe(method(setPurgeableState:))]
        fn set_purgeable_state(&self, _state: MTLPurgeableState) -> MTLPurgeableState {
            MTLPurgeableState::NonVolatile
        }
    }

    // SAFETY: as above.
    unsafe impl MTLBuffer for SimBuffer {
        #[unsafe(method(length))]
        fn length(&self) -> usize {
            self.ivars().bytes.len
        }

        #[unsafe(method(contents))]
        fn contents(&self) -> NonNull<c_void> {
            let bytes = &self.ivars().bytes;
            rules::require(bytes.mode.storage != MTLStorageMode::Private, "-[MTLBuffer contents]", || {
                "the host cannot reach a buffer with private storage".into()
            });
            NonNull::new(bytes.at(&(0..bytes.len)).cast()).expect("a mapping is not at 0")
        }

        #[unsafe(method(didModifyRange:))]
        fn did_modify(&self, range: NSRange) {
            rules::broken(
                "-[MTLBuffer didModifyRange:]",
                &format!("range {range:?} of a buffer whose storage mode is not managed"),
            );
        }

        #[unsafe(method(gpuAddress))]
        fn gpu_address(&self) -> u64 {
            self.ivars().bytes.at(&(0..0)).addr() as u64
        }
    }
);

// SAFETY: the instance variables are synchronized or never change.
unsafe impl Send for SimBuffer {}
// SAFETY: as above.
unsafe impl Sync for SimBuffer {}

/// A range of a buffer that a command uses.
#[derive(Clone)]
pub(crate) struct Slice {
    pub(crate) bytes: Arc<Bytes>,
    /// Bytes of the buffer that the command uses.
    pub(crate) range: Range<usize>,
    /// Name of the buffer, for messages.
    pub(crate) name: Arc<str>,
}

impl SimBuffer {
    /// The simulator's buffer behind an argument.
    pub(crate) fn from<'a>(buffer: &'a ProtocolObject<dyn MTLBuffer>, call: &str) -> &'a SimBuffer {
        cast(buffer, call)
    }

    /// `len` bytes at `offset`; breaks a rule if they are not in the buffer.
    pub(crate) fn slice(&self, offset: usize, len: usize, call: &str) -> Slice {
        let bytes = &self.ivars().bytes;
        let end = offset.checked_add(len).filter(|&end| end <= bytes.len);
        let name = self.label_or("buffer");
        rules::require(end.is_some(), call, || format!("{len} bytes at {offset} of a {name} of {} bytes", bytes.len));
        Slice { bytes: bytes.clone(), range: offset..end.unwrap_or(offset), name: name.into() }
    }
}
