//! Arguments as Python binds them to parameters, and memory that is asked for before it is taken.

use crate::bounds::BYTES_PER_FUEL;
use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, State, Value};

/// Arguments in the order of the parameters, by place or by name; `None` where one is not given.
pub(super) fn bind<const N: usize>(
    function: &str,
    parameters: [&str; N],
    arguments: &[Value],
) -> Result<[Option<Value>; N], Error> {
    let (placed, named) = match arguments.split_last() {
        Some((last, rest)) if last.is_kwargs() => (rest, Some(Kwargs::try_from(last.clone())?)),
        _ => (arguments, None),
    };
    if placed.len() > N {
        return Err(Error::new(
            ErrorKind::TooManyArguments,
            format!("{function} takes at most {N}, found {}", placed.len()),
        ));
    }
    let mut bound = [const { None }; N];
    for (slot, value) in bound.iter_mut().zip(placed) {
        *slot = Some(value.clone());
    }
    for name in named.iter().flat_map(Kwargs::args) {
        let at = parameters.iter().position(|parameter| *parameter == name);
        let slot = at.map(|at| &mut bound[at]).filter(|slot| slot.is_none());
        let slot = slot.ok_or_else(|| {
            Error::new(ErrorKind::TooManyArguments, format!("{function} takes no argument {name:?}, or has it already"))
        })?;
        *slot = named.as_ref().map(|named| named.get(name)).transpose()?;
    }
    Ok(bound)
}

/// The argument as text.
pub(super) fn text<'a>(function: &str, argument: Option<&'a Value>) -> Result<&'a str, Error> {
    let value = argument.ok_or_else(|| Error::new(ErrorKind::MissingArgument, format!("{function} needs a string")))?;
    value.as_str().ok_or_else(|| invalid(format!("{function} needs a string, found {}", value.kind())))
}

/// The argument as a whole number, `default` where it is not given.
pub(super) fn integer(function: &str, argument: Option<&Value>, default: i64) -> Result<i64, Error> {
    let Some(value) = argument else { return Ok(default) };
    let number = value.is_integer() || value.kind() == minijinja::value::ValueKind::Bool;
    let number = number.then(|| i64::try_from(value.clone()).ok()).flatten();
    number.ok_or_else(|| invalid(format!("{function} needs a whole number, found {value}")))
}

/// Fails if the fuel that is left does not pay for so many bytes, which are paid for once they are there.
pub(super) fn afford(state: &State, bytes: usize) -> Result<(), Error> {
    let cost = (bytes / BYTES_PER_FUEL) as u64;
    match state.fuel_levels() {
        Some((_, left)) if cost >= left => state.consume_fuel(cost),
        _ => Ok(()),
    }
}

pub(super) fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
