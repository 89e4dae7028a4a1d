use super::encoder::Step;
use crate::apple::heap::{BIND, MetalMemory};
use crate::apple::objects::{Object, refused};
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Buffer, Result};
use mlx_serving_kernels::{Access, Hazards, Launch, Use};
use objc2::runtime::ProtocolObject;
use objc2_metal::{
    MTLBarrierScope, MTLBlitCommandEncoder, MTLCommandBuffer, MTLCommandEncoder, MTLComputeCommandEncoder,
    MTLComputePipelineState, MTLDispatchType, MTLFence, MTLSize,
};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

/// Writes steps into a command buffer: encoders opened as they are needed, barriers where steps conflict.
///
/// Every encoder waits for the queue's fence first and updates it last, so that encoders run in order, those of earlier command
/// buffers of the queue included.
pub(crate) struct Pass<'a> {
    commands: &'a ProtocolObject<dyn MTLCommandBuffer>,
    fence: &'a ProtocolObject<dyn MTLFence>,
    fault: &'a Buffer,
    open: Open,
    /// Lengths of threadgroup arguments that the open encoder has.
    threadgroup: Vec<u32>,
    hazards: Hazards,
}

enum Open {
    Nothing,
    Compute(Object<dyn MTLComputeCommandEncoder>),
    Blit(Object<dyn MTLBlitCommandEncoder>),
}

impl<'a> Pass<'a> {
    /// `fault` is the command buffer's fault buffer.
    pub(crate) fn new(
        commands: &'a ProtocolObject<dyn MTLCommandBuffer>,
        fence: &'a ProtocolObject<dyn MTLFence>,
        fault: &'a Buffer,
    ) -> Self {
        Self { commands, fence, fault, open: Open::Nothing, threadgroup: Vec::new(), hazards: Hazards::default() }
    }

    /// Writes one step. On failure, whatever is open is closed.
    pub(crate) fn write(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Wait(point) => {
                self.close();
                // What the host sees as reached needs no wait.
                if !point.reached() {
                    self.commands.encodeWaitForEvent_value(point.timeline().event(), point.value());
                }
                Ok(())
            }
            Step::Blit(copy) => self.blit(copy),
            Step::Launch { launch, pipeline, op } => self.launch(launch, pipeline, *op),
        }
    }

    /// Ends the open encoder.
    pub(super) fn close(&mut self) {
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => {}
            Open::Compute(encoder) => {
                encoder.updateFence(self.fence);
                encoder.endEncoding();
            }
            Open::Blit(encoder) => {
                encoder.updateFence(self.fence);
                encoder.endEncoding();
            }
        }
        self.hazards.clear();
    }

    fn blit(&mut self, copy: &Copy) -> Result<()> {
        let uses = [used(&copy.from, Access::Read), used(&copy.to, Access::Write)];
        // Blit encoders have no barriers: a copy that depends on another goes into the next encoder.
        if !matches!(self.open, Open::Blit(_)) || self.hazards.admit(uses.iter().cloned()) {
            self.close();
            let encoder = self.commands.blitCommandEncoder().ok_or_else(|| refused("blit encoder"))?;
            encoder.waitForFence(self.fence);
            self.hazards.admit(uses.into_iter());
            self.open = Open::Blit(encoder);
        }
        let Open::Blit(encoder) = &self.open else { unreachable!("opened above") };
        let (from, to): (&MetalMemory, &MetalMemory) = (copy.from.memory_as()?, copy.to.memory_as()?);
        // SAFETY: both ranges lie within their buffers, do not overlap, and are whole words.
        unsafe {
            encoder.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
                from.buffer(),
                copy.from.offset() as usize,
                to.buffer(),
                copy.to.offset() as usize,
                copy.to.len() as usize,
            );
        }
        Ok(())
    }

    fn launch(
        &mut self,
        launch: &Launch,
        pipeline: &ProtocolObject<dyn MTLComputePipelineState>,
        op: u32,
    ) -> Result<()> {
        if !matches!(self.open, Open::Compute(_)) {
            self.close();
            let encoder = self.commands.computeCommandEncoderWithDispatchType(MTLDispatchType::Concurrent);
            let encoder = encoder.ok_or_else(|| refused("compute encoder"))?;
            encoder.waitForFence(self.fence);
            self.open = Open::Compute(encoder);
            self.threadgroup.clear();
        }
        let Open::Compute(encoder) = &self.open else { unreachable!("opened above") };
        let kernel = launch.kernel;
        let bound = || launch.bindings.iter().chain([self.fault]);
        if self.hazards.admit(bound().zip(kernel.bindings).map(|(buffer, access)| used(buffer, *access))) {
            encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
        }
        encoder.setComputePipelineState(pipeline);
        let mut sizes = Vec::with_capacity(kernel.bindings.len());
        for (i, buffer) in bound().enumerate() {
            let (offset, len) = Launch::bound(buffer, BIND);
            // SAFETY: the range lies within the buffer, whose length is a multiple of `BIND`; the kernel has a binding i.
            unsafe {
                encoder.setBuffer_offset_atIndex(Some(buffer.memory_as::<MetalMemory>()?.buffer()), offset as usize, i)
            };
            sizes.push(len as u32);
        }
        let immediates = launch.immediates(BIND, op);
        set_bytes(encoder, &immediates, sizes.len());
        let sizes_at = sizes.len() + 1;
        set_bytes(encoder, &sizes.iter().flat_map(|size| size.to_ne_bytes()).collect::<Vec<u8>>(), sizes_at);
        set_threadgroup_memory(encoder, &mut self.threadgroup, kernel.workgroup_memory);
        encoder.dispatchThreadgroups_threadsPerThreadgroup(size(launch.groups), size(kernel.workgroup));
        Ok(())
    }
}

