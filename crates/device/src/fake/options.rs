use std::time::Duration;

/// Options of a [`super::FakeDevice`].
#[derive(Debug, Clone, Copy)]
pub struct FakeOptions {
    /// True if host and device share memory; on a discrete device the host does not reach [`Storage::Private`].
    pub unified_memory: bool,
    /// Bytes that may be allocated at a time.
    pub memory_budget: u64,
    /// Bytes of the longest buffer that an op may refer to.
    pub max_buffer_len: u64,
    /// True if ops compute. Otherwise they are checked and cost their latency only; copies still copy, and sampling writes
    /// [`super::scripted_token`].
    pub compute: bool,
    /// Latencies to begin with.
    pub latency: Latency,
}

impl Default for FakeOptions {
    /// Unified, 4 GiB, computing, as fast as it can.
    fn default() -> Self {
        Self {
            unified_memory: true,
            memory_budget: 4 << 30,
            max_buffer_len: 4 << 30,
            compute: true,
            latency: Latency::default(),
        }
    }
}

/// Time that things take beyond the work itself. All zero by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// The host, for recording an op.
    pub record: Duration,
    /// The host, for finishing a command buffer.
    pub finish: Duration,
    /// The device, for a command buffer with any op but [`crate::Op::Copy`], once.
    pub execute: Duration,
    /// The device, for every op but [`crate::Op::Copy`].
    pub op: Duration,
    /// Bytes that either queue copies in a second; as fast as memory without a number.
    pub copy_bytes_per_second: Option<u64>,
}

/// Selection of the coming events that a fault strikes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fault {
    /// Events that it lets pass first.
    skip: u64,
    /// Events that it strikes after that.
    strikes: u64,
}

impl Fault {
    /// Strikes no event.
    pub const NEVER: Fault = Fault { skip: 0, strikes: 0 };
    /// Strikes every event from now on.
    pub const ALWAYS: Fault = Fault { skip: 0, strikes: u64::MAX };

    /// Strikes the next `count` events.
    pub fn next(count: u64) -> Self {
        Self { skip: 0, strikes: count }
    }

    /// Strikes only the `n`-th event from now, counted from 1.
    pub fn nth(n: u64) -> Self {
        Self { skip: n.saturating_sub(1), strikes: 1 }
    }

    /// Counts an event; whether it is struck.
    pub(super) fn strikes(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let strikes = self.strikes > 0;
        if strikes && self.strikes != u64::MAX {
            self.strikes -= 1;
        }
        strikes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_strike_whom_they_name() {
        let struck = |mut fault: Fault| (1..=5).filter(|_| fault.strikes()).count();
        assert_eq!((struck(Fault::NEVER), struck(Fault::ALWAYS), struck(Fault::next(2))), (0, 5, 2));
        let mut third = Fault::nth(3);
        assert_eq!((1..=5).filter(|_| third.strikes()).collect::<Vec<_>>(), [3]);
    }
}
