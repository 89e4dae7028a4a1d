//! Launch of a dispatch: what is bound is checked, then threadgroups run on the host's cores.

use super::fault::{self, Fault};
use super::group::{Failure, Group, Stage};
use super::order::{Permutation, Random};
use super::{Argument, Dispatch, Function, MAX_THREADGROUP_MEMORY};
use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Work that is done sooner is not worth waking other threads for.
const ALONE: Duration = Duration::from_micros(100);

thread_local! {
    // Fibers and memory outlive a dispatch: making them costs more than many kernels do.
    static STAGE: RefCell<Stage> = RefCell::default();
}

pub(super) fn run(function: &Function, dispatch: &Dispatch) -> Result<(), String> {
    check_sizes(function, dispatch)?;
    for (argument, align) in function.arguments.iter().zip(&function.alignments) {
        check_argument(argument, *align, dispatch)?;
    }
    let [x, y, z] = dispatch.groups.map(u64::from);
    let total = x.checked_mul(y).and_then(|n| n.checked_mul(z)).filter(|n| *n <= u64::from(u32::MAX));
    let total = total.ok_or_else(|| format!("a grid of {:?} threadgroups has more than 2^32", dispatch.groups))?;
    if total == 0 {
        return Ok(());
    }
    fault::catch();
    let launch = Launch {
        function,
        dispatch,
        buffers: dispatch.buffers.iter().map(|b| b.map_or(std::ptr::null_mut(), |(address, _)| address)).collect(),
        total,
        order: Permutation::new(total, &mut Random::new(dispatch.seed, u64::MAX)),
        next: AtomicU64::new(0),
        failed: Mutex::new(None),
    };
    launch.run();
    launch.failed.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}

fn check_sizes(function: &Function, dispatch: &Dispatch) -> Result<(), String> {
    let threads: u64 = dispatch.threads.iter().map(|n| u64::from(*n)).fold(1, u64::saturating_mul);
    if threads == 0 || threads > function.max_threads as u64 {
        return Err(format!("{:?} threads a threadgroup; it may have 1 to {}", dispatch.threads, function.max_threads));
    }
    let bytes = dispatch.threadgroup.iter().fold(0usize, |sum, n| sum.saturating_add(n.next_multiple_of(16)));
    if bytes > MAX_THREADGROUP_MEMORY {
        return Err(format!("{bytes} bytes of threadgroup memory; there are {MAX_THREADGROUP_MEMORY}"));
    }
    Ok(())
}

fn check_argument(argument: &Argument, align: usize, dispatch: &Dispatch) -> Result<(), String> {
    match argument {
        Argument::Buffer { index, name, min_len, .. } => {
            let Some((address, len)) = dispatch.buffers.get(*index).copied().flatten() else {
                return Err(format!("nothing is bound at buffer index {index}, `{name}`"));
            };
            if len < *min_len {
                return Err(format!("{len} bytes are bound at buffer index {index}, `{name}` needs {min_len}"));
            }
            if !(address as usize).is_multiple_of(align) {
                return Err(format!("buffer index {index}, `{name}`, starts at {address:p}: no multiple of {align}"));
            }
        }
        Argument::Threadgroup { index, min_len } => {
            let len = dispatch.threadgroup.get(*index).copied().unwrap_or(0);
            if len < *min_len {
                return Err(format!("{len} bytes of threadgroup memory at index {index}, which needs {min_len}"));
            }
        }
    }
    Ok(())
}

struct Launch<'a> {
    function: &'a Function,
    dispatch: &'a Dispatch<'a>,
    buffers: Vec<*mut u8>,
    total: u64,
    order: Permutation,
    /// Position in `order` of the next threadgroup to begin; `total` or more once none may begin.
    next: AtomicU64,
    /// The first failure.
    failed: Mutex<Option<String>>,
}

// SAFETY: the pointers are used by kernels alone, whose threadgroups may run at once wherever Metal runs them at once;
// the rest is shared by reference or by locks.
unsafe impl Sync for Launch<'_> {}

impl Launch<'_> {
    /// Runs all threadgroups: some here, and once that takes long, on other threads as well.
    fn run(&self) {
        let helpers = if self.function.serial { 0 } else { rayon::current_num_threads() - 1 };
        let begun = Instant::now();
        while helpers == 0 || begun.elapsed() < ALONE {
            if !self.run_next() {
                return;
            }
        }
        rayon::in_place_scope(|scope| {
            let left = self.total.saturating_sub(self.next.load(Ordering::Relaxed) + 1);
            for _ in 0..left.min(helpers as u64) {
                scope.spawn(|_| while self.run_next() {});
            }
            while self.run_next() {}
        });
    }

    /// Runs the next threadgroup; false if there is none left to run, or if it failed.
    fn run_next(&self) -> bool {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        if at >= self.total {
            return false;
        }
        let (x, y) = (u64::from(self.dispatch.groups[0]), u64::from(self.dispatch.groups[1]));
        let index = self.order.at(at);
        let group = Group {
            group: [index % x, index / x % y, index / x / y].map(|n| n as u32),
            groups: self.dispatch.groups,
            threads: self.dispatch.threads,
        };
        let mut random = Random::new(self.dispatch.seed, index);
        STAGE.with_borrow_mut(|stage| {
            // SAFETY: every argument was checked; the dispatch's pointers are valid, as its documentation demands.
            let result =
                unsafe { stage.run(self.function, &group, &self.buffers, self.dispatch.threadgroup, &mut random) };
            result.map_err(|failure| self.fail(failure, stage)).is_ok()
        })
    }

    /// Keeps the first failure, and lets no further threadgroup begin.
    fn fail(&self, failure: Failure, stage: &Stage) {
        let message = match failure {
            Failure::Rule(message) => message,
            Failure::Fault(thread, fault) => format!("{thread} {fault}{}", self.place(&fault, stage)),
        };
        self.next.store(self.total, Ordering::Relaxed);
        self.failed.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(message);
    }

    /// The argument that ends nearest before the address, or begins nearest after it.
    fn place(&self, fault: &Fault, stage: &Stage) -> String {
        let mut nearest: Option<(usize, String)> = None;
        for argument in &self.function.arguments {
            let (what, start, len) = match argument {
                Argument::Buffer { index, name, .. } => {
                    let Some(Some((address, len))) = self.dispatch.buffers.get(*index) else { continue };
                    (format!("buffer index {index}, `{name}`, of {len} bytes"), *address as usize, *len)
                }
                Argument::Threadgroup { index, .. } => {
                    let Some(address) = stage.threadgroup_memory().get(*index) else { continue };
                    let len = self.dispatch.threadgroup[*index];
                    (format!("threadgroup memory {index} of {len} bytes"), *address as usize, len)
                }
            };
            let (distance, side) = match fault.address.checked_sub(start + len) {
                Some(past) => (past, "past the end"),
                None => (start.saturating_sub(fault.address), "before the start"),
            };
            if nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
                nearest = Some((distance, format!(": {distance} bytes {side} of {what}")));
            }
        }
        nearest.filter(|_| fault.address != 0).map_or(String::new(), |(_, place)| place)
    }
}
