//! Connections: accepting them, the requests that they carry, their limits, and the end of the server.

mod accept;
mod activity;
mod connections;
mod http;
mod probe;
mod refuse;
mod serve;
mod server;
mod socket;

pub(crate) use activity::Activity;
pub(crate) use serve::serve;
