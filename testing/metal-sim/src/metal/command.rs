//! Steps of a command buffer, and their execution.

use super::buffer::{Bytes, Slice};
use super::confine::{Bound, Copies};
use super::event::EventCounter;
use super::fence::FenceClock;
use super::hazards::{PassOrder, QueueOrder, Touch};
use crate::shader::{self, Access, Argument};
use crate::{faults, rules};
use std::ptr;
use std::sync::Arc;

/// A step of a command buffer.
pub(crate) enum Step {
    Wait(Arc<EventCounter>, u64),
    Signal(Arc<EventCounter>, u64),
    Pass(Pass),
}

/// Order among the commands of a pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PassKind {
    /// Dispatches run one after another.
    Serial,
    /// Dispatches between barriers may run at the same time.
    Concurrent,
    /// Fills and copies run one after another where the system tracks the hazards of their memory; nothing promises that of
    /// other memory.
    Blit,
}

/// Commands that one encoder recorded.
pub(crate) struct Pass {
    /// Name of the pass, for messages.
    pub(crate) name: String,
    pub(crate) kind: PassKind,
    pub(crate) commands: Vec<Command>,
}

/// A command of a pass.
pub(crate) enum Command {
    Fill { target: Slice, value: u8 },
    Copy { source: Slice, target: Slice },
    Dispatch(Dispatch),
    Barrier,
    BarrierOn(Vec<Arc<Bytes>>),
    QueueBarrier,
    UpdateFence(Arc<FenceClock>),
    WaitForFence(Arc<FenceClock>),
}

/// Buffer or bytes bound at an index.
#[derive(Clone)]
pub(crate) enum Binding {
    Buffer(Slice),
    /// Bytes copied when they were set, in units of 16, and their number.
    Bytes(Arc<[u128]>, usize),
}

/// Number of threadgroups along x, y and z.
pub(crate) enum Groups {
    Fixed([u32; 3]),
    /// Three 32-bit numbers that the device reads.
    Indirect(Slice),
}

/// A dispatch, with everything that was bound.
pub(crate) struct Dispatch {
    pub(crate) function: Arc<shader::Function>,
    pub(crate) bindings: Vec<Option<Binding>>,
    /// Bytes of threadgroup memory by index.
    pub(crate) threadgroup: Vec<usize>,
    pub(crate) groups: Groups,
    pub(crate) threads: [u32; 3],
}

impl Pass {
    /// Runs the commands. The error is what a kernel did wrong, which is on record as well; other broken rules panic.
    pub(crate) fn run(&self, order: &mut QueueOrder) -> Result<(), String> {
        let mut order = order.pass(self.kind == PassKind::Blit);
        let mut commands: &[Command] = &self.commands;
        while let Some(first) = commands.first() {
            let concurrent = self.kind == PassKind::Concurrent;
            let unordered = commands.iter().take_while(|command| concurrent && command.is_work()).count().max(1);
            let (now, later) = commands.split_at(unordered);
            if first.is_work() {
                for index in shuffled(now.len(), faults::seed()) {
                    self.work(&now[index], &mut order)?;
                }
            } else {
                first.order(&mut order);
            }
            commands = later;
        }
        Ok(())
    }

    fn work(&self, command: &Command, order: &mut PassOrder<'_>) -> Result<(), String> {
        let (what, touches) = command.touches();
        let what = format!("{what} in {}", self.name);
        if let Err(conflict) = order.step(&what, &touches) {
            rules::broken(&what, &conflict);
        }
        command.execute().map_err(|error| rules::record(&what, &error))?;
        if self.kind == PassKind::Serial {
            order.barrier();
        }
        Ok(())
    }
}

impl Command {
    /// False for commands that only order others.
    fn is_work(&self) -> bool {
        matches!(self, Self::Fill { .. } | Self::Copy { .. } | Self::Dispatch(_))
    }

    fn order(&self, order: &mut PassOrder<'_>) {
        match self {
            Self::Barrier => order.barrier(),
            Self::BarrierOn(buffers) => {
                buffers.iter().for_each(|bytes| order.barrier_on(&bytes.mapping, bytes.within_mapping(&(0..bytes.len))))
            }
            Self::QueueBarrier => order.queue_barrier(),
            Self::UpdateFence(fence) => fence.set(order.fence()),
            Self::WaitForFence(fence) => order.wait(&fence.get()),
            Self::Fill { .. } | Self::Copy { .. } | Self::Dispatch(_) => {}
        }
    }

    /// The command in words, and the memory that it touches.
    fn touches(&self) -> (String, Vec<Touch<'_>>) {
        match self {
            Self::Fill { target, .. } => ("fill".into(), vec![touch(target, true)]),
            Self::Copy { source, target } => ("copy".into(), vec![touch(source, false), touch(target, true)]),
            Self::Dispatch(dispatch) => (format!("dispatch of {}", dispatch.function.name()), dispatch.touches()),
            _ => (String::new(), Vec::new()),
        }
    }

