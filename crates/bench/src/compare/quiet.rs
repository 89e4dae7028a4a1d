//! Quietness of the machine: CPU time that other programs took.

use super::number::brief;

/// Others' share of the cores' time above which a machine is not quiet.
const QUIET: f64 = 0.05;

/// CPU time so far, in ticks of the system's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTime {
    /// Of all cores, busy and idle.
    all: u64,
    /// Of all cores, busy; time that a hypervisor gave to others is theirs, so it counts.
    busy: u64,
    /// Of this process.
    own: u64,
}

/// Share of the cores' time that other programs took; `None` where the system does not tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Others(pub Option<f64>);

impl CpuTime {
    /// The times now; `None` where the system does not tell.
    pub(super) fn now() -> Option<Self> {
        let read = |path| std::fs::read_to_string(path).ok();
        Self::parse(&read("/proc/stat")?, &read("/proc/self/stat")?)
    }

    /// The times from the text of `/proc/stat` and of `/proc/self/stat`.
    fn parse(machine: &str, process: &str) -> Option<Self> {
        let cores = machine.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user, nice, system, idle, iowait, irq, softirq, steal; guests' time, which follows, is within user's.
        let times = cores.split_whitespace().take(8).map(|n| n.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let [_, _, _, idle, iowait, ..] = times[..] else { return None };
        let all = times.iter().sum::<u64>();
        // The program's name, in parentheses, may have spaces and parentheses of its own.
        let after_name = process.rsplit_once(')')?.1;
        // Fields 14 and 15 of the whole line are the time in user and in system mode.
        let mut own = after_name.split_whitespace().skip(11).map(|n| n.parse::<u64>().ok());
        let own = own.next()?? + own.next()??;
        Some(Self { all, busy: all - idle - iowait, own })
    }

    /// Share that other programs took from `self` to `later`.
    fn others(self, later: Self) -> Option<f64> {
        let all = later.all.checked_sub(self.all).filter(|all| *all > 0)?;
        let (busy, own) = (later.busy.checked_sub(self.busy)?, later.own.checked_sub(self.own)?);
        Some(busy.saturating_sub(own) as f64 / all as f64)
    }
}

impl Others {
    /// The share since `from`.
    pub(super) fn since(from: Option<CpuTime>) -> Self {
        Self(from.zip(CpuTime::now()).and_then(|(from, now)| from.others(now)))
    }

    /// False if others took so much time that the figures may be theirs; `None` where that is not known.
    pub(super) fn quiet(self) -> Option<bool> {
        self.0.map(|share| share <= QUIET)
    }

    /// A sentence about it, without a period.
    pub(super) fn sentence(self) -> String {
        let Some(share) = self.0 else {
            return "how much CPU time other programs took is not known on this system".into();
        };
        let percent = brief((100.0 * share).round());
        match self.quiet() {
            Some(false) => format!("the machine was not quiet: other programs took {percent} % of its cores' time"),
            _ => format!("the machine was quiet: other programs took {percent} % of its cores' time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLIER: &str = "cpu  1000 10 200 5000 50 5 5 30 40 0\ncpu0 500 5 100 2500 25 2 2 15 20 0\nintr 9\n";
    const LATER: &str = "cpu  1700 10 300 5100 50 5 5 130 40 0\n";
    const SELF: &str = "77 (a (b) c) R 1 2 3 4 5 6 7 8 9 10 600 20 0 0 20 0 9 0 1 2 3\n";
    const SELF_LATER: &str = "77 (a (b) c) R 1 2 3 4 5 6 7 8 9 10 1100 70 0 0 20 0 9 0 1 2 3\n";

    #[test]
    fn what_others_took_is_what_was_busy_without_this_process() {
        let (earlier, later) = (CpuTime::parse(EARLIER, SELF).unwrap(), CpuTime::parse(LATER, SELF_LATER).unwrap());
        assert_eq!(earlier, CpuTime { all: 6300, busy: 1250, own: 620 });
        // 1000 ticks passed, 900 busy, 550 of them of this process.
        assert_eq!(earlier.others(later), Some(0.35));
        let told = Others(Some(0.35));
        assert_eq!(told.quiet(), Some(false));
        assert_eq!(told.sentence(), "the machine was not quiet: other programs took 35 % of its cores' time");
        assert_eq!(Others(Some(0.012)).sentence(), "the machine was quiet: other programs took 1 % of its cores' time");
        assert_eq!((Others(None).quiet(), Others(None).sentence().contains("not known")), (None, true));
    }

    #[test]
    fn what_cannot_be_read_is_not_known() {
        for (machine, process) in
            [("", SELF), ("cpu  1 2 3\n", SELF), ("cpu  1 2 x 4 5 6 7 8\n", SELF), (EARLIER, "77 (a) R 1")]
        {
            assert_eq!(CpuTime::parse(machine, process), None, "{machine:?} {process:?}");
        }
        let now = CpuTime::parse(EARLIER, SELF).unwrap();
        assert_eq!(now.others(now), None, "no time has passed");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_it() {
        assert!(CpuTime::now().is_some());
    }
}
