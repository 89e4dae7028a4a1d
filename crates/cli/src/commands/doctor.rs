//! `doctor`: what this machine has, and what is wrong with it.

use crate::args::Doctor;
use crate::context::Context;
use crate::failure::Failure;
use crate::origins::Loaded;
use crate::{command_line, device, machine};
use mlx_serving_device::DeviceInfo;
use mlx_serving_model::architectures;
use mlx_serving_runtime::Source;
use serde_json::json;
use std::io::Write;

/// Columns of the report.
const WIDTH: usize = 80;
/// Columns before what is said of each thing.
const INDENT: usize = 11;

pub(crate) fn run(context: &Context, loaded: &Loaded, args: &Doctor) -> Result<(), Failure> {
    let mut problems: Vec<String> =
        loaded.broken.iter().map(|error| format!("{error}\nserve and whatever else needs it stops there")).collect();
    problems.extend(command_line::unknown());
    problems.extend(command_line::faults());
    problems.extend(context.config.warnings(machine::host_memory().map(|memory| memory.total)));
    let opened = device::open(&context.config.engine).map_err(|error| problems.push(error.to_string())).ok();
    let info = opened.as_ref().map(|device| device.info());
    if let Err(error) = Source::Bundled.here() {
        problems.push(error.to_string());
    }
    match context.runtime().check_configured() {
        Ok(found) => problems.extend(
            found
                .into_iter()
                .flat_map(|(name, warnings)| warnings.into_iter().map(move |warning| format!("{name}: {warning}"))),
        ),
        // The same that opening it said.
        Err(_) if info.is_none() => {}
        Err(error) => problems.push(error.to_string()),
    }
    if cfg!(debug_assertions) {
        problems.push("this is a debug build, many times slower: build with cargo build --release".to_owned());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if context.config.engine.threads > cores {
        problems.push(format!(
            "engine.threads is {}, but this machine has {cores} cores: the threads will wait for each other",
            context.config.engine.threads
        ));
    }
    let config = match (&loaded.path, &loaded.broken) {
        (None, _) => "none: defaults".to_owned(),
        (Some(path), None) => path.display().to_string(),
        (Some(path), Some(_)) => format!("{}, broken: defaults", path.display()),
    };
    let machine = machine::describe();
    let gpus = device::gpus();
    let mut missing = Vec::new();
    if !device::has_metal() {
        missing.push(("metal", "this system has no Metal".to_owned()));
    } else if info.is_none_or(|info| info.backend != "metal") {
        missing.push(("metal", "there is a Metal device, but another one is chosen with --device".to_owned()));
    }
    if let Err(error) = &gpus {
        missing.push(("vulkan", error.to_string()));
    }
    let gpus = gpus.unwrap_or_default();
    let mut out = anstream::stdout();
    if args.json {
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"), "machine": machine, "config": config,
            "devices": info.map(|info| json!({ "backend": info.backend, "name": info.name, "instructions": info.instructions, "features": info.features, "units": info.units,
                          "unified_memory": info.unified_memory, "memory_budget": device::budget(info),
                          "arithmetic": format!("{:?}", info.arithmetic).to_lowercase() })).into_iter().collect::<Vec<_>>(),
            "vulkan": gpus.iter().map(|gpu| json!({
                "device": gpu.device, "name": gpu.name, "driver": gpu.driver, "api": gpu.api,
                "kind": gpu.kind.to_lowercase(), "memory": gpu.memory, "uses": gpu.used,
                "lacks": gpu.missing,
            })).collect::<Vec<_>>(),
            "architectures": architectures().collect::<Vec<_>>(),
            "missing": missing.iter().map(|(name, why)| json!({ "backend": name, "reason": why })).collect::<Vec<_>>(),
            "problems": problems,
        });
        return writeln!(out, "{}", serde_json::to_string_pretty(&report).map_err(Failure::failed)?)
            .map_err(Failure::output);
    }
    let (bold, green, yellow) = (
        anstyle::Style::new().bold(),
        anstyle::Style::new().fg_color(Some(anstyle::AnsiColor::Green.into())),
        anstyle::Style::new().fg_color(Some(anstyle::AnsiColor::Yellow.into())),
    );
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let memory = machine::host_memory()
        .map_or("memory unknown".to_owned(), |memory| format!("{:.1} GiB of memory", gib(memory.total)));
    let mut lines = vec![
        format!("{bold}mlx-serving {}{bold:#}", env!("CARGO_PKG_VERSION")),
        row(
            &format!("{:INDENT$}", "machine"),
            &format!("{}, {} cores, {memory}", text(&machine["cpu"]), machine["cores"]),
        ),
        row(&format!("{:INDENT$}", "config"), &config),
    ];
    if let Some(info) = info {
        lines.push(row(&format!("{green}✓{green:#} {:8} ", info.backend), &info.name));
        let kernels = info.instructions.map(|set| format!(", {set} kernels")).unwrap_or_default();
        let mut said =
            vec![format!("{}{kernels}, {} arithmetic", units(info), format!("{:?}", info.arithmetic).to_lowercase())];
        // Portable kernels use none.
        if !info.features.is_empty() {
            said.push(format!("uses {}", info.features.join(", ")));
        }
        said.push(format!("memory budget {}", budget(info)));
        lines.extend(said.iter().map(|text| row(&" ".repeat(INDENT), text)));
    }
    for gpu in &gpus {
        let mark = if gpu.missing.is_empty() { "-" } else { "!" };
        lines.push(row(&format!("{mark} {:8} ", gpu.device), &format!("{} ({})", gpu.name, gpu.kind)));
        let state = match &gpu.missing[..] {
            [] => format!("uses {}; chosen with --device {}", gpu.used.join(", "), gpu.device),
            missing => format!("cannot be used: it lacks {}", missing.join(", ")),
        };
        let driver = format!("driver {}, Vulkan {}, {:.1} GiB", gpu.driver, gpu.api, gib(gpu.memory));
        lines.extend([driver, state].iter().map(|text| row(&" ".repeat(INDENT), text)));
    }
    lines.extend(missing.iter().map(|(name, why)| row(&format!("- {name:8} "), why)));
    lines.push(row(&format!("{:INDENT$}", "models"), &architectures().collect::<Vec<_>>().join(", ")));
    lines.extend(problems.iter().map(|problem| format!("{yellow}!{yellow:#} {}", wrapped(problem, 2))));
    if problems.is_empty() {
        lines.push(format!("{green}✓{green:#} nothing is wrong"));
    }
    writeln!(out, "{}", lines.join("\n")).map_err(Failure::output)
}

/// A label of [`INDENT`] columns and a text.
fn row(label: &str, text: &str) -> String {
    format!("{label}{}", wrapped(text, INDENT))
}

/// A text whose lines begin `indent` columns from the left, the first of them where it stands. Excerpts of files, which have line breaks of
/// their own, stay as they are.
fn wrapped(text: &str, indent: usize) -> String {
    let margin = format!("\n{}", " ".repeat(indent));
    if text.contains('\n') {
        return text.replace('\n', &margin);
    }
    let (mut lines, mut column) = (String::new(), indent);
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if column > indent && column + 1 + width > WIDTH {
            lines += &margin;
            column = indent;
        } else if column > indent {
            lines.push(' ');
            column += 1;
        }
        lines += word;
        column += width;
    }
    lines
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

fn budget(info: &DeviceInfo) -> String {
    device::budget(info).map_or("unknown".to_owned(), |bytes| format!("{:.1} GiB", gib(bytes)))
}

fn units(info: &DeviceInfo) -> String {
    match info.backend {
        "cpu" => format!("{} threads", info.units),
        _ => "on the GPU's own schedule".to_owned(),
    }
}
