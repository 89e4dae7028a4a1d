use super::pipeline::Pipelines;
use mlx_serving_kernels::Kernel;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Threads at most: compiling should leave room for loading.
const THREADS: usize = 8;

/// Compiles kernels in the background; dropping it ends that.
#[derive(Default)]
pub(crate) struct WarmUp {
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop: Arc<AtomicBool>,
}

impl WarmUp {
    /// Begins; a second call does nothing.
    pub(crate) fn begin(&self, pipelines: &Arc<Pipelines>, kernels: Vec<&'static Kernel>) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if !threads.is_empty() {
            return;
        }
        let count = std::thread::available_parallelism().map_or(1, Into::into).min(THREADS);
        let (next, kernels) = (Arc::new(AtomicUsize::new(0)), Arc::new(kernels));
        for _ in 0..count {
            let (pipelines, kernels) = (pipelines.clone(), kernels.clone());
            let (next, stop) = (next.clone(), self.stop.clone());
            let work = move || {
                while let (false, Some(kernel)) = (stop.load(Relaxed), kernels.get(next.fetch_add(1, Relaxed))) {
                    if let Err(error) = pipelines.get(kernel) {
                        tracing::warn!(target: "vulkan", kernel = kernel.name, %error, "a kernel was not compiled");
                    }
                }
            };
            // A thread too few: what it would have compiled is compiled by others, or on first use.
            threads.extend(std::thread::Builder::new().name("vulkan-warm".into()).spawn(work));
        }
    }
}

impl Drop for WarmUp {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // Drivers do not survive a process that ends while they compile.
        for thread in self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}
