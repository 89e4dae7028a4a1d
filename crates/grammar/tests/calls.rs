//! Forced calls: the grammar of every format takes what its models write, and what it lets through is read as calls that fit the schema.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Rng, Subject};
use mlx_serving_grammar::Structure;
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
        'walks: for _ in 0..40 {
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
                    _ if has_number_beyond_floats(&subject.text(&ids)) => continue 'walks,
                    other => panic!("{calls:?}: {other:?} in {:?}", subject.text(&ids)),
                }
            }
            assert!(!found.is_empty());
            for (name, arguments) in found {
                let tool = tools().into_iter().find(|tool| tool.name == name).unwrap();
                let arguments: Value = serde_json::from_str(&arguments).unwrap();
                // Lists in Gemma's notation are held to the notation alone.
                let fits = calls == CallFormat::Gemma || jsonschema::is_valid(&tool.parameters, &arguments);
                assert!(fits && arguments.is_object(), "{calls:?}: {arguments} in {:?}", subject.text(&ids));
                read += 1;
            }
        }
        assert!(read > 10, "{calls:?}: {read} calls were whole");
    }
}

/// JSON has no largest number, floats have: no client could read such a call.
fn has_number_beyond_floats(text: &str) -> bool {
    let numbers = text.split(|c: char| !(c.is_ascii_digit() || ".eE+-".contains(c)));
    numbers.filter_map(|number| number.parse().ok()).any(f64::is_infinite)
}

/// Calls of an answer that a grammar let through, if all of them are whole.
fn calls_in(subject: &Subject, format: &OutputFormat, ids: &[u32]) -> Result<Vec<(String, String)>, Segment> {
    let mut answer = AnswerText::new(&subject.tokenizer, None, StopMatcher::new::<&str>(&[]).unwrap(), format);
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
            other => return Err(other),
        }
    }
    Ok(found)
}

fn tool(parameters: Value) -> Vec<ToolSchema> {
    vec![ToolSchema { name: "f".into(), parameters }]
}

#[test]
fn a_text_ends_where_its_reader_ends_it_with_lines_or_without() {
    let subject = Subject::bundled();
    let tools =
        tool(json!({ "properties": { "a": { "type": "string" }, "b": { "type": "string" } }, "required": ["a"] }));
    let qwen = |between: &str| {
        let tags =
            ["<function=f>", "<parameter=a>x</parameter>", "<parameter=b>y</parameter>", "</function>", "</tool_call>"];
        format!("<tool_call>\n{}", tags.join(between))
    };
    let glm = |between: &str| {
        let tags = ["<tool_call>f", "<arg_key>a</arg_key>", "<arg_value>x</arg_value>", "</tool_call>"];
        tags.join(between)
    };
    for (format, text) in [(CallFormat::QwenXml, qwen as fn(&str) -> String), (CallFormat::Glm, glm)] {
        let grammar = subject.lark(&format.lark(&subject.tokenizer, &tools, false));
        for between in ["", "\n"] {
            assert!(subject.takes(&grammar, &text(between)), "{}", text(between));
        }
        let behind = text("").replace("x</", "x</parameter>y</").replace("x</parameter>y</arg", "x</arg_value>y</arg");
        assert!(!subject.takes(&grammar, &behind), "{behind}: the value has ended");
    }
    let grammar = subject.lark(&CallFormat::QwenXml.lark(&subject.tokenizer, &tools, false));
    assert!(subject.takes(
        &grammar,
        "<tool_call>\n<function=f>\n<parameter=a>\n1 <parameter=b> 2\n</parameter>\n</function>\n</tool_call>"
    ));
    for cut in ["<parameter=b>", "</function>"] {
        let text =
            format!("<tool_call>\n<function=f>\n<parameter=a>\n1\n{cut}2\n</parameter>\n</function>\n</tool_call>");
        assert!(!subject.takes(&grammar, &text), "{text}");
    }
}

