//! A client's view of an answer's tokens: text, the place where each token's begins, and the end of the answer.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{bundled, metaspace};
use mlx_serving_text::{AnswerText, OutputFormat, StopMatcher, Tokenizer, content};

fn answer(tokenizer: &Tokenizer, stops: &[&str]) -> AnswerText {
    AnswerText::new(tokenizer, None, StopMatcher::new(stops).unwrap(), &OutputFormat::default())
}

/// The text, the tokens' places, and whether a stop string ended it. `eos` is taken as the end's token.
fn read(tokenizer: &Tokenizer, stops: &[&str], ids: &[u32], eos: Option<u32>) -> (String, Vec<usize>, bool) {
    let mut answer = answer(tokenizer, stops);
    let (mut text, mut offsets, mut stopped) = (String::new(), Vec::new(), false);
    for &id in ids {
        let step = if Some(id) == eos { answer.push_hidden(id) } else { answer.push(id).unwrap() };
        text += &content(&step.segments);
        offsets.push(step.offset);
        stopped = step.stopped;
        if stopped || Some(id) == eos {
            break;
        }
    }
    (text + &content(&answer.finish()), offsets, stopped)
}

#[test]
fn a_stop_string_that_is_a_special_token_ends_the_answer() {
    let tokenizer = bundled();
    let ids = tokenizer.encode("Hello world<|im_start|>user\nbye<|im_end|>", false).unwrap();
    let text = |stops: &[&str]| {
        let (text, _, stopped) = read(&tokenizer, stops, &ids, None);
        (text, stopped)
    };
    assert_eq!(text(&["<|im_start|>"]), ("Hello world".into(), true));
    assert_eq!(text(&["world<|im_start|>us"]), ("Hello ".into(), true));
    assert_eq!(text(&["<|im_start|>x", "bye<|im_end|>"]), ("Hello worlduser\n".into(), true));
    assert_eq!(text(&["never"]), ("Hello worlduser\nbye".into(), false));
}

#[test]
fn an_end_token_counts_for_stop_strings() {
    let tokenizer = bundled();
    let ids = tokenizer.encode("see you bye<|im_end|>", false).unwrap();
    let eos = ids.last().copied();
    assert_eq!(read(&tokenizer, &["bye<|im_end|>"], &ids, eos).0, "see you ");
    assert_eq!(read(&tokenizer, &["<|im_end|>"], &ids, eos).0, "see you bye");
    assert_eq!(read(&tokenizer, &["bye!"], &ids, eos).0, "see you bye");
}

#[test]
fn a_tokens_place_does_not_depend_on_stop_strings() {
    let tokenizer = bundled();
    let ids = [" not", " a", " macro", "."].map(|text| tokenizer.encode(text, false).unwrap()).concat();
    assert_eq!(ids.len(), 4, "one token each");
    for stops in [&[][..], &["not x"], &["not a much data z"], &[" not a macro.!"]] {
        assert_eq!(read(&tokenizer, stops, &ids, None).1, [0, 4, 6, 12], "{stops:?}");
    }
}

#[test]
fn tokens_of_one_character_share_its_place() {
    let tokenizer = metaspace();
    let byte = |byte: u8| 3 + u32::from(byte);
    let ids = [tokenizer.encode("the cat", false).unwrap(), "🦀é".bytes().map(byte).collect()].concat();
    assert_eq!(read(&tokenizer, &[], &ids, None).1, [0, 3, 7, 7, 7, 7, 8, 8]);
}

#[test]
fn a_character_that_is_never_finished_has_a_place_of_its_own() {
    let tokenizer = bundled();
    let id = |text: &str| tokenizer.encode(text, false).unwrap()[0];
    let (begun, a, eos) = (id("🦀"), id("a"), id("<|im_end|>"));
    assert_eq!(read(&tokenizer, &[], &[begun, a, a], None), ("\u{FFFD}aa".into(), vec![0, 1, 2], false));
    assert_eq!(read(&tokenizer, &[], &[a, begun, eos], Some(eos)), ("a\u{FFFD}".into(), vec![0, 1, 2], false));
    let crab = tokenizer.encode("🦀", false).unwrap();
    let twice = [&crab[..1], &crab[..]].concat();
    assert_eq!(read(&tokenizer, &[], &twice, None).1[..3], [0, 1, 1]);
}

#[test]
fn an_answer_begins_a_text_or_goes_on_after_its_prompt() {
    let tokenizer = metaspace();
    let ids = tokenizer.encode("the cat", false).unwrap();
    let first = |prompt| {
        let stops = StopMatcher::new::<&str>(&[]).unwrap();
        content(&AnswerText::new(&tokenizer, prompt, stops, &OutputFormat::default()).push(ids[0]).unwrap().segments)
    };
    assert_eq!(first(None), "the");
    assert_eq!(first(Some(&ids[..])), " the");
}
