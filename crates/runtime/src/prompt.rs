//! Prompts: from conversations, texts or token ids to the ids that an engine takes.

use crate::conversation::{Arguments, Conversation, Earlier, Role, Tool, ToolChoice};
use mlx_serving_engine::Info;
use mlx_serving_grammar::{Grammar, GrammarError, Structure};
use mlx_serving_text::{
    ChatInput, ChatTemplate, Formats, OutputFormat, TemplateError, TextError, Tokenizer, ToolSchema,
};
use serde_json::{Map, Value, json};

/// A prompt, and what is known of the answers to it.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// The prompt's token ids.
    pub ids: Vec<u32>,
    /// Markup of the answers.
    pub format: OutputFormat,
    /// Grammar of the answers.
    pub grammar: Option<Grammar>,
}

impl From<Vec<u32>> for Prepared {
    fn from(ids: Vec<u32>) -> Self {
        Self { ids, ..Self::default() }
    }
}

/// Text, ids or conversation that an answer continues.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A conversation, rendered by the model's chat template.
    Conversation {
        /// Its messages.
        conversation: Conversation,
        /// Puts the model's begin and end tokens around the prompt, which most templates write themselves.
        special: bool,
    },
    /// A text.
    Text {
        /// The text itself.
        text: String,
        /// Puts the model's begin and end tokens around it.
        special: bool,
    },
    /// Token ids.
    Ids(Vec<u32>),
}

/// A prompt that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The model has no chat template.
    #[error("{model} has no chat template")]
    NoTemplate {
        /// The model's name.
        model: String,
    },
    /// The conversation has tools, of which the chat template says nothing to the model.
    #[error(
        "this model's chat template knows no tools; leave them out, or give a template that does with --chat-template FILE"
    )]
    NoTools,
    /// The answer has to call tools, and the format in which the model writes calls is not known.
    #[error(
        "calls cannot be forced: nothing in this model's chat template says how it writes calls; set models.tool_call_format"
    )]
    NoCalls,
    /// A tool is strict, and the format in which the model writes calls is not known.
    #[error(
        "the schema of {name:?} cannot be enforced for calls: nothing in this model's chat template says how it writes calls; set \
         models.tool_call_format, or leave `strict` out"
    )]
    NoStrictCalls {
        /// The tool's name.
        name: String,
        /// Its index among the tools of the request.
        index: usize,
    },
    /// The schema of a tool's arguments is no grammar.
    #[error("the schema of the tool {name:?} cannot be enforced: {fault}")]
    Tool {
        /// The tool's name.
        name: String,
        /// Its index among the tools of the request.
        index: usize,
        /// Fault of its schema.
        fault: GrammarError,
    },
    /// Both calls and content of a form that does not stand beside calls.
    #[error(
        "an answer that may call tools can follow a JSON schema or a choice beside them, but not a regular expression or a grammar; leave \
         `tools` out, or set `tool_choice` to none"
    )]
    Both,
    /// The last message cannot be continued.
    #[error("the final message cannot be continued: {reason}")]
    Continuation {
        /// Reason.
        reason: &'static str,
    },
    /// The chat template refuses the conversation, or is at fault itself.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// More tokens than the model's context holds.
    #[error("the prompt has {}{tokens} tokens; {bound}", if *.exact { "" } else { "at least " })]
    TooLong {
        /// Tokens of the prompt, counted so far.
        tokens: usize,
        /// There are no more.
        exact: bool,
        /// Tokens that the context holds, and what bounds them: [`Info::context`].
        bound: String,
    },
    /// A token id that the model does not have.
    #[error("token {id} is outside the vocabulary of {vocab}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Tokens of the vocabulary.
        vocab: usize,
    },
    /// The structure is no grammar.
    #[error(transparent)]
    Structure(#[from] GrammarError),
    /// The text cannot be encoded.
    #[error(transparent)]
    Text(TextError),
}

/// Structures that the answers to a prompt may be held to.
#[derive(Debug, Default)]
pub(crate) struct Structures {
    /// The best one first: of them the first that is a grammar counts.
    pub list: Vec<Structure>,
    /// The tools of the last one, with the schemas that it holds their arguments to, each with its index among the request's.
    pub tools: Vec<(usize, ToolSchema)>,
}

/// Makes the prompts of one model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prompter<'a> {
    pub model: &'a str,
    pub tokenizer: &'a Tokenizer,
    pub template: Option<&'a ChatTemplate>,
    pub formats: Formats,
    pub info: &'a Info,
}

