//! `MTLBlitCommandEncoder`: fills and copies.

use super::buffer::SimBuffer;
use super::command::{Command, PassKind};
use super::command_buffer::SimCommandBuffer;
use super::encoding::Encoding;
use super::object::{SimObject, make_on};
use crate::rules;
use objc2::rc::Retained;
use objc2::runtime::{NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{DefinedClass, define_class};
use objc2_foundation::{NSRange, NSString};
use objc2_metal::{MTLBlitCommandEncoder, MTLBuffer, MTLCommandEncoder, MTLFence, MTLStages};

define_class!(
    // SAFETY: SimObject has no requirements for subclasses.
    #[unsafe(super(SimObject, NSObject))]
    #[name = "SimBlitEncoder"]
    #[ivars = Encoding]
    pub(crate) struct SimBlitEncoder;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimBlitEncoder {}

    // SAFETY: the methods have the protocol's signatures, here and below.
    unsafe impl MTLCommandEncoder for SimBlitEncoder {
        #[unsafe(method(endEncoding))]
        fn end(&self) {
            self.ivars().end("-[MTLBlitCommandEncoder endEncoding]", self.label_or("blit pass"));
        }

        #[unsafe(method(barrierAfterQueueStages:beforeStages:))]
        fn queue_barrier(&self, _after: MTLStages, _before: MTLStages) {
            self.ivars()
                .record("-[MTLBlitCommandEncoder barrierAfterQueueStages:beforeStages:]", Command::QueueBarrier);
        }

        #[unsafe(method(insertDebugSignpost:))]
        fn insert_debug_signpost(&self, _name: &NSString) {}

        #[unsafe(method(pushDebugGroup:))]
        fn push_debug_group(&self, _name: &NSString) {}

        #[unsafe(method(popDebugGroup))]
        fn pop_debug_group(&self) {}
    }

    // SAFETY: as above.
    unsafe impl MTLBlitCommandEncoder for SimBlitEncoder {
        #[unsafe(method(fillBuffer:range:value:))]
        fn fill(&self, buffer: &ProtocolObject<dyn MTLBuffer>, range: NSRange, value: u8) {
            let call = "-[MTLBlitCommandEncoder fillBuffer:range:value:]";
            self.ivars().must_be_open(call);
            must_be_words(call, &[range.location, range.length]);
            rules::require(range.length > 0, call, || "the range is empty".into());
            let buffer = SimBuffer::from(buffer, call);
            let target = buffer.slice(range.location, range.length, call);
            self.ivars().refer_to(buffer, buffer.ivars().uses.begin());
            self.ivars().record(call, Command::Fill { target, value });
        }

        #[unsafe(method(copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:))]
        fn copy(
            &self,
            source: &ProtocolObject<dyn MTLBuffer>,
            source_offset: usize,
            target: &ProtocolObject<dyn MTLBuffer>,
            target_offset: usize,
            size: usize,
        ) {
            let call = "-[MTLBlitCommandEncoder copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:]";
            self.ivars().must_be_open(call);
            must_be_words(call, &[source_offset, target_offset, size]);
            rules::require(size > 0, call, || "the size is 0".into());
            let (from, to) = (SimBuffer::from(source, call), SimBuffer::from(target, call));
            let (source, target) = (from.slice(source_offset, size, call), to.slice(target_offset, size, call));
            let overlap = std::ptr::eq(from, to)
                && source.range.start < target.range.end
                && target.range.start < source.range.end;
            rules::require(!overlap, call, || "source and destination overlap".into());
            self.ivars().refer_to(from, from.ivars().uses.begin());
            self.ivars().refer_to(to, to.ivars().uses.begin());
            self.ivars().record(call, Command::Copy { source, target });
        }

        #[unsafe(method(updateFence:))]
        fn update_fence(&self, fence: &ProtocolObject<dyn MTLFence>) {
            self.ivars().update_fence(fence, "-[MTLBlitCommandEncoder updateFence:]");
        }

        #[unsafe(method(waitForFence:))]
        fn wait_for_fence(&self, fence: &ProtocolObject<dyn MTLFence>) {
            self.ivars().wait_for_fence(fence, "-[MTLBlitCommandEncoder waitForFence:]");
        }
    }
);

impl SimBlitEncoder {
    pub(crate) fn new(command_buffer: &SimCommandBuffer) -> Retained<Self> {
        make_on!(command_buffer.owner(), SimBlitEncoder, Encoding::new(command_buffer, "blit pass", PassKind::Blit))
    }
}

/// Offsets and sizes of blits are multiples of four on macOS.
fn must_be_words(call: &str, numbers: &[usize]) {
    rules::require(numbers.iter().all(|number| number.is_multiple_of(4)), call, || {
        format!("offsets and sizes must be multiples of 4: {numbers:?}")
    });
}
