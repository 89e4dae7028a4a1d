//! Templates render as transformers renders them: goldens by `tools/goldens/make_templates.py`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
use mlx_serving_text::{ChatInput, ChatTemplate};
use serde_json::Value;

fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/templates.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The difference to what transformers makes of `template`, as `case` says; `None` if there is none.
fn difference(case: &Value, template: &str, given: &Value, variables: &Value) -> Option<String> {
    let special = [("bos_token", "<s>".to_owned()), ("eos_token", "</s>".to_owned())];
    let messages = given["messages"].as_array().unwrap();
    let tools = given["tools"].as_array().map(Vec::as_slice);
    let input = ChatInput { tools, kwargs: variables.as_object(), ..ChatInput::new(messages) };
    let rendered = ChatTemplate::new(template, &special).and_then(|template| template.render(&input));
    let same = match (&rendered, case["text"].as_str(), case["refused"].as_str()) {
        (Ok(ours), Some(theirs), _) => ours == theirs,
        (Err(ours), None, Some(theirs)) => ours.to_string().ends_with(theirs),
        (Err(_), None, None) => true,
        _ => false,
    };
    (!same).then(|| format!("{template}\n  theirs {case}\n  ours   {rendered:?}"))
}

#[test]
fn snippets_of_jinja_and_python_render_as_in_transformers() {
    let golden = golden();
    let snippets = golden["snippets"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in snippets {
        let template = case["template"].as_str().unwrap();
        match (difference(case, template, &golden, &golden["variables"]), case["different"].as_bool().unwrap()) {
            (Some(difference), false) => wrong.push(difference),
            (None, true) => wrong.push(format!("{template} is as theirs by now: see DIFFERENT and docs/MODELS.md")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), snippets.len(), wrong.join("\n"));
}

#[test]
fn templates_in_the_manner_of_popular_families_render_as_in_transformers() {
    let golden = golden();
    for family in golden["families"].as_array().unwrap() {
        for case in family["cases"].as_array().unwrap() {
            let conversation = &golden["conversations"][case["conversation"].as_u64().unwrap() as usize];
            let template = family["template"].as_str().unwrap();
            let difference = difference(case, template, conversation, &conversation["variables"]);
            assert_eq!(difference, None, "{} {}", family["name"], case["conversation"]);
        }
    }
}
