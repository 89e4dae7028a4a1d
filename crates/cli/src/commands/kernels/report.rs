//! Measurements, for people and as JSON, and what follows from them for whole steps.

use super::cost::Cost;
use super::plan::{Case, Plan};
use super::rig::MeasuredOp;
use super::timing::Timing;
use crate::{device, machine};
use mlx_serving_device::DeviceInfo;
use serde_json::{Value, json};
use std::io::Write;

/// Time and cost of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speed {
    pub timing: Timing,
    pub cost: Cost,
}

impl Speed {
    /// Gigabytes a second, by the median.
    fn gb_s(&self) -> f64 {
        self.cost.bytes as f64 / self.timing.median / 1e9
    }

    /// Tera-operations a second, by the median; a multiply-add is two operations.
    fn tflop_s(&self) -> f64 {
        2.0 * self.cost.multiply_adds as f64 / self.timing.median / 1e12
    }
}

/// A kernel's speed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub kernel: MeasuredOp,
    pub rows: usize,
    /// Tokens of a sequence, where they matter.
    pub context: Option<usize>,
    pub speed: Speed,
}

impl Measured {
    /// True if a step of that case has this.
    pub(super) fn is(&self, kernel: MeasuredOp, case: &Case) -> bool {
        (self.kernel, self.rows, self.context) == (kernel, kernel.rows(case), kernel.context(case))
    }
}

/// A step of the whole model, kernels alone.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    seconds: f64,
    /// The host's, to record it.
    recording: f64,
    bytes: u64,
    multiply_adds: u64,
}

pub(super) struct Report<'a> {
    pub plan: &'a Plan,
    pub device: &'a DeviceInfo,
    pub copy: Speed,
    pub kernels: Vec<Measured>,
    /// Seconds that the host takes to record the step of each case.
    pub recordings: Vec<f64>,
}