#[test]
fn a_tool_whose_schema_says_nothing_has_an_object() {
    let subject = Subject::bundled();
    for parameters in [json!({}), json!({ "description": "none" }), json!({ "type": ["object", "null"] })] {
        for (calls, ..) in SAMPLES {
            let grammar = subject.lark(&calls.lark(&subject.tokenizer, &tool(parameters.clone()), false));
            let format =
                OutputFormat::new(Formats { reasoning: None, calls: Some(calls) }, tool(parameters.clone()), "");
            let mut rng = Rng::new(3);
            for _ in 0..6 {
                let Some(ids) = subject.walk(&grammar, &mut rng, 200) else { continue };
                let found = calls_in(&subject, &format, &ids)
                    .unwrap_or_else(|e| panic!("{calls:?}: {e:?} in {:?}", subject.text(&ids)));
                let object = |json: &str| serde_json::from_str::<Value>(json).is_ok_and(|value| value.is_object());
                assert!(found.len() == 1 && object(&found[0].1), "{calls:?}: {found:?}");
            }
        }
    }
}

#[test]
fn what_has_to_be_there_need_not_be_described() {
    let subject = Subject::bundled();
    let tools = tool(json!({ "properties": {}, "required": ["zz"], "additionalProperties": { "type": "integer" } }));
    let texts = |value: &str| {
        [
            (
                CallFormat::QwenXml,
                format!("<tool_call>\n<function=f>\n<parameter=zz>\n{value}\n</parameter>\n</function>\n</tool_call>"),
            ),
            (
                CallFormat::Glm,
                format!("<tool_call>f\n<arg_key>zz</arg_key>\n<arg_value>{value}</arg_value>\n</tool_call>"),
            ),
            (CallFormat::Pythonic, format!("[f(zz={value})]")),
            (CallFormat::Gemma, format!("<|tool_call>call:f{{zz:{value}}}<tool_call|>")),
        ]
    };
    for ((format, fits), (_, misfit)) in texts("7").into_iter().zip(texts("true")) {
        let grammar = subject.lark(&format.lark(&subject.tokenizer, &tools, false));
        assert!(subject.takes(&grammar, &fits), "{fits}");
        assert!(!subject.takes(&grammar, &misfit), "{misfit}");
    }
    let bare = subject.lark(&CallFormat::Pythonic.lark(&subject.tokenizer, &tools, false));
    assert!(!subject.takes(&bare, "[f()]"));
}

#[test]
fn gemmas_values_follow_references_and_choices() {
    let subject = Subject::bundled();
    let parameters = json!({ "required": ["a"], "properties": { "a": { "$ref": "#/$defs/z" } },
        "$defs": { "z": { "anyOf": [{ "type": "integer" }, { "enum": ["x", null] }] } } });
    let grammar = subject.lark(&CallFormat::Gemma.lark(&subject.tokenizer, &tool(parameters), false));
    for (value, fits) in [
        ("7", true),
        ("<|\"|>x<|\"|>", true),
        ("null", true),
        ("<|\"|>y<|\"|>", false),
        ("[7]", false),
        ("{}", false),
        ("1.5", false),
    ] {
        assert_eq!(subject.takes(&grammar, &format!("<|tool_call>call:f{{a:{value}}}<tool_call|>")), fits, "{value}");
    }
}

