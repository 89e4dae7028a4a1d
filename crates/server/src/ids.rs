//! Ids of what this server makes: requests, answers, calls.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// An id that begins like this and is no other object's, of this process or, but for a clock that is set back, an earlier one.
pub(crate) fn unique(beginning: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    format!("{beginning}{since:x}{:04x}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// 32 digits that nobody can guess, for the id of what only those may ask for who were told it.
pub(crate) fn secret() -> String {
    // Keys of these hashers are random, and differ from one to the next.
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ() {
        let secrets: Vec<String> = (0..100).map(|_| secret()).collect();
        assert!(secrets.iter().enumerate().all(|(i, secret)| secret.len() == 32 && !secrets[..i].contains(secret)));
    }
}
