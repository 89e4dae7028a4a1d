use super::dispatcher::Dispatcher;
use super::executor::wait;
use super::flight::Ending;
use mlx_serving_device::{Result, Status, Submission, Times};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The contract's view of a submission.
pub(crate) struct VulkanSubmission {
    pub(crate) ending: Arc<Ending>,
    pub(crate) dispatcher: Weak<Dispatcher>,
}

impl Submission for VulkanSubmission {
    fn status(&self) -> Status {
        match self.ending.outcome.get() {
            None => Status::Pending,
            Some((Ok(()), _)) => Status::Completed,
            Some((Err(error), _)) => Status::Failed(error.clone()),
        }
    }

    fn wait(&self, limit: Duration) -> Result<()> {
        if self.ending.outcome.get().is_none() {
            wait(&self.dispatcher, &self.ending.done, 1, limit)?;
        }
        self.ending.outcome.get().map_or(Ok(()), |(outcome, _)| outcome.clone())
    }

    fn times(&self) -> Option<Times> {
        self.ending.outcome.get().and_then(|(_, times)| *times)
    }
}

impl fmt::Debug for VulkanSubmission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VulkanSubmission({:?})", self.status())
    }
}
