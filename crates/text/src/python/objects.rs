//! `joiner` and `cycler`.

use super::arguments::invalid;
use minijinja::value::{Object, ObjectRepr, Rest, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(super) fn install(environment: &mut Environment) {
    environment.add_function("joiner", |between: Option<Value>| {
        let between = plain("joiner", between.unwrap_or_else(|| ", ".into()))?;
        Ok::<_, Error>(Value::from_object(Joiner { between, used: AtomicBool::new(false) }))
    });
    environment.add_function("cycler", |items: Rest<Value>| {
        if items.is_empty() {
            return Err(invalid("cycler needs at least one value".to_owned()));
        }
        let items = items.0.into_iter().map(|item| plain("cycler", item)).collect::<Result<_, _>>()?;
        Ok(Value::from_object(Cycler { items, at: AtomicUsize::new(0) }))
    });
}

/// Values within an object are not seen by the bounds of values, so it must hold no others.
fn plain(function: &str, value: Value) -> Result<Value, Error> {
    match value.as_object() {
        None => Ok(value),
        Some(_) => Err(invalid(format!("{function} takes strings and numbers, found a {}", value.kind()))),
    }
}

/// Gives nothing when it is called first, then what stands between two parts.
#[derive(Debug)]
struct Joiner {
    between: Value,
    used: AtomicBool,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
        let () = from_args(arguments)?;
        Ok(if self.used.swap(true, Ordering::Relaxed) { self.between.clone() } else { "".into() })
    }
}

/// Gives its values in turn, again and again.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.items[self.at.load(Ordering::Relaxed)].clone())
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, arguments: &[Value]) -> Result<Value, Error> {
        let at = self.at.load(Ordering::Relaxed);
        let (value, next) = match method {
            "next" => (self.items[at].clone(), (at + 1) % self.items.len()),
            "reset" => (Value::from(()), 0),
            _ => return Err(Error::from(ErrorKind::UnknownMethod)),
        };
        let () = from_args(arguments)?;
        self.at.store(next, Ordering::Relaxed);
        Ok(value)
    }
}
