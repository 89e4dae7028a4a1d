use crate::barrier::Barrier;
use crate::heap::CpuMemory;
use crate::scratch::Scratch;
use crate::sync::{Line, awake_until, wait_until};
use crate::view::View;
use bytemuck::Pod;
use mlx_serving_device::{Buffer, DeviceError, Result, Storage};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::{io, ptr};

/// Knowledge of one worker while it runs a job.
pub(crate) struct Worker {
    /// Index of the worker, from 0.
    pub(crate) index: usize,
    /// Number of workers.
    pub(crate) count: usize,
    /// Working memory of the worker.
    pub(crate) scratch: Scratch,
    team: Arc<Team>,
}

impl Worker {
    /// Meets the others; fails if one of them has failed.
    pub(crate) fn barrier(&self) -> Result<()> {
        self.team.barrier.wait()
    }

    /// Meets the others like [`Self::barrier`]; runs `idle` first if this worker has to wait.
    pub(crate) fn barrier_doing(&self, idle: impl FnOnce()) -> Result<()> {
        self.team.barrier.wait_doing(idle)
    }

    /// `len` values of the scratch that all workers share, from byte `offset`. Its contents mean nothing at the start of an op.
    pub(crate) fn arena<T: Pod>(&self, offset: usize, len: usize) -> Result<View<T>> {
        let arena = self.team.arena.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(arena) = &*arena else {
            return Err(DeviceError::Contract("an op without shared scratch asked for it".into()));
        };
        View::new(&arena.slice(offset as u64..arena.len())?, len)
    }

    /// Runs the job; a failure is noted, the first wins, and the others are released from the barrier.
    fn run(&mut self, job: &Job<'_>) {
        let outcome = catch_unwind(AssertUnwindSafe(|| job(self)));
        let error = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => DeviceError::CommandFailed(format!("a worker panicked: {}", panic_text(&*panic))),
        };
        self.team.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.team.barrier.break_up();
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// A job: every worker runs it, with its own [`Worker`].
pub(crate) type Job<'a> = dyn Fn(&mut Worker) -> Result<()> + Sync + 'a;

/// State of the job at hand, and the memory that all workers use for it.
struct Team {
    barrier: Barrier,
    /// The job at hand: a pointer to a `&Job` on the stack of [`Pool::run`].
    job: AtomicPtr<()>,
    /// Counts jobs; a change is the signal to start.
    round: Line<AtomicU64>,
    /// Threads that have not finished the job.
    running: Line<AtomicUsize>,
    closing: AtomicBool,
    failure: Mutex<Option<DeviceError>>,
    arena: Mutex<Option<Buffer>>,
}

struct Helper {
    asleep: Arc<AtomicBool>,
    thread: Thread,
    handle: JoinHandle<()>,
}

/// Persistent worker threads that run one job at a time together with the thread that gives it.
///
/// Between jobs a worker stays awake for a moment, then parks until the next one.
pub(crate) struct Pool {
    team: Arc<Team>,
    helpers: Vec<Helper>,
    first: Worker,
}

impl Pool {
    /// Starts `workers − 1` threads; who calls [`Self::run`] is worker 0.
    pub(crate) fn new(workers: usize) -> io::Result<Self> {
        let team = Arc::new(Team {
            barrier: Barrier::new(workers),
            job: AtomicPtr::new(ptr::null_mut()),
            round: Line::default(),
            running: Line::default(),
            closing: AtomicBool::new(false),
            failure: Mutex::new(None),
            arena: Mutex::new(None),
        });
        let worker = |index| Worker { index, count: workers, scratch: Scratch::default(), team: team.clone() };
        let mut pool = Self { team: team.clone(), helpers: Vec::new(), first: worker(0) };
        for index in 1..workers {
            let asleep = Arc::new(AtomicBool::new(false));
            let (flag, worker) = (asleep.clone(), worker(index));
            let handle =
                std::thread::Builder::new().name(format!("cpu-worker-{index}")).spawn(move || serve(worker, &flag))?;
            pool.helpers.push(Helper { asleep, thread: handle.thread().clone(), handle });
        }
        Ok(pool)
    }

    /// Makes the scratch that workers share at least `bytes` long.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<()> {
        let mut arena = self.team.arena.lock().unwrap_or_else(PoisonError::into_inner);
        if arena.as_ref().is_none_or(|arena| arena.len() < bytes as u64) {
            // The old one goes first: the two need never exist at once.
            *arena = None;
            let len = bytes.next_power_of_two() as u64;
            *arena = Some(Buffer::whole(CpuMemory::new(len, Storage::Private, "scratch", &Arc::default())?));
        }
        Ok(())
    }

