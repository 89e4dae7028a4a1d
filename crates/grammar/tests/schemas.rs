//! Answers under random schemas: every one that ends is JSON that an independent validator takes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Rng, Subject, random};
use mlx_serving_grammar::{GrammarError, Structure};
use serde_json::Value;

/// Tokens after which an answer is cut, as `max_tokens` does.
const MOST: usize = 400;

#[derive(Debug, Default)]
struct Seen {
    valid: usize,
    cut: usize,
    refused: usize,
}

/// Checks an answer under the schema of a seed.
fn answer(subject: &Subject, seed: u64, seen: &mut Seen) {
    let mut rng = Rng::new(seed);
    let schema = random::schema(&mut rng);
    let grammar = match subject.compile(&Structure::Schema(schema.clone())) {
        Ok(grammar) => grammar,
        Err(GrammarError::Structure { message }) => {
            let expected = [
                "nsatisfiable",
                "none ends",
                "is supported",
                "not supported",
                "only supported",
                "can't determine",
                "disjoint",
                "Unable to determine",
            ];
            assert!(expected.iter().any(|words| message.contains(words)), "seed {seed}: {message}\n{schema}");
            seen.refused += 1;
            return;
        }
        Err(error) => panic!("seed {seed}: {error}\n{schema}"),
    };
    let walked = subject.try_walk(&grammar, &mut rng, MOST);
    let walked = walked.unwrap_or_else(|(error, text)| {
        panic!(
            "seed {seed}: {error} after {text}
{schema}"
        )
    });
    let Some(ids) = walked else {
        seen.cut += 1;
        return;
    };
    let text = subject.text(&ids);
    let value: Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        // JSON has no largest number, serde_json has.
        Err(error) if error.to_string().contains("out of range") => return,
        Err(error) => panic!("seed {seed}: {error} in {text}\n{schema}"),
    };
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    // The validator holds numbers as f64, and so cannot say whether one of that size keeps to a bound or is a multiple.
    let held = |e: &jsonschema::ValidationError| e.instance().as_f64().is_none_or(|number| number.abs() < 9e15);
    let errors = validator.iter_errors(&value).filter(held);
    let errors: Vec<String> = errors.map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert!(errors.is_empty(), "seed {seed}: {errors:?}\n{text}\n{schema}");
    seen.valid += 1;
}

fn answers(seeds: std::ops::Range<u64>) {
    let subject = Subject::bundled();
    let mut seen = Seen::default();
    let count = (seeds.end - seeds.start) as usize;
    seeds.for_each(|seed| answer(&subject, seed, &mut seen));
    assert!(seen.valid > count / 2, "{seen:?}");
    assert!(seen.refused < count / 4, "{seen:?}");
    eprintln!("{seen:?}");
}

#[test]
fn every_answer_under_a_random_schema_validates_or_is_cut() {
    answers(0..300);
}

#[test]
#[ignore = "slow"]
fn every_answer_under_ten_thousand_random_schemas_validates_or_is_cut() {
    answers(1_000..11_000);
}
