//! The commands that are recorded: each function is one Vulkan call or two.

use super::bundle::{FaultWords, Tape};
use super::touch::Touch;
use crate::error::driver;
use crate::find::{Gpu, IMMEDIATES};
use ash::vk;
use mlx_serving_device::Result;
use mlx_serving_kernels::fault;

/// Notes the time of now (`at` 0) or of when everything before is done (`at` 1).
pub(super) fn timestamp(gpu: &Gpu, tape: &Tape, at: u32) {
    let stage = match at {
        0 => vk::PipelineStageFlags::TOP_OF_PIPE,
        _ => vk::PipelineStageFlags::BOTTOM_OF_PIPE,
    };
    if let Some(queries) = tape.queries {
        // SAFETY: here and below, the command buffer is recording and its encoder has it alone.
        unsafe { gpu.raw.cmd_write_timestamp(tape.commands, stage, queries, at) };
    }
}

/// Makes everything after see what everything before wrote, on this queue.
pub(super) fn barrier(gpu: &Gpu, tape: &Tape) {
    let access = vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE;
    memory_barrier(gpu, tape, tape.stages, access);
}

/// The host sees what everything before wrote, once it knows that this was run.
pub(super) fn host_barrier(gpu: &Gpu, tape: &Tape) {
    memory_barrier(gpu, tape, vk::PipelineStageFlags::HOST, vk::AccessFlags::HOST_READ);
}

fn memory_barrier(gpu: &Gpu, tape: &Tape, stages: vk::PipelineStageFlags, access: vk::AccessFlags) {
    let barrier = [vk::MemoryBarrier::default().src_access_mask(vk::AccessFlags::MEMORY_WRITE).dst_access_mask(access)];
    let flags = vk::DependencyFlags::empty();
    // SAFETY: as above.
    unsafe { gpu.raw.cmd_pipeline_barrier(tape.commands, tape.stages, stages, flags, &barrier, &[], &[]) };
}

/// Clears the fault words.
pub(super) fn clear_fault(gpu: &Gpu, tape: &Tape, words: &FaultWords) {
    // SAFETY: as above; the words are this submission's alone.
    unsafe { gpu.raw.cmd_fill_buffer(tape.commands, words.words.raw, words.offset, fault::BYTES, 0) };
}

/// Copies the fault words to where the host reads them.
pub(super) fn read_fault(gpu: &Gpu, tape: &Tape, words: &FaultWords) {
    copy(gpu, tape, (words.words.raw, words.offset), (words.readback.raw, words.offset), fault::BYTES);
}

/// Copies `len` bytes between (buffer, offset) pairs.
pub(super) fn copy(gpu: &Gpu, tape: &Tape, from: (vk::Buffer, u64), to: (vk::Buffer, u64), len: u64) {
    let region = [vk::BufferCopy { src_offset: from.1, dst_offset: to.1, size: len }];
    // SAFETY: as above; the encoder keeps both buffers, and the op's validation the ranges.
    unsafe { gpu.raw.cmd_copy_buffer(tape.commands, from.0, to.0, &region) };
}

/// Selects the pipeline of the launches to come.
pub(super) fn bind(gpu: &Gpu, tape: &Tape, pipeline: vk::Pipeline) {
    // SAFETY: as above; pipelines live as long as the recorder.
    unsafe { gpu.raw.cmd_bind_pipeline(tape.commands, vk::PipelineBindPoint::COMPUTE, pipeline) };
}

/// Lets binding i of the set be the i-th range.
pub(super) fn fill_set(gpu: &Gpu, set: vk::DescriptorSet, ranges: &[Touch]) {
    let info = |touch: &Touch| {
        [vk::DescriptorBufferInfo { buffer: touch.buffer, offset: touch.start, range: touch.end - touch.start }]
    };
    let infos: Vec<_> = ranges.iter().map(info).collect();
    let write = |(info, binding): (&'_ [vk::DescriptorBufferInfo; 1], u32)| vk::WriteDescriptorSet {
        dst_set: set,
        dst_binding: binding,
        descriptor_count: 1,
        descriptor_type: vk::DescriptorType::STORAGE_BUFFER,
        p_buffer_info: info.as_ptr(),
        ..Default::default()
    };
    let writes: Vec<_> = infos.iter().zip(0..).map(write).collect();
    // SAFETY: the set is new, and `infos` lives until the call returns.
    unsafe { gpu.raw.update_descriptor_sets(&writes, &[]) };
}

/// Dispatches the selected pipeline.
pub(super) fn dispatch(
    gpu: &Gpu,
    tape: &Tape,
    layout: vk::PipelineLayout,
    set: vk::DescriptorSet,
    immediates: &[u8],
    groups: [u32; 3],
) {
    let [x, y, z] = groups;
    let mut constants = [0; IMMEDIATES as usize];
    constants[..immediates.len()].copy_from_slice(immediates);
    // SAFETY: as above; set and constants fit the layout, which is the selected pipeline's.
    unsafe {
        let (point, stage) = (vk::PipelineBindPoint::COMPUTE, vk::ShaderStageFlags::COMPUTE);
        gpu.raw.cmd_bind_descriptor_sets(tape.commands, point, layout, 0, &[set], &[]);
        gpu.raw.cmd_push_constants(tape.commands, layout, stage, 0, &constants);
        gpu.raw.cmd_dispatch(tape.commands, x, y, z);
    }
}

