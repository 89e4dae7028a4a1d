//! Time and memory of grammars: `cargo run --release -p mlx-serving-grammar --example cost`.
//!
//! Two vocabularies: the bundled model's, and a random one of 151 936 byte-level tokens, the size of Qwen's. Answers are random walks.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for measurements")]

use mlx_serving_grammar::{Compiler, Grammar, Structure};
use mlx_serving_text::Tokenizer;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const VOCAB: usize = 151_936;
/// Answers of a schema, and tokens of one at most.
const ANSWERS: usize = 40;
const MOST: usize = 200;

fn main() {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit");
    let bundled = Tokenizer::from_dir(&bundled).unwrap();
    measure("bundled", &bundled, bundled.vocab_size());
    let dir = tempfile::tempdir().unwrap();
    random_tokenizer(dir.path());
    let large = Tokenizer::from_dir(dir.path()).unwrap();
    measure("151k", &large, VOCAB);
}

fn measure(name: &str, tokenizer: &Tokenizer, vocab: usize) {
    let eos = tokenizer.token_to_id(tokenizer.eos_token().unwrap()).unwrap();
    let (before, start) = (resident_mib(), Instant::now());
    let compiler = Compiler::new(tokenizer, vocab, &[eos]).unwrap();
    println!("{name}: vocabulary {:.0} ms, {:.1} MiB", ms(start.elapsed()), resident_mib() - before);
    let bytes: Vec<Vec<u8>> = (0..vocab as u32).map(|id| tokenizer.token_bytes(id).unwrap()).collect();
    for (what, structure) in structures() {
        let (before, start) = (resident_mib(), Instant::now());
        let grammar = compiler.compile(&structure, &mut || true).unwrap();
        let compiled = start.elapsed();
        let start = Instant::now();
        let matchers: Vec<_> = (0..ANSWERS).map(|_| grammar.matcher()).collect();
        let each = start.elapsed() / ANSWERS as u32;
        drop(matchers);
        let (first, mut all, tokens, forced) = walks(&grammar, vocab, &bytes, eos);
        all.sort();
        let at = |share: f64| us(all[((all.len() - 1) as f64 * share) as usize]);
        println!(
            "  {what}: compile {:.2} ms, a matcher {:.0} us, first mask {:.0} us, masks p50 {:.0} p90 {:.0} p99 {:.0} max {:.0} us, mean {:.0}; \
             {tokens} tokens, {forced} forced; {:.1} MiB",
            ms(compiled),
            us(each),
            us(first),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
            us(all.iter().sum::<Duration>()) / all.len() as f64,
            resident_mib() - before
        );
    }
}

/// Time of the first mask, times of all masks with the `take` before them, tokens, and those of them that were forced.
fn walks(grammar: &Grammar, vocab: usize, bytes: &[Vec<u8>], eos: u32) -> (Duration, Vec<Duration>, usize, usize) {
    let (mut state, mut times, mut tokens, mut forced, mut first) =
        (88_172_645_463_325_252_u64, Vec::new(), 0, 0, Duration::ZERO);
    let mut words = vec![0; vocab.div_ceil(32)];
    for _ in 0..ANSWERS {
        let mut matcher = grammar.matcher();
        for _ in 0..MOST {
            if matcher.ended() {
                break;
            }
            let start = Instant::now();
            let run = matcher.forced().unwrap();
            for &token in &run {
                matcher.take(token).unwrap();
            }
            (tokens, forced) = (tokens + run.len(), forced + run.len());
            if matcher.ended() {
                break;
            }
            matcher.mask(&mut words).unwrap();
            let masked = start.elapsed();
            let allowed: Vec<u32> =
                (0..vocab as u32).filter(|&id| words[id as usize / 32] >> (id % 32) & 1 == 1).collect();
            let mut below = |bound: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 33) as usize % bound
            };
            let closing: Vec<u32> = allowed
                .iter()
                .copied()
                .filter(|&id| matches!(bytes[id as usize].first(), Some(b'"' | b'}' | b']')))
                .collect();
            let pick = if allowed.contains(&eos) {
                eos
            } else if !closing.is_empty() && below(12) == 0 {
                closing[below(closing.len())]
            } else {
                allowed[below(allowed.len())]
            };
            let start = Instant::now();
            matcher.take(pick).unwrap();
            if times.is_empty() {
                first = masked;
            }
            times.push(masked + start.elapsed());
            tokens += 1;
        }
    }
    (first, times, tokens, forced)
}