impl Prompter<'_> {
    /// An input made ready, and the structures that its answers may be held to. `asked` is the one that the request names. Found out in a few MiB of memory, however long the text is, and no longer than
    /// `goes_on` returns true.
    pub(crate) fn prepare(
        self,
        input: Input,
        asked: Option<&Structure>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<(Prepared, Structures), PromptError> {
        let of_text = || Structures::of_text(asked);
        match input {
            Input::Conversation { conversation, special } => {
                let (text, format) = self.render(&conversation)?;
                let structures = match conversation.has_tools() {
                    true => self.structures(&conversation, &format, asked)?,
                    false => of_text(),
                };
                Ok((Prepared { ids: self.encode(&text, special, goes_on)?, format, grammar: None }, structures))
            }
            Input::Text { text, special } => Ok((self.encode(&text, special, goes_on)?.into(), of_text())),
            Input::Ids(ids) => Ok((self.known(ids)?.into(), of_text())),
        }
    }

    /// The structures of an answer that may or has to call tools. Arguments are held to their schemas; where such a schema is no grammar
    /// and the tool is not strict, to the names and types of the arguments.
    fn structures(
        self,
        conversation: &Conversation,
        format: &OutputFormat,
        asked: Option<&Structure>,
    ) -> Result<Structures, PromptError> {
        let (choice, tools) = (&conversation.tool_choice, &conversation.tools);
        let forces = matches!(choice, ToolChoice::Required | ToolChoice::Named(_));
        let strict = tools.iter().find(|tool| tool.strict);
        let Some(calls) = format.calls() else {
            return match strict {
                _ if forces => Err(PromptError::NoCalls),
                Some(tool) => Err(PromptError::NoStrictCalls { name: tool.name.clone(), index: tool.index }),
                None => Ok(Structures::of_text(asked)),
            };
        };
        if !forces && strict.is_none() && asked.is_none() {
            return Ok(Structures::default());
        }
        // Calls have no content for a structure; an answer that may make some has either.
        let content = asked.filter(|_| !forces).map(rule).transpose()?;
        // A tool that has to be called by name is called once.
        let (named, parallel) = match choice {
            ToolChoice::Named(name) => (Some(name), false),
            _ => (None, conversation.parallel_calls),
        };
        let called: Vec<&Tool> = tools.iter().filter(|tool| named.is_none_or(|name| tool.name == *name)).collect();
        for tool in called.iter().filter(|tool| forces || tool.strict) {
            let schema = ToolSchema { name: tool.name.clone(), parameters: tool.parameters.clone() };
            if let Some(message) = calls.misfit(self.tokenizer, &schema, tool.strict) {
                let (name, fault) = (tool.name.clone(), GrammarError::Structure { message });
                return Err(PromptError::Tool { name, index: tool.index, fault });
            }
        }
        let schemas = |loose: bool| -> Vec<ToolSchema> {
            let schema = |tool: &Tool| match loose && !tool.strict {
                true => loosened(&tool.parameters),
                false => tool.parameters.clone(),
            };
            called.iter().map(|tool| ToolSchema { name: tool.name.clone(), parameters: schema(tool) }).collect()
        };
        let structure = |tools: &[ToolSchema]| {
            Structure::Lark(match &content {
                Some(content) => calls.lark_or(self.tokenizer, tools, parallel, content),
                None if forces => calls.lark(self.tokenizer, tools, parallel),
                None => calls.lark_if_called(self.tokenizer, tools, parallel),
            })
        };
        let loose = schemas(true);
        let list = vec![structure(&schemas(false)), structure(&loose)];
        Ok(Structures { list, tools: called.iter().map(|tool| tool.index).zip(loose).collect() })
    }

    /// The prompt's text, and the markup of the answers to it.
    fn render(self, conversation: &Conversation) -> Result<(String, OutputFormat), PromptError> {
        let no_template = || PromptError::NoTemplate { model: self.model.to_owned() };
        let template = self.template.ok_or_else(no_template)?;
        let tools = conversation.has_tools();
        if tools && template.check(true).is_ok() && !template.knows_tools() {
            return Err(PromptError::NoTools);
        }
        let mut text = self.write(template, conversation, Arguments::Values);
        let has_calls = conversation.messages.iter().any(|message| !message.calls.is_empty());
        if let (true, Err(TemplateError::Failed { .. } | TemplateError::Variables { .. })) = (has_calls, &text) {
            // Some templates write the arguments as they are, and fail where they are no text.
            text = self.write(template, conversation, Arguments::Text).or(text);
        }
        let mut text = text?;
        let schemas = conversation.tools.iter().filter(|_| tools);
        let schemas = schemas.map(|tool| ToolSchema { name: tool.name.clone(), parameters: tool.parameters.clone() });
        let format = OutputFormat::new(self.formats, schemas.collect(), &text);
        if !conversation.continue_final_message {
            return Ok((text, format));
        }
        let begun = final_content(conversation)?;
        cut_behind(&mut text, begun)?;
        Ok((text, format.continuing(begun)))
    }

    fn write(
        self,
        template: &ChatTemplate,
        conversation: &Conversation,
        arguments: Arguments,
    ) -> Result<String, TemplateError> {
        let tools = conversation.has_tools();
        let earlier = match (template.reasoning_key(tools), self.formats.reasoning) {
            (Some(key), _) => Earlier::Key(key),
            (None, Some(reasoning)) => {
                reasoning.inline().map_or(Earlier::Dropped, |(open, close)| Earlier::Inline(open, close))
            }
            (None, None) => Earlier::Dropped,
        };
        let messages = conversation.values(earlier, arguments);
        let definitions: Vec<Value> = conversation.tools.iter().map(|tool| tool.definition.clone()).collect();
        template.render(&ChatInput {
            tools: tools.then_some(definitions.as_slice()),
            add_generation_prompt: conversation.add_generation_prompt && !conversation.continue_final_message,
            kwargs: conversation.variables.as_ref(),
            ..ChatInput::new(&messages)
        })
    }

    fn encode(self, text: &str, special: bool, goes_on: &mut dyn FnMut() -> bool) -> Result<Vec<u32>, PromptError> {
        let limit = self.info.max_context;
        self.tokenizer.encode_within(text, special, limit, goes_on).map_err(|error| match error {
            TextError::TooLong { tokens, exact, .. } => {
                PromptError::TooLong { tokens, exact, bound: self.info.context() }
            }
            error => PromptError::Text(error),
        })
    }

    /// Ids that the model can take. A prompt that fills the context can be scored; where an answer is asked for, the engine refuses it.
    fn known(self, ids: Vec<u32>) -> Result<Vec<u32>, PromptError> {
        let (limit, vocab) = (self.info.max_context, self.info.vocab);
        if ids.len() > limit {
            return Err(PromptError::TooLong { tokens: ids.len(), exact: true, bound: self.info.context() });
        }
        match ids.iter().find(|&&id| id as usize >= vocab) {
            Some(&id) => Err(PromptError::UnknownToken { id, vocab }),
            None => Ok(ids),
        }
    }
}

