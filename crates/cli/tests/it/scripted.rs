//! Scripted models: answers that are known token by token, and markup that is cut everywhere.

use crate::common::{Server, run, stdout};
use serde_json::{Value, json};
use std::path::Path;

/// Writes a script, has the binary make a model of it, and serves that.
fn serve(dir: &Path, script: &Value) -> Server {
    let (file, model) = (dir.join("script.json"), dir.join("scripted"));
    std::fs::write(&file, script.to_string()).unwrap();
    let (file, model) = (file.to_str().unwrap(), model.to_str().unwrap());
    stdout(&["bench", "synth", "--script", file, "--out", model]);
    Server::start(&["--device", "cpu", "--model", model])
}

fn chat(content: &str, extra: &Value) -> Value {
    let mut body = json!({ "messages": [{ "role": "user", "content": content }] });
    extra.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
    body
}

/// A user's message is the name of its answer.
const BY_NAME: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                       <|im_start|>assistant\n<|answer:{{ messages[-1].content }}|>";

#[test]
fn a_scripted_model_says_what_it_is_told_however_it_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (tokens, text) = (json!(["no", ",", " no", ",", " 😀", "\n"]), "Grüße, and the same the same the same.");
    let script = json!({ "answers": { "tokens": tokens, "text": text }, "chat_template": BY_NAME });
    let server = serve(dir.path(), &script);
    for (name, said, count) in [("tokens", "no, no, 😀\n", 7), ("text", text, 11)] {
        for extra in [json!({}), json!({ "temperature": 2, "seed": 7 }), json!({ "logprobs": true, "top_logprobs": 3 })]
        {
            let (status, answer) = server.post("/v1/chat/completions", &chat(name, &extra));
            assert_eq!(status, 200, "{answer}");
            assert_eq!(answer["choices"][0]["message"]["content"], said, "{extra}");
            assert_eq!(answer["choices"][0]["finish_reason"], "stop");
            assert_eq!(answer["usage"]["completion_tokens"], count);
        }
        let raw = json!({ "prompt": format!("anything <|answer:{name}|>"), "max_tokens": 50 });
        assert_eq!(server.post("/v1/completions", &raw).1["choices"][0]["text"], said);
        let streamed = server.stream("/v1/chat/completions", &chat(name, &json!({ "stream": true })));
        let pieces = streamed.iter().filter_map(|event| serde_json::from_str::<Value>(event).ok());
        let pieces: Vec<String> =
            pieces.filter_map(|c| c["choices"][0]["delta"]["content"].as_str().map(String::from)).collect();
        assert_eq!(pieces.concat(), said);
        assert_eq!(pieces.iter().filter(|piece| !piece.is_empty()).count(), count - 1, "{pieces:?}");
    }
    let none = json!({ "prompt": "no answer's name", "max_tokens": 50 });
    assert_eq!(server.post("/v1/completions", &none).1["choices"][0]["text"], "");
}

