//! Text to tokens and back. No devices, no HTTP.
//!
//! | type | does |
//! | --- | --- |
//! | [`Tokenizer`] | `tokenizer.json` and `tokenizer_config.json`: text → ids, ids → text. Cheap to clone. |
//! | [`ChatTemplate`] | messages → prompt text, through the model's own Jinja template |
//! | [`Detokenizer`] | ids one at a time → text as soon as it is whole characters |
//! | [`StopMatcher`] | holds back what may begin a stop string, cuts the text at the first one |
//!
//! A request passes them in this order:
//!
//! ```no_run
//! # use mlx_serving_text::*;
//! # fn next_id() -> u32 { 0 }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = std::path::Path::new("models/rustbook-5m-4bit");
//! let tokenizer = Tokenizer::from_dir(dir)?;
//! let template = ChatTemplate::from_dir(dir)?.ok_or("this model has no chat template")?;
//!
//! let messages = [serde_json::json!({"role": "user", "content": "What Is Ownership?"})];
//! let prompt = template.render(&ChatInput::new(&messages))?;
//! // The template writes the special tokens itself, so none are added here.
//! let ids = tokenizer.encode(&prompt, false)?;
//!
//! let mut detokenizer = Detokenizer::new(&tokenizer, true);
//! let mut stops = StopMatcher::new(&["\n\n"])?;
//! # let _ = ids;
//! loop {
//!     let Some(text) = detokenizer.push(next_id())? else { continue };
//!     let step = stops.push(&text);
//!     print!("{}", step.emit);
//!     if step.stopped.is_some() {
//!         break;
//!     }
//! }
//! // When generation ends without a stop string, both may still hold text:
//! // stops.push(&detokenizer.finish()), then stops.finish().
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod bounds;
mod config;
mod detokenizer;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod python;
mod stop;
mod template;
mod tokenizer;

pub use detokenizer::Detokenizer;
pub use error::{TemplateError, TextError};
pub use stop::{StopMatcher, StopStep};
pub use template::{ChatInput, ChatTemplate};
pub use tokenizer::Tokenizer;
