//! Structures that are meant to cost a lot: each is compiled or refused, and answers under it go on or fail, in bounded time.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Rng, Subject};
use mlx_serving_grammar::{GrammarError, Structure};
use serde_json::{Value, json};
use std::time::Instant;

fn hostile() -> Vec<(&'static str, Structure)> {
    let regex = |text: &str| Structure::Regex(text.into());
    let schema = Structure::Schema;
    let many = |count: usize, each: &dyn Fn(usize) -> Value| {
        (0..count).map(|i| (format!("p{i}"), each(i))).collect::<serde_json::Map<_, _>>()
    };
    let optional = json!({ "type": "object", "properties": many(2000, &|_| json!({})) });
    let product = |options: usize| json!({ "anyOf": (0..options).map(|i| json!({ "properties": many(10, &|j| json!({ "minLength": i + j })) })).collect::<Vec<_>>() });
    let nested = (0..60).fold(json!({}), |inner, i| json!({ "type": "object", "properties": { (format!("k{i}")): inner }, "required": [format!("k{i}")] }));
    let doubling = many(
        40,
        &|i| json!({ "type": "array", "items": [{ "$ref": format!("#/$defs/p{}", i + 1) }, { "$ref": format!("#/$defs/p{}", i + 1) }] }),
    );
    let siblings = many(
        40,
        &|i| json!({ "allOf": [{ "$ref": format!("#/$defs/p{}", i + 1) }, { "$ref": format!("#/$defs/p{}", i + 1) }] }),
    );
    let with_end = |mut defs: serde_json::Map<String, Value>| {
        defs.insert("p40".into(), json!({}));
        json!({ "$defs": defs, "$ref": "#/$defs/p0" })
    };
    let patterns: serde_json::Map<_, _> = (0..30).map(|i| (format!("^a{{{i}}}b*c{{{i}}}$"), json!({}))).collect();
    let chain: String =
        (0..4000).map(|i| format!("r{i}: r{}\n", i + 1)).chain(["r4000: \"x\"\nstart: r0\n".into()]).collect();
    vec![
        ("repeats of repeats", regex("(a{1000}){1000}")),
        ("optional repeats", regex("((a?){1,500}){1,500}")),
        ("a counter", regex("(a|b)*a(a|b){200}")),
        ("many classes", regex(&"\\w\\W\\s".repeat(650))),
        ("alternatives", regex(&(0..700).map(|i| format!("w{i}")).collect::<Vec<_>>().join("|"))),
        ("brackets", regex(&("(".repeat(2000) + "a" + &")".repeat(2000)))),
        ("letters in a row", regex(&"a?".repeat(2_000))),
        ("optional properties", schema(optional)),
        ("products of alternatives", schema(json!({ "allOf": [product(100), product(100), product(100)] }))),
        ("levels", schema(nested)),
        ("doubling tuples", schema(with_end(doubling))),
        ("doubling intersections", schema(with_end(siblings))),
        ("overlapping names", schema(json!({ "patternProperties": patterns }))),
        ("long texts", schema(json!({ "type": "string", "minLength": 100_000, "maxLength": 4_000_000_000_u64 }))),
        (
            "long arrays",
            schema(json!({ "type": "array", "items": {}, "minItems": 1_000_000, "maxItems": 4_000_000_000_u64 })),
        ),
        (
            "a long pattern",
            schema(json!({ "type": "string", "pattern": "^(\\w+\\.){1,400}\\w{1,400}$", "minLength": 300 })),
        ),
        ("a long constant", schema(json!({ "const": "x".repeat(30 << 10) }))),
        ("many choices", Structure::Choice((0..30_000).map(|i| format!("c{i}")).collect())),
        ("itself", schema(json!({ "$ref": "#" }))),
        (
            "each other",
            schema(
                json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } }, "$ref": "#/$defs/a" }),
            ),
        ),
        (
            "no end",
            schema(
                json!({ "type": "object", "properties": { "n": { "$ref": "#" } }, "required": ["n"], "additionalProperties": false }),
            ),
        ),
        ("a chain of rules", Structure::Lark(chain)),
        ("left recursion", Structure::Lark("start: start start | \"a\" | \"\"\n".into())),
        ("ambiguity", Structure::Lark("start: a a a a a a\na: a a | \"a\" | \"aa\" | /a*/ | \"\"\n".into())),
        ("brackets in rules", Structure::Lark(format!("start: {}\"a\"{}\n", "(".repeat(20_000), ")".repeat(20_000)))),
        ("repeated rules", Structure::Lark("start: (a{1000}){1000}\na: \"x\" | \"y\" start\n".into())),
        ("a repeat of repeats behind a text", regex("x(a{1000}){1000}")),
        ("a long choice", Structure::Choice(vec!["the cat ".repeat(500), "a".into()])),
        ("large grammars", Structure::Lark("start: \"x\"\n".to_owned() + &"a: \"y\"\n".repeat(10_000))),
        ("too large", regex(&"a".repeat(300 << 10))),
    ]
}

#[test]
fn hostile_structures_are_compiled_or_refused_and_never_hang() {
    let subject = Subject::bundled();
    for (name, structure) in hostile() {
        let start = Instant::now();
        let compiled = subject.compile(&structure);
        let compiling = start.elapsed();
        let outcome = match compiled {
            Err(GrammarError::Structure { message }) => message,
            Err(error) => panic!("{name}: {error}"),
            Ok(grammar) => {
                let (mut matcher, mut rng, mut slowest) = (grammar.matcher(), Rng::new(5), std::time::Duration::ZERO);
                let mut steps = 0;
                let error = loop {
                    if matcher.ended() || steps == 60 {
                        break None;
                    }
                    let start = Instant::now();
                    let allowed = subject.allowed(&mut matcher);
                    slowest = slowest.max(start.elapsed());
                    match allowed {
                        Ok(allowed) => {
                            let pick = allowed[rng.below(allowed.len())];
                            let start = Instant::now();
                            if let Err(error) = matcher.take(pick) {
                                break Some(error);
                            }
                            slowest = slowest.max(start.elapsed());
                        }
                        Err(error) => break Some(error),
                    }
                    steps += 1;
                };
                format!("{steps} steps, the slowest {slowest:?}, {error:?}")
            }
        };
        eprintln!("{name}: {compiling:?}: {outcome}");
    }
}
