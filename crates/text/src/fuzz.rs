//! Entry points for fuzzing: bytes that come from elsewhere. Whatever they are, these return.

use crate::{ChatInput, ChatTemplate};
use serde_json::Value;

/// A template and, behind a zero byte, the JSON list of messages to render it with.
pub fn chat_template(data: &[u8]) {
    let (source, messages) = match data.iter().position(|&byte| byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    let messages: Vec<Value> = serde_json::from_slice(messages).unwrap_or_default();
    let special = [("bos_token", "<s>".to_owned()), ("eos_token", "</s>".to_owned())];
    if let Ok(template) = ChatTemplate::new(&String::from_utf8_lossy(source), &special) {
        // A refusal is as good as a prompt here: neither may panic, hang or eat memory.
        let _ = template.render(&ChatInput { tools: Some(&messages), ..ChatInput::new(&messages) });
    }
}