/// Ends the command buffer.
pub(super) fn end(gpu: &Gpu, tape: &Tape) -> Result<()> {
    timestamp(gpu, tape, 1);
    // SAFETY: as above.
    unsafe { gpu.raw.end_command_buffer(tape.commands) }.map_err(|e| driver("a recorded command buffer", e))
}

/// The tests rely on the validation layer to miss no barrier: these break the rule on purpose.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::{Instance, Survey};
    use crate::heap::{Tally, VulkanMemory};
    use crate::pipelines::Pipelines;
    use crate::record::{Bundles, Lease};
    use mlx_serving_device::{Arithmetic, Buffer, Op, QueueKind, Storage, ops};
    use mlx_serving_kernels::{Access, Launch, Lowering};
    use std::sync::Arc;

    /// Records with `f` into a command buffer; what the layer says.
    fn watched(
        f: impl FnOnce(&Arc<Gpu>, &Pipelines, &mut Lease, &Tape, [&Arc<VulkanMemory>; 3]),
    ) -> Option<Vec<String>> {
        let instance = Instance::new(true).inspect_err(|error| eprintln!("skipped: {error}")).ok()?;
        let survey = Survey::all(&instance).unwrap().swap_remove(0);
        let (gpu, tally) = (Gpu::open(instance.clone(), survey).unwrap(), Arc::<Tally>::default());
        let memory = || VulkanMemory::new(&gpu, 256, Storage::Private, "test", &tally).unwrap();
        let (a, b, c) = (memory(), memory(), memory());
        let mut lease = Bundles::new(&gpu, QueueKind::Compute, &tally).take().unwrap();
        let tape = lease.begin().unwrap();
        let pipelines = Pipelines::new(&gpu, None).unwrap();
        f(&gpu, &pipelines, &mut lease, &tape, [&a, &b, &c]);
        end(&gpu, &tape).unwrap();
        Some(instance.messages.all())
    }

    fn assert_hazard(messages: Option<Vec<String>>, expected: bool) {
        let Some(messages) = messages else { return };
        let found = messages.iter().any(|message| message.contains("SYNC-HAZARD"));
        assert_eq!(found, expected, "{messages:?}");
    }

    #[test]
    fn the_layer_sees_copies_without_a_barrier() {
        for with in [true, false] {
            let messages = watched(|gpu, _, _, tape, [a, b, c]| {
                copy(gpu, tape, (a.raw, 0), (b.raw, 0), 64);
                if with {
                    barrier(gpu, tape);
                }
                copy(gpu, tape, (b.raw, 0), (c.raw, 0), 64);
            });
            assert_hazard(messages, !with);
        }
    }

    /// Layers up to 1.3.239 at least miss what a shader writes through the nested access chains of naga, so that this one reads.
    #[test]
    fn the_layer_sees_a_launch_without_a_barrier() {
        for with in [true, false] {
            let messages = watched(|gpu, pipelines, lease, tape, [a, b, c]| {
                let [from, to] = [b, c].map(|memory| Buffer::whole(memory.clone()));
                let op = Op::Copy(ops::Copy { from, to });
                let launches = Lowering::new(Arithmetic::Exact, None)
                    .lower(&op, &mut |_| unreachable!("copies need none"))
                    .unwrap();
                clear_fault(gpu, tape, &lease.fault);
                copy(gpu, tape, (a.raw, 0), (b.raw, 0), 64);
                if with {
                    barrier(gpu, tape);
                }
                launch(gpu, pipelines, lease, tape, &launches[0]);
            });
            assert_hazard(messages, !with);
        }
    }

    fn launch(gpu: &Arc<Gpu>, pipelines: &Pipelines, lease: &mut Lease, tape: &Tape, launch: &Launch) {
        let touch = |buffer: &Buffer| {
            let raw = VulkanMemory::of(buffer, gpu).unwrap().raw;
            Touch { buffer: raw, start: 0, end: 256, access: Access::Write }
        };
        let (fault, layout) = (lease.fault.clone(), pipelines.layout(launch.kernel));
        let words = Touch { buffer: fault.words.raw, start: fault.offset, end: fault.offset + 8, access: Access::Read };
        let set = lease.set(layout.set).unwrap();
        fill_set(gpu, set, &launch.bindings.iter().map(touch).chain([words]).collect::<Vec<_>>());
        bind(gpu, tape, pipelines.get(launch.kernel).unwrap());
        dispatch(gpu, tape, layout.pipeline, set, &launch.immediates(256, 0), launch.groups);
    }
}
