//! Keeps values small while a template runs.
//!
//! Fuel bounds the steps of a rendering and the bytes that each creates. It does not see that `[x, x]` shares `x`: sixty
//! such lines make a value that takes 2^60 steps to print or compare, and ninety thousand levels of `[x]` overflow the
//! stack when they are dropped. So a check is inserted behind every instruction that can build a container: it may
//! hold at most [`MAX_NODES`] values and [`MAX_TEXT`] bytes of text, shared ones counted as often as they occur, at most
//! [`MAX_DEPTH`] deep, and no namespace, whose contents could change afterward and form a cycle. Another one before every
//! comparison takes fuel for what is compared. `~` and `%`, which make text, are calls of functions instead.

use minijinja::machinery::{CompiledTemplate, Instruction, Instructions};
use minijinja::value::{DynObject, ObjectRepr, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// Values in one container that a template builds. The messages of a long conversation are a few thousand.
const MAX_NODES: usize = 50_000;
/// Text in one container, bytes: no more than fuel pays for, so that what prints or joins a container takes no more either.
const MAX_TEXT: usize = FUEL as usize * BYTES_PER_FUEL;
/// Steps that one rendering may take; 64 bytes of text count as one, so it also bounds memory (to 200 MB).
/// A conversation of a thousand messages needs a tenth.
pub(crate) const FUEL: u64 = 3_000_000;
/// Bytes that cost one unit of fuel, as in minijinja.
pub(crate) const BYTES_PER_FUEL: usize = 64;
/// Deeper than any JSON that a client can send (serde_json stops at 128).
pub(crate) const MAX_DEPTH: usize = 200;
/// Assignments to attributes of namespaces in one template: a namespace grows by one container with each.
const MAX_MEMBERS: usize = 256;
/// The values that one unit of fuel pays for where they are only looked at.
const SEEN_PER_FUEL: usize = 16;
/// Values that one unit of fuel pays for where they are compared afterward.
const COMPARED_PER_FUEL: usize = 4;

const CHECK: &str = " bounded";
const CHECK_MEMBER: &str = " bounded member";
const CHECK_COMPARED: &str = " bounded compared";
/// The functions that stand in the place of `~` and `%`.
pub(crate) const CONCATENATED: &str = " concatenated";
pub(crate) const PERCENT: &str = " percent";
/// Names that no template can spell; requests may not give variables with them.
pub(crate) const INSERTED: [&str; 5] = [CHECK, CHECK_MEMBER, CHECK_COMPARED, CONCATENATED, PERCENT];

/// Adds the functions that [`insert_checks`] calls.
pub(crate) fn add_checks(environment: &mut Environment) {
    environment.add_function(CHECK, |state: &State, value: Value| bounded(state, value, SEEN_PER_FUEL));
    environment.add_function(CHECK_COMPARED, |state: &State, value: Value| bounded(state, value, COMPARED_PER_FUEL));
    environment.add_function(CHECK_MEMBER, |state: &State, value: Value| {
        if value.as_object().is_some_and(is_namespace) {
            return Err(too_large("a namespace inside another"));
        }
        let (value, bytes) = weighed(state, value, SEEN_PER_FUEL)?;
        // A namespace may have many members, which are printed together.
        state.consume_fuel((bytes / BYTES_PER_FUEL) as u64)?;
        Ok(value)
    });
}

/// Takes fuel for comparing a list's values with another.
pub(crate) fn pay_comparison(state: &State, list: &Value) -> Result<(), Error> {
    bounded(state, list.clone(), COMPARED_PER_FUEL).map(drop)
}

/// Puts a check behind every instruction that builds values, and calls of functions in the place of operators that make text.
///
/// # Errors
/// A template that assigns to more than [`MAX_MEMBERS`] attributes.
pub(crate) fn insert_checks(template: &mut CompiledTemplate) -> Result<(), String> {
    let mut members = 0;
    for instructions in std::iter::once(&mut template.instructions).chain(template.blocks.values_mut()) {
        *instructions = checked(instructions, &mut members);
    }
    if members > MAX_MEMBERS {
        return Err(format!("it assigns to attributes in {members} places, more than {MAX_MEMBERS}"));
    }
    Ok(())
}

fn checked<'s>(old: &Instructions<'s>, members: &mut usize) -> Instructions<'s> {
    let all = || (0..).map_while(|i| old.get(i));
    // Where each instruction begins in the new list; one more for jumps behind the last.
    let mut starts = vec![0];
    for instruction in all() {
        let (before, after) = checks(instruction);
        starts.push(starts[starts.len() - 1] + (before.len() + 1 + after.len()) as u32);
    }
    let mut new = Instructions::new(old.name(), old.source());
    for (i, instruction) in all().enumerate() {
        let (before, after) = checks(instruction);
        *members += usize::from(matches!(instruction, Instruction::SetAttr(_)));
        let mut instruction = replacement(instruction);
        if let Some(target) = jump_target(&mut instruction) {
            *target = starts[(*target as usize).min(starts.len() - 1)];
        }
        let line = old.get_line(i as u32).unwrap_or(1).min(u16::MAX.into()) as u16;
        for instruction in before.iter().cloned().chain([instruction]).chain(after.iter().cloned()) {
            new.add_with_line(instruction, line);
        }
    }
    new
}

