use super::format::{Divide, OutputFormat};
use super::formats::{CallFormat, Formats, ReasoningFormat};
use super::segment::Segment;
use super::sink::Sink;
use super::stop::StopMatcher;
use super::tools::ToolSchema;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A piece of an answer's text; special tokens are hidden, and never cut.
type Piece = (String, bool);

/// Samples write special tokens between these.
fn pieces(text: &str) -> Vec<Piece> {
    let parts = text.split('⟦').enumerate().flat_map(|(at, part)| match part.split_once('⟧') {
        Some((token, rest)) if at > 0 => vec![(token.to_owned(), true), (rest.to_owned(), false)],
        _ => vec![(part.to_owned(), false)],
    });
    parts.filter(|(text, _)| !text.is_empty()).collect()
}

/// The pieces, cut once more wherever `cut` says so of a place in the text.
fn cut(pieces: &[Piece], cut: impl Fn(usize) -> bool) -> Vec<Piece> {
    let (mut out, mut at): (Vec<Piece>, usize) = (Vec::new(), 0);
    for (text, hidden) in pieces {
        let mut last = 0;
        for (index, _) in text.char_indices().skip(1).filter(|_| !hidden) {
            if cut(at + index) {
                out.push((text[last..index].to_owned(), false));
                last = index;
            }
        }
        out.push((text[last..].to_owned(), *hidden));
        at += text.len();
    }
    out
}

fn join(segments: impl IntoIterator<Item = Segment>) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::new();
    for segment in segments {
        match (out.last_mut(), &segment) {
            (Some(Segment::Content(to)), Segment::Content(text))
            | (Some(Segment::Reasoning(to)), Segment::Reasoning(text))
            | (Some(Segment::Arguments(to)), Segment::Arguments(text))
            | (Some(Segment::Malformed(to)), Segment::Malformed(text)) => *to += text,
            _ => out.push(segment),
        }
    }
    out
}

struct Answer {
    divide: Divide,
    sink: Sink,
}

impl Answer {
    fn new(format: &OutputFormat, stops: &[&str]) -> Self {
        Self { divide: format.divider().unwrap(), sink: Sink::new(StopMatcher::new(stops).unwrap()) }
    }

    fn push(&mut self, (text, hidden): &Piece) -> Vec<Segment> {
        match hidden {
            true => self.divide.push_hidden(text, &mut self.sink),
            false => self.divide.push(text, &mut self.sink),
        }
        self.sink.take()
    }

    fn finish(&mut self) -> Vec<Segment> {
        self.divide.finish(&mut self.sink);
        self.sink.finish()
    }
}

fn read(format: &OutputFormat, stops: &[&str], pieces: &[Piece]) -> Vec<Segment> {
    let mut answer = Answer::new(format, stops);
    let mut out: Vec<Segment> = pieces.iter().flat_map(|piece| answer.push(piece)).collect();
    out.extend(answer.finish());
    join(out)
}

fn content(text: &str) -> Segment {
    Segment::Content(text.into())
}

fn reasoning(text: &str) -> Segment {
    Segment::Reasoning(text.into())
}

fn malformed(text: &str) -> Segment {
    Segment::Malformed(text.into())
}

/// A call that never becomes whole.
fn broken(name: &str, arguments: &str, markup: &str) -> Vec<Segment> {
    [call(name, arguments), vec![Segment::Unfinished(markup.into())]].concat()
}

fn call(name: &str, arguments: &str) -> Vec<Segment> {
    let arguments = Some(Segment::Arguments(arguments.into())).filter(|_| !arguments.is_empty());
    std::iter::once(Segment::Call { name: name.into() }).chain(arguments).collect()
}

fn tools() -> Vec<ToolSchema> {
    let parameters = json!({ "type": "object", "required": ["city"], "properties": {
        "city": { "type": "string" }, "days": { "type": "integer" }, "metric": { "type": "boolean" }, "note": { "type": ["string", "null"] },
        "where": { "type": "object" }, "either": { "anyOf": [{ "type": "string" }, { "type": "integer" }] }, "unit": { "enum": ["C", "F"] },
        "far": { "$ref": "#/$defs/far" },
    }, "$defs": { "far": { "anyOf": [{ "type": "string" }, { "type": "number" }] } } });
    vec![ToolSchema { name: "weather".into(), parameters }]
}

fn format(reasoning: Option<ReasoningFormat>, calls: Option<CallFormat>) -> OutputFormat {
    OutputFormat::new(Formats { reasoning, calls }, tools(), "")
}

fn calls(format_of: CallFormat) -> OutputFormat {
    format(None, Some(format_of))
}

