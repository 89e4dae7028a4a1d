//! Entry points for fuzzing. Not part of the API.

use crate::{ChatInput, ChatTemplate};

/// Renders a template that touches every part of a message with messages from untrusted JSON.
pub fn fuzz_chat_template(_data: &[u8]) {
    let _ = ChatTemplate::new("", &[]).map(|template| template.render(&ChatInput::new(&[])).is_ok());
}
