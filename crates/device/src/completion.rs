use crate::{DeviceError, Patience, Result, Status, Submission, Times};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A submission that its backend ends: how it ended, and when it ran, for whoever asks.
#[derive(Debug, Default)]
pub struct Completion {
    ended: Mutex<Option<(Result<()>, Option<Times>)>>,
    wake: Condvar,
}

impl Completion {
    /// Notes the end, with its times where the device has a clock.
    pub fn end(&self, outcome: Result<()>, times: Option<Times>) {
        *self.ended() = Some((outcome, times));
        self.wake.notify_all();
    }

    fn ended(&self) -> MutexGuard<'_, Option<(Result<()>, Option<Times>)>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Submission for Completion {
    fn status(&self) -> Status {
        match &*self.ended() {
            None => Status::Pending,
            Some((Ok(()), _)) => Status::Completed,
            Some((Err(error), _)) => Status::Failed(error.clone()),
        }
    }

    fn wait(&self, limit: Duration) -> Result<()> {
        let mut patience = Patience::new(limit);
        let mut ended = self.ended();
        loop {
            if let Some((outcome, _)) = &*ended {
                return outcome.clone();
            }
            let Some(slice) = patience.slice() else {
                return Err(DeviceError::Timeout { value: 1, reached: 0, waited: limit });
            };
            ended = self.wake.wait_timeout(ended, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn times(&self) -> Option<Times> {
        self.ended().as_ref().and_then(|(_, times)| *times)
    }
}
