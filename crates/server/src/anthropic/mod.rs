//! Anthropic's dialect: messages, and the tokens of a prompt. Laid out as `openai` is: `request`, `content` and `tools` read the client's
//! JSON, `events` writes the answers, `errors` the errors, which have a shape of their own.

mod content;
mod errors;
mod events;
mod messages;
mod models;
mod request;
mod table;
mod tools;

pub(crate) use errors::{VERSION, own_errors};
pub(crate) use models::model;
pub(crate) use request::MessagesRequest;
pub(crate) use table::TABLES;

use crate::routes::Routes;

/// The dialect's routes.
pub(crate) fn routes() -> Routes {
    Routes::default().post("/v1/messages", messages::messages).post("/v1/messages/count_tokens", messages::count_tokens)
}