    fn execute(&self) -> Result<(), String> {
        match self {
            // SAFETY: the slice lies in its buffer, whose memory the slice keeps mapped.
            Self::Fill { target, value } => unsafe {
                ptr::write_bytes(target.bytes.at(&target.range), *value, target.range.len());
            },
            // SAFETY: as above, for both; the ranges may overlap.
            Self::Copy { source, target } => unsafe {
                ptr::copy(source.bytes.at(&source.range), target.bytes.at(&target.range), target.range.len());
            },
            Self::Dispatch(dispatch) => dispatch.execute()?,
            _ => {}
        }
        Ok(())
    }
}

impl Dispatch {
    fn touches(&self) -> Vec<Touch<'_>> {
        let indirect = match &self.groups {
            Groups::Fixed(_) => None,
            Groups::Indirect(slice) => Some(touch(slice, false)),
        };
        let extents = self.extents();
        let arguments = self.function.arguments().iter().filter_map(|argument| match argument {
            Argument::Buffer { index, access, .. } => match self.bindings.get(*index) {
                Some(Some(Binding::Buffer(slice))) => {
                    let mut touch = touch(slice, matches!(access, Access::Write));
                    if let Some(&len) = extents.get(*index) {
                        touch.range.end = touch.range.end.min(touch.range.start + len);
                    }
                    Some(touch)
                }
                _ => None,
            },
            Argument::Threadgroup { .. } => None,
        });
        indirect.into_iter().chain(arguments).collect()
    }

    /// Bytes that the first buffers span, where the kernel is told: naga's MSL takes the lengths of its unsized arrays, which
    /// come first here, as an argument of this name. Otherwise a buffer counts as used to its end.
    fn extents(&self) -> Vec<usize> {
        let lengths = self.function.arguments().iter().find_map(|argument| match argument {
            Argument::Buffer { index, name, .. } if name == "_buffer_sizes" => self.bindings.get(*index),
            _ => None,
        });
        let Some(Some(Binding::Bytes(units, len))) = lengths else { return Vec::new() };
        let bytes = units.iter().flat_map(|unit| unit.to_ne_bytes()).take(*len).collect::<Vec<u8>>();
        bytes.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word) as usize).collect()
    }

    fn execute(&self) -> Result<(), String> {
        let copies = Copies::of(if faults::confines_kernels() { self.bound() } else { Vec::new() });
        let buffers: Vec<Option<(*mut u8, usize)>> = self
            .bindings
            .iter()
            .enumerate()
            .map(|(index, binding)| match binding {
                None => None,
                Some(Binding::Buffer(slice)) => {
                    copies.at(index).or_else(|| Some((slice.bytes.at(&slice.range), slice.range.len())))
                }
                // Kernels take such bytes as constant.
                Some(Binding::Bytes(bytes, len)) => Some((bytes.as_ptr().cast_mut().cast(), *len)),
            })
            .collect();
        let groups = match &self.groups {
            Groups::Fixed(groups) => *groups,
            // SAFETY: the slice has twelve bytes, aligned to four, and its buffer is mapped.
            Groups::Indirect(slice) => unsafe { slice.bytes.at(&slice.range).cast::<[u32; 3]>().read() },
        };
        let outcome = self.function.run(&shader::Dispatch {
            groups,
            threads: self.threads,
            buffers: &buffers,
            threadgroup: &self.threadgroup,
            seed: faults::seed(),
        });
        copies.write_back();
        outcome
    }

    /// Ranges of buffers whose lengths the kernel is told.
    fn bound(&self) -> Vec<Bound<'_>> {
        let extents = self.extents();
        let arguments = self.function.arguments().iter().filter_map(|argument| match argument {
            Argument::Buffer { index, access, .. } => Some((*index, matches!(access, Access::Write))),
            Argument::Threadgroup { .. } => None,
        });
        let bound = arguments.filter_map(|(index, writes)| match self.bindings.get(index) {
            Some(Some(Binding::Buffer(slice))) => {
                let len = (*extents.get(index)?).min(slice.range.len());
                Some(Bound { index, slice, len, writes })
            }
            _ => None,
        });
        bound.collect()
    }
}

fn touch(slice: &Slice, writes: bool) -> Touch<'_> {
    Touch {
        mapping: &slice.bytes.mapping,
        range: slice.bytes.within_mapping(&slice.range),
        writes,
        tracked: slice.bytes.is_tracked(),
        name: &slice.name,
    }
}

/// The numbers below `len` in an order that `seed` chooses; as they are for seed 0.
fn shuffled(len: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    if seed != 0 {
        let mut state = seed;
        for last in (1..len).rev() {
            state = state.wrapping_add(faults::STEP);
            order.swap(last, (faults::mixed(state) % (last as u64 + 1)) as usize);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::shuffled;

    #[test]
    fn a_seed_gives_one_order_of_all_and_others_give_others() {
        assert_eq!(shuffled(5, 0), [0, 1, 2, 3, 4]);
        let mut sorted = shuffled(64, 7);
        assert_eq!(sorted, shuffled(64, 7));
        assert_ne!(sorted, shuffled(64, 8));
        sorted.sort_unstable();
        assert_eq!(sorted, shuffled(64, 0));
    }
}
