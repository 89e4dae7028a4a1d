//! Which bytes have been read and written since the last barrier, so that a barrier is recorded only where one is needed.

use ash::vk;

/// Bytes that a launch or a copy touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Touch {
    pub(crate) buffer: vk::Buffer,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) writes: bool,
}

impl Touch {
    fn conflicts(&self, other: &Touch) -> bool {
        self.buffer == other.buffer && (self.writes || other.writes) && self.start < other.end && other.start < self.end
    }
}

/// What was touched since the last barrier.
#[derive(Debug, Default)]
pub(crate) struct Hazards(Vec<Touch>);

impl Hazards {
    /// Notes the touches of the next launch; true if a barrier must come before it, which clears what was noted before.
    pub(crate) fn next(&mut self, touches: &[Touch]) -> bool {
        let barrier = touches.iter().any(|touch| self.0.iter().any(|before| before.conflicts(touch)));
        if barrier {
            self.0.clear();
        }
        self.0.extend_from_slice(touches);
        barrier
    }

    /// A barrier was recorded for other reasons.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ash::vk::Handle;

    fn touch(buffer: u64, start: u64, end: u64, writes: bool) -> Touch {
        Touch { buffer: vk::Buffer::from_raw(buffer), start, end, writes }
    }

    #[test]
    fn only_overlaps_with_a_write_need_a_barrier() {
        let mut hazards = Hazards::default();
        assert!(!hazards.next(&[touch(1, 0, 8, false), touch(2, 0, 8, true)]));
        assert!(!hazards.next(&[touch(1, 0, 8, false), touch(2, 8, 16, true)]), "reads share, writes are apart");
        assert!(hazards.next(&[touch(1, 4, 6, true)]), "write after read");
        assert!(!hazards.next(&[touch(2, 0, 16, false)]), "the barrier covers what was before it");
        assert!(hazards.next(&[touch(1, 5, 9, false)]), "read after write");
        assert!(!hazards.next(&[touch(3, 0, 4, true)]));
        assert!(hazards.next(&[touch(3, 3, 4, true)]), "write after write");
        hazards.clear();
        assert!(!hazards.next(&[touch(3, 0, 4, true)]));
    }
}
