//! Masks against what can be taken, token by token.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Rng, Subject, random};
use mlx_serving_grammar::{Grammar, GrammarError, Structure};
use serde_json::json;

/// Structures that have forced texts, choices, ends that may be passed, and bytes that are no characters of their own.
fn structures() -> Vec<Structure> {
    vec![
        Structure::Object,
        Structure::Regex("(ab|a)*c?".into()),
        Structure::Regex("[a-z]{2,4} ?\u{e4}*".into()),
        Structure::Choice(vec!["the cat".into(), "the".into(), "\u{20ac}".into()]),
        Structure::Schema(json!({
            "type": "object",
            "properties": { "the": { "enum": ["cat", "car", 12, null] }, "an": { "type": "array", "items": { "type": "integer" }, "maxItems": 3 } },
            "required": ["the"],
            "additionalProperties": false,
        })),
        Structure::Lark("start: a \".\"\na: \"(\" a \")\" | WORD\nWORD: /[a-z]+/\n".into()),
    ]
}

fn after(grammar: &Grammar, ids: &[u32]) -> mlx_serving_grammar::Matcher {
    let mut matcher = grammar.matcher();
    ids.iter().for_each(|&id| matcher.take(id).unwrap());
    matcher
}

#[test]
fn a_mask_has_exactly_the_tokens_that_can_be_taken() {
    let subject = Subject::metaspace();
    let mut rng = Rng::new(1);
    for structure in structures() {
        let grammar = subject.compile(&structure).unwrap();
        for _ in 0..4 {
            let ids = subject.walk(&grammar, &mut rng, 25).unwrap_or_default();
            for at in 0..ids.len() {
                let mut matcher = after(&grammar, &ids[..at]);
                let forced = !matcher.forced().unwrap().is_empty();
                let allowed = subject.allowed(&mut matcher).unwrap();
                for id in 0..subject.vocab as u32 {
                    let taken = after(&grammar, &ids[..at]).take(id).is_ok();
                    let masked = allowed.contains(&id);
                    assert!(taken || !masked, "{id} is in the mask after {:?}", &ids[..at]);
                    // A forced text is cut in one way, and of two tokens of the same bytes one is enough.
                    let twin = allowed
                        .iter()
                        .any(|&other| !subject.is_end(other) && subject.bytes(other) == subject.bytes(id));
                    assert!(
                        !taken || masked || forced || twin,
                        "{id} is missing after {:?} of {structure:?}",
                        &ids[..at]
                    );
                }
            }
        }
    }
}

#[test]
fn forced_tokens_are_what_masks_one_by_one_would_leave() {
    let (bundled, metaspace) = (Subject::bundled(), Subject::metaspace());
    let mut found = 0;
    for subject in [&bundled, &metaspace] {
        let mut rng = Rng::new(2);
        let schemas = (0..30).map(|_| Structure::Schema(random::schema(&mut rng))).collect::<Vec<_>>();
        for structure in schemas.iter().chain(&structures()) {
            let Ok(grammar) = subject.compile(structure) else { continue };
            let ids = subject.walk(&grammar, &mut Rng::new(3), 60).unwrap_or_default();
            let mut at = 0;
            while at < ids.len() {
                let forced = after(&grammar, &ids[..at]).forced().unwrap();
                let mut matcher = after(&grammar, &ids[..at]);
                for &token in &forced {
                    assert_eq!(subject.allowed(&mut matcher).unwrap(), [token], "{:?}", subject.text(&ids[..at]));
                    matcher.take(token).unwrap();
                }
                // Taken as a run, they leave the same choice.
                let mut run = after(&grammar, &ids[..at]);
                run.forced().unwrap().into_iter().for_each(|token| run.take(token).unwrap());
                assert_eq!(run.ended(), matcher.ended());
                assert_eq!(subject.allowed(&mut run).unwrap(), subject.allowed(&mut matcher).unwrap());
                found += forced.len();
                at += forced.len().max(1);
            }
        }
    }
    assert!(found > 100, "{found} forced tokens");
}

#[test]
fn forced_text_is_cut_as_the_tokenizer_cuts_it() {
    for subject in [Subject::bundled(), Subject::metaspace()] {
        let text = "the program has a cat and the other one, too";
        let grammar = subject.compile(&Structure::Regex(format!("{text}[.]"))).unwrap();
        let forced = grammar.matcher().forced().unwrap();
        assert_eq!(subject.text(&forced), format!("{text}."));
        // Without the space that sentencepiece tokenizers put before a text, which is none of this text.
        let whole = subject.tokenizer.encode(&format!("\n{text}."), false).unwrap();
        assert!(whole.ends_with(&forced), "{forced:?} is no end of {whole:?}");
        assert!(forced.len() < text.len() / 2 || subject.vocab < 1000);
    }
}

