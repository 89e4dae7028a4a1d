//! The connections that are open; idle ones are closed when there are too many.

use super::activity::{Activity, Close};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Connections beyond the bound that get as far as a probe, when none of the others is idle.
const EXTRA: usize = 16;

/// All open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    bound: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    open: HashMap<u64, Open>,
    /// Those of them that are beyond the bound.
    extras: usize,
    next: u64,
}

#[derive(Debug)]
struct Open {
    activity: Arc<Activity>,
    extra: bool,
}

/// A connection's place in the table; released when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    /// Its number among all connections so far.
    pub id: u64,
    pub activity: Arc<Activity>,
    /// All others are busy: this one is beyond the bound, and may only probe.
    pub extra: bool,
}

impl Connections {
    pub(crate) fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self { bound: bound.max(1), inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection. At the bound the one that is idle longest is asked to close; `None` if there is no room at all.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Place> {
        let inner = &mut *self.inner();
        let room = inner.open.len() - inner.extras < self.bound;
        let extra = !room && !inner.evict(|open| !open.extra);
        // Those that were asked to close are still there for a moment.
        if inner.open.len() >= self.bound + EXTRA {
            inner.evict(|open| open.extra);
            return None;
        }
        let (id, activity) = (inner.next, Activity::new());
        inner.next += 1;
        inner.extras += usize::from(extra);
        inner.open.insert(id, Open { activity: activity.clone(), extra });
        Some(Place { connections: self.clone(), id, activity, extra })
    }

    /// Asks the connection that is idle longest to close; false if none is.
    pub(crate) fn evict(&self) -> bool {
        self.inner().evict(|_| true)
    }

    /// Asks all to close.
    pub(crate) fn close_all(&self) {
        self.inner().open.values().for_each(|open| open.activity.close(Close::End));
    }
}

impl Inner {
    /// Asks the longest idle of these connections to close, of several the one that came first; false if none is idle.
    fn evict(&self, among: fn(&Open) -> bool) -> bool {
        // All are compared by the instants since which they are idle: how long that is depends on when each is asked.
        let now = Instant::now();
        let among = self.open.iter().filter(|(_, open)| among(open));
        let idle = among.filter_map(|(id, open)| Some(((open.activity.idle_since(now)?, *id), open)));
        idle.min_by_key(|(age, _)| *age).inspect(|(_, open)| open.activity.close(Close::Room)).is_some()
    }
}

impl Place {
    /// Leaves the place to others: from here on this connection is beyond the bound.
    pub(crate) fn leave(&mut self) {
        if !std::mem::replace(&mut self.extra, true) {
            let mut inner = self.connections.inner();
            inner.extras += 1;
            if let Some(open) = inner.open.get_mut(&self.id) {
                open.extra = true;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.activity.ended();
        tracing::trace!(connection = self.id, "closed");
        let mut inner = self.connections.inner();
        inner.extras -= usize::from(self.extra);
        inner.open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Version;

    #[tokio::test]
    async fn the_longest_idle_makes_room_and_busy_ones_never_do() {
        let connections = Connections::new(2);
        let busy = connections.enter().unwrap();
        busy.activity.begin(Version::HTTP_11, false).await;
        let idle = connections.enter().unwrap();
        let newer = connections.enter().unwrap();
        assert!(!newer.extra);
        tokio::time::timeout(std::time::Duration::from_secs(60), idle.activity.closed()).await.expect("it makes room");
        drop(idle);
        newer.activity.begin(Version::HTTP_11, false).await;
        let probe = connections.enter().unwrap();
        assert!(probe.extra, "nobody is idle");
        let more: Vec<_> = std::iter::from_fn(|| connections.enter()).collect();
        assert_eq!(more.len(), EXTRA + 2 - 3);
        assert!(more.iter().all(|place| place.extra), "idle as they are, they make no room for requests");
        tokio::time::timeout(std::time::Duration::from_secs(60), probe.activity.closed())
            .await
            .expect("for other probes");
        drop(busy);
        drop(probe);
        assert!(!connections.enter().unwrap().extra, "room for a request, whatever the probes");
        drop((newer, more));
        let mut last = [connections.enter().unwrap(), connections.enter().unwrap()];
        last.iter_mut().for_each(Place::leave);
        assert!(!connections.enter().unwrap().extra, "both have left their places");
        drop(last);
        assert!(connections.inner().open.is_empty() && connections.inner().extras == 0);
    }
}
