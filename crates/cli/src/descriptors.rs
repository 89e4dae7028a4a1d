//! Number of files and sockets that this process may have open.

/// Descriptors that are left for files, listeners and threads.
const RESERVE: usize = 64;

/// Raises the soft limit to the hard one, and says how many connections fit below it, of those that are wanted.
pub(crate) fn connections(wanted: usize) -> usize {
    let limit = raise();
    let fit = fit(limit);
    if fit < wanted {
        tracing::warn!(
            limit,
            connections = fit,
            wanted,
            "the limit on open files allows fewer connections than server.limits.connections; raise it with ulimit -n"
        );
    }
    fit.min(wanted)
}

fn fit(limit: usize) -> usize {
    limit.saturating_sub(RESERVE).max(limit / 4).max(1)
}

#[cfg(unix)]
fn raise() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// The number that macOS takes where it says that there is no limit.
    const LEAST: u64 = 10_240;
    let limit = getrlimit(Resource::Nofile);
    for current in [limit.maximum, Some(LEAST)] {
        let raised = Rlimit { current, maximum: limit.maximum };
        if current > limit.current && setrlimit(Resource::Nofile, raised).is_ok() {
            break;
        }
    }
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

#[cfg(not(unix))]
fn raise() -> usize {
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_files() {
        for (limit, expected) in [(usize::MAX, usize::MAX - RESERVE), (1024, 960), (100, 36), (64, 16), (16, 4), (0, 1)]
        {
            assert_eq!(fit(limit), expected, "{limit}");
        }
    }
}
