//! Entry points for fuzzing: bytes that come from elsewhere. Whatever they are, these return.

use crate::lark;
use crate::schema;

/// A schema, or else a grammar in the notation of Lark, before llguidance reads it.
pub fn structure(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // A refusal is as good as a schema here: neither may panic, hang or eat memory.
    match serde_json::from_str(&text) {
        Ok(value) => drop(schema::supported(&value).map(|schema| schema::supported(&schema))),
        Err(_) => drop(lark::supported(&text)),
    }
}

/// A structure and, behind a zero byte, the text of an answer: compiled, and followed as far as it goes.
pub fn answer(compiler: &crate::Compiler, tokenizer: &mlx_serving_text::Tokenizer, data: &[u8]) {
    let (structure, text) = match data.iter().position(|&byte| byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    let source = String::from_utf8_lossy(structure);
    let structure = match serde_json::from_str(&source) {
        Ok(schema) => crate::Structure::Schema(schema),
        Err(_) => crate::Structure::Lark(source.into_owned()),
    };
    let Ok(grammar) = compiler.compile(&structure, &mut || true) else { return };
    let mut matcher = grammar.matcher();
    for id in tokenizer.encode(&String::from_utf8_lossy(text), false).unwrap_or_default() {
        if matcher.take(id).is_err() || matcher.forced().is_err() {
            return;
        }
    }
}
