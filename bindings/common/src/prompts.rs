//! The thread that encodes long prompts, so that no event loop waits for them.

use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Bytes of text that are encoded at once by whoever asks: about a millisecond's work. Longer texts go to the thread. Not measured.
pub(crate) const SHORT: usize = 4096;

type Job = Box<dyn FnOnce() + Send>;

/// The thread, which starts with its first job and ends when this is dropped.
#[derive(Default)]
pub(crate) struct Prompts(Mutex<Option<(Sender<Job>, JoinHandle<()>)>>);

impl Prompts {
    /// Runs a job after those before it. A job that panics ends alone.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            let (sender, jobs) = mpsc::channel::<Job>();
            let work = move || {
                for job in jobs {
                    // Whoever waits for it sees that it is gone.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                }
            };
            *running = Some((sender, thread::Builder::new().name("mlx-prompts".into()).spawn(work)?));
        }
        if let Some((sender, _)) = &*running {
            // It takes jobs for as long as it is here.
            let _ = sender.send(Box::new(job));
        }
        Ok(())
    }

    /// Ends the thread after the job that it is at.
    pub(crate) fn end(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, thread)) = running {
            drop(sender);
            let _ = thread.join();
        }
    }
}

impl Drop for Prompts {
    fn drop(&mut self) {
        self.end();
    }
}