impl Drop for Pass<'_> {
    /// Closes the open encoder: one that is released before it has ended would take the process down.
    fn drop(&mut self) {
        self.close();
    }
}

/// The range that a command uses: all that is bound. A kernel keeps to the buffer, but reads and writes back whole words of it.
fn used(buffer: &Buffer, access: Access) -> Use {
    let (offset, len) = Launch::bound(buffer, BIND);
    Use { memory: Arc::as_ptr(buffer.memory()).cast::<()>() as usize, range: offset..offset + len, access }
}

/// Sets the lengths of a kernel's threadgroup arguments, `set` being what the encoder has: lengths last from kernel to kernel, and all of
/// them together have a limit, so that those that shrink, to nothing where the kernel has no such argument, go first.
fn set_threadgroup_memory(encoder: &ProtocolObject<dyn MTLComputeCommandEncoder>, set: &mut Vec<u32>, wanted: &[u32]) {
    set.resize(set.len().max(wanted.len()), 0);
    // Metal wants multiples of 16.
    let wanted = |i: usize| wanted.get(i).map_or(0, |bytes| bytes.next_multiple_of(16));
    for grows in [false, true] {
        for (i, length) in set.iter_mut().enumerate() {
            if *length != wanted(i) && (wanted(i) > *length) == grows {
                *length = wanted(i);
                // SAFETY: the index is a threadgroup argument's of this kernel or of an earlier one.
                unsafe { encoder.setThreadgroupMemoryLength_atIndex(*length as usize, i) };
            }
        }
    }
}

/// Binds a few bytes that live in the command buffer itself.
fn set_bytes(encoder: &ProtocolObject<dyn MTLComputeCommandEncoder>, bytes: &[u8], index: usize) {
    let start = NonNull::from(bytes).cast::<c_void>();
    // SAFETY: Metal copies the bytes now, fewer than its limit of 4096; the kernels crate gives them to binding `index`.
    unsafe { encoder.setBytes_length_atIndex(start, bytes.len(), index) };
}

fn size([width, height, depth]: [u32; 3]) -> MTLSize {
    MTLSize { width: width as usize, height: height as usize, depth: depth as usize }
}
