use crate::masks::board::{Duty, Fault, Made};
use crate::masks::rules::{Matching, Rules};
use crate::metrics::GrammarMetrics;
use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A mask to make.
pub(crate) struct Job {
    pub duty: Duty,
    /// State of the answer, or where it begins.
    pub matcher: Option<Box<dyn Matching>>,
    pub rules: Arc<dyn Rules>,
    /// Tokens that it takes first.
    pub take: Vec<u32>,
    /// End tokens that are left out of the mask as long as anything else is in it.
    pub avoid: Option<Arc<[u32]>>,
    /// Tokens that may come whatever the rules say: they begin reasoning, or go on to. Those before may not be what the rules allow, and then
    /// no others may come.
    pub admit: Vec<u32>,
}

/// The threads that make masks, started when the first one is wanted. They end with the job that they are at when this is dropped.
pub(crate) struct Makers {
    threads: usize,
    metrics: GrammarMetrics,
    jobs: OnceCell<Sender<Job>>,
}

impl Makers {
    pub(crate) fn new(threads: usize, metrics: GrammarMetrics) -> Self {
        Self { threads, metrics, jobs: OnceCell::new() }
    }

    /// Hands a job to the next thread that is free. Where no thread can be started the job ends, and its row with it.
    pub(crate) fn hand_out(&self, job: Job) {
        // Whoever takes no jobs any more has dropped this one.
        let _ = self.jobs.get_or_init(|| self.start()).send(job);
    }

    fn start(&self) -> Sender<Job> {
        let (sender, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..self.threads.max(1) {
            let (receiver, metrics) = (receiver.clone(), self.metrics.clone());
            let work = move || {
                while let Some(job) = next(&receiver) {
                    job.run(&metrics);
                }
            };
            if let Err(error) = std::thread::Builder::new().name(format!("masks-{number}")).spawn(work) {
                tracing::error!(%error, "a thread that makes masks could not be started");
            }
        }
        sender
    }
}

/// The next job; `None` once there will be none.
fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

impl Job {
    /// Makes the mask. A panic ends the job and not its thread.
    fn run(self, metrics: &GrammarMetrics) {
        let Job { duty, matcher, rules, take, avoid, admit } = self;
        let mut mask = vec![0; duty.words()];
        let began = Instant::now();
        let made = catch_unwind(AssertUnwindSafe(|| {
            if !duty.begin(take.len()) {
                return Err(Fault::Dropped);
            }
            let mut matcher = matcher.unwrap_or_else(|| rules.begin());
            if !duty.stops_by(matcher.canceler()) {
                return Err(Fault::Dropped);
            }
            match make(&mut *matcher, &take, &mut mask) {
                Ok(forced) => {
                    let only_ends = limit(&mut mask, avoid.as_deref(), &admit);
                    Ok(Made { only_ends, matcher: Some(matcher), forced })
                }
                Err(_) if !admit.is_empty() && !take.is_empty() => {
                    mask.fill(0);
                    limit(&mut mask, None, &admit);
                    Ok(Made::default())
                }
                Err(error) => Err(Fault::Stuck(error.to_string())),
            }
        }));
        let made = made.unwrap_or(Err(Fault::Died)).and_then(|made| match mask.iter().all(|word| *word == 0) {
            true => Err(Fault::Stuck("no token can come next".into())),
            false => Ok((&mask[..], made)),
        });
        if made.is_ok() {
            metrics.masks.inc();
            metrics.mask_seconds.observe(began.elapsed().as_secs_f64());
        }
        duty.finish(made);
    }
}

/// Takes tokens and masks the next one. What is forced is asked for before every token: an answer that is computed again must find the
/// same tokens forced.
fn make(
    matcher: &mut dyn Matching,
    take: &[u32],
    mask: &mut [u32],
) -> Result<Vec<u32>, mlx_serving_grammar::GrammarError> {
    for &token in take {
        matcher.forced()?;
        matcher.take(token)?;
    }
    let forced = matcher.forced()?;
    matcher.mask(mask)?;
    Ok(forced)
}

/// Leaves the ends out if anything else is allowed, and lets more tokens in. True if only ends are allowed.
fn limit(mask: &mut [u32], avoid: Option<&[u32]>, admit: &[u32]) -> bool {
    let mut only_ends = false;
    if let Some(ends) = avoid {
        let before = mask.to_vec();
        for &end in ends {
            if let Some(word) = mask.get_mut(end as usize / 32) {
                *word &= !(1 << (end % 32));
            }
        }
        only_ends = mask.iter().all(|word| *word == 0);
        if only_ends {
            mask.copy_from_slice(&before);
        }
    }
    for token in admit {
        if let Some(word) = mask.get_mut(*token as usize / 32) {
            *word |= 1 << (token % 32);
        }
    }
    only_ends
}

#[cfg(test)]
mod tests;
