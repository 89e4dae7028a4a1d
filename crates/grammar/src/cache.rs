//! Grammars of structures that came before: agents send the same tools with every turn.

use std::collections::VecDeque;

/// Bytes of grammars at most, as estimated.
const MAX_BYTES: usize = 32 << 20;
/// Bytes of a grammar's rules for each of its structure, by measurement.
const RULES: usize = 100;
/// Structures at most: small ones have a grammar of some size too.
const MAX_ENTRIES: usize = 64;

/// Values by the text of their structure, least recently used first.
pub(crate) struct Cache<T> {
    entries: VecDeque<Entry<T>>,
    bytes: usize,
}

struct Entry<T> {
    key: String,
    value: T,
    bytes: usize,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0 }
    }
}

impl<T: Clone> Cache<T> {
    pub(crate) fn get(&mut self, key: &str) -> Option<T> {
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        let entry = self.entries.remove(at)?;
        let value = entry.value.clone();
        self.entries.push_back(entry);
        Some(value)
    }

    /// Keeps a value that takes so many bytes beside its rules, unless it alone is too large.
    pub(crate) fn insert(&mut self, key: String, value: T, bytes: usize) {
        let bytes = bytes + RULES * key.len();
        if bytes > MAX_BYTES || self.get(&key).is_some() {
            return;
        }
        self.bytes += bytes;
        self.entries.push_back(Entry { key, value, bytes });
        while self.bytes > MAX_BYTES || self.entries.len() > MAX_ENTRIES {
            self.bytes -= self.entries.pop_front().map_or(0, |entry| entry.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_make_room() {
        let mut cache = Cache::default();
        (0..MAX_ENTRIES).for_each(|i| cache.insert(i.to_string(), i, 1));
        assert_eq!(cache.get("0"), Some(0));
        cache.insert("more".into(), 99, 1);
        assert_eq!((cache.get("0"), cache.get("1"), cache.get("more")), (Some(0), None, Some(99)));
    }

    #[test]
    fn values_weigh_what_they_take_however_short_their_keys() {
        let mut cache = Cache::default();
        let half = MAX_BYTES / 2 - RULES;
        (0..9).for_each(|i| cache.insert(i.to_string(), i, half));
        assert_eq!((cache.entries.len(), cache.get("7"), cache.get("8")), (2, Some(7), Some(8)));
        assert_eq!(cache.bytes, MAX_BYTES);
        cache.insert("c".into(), 9, MAX_BYTES);
        cache.insert("d".repeat(MAX_BYTES / RULES + 1), 9, 1);
        assert_eq!((cache.entries.len(), cache.bytes), (2, MAX_BYTES), "too large alone");
    }
}
