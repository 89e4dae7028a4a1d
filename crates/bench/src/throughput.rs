//! Speed of one model under a fixed load.

use crate::error::BenchError;
use crate::progress::Progress;
use crate::workload::{Load, Measured, measure};
use mlx_serving_runtime::{self as runtime, Config, Generate as _, OnProgress, OpenOptions, Runtime, Source, machine};
use serde::Serialize;
use serde_json::{Value, json};

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
}

/// Opens a model and measures it under a load.
///
/// # Errors
/// The load is empty, too large, or does not fit the model; the model cannot be opened; a request fails.
pub fn throughput(
    config: &Config,
    model: &Source,
    load: &Load,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Throughput, BenchError> {
    load.check_range()?;
    let opening =
        Some(Box::new(|opening: runtime::Progress<'_>| progress(Progress::Opening(opening))) as OnProgress<'_>);
    let options = OpenOptions { progress: opening, ..OpenOptions::default() };
    let model = Runtime::new(config.clone()).open(model, options)?;
    let resident = machine::resident_memory();
    load.check(&model)?;
    // Warm caches and pages; not measured.
    measure(&model, &Load { questions: 1, max_tokens: load.max_tokens.min(8), ..*load })?;
    let measured = measure(&model, load)?;
    let device = model.engine().device().info();
    Ok(Throughput {
        benchmark: "throughput",
        settings: json!({
            "model": model.card().id, "questions": load.questions, "prompt_tokens": load.prompt_tokens,
            "max_tokens": load.max_tokens, "concurrency": load.concurrency, "device": device.name,
            "backend": device.backend, "arithmetic": format!("{:?}", device.arithmetic).to_lowercase(),
            "threads": device.units, "metal_optimizations": config.metal_optimizations,
        }),
        resident_after_loading_bytes: resident,
        machine: machine::describe(),
        version: env!("CARGO_PKG_VERSION"),
        measured,
    })
}
