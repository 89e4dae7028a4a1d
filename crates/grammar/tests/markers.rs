//! Grammars of tool calls in every format: what they let through is read back as calls with arguments that validate.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Rng, Subject};
use mlx_serving_grammar::{Grammar, Structure};
use mlx_serving_text::{AnswerText, CallFormat, Formats, OutputFormat, Segment, StopMatcher, ToolSchema};
use serde_json::{Value, json};

fn tools() -> Vec<ToolSchema> {
    let weather = json!({
        "type": "object",
        "properties": { "city": { "enum": ["Paris", "Rome"] }, "days": { "type": "integer", "minimum": 1, "maximum": 9 } },
        "required": ["city", "days"],
        "additionalProperties": false,
    });
    let search = json!({
        "type": "object",
        "properties": { "query": { "type": "string" }, "exact": { "type": "boolean" } },
        "required": ["query"],
        "additionalProperties": false,
    });
    vec![
        ToolSchema { name: "get_weather".into(), parameters: weather },
        ToolSchema { name: "search".into(), parameters: search },
    ]
}

/// Calls and content of an answer.
fn read(subject: &Subject, format: CallFormat, ids: &[u32]) -> (Vec<(String, Value)>, String) {
    let output = OutputFormat::new(Formats { calls: Some(format), ..Formats::default() }, tools(), "");
    let stops = StopMatcher::new::<&str>(&[]).unwrap();
    let mut answer = AnswerText::new(&subject.tokenizer, None, stops, &output);
    let mut segments = Vec::new();
    for &id in ids.iter().filter(|&&id| !subject.is_end(id)) {
        segments.extend(answer.push(id).unwrap().segments);
    }
    segments.extend(answer.finish());
    let (mut calls, mut content): (Vec<(String, String)>, String) = Default::default();
    for segment in segments {
        match segment {
            Segment::Call { name } => calls.push((name, String::new())),
            Segment::Arguments(part) => calls.last_mut().unwrap().1 += &part,
            Segment::Content(text) => content += &text,
            other => panic!("{format:?}: {other:?} in {:?}", subject.text(ids)),
        }
    }
    let parsed = calls.into_iter().map(|(name, text)| (name, serde_json::from_str(&text).unwrap())).collect();
    (parsed, content)
}

fn check(calls: &[(String, Value)], text: &str) {
    for (name, arguments) in calls {
        let tool = tools().into_iter().find(|tool| tool.name == *name).unwrap_or_else(|| panic!("{name} in {text}"));
        assert!(jsonschema::is_valid(&tool.parameters, arguments), "{arguments} of {name} in {text}");
    }
}

fn compile(subject: &Subject, format: CallFormat, lark: String) -> Grammar {
    subject.compile(&Structure::Lark(lark.clone())).unwrap_or_else(|error| panic!("{format:?}: {error}\n{lark}"))
}

#[test]
fn forced_calls_are_read_back_with_arguments_that_validate() {
    let subject = Subject::with_markers();
    for (name, format) in CallFormat::NAMES {
        let one = compile(&subject, format, format.lark(&subject.tokenizer, &tools(), false));
        let many = compile(&subject, format, format.lark(&subject.tokenizer, &tools(), true));
        let mut ended = 0;
        for seed in 0..12 {
            for (grammar, single) in [(&one, true), (&many, false)] {
                let Some(ids) = subject.walk(grammar, &mut Rng::new(seed), 300) else { continue };
                let (calls, content) = read(&subject, format, &ids);
                let text = subject.raw(&ids);
                assert!(!calls.is_empty() && (!single || calls.len() == 1), "{name}: {calls:?} of {text}");
                assert_eq!(content.trim(), "", "{name}: {text}");
                check(&calls, &text);
                ended += 1;
            }
        }
        assert!(ended > 6, "{name}: {ended}");
    }
}

#[test]
fn calls_within_text_are_held_to_their_schemas() {
    let subject = Subject::with_markers();
    for (name, format) in CallFormat::NAMES {
        let grammar = compile(&subject, format, format.lark_if_called(&subject.tokenizer, &tools(), true));
        let mut called = 0;
        for seed in 0..12 {
            // Text, and then as if the model began a call.
            let call = compile(&subject, format, format.lark(&subject.tokenizer, &tools(), false));
            let Some(ids) = subject.walk(&call, &mut Rng::new(seed), 300) else { continue };
            let mut matcher = grammar.matcher();
            let ids: Vec<u32> = ids.into_iter().filter(|&id| !subject.is_end(id)).collect();
            assert!(ids.iter().all(|&id| matcher.take(id).is_ok()), "{name}: {}", subject.raw(&ids));
            called += 1;
        }
        assert!(called > 3, "{name}: {called}");
        if format != CallFormat::Harmony {
            assert!(subject.takes(&grammar, "Just a text."), "{name}");
        }
    }
    let hermes = CallFormat::Hermes.lark_if_called(&subject.tokenizer, &tools(), true);
    let hermes = compile(&subject, CallFormat::Hermes, hermes);
    let call = |name: &str| {
        format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {{\"query\": \"x\"}}}}\n</tool_call>")
    };
    assert!(subject.takes(&hermes, &format!("I look. {}", call("search"))));
    assert!(!subject.takes(&hermes, &format!("I look. {}", call("other"))));
    assert!(!subject.takes(&hermes, "I look. <tool_call> not"));
}

#[test]
fn content_by_a_schema_or_calls() {
    let subject = Subject::with_markers();
    for (name, format) in CallFormat::NAMES {
        let content =
            mlx_serving_grammar::lark::body(&Structure::Schema(json!({ "const": { "answer": true } }))).unwrap();
        let grammar = compile(&subject, format, format.lark_or(&subject.tokenizer, &tools(), true, &content));
        assert!(subject.takes(&grammar, "{\"answer\": true}"), "{name}");
        assert!(!subject.takes(&grammar, "{\"answer\": false}"), "{name}");
        assert!(!subject.takes(&grammar, "A text"), "{name}");
    }
    // Calls that are JSON beside content that begins as they do.
    let content =
        "%json {\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\"}}, \"required\": [\"name\"]}";
    let llama = CallFormat::LlamaJson.lark_or(&subject.tokenizer, &tools(), true, content);
    let llama = compile(&subject, CallFormat::LlamaJson, llama);
    for text in ["{\"name\": \"Ada\"}", "{\"name\": \"search\", \"parameters\": {\"query\": \"x\"}}"] {
        assert!(subject.takes(&llama, text), "{text}");
    }
}
