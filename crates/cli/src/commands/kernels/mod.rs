//! `bench kernels`: how fast each op of a model's step is on a device, against the device's own copy bandwidth.

mod cost;
mod memory;
mod plan;
mod report;
mod rig;
mod sizes;
mod timing;

use crate::args::Kernels;
use crate::context::{Context, check_file, write_file};
use crate::device;
use crate::failure::Failure;
use crate::progress::Bar;
use cost::cost;
use memory::Memory;
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Device, Op, Result};
use mlx_serving_model::synth::Synth;
use plan::{Case, Plan};
use report::{Measured, Report, Speed};
use rig::{MeasuredOp, Rig};
use std::io::Write;
use std::sync::Arc;
use timing::{recording, time};

/// Bytes of each of the two buffers of the copy at most.
const COPY: u64 = 256 << 20;

pub(crate) fn run(context: &Context, args: &Kernels) -> Result<(), Failure> {
    let synth = Synth { shape: args.shape.clone(), bits: args.bits, group_size: args.group_size, seed: 0 };
    // Before a device is opened.
    synth.shape().map_err(Failure::usage)?;
    args.output.as_deref().map_or(Ok(()), check_file)?;
    let device = device::open(&context.config.engine)?;
    let number = |n: &u32| *n as usize;
    let (rows, contexts): (Vec<usize>, Vec<usize>) =
        (args.rows.iter().map(number).collect(), args.context.iter().map(number).collect());
    let plan = Plan::new(synth, &rows, &contexts, device.as_ref())?;
    // Beside the kernels of every case, a copy and the making of weights.
    let bar = Bar::steps(2 + plan.cases.len() * MeasuredOp::ALL.len());
    let (kernels, recordings) = kernels(&plan, &device, &bar)?;
    bar.step("copy");
    let copy = copy(&device).map_err(Failure::failed)?;
    bar.finish();
    let report = Report { plan: &plan, device: device.info(), copy, kernels, recordings };
    let text = serde_json::to_string_pretty(&report.json()).map_err(Failure::failed)?;
    if let Some(path) = &args.output {
        write_file(path, text.as_bytes())?;
    }
    let mut out = anstream::stdout();
    if args.json {
        writeln!(out, "{text}").map_err(Failure::output)
    } else {
        report.table(&mut out).map_err(Failure::output)
    }
}

/// A copy between two private buffers, on the faster of the two queues: what the device's memory can do.
fn copy(device: &Arc<dyn Device>) -> Result<Speed> {
    let info = device.info();
    let len = COPY.min(info.max_buffer_len).min(info.memory_budget / 4);
    let memory = Memory::new(device)?;
    let op = Op::Copy(Copy { from: memory.pages(len)?, to: memory.pages(len)? });
    let compute = time(&device.compute_queue(), &|_| op.clone())?;
    let transfer = time(&device.transfer_queue(), &|_| op.clone())?;
    let timing = if compute.minimum < transfer.minimum { compute } else { transfer };
    Ok(Speed { timing, cost: cost(&op, &Case::new(1, 1), device.as_ref()) })
}

/// Every kernel of every case, each once, and what recording each case's step takes the host.
fn kernels(plan: &Plan, device: &Arc<dyn Device>, bar: &Bar) -> Result<(Vec<Measured>, Vec<f64>), Failure> {
    bar.step("random weights");
    let rig = Rig::new(plan, Memory::new(device).map_err(Failure::failed)?)?;
    let queue = device.compute_queue();
    let (mut all, mut recordings): (Vec<Measured>, Vec<f64>) = Default::default();
    for case in &plan.cases {
        let step = rig.step(case).map_err(Failure::failed)?;
        for kernel in MeasuredOp::ALL {
            let (rows, context) = (kernel.rows(case), kernel.context(case));
            bar.step(kernel.label());
            if !step.has(kernel) || all.iter().any(|m| m.is(kernel, case)) {
                continue;
            }
            let timing = time(&queue, &|call| step.op(kernel, call)).map_err(Failure::failed)?;
            tracing::debug!(kernel = kernel.label(), rows, context, us = 1e6 * timing.median, "measured");
            let cost = cost(&step.op(kernel, 0), case, device.as_ref());
            all.push(Measured { kernel, rows, context, speed: Speed { timing, cost } });
        }
        let kernels = || MeasuredOp::ALL.into_iter().filter(|&kernel| step.has(kernel));
        let calls = || kernels().flat_map(|kernel| (0..kernel.calls(plan)).map(move |n| (kernel, n)));
        let recorded = recording(&queue, &|| calls().map(|(kernel, n)| step.op(kernel, n)).collect());
        recordings.push(recorded.map_err(Failure::failed)?);
    }
    Ok((all, recordings))
}
