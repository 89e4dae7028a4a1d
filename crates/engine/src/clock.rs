use mlx_serving_device::RunningTime;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Interval at which the clock looks at the time.
const TICK: Duration = Duration::from_millis(250);
/// The most that counts of the time since it last did: it may be late where others compute.
const LONGEST: Duration = Duration::from_millis(500);

/// [`RunningTime`] that a thread looks at, so that a step is timed for whoever asks, while the engine's own thread waits for it.
#[derive(Debug)]
pub(crate) struct Clock {
    ran: Arc<Mutex<RunningTime>>,
    /// Dropping it ends the thread.
    _stop: Sender<()>,
}

impl Clock {
    /// A clock at zero.
    pub(crate) fn start() -> std::io::Result<Self> {
        let ran = Arc::new(Mutex::new(RunningTime::new(LONGEST)));
        let (stop, stopped) = channel();
        let own = ran.clone();
        std::thread::Builder::new().name("engine-clock".into()).spawn(move || run(&own, &stopped))?;
        Ok(Self { ran, _stop: stop })
    }

    /// Time in which the process ran since the start.
    pub(crate) fn now(&self) -> Duration {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner).read(Instant::now())
    }
}

fn run(ran: &Mutex<RunningTime>, stopped: &Receiver<()>) {
    while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        ran.lock().unwrap_or_else(PoisonError::into_inner).look(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_by_itself() {
        let clock = Clock::start().unwrap();
        let began = Instant::now();
        while clock.now() < 2 * LONGEST {
            assert!(began.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(began.elapsed() + Duration::from_millis(1) >= clock.now());
    }
}