fn structures() -> Vec<(&'static str, Structure)> {
    let person = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string" },
            "age": { "type": "integer", "minimum": 0, "maximum": 130 },
            "mail": { "type": "string", "format": "email" },
            "tags": { "type": "array", "items": { "type": "string", "maxLength": 20 }, "maxItems": 5 },
            "kind": { "enum": ["customer", "supplier", "other"] },
        },
        "required": ["name", "age", "mail", "tags", "kind"],
        "additionalProperties": false,
    });
    let many: serde_json::Map<String, Value> = (0..120)
        .map(|i| {
            (format!("field_{i}"), json!({ "anyOf": [{ "type": "string", "maxLength": 40 + i }, { "type": "null" }] }))
        })
        .collect();
    vec![
        ("any object", Structure::Object),
        ("a person", Structure::Schema(person)),
        ("120 optional fields", Structure::Schema(json!({ "type": "object", "properties": many }))),
        ("an expression", Structure::Regex("(\\w+ ){3,12}\\w+[.]".into())),
        ("a choice", Structure::Choice(vec!["positive".into(), "neutral".into(), "negative".into()])),
    ]
}

/// A random byte-level tokenizer: each token but the bytes is two earlier ones in a row, mostly of letters.
fn random_tokenizer(dir: &Path) {
    let mut state = 88_172_645_463_325_252_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % bound
    };
    let letter = |byte: u8| -> char {
        let printable = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code =
            if printable(byte) { u32::from(byte) } else { 0x100 + (0..byte).filter(|&b| !printable(b)).count() as u32 };
        char::from_u32(code).unwrap()
    };
    let mut tokens: Vec<String> = (0..=255u8).map(|byte| letter(byte).to_string()).collect();
    let mut known: std::collections::HashMap<String, usize> =
        tokens.iter().cloned().enumerate().map(|(i, t)| (t, i)).collect();
    let common = b" etaoinshrdlucmfwygpbvk_ETAOIN0123456789\",:{}[]()-./";
    let mut usual: Vec<usize> = common.iter().map(|&byte| usize::from(byte)).collect();
    let mut merges = Vec::new();
    while tokens.len() < VOCAB - 300 {
        let pick = |below: &mut dyn FnMut(usize) -> usize, usual: &[usize]| {
            if below(40) == 0 { below(256) } else { usual[below(usual.len())] }
        };
        let (a, b) = (pick(&mut below, &usual), pick(&mut below, &usual));
        let joined = format!("{}{}", tokens[a], tokens[b]);
        if joined.chars().count() > 14 || known.contains_key(&joined) || b == usize::from(b' ') {
            continue;
        }
        merges.push([tokens[a].clone(), tokens[b].clone()]);
        known.insert(joined.clone(), tokens.len());
        usual.push(tokens.len());
        tokens.push(joined);
    }
    let end = tokens.len();
    let vocab: Value =
        tokens.into_iter().enumerate().map(|(i, t)| (t, json!(i))).collect::<serde_json::Map<_, _>>().into();
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let token = json!({ "id": end, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [token], "normalizer": null, "pre_tokenizer": bytes,
        "post_processor": null, "decoder": bytes,
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                   "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges },
    });
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(dir.join("tokenizer_config.json"), json!({ "eos_token": "<|end|>" }).to_string()).unwrap();
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) / 256.0
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