    /// Runs `job` on every worker and waits for all; the first failure, if there was one.
    pub(crate) fn run(&mut self, job: &Job<'_>) -> Result<()> {
        let team = &self.team;
        team.running.0.store(self.helpers.len(), Ordering::Relaxed);
        team.job.store((&raw const job).cast_mut().cast(), Ordering::Relaxed);
        // SeqCst pairs with the worker's flag: one of the two sees the other.
        team.round.0.fetch_add(1, Ordering::SeqCst);
        wake(&self.helpers);
        self.first.run(job);
        wait_until(|| team.running.0.load(Ordering::Acquire) == 0);
        team.job.store(ptr::null_mut(), Ordering::Relaxed);
        match team.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(error) => {
                team.barrier.reset();
                Err(error)
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.team.closing.store(true, Ordering::Relaxed);
        self.team.round.0.fetch_add(1, Ordering::SeqCst);
        wake(&self.helpers);
        for helper in self.helpers.drain(..) {
            if helper.handle.join().is_err() {
                tracing::error!("a worker thread panicked outside of any job");
            }
        }
    }
}

fn wake(helpers: &[Helper]) {
    for helper in helpers.iter().filter(|h| h.asleep.load(Ordering::SeqCst)) {
        helper.thread.unpark();
    }
}

/// A helper thread's life.
fn serve(mut worker: Worker, asleep: &AtomicBool) {
    let team = worker.team.clone();
    let mut seen = 0;
    loop {
        let called = || team.round.0.load(Ordering::SeqCst) != seen;
        if !awake_until(called) {
            asleep.store(true, Ordering::SeqCst);
            while !called() {
                std::thread::park();
            }
            asleep.store(false, Ordering::SeqCst);
        }
        seen = team.round.0.load(Ordering::Acquire);
        if team.closing.load(Ordering::Relaxed) {
            return;
        }
        let job = team.job.load(Ordering::Relaxed).cast::<&Job<'_>>();
        // SAFETY: `Pool::run` stored a pointer to its argument before it raised the round, and stays in the call, so keeps the
        // argument alive, until this thread has counted itself out below.
        let job: &Job<'_> = unsafe { *job };
        worker.run(job);
        team.running.0.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_worker_runs_every_job() {
        let rounds = if cfg!(miri) { 5 } else { 300 };
        for workers in 1..=4 {
            let mut pool = Pool::new(workers).unwrap();
            for round in 0..rounds {
                let done = AtomicUsize::new(0);
                pool.run(&|worker| {
                    assert_eq!(worker.count, workers);
                    done.fetch_add(1 << (8 * worker.index), Ordering::Relaxed);
                    worker.barrier()
                })
                .unwrap();
                let each_once: usize = (0..workers).map(|w| 1 << (8 * w)).sum();
                assert_eq!(done.into_inner(), each_once);
                if round % 100 == 0 {
                    std::thread::sleep(Duration::from_millis(2)); // Long enough for the workers to park.
                }
            }
        }
    }

    #[test]
    fn plain_memory_passes_from_the_caller_to_the_workers_and_back() {
        let mut pool = Pool::new(3).unwrap();
        let memory = CpuMemory::new(12, Storage::Private, "test", &Arc::default()).unwrap();
        let values = View::<u32>::new(&Buffer::whole(memory), 3).unwrap();
        for round in 0..5 {
            // SAFETY: no job runs.
            assert_eq!(unsafe { values.all() }, [round; 3]);
            pool.run(&|worker| {
                // SAFETY: each worker has a value of its own.
                unsafe { values.set(worker.index, values.item(worker.index) + 1) };
                Ok(())
            })
            .unwrap();
        }
    }

    #[test]
    fn a_failure_ends_the_job_for_all_and_the_pool_lives_on() {
        let mut pool = Pool::new(3).unwrap();
        let error = pool
            .run(&|worker| {
                if worker.index == 1 {
                    return Err(DeviceError::CommandFailed("no".into()));
                }
                worker.barrier()
            })
            .unwrap_err();
        assert_eq!(error, DeviceError::CommandFailed("no".into()));
        pool.run(&|worker| worker.barrier()).unwrap();
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let mut pool = Pool::new(2).unwrap();
        let error = pool
            .run(&|worker| {
                assert_ne!(worker.index, 0, "worker zero trips");
                worker.barrier()
            })
            .unwrap_err();
        assert!(error.to_string().contains("worker zero trips"), "{error}");
        pool.run(&|worker| worker.barrier()).unwrap();
    }
}
