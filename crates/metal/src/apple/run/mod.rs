//! Running submissions: each is committed when its queue has room, and retired when the device has ended it and the host has seen all
//! that it waited for.

mod clock;
mod flights;
mod submit_queue;

pub(crate) use clock::now;
pub(crate) use flights::{Flight, Flights};
pub(crate) use submit_queue::SubmitQueue;
