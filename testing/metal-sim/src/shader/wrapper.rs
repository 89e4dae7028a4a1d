//! The translation unit that clang compiles: MSL and, for each kernel, a C function that runs a range of its threads.

use super::signature::{Kernel, Parameter};
use std::fmt::Write;

/// Parts of the names of calls at which threads wait for each other: MSL without any of them has no such call.
pub(super) const MEETINGS: [&str; 4] = ["_barrier", "simd_", "simdgroup_", "quad_"];

/// The symbol that takes the host's table of callbacks.
pub(super) const BIND: &str = "sim_bind";

/// The symbol of a kernel's sizes and alignments.
pub(super) fn layout_symbol(kernel: &str) -> String {
    format!("sim_layout_{kernel}")
}

/// The symbol of a kernel's wrapper.
pub(super) fn run_symbol(kernel: &str) -> String {
    format!("sim_run_{kernel}")
}

/// C++ whose lines are called `kernel.metal` where they are the MSL's.
pub(super) fn translation_unit(msl: &str, kernels: &[Kernel]) -> String {
    // See sim_atomic.h: two address spaces, one signature.
    let msl = with_swizzles(&msl.replace("threadgroup A *atomic_ptr", "sim_no_address<A> *atomic_ptr"));
    let mut unit = format!("#line 1 \"kernel.metal\"\n{msl}\n#line 1 \"wrapper\"\n");
    let _ = writeln!(unit, "extern \"C\" void {BIND}(const SimHost *host) {{ sim_host = host; }}");
    for kernel in kernels {
        let arguments: Vec<String> = kernel.parameters.iter().map(argument).collect();
        let (name, arguments) = (&kernel.name, arguments.join(", "));
        let (layout, run) = (layout_symbol(name), run_symbol(name));
        let _ = write!(
            unit,
            "extern \"C\" const auto {layout} = sim_layouts({name});\n\
             extern \"C\" void {run}(void *const *b, void *const *t, const SimGroup *g, uint first, uint end, \
             volatile uint *current) {{\n\
             \x20   for (SimThread i(*g, first); i.index < end; i.next()) {{\n\
             \x20       *current = i.index;\n\
             \x20       {name}({arguments});\n\
             \x20   }}\n\
             }}\n"
        );
    }
    unit
}

/// `v.zyx` as `v.swizzle<2, 1, 0>()`, for C++ has no such members.
fn with_swizzles(msl: &str) -> String {
    let mut parts = msl.split('.');
    let mut text = parts.next().unwrap_or("").to_string();
    for part in parts {
        let word = part.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(part.len());
        let indices: Option<Vec<_>> = part[..word].chars().map(|c| "xyzw".find(c)).collect();
        text.push('.');
        match indices.filter(|i| i.len() > 1) {
            Some(indices) => {
                let list: Vec<String> = indices.iter().map(usize::to_string).collect();
                let _ = write!(text, "swizzle<{}>(){}", list.join(", "), &part[word..]);
            }
            None => text.push_str(part),
        }
    }
    text
}

fn argument(parameter: &Parameter) -> String {
    match parameter {
        Parameter::Buffer { index, .. } => format!("SimArgument{{b[{index}]}}"),
        Parameter::Threadgroup { index } => format!("SimArgument{{t[{index}]}}"),
        Parameter::Position(name) => format!("i.{name}()"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swizzles_become_calls_and_nothing_else_does() {
        assert_eq!(with_swizzles("f(v.xy, m[0].wzzx)"), "f(v.swizzle<0, 1>(), m[0].swizzle<3, 2, 2, 0>())");
        for text in ["v.x + v.xa", "1.0 + a.xyz_", "", "a.b.w"] {
            assert_eq!(with_swizzles(text), text);
        }
    }
}