/// Holds a sample to its segments, however it is cut: into characters, and at every one and every two places.
fn reads(format: &OutputFormat, text: &str, expected: &[Segment]) {
    let whole = pieces(text);
    let bytes: usize = whole.iter().map(|(text, _)| text.len()).sum();
    assert_eq!(read(format, &[], &whole), expected, "{text}");
    assert_eq!(read(format, &[], &cut(&whole, |_| true)), expected, "{text}, in characters");
    for first in 0..bytes {
        assert_eq!(read(format, &[], &cut(&whole, |at| at == first)), expected, "{text}, cut at {first}");
        for second in (first + 1..bytes).filter(|_| bytes < 80) {
            let cut = cut(&whole, |at| at == first || at == second);
            assert_eq!(read(format, &[], &cut), expected, "{text}, cut at {first} and {second}");
        }
    }
    goes_out_once(format, &whole, expected);
}

/// Checks that what goes out early is the beginning of what goes out in all.
fn goes_out_once(format: &OutputFormat, whole: &[Piece], expected: &[Segment]) {
    let mut answer = Answer::new(format, &[]);
    let mut out = Vec::new();
    for piece in &cut(whole, |_| true) {
        out = join(out.into_iter().chain(answer.push(piece)));
        let Some((last, before)) = out.split_last() else { continue };
        assert_eq!(before, &expected[..before.len()]);
        let same = std::mem::discriminant(last) == std::mem::discriminant(&expected[before.len()]);
        assert!(same && expected[before.len()].as_str().starts_with(last.as_str()), "{last:?} of {expected:?}");
    }
}

