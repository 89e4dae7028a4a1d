//! Loading tokenizers, good and bad, and encoding with them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{bundled, metaspace, metaspace_dir};
use mlx_serving_text::{TextError, Tokenizer};
use std::path::Path;

/// A copy of the metaspace tokenizer with one file replaced.
fn with_file(name: &str, content: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(metaspace_dir().join(file), dir.path().join(file)).unwrap();
    }
    std::fs::write(dir.path().join(name), content).unwrap();
    dir
}

fn error_of(dir: &Path) -> String {
    Tokenizer::from_dir(dir).unwrap_err().to_string()
}

#[test]
fn bundled_model_round_trips_text_and_knows_its_special_tokens() {
    let tokenizer = bundled();
    let text = "<|im_start|>user\nfn main() { let s = \"héllo ☃ 你好\"; }<|im_end|>\n";
    let ids = tokenizer.encode(text, false).unwrap();
    assert_eq!(ids[0], 1);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    let visible = text.replace("<|im_start|>", "").replace("<|im_end|>", "");
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), visible);
    assert_eq!(tokenizer.vocab_size(), 4096);
    assert_eq!((tokenizer.bos_token(), tokenizer.eos_token()), (None, Some("<|im_end|>")));
    assert_eq!(tokenizer.id_to_token(2).as_deref(), Some("<|im_end|>"));
    assert!(tokenizer.is_special(2) && !tokenizer.is_special(100));
}

#[test]
fn long_prompts_are_not_cut_by_the_truncation_setting_of_the_file() {
    let tokenizer = metaspace();
    assert!(std::fs::read_to_string(metaspace_dir().join("tokenizer.json")).unwrap().contains("\"max_length\": 4"));
    // Two hundred words and the space at the end.
    assert_eq!(tokenizer.encode(&"the cat ".repeat(100), false).unwrap().len(), 201);
}

#[test]
fn special_tokens_are_added_only_when_asked_for() {
    let tokenizer = metaspace();
    let plain = tokenizer.encode("the cat", false).unwrap();
    assert_eq!(tokenizer.encode("the cat", true).unwrap(), [&[1], &plain[..]].concat());
    assert_eq!(tokenizer.bos_token(), Some("<s>"));
}

#[test]
fn tokens_that_only_the_config_declares_are_added() {
    let tokenizer = metaspace();
    assert_eq!(tokenizer.vocab_size(), 290);
    let (inst, code) = (tokenizer.token_to_id("[INST]").unwrap(), tokenizer.token_to_id("[code]").unwrap());
    assert!(tokenizer.is_special(inst) && !tokenizer.is_special(code));
    assert_eq!(tokenizer.encode("[INST]", false).unwrap(), [inst]);
    assert_eq!(tokenizer.decode(&[inst, code], true).unwrap(), "[code]");
}

#[test]
fn token_bytes_are_those_in_the_middle_of_a_text() {
    let tokenizer = metaspace();
    let bytes = |token: &str| tokenizer.token_bytes(tokenizer.token_to_id(token).unwrap()).unwrap();
    assert_eq!(bytes("▁the"), b" the");
    assert_eq!(bytes("the".get(..2).unwrap()), b"th");
    assert_eq!(bytes("<0xE4>"), [0xE4]);
    assert_eq!(tokenizer.token_bytes(100_000).unwrap(), b"");

    let tokenizer = bundled();
    let ids = tokenizer.encode(" ownership ☃", false).unwrap();
    let joined: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id).unwrap()).collect();
    assert_eq!(joined, " ownership ☃".as_bytes());
}

#[test]
fn ids_outside_the_vocabulary_have_no_text() {
    assert_eq!(bundled().decode(&[u32::MAX, 4096], false).unwrap(), "");
}

#[test]
fn a_missing_file_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let error = error_of(dir.path());
    assert!(error.contains("tokenizer.json is missing") && error.contains("save_pretrained"), "{error}");
}

#[test]
fn a_sentencepiece_model_alone_is_refused_with_the_command_that_converts_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.model"), b"sentencepiece").unwrap();
    let error = error_of(dir.path());
    let command = format!("T.from_pretrained('{0}', use_fast=True).save_pretrained('{0}')", dir.path().display());
    assert!(error.contains("tokenizer.json is missing, and tokenizer.model beside it is not read"), "{error}");
    assert!(error.contains("python3 -c") && error.contains(&command), "{error}");
}

