//! Refusals, by name and place, and what is not refused.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::Subject;
use mlx_serving_grammar::{GrammarError, Structure};
use serde_json::{Value, json};

#[test]
fn a_schema_is_refused_by_keyword_and_place() {
    let subject = Subject::metaspace();
    let deep = (0..70).fold(json!({}), |inner, _| json!({ "items": inner }));
    for (schema, at, says) in [
        (json!({ "properties": { "a": { "not": {} } } }), "#/properties/a/not", "`not` is not supported"),
        (json!({ "if": {}, "then": {} }), "#/if", "`if` is not supported"),
        (json!({ "items": { "uniqueItems": true } }), "#/items/uniqueItems", "`uniqueItems` is not supported"),
        (
            json!({ "properties": { "a/b": { "dependentRequired": {} } } }),
            "#/properties/a~1b/dependentRequired",
            "not supported",
        ),
        (json!({ "type": "string", "format": "regex" }), "#/format", "`format` \"regex\" is not supported"),
        (json!({ "type": "string", "pattern": "(?=a)b" }), "#/pattern", "look-around"),
        (json!({ "type": "string", "pattern": "a\\b" }), "#/pattern", "word boundaries (`\\b`) are not supported"),
        (json!({ "type": "string", "pattern": "a^b" }), "#/pattern", "at the ends only"),
        (json!({ "multipleOf": 0 }), "#/multipleOf", "expected a number above 0"),
        (json!({ "multipleOf": 1e-12 }), "#/multipleOf", "so many digits"),
        (json!({ "type": "string", "pattern": "(" }), "#/pattern", "unclosed group"),
        (json!({ "patternProperties": { "\\1": {} } }), "#/patternProperties/\\1", "backreferences"),
        (json!({ "$ref": "#/$defs/none" }), "#/$ref", "points to nothing"),
        (json!({ "$ref": "https://example.com/schema" }), "#/$ref", "remote references are not supported"),
        (
            json!({ "$defs": { "a": { "contains": {} } }, "items": { "$ref": "#/$defs/a" } }),
            "#/$defs/a/contains",
            "`contains`",
        ),
        (
            json!({ "anyOf": [{}, { "type": "text" }] }),
            "#/anyOf/1/type",
            "\"text\" is not a type; expected one or more of",
        ),
        (json!({ "type": ["string", 3] }), "#/type", "3 is not a type"),
        (json!({ "anyOf": [{}, 3] }), "#/anyOf/1", "expected an object or a boolean"),
        (json!({ "anyOf": {} }), "#/anyOf", "expected an array"),
        (json!({ "items": { "anyOf": [] } }), "#/items/anyOf", "an empty list allows no value"),
        (json!({ "minLength": -1 }), "#/minLength", "whole number"),
        (json!({ "const": 1e300 }), "#/const", "2^53"),
        (json!({ "enum": [9_007_199_254_740_993_u64] }), "#/enum/0", "2^53"),
        (json!({ "const": "\u{1}" }), "#/const", "U+0001"),
        (json!({ "minProperties": 2, "required": [] }), "#/minProperties", "additionalProperties"),
        (json!({ "items": { "$id": "https://example.com/s" } }), "#/items/$id", "at the top only"),
        (deep, "#/items/items", "more than 64 levels"),
        (json!(false), "#", "nothing is allowed"),
        (json!({ "$ref": "#" }), "#", "none ends"),
        (
            json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "anyOf": [{ "$ref": "#/$defs/a" }] } }, "items": { "$ref": "#/$defs/a" } }),
            "#/$defs/",
            "none ends",
        ),
        (json!({ "type": "object", "properties": { "n": { "$ref": "#" } }, "required": ["n"] }), "#", "none ends"),
        (json!({ "type": "array", "items": { "$ref": "#" }, "minItems": 1 }), "#", "none ends"),
        (json!({ "type": "number", "minimum": 1, "maximum": 4, "multipleOf": 5 }), "#/multipleOf", "no multiple"),
        (json!({ "const": "x".repeat(40_000) }), "#/const", "more than 32768 bytes"),
        (json!({ "pattern": "x".repeat(5_000) }), "#/pattern", "more than 4096 bytes"),
    ] {
        let message = subject.refusal(&Structure::Schema(schema));
        assert!(message.starts_with(&format!("schema at {at}")), "{message}");
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn alternatives_that_may_overlap_are_refused_and_others_are_not() {
    let subject = Subject::metaspace();
    let tagged = |tag: &str| json!({ "type": "object", "properties": { "t": { "const": tag } }, "required": ["t"], "additionalProperties": false });
    let by_reference = json!({
        "$defs": { "A": tagged("a"), "B": tagged("b") },
        "oneOf": [{ "$ref": "#/$defs/A" }, { "$ref": "#/$defs/B" }],
        "discriminator": { "propertyName": "t" },
    });
    for apart in [
        json!({ "oneOf": [{ "type": "string" }, { "type": "integer" }] }),
        json!({ "oneOf": [tagged("a"), tagged("b")] }),
        by_reference,
        json!({ "oneOf": [{ "enum": ["a", "b"] }, { "const": "c" }], "anyOf": [{ "type": "string" }], "allOf": [{}] }),
    ] {
        subject.compile(&Structure::Schema(apart)).unwrap();
    }
    for overlapping in [
        json!({ "oneOf": [{ "type": "number" }, { "type": "integer" }] }),
        json!({ "oneOf": [tagged("a"), tagged("a")] }),
        json!({ "oneOf": [{ "type": "string", "minLength": 1 }, { "type": "string", "maxLength": 3 }] }),
    ] {
        let message = subject.refusal(&Structure::Schema(overlapping));
        assert!(message.contains("`oneOf`") && message.contains("`anyOf`"), "{message}");
    }
}

#[test]
fn annotations_and_keywords_of_nobody_say_nothing() {
    let subject = Subject::bundled();
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://example.com/s", "title": "T", "description": "d", "x-order": 1,
        "type": "object", "x-guidance": { "lenient": true }, "deprecated": true,
        "properties": { "a": { "type": "integer", "format": "int32", "default": 7, "examples": [1], "pattern": "x" } },
        "required": ["a"], "additionalProperties": false, "definitions": { "unused": { "not": {} } },
    });
    let grammar = subject.compile(&Structure::Schema(schema)).unwrap();
    assert!(subject.takes(&grammar, "{\"a\": 12}"));
    assert!(!subject.takes(&grammar, "{\"a\": \"x\"}"));
}

