//! Bodies and answers, and the work on them: a body is refused before it is read where it cannot be served, and counted while it is
//! held; work is done by as many threads as there are cores, off the runtime's own.

mod answers;
mod budget;
mod work;

pub(crate) use answers::{Charge, Unread};
pub(crate) use budget::Share;
pub(crate) use work::{Admission, Work, WorkPermit};
