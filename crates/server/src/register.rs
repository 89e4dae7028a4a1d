//! The connections that are open, and who makes room when there are too many.

use crate::conn::Conn;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections beyond the bound that get as far as a probe, when none of the others is idle.
const EXTRA: usize = 16;

/// All open connections.
#[derive(Debug)]
pub(crate) struct Register {
    bound: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    open: HashMap<u64, Arc<Conn>>,
    next: u64,
}

/// A connection's place in the register; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    register: Arc<Register>,
    id: u64,
    pub conn: Arc<Conn>,
    /// All others are busy: this one may only probe.
    pub probes_only: bool,
    /// Another was told to end for it.
    pub at_a_cost: bool,
}

impl Register {
    pub(crate) fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self { bound: bound.max(1), inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection. At the bound the one that is idle longest is told to end; `None` if there is no room at all.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut inner = self.inner();
        let room = inner.open.len() < self.bound;
        let evicted = !room && evict(&inner);
        // Those that were told to end are still there for a moment.
        if inner.open.len() >= self.bound + EXTRA {
            return None;
        }
        let (id, conn) = (inner.next, Conn::new());
        inner.next += 1;
        inner.open.insert(id, conn.clone());
        Some(Place { register: self.clone(), id, conn, probes_only: !room && !evicted, at_a_cost: evicted })
    }

    /// Tells the connection that is idle longest to end; false if none is.
    pub(crate) fn evict(&self) -> bool {
        evict(&self.inner())
    }

    /// Tells all to end.
    pub(crate) fn close_all(&self) {
        self.inner().open.values().for_each(|conn| conn.close());
    }
}

fn evict(inner: &Inner) -> bool {
    let longest = inner.open.values().filter_map(|conn| Some((conn.idle()?, conn))).max_by_key(|(idle, _)| *idle);
    longest.inspect(|(_, conn)| conn.close()).is_some()
}

impl Drop for Place {
    fn drop(&mut self) {
        self.conn.ended();
        self.register.inner().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Version;

    #[tokio::test]
    async fn the_longest_idle_makes_room_and_busy_ones_never_do() {
        let register = Register::new(2);
        let busy = register.enter().unwrap();
        busy.conn.begin(Version::HTTP_11, false).await;
        let idle = register.enter().unwrap();
        let newer = register.enter().unwrap();
        assert!(!newer.probes_only);
        tokio::time::timeout(std::time::Duration::from_secs(5), idle.conn.closed()).await.expect("it makes room");
        drop(idle);
        newer.conn.begin(Version::HTTP_11, false).await;
        let probe = register.enter().unwrap();
        assert!(probe.probes_only, "nobody is idle");
        // It is idle itself, and makes room for the next.
        let more: Vec<_> = std::iter::from_fn(|| register.enter()).collect();
        assert_eq!(more.len(), EXTRA + 2 - 3);
        drop((busy, newer, probe, more));
        assert!(register.inner().open.is_empty());
    }
}
