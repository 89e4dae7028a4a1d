use crate::counter::Counter;
use crate::executor::{Shared, wait};
use mlx_serving_device::{Result, Status, Submission, Times};
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// How a submission ended, for whoever asks.
pub(crate) struct VulkanSubmission {
    /// 1 when it has ended.
    pub(crate) done: Arc<Counter>,
    pub(crate) outcome: OnceLock<(Result<()>, Option<Times>)>,
    pub(crate) executor: Weak<Shared>,
}

impl Submission for VulkanSubmission {
    fn status(&self) -> Status {
        match self.outcome.get() {
            None => Status::Pending,
            Some((Ok(()), _)) => Status::Completed,
            Some((Err(error), _)) => Status::Failed(error.clone()),
        }
    }

    fn wait(&self, limit: Duration) -> Result<()> {
        if self.outcome.get().is_none() {
            wait(&self.executor, &self.done, 1, limit)?;
        }
        self.outcome.get().map_or(Ok(()), |(outcome, _)| outcome.clone())
    }

    fn times(&self) -> Option<Times> {
        self.outcome.get().and_then(|(_, times)| *times)
    }
}

impl fmt::Debug for VulkanSubmission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VulkanSubmission({:?})", self.status())
    }
}
