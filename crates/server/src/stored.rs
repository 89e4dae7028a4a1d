//! Responses that are kept, so that a later request can go on where one ended. Bounded in number and bytes; the oldest is forgotten first.

use crate::error::ApiError;
use mlx_serving_runtime::Message;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that an entry takes beside its texts, and a message, rounded up.
const ENTRY: usize = 512;
/// Bytes that a value of JSON takes beside its text, rounded up.
const VALUE: usize = 100;

/// The responses.
#[derive(Debug)]
pub(crate) struct Store {
    limits: Limits,
    kept: Mutex<Kept>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    entries: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<String, (u64, Arc<Stored>)>,
    /// Ids in the order in which they came.
    order: BTreeMap<u64, String>,
    next: u64,
    bytes: usize,
}

/// A response and what was said before it.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The response as it was sent: JSON.
    pub json: String,
    /// The conversation that it answers, without instructions.
    pub conversation: Vec<Message>,
}

impl Store {
    /// A store for so many responses, of so many bytes in all; it keeps none if either is 0.
    pub(crate) fn new(entries: usize, bytes: usize) -> Self {
        Self { limits: Limits { entries, bytes }, kept: Mutex::default() }
    }

    /// Responses are kept.
    pub(crate) fn is_on(&self) -> bool {
        self.limits.entries > 0
    }

    /// Keeps a response, and forgets the oldest ones until all fit.
    pub(crate) fn keep(&self, id: &str, json: String, conversation: Vec<Message>) {
        let stored = Arc::new(Stored { json, conversation });
        let mut kept = self.kept();
        kept.bytes += stored.bytes();
        let number = kept.next;
        kept.next += 1;
        kept.order.insert(number, id.to_owned());
        kept.by_id.insert(id.to_owned(), (number, stored));
        while kept.by_id.len() > self.limits.entries || kept.bytes > self.limits.bytes {
            let Some((_, oldest)) = kept.order.pop_first() else { break };
            kept.remove(&oldest);
        }
    }

    /// The response of that id.
    ///
    /// # Errors
    /// 404 if it is not there, or not any more.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<Stored>, ApiError> {
        let found = self.kept().by_id.get(id).map(|(_, stored)| stored.clone());
        found.ok_or_else(|| ApiError::unknown_response(id, self.is_on()))
    }

    /// Forgets a response.
    ///
    /// # Errors
    /// 404 if it is not there, or not any more.
    pub(crate) fn forget(&self, id: &str) -> Result<(), ApiError> {
        if self.kept().remove(id) { Ok(()) } else { Err(ApiError::unknown_response(id, self.is_on())) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, id: &str) -> bool {
        let Some((number, stored)) = self.by_id.remove(id) else { return false };
        self.order.remove(&number);
        self.bytes -= stored.bytes();
        true
    }
}

impl Stored {
    fn bytes(&self) -> usize {
        ENTRY + self.json.len() + self.conversation.iter().map(weight).sum::<usize>()
    }
}

/// Bytes that a message takes.
fn weight(message: &Message) -> usize {
    let Message { content, name, reasoning, calls, call_id, .. } = message;
    let texts = [name, reasoning, call_id].into_iter().flatten().map(String::len).sum::<usize>();
    let calls: usize = calls.iter().map(|call| call.id.len() + call.name.len() + of_value(&call.arguments)).sum();
    ENTRY + content.len() + texts + calls
}

fn of_value(value: &Value) -> usize {
    VALUE
        + match value {
            Value::String(text) => text.len(),
            Value::Array(list) => list.iter().map(of_value).sum(),
            Value::Object(object) => object.iter().map(|(key, value)| key.len() + of_value(value)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_serving_runtime::Role;
    use proptest::prelude::*;

    fn kept(store: &Store, ids: &[&str]) -> Vec<bool> {
        ids.iter().map(|id| store.find(id).is_ok()).collect()
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let store = Store::new(2, 1 << 20);
        for id in ["a", "b", "c"] {
            store.keep(id, "{}".into(), vec![]);
        }
        assert_eq!(kept(&store, &["a", "b", "c"]), [false, true, true]);
        assert!(store.forget("b").is_ok() && store.forget("b").is_err());
        store.keep("d", "{}".into(), vec![]);
        assert_eq!(kept(&store, &["c", "d"]), [true, true]);
        let store = Store::new(10, 3 * ENTRY);
        store.keep("a", "x".repeat(ENTRY), vec![]);
        store.keep("b", "x".into(), vec![]);
        assert_eq!(kept(&store, &["a", "b"]), [false, true], "bytes count too");
        store.keep("c", String::new(), vec![Message::new(Role::User, "x".repeat(3 * ENTRY))]);
        assert_eq!((kept(&store, &["b", "c"]), store.kept().bytes), (vec![false, false], 0), "one that never fits");
        let off = Store::new(0, 1 << 20);
        off.keep("a", "{}".into(), vec![]);
        assert!(!off.is_on() && off.find("a").is_err());
    }

    proptest! {
        #[test]
        fn bytes_are_those_of_what_is_kept(sizes in prop::collection::vec(0..4000usize, 0..40), forgotten in 0..40usize) {
            let store = Store::new(8, 12_000);
            for (i, size) in sizes.iter().enumerate() {
                store.keep(&i.to_string(), "x".repeat(*size), vec![]);
                let _ = store.forget(&(i * forgotten / 40).to_string());
                let kept = store.kept();
                let bytes: usize = kept.by_id.values().map(|(_, stored)| stored.bytes()).sum();
                prop_assert!(kept.bytes == bytes && bytes <= 12_000 && kept.by_id.len() <= 8);
                prop_assert_eq!(kept.order.len(), kept.by_id.len());
            }
        }
    }
}
