//! The fields of `POST /v1/responses` and what becomes of each.

use crate::fields::{Field, Table};

const BODY: &str = r#"{
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{\"a\": 1}"},
        {"type": "function_call_output", "call_id": "c1", "output": "4"}
    ],
    "tools": [{"type": "function", "name": "f"}, {"type": "function", "name": "g"}]
}"#;

/// The table.
pub(crate) const TABLES: &[Table] = &[Table {
    routes: &["/v1/responses"],
    body: BODY,
    groups: &[CONVERSATION, ANSWER, crate::fields::SAMPLING, HARMLESS, REFUSED],
}];

const CONVERSATION: &[Field] = &[
    Field::honored("input", r#""bye""#, "the conversation: a string, or items, oldest first"),
    Field::harmless("input[].type", r#""message""#, "message, reasoning, function_call, function_call_output or item_reference"),
    Field::honored("input[].role", r#""developer""#, "system, developer (the same), user or assistant"),
    Field::honored("input[].content", r#""bye""#, "of a message or of reasoning: a string, or parts"),
    Field::harmless("input[].content[].type", r#""input_text""#, "input_text, output_text, reasoning_text or refusal"),
    Field::honored("input[].content[].text", r#""bye""#, "text of a part"),
    Field::honored("input[].content[].refusal", r#""no""#, "text of a part of type refusal")
        .beside(r#"{"input": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "never"}]}, {"role": "user", "content": "hi"}]}"#),
    Field::harmless("input[].content[].annotations", r#"[{"type": "file_path"}]"#, "answers have it; not read"),
    Field::harmless("input[].content[].logprobs", "[]", "answers have it; not read"),
    Field::harmless("input[].content[].prompt_cache_breakpoint", r#"{"mode": "explicit"}"#, "common prefixes are always cached"),
    Field::refused("input[].content[].image_url", r#""x""#, "only text is supported"),
    Field::harmless("input[].id", r#""rs_2""#, "an item's id, by which an `item_reference` finds it").at("input[1].id"),
    Field::harmless("input[].status", r#""completed""#, "answers have it; not read").at("input[1].status"),
    Field::harmless("input[].phase", r#""commentary""#, "answers have it; not read").at("input[0].phase"),
    Field::harmless("input[].summary", r#"[{"type": "summary_text", "text": "s"}]"#, "of reasoning: read where there is no content")
        .at("input[1].summary"),
    Field::harmless("input[].encrypted_content", r#""x""#, "of reasoning: read where this server wrote it and there is no content")
        .at("input[1].encrypted_content"),
    Field::honored("input[].call_id", r#""c2""#, "id of a call, which its result repeats").at("input[2].call_id"),
    Field::honored("input[].name", r#""g""#, "name of the called function").at("input[2].name"),
    Field::honored("input[].arguments", r#""{}""#, "arguments of a call: JSON, as a string").at("input[2].arguments"),
    Field::harmless("input[].caller", r#"{"type": "direct"}"#, "who made a call; not read").at("input[2].caller"),
    Field::refused("input[].namespace", r#""n""#, "tools have no namespaces").at("input[2].namespace"),
    Field::honored("input[].output", r#"[{"type": "input_text", "text": "5"}]"#, "result of a call: a string, or parts of type input_text").at("input[3].output"),
    Field::honored("instructions", r#""Be brief.""#, "a system message before all others, for this answer only"),
    Field::honored("previous_response_id", r#""STORED""#, "a stored response, whose conversation this one continues; an unknown id is refused"),
    Field::honored("tools", r#"[{"type": "function", "name": "h"}]"#, "functions that the model may call; tools of other types are left out, and the header `X-Ignored-Tools` names their types"),
    Field::harmless("tools[].type", r#""function""#, "function is the only type that the model is shown"),
    Field::honored("tools[].name", r#""h""#, "1 to 128 letters, digits, and any of `_ - . : /`"),
    Field::honored("tools[].description", r#""does f""#, "goes to the chat template"),
    Field::honored("tools[].parameters", r#"{"type": "object", "properties": {"a": {}}}"#, "JSON schema of the arguments"),
    Field::honored("tools[].strict", "true", "enforces the schema of the arguments"),
    Field::harmless("tools[].defer_loading", "true", "the model is shown every tool from the beginning"),
    Field::harmless("tools[].output_schema", r#"{"type": "object"}"#, "the model does not see it"),
    Field::honored("tool_choice", r#""required""#, "`auto`, `none`, `required`, or an object"),
    Field::honored("tool_choice.type", r#"{"type": "function", "name": "g"}"#, "function or allowed_tools").at("tool_choice"),
    Field::honored("tool_choice.name", r#"{"type": "function", "name": "g"}"#, "the function to call").at("tool_choice"),
    Field::honored(
        "tool_choice.mode",
        r#"{"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}"#,
        "auto, or required",
    )
    .at("tool_choice"),
    Field::honored(
        "tool_choice.tools",
        r#"{"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}"#,
        "the functions that the model is shown",
    )
    .at("tool_choice"),
    Field::honored("parallel_tool_calls", "false", "allows several calls in one answer"),
    Field::honored("reasoning.effort", r#""low""#, "goes to the chat template"),
    Field::honored("reasoning.summary", r#""auto""#, "sends the reasoning, as it is, in the place of a summary"),
    Field::honored("reasoning.generate_summary", r#""auto""#, "older name of `reasoning.summary`"),
];

const ANSWER: &[Field] = &[
    Field::honored("model", r#""other""#, "a served model; needed where there are several"),
    Field::honored("max_output_tokens", "7", "maximum number of tokens of the answer, reasoning included"),
    Field::honored("stream", "true", "the answer as events"),
    Field::honored("store", "false", "the response is stored, so that it can be continued"),
    Field::honored(
        "text.format",
        r#"{"type": "json_object"}"#,
        "form of the answer's text, of which a forced call has none",
    ),
    Field::honored("text.format.type", r#""json_object""#, "text, json_object or json_schema"),
    Field::honored("text.format.schema", r#"{"type": "array"}"#, "JSON schema of the answer")
        .beside(r#"{"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}"#),
    Field::honored("text.format.name", r#""m""#, "the answer repeats it")
        .beside(r#"{"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}"#),
    Field::honored("text.format.description", r#""d""#, "the answer repeats it")
        .beside(r#"{"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}"#),
    Field::honored("text.format.strict", "true", "the answer repeats it; the schema is enforced either way")
        .beside(r#"{"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}"#),
    Field::refused("text.verbosity", r#""low""#, "leave it out").taken(&[r#""medium""#]),
    Field::honored(
        "include",
        r#"["reasoning.encrypted_content"]"#,
        "adds `encrypted_content` to reasoning, for clients that send back nothing else",
    ),
    Field::honored("metadata", r#"{"a": "b"}"#, "the answer repeats it"),
    Field::honored(
        "max_tool_calls",
        "3",
        "the answer repeats it; it limits tools that a server runs, of which there are none",
    ),
    Field::honored("user", r#""u""#, "written to the log; the answer repeats it"),
    Field::honored("safety_identifier", r#""u""#, "written to the log; the answer repeats it"),
    Field::honored("prompt_cache_key", r#""k""#, "written to the log; the answer repeats it"),
];

const HARMLESS: &[Field] = &[
    Field::harmless("stream_options.include_obfuscation", "true", "events are not padded"),
    Field::harmless("prompt_cache_retention", r#""24h""#, "common prefixes are always cached"),
    Field::harmless("prompt_cache_options", r#"{"mode": "explicit"}"#, "common prefixes are always cached"),
    Field::harmless("client_metadata", r#"{"a": "b"}"#, "notes of a client for its own server; not read"),
    Field::harmless("access_programs", r#"{"cyber": "standard"}"#, "programs of OpenAI; not read"),
];

const REFUSED: &[Field] = &[
    Field::refused("truncation", r#""auto""#, "`auto` is refused too: conversations are never truncated")
        .taken(&[r#""disabled""#]),
    Field::refused("background", "true", "leave it out"),
    Field::refused("background_options", r#"{"completion_window": "2h"}"#, "leave it out"),
    Field::refused("conversation", r#""c""#, "send `previous_response_id`, or the whole conversation"),
    Field::refused("prompt", r#"{"id": "p"}"#, "send `instructions`"),
    Field::refused("max_tokens", "7", "send `max_output_tokens`"),
    Field::refused("max_completion_tokens", "7", "send `max_output_tokens`"),
    Field::refused("top_logprobs", "2", "log-probabilities are available in chat and text completions"),
    Field::refused("context_management", r#"[{"type": "compaction"}]"#, "leave it out"),
    Field::refused("moderation", r#"{"model": "x"}"#, "leave it out"),
    Field::refused("image", r#"{"context_compression": "enabled"}"#, "leave it out"),
    Field::refused("service_tier", r#""flex""#, "there is only one tier").taken(&[r#""default""#]),
    Field::refused("reasoning.mode", r#""pro""#, "leave it out"),
    Field::refused("reasoning.context", r#""all_turns""#, "the chat template decides how much reasoning is rendered"),
];

#[cfg(test)]
mod tests {
    use super::super::{items, request, tools};
    use super::*;
    use crate::request::sampling::SamplingFields;

    #[test]
    fn every_field_that_is_read_is_in_the_table_and_none_is_there_twice() {
        let read = [
            ("", request::ResponseRequest::FIELDS),
            ("", SamplingFields::FIELDS),
            ("input[].", items::ItemFields::FIELDS),
            ("input[].content[].", items::PartFields::FIELDS),
            ("tools[].", tools::FunctionTool::FIELDS),
            ("tool_choice.", tools::ChoiceFields::FIELDS),
            ("text.format.", request::Format::FIELDS),
            ("reasoning.", request::Reasoning::FIELDS),
            ("stream_options.", request::StreamOptions::FIELDS),
        ];
        TABLES[0].check(&read);
    }
}
