//! Filters and tests that minijinja lacks, or that differ from Jinja's.

use super::arguments::{afford, bind, integer, invalid, text};
use super::text::{is_space, str};
use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value};

type Arguments = Rest<ValueOrKwargs>;

pub(super) fn install(environment: &mut Environment) {
    environment.add_filter("attr", attr);
    environment.add_filter("center", center);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("e", escape);
    environment.add_filter("escape", escape);
    environment.add_filter("float", float);
    environment.add_filter("format", |state: &State, format: &str, values: Arguments| {
        super::formats::printf(state, format, values.into_values())
    });
    environment.add_filter("int", int);
    environment.add_filter("join", join);
    environment.add_filter("string", |state: &State, value: &Value| str(state, value));
    environment.add_filter("truncate", truncate);
    environment.add_filter("wordcount", wordcount);
    environment.add_test("callable", |value: &Value| {
        let is_macro = value.as_object().is_some_and(|object| object.type_name().ends_with("::Macro"));
        is_macro || value.kind() == ValueKind::Plain
    });
    environment.add_test("iterable", |value: &Value| !value.is_none() && minijinja::tests::is_iterable(value));
    environment.add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    environment.add_test("sequence", |value: &Value| {
        value.is_undefined() || matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
    });
}

/// Attributes are not items: a dictionary's items have none.
fn attr(value: &Value, name: &str) -> Value {
    let is_namespace = value.as_object().is_some_and(crate::bounds::is_namespace);
    if value.kind() == ValueKind::Map && !is_namespace {
        Value::UNDEFINED
    } else {
        value.get_attr(name).unwrap_or_default()
    }
}

fn center(state: &mut State, value: &Value, options: Arguments) -> Result<Value, Error> {
    let [width] = bind("center", ["width"], &options.into_values())?;
    let text = Value::from(str(state, value)?);
    text.call_method(state, "center", &[width.unwrap_or_else(|| 80.into())])
}

fn default(value: &Value, options: Arguments) -> Result<Value, Error> {
    let [instead, boolean] = bind("default", ["default_value", "boolean"], &options.into_values())?;
    let is_missing = value.is_undefined() || boolean.is_some_and(|boolean| boolean.is_true()) && !value.is_true();
    Ok(if is_missing { instead.unwrap_or_else(|| "".into()) } else { value.clone() })
}

fn escape(state: &State, value: &Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value.clone());
    }
    let text = str(state, value)?;
    afford(state, text.len().saturating_mul(5))?;
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Ok(Value::from_safe_string(escaped.replace('\'', "&#39;").replace('"', "&#34;")))
}

fn int(value: &Value, options: Arguments) -> Result<Value, Error> {
    let [default, base] = bind("int", ["default", "base"], &options.into_values())?;
    let base = integer("int", base.as_ref(), 10)?;
    let read = match value.as_str() {
        Some(text) => parse_int(text, base).or_else(|| parse_float(text).and_then(truncated)),
        None if value.kind() == ValueKind::Bool => Some(i64::from(value.is_true()).into()),
        None if value.is_integer() => Some(value.clone()),
        None => f64::try_from(value.clone()).ok().and_then(truncated),
    };
    Ok(read.or(default).unwrap_or_else(|| 0.into()))
}

fn float(value: &Value, options: Arguments) -> Result<Value, Error> {
    let [default] = bind("float", ["default"], &options.into_values())?;
    let read = match value.as_str() {
        Some(text) => parse_float(text),
        None if value.kind() == ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        None => f64::try_from(value.clone()).ok(),
    };
    Ok(read.map(Value::from).or(default).unwrap_or_else(|| 0.0.into()))
}

fn truncated(float: f64) -> Option<Value> {
    let float = float.trunc();
    (float.abs() < 1e18).then(|| Value::from(float as i64))
}

/// `int(text, base)`
fn parse_int(text: &str, base: i64) -> Option<Value> {
    let text = text.trim_matches(is_space);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.to_lowercase();
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let digits = digits.strip_prefix(prefix).unwrap_or(&digits);
    let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base))?;
    let number = i128::from_str_radix(&format!("{sign}{}", grouped(digits)?), base).ok()?;
    Some(i64::try_from(number).map_or_else(|_| number.into(), Value::from))
}

/// `float(text)`
fn parse_float(text: &str) -> Option<f64> {
    grouped(text.trim_matches(is_space))?.parse().ok()
}

/// Digits without the single underscores that may stand between them.
fn grouped(digits: &str) -> Option<String> {
    let stray = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    (!stray).then(|| digits.replace('_', ""))
}

fn join(state: &mut State, value: &Value, options: Arguments) -> Result<String, Error> {
    let [between, attribute] = bind("join", ["d", "attribute"], &options.into_values())?;
    let between = between.map_or(Ok(String::new()), |between| str(state, &between))?;
    let value = match attribute {
        None => value.clone(),
        Some(attribute) => {
            let named = minijinja::value::Kwargs::from_iter([("attribute", attribute)]);
            state.apply_filter("map", &[value.clone(), named.into()])?
        }
    };
    let mut joined = String::new();
    for (i, item) in value.try_iter()?.enumerate() {
        let item = str(state, &item)?;
        state.consume_fuel(1)?;
        afford(state, joined.len() + between.len() + item.len())?;
        if i > 0 {
            joined.push_str(&between);
        }
        joined.push_str(&item);
    }
    Ok(joined)
}

fn truncate(state: &State, value: &Value, options: Arguments) -> Result<String, Error> {
    let names = ["length", "killwords", "end", "leeway"];
    let [length, kill, end, leeway] = bind("truncate", names, &options.into_values())?;
    let (value, end) = (str(state, value)?, end.as_ref().map_or(Ok("..."), |end| text("truncate", Some(end)))?);
    let size = |given: Option<Value>, default| {
        let size = usize::try_from(integer("truncate", given.as_ref(), default)?);
        size.map_err(|_| invalid("truncate: a length is below 0".to_owned()))
    };
    let (length, leeway) = (size(length, 255)?, size(leeway, 5)?);
    let at = |n: usize| value.char_indices().nth(n).map_or(value.len(), |(at, _)| at);
    if value.chars().count() <= length.saturating_add(leeway) {
        return Ok(value);
    }
    let room = length.checked_sub(end.chars().count());
    let kept = &value[..at(room.ok_or_else(|| invalid(format!("truncate: length {length} is shorter than {end:?}")))?)];
    let kept = match kill.is_some_and(|kill| kill.is_true()) {
        true => kept,
        false => kept.rsplit_once(' ').map_or(kept, |(words, _)| words),
    };
    Ok(format!("{kept}{end}"))
}

fn wordcount(state: &State, value: &Value) -> Result<usize, Error> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    Ok(str(state, value)?.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count())
}
