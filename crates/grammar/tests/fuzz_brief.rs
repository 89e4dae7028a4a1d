//! The fuzz targets on the stable toolchain: schemas, grammars and answers, mutated from fixed seeds. They return, whatever the bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Rng, Subject};
use mlx_serving_grammar::fuzz;

const SCHEMA: &[u8] = br##"{"$defs":{"a/b":{"type":"string","pattern":"^[a-z&]{2,}\\d$","maxLength":9}},"type":"object","properties":{"x":{"$ref":"#/$defs/a~1b"},
    "y":{"type":["integer","null"],"minimum":-5,"multipleOf":2},"z":{"oneOf":[{"const":"p"},{"type":"array","items":{"$ref":"#"},"maxItems":3}]}},
    "required":["x"],"patternProperties":{"^q":{"enum":[1,"two",{"k":[null]}]}},"additionalProperties":false}"##;
const LARK: &[u8] = b"start: (a | B)* %json {\"type\": \"array\", \"items\": {\"format\": \"date\"}} // end\na[lazy, max_tokens=3]: /[^\"]+/ \"x\\\"y\"\nB: \"b\"i & ~/c/\n";

/// Makes one to four edits: a piece doubled, moved or removed, or a byte replaced by a telling one.
fn mutate(valid: &[u8], rng: &mut Rng) -> Vec<u8> {
    const TELLING: &[u8] = b"{}[]()|\"\\/:,*+?^$-.0195 \n\0\xff";
    let mut bytes = valid.to_vec();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len());
        let end = (at + 1 + rng.below(30)).min(bytes.len());
        match rng.below(4) {
            0 => bytes[at] = rng.pick(TELLING),
            1 if end - at < bytes.len() => drop(bytes.drain(at..end)),
            _ => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
        }
    }
    bytes
}

#[test]
fn mutated_structures_are_taken_or_refused() {
    let mut rng = Rng::new(7);
    for valid in [SCHEMA, LARK] {
        (0..5_000).for_each(|_| fuzz::structure(&mutate(valid, &mut rng)));
    }
}

#[test]
fn mutated_structures_are_compiled_and_followed_or_refused() {
    let subject = Subject::metaspace();
    let mut rng = Rng::new(8);
    for (valid, answer) in [(SCHEMA, &b"\0{\"x\": \"abc1\", \"y\": 4}"[..]), (LARK, &b"\0aaxb[\"2026-01-01\"]"[..])] {
        let whole = [valid, answer].concat();
        (0..150).for_each(|_| fuzz::answer(&subject.compiler, &subject.tokenizer, &mutate(&whole, &mut rng)));
    }
}