#[test]
fn a_schema_says_what_the_standard_says() {
    let subject = Subject::bundled();
    let takes =
        |schema: &Value, text: &str| subject.takes(&subject.compile(&Structure::Schema(schema.clone())).unwrap(), text);
    let open = json!({ "type": "object", "properties": { "a": { "type": "integer" } } });
    assert!(takes(&open, "{}"));
    assert!(takes(&open, "{\"a\": 1, \"b\": \"x\"}"), "further properties, unless they are excluded");
    assert!(!takes(&open, "{\"b\": 1, \"a\": 1}"), "named properties come first, in their order");
    assert!(!takes(&open, "{\"a\": 1, \"\\u0061\": \"x\"}"), "a name has one spelling");
    let recursive = json!({ "type": "object", "properties": { "n": { "$ref": "#" } }, "additionalProperties": false });
    assert!(takes(&recursive, "{\"n\": {\"n\": {}}}"));
    assert!(!takes(&recursive, "{\"n\": 1}"));
    let escaped = json!({ "$defs": { "a/b c": { "const": 1 } }, "$ref": "#/$defs/a~1b%20c" });
    assert!(takes(&escaped, "1"));
    let class = json!({ "type": "string", "pattern": "^[a[b]$" });
    assert!(takes(&class, "\"[\""), "JavaScript has no classes in classes");
    assert!(takes(&json!({ "pattern": "^a", "minLength": 2.0 }), "\"ab\""));
    assert!(takes(&json!({ "pattern": "^a" }), "[1, 2]"), "keywords of strings say nothing of arrays");
}

#[test]
fn json_is_written_on_one_line_with_single_spaces() {
    let subject = Subject::bundled();
    let grammar = subject.compile(&Structure::Object).unwrap();
    assert!(subject.takes(&grammar, "{\"a\": [1, {\"b\": null}]}"));
    for text in ["{\"a\":1}", "{ \"a\": 1}", "{\n}", " {}", "{\"a\": 1,  \"b\": 2}", "[]", "{\"a\": 1} "] {
        assert!(!subject.takes(&grammar, text), "{text}");
    }
}

