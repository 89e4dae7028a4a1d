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
    Table { routes: &["/v1/messages/count_tokens"], body: BODY, groups: &[CONVERSATION, COUNTED, REFUSED] },
];

const CONVERSATION: &[Field] = &[
    Field::honored("messages", r#"[{"role": "user", "content": "bye"}]"#, "the conversation, oldest first"),
    Field::honored("messages[].role", r#""system""#, "user, assistant or system"),
    Field::honored("messages[].content", r#""bye""#, "a string, or blocks"),
    Field::harmless("messages[].content[].type", r#""text""#, "text, thinking, redacted_thinking, tool_use or tool_result"),
    Field::honored("messages[].content[].text", r#""bye""#, "of a block `text`"),
    Field::honored("messages[].content[].thinking", r#""so""#, "of a block `thinking`; the chat template decides how much is rendered")
        .at("messages[1].content[0].thinking"),
    Field::harmless("messages[].content[].signature", r#""t""#, "of a block `thinking`").at("messages[1].content[0].signature"),
    Field::harmless("messages[].content[].data", r#""y""#, "of a block `redacted_thinking`, which is left out")
        .at("messages[1].content[0].data")
        .beside(
            r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}]}"#,
        ),
    Field::honored("messages[].content[].id", r#""c2""#, "of a block `tool_use`").at("messages[1].content[1].id"),
    Field::honored("messages[].content[].name", r#""g""#, "of a block `tool_use`").at("messages[1].content[1].name"),
    Field::honored("messages[].content[].input", r#"{"a": 2}"#, "of a block `tool_use`").at("messages[1].content[1].input"),
    Field::honored("messages[].content[].tool_use_id", r#""c2""#, "of a block `tool_result`")
        .at("messages[2].content[0].tool_use_id"),
    Field::honored("messages[].content[].content", r#"[{"type": "text", "text": "5"}]"#, "of a block `tool_result`: a string, or blocks `text`")
        .at("messages[2].content[0].content"),
    Field::honored("messages[].content[].is_error", "true", "of a block `tool_result`: its text begins with `Error: `")
        .at("messages[2].content[0].is_error"),
    Field::harmless("messages[].content[].citations", r#"[{"type": "char_location"}]"#, "of a block `text`"),
    Field::harmless("messages[].content[].caller", r#"{"type": "direct"}"#, "of a block `tool_use`")
        .at("messages[1].content[1].caller"),
    Field::harmless("messages[].content[].cache_control", r#"{"type": "ephemeral"}"#, "prompts share what they have in common"),
    Field::refused("messages[].content[].source", r#"{"type": "url"}"#, "text is all"),
    Field::harmless("messages[].cache_control", r#"{"type": "ephemeral"}"#, "likewise"),
    Field::honored("system", r#"[{"type": "text", "text": "Be brief."}]"#, "instructions: a string, or blocks `text`"),
    Field::honored("tools", r#"[{"name": "h", "input_schema": {"type": "object"}}]"#, "functions that the model may call"),
    Field::harmless("tools[].type", r#""custom""#, "tools of other types are left out, and the answer's head says so"),
    Field::honored("tools[].name", r#""h""#, "1 to 128 letters, digits, and any of `_ - . : /`"),
    Field::honored("tools[].description", r#""does f""#, "goes to the chat template"),
    Field::honored("tools[].input_schema", r#"{"type": "object", "properties": {"a": {}}}"#, "JSON schema of the arguments"),
    Field::harmless("tools[].cache_control", r#"{"type": "ephemeral"}"#, "prompts share what they have in common"),
    Field::harmless("tools[].eager_input_streaming", "true", "arguments are always sent as they come"),
    Field::harmless("tools[].defer_loading", "true", "every tool is shown from the beginning"),
    Field::harmless("tools[].allowed_callers", r#"["direct"]"#, "the model is the only caller"),
    Field::honored("thinking", r#"{"type": "disabled"}"#, "an object"),
    Field::honored("thinking.type", r#""adaptive""#, "enabled, adaptive or disabled: goes to the chat template"),
    Field::honored("output_config.effort", r#""low""#, "goes to the chat template"),
    Field::honored("model", r#""other""#, "a served model; needed where there are several"),
];

const ANSWER: &[Field] = &[
    Field::honored("tools[].strict", "true", "holds the arguments to the schema"),
    Field::honored("tool_choice", r#"{"type": "any"}"#, "an object"),
    Field::honored("tool_choice.type", r#""none""#, "auto, any, tool or none"),
    Field::honored("tool_choice.name", r#""g""#, "the function that is to be called")
        .beside(r#"{"tool_choice": {"type": "tool", "name": "f"}}"#),
    Field::honored("tool_choice.disable_parallel_tool_use", "true", "one call at most")
        .beside(r#"{"tool_choice": {"type": "auto"}}"#),
    Field::honored("thinking.budget_tokens", "20", "most tokens of reasoning, of the type enabled")
        .beside(r#"{"thinking": {"type": "enabled", "budget_tokens": 10}}"#),
    Field::honored("thinking.display", r#""omitted""#, "leaves the text of reasoning out of the answer")
        .beside(r#"{"thinking": {"type": "adaptive"}}"#),
    Field::honored("max_tokens", "7", "required: most tokens of the answer, those of reasoning included"),
    Field::honored("stop_sequences", r#"["x"]"#, "texts before which the answer ends"),
    Field::honored("stream", "true", "the answer as events"),
    Field::honored(
        "output_config.format",
        r#"{"type": "json_schema", "schema": {}}"#,
        "a JSON schema to which the answer is held",
    ),
    Field::honored("output_format", r#"{"type": "json_schema", "schema": {}}"#, "its older name"),
    Field::honored("context_management", r#"{"edits": []}"#, "the answer says that nothing was edited"),
];

const HARMLESS: &[Field] = &[
    Field::harmless("metadata.user_id", r#""u""#, "goes to the log"),
    Field::harmless("service_tier", r#""standard_only""#, "there is one"),
    Field::harmless("cache_control", r#"{"type": "ephemeral"}"#, "prompts share what they have in common"),
];

const COUNTED: &[Field] = &[
    Field::harmless("max_tokens", "7", "an answer's"),
    Field::harmless("tool_choice", r#"{"type": "any"}"#, "likewise"),
    Field::harmless("tools[].strict", "true", "likewise"),
    Field::harmless("output_config.format", r#"{"type": "json_schema", "schema": {}}"#, "likewise"),
    Field::harmless("cache_control", r#"{"type": "ephemeral"}"#, "prompts share what they have in common"),
];

const REFUSED: &[Field] = &[
    Field::refused("container", r#""c""#, "leave it out"),
    Field::refused("mcp_servers", r#"[{"type": "url"}]"#, "the client calls tools"),
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
        TABLES[0].check(&read);
    }
}
