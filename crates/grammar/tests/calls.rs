//! Forced calls: the grammar of every format takes what its models write, and what it lets through is read as calls that fit the schema.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Rng, Subject};
use mlx_serving_text::{AnswerText, CallFormat, Formats, OutputFormat, Segment, StopMatcher, ToolSchema};
use serde_json::{Value, json};

fn tools() -> Vec<ToolSchema> {
    let weather = json!({ "type": "object", "required": ["city", "unit"], "additionalProperties": false, "properties": {
        "city": { "type": "string" }, "days": { "type": "integer" }, "unit": { "type": "string", "enum": ["C", "F"] },
        "tags": { "type": "array", "items": { "$ref": "#/$defs/tag" } },
    }, "$defs": { "tag": { "type": "string" } } });
    let free = json!({ "type": "object", "properties": { "a": { "type": "boolean" }, "b": { "type": "number" } }, "additionalProperties": false });
    vec![
        ToolSchema { name: "weather".into(), parameters: weather },
        ToolSchema { name: "now".into(), parameters: free },
    ]
}

/// A call as each format's models write it, another one, and one that the schema forbids.
const SAMPLES: [(CallFormat, &str, &str, &str); 8] = [
    (
        CallFormat::Hermes,
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\", \"days\": 2, \"unit\": \"C\"}}\n</tool_call>",
        "\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": 1, \"unit\": \"C\"}}\n</tool_call>",
    ),
    (
        CallFormat::QwenXml,
        "<tool_call>\n<function=weather>\n<parameter=city>\nKöln <b>\n</parameter>\n<parameter=days>\n2\n</parameter>\n<parameter=unit>\nC\n</parameter>\n</function>\n</tool_call>",
        "\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
        "<tool_call>\n<function=weather>\n<parameter=unit>\nC\n</parameter>\n</function>\n</tool_call>",
    ),
    (
        CallFormat::Glm,
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Köln</arg_value>\n<arg_key>unit</arg_key>\n<arg_value>F</arg_value>\n</tool_call>",
        "\n<tool_call>now\n<arg_key>a</arg_key>\n<arg_value>true</arg_value>\n</tool_call>",
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Köln</arg_value>\n<arg_key>unit</arg_key>\n<arg_value>K</arg_value>\n</tool_call>",
    ),
    (
        CallFormat::LlamaJson,
        "{\"name\": \"weather\", \"parameters\": {\"city\": \"Köln\", \"unit\": \"C\"}}",
        "; {\"name\": \"now\", \"parameters\": {\"b\": 1.5}}",
        "{\"name\": \"weather\", \"parameters\": {\"city\": \"Köln\"}}",
    ),
    (CallFormat::Pythonic, "[weather(city=\"Köln\", unit=\"C\", days=2)]", "", "[weather(city=\"Köln\")]"),
    (
        CallFormat::Mistral,
        "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\", \"unit\": \"C\"}}]",
        "",
        "[TOOL_CALLS] [{\"name\": \"other\", \"arguments\": {}}]",
    ),
    (
        CallFormat::Gemma,
        "<|tool_call>call:weather{city:<|\"|>Köln<|\"|>,unit:<|\"|>C<|\"|>,days:2,tags:[<|\"|>a<|\"|>]}<tool_call|>",
        "<|tool_call>call:now{b:2}<tool_call|>",
        "<|tool_call>call:weather{city:Köln,unit:<|\"|>C<|\"|>}<tool_call|>",
    ),
    (
        CallFormat::Harmony,
        "<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"Köln\", \"unit\": \"C\"}<|call|>",
        "",
        "<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{}<|call|>",
    ),
];

#[test]
fn a_grammar_of_forced_calls_takes_calls_that_fit_and_nothing_else() {
    let subject = Subject::bundled();
    for (format, call, another, misfit) in SAMPLES {
        let forced = subject.lark(&format.lark(&subject.tokenizer, &tools(), true));
        assert!(subject.takes(&forced, call), "{format:?}: {call}");
        assert!(subject.takes(&forced, &format!("{call}{another}")), "{format:?}: {call}{another}");
        for text in [misfit, "", "Hello"] {
            assert!(!subject.takes(&forced, text), "{format:?}: {text}");
        }
        let single = subject.lark(&format.lark(&subject.tokenizer, &tools(), false));
        assert!(subject.takes(&single, call), "{format:?}: {call}");
        assert!(another.is_empty() || !subject.takes(&single, &format!("{call}{another}")), "{format:?}: two");
    }
}

#[test]
fn a_grammar_of_possible_calls_takes_text_and_calls_that_fit() {
    let subject = Subject::bundled();
    for (format, call, another, misfit) in SAMPLES {
        let grammar = subject.lark(&format.lark_if_called(&subject.tokenizer, &tools(), true));
        let text = if format == CallFormat::Harmony {
            "<|start|>assistant<|channel|>final<|message|>Hello"
        } else {
            "Hello < you"
        };
        for text in [text, call, &format!("{call}{another}")] {
            assert!(subject.takes(&grammar, text), "{format:?}: {text}");
        }
        assert!(!subject.takes(&grammar, misfit), "{format:?}: {misfit}");
        if !matches!(format, CallFormat::Harmony | CallFormat::LlamaJson | CallFormat::Pythonic) {
            assert!(subject.takes(&grammar, &format!("I look.\n{call}\nDone.")), "{format:?}: text around");
        }
    }
}

#[test]
fn what_a_grammar_lets_through_is_read_as_calls_that_fit() {
    let subject = Subject::bundled();
    for (calls, ..) in SAMPLES {
        let grammar = subject.lark(&calls.lark(&subject.tokenizer, &tools(), true));
        let format = OutputFormat::new(Formats { reasoning: None, calls: Some(calls) }, tools(), "");
        let (mut rng, mut read) = (Rng::new(7), 0);
        for _ in 0..40 {
            let Some(ids) = subject.walk(&grammar, &mut rng, 400) else { continue };
            let mut answer = AnswerText::new(&subject.tokenizer, None, StopMatcher::new::<&str>(&[]).unwrap(), &format);
            let mut segments: Vec<Segment> = Vec::new();
            for &id in ids.iter().filter(|&&id| !subject.is_end(id)) {
                segments.extend(answer.push(id).unwrap().segments);
            }
            segments.extend(answer.finish());
            let mut found: Vec<(String, String)> = Vec::new();
            for segment in segments {
                match segment {
                    Segment::Call { name } => found.push((name, String::new())),
                    Segment::Arguments(json) => found.last_mut().unwrap().1 += &json,
                    other => panic!("{calls:?}: {other:?} in {:?}", subject.text(&ids)),
                }
            }
            assert!(!found.is_empty());
            for (name, arguments) in found {
                let tool = tools().into_iter().find(|tool| tool.name == name).unwrap();
                let arguments: Value = match serde_json::from_str(&arguments) {
                    // JSON has no largest number, serde_json has.
                    Err(error) if error.to_string().contains("out of range") => continue,
                    arguments => arguments.unwrap(),
                };
                // Lists in Gemma's notation are held to the notation alone.
                let fits = calls == CallFormat::Gemma || jsonschema::is_valid(&tool.parameters, &arguments);
                assert!(fits && arguments.is_object(), "{calls:?}: {arguments} in {:?}", subject.text(&ids));
                read += 1;
            }
        }
        assert!(read > 10, "{calls:?}: {read} calls were whole");
    }
}
