//! Grammars of structures that came before: agents send the same tools with every turn.

use std::collections::VecDeque;

/// Bytes of structures at most. A compiled grammar takes some hundred times as much as its structure, by measurement.
const MAX_BYTES: usize = 256 << 10;
/// Structures at most: small ones have a grammar of some size too.
const MAX_ENTRIES: usize = 64;

/// Values by the text of their structure, least recently used first.
pub(crate) struct Cache<T> {
    entries: VecDeque<(String, T)>,
    bytes: usize,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0 }
    }
}

impl<T: Clone> Cache<T> {
    pub(crate) fn get(&mut self, key: &str) -> Option<T> {
        let at = self.entries.iter().position(|(known, _)| known == key)?;
        let entry = self.entries.remove(at)?;
        let grammar = entry.1.clone();
        self.entries.push_back(entry);
        Some(grammar)
    }

    pub(crate) fn insert(&mut self, key: String, grammar: T) {
        if key.len() > MAX_BYTES || self.get(&key).is_some() {
            return;
        }
        self.bytes += key.len();
        self.entries.push_back((key, grammar));
        while self.bytes > MAX_BYTES || self.entries.len() > MAX_ENTRIES {
            self.bytes -= self.entries.pop_front().map_or(0, |(key, _)| key.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_make_room() {
        let mut cache = Cache::default();
        (0..MAX_ENTRIES).for_each(|i| cache.insert(i.to_string(), i));
        assert_eq!(cache.get("0"), Some(0));
        cache.insert("more".into(), 99);
        assert_eq!((cache.get("0"), cache.get("1"), cache.get("more")), (Some(0), None, Some(99)));
        let large = |c: &str| c.repeat(MAX_BYTES / 2);
        cache.insert(large("a"), 100);
        cache.insert(large("b"), 101);
        assert_eq!((cache.get("more"), cache.get(&large("a")), cache.get(&large("b"))), (None, Some(100), Some(101)));
        cache.insert("c".repeat(MAX_BYTES + 1), 102);
        assert_eq!((cache.entries.len(), cache.bytes), (2, MAX_BYTES));
    }
}
