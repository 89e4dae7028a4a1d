//! `bench throughput`: speed of one model under a load, in this process or behind a URL.

use crate::args::Throughput;
use crate::context::{Context, check_file, write_file};
use crate::failure::Failure;
use crate::progress::{Bar, Opening};
use mlx_serving_bench::{
    Counted, Endpoint, EndpointOptions, Goodput, Load, LoadFields, Measured, Progress, Settings, throughput,
    throughput_of_server,
};
use mlx_serving_runtime::Source;
use std::io::Write;

/// Columns of a cause of failures in the table.
const CAUSE: usize = 60;

pub(crate) fn run(context: &Context, args: &Throughput) -> Result<(), Failure> {
    args.output.as_deref().map_or(Ok(()), check_file)?;
    let settings = settings(args)?;
    let source = Source::from(args.model.model.as_deref());
    let mut shown = Shown::Opening(Opening::new(source.id()));
    let result = match &args.url {
        None => throughput(&context.config, &source, &settings, &mut |progress| shown.show(progress)),
        Some(url) => {
            let options = EndpointOptions {
                url: url.clone(),
                api: args.api,
                model: args.model.model.clone(),
                api_key: args.api_key.clone(),
                silence: EndpointOptions::SILENCE,
            };
            let endpoint = Endpoint::open(&options, &settings.load)?;
            tracing::info!("asking {} of {}, seed {}", endpoint.model(), endpoint.host(), settings.load.seed);
            throughput_of_server(&endpoint, &settings, &mut |progress| shown.show(progress))
        }
    }?;
    drop(shown);
    let text = serde_json::to_string_pretty(&result).map_err(Failure::failed)?;
    if let Some(path) = &args.output {
        write_file(path, text.as_bytes())?;
    }
    let mut out = anstream::stdout();
    if args.json { writeln!(out, "{text}") } else { table(&result.measured, &mut out) }.map_err(Failure::output)?;
    match result.measured.failures.first() {
        Some(first) if result.is_all_failed() => {
            let (failed, cause, example) = (result.measured.failed, &first.cause, &first.example);
            Err(Failure::failed(format!("all {failed} requests failed; the most frequent cause is {cause}: {example}")))
        }
        _ => Ok(()),
    }
}

fn settings(args: &Throughput) -> Result<Settings, Failure> {
    // A server may remember the prompts of an earlier run, which would make this one look fast.
    let seed = args.seed.or_else(|| args.url.as_ref().map(|_| drawn()));
    let fields = LoadFields {
        questions: Some(args.questions),
        prompt_tokens: Some(args.prompt_tokens),
        max_tokens: Some(args.max_tokens),
        concurrency: args.concurrency,
        rate: args.rate,
        load: args.load.clone(),
        prefix_tokens: args.prefix_tokens,
        turns: args.turns,
        seed,
    };
    Ok(Settings { load: Load::try_from(fields)?, warm_up: args.warm_up, limits: args.goodput })
}

/// A seed of the clock's, short enough to be typed again.
fn drawn() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ (now.as_secs() & 0xffff_ffff)
}

/// Progress on the screen.
enum Shown {
    /// The model's download.
    Opening(Opening),
    /// The requests: a bar, how many there are, how many tenths of them have been told.
    Requests(Bar, usize, usize),
}

impl Shown {
    fn show(&mut self, progress: Progress<'_>) {
        match (progress, self) {
            (Progress::Opening(progress), Shown::Opening(opening)) => opening.show(progress),
            (Progress::WarmUpFailed { requests, cause }, _) => {
                tracing::warn!("of the requests that warm up, {requests} failed: {cause}");
            }
            (Progress::Asking { requests }, shown) => *shown = Shown::Requests(Bar::requests(requests), requests, 0),
            (Progress::Answered { done, failed }, Shown::Requests(bar, requests, told)) => {
                bar.set(done as u64, *requests as u64);
                bar.failed(failed);
                let tenths = 10 * done / *requests;
                if bar.is_hidden() && tenths > std::mem::replace(told, tenths) {
                    tracing::info!(done, of = *requests, failed, "answered");
                }
            }
            _ => {}
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Shown::Requests(bar, ..) = self {
            bar.finish();
        }
    }
}

fn table(m: &Measured, out: &mut impl Write) -> std::io::Result<()> {
    if m.answered > 0 {
        speeds(m, out)?;
    }
    for (count, what) in [
        (m.failed, "failed"),
        (m.held_back, "waited for one of --concurrency places after their arrival"),
        (m.cut_to_context, "had lengths beyond the model's context, which were cut"),
        (m.ended_early, "ended before the tokens that were asked for"),
    ] {
        if count > 0 {
            writeln!(out, "{count} of {} {what}", m.answered + m.failed)?;
        }
    }
    for failures in &m.failures {
        let cause: String = failures.cause.chars().take(CAUSE).collect();
        writeln!(out, "  {:6} {cause}", failures.count)?;
    }
    if m.tokens_counted_by == Counted::Pieces {
        writeln!(out, "The server told no usage: pieces of its streams are counted as tokens.")?;
    }
    Ok(())
}

fn speeds(m: &Measured, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "throughput      {:10.2} tok/s", m.throughput_tok_s)?;
    if let Some(prefill) = m.prefill_tok_s {
        writeln!(out, "prefill         {prefill:10.2} tok/s")?;
    }
    match m.decode_tok_s {
        Some(decode) => writeln!(out, "decode          {decode:10.2} tok/s")?,
        None => writeln!(out, "decode          {:>10}", "n/a")?,
    }
    writeln!(out, "answered        {:10.2} requests/s", m.requests_s)?;
    let times = [("first token", Some(m.ttft_ms)), ("between tokens", m.itl_ms), ("whole answer", Some(m.e2e_ms))];
    for (name, times) in times {
        match times {
            Some(p) => {
                writeln!(
                    out,
                    "{name:15} {:10.2} ms   (p95 {:.2}, p99 {:.2}, mean {:.2})",
                    p.p50, p.p95, p.p99, p.mean
                )?;
            }
            None => writeln!(out, "{name:15} {:>10}", "n/a")?,
        }
    }
    if let Some(Goodput { share, requests_s }) = m.goodput {
        writeln!(out, "goodput         {:10.1} %    ({requests_s:.2} requests/s)", 100.0 * share)?;
    }
    if let Some(busy) = m.device_utilization {
        writeln!(out, "device busy     {:10.1} %", 100.0 * busy)?;
    }
    if let Some(bytes) = m.peak_memory_bytes {
        writeln!(out, "peak memory     {:10.1} MiB", bytes as f64 / f64::from(1 << 20))?;
    }
    Ok(())
}
