//! Bindings of a compute encoder, checked against the arguments of its kernel.

use super::buffer::SimBuffer;
use super::command::{Binding, Dispatch, Groups};
use super::pipeline::SimPipeline;
use crate::rules;
use crate::shader::{Argument, Function};
use objc2::DefinedClass;
use std::sync::Arc;

/// Buffer and threadgroup indices go up to 30.
const INDICES: usize = 31;
/// Threadgroup memory of all arguments together, bytes.
pub(crate) const THREADGROUP_MEMORY: usize = 32 << 10;

/// The state of an encoder between dispatches.
#[derive(Default)]
pub(crate) struct Bindings {
    function: Option<Arc<Function>>,
    bound: Vec<Option<Binding>>,
    threadgroup: Vec<usize>,
}

impl Bindings {
    pub(crate) fn set_pipeline(&mut self, pipeline: &SimPipeline) {
        self.function = Some(pipeline.ivars().function.clone());
    }

    pub(crate) fn set_buffer(&mut self, buffer: Option<&SimBuffer>, offset: usize, index: usize, call: &str) {
        let binding = buffer.map(|buffer| {
            rules::require(offset.is_multiple_of(4), call, || format!("offset {offset} is not a multiple of 4"));
            let len = buffer.ivars().bytes.len;
            rules::require(offset < len, call, || format!("offset {offset} in a buffer of {len} bytes"));
            Binding::Buffer(buffer.slice(offset, len.saturating_sub(offset), call))
        });
        self.set(binding, index, call);
    }

    pub(crate) fn set_offset(&mut self, offset: usize, index: usize, call: &str) {
        let Some(Some(Binding::Buffer(slice))) = self.bound.get_mut(index) else {
            return rules::broken(call, &format!("no buffer is bound at index {index}"));
        };
        let fits = offset < slice.bytes.len && offset.is_multiple_of(4);
        rules::require(fits, call, || format!("offset {offset} in a buffer of {} bytes", slice.bytes.len));
        slice.range = offset..slice.bytes.len;
    }

    pub(crate) fn set_bytes(&mut self, bytes: &[u8], index: usize, call: &str) {
        let units = bytes.chunks(16).map(|chunk| {
            let mut unit = [super::memory::POISON; 16];
            unit[..chunk.len()].copy_from_slice(chunk);
            u128::from_ne_bytes(unit)
        });
        self.set(Some(Binding::Bytes(units.collect(), bytes.len())), index, call);
    }

    fn set(&mut self, binding: Option<Binding>, index: usize, call: &str) {
        rules::require(index < INDICES, call, || format!("buffer index {index} is over {}", INDICES - 1));
        if self.bound.len() <= index {
            self.bound.resize(index + 1, None);
        }
        self.bound[index] = binding;
    }

    pub(crate) fn set_threadgroup_memory(&mut self, length: usize, index: usize, call: &str) {
        rules::require(index < INDICES, call, || format!("threadgroup index {index} is over {}", INDICES - 1));
        rules::require(length.is_multiple_of(16), call, || format!("length {length} is not a multiple of 16"));
        if self.threadgroup.len() <= index {
            self.threadgroup.resize(index + 1, 0);
        }
        self.threadgroup[index] = length;
        let total: usize = self.threadgroup.iter().sum();
        rules::require(total <= THREADGROUP_MEMORY, call, || {
            format!("{total} bytes of threadgroup memory; the device has {THREADGROUP_MEMORY}")
        });
    }

    /// The dispatch of what is bound; `None` after a broken rule.
    pub(crate) fn dispatch(&self, groups: Groups, threads: [u32; 3], call: &str) -> Option<Dispatch> {
        rules::require(self.function.is_some(), call, || "no pipeline is set".into());
        let function = self.function.clone()?;
        let count = threads.iter().map(|&number| number as usize).product::<usize>();
        rules::require(count <= function.max_threads(), call, || {
            format!("{count} threads per threadgroup; {} takes up to {}", function.name(), function.max_threads())
        });
        for argument in function.arguments() {
            self.must_serve(argument, function.name(), call);
        }
        Some(Dispatch {
            function,
            bindings: self.bound.clone(),
            threadgroup: self.threadgroup.clone(),
            groups,
            threads,
        })
    }

    fn must_serve(&self, argument: &Argument, kernel: &str, call: &str) {
        match argument {
            Argument::Buffer { index, name, min_len, .. } => {
                let len = match self.bound.get(*index) {
                    Some(Some(Binding::Buffer(slice))) => Some(slice.range.len()),
                    Some(Some(Binding::Bytes(_, len))) => Some(*len),
                    _ => None,
                };
                rules::require(len.is_some(), call, || format!("{kernel}: nothing is bound at index {index} ({name})"));
                rules::require(len.is_none_or(|len| len >= *min_len), call, || {
                    format!("{kernel}: {} bytes at index {index} ({name}), {min_len} needed", len.unwrap_or(0))
                });
            }
            Argument::Threadgroup { index, min_len } => {
                let len = self.threadgroup.get(*index).copied().unwrap_or(0);
                rules::require(len > 0 && len >= *min_len, call, || {
                    format!("{kernel}: {len} bytes of threadgroup memory at index {index}, {min_len} needed")
                });
            }
        }
    }
}