#[test]
fn a_name_that_a_format_cannot_write_is_told() {
    let subject = Subject::bundled();
    let misfit =
        |format: CallFormat, parameters: Value, strict| format.misfit(&subject.tokenizer, &tool(parameters)[0], strict);
    for (format, key) in [
        (CallFormat::Pythonic, "user name"),
        (CallFormat::QwenXml, "a>b"),
        (CallFormat::QwenXml, " a"),
        (CallFormat::Glm, "</arg_key>"),
        (CallFormat::Glm, ""),
        (CallFormat::Gemma, "a:b"),
        (CallFormat::Gemma, "<|im_end|>"),
    ] {
        let named = misfit(format, json!({ "properties": { key: {} } }), false);
        assert!(named.is_some_and(|message| message.contains(&format!("{key:?}"))), "{format:?}: {key}");
        assert_eq!(misfit(CallFormat::Hermes, json!({ "properties": { key: {} } }), true), None);
    }
    let several = json!({ "properties": { "a-b.c": {} }, "minProperties": 2 });
    assert_eq!(misfit(CallFormat::Glm, several.clone(), false), None);
    assert!(misfit(CallFormat::Glm, several, true).unwrap().contains("`minProperties`"));
    let impossible = json!({ "required": ["a"], "additionalProperties": false });
    assert!(misfit(CallFormat::Gemma, impossible, true).unwrap().contains("\"a\""));
}

/// Schemas of arguments, one kind each.
fn argument(rng: &mut Rng, depth: usize) -> Value {
    match rng.below(if depth == 0 { 7 } else { 10 }) {
        0 | 1 => json!({ "type": "string" }),
        2 => json!({ "type": rng.pick(&["integer", "boolean", "null"]) }),
        3 => json!({ "enum": ["x", "y z", "<b>", "q\"q", 1, null, true, [1, "a"]] }),
        4 => json!({ "type": ["string", "null"], "enum": ["null", "a\n", null] }),
        5 => json!({ "$ref": rng.pick(&["#/$defs/text", "#/$defs/number"]) }),
        6 => json!({ "const": rng.pick(&["k", "</parameter>", ""]) }),
        7 => json!({ "anyOf": [argument(rng, 0), argument(rng, 0)] }),
        8 => json!({ "type": "array", "items": argument(rng, 0), "maxItems": 2 }),
        _ => {
            json!({ "type": "object", "properties": { "k": argument(rng, 0) }, "required": ["k"], "additionalProperties": false })
        }
    }
}

#[test]
fn calls_of_any_schema_that_a_grammar_lets_through_are_read_and_fit() {
    let subject = Subject::bundled();
    let mut rng = Rng::new(11);
    let mut read = 0;
    for round in 0..48 {
        let (calls, ..) = SAMPLES[round % SAMPLES.len()];
        // Lists and objects in Gemma's notation are held to the notation alone.
        let depth = usize::from(calls != CallFormat::Gemma);
        let parameters = json!({ "type": "object", "additionalProperties": false, "required": ["a", "b-1"],
            "properties": { "a": argument(&mut rng, depth), "b-1": argument(&mut rng, depth), "c": argument(&mut rng, depth) },
            "$defs": { "text": { "type": "string" }, "number": { "type": "integer" } } });
        if calls.misfit(&subject.tokenizer, &tool(parameters.clone())[0], true).is_some() {
            continue;
        }
        let Ok(grammar) =
            subject.compile(&Structure::Lark(calls.lark(&subject.tokenizer, &tool(parameters.clone()), false)))
        else {
            continue;
        };
        let format = OutputFormat::new(Formats { reasoning: None, calls: Some(calls) }, tool(parameters.clone()), "");
        for _ in 0..4 {
            let Some(ids) = subject.walk(&grammar, &mut rng, 300) else { continue };
            let shown = || format!("{calls:?}: {:?} by {parameters}", subject.text(&ids));
            let found = match calls_in(&subject, &format, &ids) {
                Err(_) if has_number_beyond_floats(&subject.text(&ids)) => continue,
                found => found.unwrap_or_else(|other| panic!("{other:?}, {}", shown())),
            };
            assert_eq!(found.len(), 1, "{}", shown());
            let arguments: Value =
                serde_json::from_str(&found[0].1).unwrap_or_else(|error| panic!("{error}, {}", shown()));
            assert!(jsonschema::is_valid(&parameters, &arguments), "{arguments}, {}", shown());
            read += 1;
        }
    }
    assert!(read > 40, "{read} calls were whole");
}
