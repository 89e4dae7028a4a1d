//! The fields of this dialect's routes and what becomes of each.

use crate::fields::{Field, Table};

const BODY: &str = r#"{
    "max_tokens": 50,
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
        ]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "4"}]}
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}, {"name": "g", "input_schema": {"type": "object"}}]
}"#;

/// The tables.
pub(crate) const TABLES: &[Table] = &[
    Table {
        routes: &["/v1/messages"],
        body: BODY,
        groups: &[CONVERSATION, ANSWER, crate::fields::SAMPLING, HARMLESS, REFUSED],
    },
    Table { routes: &["/v1/messages/count_tokens"], body: BODY, groups: &[CONVERSATION, COUNTED, SAMPLING, REFUSED] },
];

const CONVERSATION: &[Field] = &[
    Field::honored("messages", r#"[{"role": "user", "content": "bye"}]"#, "the conversation, oldest first"),
    Field::honored("messages[].role", r#""system""#, "user, assistant or system"),
    Field::honored("messages[].content", r#""bye""#, "a string, or blocks"),
    Field::harmless("messages[].content[].type", r#""text""#, "text, thinking, redacted_thinking, tool_use or tool_result"),
    Field::honored("messages[].content[].text", r#""bye""#, "text of a `text` block"),
    Field::honored("messages[].content[].thinking", r#""so""#, "text of a `thinking` block; the chat template decides how much is rendered")
        .at("messages[1].content[0].thinking"),
    Field::harmless("messages[].content[].signature", r#""t""#, "of a `thinking` block; not read").at("messages[1].content[0].signature"),
    Field::harmless("messages[].content[].data", r#""y""#, "of a `redacted_thinking` block, which is left out")
        .at("messages[1].content[0].data")
        .beside(
            r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}]}"#,
        ),
    Field::honored("messages[].content[].id", r#""c2""#, "id of a `tool_use` block").at("messages[1].content[1].id"),
    Field::honored("messages[].content[].name", r#""g""#, "of a `tool_use` block: name of the called tool").at("messages[1].content[1].name"),
    Field::honored("messages[].content[].input", r#"{"a": 2}"#, "arguments of a `tool_use` block").at("messages[1].content[1].input"),
    Field::honored("messages[].content[].tool_use_id", r#""c2""#, "of a `tool_result` block: id of the call")
        .at("messages[2].content[0].tool_use_id"),
    Field::honored("messages[].content[].content", r#"[{"type": "text", "text": "5"}]"#, "of a `tool_result` block: a string, or `text` blocks")
        .at("messages[2].content[0].content"),
    Field::honored("messages[].content[].is_error", "true", "of a `tool_result` block: its text begins with `Error: `")
        .at("messages[2].content[0].is_error"),
    Field::harmless("messages[].content[].citations", r#"[{"type": "char_location"}]"#, "of a `text` block; not read"),
    Field::harmless("messages[].content[].caller", r#"{"type": "direct"}"#, "of a `tool_use` block; not read")
        .at("messages[1].content[1].caller"),
    Field::harmless("messages[].content[].cache_control", r#"{"type": "ephemeral"}"#, "common prefixes are always cached"),
    Field::refused("messages[].content[].source", r#"{"type": "url"}"#, "only text is supported"),
    Field::harmless("messages[].cache_control", r#"{"type": "ephemeral"}"#, "common prefixes are always cached"),
    Field::honored("system", r#"[{"type": "text", "text": "Be brief."}]"#, "instructions: a string, or `text` blocks"),
    Field::honored("tools", r#"[{"name": "h", "input_schema": {"type": "object"}}]"#, "functions that the model may call"),
    Field::harmless("tools[].type", r#""custom""#, "custom; tools of other types are left out, and an answer's header `X-Ignored-Tools` names their types"),
    Field::honored("tools[].name", r#""h""#, "1 to 128 letters, digits, and any of `_ - . : /`"),
    Field::honored("tools[].description", r#""does f""#, "goes to the chat template"),
    Field::honored("tools[].input_schema", r#"{"type": "object", "properties": {"a": {}}}"#, "JSON schema of the arguments"),
    Field::harmless("tools[].cache_control", r#"{"type": "ephemeral"}"#, "common prefixes are always cached"),
    Field::harmless("tools[].eager_input_streaming", "true", "arguments are always sent as they come"),
    Field::harmless("tools[].defer_loading", "true", "the model is shown every tool from the beginning"),
    Field::harmless("tools[].allowed_callers", r#"["direct"]"#, "with direct among them; the model is the only caller"),
    Field::refused("tools[].input_examples", r#"[{"a": 1}]"#, "put examples in the description"),
    Field::honored("thinking", r#"{"type": "disabled"}"#, "an object"),
    Field::honored("thinking.type", r#""adaptive""#, "enabled, adaptive or disabled: goes to the chat template"),
    Field::honored("output_config.effort", r#""low""#, "goes to the chat template"),
    Field::honored("model", r#""other""#, "a served model; needed where there are several"),
];

const ANSWER: &[Field] = &[
    Field::honored("tools[].strict", "true", "enforces the schema of the arguments"),
    Field::honored("tool_choice", r#"{"type": "any"}"#, "an object"),
    Field::honored("tool_choice.type", r#""none""#, "auto, any, tool or none"),
    Field::honored("tool_choice.name", r#""g""#, "the function to call")
        .beside(r#"{"tool_choice": {"type": "tool", "name": "f"}}"#),
    Field::honored("tool_choice.disable_parallel_tool_use", "true", "one call at most")
        .beside(r#"{"tool_choice": {"type": "auto"}}"#),
    Field::honored(
        "thinking.budget_tokens",
        "20",
        "maximum number of tokens of reasoning; required for the type enabled, refused for others",
    )
    .beside(r#"{"thinking": {"type": "enabled", "budget_tokens": 10}}"#),
    Field::honored("thinking.display", r#""omitted""#, "leaves the text of reasoning out of the answer")
        .beside(r#"{"thinking": {"type": "adaptive"}}"#),
    Field::honored("max_tokens", "7", "required: maximum number of tokens of the answer, reasoning included"),
    Field::honored("stop_sequences", r#"["x"]"#, "texts before which the answer ends"),
    Field::honored("stream", "true", "the answer as events"),
    Field::honored("output_config.format", r#"{"type": "json_schema", "schema": {}}"#, "JSON schema of the answer"),
    Field::honored("output_format", r#"{"type": "json_schema", "schema": {}}"#, "older name of `output_config.format`"),
    Field::honored("context_management", r#"{"edits": []}"#, "the answer says that nothing was edited"),
];

const HARMLESS: &[Field] = &[
    Field::harmless("metadata.user_id", r#""u""#, "written to the log"),
    Field::harmless("service_tier", r#""standard_only""#, "there is only one tier"),
    Field::harmless("cache_control", r#"{"type": "ephemeral"}"#, "common prefixes are always cached"),
];

const NOT_GENERATED: &str = "no answer is generated";

/// Fields of an answer, which change no count.
const COUNTED: &[Field] = &[
    Field::honored(
        "tool_choice",
        r#"{"type": "none"}"#,
        "none leaves the tools out of the prompt; other types change nothing",
    ),
    Field::honored("tool_choice.type", r#""none""#, "auto, any, tool or none"),
    Field::harmless("tool_choice.name", r#""g""#, NOT_GENERATED)
        .beside(r#"{"tool_choice": {"type": "tool", "name": "f"}}"#),
    Field::harmless("tool_choice.disable_parallel_tool_use", "true", NOT_GENERATED)
        .beside(r#"{"tool_choice": {"type": "auto"}}"#),
    Field::harmless("tools[].strict", "true", NOT_GENERATED),
    Field::harmless("thinking.budget_tokens", "20", NOT_GENERATED)
        .beside(r#"{"thinking": {"type": "enabled", "budget_tokens": 10}}"#),
    Field::harmless("thinking.display", r#""omitted""#, NOT_GENERATED).beside(r#"{"thinking": {"type": "adaptive"}}"#),
    Field::harmless("max_tokens", "7", NOT_GENERATED),
    Field::harmless("stop_sequences", r#"["x"]"#, NOT_GENERATED),
    Field::harmless("stream", "true", "the count is never streamed"),
    Field::harmless("output_config.format", r#"{"type": "json_schema", "schema": {}}"#, NOT_GENERATED),
    Field::harmless("output_format", r#"{"type": "json_schema", "schema": {}}"#, NOT_GENERATED),
    Field::harmless("context_management", r#"{"edits": []}"#, "conversations are not edited"),
    Field::harmless("metadata.user_id", r#""u""#, "not read"),
    Field::harmless("service_tier", r#""standard_only""#, "there is only one tier"),
    Field::harmless("cache_control", r#"{"type": "ephemeral"}"#, "common prefixes are always cached"),
];

/// Sampling parameters, as in [`crate::fields::SAMPLING`].
const SAMPLING: &[Field] = &[
    Field::harmless("temperature", "0.25", NOT_GENERATED),
    Field::harmless("top_p", "0.25", NOT_GENERATED),
    Field::harmless("top_k", "3", NOT_GENERATED),
    Field::harmless("min_p", "0.25", NOT_GENERATED),
    Field::harmless("repetition_penalty", "1.5", NOT_GENERATED),
    Field::harmless("presence_penalty", "0.5", NOT_GENERATED),
    Field::harmless("frequency_penalty", "0.5", NOT_GENERATED),
    Field::harmless("seed", "7", NOT_GENERATED),
    Field::harmless("logit_bias", r#"{"5": -1}"#, NOT_GENERATED),
    Field::harmless("repetition_context_size", "20", NOT_GENERATED).beside(r#"{"repetition_penalty": 1.5}"#),
    Field::harmless("presence_context_size", "20", NOT_GENERATED).beside(r#"{"presence_penalty": 1.5}"#),
    Field::harmless("frequency_context_size", "20", NOT_GENERATED).beside(r#"{"frequency_penalty": 1.5}"#),
];

const REFUSED: &[Field] = &[
    Field::refused("container", r#""c""#, "leave it out"),
    Field::refused("mcp_servers", r#"[{"type": "url"}]"#, "the client runs all tools"),
    Field::refused("inference_geo", r#""us""#, "leave it out"),
    Field::refused("speed", r#""fast""#, "leave it out"),
    Field::refused("diagnostics", r#"{"previous_message_id": "m"}"#, "leave it out"),
    Field::refused("user_profile_id", r#""u""#, "leave it out"),
    Field::refused("workspace_id", r#""w""#, "leave it out"),
];

#[cfg(test)]
mod tests {
    use super::super::{content, request, tools};
    use super::*;
    use crate::request::sampling::SamplingFields;

    #[test]
    fn every_field_that_is_read_is_in_the_table_and_none_is_there_twice() {
        let read = [
            ("", request::MessagesRequest::FIELDS),
            ("", SamplingFields::FIELDS),
            ("messages[].", content::MessageFields::FIELDS),
            ("messages[].content[].", content::BlockFields::FIELDS),
            ("tools[].", tools::CustomTool::FIELDS),
            ("tool_choice.", tools::Choice::FIELDS),
            ("thinking.", request::Thinking::FIELDS),
            ("output_config.", request::OutputConfig::FIELDS),
            ("metadata.", request::Metadata::FIELDS),
        ];
        for table in TABLES {
            table.check(&read);
        }
    }
}