fn replacement<'s>(instruction: &Instruction<'s>) -> Instruction<'s> {
    match instruction {
        Instruction::StringConcat => Instruction::CallFunction(CONCATENATED, Some(2)),
        Instruction::Rem => Instruction::CallFunction(PERCENT, Some(2)),
        other => other.clone(),
    }
}

/// Instructions to put before and behind one.
fn checks(instruction: &Instruction) -> (&'static [Instruction<'static>], &'static [Instruction<'static>]) {
    const RESULT: &[Instruction<'static>] = &[Instruction::CallFunction(CHECK, Some(1))];
    // The namespace is on top, the value below it.
    const MEMBER: &[Instruction<'static>] =
        &[Instruction::Swap, Instruction::CallFunction(CHECK_MEMBER, Some(1)), Instruction::Swap];
    // Comparing walks both sides; walking them here first pays for it.
    const BOTH: &[Instruction<'static>] = &[
        Instruction::CallFunction(CHECK_COMPARED, Some(1)),
        Instruction::Swap,
        Instruction::CallFunction(CHECK_COMPARED, Some(1)),
        Instruction::Swap,
    ];
    match instruction {
        Instruction::Eq
        | Instruction::Ne
        | Instruction::Gt
        | Instruction::Gte
        | Instruction::Lt
        | Instruction::Lte
        | Instruction::In
        | Instruction::CompareAndPreserve(_) => (BOTH, &[]),
        Instruction::BuildList(_)
        | Instruction::BuildMap(_)
        | Instruction::BuildTuple(_)
        | Instruction::Add
        | Instruction::Mul
        | Instruction::Slice
        | Instruction::ApplyFilter(..)
        | Instruction::CallFunction(..)
        | Instruction::CallMethod(..)
        | Instruction::CallObject(_) => (&[], RESULT),
        Instruction::SetAttr(_) => (MEMBER, &[]),
        _ => (&[], &[]),
    }
}

fn jump_target<'a>(instruction: &'a mut Instruction) -> Option<&'a mut u32> {
    match instruction {
        Instruction::Iterate(target)
        | Instruction::Jump(target)
        | Instruction::JumpIfFalse(target)
        | Instruction::JumpIfFalseOrPop(target)
        | Instruction::JumpIfTrueOrPop(target)
        | Instruction::BuildMacro(_, target, _) => Some(target),
        _ => None,
    }
}

/// The value, an iterator as a list, if it is small enough. Takes fuel: one unit for `per_fuel` values.
fn bounded(state: &State, value: Value, per_fuel: usize) -> Result<Value, Error> {
    weighed(state, value, per_fuel).map(|(value, _)| value)
}

/// The same, and the bytes of all text in it.
fn weighed(state: &State, value: Value, per_fuel: usize) -> Result<(Value, usize), Error> {
    let length = |value: &Value| value.as_str().map_or(0, str::len);
    if value.as_object().is_none() {
        let bytes = length(&value);
        return Ok((value, bytes));
    }
    let value = if value.kind() == ValueKind::Iterable { list(&value)? } else { value };
    let (mut nodes, mut bytes) = (0, 0);
    let mut rest = vec![(value.clone(), 0)];
    while let Some((next, depth)) = rest.pop() {
        let Some(object) = next.as_object() else { continue };
        if depth > MAX_DEPTH {
            return Err(too_large(format!("values nested deeper than {MAX_DEPTH} levels")));
        }
        if depth > 0 && is_namespace(object) {
            return Err(too_large("a namespace inside a list or mapping"));
        }
        let before = nodes;
        let mut push = |value: Value| {
            nodes += 1;
            bytes += length(&value);
            if value.as_object().is_some() {
                rest.push((value, depth + 1));
            }
            nodes <= MAX_NODES && bytes <= MAX_TEXT
        };
        let small = match object.repr() {
            ObjectRepr::Map => {
                object.try_iter_pairs().into_iter().flatten().all(|(key, value)| push(key) && push(value))
            }
            ObjectRepr::Seq | ObjectRepr::Iterable => object.try_iter().into_iter().flatten().all(push),
            _ => true,
        };
        if !small {
            return Err(too_large(format!("a list or mapping of more than {MAX_NODES} values or {MAX_TEXT} bytes")));
        }
        state.consume_fuel((nodes - before).div_ceil(per_fuel) as u64)?;
    }
    Ok((value, bytes))
}

/// An iterator's values, now: iterators over iterators would pile up.
fn list(iterator: &Value) -> Result<Value, Error> {
    let values: Vec<Value> = iterator.try_iter()?.take(MAX_NODES + 1).collect();
    Ok(Value::from(values))
}

pub(crate) fn is_namespace(object: &DynObject) -> bool {
    object.type_name().ends_with("::Namespace")
}

fn too_large(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("the template builds {what}"))
}
