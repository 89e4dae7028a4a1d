//! Continuous load on a model in this process that checks everything it gets: what `mlx-serving soak` stands on.
//!
//! [`soak`] runs mixed traffic on a [`Subject`] for as long as its [`Settings`] say, and gives a [`Record`]: windows of measurements, events,
//! and a [`Verdict`] of each check, as JSON and as a page. [`Served`] is the subject that a process has; tests alter one. Files, arguments
//! and terminals are the caller's.
//!
//! | module | does |
//! | --- | --- |
//! | `settings`, `record` | a run's settings, and what it has measured; what may go on where another ended |
//! | `subject`, `served` | a model that is opened, asked, unloaded and looked at; the one behind the runtime's registry |
//! | `clock` | time, and a fixed computation by which the machine's own speed is known |
//! | `traffic`, `client` | questions with their references and rates; the requests in flight and what came of them |
//! | `run` | phases, windows, probes of the speed, the end |
//! | `judge`, `speed` | verdicts, from the record alone |
//! | `page`, `plot` | the record as a page |
#![forbid(unsafe_code)]

mod client;
mod clock;
mod error;
mod judge;
mod page;
mod plot;
mod record;
mod run;
mod served;
mod settings;
mod speed;
mod subject;
mod traffic;

pub use clock::{Clock, SystemClock};
pub use error::SoakError;
pub use judge::{Outcome, Verdict, judge};
pub use record::{Event, Idle, Origin, Part, Probe, Record, Window};
pub use run::{Progress, soak};
pub use served::Served;
pub use settings::{Settings, duration};
pub use subject::{Answer, Facts, Footprint, Gauges, Refusal, Subject, Way};