#[test]
fn end_tokens_come_where_the_text_may_end_and_alone_where_it_has_ended() {
    let subject = Subject::bundled();
    let grammar = subject.compile(&Structure::Regex("ab?".into())).unwrap();
    let (a, b) = (subject.tokenizer.token_to_id("a").unwrap(), subject.tokenizer.token_to_id("b").unwrap());
    let mut matcher = grammar.matcher();
    assert!(!subject.allowed(&mut matcher).unwrap().iter().any(|&id| subject.is_end(id)));
    matcher.take(a).unwrap();
    assert!(!matcher.ended());
    assert_eq!(subject.allowed(&mut matcher).unwrap().len(), 2, "b, or the end");
    let mut other = after(&grammar, &[a]);
    other.take(subject.ends[0]).unwrap();
    assert!(other.ended());
    matcher.take(b).unwrap();
    assert!(matcher.ended());
    assert_eq!(subject.allowed(&mut matcher).unwrap(), subject.ends);
    assert!(matcher.forced().unwrap().is_empty());
    matcher.take(subject.ends[0]).unwrap();
    assert!(matcher.ended());
    assert!(matches!(matcher.take(a), Err(GrammarError::Step { .. })));
}

#[test]
fn special_tokens_come_only_where_a_grammar_names_them() {
    let subject = Subject::bundled();
    let specials: Vec<u32> =
        (0..subject.vocab as u32).filter(|&id| subject.tokenizer.is_special(id) && !subject.is_end(id)).collect();
    let &special = specials.first().unwrap();
    let mut free = subject.lark("start: /(?s:.*)/\n").matcher();
    let allowed = subject.allowed(&mut free).unwrap();
    assert!(specials.iter().all(|id| !allowed.contains(id)));
    assert!(allowed.len() > 4000, "all other tokens of the tokenizer");
    let name = subject.tokenizer.id_to_token(special).unwrap();
    for named in [format!("<[{special}]>"), name.clone()] {
        let grammar = subject.lark(&format!("start: \"a\" {named} \"b\"\n"));
        let mut matcher = grammar.matcher();
        matcher.take(subject.tokenizer.token_to_id("a").unwrap()).unwrap();
        assert_eq!(subject.allowed(&mut matcher).unwrap(), [special]);
        matcher.take(special).unwrap();
        assert_eq!(subject.allowed(&mut matcher).unwrap(), [subject.tokenizer.token_to_id("b").unwrap()]);
    }
    // Its name as a text is a text.
    let grammar = subject.compile(&Structure::Choice(vec![name.clone()])).unwrap();
    let forced = grammar.matcher().forced().unwrap();
    assert!(!forced.contains(&special));
    assert_eq!(subject.text(&forced), name);
}

#[test]
fn a_token_that_is_not_allowed_is_an_error_and_so_is_all_after_it() {
    let subject = Subject::bundled();
    let grammar = subject.compile(&Structure::Object).unwrap();
    for token in [subject.tokenizer.token_to_id("a").unwrap(), subject.ends[0], subject.vocab as u32 - 1, u32::MAX] {
        let mut matcher = grammar.matcher();
        assert!(matches!(matcher.take(token), Err(GrammarError::Step { .. })), "{token}");
        assert!(!matcher.ended());
        assert!(subject.allowed(&mut matcher).is_err());
        assert!(matcher.forced().is_err());
    }
    // Others of the same grammar go on.
    assert!(subject.walk(&grammar, &mut Rng::new(4), 4000).is_some());
}

#[test]
fn a_canceled_matcher_says_so_and_no_other_is_disturbed() {
    let subject = Subject::bundled();
    let grammar = subject.compile(&Structure::Object).unwrap();
    let mut matcher = grammar.matcher();
    matcher.canceler().cancel();
    assert!(matches!(subject.allowed(&mut matcher), Err(GrammarError::Step { .. })));
    assert!(!matcher.ended());
    assert!(subject.allowed(&mut grammar.matcher()).is_ok());
}

#[test]
fn matchers_go_to_other_threads() {
    fn send<T: Send>() {}
    fn share<T: Send + Sync + Clone + std::fmt::Debug>() {}
    send::<mlx_serving_grammar::Matcher>();
    share::<mlx_serving_grammar::Compiler>();
    share::<Grammar>();
}
