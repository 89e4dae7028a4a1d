use crate::{DeviceError, Result, Status, Submission};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// First and last moment of a run, on the device's clock.
pub(super) type Times = (Duration, Duration);

#[derive(Debug, Default)]
pub(super) struct FakeSubmission {
    ended: Mutex<Option<(Result<()>, Times)>>,
    wake: Condvar,
}

impl FakeSubmission {
    pub(super) fn end(&self, outcome: Result<()>, times: Times) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some((outcome, times));
        self.wake.notify_all();
    }

    fn ended(&self) -> Option<(Result<()>, Times)> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Submission for FakeSubmission {
    fn status(&self) -> Status {
        match self.ended() {
            None => Status::Pending,
            Some((Ok(()), _)) => Status::Completed,
            Some((Err(error), _)) => Status::Failed(error),
        }
    }

    fn wait(&self, limit: Duration) -> Result<()> {
        let began = Instant::now();
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some((outcome, _)) = &*ended {
                return outcome.clone();
            }
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(DeviceError::Timeout { value: 1, reached: 0, waited: limit });
            }
            ended = self.wake.wait_timeout(ended, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn times(&self) -> Option<Times> {
        self.ended().map(|(_, times)| times)
    }
}
