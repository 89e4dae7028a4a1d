//! Prompts: from conversations, texts or token ids to the ids that an engine takes.

use crate::conversation::Conversation;
use mlx_serving_engine::Info;
use mlx_serving_text::{ChatInput, ChatTemplate, TemplateError, TextError, Tokenizer};

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
    /// The text cannot be encoded.
    #[error(transparent)]
    Text(TextError),
}

/// Makes the prompts of one model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prompter<'a> {
    pub model: &'a str,
    pub tokenizer: &'a Tokenizer,
    pub template: Option<&'a ChatTemplate>,
    pub info: &'a Info,
}

impl Prompter<'_> {
    /// The ids of an input, if the model's context can hold them; found out in a few MiB of memory, however long the text is, and no
    /// longer than `goes_on` returns true.
    pub(crate) fn ids(self, input: Input, goes_on: &mut dyn FnMut() -> bool) -> Result<Vec<u32>, PromptError> {
        match input {
            Input::Conversation { conversation, special } => self.encode(&self.render(conversation)?, special, goes_on),
            Input::Text { text, special } => self.encode(&text, special, goes_on),
            Input::Ids(ids) => self.known(ids),
        }
    }

    fn render(self, conversation: Conversation) -> Result<String, PromptError> {
        let no_template = || PromptError::NoTemplate { model: self.model.to_owned() };
        let template = self.template.ok_or_else(no_template)?;
        let (messages, variables) = conversation.into_values();
        let mut input = ChatInput::new(&messages);
        input.kwargs = variables.as_ref();
        Ok(template.render(&input)?)
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
