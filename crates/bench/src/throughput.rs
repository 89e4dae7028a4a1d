//! Speed of one model under a load, in this process or behind a URL.

use crate::error::BenchError;
use crate::goodput::Limits;
use crate::load::{Load, Plan};
use crate::measured::{LISTED, Listed, Measured};
use crate::progress::Progress;
use crate::run::{Ran, run};
use crate::target::{Endpoint, Served};
use crate::workload::{observe, plan};
use mlx_serving_runtime::{self as runtime, Config, Generate as _, OnProgress, OpenOptions, Runtime, Source, machine};
use serde::Serialize;
use serde_json::{Value, json};

/// Load that is measured, and the limits that it is held to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The load.
    pub load: Load,
    /// Requests of the same kind before it, which do not count.
    pub warm_up: usize,
    /// Limits that goodput is counted by.
    pub limits: Option<Limits>,
}

impl Settings {
    /// The most requests that do not count.
    pub const MAX_WARM_UP: usize = 100_000;

    /// The load of the requests that do not count: other prompts, so that none is known when it counts.
    fn before(&self) -> Option<Load> {
        let load = Load { questions: self.warm_up, rate: None, seed: !self.load.seed, ..self.load };
        (self.warm_up > 0).then_some(load)
    }
}

impl From<Load> for Settings {
    /// One request warms up; there are no limits.
    fn from(load: Load) -> Self {
        Self { load, warm_up: 1, limits: None }
    }
}

/// Result of [`throughput`]; its JSON is what `bench throughput --output` writes.
#[derive(Debug, Clone, Serialize)]
pub struct Throughput {
    benchmark: &'static str,
    settings: Value,
    resident_after_loading_bytes: Option<u64>,
    machine: Value,
    version: &'static str,
    /// The figures.
    #[serde(flatten)]
    pub measured: Measured,
    /// The first requests, one by one.
    requests: Vec<Listed>,
}

/// Opens a model and measures it under a load.
///
/// # Errors
/// The load is empty, too large, or does not fit the model; the model cannot be opened; a request fails.
pub fn throughput(
    config: &Config,
    model: &Source,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Throughput, BenchError> {
    settings.load.check_range()?;
    let opening =
        Some(Box::new(|opening: runtime::Progress<'_>| progress(Progress::Opening(opening))) as OnProgress<'_>);
    let options = OpenOptions { progress: opening, ..OpenOptions::default() };
    let model = Runtime::new(config.clone()).open(model, options)?;
    let resident = machine::resident_memory();
    let planned = plan(&model, &settings.load)?;
    if let Some(before) = settings.before() {
        observe(&model, &plan(&model, &before)?, None, &mut |_, _| {})?;
    }
    progress(Progress::Asking { requests: settings.load.questions });
    let limits = settings.limits.as_ref();
    let (measured, ran) =
        observe(&model, &planned, limits, &mut |done, failed| progress(Progress::Answered { done, failed }))?;
    let device = model.engine().device().info();
    let subject = json!({
        "model": model.card().id, "device": device.name, "backend": device.backend, "instructions": device.instructions,
        "arithmetic": format!("{:?}", device.arithmetic).to_lowercase(), "threads": device.units,
        "metal_optimizations": config.metal_optimizations, "url": null, "server": null, "api": null,
    });
    Ok(Throughput::new(settings, subject, resident, measured, &ran))
}

/// Measures a server under a load. A request that is refused or fails is counted; see [`Throughput::is_all_failed`].
///
/// # Errors
/// The load is empty or too large.
pub fn throughput_of_server(
    endpoint: &Endpoint,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Throughput, BenchError> {
    let planned = Plan::of(&settings.load, None)?;
    if let Some(before) = settings.before() {
        let ran = run(&Served::new(endpoint, &before), &Plan::of(&before, None)?, &mut |_, _| {})?;
        let failed: Vec<_> = ran.outcomes.iter().filter_map(|outcome| outcome.answer.as_ref().err()).collect();
        if let Some(first) = failed.first() {
            progress(Progress::WarmUpFailed { requests: failed.len(), cause: &first.cause });
        }
    }
    progress(Progress::Asking { requests: settings.load.questions });
    let target = Served::new(endpoint, &settings.load);
    let ran = run(&target, &planned, &mut |done, failed| progress(Progress::Answered { done, failed }))?;
    let measured = Measured::of(&planned, &ran, settings.limits.as_ref());
    let subject = json!({
        "model": endpoint.model(), "device": null, "backend": null, "instructions": null, "arithmetic": null, "threads": null,
        "metal_optimizations": null, "url": endpoint.host(), "server": endpoint.software(), "api": endpoint.api(&settings.load),
    });
    Ok(Throughput::new(settings, subject, None, measured, &ran))
}

impl Throughput {
    fn new(settings: &Settings, subject: Value, resident: Option<u64>, measured: Measured, ran: &Ran) -> Self {
        let mut all = subject;
        // A load is an object of plain values.
        if let (Value::Object(all), Ok(Value::Object(load))) = (&mut all, serde_json::to_value(settings.load)) {
            all.extend(load);
        }
        all["warm_up"] = settings.warm_up.into();
        all["goodput"] = json!(settings.limits);
        Self {
            benchmark: "throughput",
            settings: all,
            resident_after_loading_bytes: resident,
            machine: machine::describe(),
            version: env!("CARGO_PKG_VERSION"),
            measured,
            requests: ran.outcomes.iter().take(LISTED).map(|outcome| outcome.listed()).collect(),
        }
    }

    /// True if no request was answered.
    pub fn is_all_failed(&self) -> bool {
        self.measured.answered == 0
    }
}
