//! Python's values to JSON's and back. What JSON cannot say is refused by its dotted name.

use crate::errors::raised;
use mlx_serving_bindings::Error;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};
use serde_json::{Map, Number, Value};

/// Nesting of values; no argument needs more, and a value that holds itself has no end.
const DEEPEST: usize = 64;

/// The JSON value of an argument, or of a whole object of arguments, whose `name` is empty.
pub(crate) fn to_json(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Value> {
    json(name, value, 0)
}

fn json(name: &str, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value> {
    let refuse = |error: fn(&str, String) -> Error, reason: &str| {
        let shown = if name.is_empty() { "the argument" } else { name };
        Err(raised(value.py(), error(name, format!("`{shown}` {reason}"))))
    };
    let wrong_value: fn(&str, String) -> Error = Error::value;
    let wrong_type: fn(&str, String) -> Error = Error::wrong_type;
    if depth > DEEPEST {
        return refuse(wrong_value, "is nested too deep");
    }
    if value.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Value::Bool(flag.is_true()));
    }
    // numpy's own, which is neither Python's nor a number.
    let kind = value.get_type().name()?;
    if matches!(kind.to_str()?, "bool_" | "bool") {
        return Ok(Value::Bool(value.is_truthy()?));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return match text.to_str() {
            Ok(text) => Ok(Value::String(text.to_owned())),
            Err(_) => refuse(wrong_value, "has a lone surrogate, which is no text"),
        };
    }
    if value.is_instance_of::<PyInt>() {
        return match value.extract::<u64>().map(Number::from).or_else(|_| value.extract::<i64>().map(Number::from)) {
            Ok(number) => Ok(Value::Number(number)),
            Err(_) => refuse(wrong_value, "is a whole number beyond 64 bits"),
        };
    }
    if value.is_instance_of::<PyFloat>() {
        return match Number::from_f64(value.extract()?) {
            Some(number) => Ok(Value::Number(number)),
            None => refuse(wrong_value, "is not a finite number"),
        };
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        return items(name, value, depth);
    }
    if let Ok(mapping) = value.cast::<PyMapping>() {
        let mut map = Map::new();
        for item in mapping.items()? {
            let (key, item): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            let is_text = key.is_instance_of::<PyString>();
            let is_whole = key.is_instance_of::<PyInt>() && !key.is_instance_of::<PyBool>();
            if !is_text && !is_whole {
                return refuse(wrong_type, "has a key that is no text");
            }
            let key = key.str()?.to_string_lossy().into_owned();
            let inner = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            map.insert(key, json(&inner, &item, depth + 1)?);
        }
        return Ok(Value::Object(map));
    }
    // Numbers and sequences of other libraries say so by these methods; of those that say both, the sequences are longer than one.
    let is_bytes = value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>();
    if !is_bytes && value.hasattr("__getitem__")? && value.hasattr("__len__")? {
        return items(name, value, depth);
    }
    for method in ["__index__", "__float__"] {
        if value.hasattr(method)? {
            return json(name, &value.call_method0(method)?, depth + 1);
        }
    }
    let kind = value.get_type().name()?.to_string();
    let wanted = if name == "prompt" { "takes text or a list of token ids, not" } else { "cannot be a value of type" };
    refuse(wrong_type, &format!("{wanted} {kind}"))
}

/// The JSON value of a sequence.
fn items(name: &str, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value> {
    value.try_iter()?.enumerate().map(|(at, item)| json(&format!("{name}[{at}]"), &item?, depth + 1)).collect()
}

/// Python's value of a JSON value.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(flag) => PyBool::new(py, *flag).to_owned().into_any(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into_pyobject(py)?.into_any(),
            (None, Some(number)) => number.into_pyobject(py)?.into_any(),
            (None, None) => PyFloat::new(py, number.as_f64().unwrap_or(f64::NAN)).into_any(),
        },
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| to_python(py, item)).collect::<PyResult<_>>()?;
            PyList::new(py, items)?.into_any()
        }
        Value::Object(map) => {
            let dict = PyDict::new(py);
            for (key, value) in map {
                dict.set_item(key, to_python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}
