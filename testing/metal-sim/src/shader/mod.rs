//! Compute shaders on the host: naga's MSL, compiled by clang against stand-ins for Metal's headers and run thread by
//! thread.
//!
//! [`Library::compile`] turns MSL into a shared object, kept in a cache; [`Function::run`] runs one dispatch. A kernel
//! with barriers or simd operations has a fiber for each thread of a threadgroup: a fiber runs until it waits, the 32
//! lanes of a simd-group meet at every simd operation, and all of a threadgroup's threads at every barrier. A kernel
//! without either runs straight through. Threadgroups are spread over the host's cores.
//!
//! Compiled objects are kept under `target/metal-sim/shaders` of this crate, or where `METAL_SIM_CACHE` says, by text,
//! shim, flags and compiler. clang must be installed; the host is Linux on x86-64.
//!
//! The simulator is strict where a GPU is not. Threads that wait at different places, a thread that ends where others wait, a bad
//! access, an argument that is missing, too small or misaligned end the dispatch with an error that names kernel, thread
//! and place. Threadgroup memory starts as 0xA5 and ends at inaccessible pages. The order of threadgroups, of simd-groups
//! between barriers and of lanes between simd operations follows a seed.
//!
//! Arithmetic is the host's: operations are rounded one by one, `fma` is fused, functions are libm's. Those of f16 go
//! through f32.

mod compile;
mod fault;
mod fiber;
mod group;
mod host;
mod launch;
mod memory;
mod object;
mod order;
mod signature;
mod wrapper;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

/// Threads that run in lock-step at simd operations.
const SIMD_WIDTH: usize = 32;
/// Threads that a threadgroup may have.
const MAX_THREADS: usize = 1024;
/// Bytes of threadgroup memory, over all arguments.
const MAX_THREADGROUP_MEMORY: usize = 32 << 10;

/// A compiled text of MSL.
#[derive(Debug)]
pub struct Library {
    functions: BTreeMap<String, Arc<Function>>,
}

impl Library {
    /// Compiles `msl`, or takes what an earlier process compiled from the same text.
    ///
    /// # Errors
    /// A signature that a dispatch could not serve, the compiler's messages (with lines of `kernel.metal`, which is
    /// `msl`), or that clang is missing.
    pub fn compile(msl: &str) -> Result<Arc<Library>, String> {
        let text = signature::without_comments(msl);
        let kernels = signature::parse(&text)?;
        let object = object::Object::open(&compile::compile(&wrapper::translation_unit(msl, &kernels))?)?;
        let meets = wrapper::MEETINGS.iter().any(|call| text.contains(call));
        let atomics = text.contains("atomic_");
        let mut functions = BTreeMap::new();
        for kernel in kernels {
            let layouts = object.layouts(&kernel)?;
            let parameters: Vec<_> = kernel.parameters.iter().zip(layouts).collect();
            let shared = |(p, layout): &(&signature::Parameter, object::Layout)| {
                matches!(p, signature::Parameter::Buffer { access: Access::Write, .. }) && layout.class != 0
            };
            let function = Function {
                entry: object.entry(&kernel.name)?,
                meets,
                serial: atomics && parameters.iter().any(shared),
                max_threads: kernel.max_threads.min(MAX_THREADS),
                alignments: parameters
                    .iter()
                    .filter_map(|(p, layout)| p.argument(layout).map(|_| layout.align))
                    .collect(),
                arguments: parameters.iter().filter_map(|(p, layout)| p.argument(layout)).collect(),
                name: kernel.name,
            };
            functions.insert(function.name.clone(), Arc::new(function));
        }
        Ok(Arc::new(Library { functions }))
    }

    /// The kernel of that name.
    pub fn function(&self, name: &str) -> Option<Arc<Function>> {
        self.functions.get(name).cloned()
    }
}

/// Access of a kernel to a buffer, by its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only reads.
    Read,
    /// Writes, and may read.
    Write,
}

/// An argument that a dispatch must bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A buffer in device or constant memory.
    Buffer {
        /// Index in the argument table.
        index: usize,
        /// The kernel's access to it.
        access: Access,
        /// The parameter's name.
        name: String,
        /// Bytes of the type behind the reference; of an array without a length, of one element.
        min_len: usize,
    },
    /// Threadgroup memory.
    Threadgroup {
        /// Index among threadgroup arguments.
        index: usize,
        /// Bytes of the type behind the reference.
        min_len: usize,
    },
}

/// A kernel of a [`Library`]. Its code stays loaded as long as the process lives.
#[derive(Debug)]
pub struct Function {
    name: String,
    arguments: Vec<Argument>,
    /// Bytes, one for each argument.
    alignments: Vec<usize>,
    entry: object::Entry,
    /// True if threads may wait for each other.
    meets: bool,
    /// True if threadgroups share atomics and so run one after another, for a result that the seed alone decides.
    serial: bool,
    max_threads: usize,
}

impl Function {
    /// The kernel's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Arguments that a dispatch must bind.
    pub fn arguments(&self) -> &[Argument] {
        &self.arguments
    }

    /// Threads that a threadgroup may have: the kernel's `max_total_threads_per_threadgroup`, 1024 without one.
    pub fn max_threads(&self) -> usize {
        self.max_threads
    }

    /// Runs every thread of `dispatch`.
    ///
    /// # Errors
    /// The dispatch does not serve the kernel (nothing has run then), or a thread broke a rule (the other threads have
    /// run in part).
    pub fn run(&self, dispatch: &Dispatch) -> Result<(), String> {
        launch::run(self, dispatch).map_err(|e| format!("kernel {}: {e}", self.name))
    }
}

/// A grid of threadgroups and what is bound for it.
#[derive(Debug)]
pub struct Dispatch<'a> {
    /// Threadgroups along x, y and z.
    pub groups: [u32; 3],
    /// Threads of a threadgroup along x, y and z.
    pub threads: [u32; 3],
    /// Buffers by index: address and bytes up to the buffer's end. They must be valid while the dispatch runs, and nobody else
    /// may touch them meanwhile.
    pub buffers: &'a [Option<(*mut u8, usize)>],
    /// Bytes of threadgroup memory by index.
    pub threadgroup: &'a [usize],
    /// Decides every order that Metal leaves open.
    pub seed: u64,
}
