//! `%` and `~`, which stand in the place of minijinja's own.

use super::arguments::{afford, invalid};
use super::formats::printf;
use super::text::str;
use crate::bounds::{CONCATENATED, PERCENT};
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, State, Value};

pub(super) fn install(environment: &mut Environment) {
    environment.add_function(CONCATENATED, concatenated);
    environment.add_function(PERCENT, percent);
}

fn concatenated(state: &State, left: &Value, right: &Value) -> Result<String, Error> {
    afford(state, left.as_str().map_or(0, str::len) + right.as_str().map_or(0, str::len))?;
    Ok(str(state, left)? + &str(state, right)?)
}

/// The remainder of numbers; a text is a format for what is on the right, a tuple's values one by one.
fn percent(state: &mut State, left: &Value, right: &Value) -> Result<Value, Error> {
    let Some(format) = left.as_str() else { return remainder(left, right) };
    let values = if right.is_tuple() {
        right.try_iter()?.collect()
    } else if right.kind() == ValueKind::Map && format.contains("%(") {
        let named = |key: Value| Ok((str(state, &key)?, right.get_item(&key)?));
        vec![Value::from(right.try_iter()?.map(named).collect::<Result<Kwargs, Error>>()?)]
    } else if right.as_object().is_some() && !format.replace("%%", "").contains('%') {
        // A list or mapping that nothing is taken from.
        vec![]
    } else {
        vec![right.clone()]
    };
    printf(state, format, values)
}

/// Remainders have the sign of the divisor, as in Python.
fn remainder(left: &Value, right: &Value) -> Result<Value, Error> {
    let failed = || invalid(format!("unable to calculate {} % {}", shown(left), shown(right)));
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !is_number(left) || !is_number(right) {
        return Err(failed());
    }
    let is_whole = |value: &Value| value.is_integer() || value.kind() == ValueKind::Bool;
    if is_whole(left) && is_whole(right) {
        let (a, b) = (i128::try_from(left.clone())?, i128::try_from(right.clone())?);
        let rest = a.checked_rem(b).ok_or_else(failed)?;
        return Ok(whole(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }));
    }
    let (a, b) = (f64::try_from(left.clone())?, f64::try_from(right.clone())?);
    if b == 0.0 {
        return Err(failed());
    }
    let rest = a % b;
    Ok(Value::from(if rest == 0.0 {
        0.0_f64.copysign(b)
    } else if (rest < 0.0) != (b < 0.0) {
        rest + b
    } else {
        rest
    }))
}

fn whole(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| Value::from(number), Value::from)
}

/// A number, or the kind of what is none.
fn shown(value: &Value) -> String {
    match value.kind() {
        ValueKind::Number | ValueKind::Bool => value.to_string(),
        kind => format!("a {kind}"),
    }
}
