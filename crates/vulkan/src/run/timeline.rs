use super::counter::Counter;
use super::dispatcher::Dispatcher;
use super::executor::wait;
use mlx_serving_device::{Result, Timeline};
use std::any::Any;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A timeline: a counter of the host, which the executor raises as submissions end.
pub(crate) struct VulkanTimeline {
    pub(crate) counter: Arc<Counter>,
    pub(crate) dispatcher: Weak<Dispatcher>,
}

impl Timeline for VulkanTimeline {
    fn value(&self) -> u64 {
        self.counter.value()
    }

    fn wait(&self, value: u64, limit: Duration) -> Result<()> {
        wait(&self.dispatcher, &self.counter, value, limit)
    }

    fn signal(&self, value: u64) {
        self.counter.raise(value);
        if let Some(dispatcher) = self.dispatcher.upgrade() {
            dispatcher.pump();
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for VulkanTimeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VulkanTimeline(at {})", self.value())
    }
}