impl Structures {
    /// The one that a request names, for answers that call nothing.
    fn of_text(asked: Option<&Structure>) -> Self {
        Self { list: asked.cloned().into_iter().collect(), tools: Vec::new() }
    }
}

/// A structure of content as the body of a rule of Lark, beside calls.
fn rule(content: &Structure) -> Result<String, PromptError> {
    match content {
        Structure::Object => Ok(format!("%json {}", json!({ "type": "object" }))),
        Structure::Schema(schema) => Ok(format!("%json {schema}")),
        Structure::Choice(texts) => {
            Ok(texts.iter().map(|text| Value::from(text.as_str()).to_string()).collect::<Vec<_>>().join(" | "))
        }
        Structure::Regex(_) | Structure::Lark(_) => Err(PromptError::Both),
    }
}

/// A schema of arguments with nothing but their names and types, and which of them have to be there.
fn loosened(parameters: &Value) -> Value {
    let keep = |schema: &Value| {
        let kept = schema.get("type").map(|kind| ("type".to_owned(), kind.clone()));
        Value::Object(kept.into_iter().collect())
    };
    let properties = parameters["properties"].as_object().into_iter().flatten();
    let properties: Map<String, Value> = properties.map(|(name, schema)| (name.clone(), keep(schema))).collect();
    let required = parameters["required"].as_array().cloned().unwrap_or_default();
    json!({ "type": "object", "properties": properties, "required": required })
}

/// The text with which the answer begins, where it goes on with the last message.
fn final_content(conversation: &Conversation) -> Result<&str, PromptError> {
    let refused = |reason| Err(PromptError::Continuation { reason });
    match conversation.messages.last() {
        Some(message) if message.role != Role::Assistant => refused("it has to be the assistant's"),
        Some(message) if !message.calls.is_empty() => refused("it has calls; only text can go on"),
        Some(message) if !message.content.trim().is_empty() => Ok(&message.content),
        _ => refused("it has no text"),
    }
}

/// Cuts a prompt behind the last message's text, as transformers does: many templates trim it and write an end behind it.
fn cut_behind(prompt: &mut String, content: &str) -> Result<(), PromptError> {
    let (whole, trimmed) = (content.trim_start(), content.trim());
    let reason = "the model's chat template does not write it as it is";
    let start = prompt.rfind(trimmed).ok_or(PromptError::Continuation { reason })?;
    let length = if prompt[start..].starts_with(whole) { whole.len() } else { trimmed.len() };
    prompt.truncate(start + length);
    Ok(())
}

#[cfg(test)]
mod tests;
