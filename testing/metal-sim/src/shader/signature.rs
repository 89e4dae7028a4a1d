//! Kernel signatures, read from MSL text.

use super::object::Layout;
use super::{Access, Argument, MAX_THREADS};

/// A `kernel void` function.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) name: String,
    pub(super) max_threads: usize,
    pub(super) parameters: Vec<Parameter>,
}

/// A parameter of a kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    Buffer {
        index: usize,
        access: Access,
        name: String,
    },
    Threadgroup {
        index: usize,
    },
    /// A position or an index, by its attribute's name.
    Position(String),
}

impl Parameter {
    /// Argument that must be bound for it: none for a position.
    pub(super) fn argument(&self, layout: &Layout) -> Option<Argument> {
        match self {
            Parameter::Buffer { index, access, name } => {
                Some(Argument::Buffer { index: *index, access: *access, name: name.clone(), min_len: layout.size })
            }
            Parameter::Threadgroup { index } => Some(Argument::Threadgroup { index: *index, min_len: layout.size }),
            Parameter::Position(_) => None,
        }
    }
}

/// The attributes that give a thread its place; sim_entry.h has a function for each.
const POSITIONS: [&str; 13] = [
    "threadgroup_position_in_grid",
    "threadgroups_per_grid",
    "threads_per_threadgroup",
    "dispatch_threads_per_threadgroup",
    "thread_position_in_threadgroup",
    "thread_position_in_grid",
    "threads_per_grid",
    "thread_index_in_threadgroup",
    "thread_index_in_simdgroup",
    "simdgroup_index_in_threadgroup",
    "simdgroups_per_threadgroup",
    "thread_execution_width",
    "threads_per_simdgroup",
];
const MAX_TOTAL: &str = "max_total_threads_per_threadgroup(";

/// `text` with a space for each comment.
pub(super) fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("//").into_iter().chain(rest.find("/*")).min() {
        kept.push_str(&rest[..start]);
        kept.push(' ');
        let (end, skip) = if rest[start..].starts_with("//") { ("\n", 0) } else { ("*/", 2) };
        rest = rest[start + 2..].split_once(end).map_or("", |(comment, _)| &rest[start + 2 + comment.len() + skip..]);
    }
    kept + rest
}

/// Parses every kernel of a text without comments.
///
/// # Errors
/// No kernel is there, or a parameter is none that a compute kernel of naga's has.
pub(super) fn parse(text: &str) -> Result<Vec<Kernel>, String> {
    let mut kernels = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("kernel void ") {
        let (name, after) = after.split_once('(').ok_or("a kernel has no parameter list")?;
        let name = name.trim().to_string();
        let (list, after) = parameter_list(after).ok_or_else(|| format!("kernel {name}: no end of parameters"))?;
        let mut threadgroups = 0;
        let parameters = split_parameters(list)
            .map(|p| parameter(p, &mut threadgroups))
            .collect::<Result<_, _>>()
            .map_err(|e| format!("kernel {name}: {e}"))?;
        kernels.push(Kernel { max_threads: max_threads(before), name, parameters });
        rest = after;
    }
    if kernels.is_empty() { Err("no kernel in the source: `kernel void` occurs nowhere".into()) } else { Ok(kernels) }
}

/// The attribute right before a kernel, if its number is one.
fn max_threads(before: &str) -> usize {
    let attribute = before.rsplit([';', '}']).next().unwrap_or(before);
    let number = attribute.rsplit_once(MAX_TOTAL).and_then(|(_, tail)| tail.split(')').next()?.trim().parse().ok());
    number.unwrap_or(MAX_THREADS)
}

/// Splits at the parenthesis that closes the list; `None` if there is none.
fn parameter_list(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

/// The parts between commas that stand in no bracket.
fn split_parameters(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    list.split(move |c| {
        match c {
            '(' | '[' | '<' => depth += 1,
            ')' | ']' | '>' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|p| !p.is_empty())
}

fn parameter(text: &str, threadgroups: &mut usize) -> Result<Parameter, String> {
    let (declaration, attribute) = match text.rsplit_once("[[") {
        Some((declaration, tail)) => (declaration.trim(), tail.trim_end_matches("]]").trim()),
        None => (text, ""),
    };
    let number = |prefix: &str| {
        let digits = attribute.strip_prefix(prefix)?.strip_prefix('(')?.strip_suffix(')')?;
        digits.trim().parse::<usize>().ok()
    };
    let words = || declaration.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty());
    let read_only = words().any(|w| w == "const" || w == "constant");
    if let Some(index) = number("buffer") {
        let access = if read_only { Access::Read } else { Access::Write };
        return Ok(Parameter::Buffer { index, access, name: words().next_back().unwrap_or("").to_string() });
    }
    if let Some(index) = number("threadgroup") {
        return Ok(Parameter::Threadgroup { index });
    }
    if attribute.is_empty() && words().next() == Some("threadgroup") {
        *threadgroups += 1;
        return Ok(Parameter::Threadgroup { index: *threadgroups - 1 });
    }
    if POSITIONS.contains(&attribute) {
        return Ok(Parameter::Position(attribute.to_string()));
    }
    let advice = if attribute.starts_with("user(") { "; the resource has no binding" } else { "" };
    Err(format!("parameter `{text}` has no attribute that a compute kernel can be given{advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_gives_indices_access_and_positions() {
        let text = "[[max_total_threads_per_threadgroup(64)]] kernel void f(\n  metal::uint3 g [[thread_position_in_grid]]\n\
            , device type_1 const& w [[buffer(0)]]\n, constant P& p [[buffer(7)]], device float* y [[buffer(3)]]\n\
            , threadgroup type_2& a, threadgroup atomic<int, 3>& b\n) {} kernel void g() {}";
        let kernels = parse(text).unwrap();
        let buffer = |index, access, name: &str| Parameter::Buffer { index, access, name: name.into() };
        assert_eq!(
            kernels[0].parameters,
            [
                Parameter::Position("thread_position_in_grid".into()),
                buffer(0, Access::Read, "w"),
                buffer(7, Access::Read, "p"),
                buffer(3, Access::Write, "y"),
                Parameter::Threadgroup { index: 0 },
                Parameter::Threadgroup { index: 1 },
            ]
        );
        assert_eq!((kernels[0].max_threads, kernels[1].max_threads), (64, MAX_THREADS));
        assert_eq!(kernels[1].name, "g");
    }

    #[test]
    fn a_resource_without_a_binding_is_refused() {
        let error = parse("kernel void f(device float& x [[user(fake0)]]) {}").unwrap_err();
        assert!(error.contains("kernel f") && error.contains("no binding"), "{error}");
    }

    #[test]
    fn comments_are_no_code() {
        assert_eq!(without_comments("a // kernel void f(\nb /* ) */ c"), "a  \nb   c");
        assert!(parse(&without_comments("// kernel void f() {}")).unwrap_err().contains("no kernel"));
    }
}