#[test]
fn expressions_choices_and_grammars_are_refused_by_their_own_words() {
    let subject = Subject::metaspace();
    let regex = |text: &str| Structure::Regex(text.into());
    let lark = |text: &str| Structure::Lark(text.into());
    for (structure, says) in [
        (regex("a("), "regular expression: unclosed group"),
        (regex("(?!a)b"), "regular expression: look-around"),
        (regex(""), "regular expression: it is empty"),
        (regex("a(?P<stop>b)"), "regular expression: a group that is called `stop`"),
        (Structure::Choice(vec![]), "choice: there is no text"),
        (Structure::Choice(vec![String::new()]), "choice: a text is empty"),
        (Structure::Choice(vec!["a".into(), "x".repeat(4097)]), "choice: a text has more than 4 KiB"),
        (lark(""), "grammar: "),
        (lark("start: other"), "grammar: "),
        (lark("a: \"b\""), "grammar: "),
        (lark("start: \"a\n"), "grammar: "),
        (lark("start: <|nothing|>"), "grammar: line 1, column 8: unknown special token"),
        (regex("a\\b"), "regular expression: word boundaries (`\\b`) are not supported"),
        (lark("start: a\na[stop=\"x\"]: /.*/"), "grammar, line 2: `stop` is not supported"),
        (lark("start: a\na[temperature=0.5]: /.*/"), "grammar, line 2: `temperature` is not supported"),
    ] {
        let message = subject.refusal(&structure);
        assert!(message.starts_with(says), "{structure:?}: {message}");
        assert!(!message.contains('\n') && message.len() < 1000, "{message}");
        assert!(!message.contains("special tokens are available"), "{message}");
    }
    for fine in [
        lark("start: /stop=[(]/ a?\na: \"temperature=(\" // [stop=1]\n"),
        regex("^a/b\\/c$"),
        regex("\n"),
        Structure::Choice(vec!["x".repeat(4096)]),
    ] {
        subject.compile(&fine).unwrap();
    }
}

#[test]
fn one_who_no_longer_waits_gets_nothing() {
    let subject = Subject::metaspace();
    let slow = Structure::Regex("(a{1,50}){1,50}".into());
    let mut asked = 0;
    let found = subject.compiler.compile(&slow, &mut || {
        asked += 1;
        false
    });
    assert!(matches!(found, Ok(_) | Err(GrammarError::Canceled)));
}

/// The reason for which a structure is refused.
fn refusal(subject: &Subject, structure: &Structure) -> String {
    match subject.compile(structure) {
        Err(GrammarError::Structure { message }) => message,
        other => panic!("{structure:?}: {other:?}"),
    }
}

#[test]
fn repeats_within_each_other_are_refused_by_name() {
    let subject = Subject::bundled();
    for (regex, repeat) in [("(x{1000}){1000}N", "`x{1000}`"), ("a(b{2,90}c{3}){1,900}", "`b{2,90}`")] {
        let message = refusal(&subject, &Structure::Regex(regex.into()));
        assert!(message.contains(repeat) && message.contains("at most 50000"), "{message}");
        let pattern = json!({ "type": "string", "pattern": regex });
        let message = refusal(&subject, &Structure::Schema(pattern));
        assert!(message.contains(repeat), "{message}");
    }
    subject.compile(&Structure::Regex("(x{10}y){100}".into())).unwrap();
    // A grammar's expressions are not read here: what they force is bounded all the same.
    let message = refusal(&subject, &Structure::Lark("start: /(x{1000}){1000}N/\n".into()));
    assert!(message.contains("too many states"), "{message}");
}

fn last_required(properties: usize) -> Structure {
    let each = |i| (format!("p{i}"), json!({ "type": "integer" }));
    let properties: serde_json::Map<String, Value> = (0..properties).map(each).collect();
    let last = properties.keys().next_back().cloned();
    Structure::Schema(
        json!({ "type": "object", "properties": properties, "required": [last], "additionalProperties": false }),
    )
}

#[test]
fn what_would_fail_after_a_few_tokens_is_refused_at_once() {
    let subject = Subject::bundled();
    subject.compile(&last_required(700)).unwrap();
    let message = refusal(&subject, &last_required(1100));
    assert!(message.contains("max is 3000") || message.contains("limit 12000"), "{message}");
    let message = refusal(&subject, &Structure::Regex("(.{1,60}[aeiou]){60}".into()));
    assert!(message.contains("too many expressions"), "{message}");
}
