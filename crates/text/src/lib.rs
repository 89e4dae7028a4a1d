//! Text to tokens and back. No devices, no HTTP.
//!
//! | type | does |
//! | --- | --- |
//! | [`Tokenizer`] | `tokenizer.json` and `tokenizer_config.json`: text → ids, ids → text. Cheap to clone. |
//! | [`ChatTemplate`] | messages → prompt text, through the model's own Jinja template |
//! | [`Detokenizer`] | ids one at a time → text as soon as it is whole characters |
//! | [`StopMatcher`] | holds back what may begin a stop string, cuts the text at the first one |
//! | [`AnswerText`] | both for one answer: ids in, the text that a client gets out |
//!
//! A request passes them in this order:
//!
//! ```no_run
//! # use mlx_serving_text::*;
//! # fn next_id() -> u32 { 0 }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = std::path::Path::new("models/rustbook-5m-4bit");
//! let tokenizer = Tokenizer::from_dir(dir)?;
//! let template = ChatTemplate::from_dir(dir, None)?.ok_or("this model has no chat template")?;
//!
//! let messages = [serde_json::json!({"role": "user", "content": "What Is Ownership?"})];
//! let prompt = template.render(&ChatInput::new(&messages))?;
//! // The template writes the special tokens itself, so none are added here.
//! let ids = tokenizer.encode(&prompt, false)?;
//!
//! // No prompt is given: the answer to a chat begins a text of its own.
//! let mut answer = AnswerText::new(&tokenizer, None, StopMatcher::new(&["\n\n"])?, &OutputFormat::default());
//! # let _ = ids;
//! loop {
//!     let step = answer.push(next_id())?;
//!     print!("{}", content(&step.segments));
//!     if step.stopped {
//!         break;
//!     }
//! }
//! // When generation ends without a stop string, text may still be held back.
//! print!("{}", content(&answer.finish()));
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod bounds;
mod byte_level;
mod config;
mod cuts;
mod depth;
mod detokenizer;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod output;
mod python;
mod template;
mod tokenizer;
mod within;

pub use detokenizer::{Detokenizer, Piece};
pub use error::{TemplateError, TextError};
pub use output::{
    AnswerStep, AnswerText, CallFormat, Formats, OutputFormat, ReasoningFormat, Segment, StopMatcher, StopStep,
    ToolSchema, content, reasoning,
};
pub use template::{ChatInput, ChatTemplate};
pub use tokenizer::Tokenizer;
