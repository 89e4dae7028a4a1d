use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Interval at which the clock advances.
const TICK: Duration = Duration::from_millis(250);
/// The most that counts of the time since it was last wound.
const LONGEST: Duration = Duration::from_millis(500);

/// A clock of the time in which this process ran. One that was stopped and goes on must not take its own absence for a step that
/// hangs, so a thread winds the clock, and what passes unwound hardly counts.
#[derive(Debug)]
pub(crate) struct Clock {
    wound: Arc<Mutex<Wound>>,
    /// Dropping it ends the thread.
    _stop: Sender<()>,
}

/// Time counted, and until when.
#[derive(Debug)]
struct Wound {
    counted: Duration,
    at: Instant,
}

impl Wound {
    fn read(&self, now: Instant) -> Duration {
        self.counted + now.saturating_duration_since(self.at).min(LONGEST)
    }

    fn wind(&mut self, now: Instant) {
        *self = Self { counted: self.read(now), at: now };
    }
}

impl Clock {
    /// A clock at zero.
    pub(crate) fn start() -> std::io::Result<Self> {
        let wound = Arc::new(Mutex::new(Wound { counted: Duration::ZERO, at: Instant::now() }));
        let (stop, stopped) = channel();
        let own = wound.clone();
        std::thread::Builder::new().name("engine-clock".into()).spawn(move || keep_wound(&own, &stopped))?;
        Ok(Self { wound, _stop: stop })
    }

    /// Time in which the process ran since the start.
    pub(crate) fn now(&self) -> Duration {
        self.wound.lock().unwrap_or_else(PoisonError::into_inner).read(Instant::now())
    }
}

fn keep_wound(wound: &Mutex<Wound>, stopped: &Receiver<()>) {
    while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        wound.lock().unwrap_or_else(PoisonError::into_inner).wind(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_unwound_hardly_counts() {
        let begin = Instant::now();
        let mut wound = Wound { counted: Duration::ZERO, at: begin };
        for tick in 1..=8 {
            wound.wind(begin + tick * TICK);
        }
        assert_eq!(wound.read(begin + 9 * TICK), 9 * TICK);
        let after_an_hour = begin + Duration::from_secs(3600);
        assert_eq!(wound.read(after_an_hour), 8 * TICK + LONGEST);
        wound.wind(after_an_hour);
        assert_eq!(wound.read(after_an_hour + TICK), 9 * TICK + LONGEST);
    }

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