#[test]
fn broken_files_are_named_with_the_reason() {
    let full = std::fs::read_to_string(metaspace_dir().join("tokenizer.json")).unwrap();
    for (file, content, expected) in [
        ("tokenizer.json", "", "is not a usable tokenizer: EOF"),
        ("tokenizer.json", &full[..full.len() / 2], "is not a usable tokenizer"),
        ("tokenizer.json", "{}", "is not a usable tokenizer"),
        ("tokenizer.json", "\u{0}\u{1}", "is not a usable tokenizer"),
        ("tokenizer_config.json", "[]", "must be an object, found []"),
        ("tokenizer_config.json", "{", "tokenizer_config.json is not valid JSON"),
        ("tokenizer_config.json", r#"{"bos_token": 7}"#, "`bos_token` must be a string"),
        ("tokenizer_config.json", r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#, "added_tokens_decoder.x"),
        ("tokenizer_config.json", r#"{"added_tokens_decoder": {"7": {}}}"#, "an object with `content`"),
        ("tokenizer_config.json", r#"{"added_tokens_decoder": {"9000": {"content": "[far]"}}}"#, "the id 9000"),
        ("special_tokens_map.json", "nonsense", "special_tokens_map.json is not valid JSON"),
    ] {
        let error = error_of(with_file(file, content).path());
        assert!(error.contains(expected) && error.contains(file), "{expected}: {error}");
    }
}

#[test]
fn special_tokens_may_come_from_the_map() {
    let dir = with_file("tokenizer_config.json", "{}");
    std::fs::write(dir.path().join("special_tokens_map.json"), r#"{"eos_token": {"content": "</s>"}}"#).unwrap();
    assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().eos_token(), Some("</s>"));
}

#[test]
fn a_decoder_that_panics_is_an_error() {
    let full = std::fs::read_to_string(metaspace_dir().join("tokenizer.json")).unwrap();
    let dir = with_file("tokenizer.json", &full.replace("\"stop\": 0", "\"stop\": 9"));
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    // Nothing but spaces: the decoder strips more of them than there are.
    let ids = tokenizer.encode(" ", false).unwrap();
    assert!(matches!(tokenizer.decode(&ids, false), Err(TextError::Decode { .. })));
}

/// The bundled tokenizer with settings of `tokenizer.json` replaced.
fn bundled_with(settings: &[(&str, serde_json::Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::read(common::bundled_dir().join("tokenizer.json")).unwrap();
    let mut file: serde_json::Value = serde_json::from_slice(&file).unwrap();
    for (key, value) in settings {
        file[key] = value.clone();
    }
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    dir
}

#[test]
fn byte_letters_never_reach_a_text() {
    let text = "Ownership is héllo ☃\n\n";
    for decoder in [
        serde_json::json!(null),
        serde_json::json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true }),
        serde_json::json!({ "type": "Sequence", "decoders": [{ "type": "ByteFallback" }, { "type": "Fuse" }] }),
    ] {
        let tokenizer = Tokenizer::from_dir(bundled_with(&[("decoder", decoder.clone())]).path()).unwrap();
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text, "{decoder}");
        let mut stream = mlx_serving_text::Detokenizer::new(&tokenizer, true);
        let pieces: String = ids.iter().map(|&id| stream.push(id).unwrap().text).collect();
        assert_eq!(pieces, text, "{decoder}");
    }
}

#[test]
fn byte_letters_that_no_text_is_turned_into_are_refused() {
    for splits in [serde_json::json!(null), serde_json::json!({ "type": "Whitespace" })] {
        let error = error_of(bundled_with(&[("pre_tokenizer", splits)]).path());
        assert!(error.contains("spells bytes as letters") && error.contains("tokenizer.json"), "{error}");
    }
}

#[test]
fn tokens_that_only_added_tokens_json_has_are_added() {
    let dir = with_file("added_tokens.json", r#"{"<tool>": 290, "[end]": 291}"#);
    let config = std::fs::read_to_string(dir.path().join("tokenizer_config.json")).unwrap();
    let config = config.replacen('{', r#"{"additional_special_tokens": [{"content": "[end]"}],"#, 1);
    std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let ids = tokenizer.encode("the[end] <tool>cat", false).unwrap();
    assert_eq!(ids.iter().filter(|&&id| id >= 290).collect::<Vec<_>>(), [&291, &290]);
    assert!(!tokenizer.is_special(290) && tokenizer.is_special(291));
    // What other files have too is nothing new.
    let known = with_file("added_tokens.json", r#"{"<s>": 1}"#);
    assert_eq!(Tokenizer::from_dir(known.path()).unwrap().vocab_size(), 290);
}

#[test]
fn added_tokens_json_must_agree() {
    for (content, expected) in [
        (r#"{"<tool>": 300}"#, "gives the token \"<tool>\" the id 300, but tokenizer.json beside it gives it 290"),
        (r#"{"<s>": 2}"#, "gives the token \"<s>\" the id 2"),
        (r#"{"<tool>": "290"}"#, "`<tool>` must be a token id"),
        (r#"["<tool>"]"#, "must be an object"),
    ] {
        let error = error_of(with_file("added_tokens.json", content).path());
        assert!(error.contains(expected) && error.contains("added_tokens.json"), "{expected}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn a_device_in_the_place_of_a_file_is_refused_and_never_read() {
    for name in ["tokenizer.json", "tokenizer_config.json", "added_tokens.json"] {
        let dir = with_file(name, "");
        std::fs::remove_file(dir.path().join(name)).unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join(name)).unwrap();
        let error = error_of(dir.path());
        assert!(error.contains(name) && error.contains("not a regular file"), "{error}");
    }
}

#[test]
fn long_text_is_tokenized_as_in_one_go() {
    for tokenizer in [bundled(), metaspace()] {
        let text = "It's the cat 12345 that sat.\n\n  fn main() { 你好，世界。🦀 }\t<|im_end|>Hé </s>".repeat(1500);
        let within = |limit| tokenizer.encode_within(&text, true, limit, &mut || true);
        let ids = within(usize::MAX).unwrap();
        assert_eq!(ids, tokenizer.encode(&text, true).unwrap());
        assert_eq!(within(ids.len()).unwrap(), ids);
        assert!(
            matches!(within(ids.len() - 1), Err(TextError::TooLong { tokens, exact: true, .. }) if tokens == ids.len())
        );
    }
}