#[test]
fn hermes_calls_are_objects_between_markers() {
    let format = calls(CallFormat::Hermes);
    let read = |text: &str, expected: &[Segment]| reads(&format, text, expected);
    let one = call("weather", r#"{"city": "Köln"}"#);
    read("<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>", &one);
    read("⟦<tool_call>⟧{\"name\":\"weather\",\"arguments\":{\"city\": \"Köln\"}}⟦</tool_call>⟧⟦<|im_end|>⟧", &one);
    read(
        "I look. \n\n<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\nDone.\n",
        &[&[content("I look.")], &call("f", "{}")[..], &[content("Done.\n")]].concat(),
    );
    read(
        "<tool_call>{\"arguments\": {\"a\": [1]}, \"id\": 7, \"name\": \"f\"}</tool_call>",
        &call("f", r#"{"a": [1]}"#),
    );
    read(
        "<tool_call>{\"name\": \"f\"}</tool_call> <tool_call>[{\"name\": \"g\", \"parameters\": {}}, {\"name\": \"h\"}]</tool_call>",
        &[call("f", "{}"), call("g", "{}"), call("h", "{}")].concat(),
    );
    read(
        r#"<tool_call>{"name": "f", "arguments": {"a": "</tool_call>\"}"}}</tool_call>"#,
        &call("f", r#"{"a": "</tool_call>\"}"}"#),
    );
    // Markers that only begin are text.
    read("a < b, <tool_ call>, <tool_call", &[content("a < b, <tool_ call>, <tool_call")]);
}

#[test]
fn a_call_that_cannot_be_read_comes_as_it_is() {
    let format = calls(CallFormat::Hermes);
    let read = |text: &str, expected: &[Segment]| reads(&format, text, expected);
    read(
        "a <tool_call>{name: 1}</tool_call> b",
        &[content("a"), malformed("<tool_call>{name: 1}</tool_call>"), content("b")],
    );
    let half = r#"<tool_call>{"name": "f", "arguments": {"a": 1"#;
    let second_half = |second: &str| [&broken("f", r#"{"a": 1"#, half)[..], &[malformed(second)]].concat();
    let begun = second_half("; 2}}</tool_call>");
    read(r#"<tool_call>{"name": "f", "arguments": {"a": 1; 2}}</tool_call>"#, &begun);
    read(half, &broken("f", r#"{"a": 1"#, half));
    // Of several calls in one list, only the last is broken off.
    let listed = r#"<tool_call>[{"name": "f", "arguments": {}"#;
    let second = r#"}, {"name": "g", "arguments": {"a"#;
    read(&format!("{listed}{second}"), &[call("f", "{}"), broken("g", r#"{"a"#, second)].concat());
    read(&format!("{listed}}}, "), &[&call("f", "{}")[..], &[malformed("}, ")]].concat());
    read(r#"<tool_call>{"name": "f", "arg"#, &[malformed(r#"<tool_call>{"name": "f", "arg"#)]);
    read(
        "<tool_call>{\"name\": \"f\"</tool_call>{",
        &[malformed("<tool_call>{\"name\": \"f\"</tool_call>"), content("{")],
    );
    let second = [&[malformed("<tool_call>x ")], &call("f", "{}")[..]].concat();
    read("<tool_call>x <tool_call>{\"name\": \"f\"}</tool_call>", &second);
    // A number that no client can read.
    read(
        &format!("{half}e999}}}}</tool_call>"),
        &[&broken("f", r#"{"a": 1e999"#, &format!("{half}e999"))[..], &[malformed("}}</tool_call>")]].concat(),
    );
    let nameless = r#"<tool_call>{"name": "", "arguments": {}}</tool_call>"#;
    read(nameless, &[malformed(nameless)]);
    // Whole, but for the marker.
    read("<tool_call>{\"name\": \"f\"}\n", &call("f", "{}"));
}

#[test]
fn half_of_a_pair_of_surrogates_is_replaced_in_arguments() {
    let hermes = |string: &str| format!(r#"<tool_call>{{"name": "f", "arguments": {{"a": "{string}"}}}}</tool_call>"#);
    let arguments = |string: &str| call("f", &format!(r#"{{"a": "{string}"}}"#));
    reads(&calls(CallFormat::Hermes), &hermes(r"\ud83d \ud83d\ude00"), &arguments(r"\ufffd \ud83d\ude00"));
    reads(&calls(CallFormat::Hermes), &hermes(r"\ude00\ud83d"), &arguments(r"\ufffd\ufffd"));
    reads(&calls(CallFormat::Pythonic), r#"[f(a="\ud83d\ude00\ud83d.")]"#, &arguments(r"\ud83d\ude00\ufffd."));
    let text = r#"<tool_call>weather<arg_key>where</arg_key><arg_value>{"a": "\ud83d"}</arg_value></tool_call>"#;
    reads(&calls(CallFormat::Glm), text, &call("weather", r#"{"where": {"a": "\ufffd"}}"#));
    // An answer that ends there goes on with nothing that was held back.
    let half = r#"<tool_call>{"name": "f", "arguments": {"a": "\ud83d"#;
    reads(&calls(CallFormat::Hermes), half, &broken("f", r#"{"a": "\ud83d"#, half));
}

#[test]
fn reasoning_is_apart_and_space_around_it_is_markup() {
    let think = format(Some(ReasoningFormat::Think), Some(CallFormat::Hermes));
    reads(&think, "<think>\nHm.\n\nWell.\n</think>\n\nYes.\n", &[reasoning("Hm.\n\nWell."), content("Yes.\n")]);
    reads(&think, "\n<think>\n\n</think>\n\nYes", &[content("Yes")]);
    reads(&think, "So <think> is a tag", &[content("So <think> is a tag")]);
    reads(&think, "<think>a <tool_call> b", &[reasoning("a <tool_call> b")]);
    let expected = [&[reasoning("a")], &call("f", "{}")[..], &[reasoning("b"), content("c")]].concat();
    reads(&think, "<think>a</think>\n<tool_call>{\"name\": \"f\"}</tool_call>\n<think>b</think>c", &expected);
    let alone = format(Some(ReasoningFormat::Think), None);
    let mut answer = Answer::new(&alone, &[]);
    let mut push = |text: &str| answer.push(&(text.to_owned(), false));
    assert_eq!(push("<think>a</think>b"), [reasoning("a"), content("b")]);
    assert_eq!(push("\n"), [content("\n")], "no markup can follow");
    let within = OutputFormat::new(
        Formats { reasoning: Some(ReasoningFormat::Think), calls: None },
        vec![],
        "<|im_start|>assistant\n<think>\n",
    );
    reads(&within, "Hm.</think>Yes", &[reasoning("Hm."), content("Yes")]);
    reads(&within, "Hm.\n", &[reasoning("Hm.\n")]);
    let gemma = format(Some(ReasoningFormat::Gemma), None);
    reads(
        &gemma,
        "⟦<|channel>⟧thought\nHm.⟦<channel|>⟧Yes⟦<|channel>⟧thought\nB⟦<channel|>⟧",
        &[reasoning("Hm."), content("Yes"), reasoning("B")],
    );
    reads(&gemma, "⟦<|channel>⟧other", &[content("other")]);
    reads(
        &format(Some(ReasoningFormat::Mistral), None),
        "⟦[THINK]⟧Hm⟦[/THINK]⟧ Yes [x]",
        &[reasoning("Hm"), content("Yes [x]")],
    );
}

#[test]
fn the_engine_hears_of_reasoning_from_its_marker_to_its_end() {
    let think = format(Some(ReasoningFormat::Think), None);
    let mut answer = Answer::new(&think, &[]);
    let mut reasons = |text: &str| {
        answer.push(&(text.to_owned(), false));
        answer.divide.reasons()
    };
    assert_eq!(
        ["<think>", "a", "</thi", "nk>", "b", "<think>"].map(&mut reasons),
        [true, true, true, false, false, false]
    );
    let formats = Formats { reasoning: Some(ReasoningFormat::Think), calls: None };
    for (prompt, reasons) in [("<think>\n", true), ("<think>\n\n</think>\n\n", false), ("assistant\n", false)] {
        assert_eq!(Answer::new(&OutputFormat::new(formats, vec![], prompt), &[]).divide.reasons(), reasons, "{prompt}");
    }
    let continuing =
        |begun| Answer::new(&OutputFormat::new(formats, vec![], "x").continuing(begun), &[]).divide.reasons();
    assert_eq!(["<think>\nHm", "<think>Hm</think>So", "So"].map(continuing), [true, false, false]);
}

#[test]
fn qwens_tags_become_json_by_the_schema() {
    let format = calls(CallFormat::QwenXml);
    let read = |text: &str, expected: &[Segment]| reads(&format, text, expected);
    let text = "<tool_call>\n<function=weather>\n<parameter=city>\n\"A\"\n\n B\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>";
    read(text, &call("weather", r#"{"city": "\"A\"\n\n B", "days": 3}"#));
    read(
        "<tool_call><function=weather></function></tool_call>ok",
        &[&call("weather", "{}")[..], &[content("ok")]].concat(),
    );
    let value = |key: &str, value: &str, json: &str| {
        let text = format!("<tool_call><function=weather><parameter={key}>{value}</parameter></function></tool_call>");
        read(&text, &call("weather", &format!("{{\"{key}\": {json}}}")));
    };
    value("metric", "True", "true");
    value("city", "null", "\"null\"");
    value("note", "null", "null");
    value("note", "nul", "\"nul\"");
    value("note", "", "\"\"");
    value("city", "</param>", "\"</param>\"");
    value("where", "{\"a\": [1, \"b\"]}", "{\"a\": [1, \"b\"]}");
    value("where", "{'a': None}", "{\"a\": null}");
    value("where", "over there", "\"over there\"");
    value("either", "7", "7");
    value("either", "7 of", "\"7 of\"");
    value("either", "[7]", "\"[7]\"");
    value("either", "\"7\"", "\"7\"");
    value("days", "1e9", "1e9");
    value("city", "1e999", "\"1e999\"");
    let beyond = "<tool_call><function=weather><parameter=days>1e999";
    read(
        &format!("{beyond}</parameter></function></tool_call>"),
        &[
            &broken("weather", "{\"days\": ", &beyond[..beyond.len() - 5])[..],
            &[malformed("1e999</parameter></function></tool_call>")],
        ]
        .concat(),
    );
    value("far", "5", "5");
    value("far", "x", "\"x\"");
    value("unit", "C", "\"C\"");
    value("unheard", "5", "\"5\"");
    // A parameter's end is forgotten, or the lines.
    let begun = "<tool_call>\n<function=weather>\n<parameter=city>\nPar <parameter=x> is\n";
    let end = "</function>\n</tool_call>";
    read(&format!("{begun}{end}"), &call("weather", r#"{"city": "Par <parameter=x> is"}"#));
    read(
        &format!("{begun}\n<parameter=days>\n3\n{end}"),
        &call("weather", r#"{"city": "Par <parameter=x> is\n", "days": 3}"#),
    );
    read(
        "<tool_call><function=weather><parameter=city>\n<parameter=note>x\n</function></tool_call>",
        &call("weather", r#"{"city": "", "note": "x"}"#),
    );
    // The first marker is forgotten, or the last.
    read("<function=f>\n</function>\n</tool_call>\nok", &[&call("f", "{}")[..], &[content("ok")]].concat());
    read("<tool_call><function=f></function><function=g></function>", &[call("f", "{}"), call("g", "{}")].concat());
    read(
        "<tool_call>\n<function=weather>\n<parameter=city>\nPar",
        &broken("weather", "{\"city\": \"Par", "<tool_call>\n<function=weather>\n<parameter=city>\nPar"),
    );
    read("<tool_call>\nf()\n</tool_call>", &[malformed("<tool_call>\nf()\n</tool_call>")]);
}

#[test]
fn glms_tags_become_json_by_the_schema() {
    let format = calls(CallFormat::Glm);
    let read = |text: &str, expected: &[Segment]| reads(&format, text, expected);
    let text = "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value> A\n</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>";
    read(text, &call("weather", r#"{"city": " A\n", "days": 3}"#));
    read(
        "⟦<tool_call>⟧f⟦</tool_call>⟧⟦<tool_call>⟧g<arg_key>k</arg_key><arg_value>[1]</arg_value>⟦</tool_call>⟧",
        &[call("f", "{}"), call("g", "{\"k\": [1]}")].concat(),
    );
    read("<tool_call>{\"name\": 1}</tool_call>", &[malformed("<tool_call>{\"name\": 1}</tool_call>")]);
    let twice = "<tool_call>f<arg_key>k</arg_key><arg_value>1</arg_value><arg_key>k</arg_key>";
    read(
        &format!("{twice}</tool_call>"),
        &[
            &broken("f", "{\"k\": 1", "<tool_call>f<arg_key>k</arg_key><arg_value>1</arg_value>")[..],
            &[malformed("<arg_key>k</arg_key></tool_call>")],
        ]
        .concat(),
    );
}

#[test]
fn llamas_objects_need_no_marker_and_other_objects_are_content() {
    let format = calls(CallFormat::LlamaJson);
    let read = |text: &str, expected: &[Segment]| reads(&format, text, expected);
    read("\n{\"name\": \"f\", \"parameters\": {\"a\": 1}}", &call("f", "{\"a\": 1}"));
    read(
        "{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}",
        &[call("f", "{}"), call("g", "{}")].concat(),
    );
    read("⟦<|python_tag|>⟧{\"name\": \"f\", \"parameters\": {}}⟦<|eom_id|>⟧", &call("f", "{}"));
    read("{\"name\": \"Bob\", \"age\": 7}", &[content("{\"name\": \"Bob\", \"age\": 7}")]);
    read(" {\"name\": \"Bob\"}", &[content(" {\"name\": \"Bob\"}")]);
    read("{\"name\": \"f\", \"para", &[content("{\"name\": \"f\", \"para")]);
    read("Take {\"name\": \"f\", \"parameters\": {}}", &[content("Take {\"name\": \"f\", \"parameters\": {}}")]);
    let half = "{\"name\": \"f\", \"parameters\": {\"a\"";
    read(half, &broken("f", "{\"a\"", half));
    read("⟦<|python_tag|>⟧print(1)", &[malformed("<|python_tag|>print(1)")]);
}

#[test]
fn pythons_calls_become_json() {
    let format = calls(CallFormat::Pythonic);
    let read = |text: &str, expected: &[Segment]| reads(&format, text, expected);
    read(
        "[weather(city='K\\'öln', days=3), f()]",
        &[call("weather", r#"{"city": "K'öln", "days": 3}"#), call("f", "{}")].concat(),
    );
    read(
        "[f(a=[1, -2.5e3, (True, None)], b={'x': {}, \"y\": [],})]",
        &call("f", r#"{"a": [1, -2.5e3, [true, null]], "b": {"x": {}, "y": []}}"#),
    );
    read(
        "⟦<|tool_call_start|>⟧[f(a=\"b\")]⟦<|tool_call_end|>⟧Looking.",
        &[&call("f", "{\"a\": \"b\"}")[..], &[content("Looking.")]].concat(),
    );
    read("[a:b/c(d=1)]", &call("a:b/c", "{\"d\": 1}"));
    read("[link](url) and [f(x)]", &[content("[link](url) and [f(x)]")]);
    read("[1, 2]", &[content("[1, 2]")]);
    read("[f(x)]", &[content("[f(x)]")]);
    read("[f(a=x)]", &[&broken("f", "{\"a\": ", "[f(a=")[..], &[malformed("x)]")]].concat());
    read(r#"[f(a="\x41\u00e9\q\n")]"#, &call("f", r#"{"a": "Aé\\q\n"}"#));
}

#[test]
fn mistrals_calls_are_a_list_or_names_with_arguments() {
    let format = calls(CallFormat::Mistral);
    let read = |text: &str, expected: &[Segment]| reads(&format, text, expected);
    let two = [call("f", "{\"a\": 1}"), call("g", "{}")].concat();
    read(
        "⟦[TOOL_CALLS]⟧ [{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"123456789\"}, {\"name\": \"g\", \"arguments\": {}}]⟦</s>⟧",
        &two,
    );
    read("⟦[TOOL_CALLS]⟧f⟦[ARGS]⟧{\"a\": 1}⟦[TOOL_CALLS]⟧g⟦[CALL_ID]⟧123456789⟦[ARGS]⟧{}⟦</s>⟧", &two);
    read("[TOOL_CALLS]f{\"a\": 1}[TOOL_CALLS]g [ARGS] {}", &two);
    read("One. ⟦[TOOL_CALLS]⟧f⟦[ARGS]⟧{}", &[&[content("One.")], &call("f", "{}")[..]].concat());
    read(
        "⟦[TOOL_CALLS]⟧f⟦[ARGS]⟧5 ⟦[TOOL_CALLS]⟧f{}",
        &[&[malformed("[TOOL_CALLS]f[ARGS]5 ")], &call("f", "{}")[..]].concat(),
    );
    read("⟦[TOOL_CALLS]⟧f⟦[ARGS]⟧", &[malformed("[TOOL_CALLS]f[ARGS]")]);
    read("an [INST] and ⟦[INST]⟧[TOOL", &[content("an [INST] and [TOOL")]);
}

#[test]
fn gemmas_calls_become_json() {
    let format = calls(CallFormat::Gemma);
    let read = |text: &str, expected: &[Segment]| reads(&format, text, expected);
    let quote = "⟦<|\"|>⟧";
    read(
        &format!("⟦<|tool_call>⟧call:f{{a:{quote}x \"}}\" y{quote},n:1.5,b:true}}⟦<tool_call|>⟧"),
        &call("f", r#"{"a": "x \"}\" y", "n": 1.5, "b": true}"#),
    );
    read(
        &format!("⟦<|tool_call>⟧call:f{{a:{{b:[{quote}{quote},2,{{}}]}},c:word}}⟦<tool_call|>⟧ok"),
        &[&call("f", r#"{"a": {"b": ["", 2, {}]}, "c": "word"}"#)[..], &[content("ok")]].concat(),
    );
    read("<|tool_call>call:f{}call:g{}<tool_call|>", &[call("f", "{}"), call("g", "{}")].concat());
    read("⟦<|tool_call>⟧f{}⟦<tool_call|>⟧", &[malformed("<|tool_call>f{}<tool_call|>")]);
    let half = [&broken("f", "{\"a\": ", "<|tool_call>call:f{a:")[..], &[malformed("1")]].concat();
    read("⟦<|tool_call>⟧call:f{a:1⟦<end_of_turn>⟧", &half);
}

#[test]
fn harmonys_messages_are_reasoning_content_or_calls() {
    let format = format(Some(ReasoningFormat::Harmony), Some(CallFormat::Harmony));
    let read = |text: &str, expected: &[Segment]| reads(&format, text, expected);
    let analysis = "⟦<|channel|>⟧analysis⟦<|message|>⟧Hm.⟦<|end|>⟧";
    read(
        &format!("{analysis}⟦<|start|>⟧assistant⟦<|channel|>⟧final⟦<|message|>⟧Yes.\n⟦<|return|>⟧"),
        &[reasoning("Hm."), content("Yes.\n")],
    );
    let expected = [&[reasoning("Hm.")], &call("f", "{\"a\": 1}")[..]].concat();
    read(
        &format!(
            "{analysis}⟦<|start|>⟧assistant⟦<|channel|>⟧commentary to=functions.f ⟦<|constrain|>⟧json⟦<|message|>⟧{{\"a\": 1}}⟦<|call|>⟧"
        ),
        &expected,
    );
    read(
        &format!(
            "{analysis}⟦<|start|>⟧assistant to=functions.f⟦<|channel|>⟧commentary json⟦<|message|>⟧{{\"a\": 1}}⟦<|call|>⟧"
        ),
        &expected,
    );
    read("⟦<|channel|>⟧commentary⟦<|message|>⟧I look.⟦<|end|>⟧", &[content("I look.")]);
    read(
        "⟦<|channel|>⟧commentary to=functions.f⟦<|message|>⟧x⟦<|call|>⟧",
        &[malformed("<|channel|>commentary to=functions.f<|message|>x")],
    );
    read(
        "⟦<|channel|>⟧commentary to=functions.f⟦<|message|>⟧{\"a\"",
        &broken("f", "{\"a\"", "<|channel|>commentary to=functions.f<|message|>{\"a\""),
    );
    let nameless = "<|channel|>commentary to=functions.<|message|>{}";
    read(&format!("{}⟦<|call|>⟧", nameless.replace("<|", "⟦<|").replace("|>", "|>⟧")), &[malformed(nameless)]);
    read("⟦<|channel|>⟧ana", &[]);
    read("No header", &[content("No header")]);
    let mut answer = Answer::new(&format, &[]);
    let tokens = pieces(&format!("{analysis}⟦<|start|>⟧assistant⟦<|channel|>⟧final⟦<|message|>⟧Yes"));
    let reasons: Vec<bool> = tokens
        .iter()
        .map(|piece| {
            answer.push(piece);
            answer.divide.reasons()
        })
        .collect();
    assert_eq!(reasons, [true, true, true, true, false, false, false, false, false, false, false]);
}

#[test]
fn stop_strings_are_looked_for_in_content_alone() {
    let format = format(Some(ReasoningFormat::Think), Some(CallFormat::Hermes));
    let stopped = |stops: &[&str], text: &str| read(&format, stops, &cut(&pieces(text), |_| true));
    assert_eq!(stopped(&["."], "<think>Hm. So.</think>Yes. No"), [reasoning("Hm. So."), content("Yes")]);
    assert_eq!(
        stopped(&["a\""], "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>"),
        call("f", "{\"a\": 1}")
    );
    let text = "ab<tool_call>{\"name\": \"f\"}</tool_call>cd";
    assert_eq!(stopped(&["bc", "d"], text), [&[content("ab")], &call("f", "{}")[..], &[content("c")]].concat());
    assert_eq!(stopped(&["b"], text), [content("a")]);
    assert_eq!(stopped(&["bye<|im_end|>"], "so bye⟦<|im_end|>⟧"), [content("so ")]);
    assert_eq!(stopped(&["<|im_end|>"], "so bye\n⟦<|im_end|>⟧ more"), [content("so bye\n")]);
}

/// A part of an answer, and how a model writes it.
#[derive(Debug, Clone)]
enum Part {
    Content(String),
    Call(String, Map<String, Value>),
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-zé\"\\\\\n<>/_{}:,'\\[\\]| ]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |value| {
        let key = "[a-z]{1,4}";
        prop_oneof![
            prop::collection::vec(value.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, value, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let content = "[A-Za-z.é][A-Za-z<>_ /\n]{0,10}[a-z.]".prop_map(Part::Content);
    let arguments = prop::collection::btree_map("[a-z]{1,5}", values(), 0..4).prop_map(|map| map.into_iter().collect());
    let call = ("[a-z_]{1,8}", arguments).prop_map(|(name, arguments)| Part::Call(name, arguments));
    prop::collection::vec(prop_oneof![content, call], 1..5)
}

fn written(format: CallFormat, name: &str, arguments: &Map<String, Value>) -> String {
    let object = Value::Object(arguments.clone());
    let tagged = |before: &str, between: &str, after: &str, line: &str| {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        arguments
            .iter()
            .map(|(key, value)| format!("{before}{key}{between}{line}{}{line}{after}\n", text(value)))
            .collect::<String>()
    };
    let fields = |python: bool| {
        let write: fn(&Value) -> String = if python { in_python } else { in_gemma };
        let equals = if python { "=" } else { ":" };
        arguments.iter().map(|(key, value)| format!("{key}{equals}{}", write(value))).collect::<Vec<_>>().join(",")
    };
    match format {
        CallFormat::Hermes => format!("<tool_call>\n{{\"name\": {name:?}, \"arguments\": {object}}}\n</tool_call>"),
        CallFormat::QwenXml => format!(
            "<tool_call>\n<function={name}>\n{}</function>\n</tool_call>",
            tagged("<parameter=", ">", "</parameter>", "\n")
        ),
        CallFormat::Glm => format!(
            "<tool_call>{name}\n{}</tool_call>",
            tagged("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>", "")
        ),
        CallFormat::LlamaJson => format!("{{\"name\": {name:?}, \"parameters\": {object}}}"),
        CallFormat::Mistral => format!("⟦[TOOL_CALLS]⟧{name}⟦[ARGS]⟧{object}"),
        CallFormat::Pythonic => format!("[{name}({})]", fields(true)),
        CallFormat::Gemma => format!("⟦<|tool_call>⟧call:{name}{{{}}}⟦<tool_call|>⟧", fields(false)),
        CallFormat::Harmony => format!(
            "⟦<|start|>⟧assistant⟦<|channel|>⟧commentary to=functions.{name} ⟦<|constrain|>⟧json⟦<|message|>⟧{object}⟦<|call|>⟧"
        ),
    }
}

fn in_python(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n")),
        Value::Array(items) => format!("[{}]", items.iter().map(in_python).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => format!(
            "{{{}}}",
            map.iter().map(|(key, value)| format!("'{key}': {}", in_python(value))).collect::<Vec<_>>().join(",")
        ),
        number => number.to_string(),
    }
}

fn in_gemma(value: &Value) -> String {
    match value {
        Value::String(text) => format!("⟦<|\"|>⟧{text}⟦<|\"|>⟧"),
        Value::Array(items) => format!("[{}]", items.iter().map(in_gemma).collect::<Vec<_>>().join(",")),
        Value::Object(map) => format!(
            "{{{}}}",
            map.iter().map(|(key, value)| format!("{key}:{}", in_gemma(value))).collect::<Vec<_>>().join(",")
        ),
        other => other.to_string(),
    }
}

/// Tools whose arguments have the types of these values.
fn schemas(parts: &[Part]) -> Vec<ToolSchema> {
    let schema = |value: &Value| match value {
        Value::Null => json!({ "type": ["null", "integer"] }),
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Number(_) => json!({ "type": "integer" }),
        Value::String(_) => json!({ "type": "string" }),
        Value::Array(_) => json!({ "type": "array" }),
        Value::Object(_) => json!({ "type": "object" }),
    };
    let tool = |part: &Part| match part {
        Part::Content(_) => None,
        Part::Call(name, arguments) => {
            let properties: Map<String, Value> =
                arguments.iter().map(|(key, value)| (key.clone(), schema(value))).collect();
            Some(ToolSchema { name: name.clone(), parameters: json!({ "properties": properties }) })
        }
    };
    parts.iter().filter_map(tool).collect()
}

const FORMATS: [CallFormat; 8] = [
    CallFormat::Hermes,
    CallFormat::QwenXml,
    CallFormat::LlamaJson,
    CallFormat::Pythonic,
    CallFormat::Mistral,
    CallFormat::Gemma,
    CallFormat::Glm,
    CallFormat::Harmony,
];

proptest! {
    /// What a model of any format writes is read as it was meant, cut anywhere.
    #[test]
    fn calls_are_read_as_they_were_written(parts in parts(), cuts in prop::collection::vec(any::<bool>(), 64), which in 0..FORMATS.len()) {
        let calls = FORMATS[which];
        let bare = matches!(calls, CallFormat::LlamaJson | CallFormat::Pythonic);
        // Calls of one name have one schema, and without a marker calls come first.
        let mut names = std::collections::HashSet::new();
        let parts: Vec<Part> = parts.into_iter().filter(|part| match part {
            Part::Content(_) => !bare,
            Part::Call(name, _) => names.insert(name.clone()),
        }).collect();
        prop_assume!(!names.is_empty());
        let text: Vec<String> = parts.iter().map(|part| match part {
            Part::Content(text) if calls == CallFormat::Harmony => format!("⟦<|start|>⟧assistant⟦<|channel|>⟧final⟦<|message|>⟧{text}⟦<|end|>⟧"),
            Part::Content(text) => text.clone(),
            Part::Call(name, arguments) => written(calls, name, arguments),
        }).collect();
        let text = text.join("\n");
        let format = OutputFormat::new(Formats { reasoning: None, calls: Some(calls) }, schemas(&parts), "");
        let segments = read(&format, &[], &cut(&pieces(&text), |at| cuts[at % cuts.len()]));

        let (mut found, mut contents): (Vec<(String, String)>, Vec<String>) = (Vec::new(), Vec::new());
        for segment in segments {
            match segment {
                Segment::Call { name } => found.push((name, String::new())),
                Segment::Arguments(text) => found.last_mut().unwrap().1 += &text,
                Segment::Content(text) => contents.push(text),
                other => prop_assert!(false, "{:?} of {}", other, text),
            }
        }
        let meant: Vec<(&String, &Map<String, Value>)> = parts.iter().filter_map(|part| match part {
            Part::Call(name, arguments) => Some((name, arguments)),
            Part::Content(_) => None,
        }).collect();
        prop_assert_eq!(found.len(), meant.len(), "{}", text);
        for ((name, arguments), (meant_name, meant_arguments)) in found.iter().zip(meant) {
            prop_assert_eq!(name, meant_name);
            let arguments: Value = serde_json::from_str(arguments).unwrap();
            prop_assert_eq!(&arguments, &Value::Object(meant_arguments.clone()), "{}", text);
        }
        let text_only = |text: &str| text.split_whitespace().collect::<String>();
        let meant: String = parts.iter().map(|part| match part {
            Part::Content(text) => text_only(text),
            Part::Call(..) => String::new(),
        }).collect();
        prop_assert_eq!(text_only(&contents.concat()), meant);
    }

    /// Whatever comes, cuts do not matter, what went out stays, and nothing that opens a call is content.
    #[test]
    fn any_soup_of_markup_is_divided_alike_wherever_it_is_cut(
        soup in prop::collection::vec(prop::sample::select(vec![
            "<tool_call>", "</tool_call>", "<think>", "</think>", "<function=f>", "<parameter=a>", "</parameter>", "</function>", "{\"name\": \"f\"", ", ",
            "\"arguments\": ", "{\"a\": ", "1", "\"x\"", "}", "]", "[", "⟦[TOOL_CALLS]⟧", "⟦[ARGS]⟧", "f", "f(", "a=", ")", "⟦<|tool_call>⟧", "⟦<tool_call|>⟧",
            "call:f{", "a:", "⟦<|\"|>⟧", "<arg_key>k</arg_key>", "<arg_value>", "</arg_value>", "⟦<|channel|>⟧", "analysis", "final", "commentary to=functions.f",
            "⟦<|message|>⟧", "⟦<|end|>⟧", "⟦<|start|>⟧", "\n", " ", "<", "tool", "⟦<|im_end|>⟧", "é",
        ]), 0..24),
        cuts in prop::collection::vec(any::<bool>(), 64), which in 0..FORMATS.len(),
    ) {
        let calls = FORMATS[which];
        let reasoning = if calls == CallFormat::Harmony { ReasoningFormat::Harmony } else { ReasoningFormat::Think };
        let format = format(Some(reasoning), Some(calls));
        let whole = pieces(&soup.concat());
        let segments = read(&format, &[], &whole);
        prop_assert_eq!(&read(&format, &[], &cut(&whole, |at| cuts[at % cuts.len()])), &segments);
        prop_assert_eq!(&read(&format, &[], &cut(&whole, |_| true)), &segments);
        goes_out_once(&format, &whole, &segments);
        if matches!(calls, CallFormat::Hermes | CallFormat::QwenXml | CallFormat::Glm) {
            let leaks = segments.iter().any(|segment| matches!(segment, Segment::Content(text) if text.contains("<tool_call>")));
            prop_assert!(!leaks, "{:?}", segments);
        }
    }
}
