//! WGSL through naga, clang and the fibers.

mod atomics;
mod numbers;
mod rules;
mod simd;
mod sums;

use super::memory::Guarded;
use super::{Dispatch, Function, Library};
use naga::back::msl;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use std::sync::Arc;

/// Buffer indices of `var<immediate>` and of the sizes of runtime-sized arrays.
const IMMEDIATES: u8 = 10;
const SIZES: u8 = 11;

/// The MSL of every entry point; binding n of group 0 is buffer n. Workgroup memory stays as it is.
fn translate(wgsl: &str) -> String {
    let module = naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|e| panic!("{}", e.emit_to_string(wgsl)));
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).unwrap();
    let mut resources = msl::EntryPointResources {
        immediates_buffer: Some(IMMEDIATES),
        sizes_buffer: Some(SIZES),
        ..Default::default()
    };
    for (_, variable) in module.global_variables.iter() {
        if let Some(binding) = &variable.binding {
            let target = msl::BindTarget { buffer: Some(binding.binding as u8), mutable: true, ..Default::default() };
            resources.resources.insert(*binding, target);
        }
    }
    let options = msl::Options {
        lang_version: (2, 4),
        per_entry_point_map: module.entry_points.iter().map(|e| (e.name.clone(), resources.clone())).collect(),
        fake_missing_bindings: false,
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        ..Default::default()
    };
    msl::write_string(&module, &info, &options, &Default::default()).unwrap().0
}

/// A kernel and what is bound for it. Buffers end at inaccessible pages.
struct Bench {
    function: Arc<Function>,
    groups: [u32; 3],
    threads: [u32; 3],
    seed: u64,
    buffers: Vec<Option<(*mut u8, usize)>>,
    threadgroup: Vec<usize>,
    memory: Vec<Guarded>,
}

impl Bench {
    /// Entry point `main_` of WGSL, one group of 64 threads.
    fn new(wgsl: &str) -> Bench {
        Bench::of_msl(&translate(wgsl), "main_")
    }

    fn of_msl(msl: &str, name: &str) -> Bench {
        let library = Library::compile(msl).unwrap_or_else(|e| panic!("{msl}\n{e}"));
        let function = library.function(name).unwrap();
        let threadgroup = function.arguments().iter().filter_map(|argument| match argument {
            super::Argument::Threadgroup { min_len, .. } => Some(*min_len),
            super::Argument::Buffer { .. } => None,
        });
        let threadgroup = threadgroup.collect();
        let (buffers, memory) = (vec![None; 12], Vec::new());
        let bench = Bench { function, groups: [1, 1, 1], threads: [64, 1, 1], seed: 1, buffers, threadgroup, memory };
        // naga wants it beside every array without a length; no test asks for one.
        bench.bind(SIZES, &[0; 4])
    }

    fn groups(mut self, n: u32) -> Bench {
        self.groups[0] = n;
        self
    }

    fn threads(mut self, n: u32) -> Bench {
        self.threads[0] = n;
        self
    }

    fn seed(mut self, seed: u64) -> Bench {
        self.seed = seed;
        self
    }

    /// Binds a copy of `words`.
    fn bind(mut self, index: u8, words: &[u32]) -> Bench {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut memory = Guarded::new().unwrap();
        let address = memory.poisoned(bytes.len());
        // SAFETY: that many bytes, rounded up, were just handed out.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address, bytes.len()) };
        self.buffers[index as usize] = Some((address, bytes.len()));
        self.memory.push(memory);
        self
    }

    fn bind_f32(self, index: u8, values: &[f32]) -> Bench {
        let words: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
        self.bind(index, &words)
    }

    fn run(&self) -> Result<(), String> {
        self.function.run(&Dispatch {
            groups: self.groups,
            threads: self.threads,
            buffers: &self.buffers,
            threadgroup: &self.threadgroup,
            seed: self.seed,
        })
    }

    /// Runs, and returns what the buffer then holds.
    fn words(&self, index: u8) -> Vec<u32> {
        self.run().unwrap();
        let (address, len) = self.buffers[index as usize].unwrap();
        // SAFETY: `bind` wrote that many bytes there, 16-byte aligned; the memory lives as long as self.
        unsafe { std::slice::from_raw_parts(address.cast::<u32>(), len / 4) }.to_vec()
    }

    fn floats(&self, index: u8) -> Vec<f32> {
        self.words(index).into_iter().map(f32::from_bits).collect()
    }
}

/// Numbers that look like nothing in particular, within ±1.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut random = super::order::Random::new(seed, 0);
    (0..n).map(|_| (random.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}