impl Report<'_> {
    /// Bytes per second of the copy: by the best run, because it is what others are held to.
    fn copy_gb_s(&self) -> f64 {
        self.copy.cost.bytes as f64 / self.copy.timing.minimum / 1e9
    }

    fn sum(&self, case: &Case, recording: f64) -> Sum {
        let parts = MeasuredOp::ALL.iter().filter_map(|&kernel| self.kernels.iter().find(|m| m.is(kernel, case)));
        parts.fold(Sum { recording, ..Sum::default() }, |sum, m| {
            let calls = m.kernel.calls(self.plan);
            Sum {
                seconds: sum.seconds + calls as f64 * m.speed.timing.median,
                bytes: sum.bytes + calls as u64 * m.speed.cost.bytes,
                multiply_adds: sum.multiply_adds + calls as u64 * m.speed.cost.multiply_adds,
                ..sum
            }
        })
    }

    fn cases(&self, prefill: bool) -> impl Iterator<Item = (&Case, Sum)> {
        let cases = self.plan.cases.iter().zip(&self.recordings).filter(move |(case, _)| case.is_prefill() == prefill);
        cases.map(|(case, recording)| (case, self.sum(case, *recording)))
    }

    pub(super) fn json(&self) -> Value {
        let (p, d, copy) = (self.plan, self.device, self.copy);
        let kernel = |m: &Measured| {
            let Speed { timing: t, cost } = m.speed;
            json!({
                "kernel": m.kernel, "rows": m.rows, "context": m.context,
                "calls_per_step": m.kernel.calls(p),
                "median_us": 1e6 * t.median, "minimum_us": 1e6 * t.minimum, "runs": t.runs, "calls_per_run": t.calls,
                "timed_by": timed_by(&t), "bytes": cost.bytes, "multiply_adds": cost.multiply_adds,
                "gb_s": m.speed.gb_s(), "copy_share": m.speed.gb_s() / self.copy_gb_s(), "tflop_s": m.speed.tflop_s(),
            })
        };
        let step = |(case, sum): (&Case, Sum)| {
            let gb_s = sum.bytes as f64 / sum.seconds / 1e9;
            json!({
                "rows": case.rows, "context": case.context, "ms": 1e3 * sum.seconds,
                "recording_ms": 1e3 * sum.recording,
                "tok_s": case.rows as f64 / sum.seconds, "bytes": sum.bytes, "gb_s": gb_s,
                "copy_share": gb_s / self.copy_gb_s(), "multiply_adds": sum.multiply_adds,
                "tflop_s": 2.0 * sum.multiply_adds as f64 / sum.seconds / 1e12,
            })
        };
        json!({
            "benchmark": "kernels",
            "settings": {
                "shape": p.shape.name, "bits": p.synth.bits, "group_size": p.synth.group_size, "model_layers": p.shape.layers,
                "layers_walked": p.layers, "kv_cache_bytes": p.kv_bytes,
                "arithmetic": self.arithmetic(),
            },
            "device": {
                "backend": d.backend, "name": d.name, "features": d.features, "units": d.units,
                "unified_memory": d.unified_memory, "memory_budget": device::budget(d),
                "max_buffer_len": d.max_buffer_len,
            },
            "machine": machine::describe(),
            "version": env!("CARGO_PKG_VERSION"),
            "copy": {
                "bytes": copy.cost.bytes, "minimum_us": 1e6 * copy.timing.minimum, "median_us": 1e6 * copy.timing.median,
                "runs": copy.timing.runs, "timed_by": timed_by(&copy.timing), "gb_s": self.copy_gb_s(),
            },
            "kernels": self.kernels.iter().map(kernel).collect::<Vec<_>>(),
            "decode": self.cases(false).map(step).collect::<Vec<_>>(),
            "prefill": self.cases(true).map(step).collect::<Vec<_>>(),
        })
    }

    fn arithmetic(&self) -> String {
        format!("{:?}", self.device.arithmetic).to_lowercase()
    }

    pub(super) fn table(&self, out: &mut impl Write) -> std::io::Result<()> {
        let (p, d) = (self.plan, self.device);
        writeln!(
            out,
            "{}, {} bits in groups of {}, {} arithmetic, on {} ({})",
            p.shape.name,
            p.synth.bits,
            p.synth.group_size,
            self.arithmetic(),
            d.name,
            d.backend
        )?;
        let mib = (self.copy.cost.bytes / 2) >> 20;
        writeln!(out, "copy of {mib} MiB, read and written: {:.1} GB/s", self.copy_gb_s())?;
        if self.kernels.iter().any(|m| !m.speed.timing.by_device) {
            writeln!(out, "this device has no timestamps: times are the host's, submission included")?;
        }
        writeln!(
            out,
            "\n{:15} {:>5} {:>7} {:>6} {:>12} {:>12} {:>9} {:>8} {:>7} {:>8}",
            "kernel", "rows", "context", "a step", "median µs", "min µs", "MB", "GB/s", "of copy", "TFLOP/s"
        )?;
        for m in &self.kernels {
            let t = &m.speed.timing;
            writeln!(
                out,
                "{:15} {:5} {:>7} {:6} {:12.1} {:12.1} {:9.3} {:8.1} {:5.0} % {:8.3}",
                m.kernel.label(),
                m.rows,
                m.context.map_or("–".to_owned(), |context| context.to_string()),
                m.kernel.calls(p),
                1e6 * t.median,
                1e6 * t.minimum,
                m.speed.cost.bytes as f64 / 1e6,
                m.speed.gb_s(),
                100.0 * m.speed.gb_s() / self.copy_gb_s(),
                m.speed.tflop_s()
            )?;
        }
        self.steps(out, "decode, kernels alone", false)?;
        self.steps(out, "prefill, kernels alone", true)
    }

    fn steps(&self, out: &mut impl Write, title: &str, prefill: bool) -> std::io::Result<()> {
        if self.cases(prefill).next().is_none() {
            return Ok(());
        }
        writeln!(
            out,
            "\n{title:24} {:>5} {:>7} {:>12} {:>9} {:>10} {:>9} {:>8} {:>7} {:>8}",
            "rows", "context", "ms", "host ms", "tok/s", "MB", "GB/s", "of copy", "TFLOP/s"
        )?;
        for (case, sum) in self.cases(prefill) {
            let gb_s = sum.bytes as f64 / sum.seconds / 1e9;
            writeln!(
                out,
                "{:24} {:5} {:7} {:12.3} {:9.3} {:10.1} {:9.1} {:8.1} {:5.0} % {:8.3}",
                "",
                case.rows,
                case.context,
                1e3 * sum.seconds,
                1e3 * sum.recording,
                case.rows as f64 / sum.seconds,
                sum.bytes as f64 / 1e6,
                gb_s,
                100.0 * gb_s / self.copy_gb_s(),
                2.0 * sum.multiply_adds as f64 / sum.seconds / 1e12
            )?;
        }
        Ok(())
    }
}

fn timed_by(timing: &Timing) -> &'static str {
    if timing.by_device { "device" } else { "host" }
}
