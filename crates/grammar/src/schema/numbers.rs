//! Numbers of a schema: which of them llguidance takes.

use super::Place;
use crate::error::GrammarError;
use serde_json::{Map, Number, Value};

/// Integers up to here are exact as 64-bit floats, by which llguidance computes.
const MAX_NUMBER: f64 = 9_007_199_254_740_991.0;

/// A count, which JSON may write as `3.0`.
pub(super) fn count(value: &Value, at: &Place) -> Result<Value, GrammarError> {
    let count = match value.as_f64() {
        Some(count) if (0.0..=f64::from(u32::MAX)).contains(&count) && count.fract() == 0.0 => count as u64,
        _ => return Err(at.fault("expected a whole number of at least 0")),
    };
    Ok(count.into())
}

pub(super) fn number(value: &Value, at: &Place) -> Result<Value, GrammarError> {
    let number = value.as_f64().ok_or_else(|| at.fault("expected a number"))?;
    match number.abs() <= MAX_NUMBER {
        true => Ok(value.clone()),
        false => Err(at.fault("numbers beyond ±2^53 are not supported")),
    }
}

/// A step between numbers, which llguidance keeps as a decimal of 32 bits.
pub(super) fn step(value: &Value, at: &Place) -> Result<Value, GrammarError> {
    let kept = number(value, at)?;
    let mut digits = value.as_f64().unwrap_or_default();
    if digits <= 0.0 {
        return Err(at.fault("expected a number above 0"));
    }
    while digits.fract() != 0.0 {
        digits *= 10.0;
    }
    match digits <= f64::from(u32::MAX) {
        true => Ok(kept),
        false => Err(at.fault("numbers of so many digits are not supported")),
    }
}

/// `1.0` as `1`, which it equals.
pub(super) fn whole(value: Value) -> Value {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 => Value::Number(Number::from(number as i64)),
        _ => value,
    }
}

/// Refuses numbers of which none is a multiple within the bounds: llguidance finds out in the middle of an answer.
pub(super) fn check_numbers(kept: &Map<String, Value>, place: &Place) -> Result<(), GrammarError> {
    let get = |keyword: &str| kept.get(keyword).and_then(Value::as_f64);
    let (Some(step), low, high) =
        (get("multipleOf"), get("minimum").or(get("exclusiveMinimum")), get("maximum").or(get("exclusiveMaximum")))
    else {
        return Ok(());
    };
    let (Some(low), Some(high)) = (low, high) else { return Ok(()) };
    let first = (low / step).ceil() * step;
    let first = if get("exclusiveMinimum").is_some_and(|bound| first <= bound) { first + step } else { first };
    if first > high || get("exclusiveMaximum").is_some_and(|bound| first >= bound) {
        return Err(Place::In(place, "multipleOf").fault("unsatisfiable: there is no multiple within the bounds"));
    }
    Ok(())
}
