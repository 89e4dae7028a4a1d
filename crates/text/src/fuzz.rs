//! Entry points for fuzzing: bytes that come from elsewhere. Whatever they are, these return.

use crate::output::{CallFormat, Formats, OutputFormat, ReasoningFormat, Segment, ToolSchema, divide};
use crate::{ChatInput, ChatTemplate};
use serde_json::{Value, json};

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

/// Markup of an answer, in the formats that the first byte says; special tokens stand between bytes 1 and 2. Where the text is cut does not
/// matter, and arguments of a call that is not left unfinished are a JSON object.
pub fn answer_markup(data: &[u8]) {
    let Some((&which, text)) = data.split_first() else { return };
    let (calls, reasoning) = (CallFormat::NAMES, ReasoningFormat::NAMES);
    let formats = Formats {
        calls: Some(calls[usize::from(which) % calls.len()].1),
        reasoning: Some(reasoning[usize::from(which) / calls.len() % reasoning.len()].1),
    };
    let parameters = json!({ "properties": { "a": { "type": "string" }, "b": { "type": ["string", "null"] }, "c": { "type": "object" } } });
    let format = OutputFormat::new(formats, vec![ToolSchema { name: "f".into(), parameters }], "");
    let text = String::from_utf8_lossy(text);
    let (mut whole, mut cut) = (Vec::new(), Vec::new());
    for (index, part) in text.split(['\u{1}', '\u{2}']).enumerate() {
        let hidden = index % 2 == 1;
        whole.push((part.to_owned(), hidden));
        match hidden {
            true => cut.push((part.to_owned(), true)),
            false => cut.extend(part.chars().map(|c| (c.to_string(), false))),
        }
    }
    let segments = divide(&format, &whole);
    assert_eq!(divide(&format, &cut), segments);
    for pair in segments.windows(2) {
        if let [Segment::Arguments(json), next] = pair {
            let object = serde_json::from_str::<Value>(json).is_ok_and(|value| value.is_object());
            assert!(object || matches!(next, Segment::Unfinished(_)), "{json}");
        }
    }
}
