//! The fields of OpenAI's routes and what becomes of each.

use crate::fields::{Field, SAMPLING, Table};

const CHAT_BODY: &str = r#"{
    "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}
        ]},
        {"role": "tool", "tool_call_id": "c1", "content": "4"}
    ],
    "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}}]
}"#;

/// The tables.
pub(crate) const TABLES: &[Table] = &[
    Table {
        routes: &["/v1/chat/completions", "/v1/chat/completions/render"],
        body: CHAT_BODY,
        groups: &[CHAT, REASONING, STRUCTURE, SHARED, SAMPLING, CHAT_REFUSED, REFUSED],
    },
    Table {
        routes: &["/v1/completions", "/v1/completions/render"],
        body: r#"{"prompt": "ab"}"#,
        groups: &[COMPLETION, STRUCTURE, SHARED, SAMPLING, COMPLETION_REFUSED, REFUSED],
    },
    Table { routes: &["/v1/embeddings"], body: r#"{"input": "ab"}"#, groups: &[EMBEDDING] },
    Table { routes: &["/v1/tokenize"], body: r#"{"prompt": "ab"}"#, groups: &[TOKENIZE] },
    Table { routes: &["/v1/detokenize"], body: r#"{"tokens": [97]}"#, groups: &[DETOKENIZE] },
];

const CHAT: &[Field] = &[
    Field::honored("messages", r#"[{"role": "user", "content": "bye"}]"#, "the conversation, oldest first"),
    Field::honored("messages[].role", r#""developer""#, "system, developer (the same), user, assistant or tool")
        .at("messages[0].role"),
    Field::honored("messages[].content", r#"[{"type": "text", "text": "a"}]"#, "a text, or parts of type text, which are joined"),
    Field::harmless("messages[].content[].type", r#""text""#, "text is the only type")
        .beside(r#"{"messages": [{"role": "user", "content": [{"text": "a", "type": "text"}]}]}"#),
    Field::honored("messages[].content[].text", r#""b""#, "text of a part")
        .beside(r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}"#),
    Field::honored("messages[].name", r#""Ann""#, "goes to the chat template"),
    Field::honored("messages[].tool_calls", "[]", "calls that the assistant made").at("messages[1].tool_calls"),
    Field::honored("messages[].tool_calls[].id", r#""c2""#, "goes to the chat template").at("messages[1].tool_calls[0].id"),
    Field::harmless("messages[].tool_calls[].type", r#""function""#, "function is the only type")
        .at("messages[1].tool_calls[0].type"),
    Field::harmless("messages[].tool_calls[].index", "0", "a call's place in a stream")
        .at("messages[1].tool_calls[0].index"),
    Field::honored("messages[].tool_calls[].function.name", r#""g""#, "name of the function")
        .at("messages[1].tool_calls[0].function.name"),
    Field::honored("messages[].tool_calls[].function.arguments", r#""{}""#, "JSON of its arguments, as a string")
        .at("messages[1].tool_calls[0].function.arguments"),
    Field::honored("messages[].tool_call_id", r#""c2""#, "the call that a tool's message answers").at("messages[2].tool_call_id"),
    Field::honored("messages[].reasoning_content", r#""why""#, "reasoning of an assistant; the chat template decides how much is rendered")
        .at("messages[1].reasoning_content"),
    Field::honored("messages[].reasoning", r#""why""#, "the same under its other name").at("messages[1].reasoning"),
    Field::harmless("messages[].parsed", r#"{"a": 1}"#, "what OpenAI's client parsed from the text; not read").at("messages[1].parsed"),
    Field::harmless("messages[].tool_calls[].function.parsed_arguments", r#"{"a": 1}"#, "what OpenAI's client parsed from the arguments; not read")
        .at("messages[1].tool_calls[0].function.parsed_arguments"),
    Field::refused("messages[].refusal", r#""no""#, "this server sends only null").at("messages[1].refusal"),
    Field::refused("messages[].annotations", r#"[{}]"#, "this server sends none").at("messages[1].annotations"),
    Field::refused("messages[].audio", r#"{"id": "x"}"#, "only text is supported").at("messages[1].audio"),
    Field::refused("messages[].function_call", r#"{"name": "f"}"#, "send `tool_calls`").at("messages[1].function_call"),
    Field::honored("tools", r#"[{"type": "function", "function": {"name": "h"}}]"#, "functions that the model may call"),
    Field::harmless("tools[].type", r#""function""#, "function is the only type"),
    Field::honored("tools[].function.name", r#""h""#, "1 to 128 letters, digits, and any of `_ - . : /`"),
    Field::honored("tools[].function.description", r#""does f""#, "goes to the chat template"),
    Field::honored("tools[].function.parameters", r#"{"type": "object", "properties": {"a": {}}}"#, "JSON schema of the arguments"),
    Field::honored("tools[].function.strict", "true", "enforces the schema of the arguments"),
    Field::honored("tool_choice", r#""required""#, "`auto`, `none`, `required`, or an object"),
    Field::honored("tool_choice.type", r#"{"type": "none"}"#, "function, allowed_tools, auto, none or required").at("tool_choice"),
    Field::honored(
        "tool_choice.function.name",
        r#"{"type": "function", "function": {"name": "g"}}"#,
        "the function to call",
    )
    .at("tool_choice"),
    Field::honored(
        "tool_choice.allowed_tools.mode",
        r#"{"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}}"#,
        "auto, or required",
    )
    .at("tool_choice"),
    Field::honored(
        "tool_choice.allowed_tools.tools",
        r#"{"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]}}"#,
        "the functions that the model is shown",
    )
    .at("tool_choice"),
    Field::honored("parallel_tool_calls", "false", "allows several calls in one answer"),
    Field::honored("max_completion_tokens", "7", "maximum number of tokens of the answer, reasoning included"),
    Field::honored("logprobs", "true", "log-probabilities of the answer's tokens"),
    Field::honored("top_logprobs", "2", "this many alternatives beside each token").beside(r#"{"logprobs": true}"#),
    Field::honored("add_generation_prompt", "false", "the prompt ends with the beginning of an answer"),
    Field::honored("continue_final_message", "true", "the answer goes on where the last message ends"),
];

const REASONING: &[Field] = &[
    Field::honored(
        "reasoning_effort",
        r#""low""#,
        "goes to the chat template; `none` sets `enable_thinking` to false there, and any other to true",
    ),
    Field::honored("enable_thinking", "false", "goes to the chat template"),
    Field::honored("thinking_token_budget", "5", "maximum number of tokens of reasoning; -1 sets no bound"),
    Field::honored("include_reasoning", "false", "includes reasoning in the answer, or leaves it out"),
    Field::honored("chat_template_kwargs", r#"{"x": 1}"#, "further variables of the chat template"),
];

const STRUCTURE: &[Field] = &[
    Field::honored(
        "response_format",
        r#"{"type": "json_object"}"#,
        "form of the answer's text, of which a forced call has none",
    ),
    Field::honored("response_format.type", r#""json_object""#, "text, json_object or json_schema"),
    Field::honored(
        "response_format.json_schema.schema",
        r#"{"type": "array"}"#,
        "JSON schema of the answer; without one, any object",
    )
    .beside(r#"{"response_format": {"type": "json_schema", "json_schema": {}}}"#),
    Field::harmless("response_format.json_schema.name", r#""n""#, "the schema's name, which the model does not see")
        .beside(r#"{"response_format": {"type": "json_schema", "json_schema": {}}}"#),
    Field::harmless(
        "response_format.json_schema.description",
        r#""d""#,
        "the schema's description, which the model does not see",
    )
    .beside(r#"{"response_format": {"type": "json_schema", "json_schema": {}}}"#),
    Field::harmless("response_format.json_schema.strict", "true", "the schema is enforced either way")
        .beside(r#"{"response_format": {"type": "json_schema", "json_schema": {}}}"#),
    Field::honored("guided_json", r#"{"type": "array"}"#, "JSON schema of the answer, as an object or a string"),
    Field::honored("guided_regex", r#""a+""#, "regular expression that the whole answer matches"),
    Field::honored("guided_choice", r#"["a", "b"]"#, "list of texts; the answer is one of them"),
    Field::honored("guided_grammar", r#""start: \"a\"""#, "grammar of the answer, in Lark's notation"),
    Field::refused("guided_decoding_backend", r#""outlines""#, "there is only one backend"),
    Field::honored("structured_outputs.json", r#"{"type": "array"}"#, "as `guided_json`"),
    Field::honored("structured_outputs.regex", r#""a+""#, "as `guided_regex`"),
    Field::honored("structured_outputs.choice", r#"["a", "b"]"#, "as `guided_choice`"),
    Field::honored("structured_outputs.grammar", r#""start: \"a\"""#, "as `guided_grammar`"),
    Field::honored("structured_outputs.json_object", "true", "any JSON object"),
    Field::refused("structured_outputs.whitespace_pattern", r#""[ ]""#, "leave it out"),
    Field::refused("structured_outputs.structural_tag", r#""{}""#, "leave it out"),
];

const SHARED: &[Field] = &[
    Field::honored("model", r#""other""#, "a served model; needed where there are several"),
    Field::honored("stream", "true", "the answer in chunks"),
    Field::honored("stream_options.include_usage", "true", "a last chunk has the usage").beside(r#"{"stream": true}"#),
    Field::honored("stream_options.continuous_usage_stats", "true", "every chunk has the usage so far")
        .beside(r#"{"stream": true}"#),
    Field::refused("stream_options.include_obfuscation", "true", "chunks are not padded").beside(r#"{"stream": true}"#),
    Field::honored("max_tokens", "7", "maximum number of tokens of the answer"),
    Field::honored("stop", r#"["x"]"#, "texts before which the answer ends"),
    Field::honored("ignore_eos", "true", "continues past the model's end tokens"),
    Field::honored("n", "2", "choices for each prompt"),
    Field::honored("return_token_ids", "true", "adds `token_ids` to the choices, and `prompt_token_ids`"),
    Field::honored(
        "prompt_logprobs",
        "1",
        "log-probabilities of the prompt's tokens, and this many alternatives beside each",
    ),
    Field::harmless("user", r#""u""#, "written to the log"),
    Field::harmless("safety_identifier", r#""u""#, "written to the log"),
    Field::harmless("prompt_cache_key", r#""k""#, "written to the log; common prefixes are cached whatever the key"),
];

const CHAT_REFUSED: &[Field] = &[
    Field::honored(
        "add_special_tokens",
        "true",
        "begin and end tokens around the prompt; most chat templates write them",
    ),
    Field::honored("return_tokens_as_token_ids", "true", "log-probabilities name tokens `token_id:N`")
        .beside(r#"{"logprobs": true}"#),
    Field::refused("functions", r#"[{"name": "f"}]"#, "send `tools`"),
    Field::refused("function_call", r#"{"name": "f"}"#, "send `tool_choice`"),
    Field::refused("modalities", r#"["audio"]"#, "only text is supported").taken(&[r#"["text"]"#]),
    Field::refused("audio", r#"{"voice": "x"}"#, "only text is supported"),
    Field::refused("prediction", r#"{"type": "content"}"#, "leave it out"),
    Field::refused("web_search_options", r#"{"search_context_size": "low"}"#, "leave it out"),
    Field::refused("moderation", r#"{"model": "x"}"#, "leave it out"),
    Field::refused("verbosity", r#""low""#, "leave it out").taken(&[r#""medium""#]),
    Field::refused("metadata", r#"{"a": "b"}"#, "chat completions are not stored"),
    Field::refused("store", "true", "chat completions are not stored"),
    Field::refused("documents", r#"[{"text": "x"}]"#, "leave it out"),
    Field::refused("chat_template", r#""x""#, "the model's own is used, or that of `--chat-template`"),
    Field::refused("role_mapping", r#"{"user": "U"}"#, "leave it out"),
    Field::refused("echo", "true", "send `continue_final_message` to continue a message"),
    Field::refused("best_of", "2", "leave it out").taken(&["1"]),
];

const COMPLETION: &[Field] = &[
    Field::honored("prompt", r#""cd""#, "texts, or token ids, to continue"),
    Field::honored("logprobs", "1", "log-probabilities of the answer's tokens, and this many alternatives beside each"),
    Field::honored("echo", "true", "the prompt before the answer"),
    Field::refused("best_of", "2", "there is no choosing among several answers").taken(&["1"]),
    Field::honored("add_special_tokens", "false", "begin and end tokens around a prompt that is a text"),
    Field::honored("return_tokens_as_token_ids", "true", "log-probabilities name tokens `token_id:N`")
        .beside(r#"{"logprobs": 1}"#),
];

const COMPLETION_REFUSED: &[Field] = &[
    Field::refused("suffix", r#""x""#, "text cannot be inserted before a suffix"),
    Field::refused("max_completion_tokens", "7", "send `max_tokens`"),
    Field::refused("tools", r#"[{"type": "function"}]"#, "tools can be called in chat completions only"),
    Field::refused("tool_choice", r#""required""#, "tools can be called in chat completions only"),
    Field::harmless("parallel_tool_calls", "true", "without tools it asks for nothing"),
    Field::refused("add_generation_prompt", "false", "only chat completions have a generation prompt").taken(&["true"]),
    Field::refused("thinking_token_budget", "5", "text completions have no separate reasoning"),
    Field::refused("prompt_embeds", r#""x""#, "send texts or token ids"),
];

const REFUSED: &[Field] = &[
    Field::refused("service_tier", r#""flex""#, "there is only one tier").taken(&[r#""default""#]),
    Field::refused("prompt_cache_retention", r#""24h""#, "leave it out"),
    Field::refused("prompt_cache_options", r#"{"ttl": "30m"}"#, "leave it out"),
    Field::refused("min_tokens", "5", "not supported yet").taken(&["0"]),
    Field::refused("stop_token_ids", "[5]", "not supported yet; `stop` may be a special token's text"),
    Field::refused("skip_special_tokens", "false", "answers contain no special tokens").taken(&["true"]),
    Field::harmless("spaces_between_special_tokens", "false", "answers contain no special tokens"),
    Field::refused("include_stop_str_in_output", "true", "stop strings are always left out"),
    Field::refused("detokenize", "false", "answers are texts; `return_token_ids` adds ids").taken(&["true"]),
    Field::refused("truncate_prompt_tokens", "5", "prompts are never truncated"),
    Field::refused("allowed_token_ids", "[5]", "leave it out"),
    Field::refused("bad_words", r#"["x"]"#, "leave it out"),
    Field::refused("use_beam_search", "true", "leave it out"),
    Field::refused("length_penalty", "2", "leave it out").taken(&["1"]),
    Field::refused("typical_p", "0.5", "leave it out").taken(&["1"]),
    Field::refused("priority", "5", "requests are served in the order in which they come").taken(&["0"]),
    Field::refused("cache_salt", r#""x""#, "not supported yet"),
    Field::harmless("cache_prompt", "false", "prompts are always cached, which changes no answer"),
    Field::refused("xtc_probability", "0.5", "leave it out").taken(&["0"]),
    Field::harmless("xtc_threshold", "0.1", "without `xtc_probability` it asks for nothing"),
    Field::refused("draft_model", r#""x""#, "leave it out").taken(&[r#""default_model""#]),
    Field::harmless("num_draft_tokens", "3", "without a draft model it asks for nothing"),
    Field::refused("adapters", r#""x""#, "leave it out"),
    Field::refused("logprob_token_ids", "[5]", "leave it out"),
    Field::refused("request_id", r#""x""#, "send the header `X-Request-Id`"),
];

const EMBEDDING: &[Field] = &[
    Field::honored("model", r#""other""#, "a served model; needed where there are several"),
    Field::honored("input", r#""cd""#, "texts, or token ids, to embed"),
    Field::honored("dimensions", "2", "keeps this many of a vector's first dimensions, and scales them to length 1"),
    Field::honored("encoding_format", r#""base64""#, "float, or base64"),
    Field::honored("add_special_tokens", "false", "begin and end tokens around a text"),
    Field::harmless("user", r#""u""#, "written to the log"),
    Field::refused("input_type", r#""query""#, "put instructions in the text"),
];

const TOKENIZE: &[Field] = &[
    Field::honored("model", r#""other""#, "a served model; needed where there are several"),
    Field::honored("prompt", r#""cd""#, "the text"),
    Field::honored("add_special_tokens", "false", "begin and end tokens around it"),
    Field::refused("return_token_strs", "true", "not supported yet"),
];

const DETOKENIZE: &[Field] = &[
    Field::honored("model", r#""other""#, "a served model; needed where there are several"),
    Field::honored("tokens", "[98]", "the token ids"),
];

#[cfg(test)]
mod tests {
    use super::super::{chat, completions, embeddings, fields, messages, reasoning, structure, tools};
    use super::*;
    use crate::fields::Fate;
    use crate::request::neutral::DEFAULTS;
    use crate::request::sampling::SamplingFields;

    fn of(table: &Table) -> Vec<(&'static str, Fate)> {
        table.fields().map(|field| (field.name, field.fate)).collect()
    }

    #[test]
    fn every_field_that_is_read_is_in_its_table_and_none_is_there_twice() {
        let under = |prefix: &str, fields: &[&str]| -> Vec<String> {
            fields.iter().map(|field| format!("{prefix}{field}")).collect()
        };
        let shared = [
            under("", fields::SharedFields::FIELDS),
            under("stream_options.", fields::StreamOptions::FIELDS),
            under("", SamplingFields::FIELDS),
            under("", structure::StructureFields::FIELDS),
            under("response_format.", structure::ResponseFormat::FIELDS),
            under("response_format.json_schema.", structure::NamedSchema::FIELDS),
            under("structured_outputs.", structure::StructuredOutputs::FIELDS),
        ]
        .concat();
        let chat = [
            under("", chat::ChatRequest::FIELDS),
            under("", reasoning::ReasoningFields::FIELDS),
            under("messages[].", messages::Message::FIELDS),
            under("messages[].content[].", messages::Part::FIELDS),
            under("messages[].tool_calls[].", messages::ToolCall::FIELDS),
            under("messages[].tool_calls[].function.", messages::CalledFunction::FIELDS),
            under("tools[].", tools::Definition::FIELDS),
            under("tools[].function.", tools::FunctionFields::FIELDS),
        ]
        .concat();
        let completion = under("", completions::CompletionRequest::FIELDS);
        let embedding = under("", embeddings::EmbeddingRequest::FIELDS);
        let both = |own: Vec<String>| [own, shared.clone()].concat();
        for (table, read) in [(&TABLES[0], both(chat)), (&TABLES[1], both(completion)), (&TABLES[2], embedding)] {
            let listed = of(table);
            for name in &read {
                // An object is there by its fields.
                let there = listed.iter().any(|(listed, _)| listed == name || listed.starts_with(&format!("{name}.")));
                assert!(there, "{}: {name}", table.routes[0]);
            }
            for (i, (name, _)) in listed.iter().enumerate() {
                assert!(listed[..i].iter().all(|(earlier, _)| earlier != name), "{}: {name}", table.routes[0]);
            }
        }
    }

    #[test]
    fn every_value_that_is_known_to_ask_for_nothing_is_in_a_table() {
        for (name, _) in DEFAULTS {
            let there = TABLES.iter().flat_map(Table::fields).any(|field| field.name == *name);
            assert!(there, "{name}");
        }
    }
}
