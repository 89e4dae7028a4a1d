//! `chat` and `generate` without a terminal: answers on standard output, everything else on standard error.

use crate::common::script;
use crate::common::{binary, copy_model, run};
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::Stdio;

/// Exit code, standard output and standard error of a conversation.
fn talk(args: &[&str], lines: impl AsRef<[u8]>) -> (Option<i32>, String, String) {
    let mut command = binary();
    command.arg("chat").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses its flags may have gone.
    let _ = child.stdin.take().unwrap().write_all(lines.as_ref());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Says "Hello world" to everything.
fn scripted(dir: &std::path::Path) -> String {
    let template = "{% for m in messages %}{{ '<|im_start|>' + m.content + '\n' }}{% endfor %}";
    with_template(dir, &json!(template))
}

fn with_template(dir: &std::path::Path, template: &Value) -> String {
    let model = dir.join("scripted");
    let config = json!({ "eos_token": "<|im_end|>", "chat_template": template });
    script::write(&model, &script::byte_level(&["Hello", "Ġworld"]), &["Ċ", "Hello", "Ġworld", "<|im_end|>"], &config);
    model.to_str().unwrap().to_owned()
}

#[test]
fn a_pipe_gets_answers_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let model = scripted(dir.path());
    let (code, out, err) = talk(&["-m", &model], "hi\n\n/help\n/system x\n//clear\n/regenerate\n/clear\nthere");
    assert_eq!((code, out.as_str()), (Some(0), "Hello world\n".repeat(4).as_str()), "{err}");
    assert!(err.contains("/regenerate") && !err.contains("tok") && !err.contains('\x1b'), "{err}");
}

#[test]
fn a_line_that_is_not_answered_fails_and_the_rest_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let model = scripted(dir.path());
    let long = "word ".repeat(3000);
    let (code, out, err) = talk(&["-m", &model], format!("one\n/bogus\n{long}\ntwo\n"));
    assert_eq!((code, out.as_str()), (Some(1), "Hello world\nHello world\n"), "{err}");
    for part in
        ["/bogus is not a command", "too long even without earlier turns", "length is 2048 tokens", "not every line"]
    {
        assert!(err.contains(part), "{part}: {err}");
    }
}

#[test]
fn a_model_without_a_chat_template_is_no_model_to_chat_with() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = talk(&["-m", &with_template(dir.path(), &Value::Null)], "hi\n");
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("has no chat template; use generate --raw"), "{err}");
}

#[test]
fn a_conversation_goes_on_past_the_end_of_the_context_and_the_length_gives_way_to_it() {
    let lines: String = (0..14).map(|i| format!("Tell me about topic {i}\n")).collect();
    let (code, out, err) = talk(&["--seed", "1", "--max-tokens", "600"], &lines);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.lines().count() >= 14, "{out}");
    assert!(err.contains("the context of 2048 tokens runs out: the model no longer sees the oldest"), "{err}");
    assert!(!err.contains("max_tokens"), "{err}");
    // How many in all, and how many of them have just gone.
    let told: Vec<&str> = err.lines().filter(|line| line.contains("runs out")).collect();
    assert!(!told[0].contains("more)") && told[1..].iter().all(|line| line.ends_with(" more)")), "{told:?}");
}

#[test]
fn an_answer_that_is_cut_says_so() {
    let (_, _, err) = talk(&["--seed", "1", "--max-tokens", "5"], "What is ownership?\n");
    assert_eq!(err, "5 tokens · cut off: --max-tokens allows no more\n");
    // The context has no room for so long an answer, and nothing older could go.
    let words = "ownership ".repeat(950);
    let stopped = talk(&["--temperature", "0", "--max-tokens", "2000", "--stop", "\u{1}"], format!("{words}\n")).2;
    let whole = !stopped.contains("cut off");
    assert!(whole || stopped.contains("cut off: the context of 2048 tokens is full"), "{stopped}");
}

