//! `bench throughput`: speed of one model under a fixed load, in this process.

use crate::args::Throughput;
use crate::context::{Context, check_file, write_file};
use crate::failure::Failure;
use crate::progress::Opening;
use mlx_serving_bench::{Load, Measured, Progress, throughput};
use mlx_serving_runtime::Source;
use std::io::Write;

pub(crate) fn run(context: &Context, args: &Throughput) -> Result<(), Failure> {
    args.output.as_deref().map_or(Ok(()), check_file)?;
    let load = Load {
        questions: args.questions,
        prompt_tokens: args.load.prompt_tokens,
        max_tokens: args.load.max_tokens,
        concurrency: args.load.concurrency,
    };
    let source = Source::from(args.model.model.as_deref());
    let mut opening = Opening::new(source.id());
    let result = throughput(&context.config, &source, &load, &mut |progress| {
        if let Progress::Opening(progress) = progress {
            opening.show(progress);
        }
    })?;
    let text = serde_json::to_string_pretty(&result).map_err(Failure::failed)?;
    if let Some(path) = &args.output {
        write_file(path, text.as_bytes())?;
    }
    let mut out = anstream::stdout();
    if args.json {
        writeln!(out, "{text}").map_err(Failure::output)
    } else {
        table(&result.measured, &mut out).map_err(Failure::output)
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
