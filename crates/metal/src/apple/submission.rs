use mlx_serving_device::{DeviceError, Result, Status, Submission};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// First and last moment of a run, on the device's clock; `None` where Metal gave none.
pub(crate) type Times = Option<(Duration, Duration)>;

/// How a submission ended, for whoever asks.
#[derive(Debug, Default)]
pub(crate) struct MetalSubmission {
    ended: Mutex<Option<(Result<()>, Times)>>,
    wake: Condvar,
}

impl MetalSubmission {
    pub(crate) fn end(&self, outcome: Result<()>, times: Times) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some((outcome, times));
        self.wake.notify_all();
    }

    fn ended(&self) -> Option<(Result<()>, Times)> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Submission for MetalSubmission {
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
            let Some(left) = limit.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else {
                return Err(DeviceError::Timeout { value: 1, reached: 0, waited: limit });
            };
            ended = self.wake.wait_timeout(ended, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn times(&self) -> Times {
        self.ended().and_then(|(_, times)| times)
    }
}