#[test]
fn files_are_written_once_and_their_own_again() {
    let dir = tempfile::tempdir().unwrap();
    let (model, ours, other) = (scripted(dir.path()), dir.path().join("ours.md"), dir.path().join("other.md"));
    std::fs::write(&other, "precious").unwrap();
    let (ours_name, other_name) = (ours.display(), other.display());
    let lines = format!("a\n/save {ours_name}\nb\n/save {ours_name}\n/save {other_name}\n/save {other_name}/x\n");
    let (code, _, err) = talk(&["-m", &model], &lines);
    assert_eq!(code, Some(1));
    assert!(err.contains("is there already: name another file"), "{err}");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "precious");
    let saved = std::fs::read_to_string(&ours).unwrap();
    assert_eq!(saved.matches("## assistant\n\nHello world\n").count(), 2, "{saved}");
}

#[test]
fn a_conversations_files_are_all_its_own_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (model, a, b) = (scripted(dir.path()), dir.path().join("a.md"), dir.path().join("b.md"));
    let (a_name, b_name) = (a.display(), b.display());
    let lines = format!("one\n/save {a_name}\n/save {b_name}\ntwo\n/save {a_name}\n");
    let (code, _, err) = talk(&["-m", &model], &lines);
    assert_eq!(code, Some(0), "{err}");
    let asked = || std::fs::read_to_string(&a).unwrap().matches("## user").count();
    assert_eq!(asked(), 2);
    let lines = format!("one\n/save {a_name}.md\n/clear\ntwo\n/save {a_name}.md\n");
    let (code, _, err) = talk(&["-m", &model], &lines);
    assert!(code == Some(1) && err.contains("is there already"), "{err}");
    assert!(std::fs::read_to_string(dir.path().join("a.md.md")).unwrap().contains("one"), "{err}");
}

#[test]
fn bytes_that_are_not_utf8_do_not_end_a_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = talk(&["-m", &scripted(dir.path())], b"one\ncaf\xe9\nthree\n");
    assert_eq!((code, out.as_str()), (Some(0), "Hello world\n".repeat(3).as_str()), "{err}");
    assert!(err.contains("not UTF-8"), "{err}");
}

#[test]
fn regenerate_says_that_an_answer_comes_out_the_same_where_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let model = scripted(dir.path());
    for (lines, said) in [("one\n/regenerate\n", true), ("one\n/system x\n/regenerate\n", false)] {
        let (_, _, err) = talk(&["-m", &model, "--temperature", "0"], lines);
        assert_eq!(err.contains("comes out the same"), said, "{lines:?}: {err}");
    }
    assert!(talk(&["-m", &model], "/system \"\"\n").2.contains("there is no system prompt"));
}

#[test]
fn only_warnings_show_unless_more_is_asked_for() {
    let generate = ["generate", "-p", "Hi", "--max-tokens", "2"];
    let error = |args: &[&str]| String::from_utf8(run(args).stderr).unwrap();
    assert_eq!(error(&generate), "");
    assert_eq!(talk(&["--seed", "1"], "").2, "");
    assert!(error(&[&generate[..], &["-v"]].concat()).contains("loaded"));
    assert!(talk(&["-v"], "").2.contains("loaded"));
    let dir = tempfile::tempdir().unwrap();
    let model = copy_model(dir.path(), "warned");
    std::fs::write(model.join("generation_config.json"), r#"{ "eos_token_id": 4096 }"#).unwrap();
    let warned = error(&[&generate[..], &["-m", model.to_str().unwrap()]].concat());
    assert!(warned.contains("WARN") && warned.contains("end tokens [4096]"), "{warned}");
    assert!(!warned.contains("INFO"), "{warned}");
}

#[test]
fn a_prompt_that_was_counted_whole_has_a_number() {
    let output = run(&["generate", "--raw", "-p", &"one two ".repeat(1500)]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("the prompt has ") && !error.contains("at least"), "{error}");
}

#[test]
fn flags_out_of_range_are_wrong_usage_before_a_model_is_loaded() {
    for flag in [["--max-tokens", "0"], ["--temperature", "9"], ["--top-p", "2"], ["--min-p", "3"]] {
        for command in [&["chat"][..], &["generate", "-p", "x"]] {
            let output = run(&[command, &flag, &["-m", "no/such/folder"]].concat());
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{error}");
            assert!(error.contains(flag[0]) && output.stdout.is_empty(), "{error}");
        }
    }
    let output = run(&["generate", "-p", "x", "--max-tokens", "5000"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}
