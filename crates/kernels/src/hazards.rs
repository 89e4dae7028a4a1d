//! Launches that may not run beside each other, between which a backend puts barriers.

use crate::Access;
use std::ops::Range;

/// Use of a range of bytes by one command.
#[derive(Debug, Clone)]
pub struct Use {
    /// Address of the memory's object, which tells it from others.
    pub memory: usize,
    /// Bytes of that memory.
    pub range: Range<u64>,
    /// Access of the command to them.
    pub access: Access,
}

impl Use {
    fn conflicts(&self, other: &Use) -> bool {
        (self.access == Access::Write || other.access == Access::Write)
            && self.memory == other.memory
            && self.range.start < other.range.end
            && other.range.start < self.range.end
    }
}

/// Uses since the last barrier: commands whose uses conflict may not run beside each other.
#[derive(Debug, Default)]
pub struct Hazards {
    since: Vec<Use>,
}

impl Hazards {
    /// Notes a command's uses. True if a barrier must come before it, which then counts as put.
    pub fn admit(&mut self, uses: impl Iterator<Item = Use> + Clone) -> bool {
        let barrier = uses.clone().any(|new| self.since.iter().any(|old| old.conflicts(&new)));
        if barrier {
            self.since.clear();
        }
        self.since.extend(uses);
        barrier
    }

    /// Forgets everything: a new encoder has begun, which waits for the one before.
    pub fn clear(&mut self) {
        self.since.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Access::{Read, Write};

    fn used(memory: usize, range: Range<u64>, access: Access) -> Use {
        Use { memory, range, access }
    }

    #[test]
    fn only_conflicts_need_a_barrier() {
        let mut hazards = Hazards::default();
        let mut admit = |uses: &[Use]| hazards.admit(uses.iter().cloned());
        assert!(!admit(&[used(1, 0..8, Read), used(2, 0..8, Write)]));
        assert!(!admit(&[used(1, 0..8, Read), used(2, 8..16, Write)]), "reads, and writes side by side");
        assert!(!admit(&[used(3, 0..8, Write)]), "other memory");
        assert!(admit(&[used(2, 7..9, Read)]), "reads what was written");
        assert!(admit(&[used(2, 0..8, Write)]), "overwrites what is being read");
        assert!(admit(&[used(2, 4..8, Write)]), "writes twice");
        assert!(!admit(&[used(1, 0..8, Write)]), "the barriers have ordered what came before them");
    }
}