#[test]
fn a_script_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("script.json");
    let synth = || run(&["bench", "synth", "--script", file.to_str().unwrap(), "--out", "/dev/null/x"]);
    let broken = r#"{"answers": {"a": "x"}, "chat_template": "{% if %}"}"#;
    for (text, said) in [
        (None, "No such file"),
        (Some("{"), "cannot be read"),
        (Some(r#"{"answers": {"a": [""]}}"#), "answer a"),
        (Some(r#"{"answers": {"a": "x", "b": 7}}"#), "answer b has to be a text, or a list of texts"),
        (Some(broken), "chat_template: "),
    ] {
        text.into_iter().for_each(|text| std::fs::write(&file, text).unwrap());
        let output = synth();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(said) && errors.contains("script.json"), "{errors}");
    }
}

#[test]
fn a_folder_with_files_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let (file, model) = (dir.path().join("script.json"), dir.path().join("scripted"));
    std::fs::write(&file, r#"{"answers": {"a": "x"}}"#).unwrap();
    let synth = |extra: &[&str]| {
        let args = ["bench", "synth", "--script", file.to_str().unwrap(), "--out", model.to_str().unwrap()];
        let output = run(&[&args[..], extra].concat());
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, errors) = synth(&["--bits", "8"]);
    assert!(code == 2 && errors.contains("--bits"), "{errors}");
    std::fs::create_dir(&model).unwrap();
    let (code, errors) = synth(&[]);
    assert!(code == 0 && errors.contains("1 answer to"), "{errors}");
    let (code, errors) = synth(&[]);
    assert!(code == 1 && errors.contains("is not empty; remove it, or name another folder"), "{errors}");
}

/// A call in Hermes' markup, with what is hard to cut: quotes, escapes and characters of several bytes.
const CALL: &str = "Let me look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zü\\\"rich \\u00e9\", \"days\": [1, 2.5, null]}}\n</tool_call>";

/// Every way to cut the call once, single characters, and pieces of every length.
fn cuts() -> Vec<Vec<String>> {
    let chars: Vec<char> = CALL.chars().collect();
    let text = |piece: &[char]| piece.iter().collect::<String>();
    let once = (1..chars.len()).map(|at| vec![text(&chars[..at]), text(&chars[at..])]);
    let even = (1..12).map(|size| chars.chunks(size).map(text).collect());
    once.chain(even).collect()
}

#[derive(Debug, Default, Clone, PartialEq)]
struct Answer {
    content: String,
    calls: Vec<(String, String)>,
    reason: String,
}

fn whole(answer: &Value) -> Answer {
    let choice = &answer["choices"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let calls = choice["message"]["tool_calls"].as_array().into_iter().flatten();
    let calls = calls.map(|call| (text(&call["function"]["name"]), text(&call["function"]["arguments"]))).collect();
    Answer { content: text(&choice["message"]["content"]), calls, reason: text(&choice["finish_reason"]) }
}

fn streamed(events: &[String]) -> Answer {
    let mut answer = Answer::default();
    let mut ids = Vec::new();
    for chunk in events.iter().filter_map(|event| serde_json::from_str::<Value>(event).ok()) {
        let choice = &chunk["choices"][0];
        answer.content += choice["delta"]["content"].as_str().unwrap_or_default();
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().unwrap() as usize;
            assert!(index <= answer.calls.len(), "{events:?}");
            if index == answer.calls.len() {
                ids.push(call["id"].as_str().expect("an id").to_owned());
                assert_eq!(call["type"], "function");
                answer.calls.push((call["function"]["name"].as_str().expect("a name").to_owned(), String::new()));
            }
            answer.calls[index].1 += call["function"]["arguments"].as_str().unwrap_or_default();
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            assert!(answer.reason.is_empty(), "one reason: {events:?}");
            reason.clone_into(&mut answer.reason);
        }
    }
    assert_eq!(ids.len(), answer.calls.len());
    answer
}

#[test]
fn a_call_is_the_same_wherever_the_tokens_cut_it() {
    let dir = tempfile::tempdir().unwrap();
    let cuts = cuts();
    let answers: serde_json::Map<String, Value> =
        cuts.iter().enumerate().map(|(i, cut)| (format!("cut{i}"), json!(cut))).collect();
    let template = format!(
        "{{%- if tools %}}<tools>{{{{ tools | tojson }}}}</tools> <tool_call></tool_call>\n{{%- endif %}}{BY_NAME}"
    );
    let server = serve(dir.path(), &json!({ "answers": answers, "chat_template": template }));
    let tool = json!({ "type": "function", "function": { "name": "get_weather", "parameters": {
        "type": "object", "properties": { "city": { "type": "string" }, "days": { "type": "array" } } } } });
    let mut first: Option<Answer> = None;
    for (i, cut) in cuts.iter().enumerate() {
        let ask = |stream: bool| chat(&format!("cut{i}"), &json!({ "tools": [tool], "stream": stream }));
        let (status, answer) = server.post("/v1/chat/completions", &ask(false));
        assert_eq!(status, 200, "{answer}");
        let answer = whole(&answer);
        assert_eq!(streamed(&server.stream("/v1/chat/completions", &ask(true))), answer, "{cut:?}");
        if first.is_none() {
            check(&answer);
        }
        assert_eq!(first.get_or_insert_with(|| answer.clone()), &answer, "{cut:?}");
    }
}

fn check(answer: &Answer) {
    let [(name, arguments)] = &answer.calls[..] else { panic!("one call: {answer:?}") };
    assert_eq!((name.as_str(), answer.reason.as_str()), ("get_weather", "tool_calls"));
    let arguments: Value = serde_json::from_str(arguments).unwrap();
    assert_eq!(arguments, json!({ "city": "Zü\"rich é", "days": [1, 2.5, null] }));
    assert_eq!(answer.content.trim(), "Let me look.");
}
