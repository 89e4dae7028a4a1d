//! A simulated Metal device, so that a Metal backend written with `objc2-metal` runs on Linux, in tests only.
//!
//! No real Metal device has confirmed anything here: what the simulator accepts is what Apple's documents and headers promise,
//! as far as we read them, and a backend that passes has kept those promises, not met a Mac.
//!
//! # What is simulated
//!
//! - An Objective-C runtime (`runtime`): the C functions that `objc2` and `block2` call under their gnustep features. Classes,
//!   messages, retain counts, autorelease pools, blocks. No exceptions, no weak references, no protocol objects.
//! - The Foundation that a backend meets (`foundation`): `NSString`, `NSError`, `NSArray`, `NSURL`.
//! - Metal (`metal`): one device; heaps, buffers, queues with a thread each, command buffers, blit and compute encoders,
//!   fences, shared events, libraries, pipelines, residency sets, binary archives. No rendering, textures, argument buffers,
//!   indirect command buffers, counters or partial threadgroups.
//! - Kernels ([`shader`]): MSL compiled for the host and run thread by thread.
//!
//! # Strictness
//!
//! A broken rule is recorded with the call that broke it, panics in the thread that made the call (on a queue's thread it
//! ends the command buffer in error), and fails the process at its end. The rules: the state machines of command buffers and
//! encoders, the queue's limit of uncompleted command buffers, placement in heaps, storage modes, ranges and alignments,
//! bindings of a dispatch, lifetimes under unretained references, order of conflicting accesses (tracked memory is ordered
//! within a queue, everything else takes a barrier, a fence, an event, or a wait of the host's), balance of references, use
//! after release, autorelease outside a pool. Each has a test that breaks it, in `tests/rules_*.rs`.
//!
//! The simulator is stricter than a device in places: an over-full queue breaks a rule instead of blocking, an object is in use until its
//! command buffer has completed, fills and copies of one blit pass count as unordered over untracked memory, and a kernel is
//! taken to touch all of what is bound, reading or writing as its signature says. It is laxer in others: nothing checks what
//! the host does through `contents`, all memory is resident, and nothing is slow.
//!
//! New memory holds 0xA5 and dedicated memory ends at inaccessible pages; [`faults::confine_kernels`] gives kernels such an end
//! in heaps, too.
//!
//! # Use
//!
//! Test crates of this workspace name the crate (`extern crate metal_sim;`), or nothing links, and run in this folder, after
//! `./prepare`. Call [`forbid_leaks`] where a test holds no objects in
//! statics. Build with debug assertions: without them the bindings do not check message types.

pub mod faults;
mod foundation;
mod metal;
mod rules;
mod runtime;
pub mod shader;

pub use metal::drain;
pub use rules::{forbid_leaks, leaks, take_violations, violations};
