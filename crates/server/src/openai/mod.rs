//! OpenAI's dialect, with vLLM's additions: chat and text completions, embeddings. Its folder is how any dialect looks: objects that read the
//! client's JSON (`chat`, `completions`, and their parts in `messages`, `tools`, `reasoning`, `structure`, `prompts`, `fields`), each of which
//! becomes an [`crate::generation::Ask`], and what writes the answers (`chat_choices`, `text_choices`, `events`, `logprobs`) as a
//! [`crate::generation::Writer`]. `render` tells what a request would ask. Nothing outside of the folder knows the shape of its JSON, but that
//! of errors: those that no dialect sees, such as that of an unknown path, have OpenAI's.

mod chat;
mod chat_choices;
mod completions;
mod embeddings;
mod events;
mod fields;
mod logprobs;
mod messages;
mod prompts;
mod reasoning;
mod render;
mod structure;
mod table;
mod text_choices;
mod tools;

pub(crate) use chat::ChatRequest;
pub(crate) use completions::CompletionRequest;
pub(crate) use embeddings::EmbeddingRequest;
pub(crate) use table::TABLES;

use crate::routes::Routes;

/// The dialect's routes.
pub(crate) fn routes() -> Routes {
    Routes::default()
        .post("/v1/chat/completions", chat::chat_completions)
        .post("/v1/completions", completions::completions)
        .post("/v1/chat/completions/render", render::chat)
        .post("/v1/completions/render", render::completion)
        .post("/v1/embeddings", embeddings::embeddings)
}
