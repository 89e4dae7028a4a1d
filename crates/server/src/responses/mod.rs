//! OpenAI's Responses: answers as lists of items, which can be kept and continued. Laid out as `openai` is: `request`, `items` and `tools` read
//! the client's JSON, `object` and `events` write the answers, which `crate::stored` keeps.

mod events;
mod items;
mod object;
mod request;
mod routes;
mod table;
mod tools;

pub(crate) use request::ResponseRequest;
pub(crate) use routes::routes;
pub(crate) use table::TABLES;
