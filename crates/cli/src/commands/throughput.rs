//! `bench throughput`: speed of one model under a fixed load, in this process.

use super::workload::{Load, Measured, measure};
use crate::args::Throughput;
use crate::context::{Context, check_file, write_file};
use crate::failure::Failure;
use crate::machine;
use mlx_serving_runtime::Generate as _;
use std::io::Write;

pub(crate) fn run(context: &Context, args: &Throughput) -> Result<(), Failure> {
    args.output.as_deref().map_or(Ok(()), check_file)?;
    let model = context.load(args.model.model.as_deref())?;
    let resident = machine::resident_memory();
    let load = Load {
        questions: args.questions,
        prompt_tokens: args.load.prompt_tokens,
        max_tokens: args.load.max_tokens,
        concurrency: args.load.concurrency,
    };
    load.check(&model)?;
    // Warm caches and pages; not measured.
    measure(&model, &Load { questions: 1, max_tokens: args.load.max_tokens.min(8), ..load })?;
    let measured = measure(&model, &load)?;
    let device = model.engine().device().info();
    let report = serde_json::json!({
        "benchmark": "throughput",
        "settings": {
            "model": model.card().id, "questions": args.questions, "prompt_tokens": args.load.prompt_tokens,
            "max_tokens": args.load.max_tokens, "concurrency": args.load.concurrency, "device": device.name,
            "backend": device.backend, "arithmetic": format!("{:?}", device.arithmetic).to_lowercase(),
            "threads": device.units, "metal_optimizations": context.config.metal_optimizations,
        },
        "resident_after_loading_bytes": resident,
        "machine": machine::describe(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let mut report = report;
    merge(&mut report, &serde_json::to_value(&measured).map_err(Failure::failed)?);
    let text = serde_json::to_string_pretty(&report).map_err(Failure::failed)?;
    if let Some(path) = &args.output {
        write_file(path, text.as_bytes())?;
    }
    let mut out = anstream::stdout();
    if args.json {
        writeln!(out, "{text}").map_err(Failure::output)
    } else {
        table(&measured, &mut out).map_err(Failure::output)
    }
}

/// Adds the keys of one object to another.
fn merge(into: &mut serde_json::Value, from: &serde_json::Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

fn table(m: &Measured, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "throughput      {:10.2} tok/s", m.throughput_tok_s)?;
    writeln!(out, "prefill         {:10.2} tok/s", m.prefill_tok_s)?;
    writeln!(out, "decode          {:10.2} tok/s", m.decode_tok_s)?;
    for (name, p) in [("first token", m.ttft_ms), ("between tokens", m.itl_ms)] {
        writeln!(out, "{name:15} {:10.2} ms   (p95 {:.2}, p99 {:.2})", p.p50, p.p95, p.p99)?;
    }
    writeln!(out, "device busy     {:10.1} %", 100.0 * m.device_utilization)?;
    if let Some(bytes) = m.peak_memory_bytes {
        writeln!(out, "peak memory     {:10.1} MiB", bytes as f64 / f64::from(1 << 20))?;
    }
    Ok(())
}
