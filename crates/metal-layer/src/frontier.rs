use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use mlx_serving_device::{Point, Timeline};
use std::sync::{Arc, PoisonError};

/// A timeline with the highest value handed out on it.
#[derive(Debug, Clone)]
pub struct Track {
    timeline: Arc<dyn Timeline>,
    issued: Arc<AtomicU64>,
}

impl Track {
    /// The next point to signal; everything submitted from now on comes before it.
    pub fn issue(&self) -> Point {
        let value = self.issued.fetch_add(1, Ordering::AcqRel) + 1;
        Point { timeline: self.timeline.clone(), value }
    }

    /// The highest point handed out.
    pub fn latest(&self) -> Point {
        Point { timeline: self.timeline.clone(), value: self.issued.load(Ordering::Acquire) }
    }
}

/// The submissions so far, on every timeline. A range of memory that is released now may be used by any of it, so it is
/// reused only once all of it has completed.
#[derive(Debug, Clone, Default)]
pub struct Frontier {
    tracks: Arc<Mutex<Vec<Track>>>,
}

impl Frontier {
    /// Adds a timeline that submissions signal.
    pub fn track(&self, timeline: Arc<dyn Timeline>) -> Track {
        let track = Track { issued: Arc::new(AtomicU64::new(timeline.value())), timeline };
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner).push(track.clone());
        track
    }

    /// The points that everything submitted so far will reach, without those reached already.
    pub fn pending(&self) -> Vec<Point> {
        let tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        tracks.iter().map(Track::latest).filter(|p| !p.reached()).collect()
    }
}
