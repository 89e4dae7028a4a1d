//! The simulated Metal: one file an object, in the order in which a program meets them.

mod archive;
mod bindings;
mod blit_encoder;
mod buffer;
mod command;
mod command_buffer;
mod compute_encoder;
mod confine;
mod device;
mod encoding;
mod event;
mod execution;
mod fence;
mod hazards;
mod heap;
mod in_use;
mod library;
mod memory;
mod object;
mod pipeline;
mod queue;
mod residency;
mod worker;

use objc2::ClassType;

pub use worker::drain;
pub(crate) use worker::is_idle_within;

/// Registers every class, so that a caller finds the descriptors by name.
pub(crate) fn define() {
    let classes = [
        object::SimObject::class(),
        device::SimDevice::class(),
        heap::SimHeapDescriptor::class(),
        heap::SimHeap::class(),
        buffer::SimBuffer::class(),
        queue::SimQueueDescriptor::class(),
        queue::SimQueue::class(),
        command_buffer::SimCommandBufferDescriptor::class(),
        command_buffer::SimCommandBuffer::class(),
        blit_encoder::SimBlitEncoder::class(),
        compute_encoder::SimComputeEncoder::class(),
        event::SimEvent::class(),
        event::SimListener::class(),
        fence::SimFence::class(),
        library::SimCompileOptions::class(),
        library::SimLibrary::class(),
        library::SimFunction::class(),
        pipeline::SimPipelineDescriptor::class(),
        pipeline::SimPipeline::class(),
        residency::SimResidencySetDescriptor::class(),
        residency::SimResidencySet::class(),
        archive::SimArchiveDescriptor::class(),
        archive::SimArchive::class(),
    ];
    debug_assert!(classes.iter().all(|class| class.instance_size() > 0));
}
