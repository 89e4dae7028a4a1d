//! The formats of a model, by its chat template and its tokenizer.

use super::{CallFormat, Formats, ReasoningFormat};
use crate::tokenizer::Tokenizer;

/// Texts of a template that only the format's own models have; the first entry all of whose texts are there decides. What a family has
/// that others have too comes after them.
const CALLS: [(&[&str], CallFormat); 12] = [
    // gpt-oss: the template writes its messages.
    (&["<|channel|>", "<|message|>"], CallFormat::Harmony),
    // Gemma 4: the template repeats earlier calls.
    (&["<|tool_call>", "<tool_call|>"], CallFormat::Gemma),
    // GLM 4.5 and later: instructions and earlier calls.
    (&["<arg_key>", "<arg_value>"], CallFormat::Glm),
    // Qwen3-Coder, Qwen3.5: instructions and earlier calls.
    (&["<function=", "<parameter="], CallFormat::QwenXml),
    // Mistral: earlier calls.
    (&["[TOOL_CALLS]"], CallFormat::Mistral),
    // LFM2: earlier calls, or the list of tools alone.
    (&["<|tool_call_start|>"], CallFormat::Pythonic),
    (&["<|tool_list_start|>"], CallFormat::Pythonic),
    // Llama 4, and Llama 3 as some serve it: instructions.
    (&["<|python_start|>"], CallFormat::Pythonic),
    (&["[func_name1(params_name1="], CallFormat::Pythonic),
    // Hermes, Qwen2.5, Qwen3: instructions and earlier calls.
    (&["<tool_call>"], CallFormat::Hermes),
    // Llama 3.1 to 3.3: instructions.
    (&["\"parameters\": dictionary of argument name"], CallFormat::LlamaJson),
    (&["<|python_tag|>", "parameters"], CallFormat::LlamaJson),
];

/// Texts of a template with reasoning, as for calls.
const REASONING: [(&[&str], ReasoningFormat); 6] = [
    (&["<|channel|>", "<|message|>"], ReasoningFormat::Harmony),
    (&["<|channel>"], ReasoningFormat::Gemma),
    (&["[THINK]"], ReasoningFormat::Mistral),
    (&["<seed:think>"], ReasoningFormat::Seed),
    (&["<think>"], ReasoningFormat::Think),
    // DeepSeek-R1 cuts earlier reasoning off without writing where it begins.
    (&["</think>"], ReasoningFormat::Think),
];

/// Names that mlx-lm gives formats in a checkpoint's `tool_parser_type`, where they are not those of configurations.
const PARSERS: [(&str, CallFormat); 2] = [("json_tools", CallFormat::Hermes), ("glm47", CallFormat::Glm)];

impl CallFormat {
    /// The format of this name in a checkpoint's `tool_parser_type`.
    pub(crate) fn of_parser(name: &str) -> Option<Self> {
        Self::NAMES.iter().chain(&PARSERS).find(|(known, _)| *known == name).map(|(_, format)| *format)
    }
}

impl Formats {
    /// The formats of a model with these texts of chat templates and this tokenizer. `parser` is the checkpoint's own `tool_parser_type`,
    /// which goes before the table.
    #[must_use]
    pub fn detect(templates: &[&str], parser: Option<&str>, tokenizer: &Tokenizer) -> Self {
        let has = |texts: &[&str]| templates.iter().any(|template| texts.iter().all(|text| template.contains(text)));
        let calls = parser.and_then(CallFormat::of_parser);
        let calls = calls.or_else(|| CALLS.iter().find(|(texts, _)| has(texts)).map(|(_, format)| *format));
        let reasoning = REASONING.iter().find(|(texts, _)| has(texts)).map(|(_, format)| *format);
        // A model may reason though its template does not speak of it: the tokens are there for nothing else.
        let known = |format: &ReasoningFormat| {
            let (open, close) = format.markers();
            [open, close].iter().all(|marker| tokenizer.token_to_id(marker).is_some())
        };
        let tokens = [ReasoningFormat::Think, ReasoningFormat::Mistral, ReasoningFormat::Seed].into_iter();
        Self {
            reasoning: reasoning.or_else(|| tokens.into_iter().find(known).filter(|_| !templates.is_empty())),
            calls,
        }
    }
}
