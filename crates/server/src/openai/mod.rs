//! OpenAI's dialect, with vLLM's additions: chat and text completions. Its folder is how any dialect looks: objects that read the client's
//! JSON (`chat`, `completions`, `messages`, `prompts`, `fields`), each of which becomes an [`crate::generation::Ask`], and what writes the
//! answers (`events`, `logprobs`) as a [`crate::generation::Writer`]. Nothing outside of the folder knows the shape of its JSON, but that
//! of errors: those that no dialect sees, such as that of an unknown path, have OpenAI's.

mod chat;
mod completions;
mod events;
mod fields;
mod logprobs;
mod messages;
mod prompts;

pub(crate) use chat::ChatRequest;
pub(crate) use completions::CompletionRequest;

use crate::routes::Routes;

/// The dialect's routes.
pub(crate) fn routes() -> Routes {
    Routes::default()
        .post("/v1/chat/completions", chat::chat_completions)
        .post("/v1/completions", completions::completions)
}
